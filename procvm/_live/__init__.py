"""Processes: their identity, their memory, their mappings."""
