"""`VmReaderArray` and `VmWriterArray`: many ranges as one stream."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Generic, final

from procvm._base.address import as_len
from procvm._base.markers import F
from procvm._mm.cursor import Cursor, advance, memory_of, require_reader, require_writer, run_of
from procvm._mm.reader import VmReader
from procvm._mm.writer import VmWriter
from procvm.errors import ProcvmError

__all__ = ["VmReaderArray", "VmWriterArray"]


def _copy_run(run: list[tuple[Any, int]], other: Cursor[Any], *, reading: bool) -> int:
    """One vectored access between ranges of one memory and a run of our own."""
    ranges = [(cursor.cursor(), n) for cursor, n in run if n]
    memory = memory_of(run[0][0])
    access = memory.readv if reading else memory.writev
    total = sum([n for _, n in run])
    try:
        access(ranges, other.cursor())
    except ProcvmError as error:
        advance(run, error.copied_len)
        other.skip(error.copied_len)
        raise
    advance(run, total)
    other.skip(total)
    return total


def _copy_stream(readers: list[VmReader[Any]], writers: list[VmWriter[Any]]) -> int:
    """Copies stream to stream until one is used up; every cursor moves by its part."""
    done = 0
    try:
        i = j = 0
        while True:
            while i < len(readers) and not readers[i].has_remain():
                i += 1
            while j < len(writers) and not writers[j].has_avail():
                j += 1
            if i == len(readers) or j == len(writers):
                return done
            reader, writer = readers[i], writers[j]
            from_own, to_own = memory_of(reader).is_own, memory_of(writer).is_own
            if to_own and not from_own:
                run = run_of(readers, i, writer.avail())
                done += _copy_run(run, writer, reading=True)
                i += len(run) - 1  # those before the last one are used up
            elif from_own and not to_own:
                run = run_of(writers, j, reader.remain())
                done += _copy_run(run, reader, reading=False)
                j += len(run) - 1
            else:
                done += reader.copy_to(writer)
    except ProcvmError as error:
        error.copied_len += done
        raise


class _CursorArray(Generic[F]):
    _cursors: list[Any]

    def __len__(self) -> int:
        return len(self._cursors)

    def sum_lens(self) -> int:
        """Returns the bytes left in all ranges together."""
        return sum(cursor.left() for cursor in self._cursors)

    def is_empty(self) -> bool:
        """Returns whether no byte is left in any range."""
        return not any(cursor.left() for cursor in self._cursors)

    def skip_some(self, n: int) -> None:
        """Moves over `n` bytes of the stream, or over all if fewer are left."""
        n = as_len(n)
        for cursor in self._cursors:
            step = min(n, cursor.left())
            cursor.skip(step)
            n -= step
            if n == 0:
                return


@final
class VmReaderArray(_CursorArray[F]):
    """Readers as one stream, read in order.

    Ranges of one target that go into one run of own memory take one system
    call for every thousand of them. The cursors given are the ones that move:
    after a fault each tells how far its range came.

    Source:
        The seed's kernel: ``VmReaderArray``, ``MultiRead``.
    """

    def __init__(self, readers: Iterable[VmReader[F]]) -> None:
        self._cursors: list[VmReader[F]] = list(readers)
        for reader in self._cursors:
            require_reader(reader, "VmReaderArray")

    def __iter__(self) -> Iterator[VmReader[F]]:
        return iter(self._cursors)

    def read(self, writer: VmWriter[Any] | VmWriterArray[Any]) -> int:
        """Copies until the readers or the writer are used up.

        Returns:
            Bytes copied, `min(self.sum_lens(), writer.avail())` on entry.

        Raises:
            PageFaultError: `copied_len` bytes of the stream did arrive, and
                every cursor is after its part of them.
        """
        if isinstance(writer, VmWriterArray):
            return _copy_stream(self._cursors, list(writer))
        require_writer(writer, "read", "a VmWriterArray")
        return _copy_stream(self._cursors, [writer])


@final
class VmWriterArray(_CursorArray[F]):
    """Writers as one stream, written in order.

    The cursors given are the ones that move: after a fault each tells how far
    its range came.

    Source:
        The seed's kernel: ``VmWriterArray``, ``MultiWrite``.
    """

    def __init__(self, writers: Iterable[VmWriter[F]]) -> None:
        self._cursors: list[VmWriter[F]] = list(writers)
        for writer in self._cursors:
            require_writer(writer, "VmWriterArray")

    def __iter__(self) -> Iterator[VmWriter[F]]:
        return iter(self._cursors)

    def write(self, reader: VmReader[Any] | VmReaderArray[Any]) -> int:
        """Copies until the writers or the reader are used up.

        Returns:
            Bytes copied, `min(self.sum_lens(), reader.remain())` on entry.

        Raises:
            PageFaultError: `copied_len` bytes of the stream were written, and
                every cursor is after its part of them.
        """
        if isinstance(reader, VmReaderArray):
            return _copy_stream(list(reader), self._cursors)
        require_reader(reader, "write", "a VmReaderArray")
        return _copy_stream([reader], self._cursors)
