"""`TextScan`: texts that are narrowed down, look by look."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, NamedTuple, final

from procvm._base.atomic_file import new_file
from procvm._space.access import Access
from procvm._space.ranges import Range, add_range, spans_of
from procvm._space.scan import Place
from procvm._space.texts import bytes_of_text
from procvm.errors import MalformedError, MismatchError, PageFaultError

__all__ = ["FoundText", "TextScan", "needles_of"]

_FORMAT = "procvm text scan 1"


class FoundText(NamedTuple):
    """A candidate: its bytes at the last look."""

    address: int
    encoding: str
    data: bytes


def needles_of(text: str, encodings: Sequence[str]) -> dict[bytes, str]:
    """Returns the bytes that a text is in some encodings, each with the first that has them.

    Raises:
        TypeError: Not a text, or not the names of encodings.
        ValueError: The text is empty, an encoding does not have it, or there is no encoding.
    """
    if isinstance(encodings, str):
        raise TypeError(f"encodings is several names, such as ({encodings!r},)")
    found: dict[bytes, str] = {}
    for encoding in encodings:
        found.setdefault(bytes_of_text(text, encoding), encoding)
    if not found:
        raise ValueError("no encoding was given; give one such as 'utf-8'")
    return found


@final
class TextScan:
    """The addresses that may hold a text; each `refine` returns a scan with fewer.

    A scan never changes, so an older one undoes a look. It can be iterated again and again.

    Attributes:
        skipped: Ranges (start, end) that could not be read; their candidates are dropped.
    """

    def __init__(self, vm: Access, texts: list[FoundText], skipped: list[tuple[int, int]]) -> None:
        self._vm = vm
        self._texts = texts
        self.skipped = skipped

    def refine(
        self, how: Literal["changed", "unchanged"] | None = None, *, text: str | None = None
    ) -> TextScan:
        """Looks again at every candidate; returns a new scan of those that still fit.

        Args:
            how: ``"changed"`` or ``"unchanged"`` since the last look.
            text: The text that must be there now, in the encoding of the candidate.

        Raises:
            ValueError: No condition was given, `how` is another word, or the text is empty.
        """
        if how not in (None, "changed", "unchanged"):
            raise ValueError(f"{how!r} is not 'changed' or 'unchanged'")
        if how is None and text is None:
            raise ValueError("no condition was given; give 'changed', 'unchanged' or text")
        wanted: dict[str, bytes] = {}
        if text is not None:
            wanted = {
                one: bytes_of_text(text, one) for one in {old.encoding for old in self._texts}
            }
        kept: list[FoundText] = []
        skipped = list(self.skipped)
        for old in self._texts:
            n = len(wanted.get(old.encoding, old.data))
            try:
                now = self._vm.read_bytes(old.address, max(n, len(old.data)))
            except PageFaultError as error:
                now = self._short(old, n, error, skipped)
            data = now[:n]
            if len(data) < n or data != wanted.get(old.encoding, data):
                continue
            is_same = now[: len(old.data)] == old.data
            if how is None or is_same == (how == "unchanged"):
                kept.append(old._replace(data=data))
        return self._with(kept, skipped)

    def _short(
        self, old: FoundText, n: int, error: PageFaultError, skipped: list[tuple[int, int]]
    ) -> bytes:
        """Returns the bytes before a fault, which are enough for a shorter text."""
        if error.copied_len < n:
            add_range(skipped, old.address, old.address + n)
            return b""
        return self._vm.read_bytes(old.address, n)

    def without(self, excluded: Iterable[int | Range]) -> TextScan:
        """Returns a new scan without some of the candidates; this one stays as it is.

        Args:
            excluded: Addresses, and ranges of them, as `Scan.without` takes them.
        """
        spans = spans_of(excluded)

        def is_out(one: FoundText) -> bool:
            end = one.address + len(one.data)
            return any(one.address < high and low < end for low, high in spans)

        return self._with([one for one in self._texts if not is_out(one)], list(self.skipped))

    def _with(self, texts: list[FoundText], skipped: list[tuple[int, int]]) -> TextScan:
        return TextScan(self._vm, texts, skipped)

    def __len__(self) -> int:
        """Returns the number of candidates."""
        return len(self._texts)

    def __iter__(self) -> Iterator[int]:
        """Goes through the addresses of the candidates, in their order."""
        return (one.address for one in self._texts)

    def places(self) -> Iterator[Place]:
        """Yields each candidate with its encoding and its text at the last look."""
        for one in self._texts:
            yield Place(one.address, one.encoding, one.data.decode(one.encoding, "replace"))

    def __repr__(self) -> str:
        return f"<TextScan of {self._vm!r}: {len(self)} candidates>"

    def save(self, path: str | bytes | os.PathLike[str] | os.PathLike[bytes]) -> None:
        """Writes the candidates to a new file of mode 0600.

        Raises:
            OSError: The file could not be written; what was at `path` is as it was.
        """
        rows = [(one.address, one.encoding, one.data.hex()) for one in self._texts]
        saved = {
            "format": _FORMAT,
            "pid": self._vm.memory.pid,
            "skipped": self.skipped,
            "texts": rows,
        }
        with new_file(path) as fd, open(fd, "w", encoding="ascii", closefd=False) as file:
            json.dump(saved, file)

    @classmethod
    def load(
        cls,
        path: str | bytes | os.PathLike[str] | os.PathLike[bytes],
        vm: Access,
        *,
        same_pid: bool = True,
    ) -> TextScan:
        """Returns the scan of a file that `save` wrote, to be refined on; see `Scan.load`.

        Raises:
            MalformedError: The file is not one of `save`, or it is damaged.
            MismatchError: It was saved from a process with another pid.
            OSError: The file could not be read.
        """
        with open(path, "rb") as file:
            try:
                saved: Any = json.load(file)
                if saved["format"] != _FORMAT:
                    raise ValueError(f"its format is {saved['format']!r}")
                texts = [
                    FoundText(int(address), str(encoding), bytes.fromhex(data))
                    for address, encoding, data in saved["texts"]
                ]
                for one in texts:
                    one.data.decode(one.encoding, "replace")
                skipped = [(int(start), int(end)) for start, end in saved["skipped"]]
                pid = int(saved["pid"])
            except (ValueError, KeyError, TypeError, LookupError) as error:
                raise MalformedError(
                    f"{os.fsdecode(path)} is not a saved scan of texts: {error}"
                ) from None
        if same_pid and pid != vm.memory.pid:
            raise MismatchError(
                f"the scan was saved from process {pid}, and this is process {vm.memory.pid}: the "
                "same address rarely holds the same text there",
                address=0,
            )
        return cls(vm, texts, skipped)
