"""Opens in another process of this machine what one of them had open."""

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
    """A program in a process, as a pickle carries it.

    Attributes:
        identity: The process.
        token: What stands at AT_RANDOM, which an exec changes.
        by_calls: Whether reads go by process_vm_readv.
    """

    identity: Identity
    token: bytes
    by_calls: bool


# The last ones, so that a worker opens a target once and not for each piece of work.
_opened: dict[Pickled, Image] = {}


def open_again(pickled: Pickled) -> Image:
    """Opens the program in the process that was pickled, and no other.

    Raises:
        ProcessExitedError: The process has ended, whatever has its pid now.
        ProcessExecedError: It runs another program.
        AccessDeniedError: Something does not allow it; the message names it.
        UnsupportedError: It was pickled in another pid namespace.
    """
    image = _opened.get(pickled)
    # Closed by the fork that made this process.
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
        # Once more, now that the descriptors are open: it may have ended in between.
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
