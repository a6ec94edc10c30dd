"""Programs that both checkers accept."""
