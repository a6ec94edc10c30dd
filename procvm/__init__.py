"""Kernel-grade memory I/O on live Linux processes.

`procvm.open` opens a process, whose memory can then be read and written as typed values.
An access to a page that cannot be read or written raises `PageFaultError`, which tells
exactly how many bytes were transferred before it.

    >>> import procvm, os
    >>> with procvm.open(os.getpid()) as process:
    ...     process.vm.read_bytes(id(b"hello") + 32, 5)
    b'hello'

A name is loaded when it is first used. A program that changes its user or its root directory
meanwhile loads the names before: ``from procvm import open``. ``from procvm import *`` leaves
`open` out, so that the builtin of that name stays.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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
    from procvm._hold.admission import allow_attach
    from procvm._hold.event import Event, EventKind, SigInfo, SyscallStop
    from procvm._hold.held import Held
    from procvm._hold.points import Breakpoint, Watchpoint
    from procvm._hold.spawn import attach, spawn
    from procvm._hold.tracee import Tracee
    from procvm._linux.access import Explanation, explain
    from procvm._live.accesses import Access, AccessTrace
    from procvm._live.patch import Patch
    from procvm._live.process import Process
    from procvm._live.process import open as open  # noqa: A004 (users of files know it)
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
    from procvm._saved.unchanged import Unchanged
    from procvm._space.hexdump import Hexdump, HexRow
    from procvm._space.maps import Kind, Maps, Vma
    from procvm._space.patterns import Hit
    from procvm._space.scan import Place, Scan
    from procvm._space.search import Search
    from procvm._space.space import VmSpace
    from procvm._space.telescope import Telescope, Word
    from procvm._space.text_scan import TextScan
    from procvm._space.texts import Text
    from procvm._symbols.mapped import Mapped
    from procvm._symbols.modules import Location, Module, Modules, Symbol
    from procvm._symbols.pointer_paths import PointerPath, PointerPaths
    from procvm._types.stacks import Frame, Stacks
    from procvm._types.variable import Variable
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
    "Access",
    "AccessDeniedError",
    "AccessTrace",
    "AddressOverflowError",
    "AlreadyTracedError",
    "AmbiguousNameError",
    "AmbiguousSymbolError",
    "Breakpoint",
    "Candidate",
    "ClosedError",
    "Event",
    "EventKind",
    "Explanation",
    "Fallible",
    "Frame",
    "HasVmReaderWriter",
    "Held",
    "HexRow",
    "Hexdump",
    "Hint",
    "Hit",
    "Infallible",
    "InvalidArgsError",
    "Io",
    "IoMem",
    "Kind",
    "Location",
    "MalformedError",
    "Mapped",
    "Maps",
    "MismatchError",
    "Module",
    "Modules",
    "NoSuchProcessError",
    "NoSuchSymbolError",
    "NotStoppedError",
    "NotTracedError",
    "PageFaultError",
    "Patch",
    "Perms",
    "Place",
    "Pod",
    "PodAtomic",
    "PodOnce",
    "PointerPath",
    "PointerPaths",
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
    "Stacks",
    "StopTimeoutError",
    "Symbol",
    "SyscallStop",
    "Telescope",
    "Text",
    "TextScan",
    "Thread",
    "Tracee",
    "Unchanged",
    "UnsupportedError",
    "Variable",
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
    "Watchpoint",
    "Word",
    "allow_attach",
    "attach",
    "explain",
    "f32",
    "f64",
    "i8",
    "i16",
    "i32",
    "i64",
    "isize",
    "open_core",
    "spawn",
    "u8",
    "u16",
    "u32",
    "u64",
    "usize",
]

_HOMES = {
    "procvm._base.markers": "Fallible Infallible Io",
    "procvm._base.perms": "Perms",
    "procvm._base.pods": "Pod PodAtomic PodOnce f32 f64 i8 i16 i32 i64 isize u8 u16 u32 u64 usize",
    "procvm._hold.admission": "allow_attach",
    "procvm._hold.event": "Event EventKind SigInfo SyscallStop",
    "procvm._hold.held": "Held",
    "procvm._hold.points": "Breakpoint Watchpoint",
    "procvm._hold.spawn": "attach spawn",
    "procvm._hold.tracee": "Tracee",
    "procvm._linux.access": "Explanation explain",
    "procvm._live.accesses": "Access AccessTrace",
    "procvm._live.patch": "Patch",
    "procvm._live.process": "Process open",
    "procvm._mm.io": "HasVmReaderWriter VmIo VmIoFill VmIoOnce",
    "procvm._mm.iomem": "IoMem",
    "procvm._mm.iovec": "VmReaderArray VmWriterArray",
    "procvm._mm.reader": "VmReader",
    "procvm._mm.segment": "Segment",
    "procvm._mm.writer": "VmWriter",
    "procvm._saved.core_reader": "open_core",
    "procvm._saved.diff": "Run",
    "procvm._saved.facts": "Thread",
    "procvm._saved.snapshot": "Snapshot",
    "procvm._saved.unchanged": "Unchanged",
    "procvm._space.hexdump": "HexRow Hexdump",
    "procvm._space.maps": "Kind Maps Vma",
    "procvm._space.patterns": "Hit",
    "procvm._space.scan": "Place Scan",
    "procvm._space.search": "Search",
    "procvm._space.space": "VmSpace",
    "procvm._space.telescope": "Telescope Word",
    "procvm._space.text_scan": "TextScan",
    "procvm._space.texts": "Text",
    "procvm._symbols.mapped": "Mapped",
    "procvm._symbols.modules": "Location Module Modules Symbol",
    "procvm._symbols.pointer_paths": "PointerPath PointerPaths",
    "procvm._types.stacks": "Frame Stacks",
    "procvm._types.variable": "Variable",
    "procvm.errors": (
        "AccessDeniedError AddressOverflowError AlreadyTracedError AmbiguousNameError "
        "AmbiguousSymbolError Candidate ClosedError Hint InvalidArgsError MalformedError "
        "MismatchError NoSuchProcessError NoSuchSymbolError NotStoppedError NotTracedError "
        "PageFaultError ProcessCandidate ProcessError ProcessExecedError ProcessExitedError "
        "ProcvmError SharedMemoryError StopTimeoutError UnsupportedError VmError "
        "WaitTimeoutError"
    ),
}
"""The public names by the module that defines each, as the imports above have them."""

if not TYPE_CHECKING:  # type checkers would take any name of the package for one that exists
    _HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}

    def __getattr__(name: str) -> object:
        home = _HOME_OF.get(name)
        if home is not None:
            found = getattr(importlib.import_module(home), name)
        elif name == "errors":
            found = importlib.import_module("procvm.errors")
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name)
        globals()[name] = found  # the next use does not come here
        return found

    def __dir__() -> list[str]:
        return sorted({*globals(), *_HOME_OF})
