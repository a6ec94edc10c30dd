"""`gather`: one value from each of many addresses.

A vectored read costs by the range and by the page, and most when it jumps
about. So a gather sorts its addresses, reads those that stand near each other
as one range, and puts the values back in the order that was asked for.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

from procvm._base.address import as_address, page_end
from procvm._base.optional import numpy_or_none
from procvm._base.perms import READ
from procvm._base.pods import Pod
from procvm._local.buffers import Scratch
from procvm._mm.memory import UserMemory
from procvm._space.element import Element, element_of
from procvm.errors import InvalidArgsError, PageFaultError

__all__ = [
    "NR_RANGES",
    "addresses_of",
    "at_index",
    "check_faults",
    "gather",
    "list_of",
    "require_inside",
]

NR_RANGES = 1023
"""Ranges that one call reads; see `Memory.readv_packed`."""

_GAP = 2048
"""Bytes between two values that cost less to read than a range of their own; less than a page."""

_SEGMENT_SHIFT = 16
"""No range goes over a multiple of 64 KiB, so that a few thousand values take a few MiB."""

_ROOM = 4 << 20
_MOST = 8192
_BLOCK = 1 << 21
"""Addresses that are sorted at a time, which bounds what sorting takes."""

_LARGEST = (1 << 31) - 1
"""Bytes that numpy takes for one value."""


def addresses_of(np: Any, addresses: Any) -> Any:
    """Returns addresses as an array of unsigned words, of the shape they were given in."""
    if isinstance(addresses, np.ndarray):
        if addresses.dtype.kind not in "ui":
            raise TypeError(f"addresses are whole numbers, not {addresses.dtype}")
        if addresses.dtype.kind == "i" and addresses.size and int(addresses.min()) < 0:
            as_address(int(addresses.min()))  # raises
        return addresses.astype(np.uint64, copy=False)
    return np.array(list_of(addresses), dtype=np.uint64)


def list_of(addresses: Iterable[Any]) -> list[int]:
    if isinstance(addresses, str | bytes | bytearray):
        raise TypeError(f"addresses are numbers, not {type(addresses).__name__}")
    return [a if type(a) is int and 0 <= a < 1 << 64 else as_address(a) for a in addresses]


def check_faults(faults: str) -> bool:
    if faults not in ("raise", "mask"):
        raise ValueError(f'faults is "raise" or "mask", not {faults!r}')
    return faults == "mask"


def gather(memory: UserMemory, addresses: Any, kind: Any, faults: str) -> Any:
    """Reads one value at each address; see `VmSpace.gather`."""
    mask = check_faults(faults)
    np = numpy_or_none()
    element = element_of(kind)
    if np is None:
        return _gather_plain(memory, list_of(addresses), element, mask=mask)
    given = addresses_of(np, addresses)
    try:
        values, ok = _Gather(np, memory, element.size).all(given.reshape(-1))
        if ok is not None and not ok.any():
            memory.regions()  # raises if the target has gone, which no mask says
        if ok is not None and not mask:
            _read_again(np, memory, given.reshape(-1), values, ok)
    except MemoryError:
        raise _too_many(given.size, element.size) from None
    found: Any
    if element.dtype is None:
        found = cast("Pod[Any]", element.pod).slice_from_bytes(values.tobytes(), given.size)
    else:
        found = values.view(element.dtype.base).reshape(given.shape + element.dtype.shape)
    if not mask:
        return found
    if ok is None:
        ok = np.ones(given.size, bool)
    return found, ok.reshape(given.shape)


def _too_many(n: int, size: int) -> InvalidArgsError:
    return InvalidArgsError(
        f"{n} values of {size} bytes do not fit this process's memory; gather them in parts"
    )


def _read_again(np: Any, memory: UserMemory, addresses: Any, values: Any, ok: Any) -> None:
    """Raises the fault of the first value that could not be read, as its own read gives it."""
    size = values.dtype.itemsize
    raw = values.view(np.uint8).reshape(-1, size)
    for index in np.flatnonzero(~ok).tolist():
        scratch = Scratch(size)
        address = int(addresses[index])
        try:
            require_inside(memory, address, size)
            memory.read(address, scratch.address, size)
        except PageFaultError as error:
            raise at_index(error, index, address, size) from None
        # The target has mapped it meanwhile.
        raw[index] = np.frombuffer(scratch.view, np.uint8)


def require_inside(memory: UserMemory, address: int, size: int) -> None:
    """Raises PageFaultError for a value that leaves user space."""
    if address + size > memory.end:
        raise PageFaultError(
            f"[{address:#x}, {address + size:#x}) leaves user space, which ends at {memory.end:#x}",
            address=address,
            pid=memory.pid,
        )


def at_index(error: PageFaultError, index: int, address: int, size: int) -> PageFaultError:
    return PageFaultError(
        f"element {index}, at {address:#x}: {error.message}",
        address=error.address,
        pid=error.pid,
        errno=error.errno or 0,
        copied_len=index * size + error.copied_len,
        index=index,
        hint=error.hint,
    )


class _Gather:
    """The way by numpy: sorted, near ones merged, and a bad one hides no good one."""

    def __init__(self, np: Any, memory: UserMemory, size: int) -> None:
        self._np = np
        self._memory = memory
        self._size = size
        # As numbers where there are such, which numpy moves quickest.
        if size > _LARGEST:
            raise MemoryError
        self._item = np.dtype({1: "u1", 2: "u2", 4: "u4", 8: "u8"}.get(size, f"V{size}"))
        self._per_chunk = max(1, min(_MOST, _ROOM // size))
        self._vector = np.zeros((NR_RANGES + 1, 2), np.uint64)
        self._words = memoryview(self._vector.reshape(-1))
        self._readable: tuple[Any, Any] | None = None

    def all(self, addresses: Any) -> tuple[Any, Any]:
        """Returns the values in the order of the addresses, and which are good; None for all."""
        np = self._np
        n = len(addresses)
        values = np.zeros(n, self._item)
        good: Any = None
        last_start = max(self._memory.end - self._size, 0)
        for begin in range(0, n, _BLOCK):
            block = addresses[begin : begin + _BLOCK]
            is_sorted = bool((block[1:] >= block[:-1]).all())
            order = None if is_sorted else np.argsort(block)
            ranked = block if order is None else block[order]
            # Addresses that leave user space come after all others.
            count = int(np.searchsorted(ranked, np.uint64(last_start), "right"))
            for first in range(0, len(ranked), self._per_chunk):
                last = min(first + self._per_chunk, len(ranked))
                at: Any = slice(begin + first, begin + last)
                if order is not None:
                    at = order[first:last] + begin
                found, ok = self._chunk(ranked[first : min(last, max(count, first))], last - first)
                values[at] = found
                if ok is not None:
                    if good is None:
                        good = np.ones(n, bool)
                    good[at] = ok
        return values, good

    def _chunk(self, ranked: Any, n: int) -> tuple[Any, Any]:
        """Reads sorted addresses; those after them, up to `n`, cannot be read."""
        np = self._np
        if len(ranked) == n:
            if self._readable is None:
                found = self._read(ranked)
                if found is not None:
                    return found, None
            # Some cannot be read; leaving out those known to be unreadable saves system calls.
            self._learn()
        ok = np.zeros(n, bool)
        values = np.zeros(n, self._item)
        likely = self._likely(ranked)
        part = ranked if likely is None else ranked[likely]
        read = np.ones(len(part), bool)
        if len(part):
            found = self._read(part, read)
            if likely is None:
                values[: len(part)] = found
                ok[: len(part)] = read
            else:
                at = np.flatnonzero(likely)
                values[at] = found
                ok[at] = read
        values[~ok] = np.zeros((), self._item)
        return values, None if ok.all() else ok

    def _learn(self) -> None:
        np = self._np
        if self._readable is not None:
            return
        found = self._memory.regions()
        if found is None:
            self._readable = (None, None)
            return
        pairs: list[list[int]] = []
        for start, end, flags in found:
            if not flags & READ and not self._memory.is_forced:
                continue
            if pairs and pairs[-1][1] == start:
                pairs[-1][1] = end
            else:
                pairs.append([start, end])
        table = np.array(pairs, np.uint64).reshape(-1, 2)
        self._readable = (table[:, 0].copy(), table[:, 1].copy())

    def _likely(self, ranked: Any) -> Any:
        """Returns which addresses lie in a readable mapping, by the mappings of a moment ago."""
        np = self._np
        if self._readable is None or self._readable[0] is None:
            return None
        starts, ends = self._readable
        if not len(starts):
            return np.zeros(len(ranked), bool)
        at = np.searchsorted(starts, ranked, "right").astype(np.int64) - 1
        return (at >= 0) & (ranked + np.uint64(self._size) <= ends[at])

    def _read(self, ranked: Any, read: Any = None) -> Any:
        """Returns the values at sorted addresses.

        Args:
            ranked: The addresses.
            read: Where to mark the values that cannot be read; without it the first such
                value ends the read, and None is returned.
        """
        np, size = self._np, self._size
        n = len(ranked)
        steps = ranked[1:] - ranked[:-1]
        split = (steps > size + _GAP) | (
            (ranked[1:] >> _SEGMENT_SHIFT) != (ranked[:-1] >> _SEGMENT_SHIFT)
        )
        cuts = np.flatnonzero(split) + 1
        first = np.concatenate(([0], cuts))  # the first value of each range
        last = np.concatenate((cuts, [n]))
        starts = ranked[first]
        lens = ranked[last - 1] + np.uint64(size) - starts
        ends = np.cumsum(lens)
        if int(ends[-1]) > _ROOM and n > 1:
            # With what stands between them they are too much at once.
            half = n // 2
            lower = self._read(ranked[:half], None if read is None else read[:half])
            if lower is None:
                return None
            upper = self._read(ranked[half:], None if read is None else read[half:])
            return None if upper is None else np.concatenate((lower, upper))
        shift = starts - (ends - lens)  # from an offset in the room to an address
        room = np.empty(int(ends[-1]), np.uint8)
        self._fill(room, ranked, (starts, lens, ends, shift, first, last), read)
        if read is None and self._stopped:
            return None
        offsets = ranked - np.repeat(shift, last - first)
        if self._item.kind == "u" and not (offsets & (size - 1)).any():
            whole = room[: len(room) // size * size].view(self._item)
            return whole[offsets // size]
        return np.ndarray((len(room) - size + 1,), self._item, room, strides=(1,))[offsets]

    def _fill(self, room: Any, ranked: Any, ranges: tuple[Any, ...], read: Any) -> None:
        np, size = self._np, self._size
        starts, lens, ends, shift, first, last = ranges
        own_address = room.ctypes.data
        vector, words = self._vector, self._words
        readv = self._memory.readv_packed
        self._stopped = False
        i, batch, nr = 0, NR_RANGES, len(starts)
        while i < nr:
            j = min(i + batch, nr)
            vector[1 : j - i + 1, 0] = starts[i:j]
            vector[1 : j - i + 1, 1] = lens[i:j]
            begin, end = int(ends[i] - lens[i]), int(ends[j - 1])
            # SAFETY: `room` has `end` bytes and lives until the values are taken out of it.
            got = readv(words, j - i, own_address + begin)
            if got == end - begin:
                i, batch = j, min(batch * 2, NR_RANGES)
                continue
            self._stopped = True
            if read is None:
                return
            k = int(np.searchsorted(ends, begin + got, "right"))
            fault = begin + got + int(shift[k])
            edge = page_end(fault)
            here = ranked[first[k] : last[k]]
            read[first[k] : last[k]] &= ~((here < edge) & (here + np.uint64(size) > fault))
            after = int(np.searchsorted(here, edge))
            if after < len(here):
                # The values after the bad page are read next, to their own places.
                starts[k] = here[after]
                lens[k] = ends[k] - (here[after] - shift[k])
                i, batch = k, max(2 * (k - i + 1), 1)
            else:
                i, batch = k + 1, max(2 * (k - i + 1), 1)


def _gather_plain(memory: UserMemory, addresses: list[int], element: Element, *, mask: bool) -> Any:
    """The way without numpy: in the order asked for, a thousand a call."""
    size, pod = element.size, cast("Pod[Any]", element.pod)
    n = len(addresses)
    try:
        room = Scratch(n * size)
    except (MemoryError, OverflowError):
        raise _too_many(n, size) from None
    ok = [True] * n
    i, batch = 0, NR_RANGES
    most = max(1, min(NR_RANGES, (1 << 30) // size))
    while i < n:
        some = 0
        while some < min(batch, most, n - i) and addresses[i + some] + size <= memory.end:
            some += 1
        own_address = room.address + i * size
        try:
            if not some:
                require_inside(memory, addresses[i], size)
            memory.readv([(a, size) for a in addresses[i : i + some]], own_address)
        except PageFaultError as error:
            bad = i + error.copied_len // size
            if not mask:
                if bad == 0:
                    memory.regions()  # as above
                error.copied_len %= size
                raise at_index(error, bad, addresses[bad], size) from None
            ok[bad] = False
            room.view[bad * size : (bad + 1) * size] = bytes(size)
            batch = 2 * (bad - i + 1)
            i = bad + 1
            continue
        i += some
        batch = min(batch * 2, NR_RANGES)
    if n and not any(ok):
        memory.regions()  # as above
    values = pod.slice_from_bytes(bytes(room.view), n)
    return (values, ok) if mask else values
