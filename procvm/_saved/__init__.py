"""Memory as it was: snapshots, differences, core files."""
