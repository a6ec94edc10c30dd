"""A tool that attaches to a target and does random operations on it, in bursts; it may be killed.

python -m scripts.soaking.tool LOG_FD COOKIE_ADDRESS WORD_ADDRESS OPERATIONS

Each line "PID COUNT SEED" on stdin is a burst; the answer is one line of JSON. Nothing stays open
between bursts, so that whatever is open then was leaked.
"""

from __future__ import annotations

import json
import mmap
import os
import pickle
import random
import signal
import sys
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType

import procvm
from procvm import u64
from scripts.soaking.board import BOARD_LEN, Log, box

REFUSED = 1 << 31
"""A bit of r15 that comes only with values that the kernel refuses, so a target never sees it."""

OPERATIONS = (
    "attach", "stop", "resume", "with", "leave", "step", "cont", "registers", "set same",
    "set tag", "set refused", "exchange", "update", "read", "threads", "pickled", "close", "write",
)  # fmt: skip
"""The names of operations; the log has their index."""

INSIDE = (
    "step", "step", "step", "cont", "cont", "registers", "set same", "set tag", "set refused",
    "exchange", "update", "read", "threads", "write", "write",
)  # fmt: skip
"""Operations in a hold, each as often as it is done."""

NR_RANGES = 40
OUTSIDE = ("exchange", "update", "read", "threads", "pickled", "pickled", "pickled")
LOST = (
    procvm.ProcessExitedError,
    procvm.ProcessExecedError,
    procvm.NotTracedError,
    procvm.NotStoppedError,
    procvm.AlreadyTracedError,
    procvm.ClosedError,
)
"""Errors after which the tool attaches again."""


