"""The one at-fork hook: a forked child closes what it inherits of the tool."""

from __future__ import annotations

import functools
import itertools
import os
import weakref
from typing import Protocol

__all__ = ["Forked", "register"]


class Forked(Protocol):
    """An object that keeps resources which a forked child must not use."""

    def after_fork_in_child(self) -> None:
        """Drops the resources, in the child, where a lock may be held by a thread that is gone."""
        ...


# References without a callback, and not a WeakSet: a callback is Python that runs in a
# deallocation, where a Ctrl-C is swallowed. Under numbers that never come again, so that
# no thread removes what another one adds meanwhile.
_registered: dict[int, weakref.ref[Forked]] = {}
_numbers = itertools.count()
_MANY = 16
_prune_at = _MANY


def register(thing: Forked) -> None:
    """Calls `after_fork_in_child` of `thing` in every child, for as long as it lives."""
    global _prune_at  # noqa: PLW0603 (how long the one registry may grow)
    _hook()
    if len(_registered) >= _prune_at:
        for number, found in list(_registered.items()):
            if found() is None:
                _registered.pop(number, None)
        # At twice as many as live: then the price of it is the same for each `register`.
        _prune_at = 2 * len(_registered) + _MANY
    _registered[next(_numbers)] = weakref.ref(thing)


@functools.cache
def _hook() -> None:
    os.register_at_fork(after_in_child=_after_fork_in_child)


def _after_fork_in_child() -> None:
    for found in list(_registered.values()):
        thing = found()
        if thing is not None:
            thing.after_fork_in_child()
