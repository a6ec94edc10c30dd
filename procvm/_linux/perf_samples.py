"""perf_event_open(2): samples of hardware breakpoints, without a stop of the threads.

The kernel writes one record for each hit into a ring per CPU, which this process maps. It
disarms the breakpoints when the descriptors are closed, also when this process is killed.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import struct
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from procvm._base.address import PAGE_SIZE
from procvm._base.fd import Fd
from procvm._linux.perf_event import (
    DISABLED,
    EXCLUDE_HV,
    EXCLUDE_KERNEL,
    PERF_TYPE_BREAKPOINT,
    READS_AND_WRITES,
    RUNS,
    WRITES,
    Attr,
    control,
    open_event,
)

__all__ = ["READS_AND_WRITES", "RUNS", "WRITES", "Breakpoints", "Sample"]

_TYPE_SOFTWARE = 1
_SW_DUMMY = 9
_CLOCK_MONOTONIC = 1

# Bits of perf_event_attr.
_INHERIT = 1 << 1
_SAMPLE_ID_ALL = 1 << 18
_USE_CLOCKID = 1 << 25
_INHERIT_THREAD = 1 << 35
_REMOVE_ON_EXEC = 1 << 36

# Bits of sample_type.
_IP, _TID, _TIME, _ADDR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_REGS_USER, _STACK_USER, _IDENTIFIER = 1 << 12, 1 << 13, 1 << 16

_FORMAT_LOST = 1 << 4

_IOC_ENABLE = 0x2400
_IOC_SET_OUTPUT = 0x2405
_IOC_ID = 0x80082407

# struct perf_event_mmap_page
_DATA_HEAD, _DATA_TAIL = 1024, 1032

_RECORD_LOST, _RECORD_SAMPLE = 2, 9

_PAGES = 128
"""Pages of data in a ring; with its first page that is what perf_event_mlock_kb allows a user."""

_LEAST_PAGES = 4

_X86 = [
    *("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", "rip", "eflags", "cs", "ss"),
    *("-", "-", "-", "-"),  # ds, es, fs, gs
    *(f"r{n}" for n in range(8, 16)),
]
_ARM = [*(f"x{n}" for n in range(31)), "sp", "pc"]
_REGISTERS = {"x86_64": _X86, "aarch64": _ARM}
"""The kernel's names of the registers, by their bit in sample_regs_user.

