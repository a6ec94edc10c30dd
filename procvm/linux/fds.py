"""File descriptors; see `procvm.fds`."""

from procvm.fds import Fd

__all__ = ["Fd"]
