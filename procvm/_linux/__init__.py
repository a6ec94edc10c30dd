"""The kernel's interfaces: the only raw system calls and the only readers of /proc."""
