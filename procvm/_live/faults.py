"""Turns a failed access to a live process into its error: a fault becomes a PageFaultError."""

from __future__ import annotations

import os

from procvm._base.perms import READ
from procvm._linux.outcome import Outcome
from procvm._live.image import Image
from procvm.errors import Hint, PageFaultError, ProcvmError, VmError

__all__ = ["failed_transfer", "own_fault", "page_fault", "unseen_page"]


def failed_transfer(
    image: Image,
    moved: tuple[int, Outcome, int],
    verb: str,
    address: int,
    own_address: int,
    *,
    forced: bool,
) -> ProcvmError:
    """Returns the error for a transfer that ended before its last byte.

    Args:
        image: The program.
        moved: The bytes moved since `address`, the outcome, and the errno of `Outcome.FAILED`.
        verb: ``"read"`` or ``"write"``.
        address: The first address of the target.
        own_address: The first address of the tool's buffer.
        forced: Whether page protections were ignored.
    """
    done, outcome, code = moved
    if outcome is Outcome.TARGET_FAULT:
        return page_fault(image, address + done, verb, done, forced=forced)
    if outcome is Outcome.OWN_FAULT:
        return own_fault(own_address + done, done)
    if outcome is Outcome.GONE:
        image.open_files(done)
        return image.gone(done)
    what = f"cannot {verb} process {image.pid} at {address + done:#x}"
    return image.failure(code, what, done)


def page_fault(
    image: Image, address: int, verb: str, done: int = 0, *, forced: bool
) -> ProcvmError:
    """Returns the error for a page of the target that cannot be accessed.

    Args:
        image: The program.
        address: The first address that cannot be accessed.
        verb: What the access was to do, after "cannot".
        done: The bytes that were moved before it.
        forced: Whether page protections were ignored.

    Raises:
        ProcessExitedError: The process has ended, which looks like a fault to the system call.
        ProcessExecedError: The process runs another program.
        ClosedError: It was closed.
    """
    image.verify(done)
    image.prove(done)
    hint = None
    if forced:
        why = "the address is not mapped, or not even a debugger may access it"
    elif not _is_mapped(image, address, done):
        why, hint = "the address is not mapped", Hint("maps", {"pid": image.pid})
    else:
        why = f"the process itself cannot {verb} there"
        hint = Hint("forced", {"pid": image.pid})
    return PageFaultError(
        f"cannot {verb} process {image.pid} at {address:#x}: {why}",
        hint=hint,
        address=address,
        pid=image.pid,
        copied_len=done,
    )


def _is_mapped(image: Image, address: int, done: int) -> bool:
    try:
        return image.vma_at(address, done) is not None
    except VmError:
        return True  # not known, so the message does not claim that nothing is mapped


def own_fault(own_address: int, done: int) -> PageFaultError:
    """Returns the error for a page of the tool's own buffer that cannot be accessed."""
    return PageFaultError(
        f"cannot access the tool's own buffer at {own_address:#x}: it may be a mapping of a file "
        "that was truncated",
        address=own_address,
        pid=os.getpid(),
        copied_len=done,
    )


def unseen_page(image: Image, address: int, done: int, *, forced: bool) -> ProcvmError:
    """Returns the error for a byte that `Content.HOLE` leaves out of a read.

    Args:
        image: The program.
        address: The address of the byte.
        done: The bytes that were read before it.
        forced: Whether page protections are ignored.

    Raises:
        ProcvmError: As `page_fault`.
    """
    need = 0 if forced else READ
    try:
        vma = image.vma_at(address, done)
    except VmError:
        vma = None
    if vma is None or vma.flags & need != need:
        return page_fault(image, address, "read", done, forced=forced)
    image.verify(done)
    return PageFaultError(
        f"cannot read process {image.pid} at {address:#x} without allocating the page: the "
        "mapping is shared memory, this process never used the page, and without "
        "CAP_CHECKPOINT_RESTORE it cannot be seen whether another process did",
        hint=Hint("read_bytes"),
        address=address,
        pid=image.pid,
        copied_len=done,
    )
