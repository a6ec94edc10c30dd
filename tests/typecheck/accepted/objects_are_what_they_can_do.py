# mypy: ignore-errors
"""A segment and a device are VmIo, VmIoFill and VmIoOnce; a space is the first two."""

from procvm import HasVmReaderWriter, IoMem, Segment, VmIo, VmIoFill, VmIoOnce, VmSpace, u32


def copy_header(thing: VmIo) -> int:
    thing.write_val(0, u32, thing.read_val(4, u32))
    return thing.read_val(0, u32)


def wipe(thing: VmIoFill) -> None:
    thing.fill_zeros(0, 64)


def ring(thing: VmIoOnce) -> None:
    thing.write_once(0, u32, thing.read_once(0, u32) + 1)


def length(thing: HasVmReaderWriter) -> int:
    return thing.reader().remain()


def use(segment: Segment, device: IoMem, space: VmSpace) -> None:
    for thing in (segment, device):
        copy_header(thing)
        wipe(thing)
        ring(thing)
        length(thing)
    copy_header(space)
    wipe(space)
