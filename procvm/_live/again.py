"""Opens a pickled program again, in another process of the same machine."""

from __future__ import annotations

from typing import NamedTuple

from procvm._live.identity import Identity, require_same
from procvm._live.image import Image, open_image
from procvm.errors import (
    Hint,
    NoSuchProcessError,
    ProcessExecedError,
    ProcessExitedError,
)

__all__ = ["Pickled", "open_again"]

_MOST_KEPT = 16


class Pickled(NamedTuple):
    """The identity of a program in a process, as a pickle carries it.

    Attributes:
        identity: The process.
        token: The 16 bytes at AT_RANDOM, which an exec changes.
        by_calls: Whether reads use process_vm_readv.
    """

    identity: Identity
    token: bytes
    by_calls: bool


# The most recent ones, so that a worker opens a target once and not for each task.
_opened: dict[Pickled, Image] = {}


def open_again(pickled: Pickled) -> Image:
    """Opens the program that was pickled, and no other.

    Raises:
        ProcessExitedError: The process has ended, even if another process has its pid now.
        ProcessExecedError: The process runs another program.
        AccessDeniedError: The kernel or a security policy denies the access; the message says
            which.
        UnsupportedError: The program was pickled in another pid namespace.
    """
    image = _opened.get(pickled)
    # A fork closes the images of the parent in the child.
    if image is None or image.closed:
        image = _open(pickled)
        for other, kept in list(_opened.items()):
            if kept.closed or kept.has_ended() or len(_opened) >= _MOST_KEPT:
                _opened.pop(other, None)
        _opened[pickled] = image
    return image


def _open(pickled: Pickled) -> Image:
    identity = pickled.identity
    pid = identity.pid
    try:
        require_same(identity)
        image = open_image(pid, by_calls=pickled.by_calls)
    except NoSuchProcessError:
        raise ProcessExitedError(f"process {pid} has ended", pid=pid) from None
    try:
        # A second time, since the process may have ended before the descriptors were opened.
        require_same(identity)
        image.prove()
        if image.token != pickled.token:
            raise ProcessExecedError(
                f"process {pid} runs another program than the one that was opened",
                pid=pid,
                hint=Hint("reopen", {"pid": pid}),
            )
    except BaseException:
        image.close()
        raise
    return image
