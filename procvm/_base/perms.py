"""`Perms`: the permissions of a mapping."""

from __future__ import annotations

from enum import IntFlag
from typing import cast

__all__ = ["EXEC", "READ", "SHARED", "WRITE", "Perms", "needed"]


class Perms(IntFlag):
    """The permissions of a mapping, with the values of PROCMAP_QUERY.

    Source:
        The kernel's ``include/uapi/linux/fs.h``.
    """

    READ = 1
    WRITE = 2
    EXEC = 4
    SHARED = 8

    @property
    def readable(self) -> bool:
        """Whether the mapping may be read."""
        return bool(self & Perms.READ)

    @property
    def writable(self) -> bool:
        """Whether the mapping may be written."""
        return bool(self & Perms.WRITE)

    @property
    def executable(self) -> bool:
        """Whether code in the mapping may run."""
        return bool(self & Perms.EXEC)

    @property
    def shared(self) -> bool:
        """Whether writes reach the file, or the other processes that map the same memory."""
        return bool(self & Perms.SHARED)

    def __str__(self) -> str:
        """Returns the four letters of /proc/PID/maps, as in ``rw-p``."""
        letters = zip("rwx", (Perms.READ, Perms.WRITE, Perms.EXEC), strict=True)
        shared = "s" if self & Perms.SHARED else "p"
        return "".join(letter if self & flag else "-" for letter, flag in letters) + shared


# Plain numbers: the operators of an IntFlag take longer than the accesses they decide on.
READ, WRITE, EXEC, SHARED = (int(flag) for flag in Perms)

_LETTERS = {"r": Perms.READ, "w": Perms.WRITE, "x": Perms.EXEC, "s": Perms.SHARED}


def needed(perms: str | Perms | None) -> tuple[Perms, bool]:
    """Returns the flags that `perms` asks for, and whether it asks for a private mapping.

    Args:
        perms: Flags, letters of ``rwxsp``, or None for no demand.

    Raises:
        TypeError: Neither text nor flags.
        ValueError: Another letter.
    """
    if perms is None:
        return Perms(0), False
    if isinstance(perms, Perms):
        return perms, False
    if not isinstance(cast("object", perms), str):
        raise TypeError(f"perms is letters such as 'rw', or Perms, not {type(perms).__name__}")
    unknown = set(perms) - {*"rwxsp-"}
    if unknown:
        raise ValueError(f"perms {perms!r}: give letters of r, w, x, s and p")
    need = Perms(0)
    for letter in perms:
        need |= _LETTERS.get(letter, Perms(0))
    return need, "p" in perms
