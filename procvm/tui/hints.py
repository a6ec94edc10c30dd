"""How a user of the viewer follows the hint of an error."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from procvm._error_values import WORDINGS as LIBRARY
from procvm.errors import ProcvmError

__all__ = ["WORDINGS", "said_by"]

WORDINGS: Mapping[str, str] = MappingProxyType(
    {
        **LIBRARY,  # for what a viewer never meets
        "admit": "viewing and editing work without a hold",
        "attach": "p holds the process",
        "forced": "the list of regions shows the permissions; e can ignore them",
        "held_snapshot": "p holds the process meanwhile",
        "longest_hold": "p holds the process again",
        "maps": "the list of regions shows what is mapped",
        "max_len": "the rows show the bytes if it is not a string",
        "open": "reading works without a hold",
        "other_tracee": "end the other hold first",
        "pid_as_int": "leave with q; procvm ps lists the processes",
        "processes": "leave with q; procvm ps lists the processes",
        "ranges": "go to a region with [ or ]",
        "read_bytes": "go to its address to see its bytes",
        "registers": "p holds the process",
        "reopen": "leave with q, and start the viewer again",
        "restore_to": "view a live process",
        "stop": "p holds the process",
        "unforced": "choose to respect page protections",
    }
)
"""A wording for each key of a hint."""


def said_by(error: Exception) -> str:
    """Returns the message of an error, its hint in the words of the viewer."""
    return error.worded(WORDINGS) if isinstance(error, ProcvmError) else str(error)
