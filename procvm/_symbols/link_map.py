"""The list of loaded files that a dynamic linker keeps for debuggers (r_debug and link_map).

Source:
    ``<link.h>`` of glibc and musl; namespaces of dlmopen from glibc 2.35 on.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple

__all__ = ["Link", "Links", "read_links"]

_NR_LINKS = 1 << 14
_NR_NAMESPACES = 64
_LONGEST_NAME = 4096


class Link(NamedTuple):
    """A loaded file in the list.

    Attributes:
        bias: Its load bias.
        name: Its name there.
        dynamic: The address of its dynamic section.
        place: The address of the entry, a link_map.
    """

    bias: int
    name: bytes
    dynamic: int
    place: int


class Links(NamedTuple):
    """The files that a dynamic linker has loaded, by its own list.

    Attributes:
        main: The files of the program's own namespace, in the order they are searched.
        others: The files of the namespaces that dlmopen made.
        settled: Whether no file is being loaded or unloaded just now.
    """

    main: list[Link]
    others: list[Link]
    settled: bool


def read_links(read: Callable[[int, int], bytes], debug: int, bits: int) -> Links:
    """Reads the list that DT_DEBUG leads to.

    Args:
        read: Takes an address and a length, returns the bytes there.
        debug: The value of DT_DEBUG.
        bits: 64 or 32, as the program's header says.

    Raises:
        PageFaultError: The list points to memory that is not mapped.
    """
    # int, map, brk, enum, base, next: the ints are as wide as a word with their padding.
    head = struct.Struct("=i4xQQi4xQ" if bits == 64 else "=iIIiI")
    word = struct.Struct("=Q" if bits == 64 else "=I")
    found: list[list[Link]] = []
    settled = True
    while debug and len(found) < _NR_NAMESPACES:
        version, first, _, state, _ = head.unpack(read(debug, head.size))
        settled = settled and version > 0 and state == 0 and first != 0
        found.append(_chain(read, first, word))
        debug = word.unpack(read(debug + head.size, word.size))[0] if version > 1 else 0
    return Links(found[0], [link for links in found[1:] for link in links], settled)


def _chain(read: Callable[[int, int], bytes], at: int, word: struct.Struct) -> list[Link]:
    node = struct.Struct("=" + 4 * word.format[-1:])
    found: list[Link] = []
    seen: set[int] = set()
    while at and at not in seen and len(found) < _NR_LINKS:
        seen.add(at)
        bias, name, dynamic, following = node.unpack(read(at, node.size))
        found.append(Link(bias, _string(read, name) if name else b"", dynamic, at))
        at = following
    return found


def _string(read: Callable[[int, int], bytes], at: int) -> bytes:
    found = b""
    while len(found) < _LONGEST_NAME:
        # Without the alignment, a read could cross into a page that is not mapped.
        text, nul, _ = read(at, 64 - at % 64).partition(b"\0")
        found += text
        if nul:
            break
        at += 64 - at % 64
    return found
