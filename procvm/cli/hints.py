"""How a user of the command follows the hint of an error."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

__all__ = ["WORDINGS"]

WORDINGS: Mapping[str, str] = MappingProxyType(
    {
        "admit": "procvm read, write and snapshot need no hold of a process that they may open",
        "attach": "procvm write --expect holds the process",
        "forced": "procvm maps {pid} shows the permissions, and --force ignores them",
        "held_snapshot": "save it again with procvm snapshot --hold",
        "longest_hold": "try again",
        "maps": "procvm maps {pid} lists what is mapped",
        "max_len": "procvm hexdump shows the bytes if it is not a string",
        "open": "procvm read and procvm write do not hold it",
        "other_tracee": "end the other hold first",
        "pid_as_int": "procvm ps lists the processes",
        "processes": "procvm ps lists them",
        "ranges": "name a mapping with --in",
        "read_bytes": "procvm read reads the page, and so allocates it",
        "registers": "procvm write --expect and procvm snapshot hold the process",
        "reopen": "run the command again",
        "restore_to": "name a live process",
        "stop": "hold it first",
        "unforced": "leave out --force",
    }
)
"""A wording for each key of a hint; the library words them for Python in ``procvm.errors``."""
