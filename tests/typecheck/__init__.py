"""What the types let pass and what they do not."""
