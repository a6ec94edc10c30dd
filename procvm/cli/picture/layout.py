"""The layout of the picture: positions, colours and labels."""

from __future__ import annotations

import math
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence

from procvm._base.perms import Perms
from procvm._base.text import size_text
from procvm._space.maps import Kind
from procvm.cli.picture.areas import Area, Row, gaps_of, rows_of, title_of, use_of
from procvm.cli.picture.shapes import PAPER, Drawing, Rect, Text

__all__ = ["drawing_of"]

_INK, _SOFT, _LINE = "#1e293b", "#64748b", "#e2e8f0"
_RESIDENT, _DIRTY = "#334155", "#f97316"
_RESERVED = "#f1f5f9"
_COLORS: tuple[tuple[Perms, str, str], ...] = (
    (Perms.READ | Perms.WRITE | Perms.EXEC, "rwx", "#fb7185"),
    (Perms.READ | Perms.EXEC, "r-x", "#86d993"),
    (Perms.READ | Perms.WRITE, "rw-", "#8ec5ff"),
    (Perms.READ, "r--", "#cbd5e1"),
    (Perms(0), "---", _RESERVED),
)
_OTHER = "#facc15"

_MARGIN = 24
_ADDRESS_X = _MARGIN
_PERMS_X = 142
_NAME_X = 254
_BAR_X, _BAR_W = 564, 420
_NUMBERS_X = (1044, 1110, 1176)
_WIDTH = 1200
_ROW_H, _GAP_H, _TOP = 18, 22, 132
_CHIP_W, _NR_CHIPS = 34, 3
# The width of a monospaced letter of 11 pixels.
_CHAR_W = 6.63
_LEAST = 1 << 10


def _color(perms: Perms) -> str:
    for needed, _, color in _COLORS:
        if perms & ~Perms.SHARED == needed:
            return color
    return _OTHER


def _width_of(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)


def fitted(text: str, columns: int) -> str:
    """Returns text cut to `columns`; a path is cut to its last part first."""
    if len(text) <= columns and _width_of(text) <= columns:
        return text
    if text.startswith("/"):
        text = "…" + text[text.rindex("/") :]
    if len(text) > columns:
        text = text[:columns] + "…"
    while _width_of(text) > columns:
        text = text.removesuffix("…")[:-1] + "…"
    return text


class _Scale:
    """The length of a bar: the logarithm of a size."""

    def __init__(self, most: int) -> None:
        self._most = math.log2(max(most, 1 << 20) / _LEAST)

    def length(self, size: int) -> float:
        return _BAR_W * math.log2(max(size, _LEAST) / _LEAST) / self._most if size else 0.0

    def ticks(self) -> Iterator[int]:
        tick = 1 << 12
        while math.log2(tick / _LEAST) <= self._most + 0.01:
            yield tick
            tick <<= 4


def drawing_of(areas: Sequence[Area], user_end: int, title: str, about: str) -> Drawing:
    """Returns the picture as shapes."""
    gaps = gaps_of(areas)
    rows = rows_of(areas, gaps)
    scale = _Scale(max((row.size for row in rows), default=0))
    nr_gaps = sum(row.start in gaps for row in rows)
    bottom = _TOP + len(rows) * _ROW_H + nr_gaps * _GAP_H
    height = bottom + 44
    shapes: list[Rect | Text] = [Rect(0, 0, _WIDTH, height, PAPER)]
    shapes += _head(areas, rows, title, about)
    shapes += _axis(scale, bottom)
    y = float(_TOP)
    end = 0
    for row in rows:
        if row.start in gaps:
            is_kernels = row.start >= user_end
            text = "kernel" if is_kernels else f"{size_text(row.start - end)} unmapped"
            shapes += _gap(text, y)
            y += _GAP_H
        shapes += _row(row, y, scale)
        y += _ROW_H
        end = row.end
    return Drawing(_WIDTH, height, shapes)


def _head(
    areas: Sequence[Area], rows: Sequence[Row], title: str, about: str
) -> Iterator[Rect | Text]:
    total = use_of(areas)
    numbers = [f"{len(areas):,} mappings"]
    if len(rows) < len(areas):
        numbers[0] += f" in {len(rows)} lines (neighbours share a line)"
    numbers.append(f"size {size_text(sum(area.vma.size for area in areas))}")
    if total is not None:
        numbers += [f"resident {size_text(total.resident)}", f"dirty {size_text(total.dirty)}"]
        if total.swapped:
            numbers.append(f"swapped {size_text(total.swapped)}")
    if about:
        numbers.append(about)
    yield Text(_MARGIN, 36, fitted(title, 100), size=18, bold=True)
    yield Text(_MARGIN, 56, " · ".join(numbers), fill=_SOFT)
    x = float(_MARGIN)
    for _, letters, color in _COLORS:
        yield Rect(x, 70, 22, 12, color)
        yield Text(x + 28, 80, letters, fill=_SOFT)
        x += 66
    yield Rect(x, 70, 22, 12, _OTHER)
    yield Text(x + 28, 80, "other", fill=_SOFT)
    x += 92
    for color, h, word in ((_RESIDENT, 6, "resident"), (_DIRTY, 2, "dirty")):
        yield Rect(x, 70, 34, 12, _COLORS[2][2])
        yield Rect(x, 76 - h / 2, 26, h, color)
        yield Text(x + 40, 80, word, fill=_SOFT)
        x += 118
    yield Text(_WIDTH - _MARGIN, 80, "log scale, 16x per gridline", fill=_SOFT, anchor="end")


