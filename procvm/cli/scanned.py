"""The kinds of scans of ``scan``: numbers of one type, numbers of every type, or texts."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from typing import Any

import procvm
from procvm._base.text import printable
from procvm._space.scan import Place
from procvm._terminal.conditions import CHANGES, condition_of
from procvm._terminal.scalars import AnyNumber, Number
from procvm.errors import PageFaultError

__all__ = ["Found", "Numbers", "Scanned", "Texts"]

Found = procvm.Scan | procvm.TextScan

_PLAIN = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)
"""A number as a program may show it."""


class Scanned(ABC):
    """A kind of scan: how a line is understood, and how a place is shown and set.

    Attributes:
        name: The name of the type that the user gave.
        is_mixed: Whether the places have several types, which a list shows then.
    """

    name: str
    is_mixed: bool

    @abstractmethod
    def asked(self, line: str) -> dict[str, Any]:
        """Returns what a line asks for, as arguments of `refine`.

        Raises:
            ValueError: It is neither a value nor a change.
            OverflowError: No value of the type is so large.
        """

    @abstractmethod
    def first(self, process: procvm.Process, asked: dict[str, Any], **where: Any) -> Found:
        """Returns the first scan; without a condition every place.

        Raises:
            ValueError: Such a scan needs a condition.
        """

    @abstractmethod
    def load(self, process: procvm.Process, path: str) -> Found:
        """Returns a scan from a file."""

    @abstractmethod
    def shown(self, process: procvm.Process, place: Place) -> tuple[str, Any]:
        """Returns the value of a place now, as text and for JSON; ``??`` if it has gone."""

    @abstractmethod
    def type_of(self, place: Place) -> str:
        """Returns the name of the type of a place."""

    @abstractmethod
    def encoded(self, process: procvm.Process, place: Place, text: str | None) -> bytes:
        """Returns the bytes of a value that a user typed, or of the one that is there.

        Raises:
            ValueError: It is not a value of the type of the place.
            OverflowError: It does not fit.
            PageFaultError: The place has gone.
        """


class Numbers(Scanned):
    """Numbers of a type, or of all."""

    def __init__(self, kind: Number, align: int | None) -> None:
        self.name = kind.name
        self.is_mixed = isinstance(kind, AnyNumber)
        self._kind = kind
        self._align = align

    def asked(self, line: str) -> dict[str, Any]:
        """Returns a change, a number as it is shown, or a condition."""
        if (self._kind.is_float or self.is_mixed) and _PLAIN.fullmatch(line):
            return {"about": line}
        condition = condition_of(line, self._kind)
        if condition.change is not None:
            return {"how": condition.change}
        return {"value": condition.value}

    def first(self, process: procvm.Process, asked: dict[str, Any], **where: Any) -> Found:
        """Returns the first scan."""
        kind: Any = "number" if self.is_mixed else self._kind.pod
        return process.vm.scan(kind, **asked, align=self._align, **where)

    def load(self, process: procvm.Process, path: str) -> Found:
        """Returns a scan from a file."""
        return procvm.Scan.load(path, process.vm)

    def _kind_of(self, place: Place) -> Number:
        pod: Any = place.kind
        return Number(pod) if self.is_mixed else self._kind

    def shown(self, process: procvm.Process, place: Place) -> tuple[str, Any]:
        """Returns the number at a place."""
        kind = self._kind_of(place)
        try:
            value: Any = process.vm.read_val(place.address, kind.pod)
        except PageFaultError:
            return "??", None
        return kind.text(value), kind.as_json(value)

    def type_of(self, place: Place) -> str:
        """Returns the name of the pod."""
        return self._kind_of(place).name

    def encoded(self, process: procvm.Process, place: Place, text: str | None) -> bytes:
        """Returns the bytes of a number."""
        kind = self._kind_of(place)
        if text is None:
            return process.vm.read_bytes(place.address, kind.size)
        return kind.encode(text, process.address)


class Texts(Scanned):
    """Texts in some encodings."""

    name = "text"

    def __init__(self, encodings: tuple[str, ...]) -> None:
        self.is_mixed = len(encodings) > 1
        self._encodings = encodings

    def asked(self, line: str) -> dict[str, Any]:
        """Returns a change, or a text; after ``=`` it may be any."""
        change = CHANGES.get(line.lower()) if line != "=" else None
        if change in ("changed", "unchanged"):
            return {"how": change}
        return {"text": line.removeprefix("=").strip() if line.startswith("=") else line}

    def first(self, process: procvm.Process, asked: dict[str, Any], **where: Any) -> Found:
        """Returns the first scan."""
        if not asked:
            raise ValueError("a scan for texts begins with a text")
        return process.vm.scan_text(asked["text"], encodings=self._encodings, **where)

    def load(self, process: procvm.Process, path: str) -> Found:
        """Returns a scan from a file."""
        return procvm.TextScan.load(path, process.vm)

    def _now(self, process: procvm.Process, place: Place) -> bytes:
        text: Any = place.value
        return process.vm.read_bytes(place.address, len(text.encode(self.type_of(place))))

    def shown(self, process: procvm.Process, place: Place) -> tuple[str, Any]:
        """Returns the text at a place, as long as the one that was found."""
        try:
            text = self._now(process, place).decode(self.type_of(place), "replace")
        except PageFaultError:
            return "??", None
        shown = printable(text)
        return shown, shown

    def type_of(self, place: Place) -> str:
        """Returns the encoding."""
        return str(place.kind)

    def encoded(self, process: procvm.Process, place: Place, text: str | None) -> bytes:
        """Returns the bytes of a text; a shorter one is ended by a NUL."""
        now = self._now(process, place)
        if text is None:
            return now
        data = text.encode(self.type_of(place))
        if len(data) > len(now):
            raise OverflowError(
                f"{text!r} has {len(data)} bytes, and the text at {place.address:#x} only "
                f"{len(now)}: more would overwrite what comes after it"
            )
        nul = "\0".encode(self.type_of(place))
        return data + nul * (len(data) + len(nul) <= len(now))
