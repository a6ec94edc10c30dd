"""Programs that tests read and write, compiled from source when a test first needs them."""
