"""Kernel-grade memory I/O on live Linux processes.

Open a process and read its memory, typed and bounds-checked; a page that can
not be accessed raises `PageFaultError` with exactly the bytes that did arrive.

    >>> import procvm, os
    >>> with procvm.open(os.getpid()) as process:
    ...     process.vm.read_bytes(id(b"hello") + 32, 5)
    b'hello'
"""

from __future__ import annotations

from procvm.errors import (
    AccessDeniedError,
    AddressOverflowError,
    AlreadyTracedError,
    AmbiguousSymbolError,
    Candidate,
    ClosedError,
    InvalidArgsError,
    MalformedError,
    MismatchError,
    NoSuchProcessError,
    NoSuchSymbolError,
    NotStoppedError,
    NotTracedError,
    PageFaultError,
    ProcessError,
    ProcessExecedError,
    ProcessExitedError,
    ProcvmError,
    SharedMemoryError,
    StopTimeoutError,
    UnsupportedError,
    VmError,
    WaitTimeoutError,
)
from procvm.linux.access import Explanation, explain
from procvm.markers import Fallible, Infallible, Io
from procvm.mm.io import HasVmReaderWriter, VmIo, VmIoFill, VmIoOnce
from procvm.mm.iomem import IoMem
from procvm.mm.iovec import VmReaderArray, VmWriterArray
from procvm.mm.needle import Hit
from procvm.mm.reader import VmReader
from procvm.mm.scan import Scan
from procvm.mm.search import Search
from procvm.mm.segment import Segment
from procvm.mm.space import VmSpace
from procvm.mm.writer import VmWriter
from procvm.perms import Perms
from procvm.pod import (
    Pod,
    PodAtomic,
    PodOnce,
    f32,
    f64,
    i8,
    i16,
    i32,
    i64,
    isize,
    u8,
    u16,
    u32,
    u64,
    usize,
)
from procvm.process.corefile import open_core
from procvm.process.diff import Run
from procvm.process.facts import Thread
from procvm.process.mapped import Mapped
from procvm.process.maps import Kind, Maps, Vma
from procvm.process.patch import Patch, Unchanged
from procvm.process.process import Process
from procvm.process.process import open_process as open  # noqa: A004 (users of files know it)
from procvm.process.snapshot import Snapshot
from procvm.tracee.event import Event, EventKind, SigInfo
from procvm.tracee.held import Held
from procvm.tracee.spawn import attach, spawn
from procvm.tracee.tracee import Tracee

__version__ = "0.1.0"

__all__ = [
    "AccessDeniedError",
    "AddressOverflowError",
    "AlreadyTracedError",
    "AmbiguousSymbolError",
    "Candidate",
    "ClosedError",
    "Event",
    "EventKind",
    "Explanation",
    "Fallible",
    "HasVmReaderWriter",
    "Held",
    "Hit",
    "Infallible",
    "InvalidArgsError",
    "Io",
    "IoMem",
    "Kind",
    "MalformedError",
    "Mapped",
    "Maps",
    "MismatchError",
    "NoSuchProcessError",
    "NoSuchSymbolError",
    "NotStoppedError",
    "NotTracedError",
    "PageFaultError",
    "Patch",
    "Perms",
    "Pod",
    "PodAtomic",
    "PodOnce",
    "Process",
    "ProcessError",
    "ProcessExecedError",
    "ProcessExitedError",
    "ProcvmError",
    "Run",
    "Scan",
    "Search",
    "Segment",
    "SharedMemoryError",
    "SigInfo",
    "Snapshot",
    "StopTimeoutError",
    "Thread",
    "Tracee",
    "Unchanged",
    "UnsupportedError",
    "VmError",
    "VmIo",
    "VmIoFill",
    "VmIoOnce",
    "VmReader",
    "VmReaderArray",
    "VmSpace",
    "VmWriter",
    "VmWriterArray",
    "Vma",
    "WaitTimeoutError",
    "attach",
    "explain",
    "f32",
    "f64",
    "i8",
    "i16",
    "i32",
    "i64",
    "isize",
    "open",
    "open_core",
    "spawn",
    "u8",
    "u16",
    "u32",
    "u64",
    "usize",
]
