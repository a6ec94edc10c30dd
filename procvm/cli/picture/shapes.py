"""Rectangles and lines of text: what a picture is made of."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["PAPER", "Drawing", "Rect", "Text"]

PAPER = "#ffffff"
"""The colour of the background."""


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
