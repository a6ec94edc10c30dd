"""Copies bytes between two memories of any kind.

Every copy of the library comes through `copy`: the cursors, the objects of
memory, the vectored streams. It decides by whose memory the two sides are.
"""

from __future__ import annotations

from procvm._local.buffers import Scratch
from procvm._local.buffers import copy as copy_own
from procvm._local.pool import Pool
from procvm._mm.memory import Memory
from procvm.errors import InvalidArgsError, ProcvmError

__all__ = ["copy"]

_BOUNCE_LEN = 1 << 18
_MOST_AT_ONCE = 1 << 27


# Buffers for copies between two remote memories.
_bounces = Pool(4, lambda: Scratch(_BOUNCE_LEN))


def copy(dst: Memory, dst_address: int, src: Memory, src_address: int, n: int) -> None:
    """Copies `n` bytes from `src` to `dst`.

    Raises:
        ProcvmError: `copied_len` bytes were read *and* written.

    Source:
        OSTD ``memcpy<DstFallibility, SrcFallibility>``.
    """
    if n == 0:
        return
    if src.is_own:
        if dst.is_own:
            # SAFETY: both cursors checked their range against memory they keep alive.
            copy_own(dst_address, src_address, n)
        else:
            dst.write(dst_address, src_address, n)
    elif dst.is_own:
        src.read(src_address, dst_address, n)
    else:
        _copy_by_bounce(dst, dst_address, src, src_address, n)


def _copy_by_bounce(dst: Memory, dst_address: int, src: Memory, src_address: int, n: int) -> None:
    overlap = src.domain is dst.domain and src_address < dst_address < src_address + n
    # Where the destination begins inside the source, a chunk written would be
    # read again as source: then all of it is read before any of it is written.
    if overlap and n > _MOST_AT_ONCE:
        raise InvalidArgsError(
            f"a copy of {n} bytes onto themselves {dst_address - src_address} bytes further needs "
            f"all of them at once, and {_MOST_AT_ONCE} is the most; copy from the end in parts"
        )
    if overlap and n > _BOUNCE_LEN:
        _copy_in_steps(Scratch(n), n, dst, dst_address, src, src_address, n)
        return
    bounce = _bounces.take()
    try:
        _copy_in_steps(bounce, _BOUNCE_LEN, dst, dst_address, src, src_address, n)
    finally:
        _bounces.leave(bounce)


def _copy_in_steps(
    bounce: Scratch,
    step_len: int,
    dst: Memory,
    dst_address: int,
    src: Memory,
    src_address: int,
    n: int,
) -> None:
    held = bounce.address
    done = 0
    while done < n:
        step = min(n - done, step_len)
        fault: ProcvmError | None = None
        try:
            src.read(src_address + done, held, step)
        except ProcvmError as error:
            fault = error
            step = error.copied_len
        try:
            if step:
                dst.write(dst_address + done, held, step)
        except ProcvmError as error:
            # Bytes that were read but not written did not take effect.
            error.copied_len += done
            raise
        done += step
        if fault is not None:
            fault.copied_len = done
            try:
                raise fault
            finally:
                fault = None  # breaks the reference cycle of the error and this frame
