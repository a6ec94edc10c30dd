"""`Finder`: searches, texts and scans over a target's memory."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import (
    TYPE_CHECKING,
    Any,
    Literal,
    Protocol,
    TypeAlias,
    TypedDict,
    TypeVar,
    cast,
    overload,
)

from procvm._base.address import as_count
from procvm._base.perms import Perms
from procvm._base.pods import C, Pod
from procvm._space.access import Access
from procvm._space.condition import About, Wanted
from procvm._space.engines import TextRuns
from procvm._space.patterns import NOTHING, needle_of
from procvm._space.pieces import CHUNK_LEN, nr_threads, tasks_of
from procvm._space.ranges import Range, near_range, ranges_by_perms, ranges_of, span_of
from procvm._space.scan import Scan, readings_of
from procvm._space.search import Progress, Search
from procvm._space.text_scan import FoundText, TextScan, needles_of
from procvm._space.texts import Text, bytes_of_text, strings_in
from procvm._space.walk import clipped

if TYPE_CHECKING:
    from concurrent.futures import Executor
    from typing import Unpack

    from procvm._space.arrays import DTypeLike

__all__ = ["Finder", "Needle", "Rules", "Where"]

T = TypeVar("T")


class Rules(Protocol):
    """Compiled rules of yara_x."""

    def scan(self, data: bytes, /) -> object:
        """Scans bytes."""
        raise NotImplementedError


Needle: TypeAlias = bytes | bytearray | memoryview | str | re.Pattern[bytes] | Rules
"""Something that `search` looks for: bytes, a pattern of digits, an expression, or rules."""


class Where(TypedDict, total=False):
    """Where and how `search` looks; see its arguments."""

    ranges: Iterable[Range] | None
    near: tuple[int, int] | None
    perms: str | Perms
    align: int
    threads: int | None
    executor: Executor | None
    max_len: int
    progress: Progress | None


class Finder(Access):
    """Finds bytes, values and texts."""

    @overload
    def search(self, what: Pod[T], *, value: Wanted[T], **where: Unpack[Where]) -> Search: ...
    @overload
    def search(
        self, what: type[C] | DTypeLike, *, value: object, **where: Unpack[Where]
    ) -> Search: ...
    @overload
    def search(
        self,
        what: Needle | Sequence[Needle | tuple[Pod[Any], object]],
        **where: Unpack[Where],
    ) -> Search: ...
    @overload
    def search(
        self, *, text: str, encoding: str | None = None, **where: Unpack[Where]
    ) -> Search: ...
    def search(
        self,
        what: Any = NOTHING,
        *,
        value: Any = NOTHING,
        text: str | None = None,
        encoding: str | None = None,
        ranges: Iterable[Range] | None = None,
        near: tuple[int, int] | None = None,
        perms: str | Perms = "r",
        align: int = 1,
        threads: int | None = None,
        executor: Executor | None = None,
        max_len: int = 4096,
        progress: Progress | None = None,
    ) -> Search:
        """Returns an iterator of the places where something is found, in the order of addresses.

        Each `Hit` is an address with `match`, the bytes found there, and `end`. Hits may
        overlap, except those of an expression, which are what `re.finditer` gives over each
        range, as long as no match is longer than `max_len`; a longer one comes in parts. Memory
        that cannot be read is stepped over and listed in the result's `skipped`. The target
        runs meanwhile.

        Args:
            what: Bytes; a pattern such as ``"48 8B ?? ?F"``, of hexadecimal digits with ``?``
                for any digit; a compiled expression of bytes; a pod or numpy dtype, with
                `value`; rules of yara_x; or a list of these, whose hits say by `needle` which
                one was found.
            value: A number; a range; a pair (lowest, highest); or a predicate that takes an
                array of values and returns an array of truth values.
            text: A text to look for, instead of `what`.
            encoding: The encoding of the text, such as ``"utf-16-le"``; utf-8 if not given.
            ranges: Where to look: mappings, range objects, or pairs (start, end).
            near: A pair (address, n): only places at most `n` bytes from the address; the
                match of an expression lies within as a whole.
            perms: Without `ranges`: what a mapping must allow, as in `Maps.filter`.
            align: Only multiples of it.
            threads: Pieces that are searched at a time; one for each CPU if not given.
            executor: An executor of concurrent.futures that searches the pieces, instead of
                threads of our own; its workers may be processes of this machine.
            max_len: The longest match of an expression or a rule, in bytes.
            progress: Called with (bytes done, bytes in all).

        Raises:
            TypeError: `what` cannot be looked for.
            ValueError: It matches everywhere; or a range ends before it starts.
            OverflowError: The type cannot hold the value.
            UnsupportedError: A package is not installed; the message names it.
        """
        align = as_count(align, "align")
        what = _what_of(what, value, text, encoding)
        needle = needle_of(what, value, align, as_count(max_len, "max_len"))
        # A value that begins within the distance may end after it.
        reach = needle.after if needle.stride == 1 else 0
        places = self.ranges(ranges, perms, near, reach=reach)
        total = sum(end - start for start, end in places)
        return Search(
            tasks_of(self._memory, needle, places, CHUNK_LEN),
            total=total,
            threads=nr_threads(threads, executor, total),
            executor=executor,
            progress=progress,
        )

    def strings(
        self,
        *,
        ranges: Iterable[Range] | None = None,
        near: tuple[int, int] | None = None,
        perms: str | Perms = "r",
        encoding: str = "ascii",
        min_len: int = 6,
        threads: int | None = None,
        progress: Progress | None = None,
    ) -> Iterator[Text]:
        """Returns an iterator of the texts in memory, in the order of addresses.

        A text is a run of printable characters; one of more than 64 KiB comes in parts. In
        utf-16 and utf-32 the characters are the letters of Latin, Greek, Cyrillic, Hebrew and
        Arabic, digits and signs: with ideograms most of memory would be text. `search` with
        `text` finds a text of any characters.

        Args:
            ranges: As `search` takes them.
            near: As `search` takes it.
            perms: Without `ranges`: what a mapping must allow.
            encoding: ascii, utf-8, latin-1, utf-16-le, utf-16-be, utf-32-le or utf-32-be.
            min_len: The least number of characters of a text.
            threads: Pieces that are searched at a time; one for each CPU if not given.
            progress: Called with (bytes done, bytes in all).

        Raises:
            ValueError: The encoding is another one.
        """

        def search(what: re.Pattern[bytes] | TextRuns, max_len: int) -> Search:
            return self.search(
                cast("Any", what),
                ranges=ranges,
                near=near,
                perms=perms,
                max_len=max_len,
                threads=threads,
                progress=progress,
            )

        return strings_in(self, encoding, min_len, search)

    @overload
    def scan(
        self,
        kind: Pod[T],
        *,
        value: Wanted[T] = ...,
        about: About | None = None,
        ranges: Iterable[Range] | None = None,
        near: tuple[int, int] | None = None,
        perms: str | Perms = "rw",
        align: int | None = None,
        threads: int | None = None,
        progress: Progress | None = None,
    ) -> Scan: ...
    @overload
    def scan(
        self,
        kind: Literal["number"] | type[C] | DTypeLike,
        *,
        value: object = ...,
        about: About | None = None,
        ranges: Iterable[Range] | None = None,
        near: tuple[int, int] | None = None,
        perms: str | Perms = "rw",
        align: int | None = None,
        threads: int | None = None,
        progress: Progress | None = None,
    ) -> Scan: ...
    def scan(
        self,
        kind: Any,
        *,
        value: Any = NOTHING,
        about: About | None = None,
        ranges: Iterable[Range] | None = None,
        near: tuple[int, int] | None = None,
        perms: str | Perms = "rw",
        align: int | None = None,
        threads: int | None = None,
        progress: Progress | None = None,
    ) -> Scan:
        """Returns every place that may hold a value; `Scan.refine` narrows them down.

        Args:
            kind: A pod or a numpy dtype; or ``"number"`` for integers of 1, 2, 4 and 8 bytes,
                signed or not, and for f32 and f64, all at once.
            value: As `search` takes it; without it every place is a candidate.
            about: A number as the target shows it: ``1.35`` keeps the values that are 1.35
                when rounded to two digits after the point, ``"1.350"`` to three.
            ranges: As `search` takes them.
            near: As `search` takes it.
            perms: Without `ranges`: what a mapping must allow.
            align: Only multiples of it; the value's size if not given.
            threads: Pieces that are read at a time; one for each CPU if not given.
            progress: Called with (bytes done, bytes in all).

        Raises:
            TypeError: `kind` is not a number.
            OverflowError: The type cannot hold the value.
            UnsupportedError: numpy is not installed.
        """
        readings = readings_of(kind)
        step = None if align is None else as_count(align, "align")
        return Scan(
            self._memory,
            readings,
            value,
            about,
            self.ranges(ranges, perms, near, reach=max(one.size for one in readings[-1]) - 1),
            align=step,
            threads=threads,
            progress=progress,
        )

    def scan_text(
        self,
        text: str,
        *,
        encodings: Sequence[str] = ("utf-8", "utf-16-le"),
        ranges: Iterable[Range] | None = None,
        near: tuple[int, int] | None = None,
        perms: str | Perms = "rw",
        threads: int | None = None,
        progress: Progress | None = None,
    ) -> TextScan:
        """Returns every place that holds a text; `TextScan.refine` narrows them down.

        Args:
            text: The text.
            encodings: In which it may be.
            ranges: As `search` takes them.
            near: As `search` takes it.
            perms: Without `ranges`: what a mapping must allow.
            threads: Pieces that are searched at a time; one for each CPU if not given.
            progress: Called with (bytes done, bytes in all).

        Raises:
            ValueError: The text is empty, or an encoding lacks its characters.
        """
        needles = needles_of(text, encodings)
        where = Where(ranges=ranges, near=near, perms=perms, threads=threads, progress=progress)
        names, hits = [*needles.values()], self.search([*needles], **where)
        texts = [FoundText(int(hit), names[hit.needle], hit.match) for hit in hits]
        return TextScan(self, texts, hits.skipped)

    def pointers_to(
        self,
        target: int | Range,
        *,
        ranges: Iterable[Range] | None = None,
        perms: str | Perms = "r",
        align: int | None = None,
        threads: int | None = None,
        progress: Progress | None = None,
    ) -> Search:
        """Returns an iterator of the places that hold the address `target`, or one inside it.

        Each `Hit` is the address of a pointer, and its `match` holds the bytes of the pointer.
        Pointers are as wide as the target's. `Mapped.pointer_paths` follows them back to the
        variables of a program.

        Args:
            target: An address; or a range of addresses: a mapping, a range object or a pair
                (start, end), whose end is exclusive.
            ranges: Where to look, as `search` takes it.
            perms: Without `ranges`: what a mapping must allow.
            align: Only places that are multiples of it; the width of a pointer if not given.
            threads: As for `search`.
            progress: Called with (bytes done, bytes in all).

        Raises:
            TypeError: `target` is neither an address nor a range.
            ValueError: A range is empty, or ends before it starts.
        """
        word = self._word()
        low, high = span_of(target)
        most = (1 << 8 * word.size) - 1
        if low > most:
            raise ValueError(f"{low:#x} does not fit into a pointer of {word.size} bytes")
        return self.search(
            word,
            value=(low, min(high - 1, most)),
            ranges=ranges,
            perms=perms,
            align=word.size if align is None else align,
            threads=threads,
            progress=progress,
        )

    def ranges(
        self,
        ranges: Iterable[Range] | None,
        perms: str | Perms,
        near: tuple[int, int] | None = None,
        *,
        reach: int = 0,
    ) -> list[tuple[int, int]]:
        """Returns where to look, as sorted and disjoint (start, end) pairs; ends are exclusive.

        Args:
            ranges: As `search` takes them.
            perms: Without `ranges`: what a mapping must allow, as in `Maps.filter`.
            near: As `search` takes it.
            reach: Bytes after the last place near the address that belong to it.

        Raises:
            AccessDeniedError: A range leaves user space.
            ValueError: A range ends before it starts.
        """
        if ranges is None:
            found = ranges_by_perms(self._memory, perms)
        else:
            found = ranges_of(ranges)
            for start, end in found[-1:]:
                self._in_user_space(start, end - start)
        if near is None:
            return found
        low, high = near_range(near)
        return clipped(found, low, high + reach)


def _what_of(what: Any, value: Any, text: object, encoding: object) -> Any:
    """Returns what a search looks for: the bytes of a text, or the `what` that was given."""
    if text is None:
        if what is NOTHING:
            raise TypeError("nothing to look for; give what, or text=...")
        if encoding is not None:
            raise TypeError("encoding is the encoding of text=..., which was not given")
        return what
    if what is not NOTHING or value is not NOTHING:
        raise TypeError("what and text exclude each other; give one of them")
    return bytes_of_text(text, "utf-8" if encoding is None else encoding)
