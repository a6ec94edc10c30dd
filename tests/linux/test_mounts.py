"""Mounts, as /proc/PID/mountinfo tells them."""

from __future__ import annotations

from procvm._linux.mounts import Mount, parse_mountinfo, read_mounts


def test_lines_of_mountinfo() -> None:
    """Optional fields are passed over, escapes are undone, and what is no line is left out."""
    data = (
        b"22 1 0:21 / /proc rw,nosuid shared:12 - proc proc rw,hidepid=invisible,gid=5\n"
        b"40 22 0:30 /a\\040b /mnt/x\\134\\011y rw - cgroup cgroup rw,freezer\n"
        b"41 22 0:31 / /plain rw shared:1 master:2 - tmpfs  rw\n"
        b"nonsense\n\n"
    )
    assert parse_mountinfo(data) == [
        Mount("/", "/proc", "proc", ["rw", "hidepid=invisible", "gid=5"], (0, 21)),
        Mount("/a b", "/mnt/x\\\ty", "cgroup", ["rw", "freezer"], (0, 30)),
        Mount("/", "/plain", "tmpfs", ["rw"], (0, 31)),
    ]


def test_the_mounts_of_the_tool() -> None:
    """The tool finds the /proc that it looks at."""
    assert any(mount.point == "/proc" and mount.kind == "proc" for mount in read_mounts())
