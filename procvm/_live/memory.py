"""`ProcessMemory`: the memory of a live process, with its atomics, its holds and its pickling."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, final

from procvm._base.perms import SHARED
from procvm._base.pods import PodAtomic
from procvm._live.again import Pickled, open_again
from procvm._live.atomics import Atomic, Holder, on_shared, vma_of_atomic
from procvm._live.image import Image
from procvm._live.writes import Writable
from procvm.errors import Hint, NotTracedError

__all__ = ["Holding", "ProcessMemory"]

Holding: TypeAlias = Callable[[], Callable[[], AbstractContextManager[object]] | None]
"""Returns the function that holds a process; None once the process was dropped."""

T = TypeVar("T")

_OF_OPEN = ("image", "_calls")


@final
class ProcessMemory(Writable):
    """An image's memory, as the target's own accesses see it or with page protections ignored."""

    def __init__(
        self, image: Image, holder: Holder | None = None, *, ignore_protections: bool = False
    ) -> None:
        self.image = image
        self._calls = image.calls
        self._prepare(holder, forced=ignore_protections, pickled=None)

    def _prepare(self, holder: Holder | None, *, forced: bool, pickled: Pickled | None) -> None:
        self._holder = holder
        self._forced = forced
        self._pickled = pickled
        # It refers to the process weakly. A cycle of the two would keep descriptors open until
        # the garbage collector runs.
        self.holding: Holding | None = None

    @classmethod
    def of_pickled(cls, pickled: Pickled, *, forced: bool) -> ProcessMemory:
        """Returns memory whose process is opened at the first access."""
        memory = cls.__new__(cls)
        memory._prepare(None, forced=forced, pickled=pickled)
        return memory

    def __repr__(self) -> str:
        return f"process {self.pid}" + (", forced" if self._forced else "")

    @property
    def pid(self) -> int:
        """The pid of the process."""
        return self.image.pid if self._pickled is None else self._pickled.identity.pid

    def __reduce__(self) -> tuple[Any, ...]:
        pickled = self._pickled
        if pickled is None:
            image = self.image
            pickled = Pickled(image.identity(), image.current_token(), image.by_calls)
        return _unpickled, (pickled, self._forced)

    if not TYPE_CHECKING:  # to a type checker every memory has its image

        def __getattr__(self, name: str) -> Any:
            # Memory that was unpickled opens its process here, at the first access. An error
            # during unpickling would break the whole pool of workers that it was sent to.
            if name not in _OF_OPEN or self._pickled is None:
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            self.image = open_again(self._pickled)
            self._calls = self.image.calls
            return getattr(self, name)

    def forced(self) -> ProcessMemory:
        """Returns the same memory with page protections ignored."""
        if self._pickled is not None:
            return _unpickled(self._pickled, forced=True)
        other = ProcessMemory(self.image, self._holder, ignore_protections=True)
        other.holding = self.holding
        return other

    # Holds

    @contextmanager
    def held(self) -> Generator[Callable[[], bool] | None]:
        """Holds the target if it was attached to; see `UserMemory.held`."""
        hold = None if self.holding is None else self.holding()
        if hold is None or self._holder is None:
            yield self.lasting()
            return
        with hold():
            # A hold that was over at once does not last; None would say that there was no hold.
            yield self.lasting() or (lambda: False)

    def lasting(self) -> Callable[[], bool] | None:
        """Returns a function that tells whether the current hold lasts; None without a hold."""
        pages = self.image.pages
        return pages.lasts if pages is not None and pages.lasts() else None

    # Atomics

    def atomic_load(self, address: int, pod: PodAtomic[T]) -> T:
        """Loads a value: with the processor from shared memory, in a hold from private memory."""
        return pod.from_bytes(self._atomic(Atomic(address, pod.size)))

    def atomic_compare_exchange(
        self, address: int, pod: PodAtomic[T], old: T, new: T
    ) -> tuple[T, bool]:
        """Exchanges a value: with the processor in shared memory, in a hold in private memory."""
        expected = pod.to_bytes(old)
        found = self._atomic(Atomic(address, pod.size, expected, pod.to_bytes(new)))
        return pod.from_bytes(found), found == expected

    def _atomic(self, what: Atomic) -> bytes:
        image, forced = self.image, self._forced
        if self._holder is not None:
            found = self._holder.quick_atomic(what, forced=forced)
            if found is not None:
                return found
        if vma_of_atomic(image, what, forced=forced).flags & SHARED:
            return on_shared(image, what, forced=forced)
        if self._holder is None:
            raise NotTracedError(
                f"cannot access process {image.pid} at {what.address:#x} atomically: it was opened "
                "without tracing, and an atomic on private memory needs its threads stopped",
                pid=image.pid,
                hint=Hint("attach"),
            )
        return self._holder.atomic(self, what)


def _unpickled(pickled: Pickled, forced: bool) -> ProcessMemory:
    return ProcessMemory.of_pickled(pickled, forced=forced)