The kernel refuses the bits of ds, es, fs and gs in a 64-bit program.
"""


class Sample(NamedTuple):
    """One hit of a breakpoint.

    Attributes:
        origin: The thread that the breakpoint was opened for. A thread that is born later has
            inherited it from there.
        pid: The process.
        tid: The thread that hit it.
        time: When, in nanoseconds of CLOCK_MONOTONIC.
        ip: The instruction pointer. On x86-64 it is the instruction after the access, or a
            repeated instruction that is under way.
        address: The address of the breakpoint.
        registers: The general registers by the kernel's names; empty if not asked for.
        stack: Bytes from the stack pointer upwards; empty if not asked for.
    """

    origin: int
    pid: int
    tid: int
    time: int
    ip: int
    address: int
    registers: Mapping[str, int]
    stack: bytes


class _Ring:
    """The ring of one CPU, and the event that it belongs to.

    The event counts nothing, in this process's main thread. Without it the ring would belong to
    a thread of the target, and with the end of that thread poll(2) would report a hangup for
    as long as the others live.
    """

    def __init__(self, cpu: int, pages: int) -> None:
        self.cpu = cpu
        attr = Attr(
            type=_TYPE_SOFTWARE,
            size=ctypes.sizeof(Attr),
            config=_SW_DUMMY,
            sample_period=1,
            flags=EXCLUDE_KERNEL | EXCLUDE_HV | _USE_CLOCKID,
            wakeup_events=1,
            clockid=_CLOCK_MONOTONIC,
        )
        self.event = open_event(attr, os.getpid(), cpu)
        try:
            self._map = mmap.mmap(self.event.number, (pages + 1) * PAGE_SIZE)
        except BaseException:
            self.event.close()  # the traceback of the error refers to this object
            raise
        self._len = pages * PAGE_SIZE

    def records(self) -> Iterator[tuple[int, bytes]]:
        """Yields the type and the body of each record that the kernel has written, and frees it."""
        (head,) = struct.unpack_from("@Q", self._map, _DATA_HEAD)
        (tail,) = struct.unpack_from("@Q", self._map, _DATA_TAIL)
        data = self._bytes(tail, head - tail)
        # Only now: the kernel may write over what lies before the tail.
        struct.pack_into("@Q", self._map, _DATA_TAIL, head)
        at = 0
        while at < len(data):
            kind, _misc, size = struct.unpack_from("@IHH", data, at)
            yield kind, data[at + 8 : at + size]
            at += size

    def _bytes(self, position: int, n: int) -> bytes:
        start = PAGE_SIZE + position % self._len
        end = start + n
        over = end - (PAGE_SIZE + self._len)
        if over <= 0:
            return self._map[start:end]
        return self._map[start : PAGE_SIZE + self._len] + self._map[PAGE_SIZE : PAGE_SIZE + over]

    def close(self) -> None:
        self._map.close()
        self.event.close()


class Breakpoints:
    """Breakpoints at one address, of any number of threads of a process, disarmed at first."""

    def __init__(
        self, address: int, size: int, kind: int, *, registers: bool, stack_len: int
    ) -> None:
        """Maps the rings; no breakpoint is open yet.

        Args:
            address: Where.
            size: Bytes: 1, 2, 4 or 8, and `address` is a multiple of it.
            kind: `WRITES`, `READS_AND_WRITES` or `RUNS`.
            registers: Whether samples have the general registers.
            stack_len: Bytes of the stack in each sample, a multiple of 8.

        Raises:
            OSError: The kernel refused: EACCES or EPERM (perf_event_paranoid, or
                perf_event_mlock_kb), ENOSYS.
        """
        self._told_lost = 0
        self._names = _REGISTERS.get(os.uname().machine, []) if registers else []
        self._stack_len = stack_len
        mask = sum(1 << bit for bit, name in enumerate(self._names) if name != "-")
        self._registers = [name for name in self._names if name != "-"]
        self._attr = Attr(
            type=PERF_TYPE_BREAKPOINT,
            size=ctypes.sizeof(Attr),
            sample_period=1,
            sample_type=_IDENTIFIER
            | _IP
            | _TID
            | _TIME
            | _ADDR
            | (_REGS_USER if registers else 0)
            | (_STACK_USER if stack_len else 0),
            flags=DISABLED
            | _INHERIT
            | _INHERIT_THREAD
            | _REMOVE_ON_EXEC
            | EXCLUDE_KERNEL
            | EXCLUDE_HV
            | _SAMPLE_ID_ALL
            | _USE_CLOCKID,
            wakeup_events=1,
            bp_type=kind,
            bp_addr=address,
            bp_len=ctypes.sizeof(ctypes.c_long) if kind == RUNS else size,
            sample_regs_user=mask,
            sample_stack_user=stack_len,
            clockid=_CLOCK_MONOTONIC,
        )
        # Before Linux 6.0 the kernel tells of lost hits in the ring alone, with the next that
        # it has room for.
        self._counts_lost = True
        self._rings: list[_Ring] = []
        self._events: list[tuple[int, Fd]] = []
        self._origins: dict[int, int] = {}
        try:
            for cpu in sorted(_online()):
                self._rings.append(self._ring(cpu))
        except BaseException:
            self.close()
            raise

    def _ring(self, cpu: int) -> _Ring:
        pages = _PAGES
        while True:
            try:
                return _Ring(cpu, pages)
            except PermissionError:
                # A user may lock some memory only: perf_event_mlock_kb and RLIMIT_MEMLOCK.
                if pages <= _LEAST_PAGES:
                    raise
                pages //= 2

    @property
    def fds(self) -> list[int]:
        """The descriptors that poll(2) reports as readable after a hit."""
        return [ring.event.number for ring in self._rings]

    def add(self, tid: int) -> None:
        """Opens a breakpoint of a thread on each CPU; threads that it creates inherit it.

        Raises:
            OSError: The kernel refused: ENOSPC (no debug register is free), EACCES or EPERM,
                ESRCH (the thread has ended), EINVAL (an address or a size that the machine
                cannot watch, or a kernel before Linux 5.13), EMFILE.
        """
        for ring in self._rings:
            event = self._open(tid, ring.cpu)
            self._events.append((tid, event))
            control(event.number, _IOC_SET_OUTPUT, ring.event.number)
            self._origins[_id_of(event.number)] = tid

    def _open(self, tid: int, cpu: int) -> Fd:
        self._attr.read_format = _FORMAT_LOST if self._counts_lost else 0
        try:
            return open_event(self._attr, tid, cpu)
        except OSError as error:
            if error.errno != errno.EINVAL or not self._counts_lost:
                raise
        self._counts_lost = False
        return self._open(tid, cpu)

    @property
    def lost(self) -> int:
        """How many hits found no room in a ring."""
        if not self._counts_lost:
            return self._told_lost
        # The value and the lost samples of each; those of threads that inherited it included.
        return sum(struct.unpack("@QQ", os.read(event.number, 16))[1] for _, event in self._events)

    def drop(self, tids: set[int]) -> None:
        """Closes the breakpoints of threads."""
        for tid, event in self._events:
            if tid in tids:
                event.close()
        self._events = [each for each in self._events if each[0] not in tids]

    def arm(self) -> None:
        """Arms what was opened so far, those included that threads have inherited.

        Raises:
            OSError: The kernel refused.
        """
        for _, event in self._events:
            control(event.number, _IOC_ENABLE)

    def drain(self) -> list[Sample]:
        """Takes the samples out of the rings, sorted by time."""
        found: list[Sample] = []
        for ring in self._rings:
            for kind, body in ring.records():
                if kind == _RECORD_SAMPLE:
                    found.append(self._sample(body))
                elif kind == _RECORD_LOST:
                    self._told_lost += struct.unpack_from("@QQ", body)[1]
        found.sort(key=lambda sample: sample.time)
        return found

    def _sample(self, body: bytes) -> Sample:
        event, ip, pid, tid, time, address = struct.unpack_from("@QQIIQQ", body)
        at = 40
        registers: dict[str, int] = {}
        if self._registers:
            (abi,) = struct.unpack_from("@Q", body, at)
            at += 8
            if abi:
                values = struct.unpack_from(f"@{len(self._registers)}Q", body, at)
                registers = dict(zip(self._registers, values, strict=True))
                at += 8 * len(values)
        stack = b""
        if self._stack_len:
            (size,) = struct.unpack_from("@Q", body, at)
            at += 8
            if size:
                (filled,) = struct.unpack_from("@Q", body, at + size)
                stack = body[at : at + filled]
        return Sample(self._origins.get(event, tid), pid, tid, time, ip, address, registers, stack)

    def close(self) -> None:
        """Disarms all breakpoints and unmaps the rings. Twice is fine."""
        events, self._events = self._events, []
        for _, event in events:
            event.close()
        rings, self._rings = self._rings, []
        for ring in rings:
            ring.close()


def _id_of(fd: int) -> int:
    number = ctypes.c_uint64()
    # SAFETY: the kernel writes 8 bytes into `number`, which lives until after the call.
    control(fd, _IOC_ID, ctypes.addressof(number))
    return number.value


def _online() -> set[int]:
    """Returns the CPUs that a thread may run on at any time."""
    found: set[int] = set()
    with Fd.open("/sys/devices/system/cpu/online", os.O_RDONLY) as file:
        text = os.read(file.number, PAGE_SIZE).decode("ascii")
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return found
