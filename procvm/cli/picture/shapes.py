"""The shapes of a picture: rectangles and lines of text."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["PAPER", "Drawing", "Rect", "Text"]

PAPER = "#ffffff"
"""The colour of the background."""


class Rect(NamedTuple):
    """A filled rectangle; `about` is its tooltip."""

    x: float
    y: float
    w: float
    h: float
    fill: str
    about: str = ""


class Text(NamedTuple):
    """A line of text; `y` is its baseline."""

    x: float
    y: float
    text: str
    size: int = 11
    fill: str = "#1e293b"
    anchor: str = "start"
    bold: bool = False


class Drawing(NamedTuple):
    """A picture: its size in pixels, and shapes from the lowest to the topmost."""

    width: int
    height: int
    shapes: list[Rect | Text]
