"""A picture of an address space: the size, use, permissions and name of each mapping.

The layout is a list of shapes. An SVG file writes them as text; a PNG file has them painted by
Pillow.
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
    """Draws the mappings of a process or of a snapshot to a picture file.

    Each line is one mapping, or several neighbours, in ascending order of addresses. The
    largest gaps are shown. The length of a bar is the logarithm of its size, so that a large
    mapping does not hide a small one. Resident and dirty bytes are those of /proc/PID/smaps; a
    snapshot does not know them.

    Args:
        target: The process or the snapshot.
        path: The file; its name ends in ``.svg`` or ``.png``. An existing file or link is
            replaced. The file has mode 0600.

    Raises:
        InvalidArgsError: The path ends in neither.
        UnsupportedError: The file is a PNG file, and Pillow is not installed.
        ProcessExitedError: The process has ended.
        OSError: The file cannot be written.
    """
    name = os.fsdecode(path)
    suffix = os.path.splitext(name)[1].lower()
    if suffix not in (".svg", ".png"):
        raise InvalidArgsError(
            f"{printable(os.fsencode(name))} is not the name of a picture; give one that ends in "
            ".svg or .png"
        )
    areas = areas_of(target)
    about = "saved memory: resident and dirty are not known"
    if isinstance(target, Process):
        unknown = sum(area.use is None for area in areas)
        about = f"resident and dirty of {unknown:,} mappings are not known" if unknown else ""
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
    from procvm._linux.procfs import read_status  # noqa: PLC0415 (only processes need it)

    status = read_status(target.pid)
    return status.name if status is not None else b""
