"""The file of a scan: its candidates and their values, to be refined on later.

A NumPy archive without pickles, so that a file from elsewhere cannot run code.
"""

from __future__ import annotations

import json
import os
from typing import Any, NamedTuple
from zipfile import BadZipFile

from procvm._base.atomic_file import new_file
from procvm._base.optional import required
from procvm._base.pods import Pod, f32, f64, i8, i16, i32, i64, isize, u8, u16, u32, u64, usize
from procvm._space.element import Element, element_of
from procvm._space.look import Block
from procvm.errors import MalformedError, MismatchError

__all__ = ["SavedColumn", "SavedScan", "load_scan", "save_scan"]

_FORMAT = "procvm scan 1"

_PODS: dict[str, Pod[Any]] = {
    pod.name: pod for pod in (u8, u16, u32, u64, usize, i8, i16, i32, i64, isize, f32, f64)
}


class SavedColumn(NamedTuple):
    """The candidates of one width; see `procvm._space.scan`."""

    readings: tuple[Element, ...]
    align: int
    blocks: list[Block]


class SavedScan(NamedTuple):
    """All that is kept of a scan.

    Attributes:
        pid: The process; 0 if it was not a live one.
        is_number: Whether the scan is for all types of numbers.
        skipped: Ranges that could not be read.
        columns: The candidates.
    """

    pid: int
    is_number: bool
    skipped: list[tuple[int, int]]
    columns: list[SavedColumn]


def save_scan(path: str | bytes | os.PathLike[str] | os.PathLike[bytes], scan: SavedScan) -> None:
    """Writes a scan to a new file.

    Raises:
        OSError: The file could not be written; what was at `path` is as it was.
    """
    np = required("numpy", "a scan")
    header = {
        "format": _FORMAT,
        "pid": scan.pid,
        "is_number": scan.is_number,
        "skipped": scan.skipped,
        "columns": [
            {"kinds": [_name_of(one) for one in column.readings], "align": column.align}
            for column in scan.columns
        ],
    }
    arrays: dict[str, Any] = {"header": np.frombuffer(json.dumps(header).encode(), np.uint8)}
    for k, column in enumerate(scan.columns):
        blocks = column.blocks
        shape = [(one.start, one.nr, one.is_bits, len(one.values)) for one in blocks]
        arrays[f"blocks{k}"] = np.array(shape, np.uint64).reshape(-1, 4)
        arrays[f"hits{k}"] = np.frombuffer(b"".join(_hits_of(np, one) for one in blocks), np.uint8)
        arrays[f"values{k}"] = np.frombuffer(
            b"".join(one.values.tobytes() for one in blocks), np.uint8
        )
    with new_file(path) as fd, open(fd, "wb", closefd=False) as file:
        np.savez(file, **arrays)


def _hits_of(np: Any, block: Block) -> bytes:
    hits = np.packbits(np.ones(block.nr, bool)) if block.hits is None else block.hits
    return bytes(hits.tobytes())


def _name_of(element: Element) -> str:
    return element.pod.name if element.pod is not None else str(element.dtype.str)


def load_scan(
    path: str | bytes | os.PathLike[str] | os.PathLike[bytes], pid: int | None
) -> SavedScan:
    """Returns the scan of a file.

    Args:
        path: The file.
        pid: The process that it has to be of; None for any.

    Raises:
        MalformedError: The file is not one of `save_scan`, or it is damaged.
        MismatchError: It was saved from another process.
        OSError: The file could not be read.
    """
    np = required("numpy", "a scan")
    with open(path, "rb") as file:
        try:
            arrays = np.load(file, allow_pickle=False)
            header = json.loads(arrays["header"].tobytes())
            if header["format"] != _FORMAT:
                raise ValueError(f"its format is {header['format']!r}")
            columns = [
                _column(np, one, arrays[f"blocks{k}"], arrays[f"hits{k}"], arrays[f"values{k}"])
                for k, one in enumerate(header["columns"])
            ]
            skipped = [(int(start), int(end)) for start, end in header["skipped"]]
            saved = SavedScan(int(header["pid"]), bool(header["is_number"]), skipped, columns)
        except (ValueError, KeyError, TypeError, EOFError, BadZipFile, AttributeError) as error:
            raise MalformedError(f"{os.fsdecode(path)} is not a saved scan: {error}") from None
    if pid is not None and saved.pid != pid:
        raise MismatchError(
            f"the scan was saved from process {saved.pid}, and this is process {pid}: the same "
            "address rarely holds the same value there",
            address=0,
        )
    return saved


def _column(np: Any, header: Any, blocks: Any, hits: Any, values: Any) -> SavedColumn:
    readings = tuple(element_of(_PODS.get(name, name)) for name in header["kinds"])
    dtype, align = readings[0].dtype, int(header["align"])
    if align < 1 or any(one.size != readings[0].size for one in readings):
        raise ValueError("its types do not go together")
    found: list[Block] = []
    hits_at = values_at = 0
    for start, nr, is_bits, count in blocks.tolist():
        hits_len = -(-nr // 8) if is_bits else 4 * count
        values_len = count * dtype.itemsize
        some = hits[hits_at : hits_at + hits_len].copy()
        own = values[values_at : values_at + values_len].copy().view(dtype)
        numbers = some if is_bits else some.view(np.uint32)
        is_whole = len(some) == hits_len and len(own) == count and count > 0
        if (
            not is_whole
            or start + nr * align > 1 << 64
            or not _fits(np, numbers, nr, is_bits, count)
        ):
            raise ValueError("its candidates do not fit its blocks")
        if is_bits and count == nr:
            numbers = None
        found.append(Block(start, nr, numbers, bool(is_bits), own))
        hits_at += hits_len
        values_at += values_len
    return SavedColumn(readings, align, found)


def _fits(np: Any, hits: Any, nr: int, is_bits: int, count: int) -> bool:
    if is_bits:
        return int(np.unpackbits(hits, count=nr).sum()) == count
    return bool((hits[1:] > hits[:-1]).all()) and int(hits[-1]) < nr
