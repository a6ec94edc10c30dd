"""Our own memory: the raw loads, stores and copies, and nothing of the kernel's."""
