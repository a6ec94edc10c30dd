"""The address space of a process as a picture: what is big, resident, dirty, and what it is called.

What is drawn is laid out once, as a list of shapes; an SVG file is these as text, and a PNG
file these painted by Pillow.
"""

from __future__ import annotations

import io
import itertools
import math
import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple
from xml.sax.saxutils import escape, quoteattr

from procvm._base.atomic_file import new_file
from procvm._base.perms import Perms
from procvm._base.text import printable, size_text
from procvm._live.process import Process
from procvm._saved.snapshot import Snapshot
from procvm._space.maps import Kind, Vma
from procvm.errors import InvalidArgsError, UnsupportedError

__all__ = ["draw"]


class Use(NamedTuple):
    """How much of memory is used.

    Attributes:
        resident: Bytes that are in the machine's memory.
        dirty: Bytes of these that were written.
        swapped: Bytes that were written and are in swap.
    """

    resident: int
    dirty: int
    swapped: int

    def plus(self, other: Use) -> Use:
        """Returns both together."""
        return Use(*(a + b for a, b in zip(self, other, strict=True)))


_NO_USE = Use(0, 0, 0)


class Area(NamedTuple):
    """A mapping and its use; None if that is not known."""

    vma: Vma
    use: Use | None


class Row(NamedTuple):
    """Neighbours that are drawn as one line."""

    areas: list[Area]

    @property
    def start(self) -> int:
        """Its first address."""
        return self.areas[0].vma.start

    @property
    def end(self) -> int:
        """One past its last address."""
        return self.areas[-1].vma.end

    @property
    def size(self) -> int:
        """Bytes that are mapped in it."""
        return sum(area.vma.size for area in self.areas)

    @property
    def use(self) -> Use | None:
        """Its use, as far as that is known."""
        return use_of(self.areas)

    @property
    def weight(self) -> float:
        """How much it deserves a line of its own."""
        if any(area.vma.kind in (Kind.HEAP, Kind.STACK) for area in self.areas):
            return math.inf
        resident = (self.use or _NO_USE).resident
        return math.log2(self.size + 1) + math.log2(resident + 1)


def use_of(areas: Iterable[Area]) -> Use | None:
    """Returns the use of all of them together; None if that of none is known."""
    total: Use | None = None
    for area in areas:
        if area.use is not None:
            total = area.use if total is None else total.plus(area.use)
    return total


# --- what is drawn ---------------------------------------------------------------------------

# So many mappings have a line each; of more, neighbours of one name share one; and where that
# is more than so many lines, only the weightiest keep their own.
_MOST_SINGLE = 48
_MOST_ROWS = 72
_NR_KEPT = 32
_NR_GAPS = 12
_LEAST_GAP = 1 << 20


def areas_of(target: Process | Snapshot) -> list[Area]:
    """Returns the mappings and how they are used, as they are now."""
    if isinstance(target, Snapshot):
        return [Area(vma, None) for vma in target.maps()]
    uses = _uses(target.pid)
    # Behind the reading by number: it raises if the number is another program's by now.
    return [Area(vma, uses.get((vma.start, vma.end))) for vma in target.maps()]


def _uses(pid: int) -> dict[tuple[int, int], Use]:
    import psutil  # noqa: PLC0415 (slow to import)

    found: dict[tuple[int, int], Use] = {}
    try:
        listed: Any = psutil.Process(pid).memory_maps(grouped=False)
    except psutil.Error:
        return found  # it has ended, which the mappings tell, or the kernel keeps it for itself
    for one in listed:
        start, _, end = one.addr.partition("-")
        dirty = one.private_dirty + one.shared_dirty
        found[int(start, 16), int(end, 16)] = Use(one.rss, dirty, one.swap)
    return found


def gaps_of(areas: Sequence[Area]) -> set[int]:
    """Returns where the largest gaps end: the starts of the mappings behind them."""
    gaps = [
        (behind.vma.start - before.vma.end, behind.vma.start)
        for before, behind in itertools.pairwise(areas)
    ]
    return {start for size, start in sorted(gaps, reverse=True)[:_NR_GAPS] if size >= _LEAST_GAP}


def rows_of(areas: Sequence[Area], gaps: set[int]) -> list[Row]:
    """Returns the lines of the picture, in order; however many mappings there are, not too many."""
    if len(areas) <= _MOST_SINGLE:
        return [Row([area]) for area in areas]
    rows: list[Row] = []
    for area in areas:
        one_name = bool(rows) and rows[-1].areas[-1].vma.name == area.vma.name
        if one_name and area.vma.start not in gaps:
            rows[-1].areas.append(area)
        else:
            rows.append(Row([area]))
    if len(rows) <= _MOST_ROWS:
        return rows
    weights = sorted(((row.weight, k) for k, row in enumerate(rows)), reverse=True)
    kept = {k for _, k in weights[:_NR_KEPT]}
    folded: list[Row] = []
    open_row = False
    for k, row in enumerate(rows):
        if k in kept:
            folded.append(row)
            open_row = False
        elif open_row and row.start not in gaps:
            folded[-1].areas.extend(row.areas)
        else:
            folded.append(row)
            open_row = True
    return folded


