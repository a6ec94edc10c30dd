"""The address space of a process as a picture: what is big, resident, dirty, and what it is called.

What is drawn is laid out once, as a list of shapes; an SVG file is these as text, and a PNG
file these painted by Pillow.
"""

from __future__ import annotations

import os
from typing import Any

from procvm._base.atomic_file import new_file
from procvm._base.text import printable
from procvm._live.process import Process
from procvm._saved.snapshot import Snapshot
from procvm.cli.picture.areas import areas_of
from procvm.cli.picture.layout import drawing_of
from procvm.cli.picture.painters import png_of, svg_of
from procvm.errors import InvalidArgsError

__all__ = ["draw"]


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
