"""`float_registers`: the registers of floating point and vectors, out of a regset's bytes."""

from __future__ import annotations

import struct

__all__ = ["float_registers"]

_FXSAVE = struct.Struct("<HHBxHQQII")
_FXSAVE_LEN = 512
_ST, _XMM = 32, 160
_XSTATE_BV, _YMM_HIGH = 512, 576
_YMM_LEN = 16 * 16
_X87, _AVX = 1 << 0, 1 << 2
_XMM_COUNT, _ST_COUNT = 16, 8
_V_COUNT = 32


def float_registers(machine: str, data: bytes, *, has_xstate: bool) -> dict[str, int] | None:
    """Returns the registers by name, each as a whole number of its bits.

    Args:
        machine: The machine, as os.uname names it.
        data: The regset as the kernel gave it.
        has_xstate: Whether it is NT_X86_XSTATE, and not NT_PRFPREG.

    Returns:
        The registers; None for a machine whose layout is not known, or if bytes are missing.

    Source:
        Intel's manual, volume 1, "XSAVE area", standard form; the kernel's ``struct
        user_fpregs_struct`` and ``struct user_fpsimd_state``.
    """
    if machine == "x86_64" and len(data) >= _FXSAVE_LEN:
        return _x86(data, has_xstate=has_xstate)
    if machine == "aarch64" and len(data) >= _V_COUNT * 16 + 8:
        found = {f"v{i}": _number(data, 16 * i, 16) for i in range(_V_COUNT)}
        return found | {
            "fpsr": _number(data, _V_COUNT * 16, 4),
            "fpcr": _number(data, _V_COUNT * 16 + 4, 4),
        }
    return None


def _number(data: bytes, at: int, size: int) -> int:
    return int.from_bytes(data[at : at + size], "little")


def _x86(data: bytes, *, has_xstate: bool) -> dict[str, int]:
    names = ("fctrl", "fstat", "ftag", "fop", "fip", "fdp", "mxcsr", "mxcsr_mask")
    found: dict[str, int] = dict(zip(names, _FXSAVE.unpack_from(data), strict=True))
    top = found["fstat"] >> 11 & 7
    for i in range(_ST_COUNT):
        found[f"st{i}"] = _number(data, _ST + 16 * i, 10)
    for i in range(_ST_COUNT):
        # The area is in the order of the stack; mm registers are the physical ones.
        found[f"mm{i}"] = _number(data, _ST + 16 * ((i - top) % 8), 8)
    low = [_number(data, _XMM + 16 * i, 16) for i in range(_XMM_COUNT)]
    found.update((f"xmm{i}", value) for i, value in enumerate(low))
    if has_xstate and len(data) >= _YMM_HIGH + _YMM_LEN:
        # A component that is in its initial state may have stale bytes in the area.
        in_use = _number(data, _XSTATE_BV, 8) & _AVX
        for i, value in enumerate(low):
            high = _number(data, _YMM_HIGH + 16 * i, 16) if in_use else 0
            found[f"ymm{i}"] = high << 128 | value
    return found
