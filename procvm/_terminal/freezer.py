"""`Freezer`: writes values back whenever the target has changed them."""

from __future__ import annotations

import threading
from collections.abc import Callable

import procvm
from procvm._base.closing import Closing
from procvm.errors import PageFaultError, ProcvmError

__all__ = ["Freezer", "FreezerThread"]


class Freezer:
    """Bytes that are kept at addresses of a target.

    Attributes:
        writes: How often bytes were written back.
    """

    def __init__(self, vm: procvm.VmSpace) -> None:
        self._vm = vm
        self._kept: dict[int, bytes] = {}
        self.writes = 0

    def __len__(self) -> int:
        """Returns the number of addresses."""
        return len(self._kept)

    def __contains__(self, address: int) -> bool:
        """Returns whether the bytes at an address are kept."""
        return address in self._kept

    def keep(self, address: int, data: bytes) -> None:
        """Writes bytes, and keeps them from now on.

        Raises:
            ProcvmError: They cannot be written; nothing is kept.
        """
        self._vm.write_bytes(address, data)
        self._kept[address] = data

    def leave(self, address: int) -> bool:
        """Keeps the bytes at an address no longer; returns whether they were kept."""
        return self._kept.pop(address, None) is not None

    def leave_all(self) -> int:
        """Keeps nothing any more; returns how many addresses were kept."""
        n = len(self._kept)
        self._kept.clear()
        return n

    def leave_bad(self) -> list[int]:
        """Keeps no longer what cannot be accessed; returns those addresses."""
        bad: list[int] = []
        for address, data in list(self._kept.items()):
            try:
                self._vm.write_bytes(address, data)
            except PageFaultError:
                bad.append(address)
                del self._kept[address]
        return bad

    def look(self) -> None:
        """Writes back what has changed.

        Raises:
            ProcvmError: An address cannot be accessed any more.
        """
        for address, data in list(self._kept.items()):
            if self._vm.read_bytes(address, len(data)) != data:
                self._vm.write_bytes(address, data)
                self.writes += 1


class FreezerThread(Closing):
    """A freezer that looks by itself, until it is closed."""

    def __init__(self, vm: procvm.VmSpace, interval: float, tell: Callable[[str], object]) -> None:
        """Makes one; its thread starts with the first address.

        Args:
            vm: The target's memory.
            interval: Seconds between two looks.
            tell: Gets a message about an address that is left.
        """
        self._freezer = Freezer(vm)
        self._interval = interval
        self._tell = tell
        self._lock = threading.Lock()
        self._is_over = threading.Event()
        self._thread: threading.Thread | None = None

    def __contains__(self, address: int) -> bool:
        """Returns whether the bytes at an address are kept."""
        return address in self._freezer

    def keep(self, address: int, data: bytes) -> None:
        """Writes bytes, and keeps them from now on; see `Freezer.keep`."""
        with self._lock:
            self._freezer.keep(address, data)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._thread.start()

    def leave(self, address: int) -> bool:
        """Keeps the bytes at an address no longer; returns whether they were kept."""
        with self._lock:
            return self._freezer.leave(address)

    def leave_all(self) -> int:
        """Keeps nothing any more; returns how many addresses were kept."""
        with self._lock:
            return self._freezer.leave_all()

    def _run(self) -> None:
        while not self._is_over.wait(self._interval):
            try:
                with self._lock:
                    self._freezer.look()
            except PageFaultError:
                self._leave_bad()
            except ProcvmError:
                return  # the process has ended: the next line of the user says so

    def _leave_bad(self) -> None:
        with self._lock:
            for address in self._freezer.leave_bad():
                self._tell(f"no longer frozen: {address:#x} cannot be accessed")

    def close(self) -> None:
        """Keeps nothing any more."""
        self._is_over.set()
        if self._thread is not None:
            self._thread.join()
