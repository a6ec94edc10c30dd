"""The viewer: a process in a terminal, live. It needs textual, and is imported only where used."""
