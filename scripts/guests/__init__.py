"""Boots kernels of Debian under qemu and measures what procvm can do there; see scripts/kernels."""