def title_of(row: Row) -> str:
    """Returns what a line is called, printable."""
    names = Counter(printable(area.vma.name) for area in row.areas)
    if len(names) == 1:
        (name,) = names
        return name or "(anonymous)"
    parts = [
        f"{name.rpartition('/')[2] or name or 'anonymous'}{f' ({n})' if n > 1 else ''}"
        for name, n in names.most_common()
    ]
    return ", ".join(parts)


# --- shapes ----------------------------------------------------------------------------------


class Rect(NamedTuple):
    """A filled rectangle."""

    x: float
    y: float
    w: float
    h: float
    fill: str
    about: str = ""


class Text(NamedTuple):
    """A line of text; `y` is its base line."""

    x: float
    y: float
    text: str
    size: int = 11
    fill: str = "#1e293b"
    anchor: str = "start"
    bold: bool = False


class Drawing(NamedTuple):
    """Shapes, the later ones over the earlier."""

    width: int
    height: int
    shapes: list[Rect | Text]


_INK, _SOFT, _LINE, _PAPER = "#1e293b", "#64748b", "#e2e8f0", "#ffffff"
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
# Of the letters of 11 pixels, all as wide.
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
    """Returns text of at most so many columns: of a path its last part, from its beginning."""
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
    """How long a bar is: as far again for each factor of two."""

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
    """Lays the picture out."""
    gaps = gaps_of(areas)
    rows = rows_of(areas, gaps)
    scale = _Scale(max((row.size for row in rows), default=0))
    nr_gaps = sum(row.start in gaps for row in rows)
    bottom = _TOP + len(rows) * _ROW_H + nr_gaps * _GAP_H
    height = bottom + 44
    shapes: list[Rect | Text] = [Rect(0, 0, _WIDTH, height, _PAPER)]
    shapes += _head(areas, rows, title, about)
    shapes += _axis(scale, bottom)
    y = float(_TOP)
    end = 0
    for row in rows:
        if row.start in gaps:
            is_kernels = row.start >= user_end
            text = "the kernel's" if is_kernels else f"{size_text(row.start - end)} of nothing"
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
        numbers[0] += f" in {len(rows)} lines (neighbours share one)"
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
    for color, h, word in ((_RESIDENT, 6, "resident"), (_DIRTY, 2, "dirty (written to)")):
        yield Rect(x, 70, 34, 12, _COLORS[2][2])
        yield Rect(x, 76 - h / 2, 26, h, color)
        yield Text(x + 40, 80, word, fill=_SOFT)
        x += 118
    yield Text(_WIDTH - _MARGIN, 80, "a step across is 16 times as much", fill=_SOFT, anchor="end")


def _axis(scale: _Scale, bottom: float) -> Iterator[Rect | Text]:
    y = _TOP - 14
    for left, text in ((_ADDRESS_X, "from"), (_PERMS_X, "allows"), (_NAME_X, "what it is")):
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
    # A line of points.
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
    """Draws what the mappings of a line allow: what comes first, and how many others there are."""
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
    """Draws how big a line is, divided as what it allows divides its bytes."""
    sizes: Counter[str] = Counter()
    for area in row.areas:
        sizes[_color(area.vma.perms)] += area.vma.size
    length, x = scale.length(row.size), float(_BAR_X)
    about = f"{row.start:#x}-{row.end:#x} {title_of(row)}"
    # Outlined: what allows nothing is nearly as pale as the paper.
    yield Rect(x - 1, y + 1, length + 2, 14, "#cbd5e1", fitted(about, 400))
    for color in [*(color for _, _, color in _COLORS), _OTHER]:
        part = length * sizes[color] / row.size
        if part:
            yield Rect(x, y + 2, part, 12, color)
            x += part


# --- painters --------------------------------------------------------------------------------

_FONTS = "'DejaVu Sans Mono', Menlo, Consolas, 'Liberation Mono', monospace"


