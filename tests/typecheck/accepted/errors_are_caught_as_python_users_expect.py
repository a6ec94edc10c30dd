# mypy: ignore-errors
"""Errors are caught by their own names and by the built-in ones."""

from typing import assert_type

from procvm import (
    AccessDeniedError,
    InvalidArgsError,
    PageFaultError,
    ProcessError,
    ProcvmError,
    VmSpace,
    u64,
)


def use(space: VmSpace) -> int:
    try:
        return space.read_val(0x1000, u64)
    except PageFaultError as fault:
        assert_type(fault.address, int)
        assert_type(fault.copied_len, int)
        assert_type(fault.pid, int)
        error: OSError = fault
        return error.errno or 0
    except (AccessDeniedError, InvalidArgsError) as refused:
        return refused.copied_len
    except ProcessError as gone:
        return gone.pid
    except ProcvmError as other:
        return len(str(other))
