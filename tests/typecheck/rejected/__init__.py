"""Programs in which both checkers reject the line marked so, and no other."""
