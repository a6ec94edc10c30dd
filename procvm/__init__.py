"""Kernel-grade memory I/O on live Linux processes.

Open a process and read its memory, typed and bounds-checked; a page that can
not be accessed raises `PageFaultError` with exactly the bytes that did arrive.

    >>> import procvm, os
    >>> with procvm.open(os.getpid()) as process:
    ...     process.vm.read_bytes(id(b"hello") + 32, 5)
    b'hello'
"""

from __future__ import annotations

from procvm._base.markers import Fallible, Infallible, Io
from procvm._base.perms import Perms
from procvm._base.pods import (
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
from procvm._hold.event import Event, EventKind, SigInfo
from procvm._hold.held import Held
from procvm._hold.spawn import attach, spawn
from procvm._hold.tracee import Tracee
from procvm._linux.access import Explanation, explain
from procvm._live.patch import Patch, Unchanged
from procvm._live.process import Process
from procvm._live.process import open_process as open  # noqa: A004 (users of files know it)
from procvm._mm.io import HasVmReaderWriter, VmIo, VmIoFill, VmIoOnce
from procvm._mm.iomem import IoMem
from procvm._mm.iovec import VmReaderArray, VmWriterArray
from procvm._mm.reader import VmReader
from procvm._mm.segment import Segment
from procvm._mm.writer import VmWriter
from procvm._saved.core_reader import open_core
from procvm._saved.diff import Run
from procvm._saved.facts import Thread
from procvm._saved.snapshot import Snapshot
from procvm._space.maps import Kind, Maps, Vma
from procvm._space.patterns import Hit
from procvm._space.scan import Scan
from procvm._space.search import Search
from procvm._space.space import VmSpace
from procvm._symbols.mapped import Mapped
from procvm.errors import (
    AccessDeniedError,
    AddressOverflowError,
    AlreadyTracedError,
    AmbiguousNameError,
    AmbiguousSymbolError,
    Candidate,
    ClosedError,
    Hint,
    InvalidArgsError,
    MalformedError,
    MismatchError,
    NoSuchProcessError,
    NoSuchSymbolError,
    NotStoppedError,
    NotTracedError,
    PageFaultError,
    ProcessCandidate,
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

__version__ = "0.1.0"

__all__ = [
    "AccessDeniedError",
    "AddressOverflowError",
    "AlreadyTracedError",
    "AmbiguousNameError",
    "AmbiguousSymbolError",
    "Candidate",
    "ClosedError",
    "Event",
    "EventKind",
    "Explanation",
    "Fallible",
    "HasVmReaderWriter",
    "Held",
    "Hint",
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
    "ProcessCandidate",
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
