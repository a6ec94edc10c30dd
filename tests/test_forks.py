"""The registry of fork hooks."""

from __future__ import annotations

import gc
import os

from procvm._base import forks


class _Thing:
    """Something that tells in the child whether it was let go of."""

    def __init__(self) -> None:
        self.forgotten = False

    def after_fork_in_child(self) -> None:
        self.forgotten = True


def test_register_fork_lets_go_in_the_child_only() -> None:
    """Each registered object is told once in the child, and none in the parent."""
    things = [_Thing() for _ in range(100)]
    for thing in things:
        forks.register(thing)
    pid = os.fork()
    if pid == 0:
        os._exit(0 if all(thing.forgotten for thing in things) else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert not any(thing.forgotten for thing in things)


def test_register_dropped_objects_are_not_kept() -> None:
    """The registry does not grow with what is gone, and runs nothing as it goes."""
    kept = _Thing()
    forks.register(kept)
    for _ in range(10_000):
        forks.register(_Thing())
    gc.collect()
    assert len(forks._registered) < 1000  # noqa: SLF001 (the registry)
    pid = os.fork()
    if pid == 0:
        os._exit(0 if kept.forgotten else 1)
    assert os.waitpid(pid, 0)[1] == 0
