"""Writes a drawing as SVG or PNG."""

from __future__ import annotations

import io
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from procvm.cli.picture.shapes import PAPER, Drawing, Rect, Text
from procvm.errors import UnsupportedError

__all__ = ["png_of", "svg_of"]

_FONTS = "'DejaVu Sans Mono', Menlo, Consolas, 'Liberation Mono', monospace"


def svg_of(drawing: Drawing) -> str:
    """Returns a drawing as SVG text."""
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
            # Without this, names in right-to-left scripts would reorder the line.
            parts.append(
                f'<text x="{shape.x:.5g}" y="{shape.y:.5g}" font-size="{shape.size}" '
                f'fill="{shape.fill}"{anchor}{bold} direction="ltr" unicode-bidi="bidi-override" '
                f'xml:space="preserve">{escape(shape.text)}</text>'
            )
    return "\n".join([*parts, "</svg>", ""])


_PNG_SCALE = 2
_FONT_FILES = ("DejaVuSansMono.ttf", "LiberationMono-Regular.ttf")


def png_of(drawing: Drawing) -> bytes:
    """Returns a drawing as PNG bytes, at twice its size.

    Raises:
        UnsupportedError: Pillow is not installed.
    """
    try:
        from PIL import Image, ImageDraw, ImageFont  # noqa: PLC0415 (only PNG needs it)
    except ImportError:
        raise UnsupportedError(
            "a PNG picture needs pillow: pip install 'procvm[picture]'; a .svg file needs nothing"
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
    image = Image.new("RGB", size, PAPER)
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
