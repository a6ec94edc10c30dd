"""The free list: an object in use is nobody else's, and what is kept is bounded."""

from __future__ import annotations

import signal
import threading
from types import FrameType

from procvm._local.pool import Pool


def test_pool_take_makes_an_object_only_if_it_has_none() -> None:
    """What was left is given again, the latest first; an empty pool makes one."""
    made = iter(range(100))
    pool = Pool(4, lambda: next(made))
    first, second = pool.take(), pool.take()
    assert (first, second, len(pool)) == (0, 1, 0)
    pool.leave(first)
    pool.leave(second)
    assert [pool.take(), pool.take(), pool.take()] == [1, 0, 2]


def test_pool_that_is_full_drops_the_oldest() -> None:
    """It keeps as many as it was told to, however many come back."""
    pool = Pool(2, object)
    objects = [pool.take() for _ in range(5)]
    for used in objects:
        pool.leave(used)
    assert len(pool) == 2
    assert [pool.take(), pool.take()] == [objects[4], objects[3]]


def test_pool_clear_drops_what_is_kept() -> None:
    """After it the pool makes new ones."""
    pool = Pool(2, object)
    used = pool.take()
    pool.leave(used)
    pool.clear()
    assert len(pool) == 0
    assert pool.take() is not used


def test_pool_of_many_threads_gives_an_object_to_one_at_a_time() -> None:
    """Sixteen threads take and leave: none ever sees an object that another one uses."""
    pool: Pool[list[int]] = Pool(4, list)
    shared: list[object] = []

    def use() -> None:
        for _ in range(3000):
            room = pool.take()
            room.append(threading.get_ident())
            if len(room) != 1:
                shared.append(room)
            room.clear()
            pool.leave(room)

    threads = [threading.Thread(target=use) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not shared
    assert len(pool) <= 4


def test_pool_taken_from_in_a_signal_handler_gives_another_object() -> None:
    """A handler that runs while an object is used gets one of its own."""
    pool = Pool(2, object)
    of_handler: list[object] = []

    def handler(signo: int, frame: FrameType | None) -> None:
        of_handler.append(pool.take())

    old = signal.signal(signal.SIGUSR1, handler)
    try:
        used = pool.take()
        signal.raise_signal(signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, old)
    assert of_handler[0] is not used
