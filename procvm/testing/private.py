"""Checks that no other user can replace a folder or a program."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from procvm._base.fd import Fd

__all__ = ["is_own_program", "is_private"]

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def is_private(folder: Path) -> bool:
    """Returns whether only this user and root can put files into a folder, or replace it.

    The folder has to belong to this user. Each folder above it belongs to this user or to
    root, and no other user can write to it, or the sticky bit keeps what is in it.
    """
    parts = Path(os.path.realpath(folder)).parts
    above = Fd.open(parts[0], os.O_PATH | os.O_DIRECTORY)
    try:
        for name in parts[1:]:
            if not _is_safe_above(os.fstat(above.number)):
                return False
            # Opened relative to the parent, without links: otherwise a folder could be swapped
            # after its check.
            flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW
            inner = Fd.open_at(above.number, name, flags)
            above.close()
            above = inner
        status = os.fstat(above.number)
    except OSError:
        return False
    finally:
        above.close()
    return status.st_uid == os.geteuid() and not status.st_mode & _OTHERS_WRITE


def _is_safe_above(status: os.stat_result) -> bool:
    return status.st_uid in (0, os.geteuid()) and (
        not status.st_mode & _OTHERS_WRITE or bool(status.st_mode & stat.S_ISVTX)
    )


def is_own_program(path: Path) -> bool:
    """Returns whether a path is a program of this user that no other user can change.

    A symbolic link is refused, and so is a file with a second hard link, which another user may
    have made.
    """
    try:
        with Fd.open(os.fspath(path), os.O_PATH | os.O_NOFOLLOW) as file:
            status = os.fstat(file.number)
    except OSError:
        return False
    return (
        stat.S_ISREG(status.st_mode)
        and status.st_uid == os.geteuid()
        and not status.st_mode & _OTHERS_WRITE
        and status.st_nlink == 1
    )
