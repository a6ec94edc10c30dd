# mypy: ignore-errors
"""An IoMem's cursors are Io, with values and single accesses."""

from pathlib import Path
from typing import assert_type

from procvm import Io, IoMem, VmReader, VmWriter, u16, u32


def use() -> None:
    with IoMem.open("/dev/uio0", 0, 4096) as device, IoMem.open(Path("/dev/mem"), 0, 64) as other:
        assert_type(device.reader(), VmReader[Io])
        assert_type(device.writer(), VmWriter[Io])
        device.writer().write_val(u32, device.reader().read_val(u32))
        other.write_once(0, u16, device.read_once(0, u16))
