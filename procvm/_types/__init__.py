"""Types, variables and stacks from debug information, by drgn over any memory."""
