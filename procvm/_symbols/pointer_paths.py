"""`PointerPath`: the way from a variable of a file to an address, the same in each run."""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import islice, product
from typing import TYPE_CHECKING, Any, NamedTuple, final

from procvm._base.address import as_address, as_count, as_len
from procvm._base.atomic_file import new_file
from procvm._base.optional import required
from procvm._base.text import printable
from procvm._space.pointers import PointerMap
from procvm._symbols.modules import Modules
from procvm.errors import MalformedError, MismatchError, NoSuchSymbolError, VmError

if TYPE_CHECKING:
    from procvm._space.ranges import Range
    from procvm._space.space import VmSpace

__all__ = ["PointerPath", "PointerPaths", "Reached"]

_FORMAT = "procvm pointer paths 1"
_MOST_BYTES = 1 << 28

_SPARE = 16
"""Paths to look at for each that is returned: the best of them are kept."""

Path = str | bytes | os.PathLike[str] | os.PathLike[bytes]


class Reached(ABC):
    """Memory in which files are loaded: pointers lead from their variables to other memory."""

    @property
    @abstractmethod
    def vm(self) -> VmSpace:
        """Its address space."""

    @abstractmethod
    def modules(self) -> Modules:
        """Returns its files."""

    def pointer_paths(
        self,
        address: int,
        *,
        depth: int = 4,
        max_offset: int = 0x400,
        limit: int = 1000,
        ranges: Iterable[Range] | None = None,
        progress: Callable[[int, int], object] | None = None,
    ) -> PointerPaths:
        """Returns the ways from variables of loaded files to an address, by pointers.

        Where memory is allocated differs from run to run, but a variable of a file keeps its
        offset in that file. A `PointerPath` that was found in one run therefore leads to the
        same value in another one. Some do so by chance: `PointerPaths.rescan` keeps those that
        still do after a restart.

        All memory that can be read is searched once for pointers, which are kept sorted, in up
        to 40 bytes each. The target runs meanwhile; a path that does not lead to the address at
        the end of the search is dropped.

        Args:
            address: The address to reach, for example of a value that a scan has found.
            depth: The most pointers in a row.
            max_offset: The most bytes from where a pointer points to the next pointer, or to
                the address: as much as the largest structure has.
            limit: The most paths to return.
            ranges: Where to look for pointers, as `VmSpace.search` takes it; by default all
                memory that can be read.
            progress: Called with (bytes done, bytes in all).

        Returns:
            The paths: those of the program itself, then those of libraries; short ones first,
            then those with small offsets. An address in a file is a path without pointers.

        Raises:
            UnsupportedError: numpy or pyelftools is not installed, or there are too many
                pointers for the memory of the tool.
            ProcessExitedError: The process has ended.
        """
        return _find_paths(
            self,
            as_address(address),
            depth=as_count(depth, "depth"),
            max_offset=as_len(max_offset, "max_offset"),
            limit=as_count(limit, "limit"),
            ranges=ranges,
            progress=progress,
        )


class PointerPath(NamedTuple):
    """The way from a variable of a loaded file to an address, by pointers.

    `str` is an address expression, such as ``*(*(game+0x4010)+0x18)+0x8``, which
    `Mapped.address` and the command take.

    Attributes:
        module: The name of the file, as in `Modules`.
        offset: Bytes from the file's base to its first pointer; without offsets to the address.
        offsets: Bytes to add to each pointer, as `VmSpace.follow` takes them.
        build_id: The build ID of the file in which it was found; None if it has none.
    """

    module: str
    offset: int
    offsets: tuple[int, ...]
    build_id: str | None = None

    def __str__(self) -> str:
        """Returns an address expression."""
        text = f"{printable(self.module)}+{self.offset:#x}"
        for k, offset in enumerate(self.offsets):
            text = f"*({text})" if k or self.offset else f"*{text}"
            if offset:
                text += f"{'-' if offset < 0 else '+'}{abs(offset):#x}"
        return text

    def resolve(self, process: Reached) -> int:
        """Returns the address to which it leads in a process, or in saved memory.

        Raises:
            NoSuchSymbolError: The file is not loaded.
            MismatchError: The file has another build ID, so its variables have other offsets.
            PageFaultError: A pointer could not be read.
            AccessDeniedError: A pointer leads out of user space.
            AddressOverflowError: A pointer plus its offset is not an address.
            ProcessExitedError: The process has ended.
        """
        return self._in(process, process.modules())

    def _in(self, process: Reached, modules: Modules) -> int:
        module = modules[self.module]
        if self.build_id is not None and module.build_id not in (None, self.build_id):
            raise MismatchError(
                f"{module} has the build ID {module.build_id}, and the path was found in a file "
                f"with {self.build_id}: search for the path again in this program",
                address=module.base,
            )
        return process.vm.follow(module.base + self.offset, *self.offsets)

    def save(self, path: Path) -> None:
        """Writes it as JSON to a new file of mode 0600.

        Raises:
            OSError: The file could not be written; what was at `path` is as it was.
        """
        PointerPaths([self]).save(path)

    @classmethod
    def load(cls, path: Path) -> PointerPath:
        """Returns the path of a file that `save` wrote.

        Raises:
            MalformedError: The file does not hold exactly one path.
            OSError: The file could not be read.
        """
        found = PointerPaths.load(path)
        if len(found) != 1:
            raise MalformedError(
                f"{printable(os.fsdecode(path))} holds {len(found)} pointer paths, not one; "
                "PointerPaths.load returns all of them"
            )
        return found[0]