def svg_of(drawing: Drawing) -> str:
    """Returns a drawing as SVG."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{drawing.width}" '
        f'height="{drawing.height}" viewBox="0 0 {drawing.width} {drawing.height}" '
        f"font-family={quoteattr(_FONTS)}>"
    ]
    for shape in drawing.shapes:
        if isinstance(shape, Rect):
            inside = f"<title>{escape(shape.about)}</title>" if shape.about else ""
            parts.append(
                f'<rect x="{shape.x:.5g}" y="{shape.y:.5g}" width="{max(shape.w, 0):.5g}" '
                f'height="{shape.h:.5g}" fill="{shape.fill}"'
                + (f">{inside}</rect>" if inside else "/>")
            )
        else:
            anchor = "" if shape.anchor == "start" else f' text-anchor="{shape.anchor}"'
            bold = ' font-weight="bold"' if shape.bold else ""
            # Letters that are written from right to left stay where they are.
            parts.append(
                f'<text x="{shape.x:.5g}" y="{shape.y:.5g}" font-size="{shape.size}" '
                f'fill="{shape.fill}"{anchor}{bold} direction="ltr" unicode-bidi="bidi-override" '
                f'xml:space="preserve">{escape(shape.text)}</text>'
            )
    return "\n".join([*parts, "</svg>", ""])


_PNG_SCALE = 2
_FONT_FILES = ("DejaVuSansMono.ttf", "LiberationMono-Regular.ttf")


def png_of(drawing: Drawing) -> bytes:
    """Returns a drawing as PNG, twice as fine.

    Raises:
        UnsupportedError: Pillow is not installed.
    """
    try:
        from PIL import Image, ImageDraw, ImageFont  # noqa: PLC0415 (for this alone)
    except ImportError:
        raise UnsupportedError(
            "a PNG picture needs pillow: pip install 'procvm[picture]'; an .svg file needs nothing"
        ) from None

    def font_of(size: int) -> Any:
        for name in _FONT_FILES:
            try:
                return ImageFont.truetype(name, size * _PNG_SCALE)
            except OSError:
                continue
        return ImageFont.load_default(size * _PNG_SCALE)

    sizes = {shape.size for shape in drawing.shapes if isinstance(shape, Text)}
    fonts = {size: font_of(size) for size in sizes}
    size = (drawing.width * _PNG_SCALE, drawing.height * _PNG_SCALE)
    image = Image.new("RGB", size, _PAPER)
    brush = ImageDraw.Draw(image)
    anchors = {"start": "ls", "middle": "ms", "end": "rs"}
    for shape in drawing.shapes:
        x, y = shape.x * _PNG_SCALE, shape.y * _PNG_SCALE
        if isinstance(shape, Text):
            brush.text(
                (x, y),
                shape.text,
                fill=shape.fill,
                font=fonts[shape.size],
                anchor=anchors[shape.anchor],
                stroke_width=0.5 if shape.bold else 0,
            )
        elif shape.w > 0:
            right, low = x + shape.w * _PNG_SCALE - 1, y + shape.h * _PNG_SCALE - 1
            brush.rectangle((x, y, max(right, x), max(low, y)), fill=shape.fill)
    room = io.BytesIO()
    image.save(room, "PNG")
    return room.getvalue()


def draw(target: Process | Snapshot, path: Any) -> None:
    """Draws the mappings of a process, or of a snapshot of one, to a file.

    Each line is a mapping, or neighbours that share one, from the lowest address to the
    highest; the largest gaps are told. A bar is as long as the logarithm of its size, so that
    a large one hides no small one. Resident and dirty are as /proc/PID/smaps counts them; of a
    snapshot they are not known.

    Args:
        target: What to draw.
        path: Where to; ``.svg`` or ``.png`` says what. What is there is replaced, and a link
            is not followed; the file is its owner's alone.

    Raises:
        InvalidArgsError: The path ends in neither.
        UnsupportedError: Pillow is not installed, for a PNG file.
        ProcessExitedError: It has ended.
        OSError: The file's own.
    """
    name = os.fsdecode(path)
    suffix = os.path.splitext(name)[1].lower()
    if suffix not in (".svg", ".png"):
        raise InvalidArgsError(
            f"{printable(os.fsencode(name))} is no name of a picture: give one that ends in .svg "
            "or .png"
        )
    areas = areas_of(target)
    about = "as it was kept; what is resident is not known"
    if isinstance(target, Process):
        unknown = sum(area.use is None for area in areas)
        about = f"of {unknown:,} mappings the use is not known" if unknown else ""
    title = f"Address space of process {target.pid}"
    comm = _comm_of(target)
    title += f", {printable(comm)}" if comm else ""
    drawing = drawing_of(areas, target.vm.end, title, about)
    data = svg_of(drawing).encode() if suffix == ".svg" else png_of(drawing)
    with new_file(name) as fd, open(fd, "wb", closefd=False) as file:
        file.write(data)


def _comm_of(target: Process | Snapshot) -> bytes:
    if isinstance(target, Snapshot):
        return target.facts.name
    from procvm._linux.procfs import read_status  # noqa: PLC0415 (for this alone)

    status = read_status(target.pid)
    return status.name if status is not None else b""