def _axis(scale: _Scale, bottom: float) -> Iterator[Rect | Text]:
    y = _TOP - 14
    for left, text in ((_ADDRESS_X, "start"), (_PERMS_X, "perms"), (_NAME_X, "name")):
        yield Text(left, y, text, fill=_SOFT)
    for right, text in zip(_NUMBERS_X, ("size", "resident", "dirty"), strict=True):
        yield Text(right, y, text, fill=_SOFT, anchor="end")
    yield Rect(_MARGIN, _TOP - 6, _WIDTH - 2 * _MARGIN, 1, _LINE)
    for tick in scale.ticks():
        x = _BAR_X + scale.length(tick)
        yield Rect(x, _TOP - 6, 1, bottom - _TOP + 10, _LINE)
        for at in (y, bottom + 18):
            yield Text(x, at, size_text(tick), fill=_SOFT, anchor="middle")


def _gap(text: str, y: float) -> Iterator[Rect | Text]:
    middle = y + _GAP_H / 2 - 2
    yield Text(_ADDRESS_X, middle + 4, text, fill=_SOFT)
    x = _ADDRESS_X + int((len(text) + 1) * _CHAR_W)
    # A dotted line.
    for at in range(x, _BAR_X - 12, 8):
        yield Rect(at, middle, 2, 1, "#94a3b8")


def _row(row: Row, y: float, scale: _Scale) -> Iterator[Rect | Text]:
    base = y + 12
    yield Text(_ADDRESS_X, base, f"{row.start:#x}", fill=_SOFT)
    yield from _chips(row, y)
    several = len({area.vma.name for area in row.areas}) > 1
    title = title_of(row)
    count = f" ({len(row.areas)})" if len(row.areas) > 1 and not several else ""
    room = int((_BAR_X - 16 - _NAME_X) / _CHAR_W) - len(count)
    head = f"{len(row.areas)} mappings: " if several else ""
    title = head + fitted(title, room - len(head)) + count
    yield Text(_NAME_X, base, title, bold=row.areas[0].vma.kind in (Kind.HEAP, Kind.STACK))
    use = row.use
    numbers = [row.size]
    yield from _bar(row, y, scale)
    if use is not None:
        yield Rect(_BAR_X, y + 5, scale.length(use.resident), 6, _RESIDENT)
        yield Rect(_BAR_X, y + 7, scale.length(use.dirty), 2, _DIRTY)
        numbers += [use.resident, use.dirty]
    for x, number in zip(_NUMBERS_X, numbers, strict=False):
        text = size_text(number) if number else "·"
        yield Text(x, base, text, fill=_INK if number else "#94a3b8", anchor="end")


def _chips(row: Row, y: float) -> Iterator[Rect | Text]:
    """Yields the permissions of a line: the first ones, and how many others there are."""
    chips = list(dict.fromkeys(str(area.vma.perms) for area in row.areas))
    colors = {str(area.vma.perms): _color(area.vma.perms) for area in row.areas}
    most = _NR_CHIPS if len(chips) <= _NR_CHIPS else _NR_CHIPS - 1
    x = float(_PERMS_X)
    for chip in chips[:most]:
        yield Rect(x, y + 1, _CHIP_W - 2, 14, colors[chip])
        yield Text(x + 3, y + 12, chip)
        x += _CHIP_W
    if len(chips) > most:
        yield Text(x + 3, y + 12, f"+{len(chips) - most}", fill=_SOFT)


def _bar(row: Row, y: float, scale: _Scale) -> Iterator[Rect]:
    """Yields the bar of a line, divided by permissions in proportion to their bytes."""
    sizes: Counter[str] = Counter()
    for area in row.areas:
        sizes[_color(area.vma.perms)] += area.vma.size
    length, x = scale.length(row.size), float(_BAR_X)
    about = f"{row.start:#x}-{row.end:#x} {title_of(row)}"
    # Without an outline, memory without permissions would be nearly invisible.
    yield Rect(x - 1, y + 1, length + 2, 14, "#cbd5e1", fitted(about, 400))
    for color in [*(color for _, _, color in _COLORS), _OTHER]:
        part = length * sizes[color] / row.size
        if part:
            yield Rect(x, y + 2, part, 12, color)
            x += part