@final
class PointerPaths(list[PointerPath]):
    """Pointer paths to one address, the best ones first.

    Attributes:
        is_complete: Whether nothing was left out: neither paths above the limit nor pointers of
            places to which very many lead.
    """

    def __init__(self, paths: Iterable[PointerPath] = (), *, is_complete: bool = True) -> None:
        super().__init__(paths)
        self.is_complete = is_complete

    def resolved(self, process: Reached) -> Iterator[tuple[PointerPath, int | None]]:
        """Yields each path with the address to which it leads; None if it leads to none.

        Raises:
            ProcessExitedError: The process has ended.
        """
        modules = process.modules()
        for path in self:
            address: int | None = None
            with suppress(VmError, NoSuchSymbolError):
                address = path._in(process, modules)  # pyright: ignore[reportPrivateUsage]  # this module's own
            yield path, address

    def rescan(self, process: Reached, address: int) -> PointerPaths:
        """Returns the paths that lead to an address now, for example after a restart.

        Raises:
            ProcessExitedError: The process has ended.
        """
        kept = [path for path, found in self.resolved(process) if found == address]
        return PointerPaths(kept, is_complete=self.is_complete)

    def save(self, path: Path) -> None:
        """Writes them as JSON to a new file of mode 0600.

        Raises:
            OSError: The file could not be written; what was at `path` is as it was.
        """
        rows = [
            {
                "module": one.module,
                "offset": one.offset,
                "offsets": list(one.offsets),
                "build_id": one.build_id,
            }
            for one in self
        ]
        document = {"format": _FORMAT, "complete": self.is_complete, "paths": rows}
        with new_file(path) as fd, open(fd, "w", encoding="ascii", closefd=False) as file:
            file.write(json.dumps(document, indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> PointerPaths:
        """Returns the paths of a file that `save` wrote.

        Raises:
            MalformedError: The file is not one of `save`, or it is damaged.
            OSError: The file could not be read.
        """
        with open(path, "rb") as file:
            data = file.read(_MOST_BYTES)
        try:
            document = json.loads(data)
            if document["format"] != _FORMAT:
                raise ValueError(f"its format is {document['format']!r}")
            found = [_path_of(row) for row in document["paths"]]
            return cls(found, is_complete=bool(document["complete"]))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            name = printable(os.fsdecode(path))
            raise MalformedError(
                f"{name} does not hold pointer paths: {printable(str(error))}"
            ) from None


def _path_of(row: Any) -> PointerPath:
    module, offset, offsets, build_id = (
        row[name] for name in ("module", "offset", "offsets", "build_id")
    )
    numbers = [offset, *offsets]
    if (
        not isinstance(module, str)
        or not (build_id is None or isinstance(build_id, str))
        or not all(type(one) is int and abs(one) < 1 << 64 for one in numbers)
        or offset < 0
    ):
        raise ValueError("a path of it is not one")
    return PointerPath(module, offset, tuple(offsets), build_id)


def _find_paths(
    process: Reached,
    address: int,
    *,
    depth: int,
    max_offset: int,
    limit: int,
    ranges: Iterable[Range] | None,
    progress: Callable[[int, int], object] | None,
) -> PointerPaths:
    """Returns the pointer paths to an address; see `Mapped.pointer_paths`."""
    np = required("numpy", "a search for pointer paths")
    modules = process.modules()
    spans = sorted(
        (start, end, rank)
        for rank, module in enumerate(modules.values())
        for start, end in module.ranges
    )
    every = list(modules.values())
    starts = np.array([start for start, _, _ in spans], np.uint64)
    ends = np.array([end for _, end, _ in spans], np.uint64)

    def is_base(places: Any) -> Any:
        at = np.searchsorted(starts, places, "right") - 1
        return (at >= 0) & (places < ends[np.maximum(at, 0)]) if len(spans) else at >= 0

    def rank_of(place: int) -> int:
        return spans[int(np.searchsorted(starts, np.uint64(place), "right")) - 1][2]

    pointers = PointerMap(process.vm, ranges, progress)
    web = pointers.back(address, depth, max_offset, is_base)
    places = np.array(list(web.distance), np.uint64)
    bases = sorted((rank_of(place), place) for place in places[is_base(places)].tolist())
    found = PointerPaths(is_complete=web.is_whole)
    # Those of the program first: libraries keep the books of the allocator, which lead to each
    # block of memory, and to another one in the next run.
    own = [base for base in bases if not base[0]]
    for some, length in product((own, bases[len(own) :]), range(depth + 1)):
        walks = (
            (sum(offsets), rank, place, offsets)
            for rank, place in some
            if web.distance[place] <= length
            for offsets in web.walks(place, length)
        )
        best = sorted(islice(walks, _SPARE * limit + 1))
        paths = PointerPaths(
            PointerPath(every[rank].name, place - every[rank].base, offsets, every[rank].build_id)
            for _, rank, place, offsets in best
        )
        found += paths.rescan(process, address)
        if len(found) > limit or len(best) > _SPARE * limit:
            found.is_complete = False
        if len(found) >= limit:
            break
    del found[limit:]
    return found
