"""What is mounted where, as /proc tells it; the parser is pure."""

from __future__ import annotations

import os
import re
from typing import NamedTuple

from procvm._linux import procfs

__all__ = ["Mount", "kinds_by_device", "parse_mountinfo", "read_mounts"]


class Mount(NamedTuple):
    """A mount.

    Attributes:
        root: What of the file system is at its place: ``/``, or a folder of it.
        point: Its place; a str as of `os.fsdecode`.
        kind: Of the file system: ``proc``, ``cgroup2``.
        options: Those of the file system, not those of the mount.
        dev: Major and minor number of its device, as /proc/PID/maps has them.
    """

    root: str
    point: str
    kind: str
    options: list[str]
    dev: tuple[int, int] = (0, 0)


def parse_mountinfo(data: bytes) -> list[Mount]:
    """Parses /proc/PID/mountinfo; the last one of a place comes last."""
    found: list[Mount] = []
    for line in data.split(b"\n"):
        place, dash, rest = line.partition(b" - ")
        left, right = place.split(b" "), rest.split(b" ")
        if dash and len(left) >= 6 and len(right) >= 3:
            options = [os.fsdecode(option) for option in right[2].split(b",")]
            major, _, minor = left[2].partition(b":")
            dev = int(major), int(minor)
            found.append(Mount(_text(left[3]), _text(left[4]), _text(right[0]), options, dev))
    return found


def kinds_by_device(data: bytes) -> dict[tuple[int, int], str]:
    """Returns the kind of the file system of each device in /proc/PID/mountinfo."""
    found: dict[tuple[int, int], str] = {}
    for line in data.split(b"\n"):
        place, dash, rest = line.partition(b" - ")
        left, kind = place.split(b" "), rest.partition(b" ")[0]
        major, colon, minor = left[2].partition(b":") if dash and len(left) >= 6 else (b"",) * 3
        if colon and major.isdigit() and minor.isdigit():
            found[int(major), int(minor)] = _text(kind)
    return found


def _text(field: bytes) -> str:
    # Spaces, tabs, newlines and backslashes are three octal digits there.
    return os.fsdecode(re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), field))


def read_mounts(pid: int | str = "self") -> list[Mount]:
    """Returns what is mounted for the tool or a process; nothing if /proc does not tell."""
    return parse_mountinfo(procfs.read_bytes(f"/proc/{pid}/mountinfo") or b"")
