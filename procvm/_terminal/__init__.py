"""Value types and conditions as the command and the viewer word them."""
