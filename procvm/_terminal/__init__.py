"""Value types and conditions, as the command and the viewer write them."""
