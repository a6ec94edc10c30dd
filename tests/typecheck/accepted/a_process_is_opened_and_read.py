# mypy: ignore-errors
"""The main job needs no annotation."""

from typing import assert_type

import procvm
from procvm import u64


def use(pid: int) -> int:
    with procvm.open(pid) as process:
        assert_type(process.vm, procvm.VmSpace)
        assert_type(process.pid, int)
        value = process.vm.read_val(0x1000, u64)
        process.vm.write_val(0x1008, u64, value + 1)
        return value
