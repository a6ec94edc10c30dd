"""`new_file`: writes an output file that is either complete or absent."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Generator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

from procvm._base.fd import Fd
from procvm.errors import ProcvmError

__all__ = ["new_file"]

_MODE = 0o600


@contextmanager
def new_file(path: Any) -> Generator[int]:
    """Gives the descriptor of a new file, which takes the place of `path` at the end.

    The file is created with mode 0600. While it is written it has no name, where the
    file system supports that (O_TMPFILE), so no part of it is left if the tool dies. After
    an exception the file that was at `path` is unchanged. A symbolic link at `path` is
    replaced, not followed; a device is refused.

    Raises:
        OSError: As open, link and rename.
    """
    target = os.fsdecode(path)
    if os.path.isdir(target):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), target)
    if os.path.exists(target) and not os.path.isfile(target):
        # A rename would replace a device such as /dev/null by a file.
        text = "is a device, a pipe or a socket; give a file"
        raise FileExistsError(errno.EEXIST, text, target)
    folder, name = os.path.split(target)
    if not name:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), target)
    # A long `name` would make the draft's own name longer than the file system allows.
    beside = f".{os.fsdecode(os.fsencode(name)[:60])}.{secrets.token_hex(8)}"
    # By descriptor: the folder may be renamed before the file is complete.
    parent_file = Fd.open(folder or ".", os.O_PATH | os.O_DIRECTORY)
    parent = parent_file.number
    file: Fd | None = None
    named = False
    try:
        file, named = _open(parent, beside)
        fd = file.number
        os.fchmod(fd, _MODE)  # the umask may have removed bits
        yield fd
        # A name of its own first: a link cannot take the place of a file, a rename can.
        if not named:
            named = True  # first, since Ctrl-C may come after the link
            try:
                os.link(f"/proc/self/fd/{fd}", beside, src_dir_fd=parent, dst_dir_fd=parent)
            except FileExistsError:
                named = False  # another process made it
                raise
        os.rename(beside, name, src_dir_fd=parent, dst_dir_fd=parent)
        named = False
    except OSError as error:
        # Refuses ".", an empty name, and the draft itself.
        if not isinstance(error, ProcvmError):
            error.filename, error.filename2 = target, None
        raise
    finally:
        if named:
            with suppress(FileNotFoundError):
                os.unlink(beside, dir_fd=parent)
        if file is not None:
            file.close()
        parent_file.close()


def _open(parent: int, beside: str) -> tuple[Fd, bool]:
    """Opens a file for writing; returns it and whether it has a name."""
    flags = os.O_RDWR | os.O_CLOEXEC
    open_in = partial(os.open, dir_fd=parent)
    try:
        return Fd.of(open_in, ".", flags | os.O_TMPFILE, _MODE), False
    except OSError as error:
        # File systems and old kernels without O_TMPFILE answer one of these.
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL):
            raise
    flags |= os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    return Fd.of(open_in, beside, flags, _MODE), True
