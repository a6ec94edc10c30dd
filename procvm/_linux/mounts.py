"""Reads the mounts of a process from /proc/PID/mountinfo."""

from __future__ import annotations

import os
import re
from typing import NamedTuple

from procvm._linux import procfs

__all__ = [
    "Hiding",
    "Mount",
    "hiding",
    "kinds_by_device",
    "parse_mountinfo",
    "proc_options",
    "read_mounts",
]


class Mount(NamedTuple):
    """A mount.

    Attributes:
        root: The folder of the file system that is mounted; ``/`` for all of it.
        point: The mount point, as `os.fsdecode` gives it.
        kind: The type of the file system, such as ``proc`` or ``cgroup2``.
        options: The options of the file system, without those of the mount.
        dev: The major and minor device number, as /proc/PID/maps has them.
    """

    root: str
    point: str
    kind: str
    options: list[str]
    dev: tuple[int, int] = (0, 0)


def parse_mountinfo(data: bytes) -> list[Mount]:
    """Parses /proc/PID/mountinfo; of several mounts at one point the visible one comes last."""
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
    """Returns the file system type of each device in /proc/PID/mountinfo."""
    found: dict[tuple[int, int], str] = {}
    for line in data.split(b"\n"):
        place, dash, rest = line.partition(b" - ")
        left, kind = place.split(b" "), rest.partition(b" ")[0]
        major, colon, minor = left[2].partition(b":") if dash and len(left) >= 6 else (b"",) * 3
        if colon and major.isdigit() and minor.isdigit():
            found[int(major), int(minor)] = _text(kind)
    return found


def _text(field: bytes) -> str:
    # The kernel writes a space, tab, newline or backslash as a backslash and three octal digits.
    return os.fsdecode(re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), field))


class Hiding(NamedTuple):
    """The option of /proc that hides processes of other users.

    Attributes:
        option: The option, such as ``hidepid=invisible``.
        group: The group whose members see all processes; None without one.
    """

    option: str
    group: int | None


def proc_options() -> list[str] | None:
    """Returns the options of the proc file system on /proc; None if no mount of it is shown."""
    here = [mount for mount in read_mounts() if mount.point == "/proc" and mount.kind == "proc"]
    return here[-1].options if here else None


def hiding(options: list[str]) -> Hiding | None:
    """Returns how a proc file system with these options hides processes; None if it does not.

    Source:
        proc(5), hidepid. The kernel ignores the group of the strictest kind, ``ptraceable``.
    """
    option = next((option for option in options if option.startswith("hidepid=")), "hidepid=off")
    value = option.partition("=")[2]
    if value in ("0", "off"):
        return None
    group = next((option[4:] for option in options if option.startswith("gid=")), "")
    if value in ("4", "ptraceable") or not group.isdecimal():
        return Hiding(option, None)
    return Hiding(option, int(group))


def read_mounts(pid: int | str = "self") -> list[Mount]:
    """Returns the mounts of the tool or a process; none if the file cannot be read."""
    return parse_mountinfo(procfs.read_bytes(f"/proc/{pid}/mountinfo") or b"")