class Tool:
    """The operations of one tool, and what came of them."""

    def __init__(
        self, log_fd: int, cookie_address: int, word_address: int, inside: tuple[str, ...]
    ) -> None:
        self.log = memoryview(mmap.mmap(log_fd, BOARD_LEN)).cast("Q")
        self.cookie_address = cookie_address
        self.word_address = word_address
        self.inside = inside
        self.chance = random.Random()
        self.pid = self.left = self.cookie = self.serial = 0
        self.refusals = self.pickled_cookie = 0
        self.pickled = b""
        self.is_busy = False
        self.done: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self.foreign: list[str] = []

    def burst(self, pid: int, count: int, seed: int) -> dict[str, object]:
        """Does `count` operations on whichever process has the number now."""
        self.chance.seed(seed)
        self.pid, self.left, self.refusals = pid, count, 0
        self.done.clear()
        self.errors.clear()
        self.foreign.clear()
        self.is_busy = True
        while True:
            try:
                while self.left > 0 and not self.log[Log.GIVE_UP]:
                    self._once()
                self.is_busy = False
                break
            except KeyboardInterrupt:
                self.log[Log.CAUGHT] += 1
        return {"done": self.done, "errors": self.errors, "foreign": self.foreign}

    def _once(self) -> None:
        try:
            self._visit()
            self.refusals = 0
        except procvm.ProcvmError:  # counted where it was raised
            self.refusals += self.log[Log.OPERATION] == OPERATIONS.index("attach")
            if self.refusals > 20:
                self.left = 0  # it has ended, and attaching to nothing is no operation
        except Exception as error:  # noqa: BLE001 (any other type is a fault of the library)
            self.left -= 1
            if len(self.foreign) < 5:
                name = OPERATIONS[self.log[Log.OPERATION]]
                self.foreign.append(f"{name}: {type(error).__name__}: {error}"[:300])

    @contextmanager
    def _operation(self, name: str, tid: int = 0, pc: int = 0) -> Generator[None]:
        """Notes that an operation is under way, and what came of it."""
        log = self.log
        self.left -= 1
        log[Log.OPERATION], log[Log.TID], log[Log.PC] = OPERATIONS.index(name), tid, pc
        log[Log.STARTED] += 1
        try:
            yield
            self.done[name] += 1
        except procvm.ProcvmError as error:
            self.errors[f"{name}: {type(error).__name__}"] += 1
            if name in ("attach", "stop", "with") or isinstance(error, LOST):
                raise
        finally:
            log[Log.DONE] = log[Log.STARTED]

    def _visit(self) -> None:
        """Attaches, works on the target for a while, and leaves it."""
        longest = self.chance.choice((None, 30.0))
        with self._operation("attach"):
            tracee = procvm.attach(self.pid, longest_hold=longest)
        with tracee:
            with self._operation("read"):
                self.cookie = tracee.vm.read_val(self.cookie_address, u64)
            if not self.cookie:
                return  # its threads do not run yet
            for _ in range(self.chance.randrange(1, 12)):
                kind = self.chance.choice(("stop", "stop", "with", "outside"))
                if kind == "outside":
                    self._do(tracee, self.chance.choice(OUTSIDE))
                elif kind == "with":
                    self._hold_by_with(tracee)
                else:
                    self._hold_by_stop(tracee)
                if self.left <= 0:
                    break
            with self._operation("close"):
                tracee.close()

    def _hold_by_stop(self, tracee: procvm.Tracee) -> None:
        with self._operation("stop"):
            tracee.stop()
        for _ in range(self.chance.randrange(8)):
            self._do(tracee, self.chance.choice(self.inside))
        with self._operation("resume"):
            tracee.resume()

    def _hold_by_with(self, tracee: procvm.Tracee) -> None:
        with self._operation("with"):
            held = tracee.stopped()
        with held:
            for _ in range(self.chance.randrange(8)):
                self._do(tracee, self.chance.choice(self.inside))
            with self._operation("leave"):
                held.close()

    def _do(self, tracee: procvm.Tracee, name: str) -> None:
        chance = self.chance
        if name in ("exchange", "update", "read", "threads", "pickled", "cont", "write"):
            with self._operation(name):
                self._on_process(tracee, name)
            return
        tid: int | None = None
        registers: dict[str, int] = {}
        with self._operation("registers"):
            threads = tracee.threads()
            if not threads:
                self.foreign.append("threads() of a held process is empty")
                return
            tid = chance.choice(threads).tid
            registers = tracee.registers(tid)
        if not registers or name == "registers":
            return
        with self._operation(name, tid, registers["rip"]):
            if name == "step":
                tracee.step(tid, timeout=chance.choice((0.002, 0.02, 2.0)))
            elif name == "set same":
                tracee.set_registers(registers, tid)
            elif name == "set tag":
                self.serial += 1
                tag = self.cookie << 32 | (self.serial & (REFUSED - 1))
                tracee.set_registers({"r15": tag}, tid)
            else:
                self._set_refused(tracee, tid, registers)

    def _on_process(self, tracee: procvm.Tracee, name: str) -> None:
        vm, word = tracee.vm, self.word_address
        if name == "cont":
            tracee.cont(timeout=self.chance.random() * 0.004)
        elif name == "threads":
            tracee.threads()
        elif name == "read":
            vm.read_val(word, u64)
        elif name == "write":
            self._write_cookie(vm)
        elif name == "pickled":
            self._read_by_pickle(vm)
        elif name == "update":
            self._counted(lambda: bool(vm.atomic_fetch_update(word, u64, lambda old: old + 1) + 1))
        else:
            old = vm.atomic_load(word, u64)
            self._counted(lambda: vm.atomic_compare_exchange(word, u64, old, old + 1)[1])

    def _counted(self, change: Callable[[], bool]) -> None:
        """Logs before and after an increment of the word, for readers after the end of the tool."""
        at = box(self.cookie)
        self.log[at] += 1
        if change():
            self.log[at + 1] += 1
        else:
            self.log[at] -= 1

    def _write_cookie(self, vm: procvm.VmSpace) -> None:
        """Writes the cookie to its own place, by one call for all ranges: others would notice."""
        data = self.cookie.to_bytes(8, sys.byteorder) * NR_RANGES
        writers = [vm.writer(self.cookie_address, 8) for _ in range(NR_RANGES)]
        procvm.VmWriterArray(writers).write(procvm.VmReader.from_buffer(data))

    def _read_by_pickle(self, vm: procvm.VmSpace) -> None:
        """Has a child open a handle that was pickled now or earlier: that target, or an error."""
        if self.chance.random() < 0.5 or not self.pickled:
            self.pickled, self.pickled_cookie = pickle.dumps(vm), self.cookie
        # CPython swallows a Ctrl-C that lands in one of the hooks that run as it forks.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        if (child := os.fork()) == 0:
            os._exit(self._unpickle())
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status:
            names = {1: "another error", 2: "another process"}
            self.foreign.append(f"a pickled handle gave {names.get(status, status)}")

    def _unpickle(self) -> int:
        """Returns what a child found by the pickled handle, as its exit status."""
        try:
            found = pickle.loads(self.pickled).read_val(self.cookie_address, u64)
        except (procvm.ProcessExitedError, procvm.ProcessExecedError, procvm.NoSuchProcessError):
            return 0
        except BaseException as error:  # noqa: BLE001 (it has to end here, in the child)
            # Itself and no subclass: the child lacks descriptors, so nothing is known.
            return 0 if type(error) is procvm.VmError else 1
        return 0 if found == self.pickled_cookie else 2

    def _set_refused(self, tracee: procvm.Tracee, tid: int, before: dict[str, int]) -> None:
        """Asks for a value that the kernel refuses and one that it takes: neither may be set."""
        bad = self.chance.choice(({"fs_base": 1 << 47}, {"gs_base": 1 << 47}, {"cs": 0x1234}))
        try:
            tracee.set_registers({"r15": self.cookie << 32 | REFUSED, **bad}, tid)
        except ValueError:
            if tracee.registers(tid) != before:
                self.foreign.append(f"{sorted(bad)} was refused, and registers have changed")
            return
        self.foreign.append(f"{bad} was not refused")


def on_interrupt(_: int, frame: FrameType | None) -> None:
    del frame
    TOOL.log[Log.ARRIVED] += 1
    if TOOL.is_busy:
        raise KeyboardInterrupt
    # Without this one that comes after the last operation would cut the answer off.
    TOOL.log[Log.CAUGHT] += 1


def main() -> None:
    signal.signal(signal.SIGINT, on_interrupt)
    os.write(1, b"ready\n")
    for line in sys.stdin:
        answer = TOOL.burst(*map(int, line.split()))
        os.write(1, json.dumps(answer).encode() + b"\n")


if __name__ == "__main__":
    _fd, _cookie, _word = map(int, sys.argv[1:4])
    TOOL = Tool(_fd, _cookie, _word, tuple(sys.argv[4].split(",")))
    main()
