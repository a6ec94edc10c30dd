# mypy: ignore-errors
"""Arrays of readers and writers stream to cursors and to arrays."""

from typing import assert_type

from procvm import Fallible, Infallible, VmReader, VmReaderArray, VmSpace, VmWriter, VmWriterArray


def use(space: VmSpace, out: VmWriter[Infallible], source: VmReader[Infallible]) -> None:
    readers = VmReaderArray([space.reader(0x1000, 8), space.reader(0x2000, 8)])
    writers = VmWriterArray(space.writer(at, 8) for at in (0x3000, 0x4000))
    assert_type(readers, VmReaderArray[Fallible])
    assert_type(writers, VmWriterArray[Fallible])
    assert_type(readers.read(out), int)
    assert_type(readers.read(writers), int)
    assert_type(writers.write(source), int)
    assert_type(writers.write(readers), int)
    readers.skip_some(3)
    assert_type(readers.sum_lens(), int)
    assert_type(readers.is_empty(), bool)
