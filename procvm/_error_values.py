"""The values that errors carry beside their messages: hints and candidates."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

__all__ = ["WORDINGS", "Candidate", "Hint", "ProcessCandidate"]


class Hint(NamedTuple):
    """Names a way out of an error, which each front end puts into its own words.

    Attributes:
        key: Names the way out; a key of the table of wordings.
        values: What the wording needs to know, by name.
    """

    key: str
    values: Mapping[str, str | int] = MappingProxyType({})

    def worded(self, wordings: Mapping[str, str]) -> str:
        """Returns the hint in the words of a table from keys to texts with ``{values}``."""
        return wordings[self.key].format_map(self.values)

    def __reduce__(self) -> tuple[Any, ...]:
        # A mappingproxy cannot be pickled.
        return Hint, (self.key, dict(self.values))


WORDINGS: Mapping[str, str] = MappingProxyType(
    {
        "admit": "start it with procvm.spawn(), or with preexec_fn=procvm.allow_attach()",
        "attach": "procvm.attach(pid) opens a process that can be held",
        "forced": "maps() shows the permissions, and vm.forced() ignores them as a debugger does",
        "held_snapshot": "take the snapshot of a Tracee, which is held meanwhile",
        "longest_hold": "give attach() or spawn() a longer longest_hold, or do less in one hold",
        "maps": "maps() lists what is mapped",
        "max_len": "give a larger max_len, or use read_bytes() if it is not a string",
        "open": "procvm.open(pid) reads and writes it without a hold",
        "other_tracee": "use that Tracee, or end its hold",
        "pid_as_int": "give a pid as an int: {pid}",
        "processes": "psutil or ps lists the processes",
        "ranges": "give the ranges to look in as ranges=",
        "read_bytes": "vm.read_bytes() reads the page, and so allocates it",
        "registers": "hold it with stopped() of a Tracee",
        "reopen": "open or attach to process {pid} again",
        "restore_to": "give restore() the vm of a process",
        "stop": "call stop() first, or hold it with stopped()",
        "unforced": "use the vm itself, not its forced()",
    }
)
"""How Python code follows each hint. The command has its own in ``procvm.cli.hints``."""


class ProcessCandidate(NamedTuple):
    """One of several processes that have the same name.

    Attributes:
        pid: Its pid.
        name: Its comm, printable.
        command: Its command line, printable; empty if it has none.
    """

    pid: int
    name: str
    command: str


class Candidate(NamedTuple):
    """One of several symbols that a name may mean.

    Attributes:
        name: A name that means this symbol alone; `symbol` and the commands take it.
        address: Its address.
    """

    name: str
    address: int
