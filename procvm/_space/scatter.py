"""`scatter`: one value to each of many addresses."""

from __future__ import annotations

from typing import Any

from procvm._base.optional import numpy_or_none
from procvm._local.buffers import address_of_bytes
from procvm._mm.memory import UserMemory
from procvm._space.element import bytes_of_values, element_of
from procvm._space.gather import (
    NR_RANGES,
    addresses_of,
    at_index,
    check_faults,
    list_of,
    require_inside,
)
from procvm.errors import InvalidArgsError, PageFaultError, ProcvmError

__all__ = ["scatter"]


def scatter(memory: UserMemory, addresses: Any, kind: Any, values: Any, faults: str) -> Any:
    """Writes one value at each address; see `VmSpace.scatter`."""
    mask = check_faults(faults)
    np = numpy_or_none()
    element = element_of(kind)
    shape: tuple[int, ...] = ()
    if np is None:
        places = list_of(addresses)
    else:
        given = addresses_of(np, addresses)
        shape, places = given.shape, given.reshape(-1).tolist()
    data = bytes_of_values(values, element)
    size, n = element.size, len(places)
    if len(data) != n * size:
        raise InvalidArgsError(f"{len(data) // size} values do not fit {n} addresses")
    own_address = address_of_bytes(data)  # alive until this function returns
    ok = [True] * n
    i, batch = 0, NR_RANGES
    while i < n:
        ranges, j = _side_by_side(places, i, size, memory.end, batch)
        try:
            if not ranges:
                require_inside(memory, places[i], size)
            memory.writev(ranges, own_address + i * size)
        except PageFaultError as error:
            bad = i + error.copied_len // size
            if not mask:
                error.copied_len %= size
                raise at_index(error, bad, places[bad], size) from None
            ok[bad] = False
            batch = 2 * (bad - i + 1)
            i = bad + 1
            continue
        except ProcvmError as error:
            error.copied_len += i * size
            raise
        i, batch = j, min(batch * 2, NR_RANGES)
    if not mask:
        return None
    return ok if np is None else np.array(ok, bool).reshape(shape)


def _side_by_side(
    places: list[int], i: int, size: int, end: int, most: int
) -> tuple[list[tuple[int, int]], int]:
    """Returns the ranges of the values from index `i` on, and the index after them.

    Values that stand side by side are one range. A value that is not in user space ends them.
    """
    ranges: list[tuple[int, int]] = []
    j, last = i, end - size
    while j < len(places) and len(ranges) < most and places[j] <= last:
        start = after = places[j]
        while j < len(places) and places[j] == after <= last:
            after += size
            j += 1
        ranges.append((start, after - start))
    return ranges, j
