"""Steps by `procvm._hold.server.stepping` alone, made by a tracer of the test's own."""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from procvm._hold.server import requests
from procvm._hold.server.next_address import next_addresses
from procvm._hold.server.requests import EVENT_EXEC, SigInfo
from procvm._hold.server.step_outcomes import Progress, StepRefusedError, Way, is_our_trap
from procvm._linux.perf_event import SLOTS, HardwareBreakpoint
from procvm._linux.sigsets import bit
from tests.support.build import compiled
from tests.support.child import ROOT
from tests.support.procfs import state_of, status_field
from tests.tracee.raw_tracer import Ended, RawTracer, ptrace

pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="execution breakpoints are used on x86-64 only"
)

ADDR_NO_RANDOMIZE = 0x0040000
TRAP_FLAG = 1 << 8
RESUME_FLAG = 1 << 16
CONT, SINGLESTEP, INTERRUPT = 7, 9, 0x4207
SIGTRAP_BIT = 1 << (signal.SIGTRAP - 1)
ACTIONS = {
    "default": "default open",
    "ignored": "ignored open",
    "handled": "handled open",
    "blocked": "handled blocked",
    "busy": "default open",
}


class Target:
    """A `stepped` process, which the test judges by its last words."""

    def __init__(self, mode: str, action: str = "default", program: str | None = None) -> None:
        self._process = subprocess.Popen(
            [program or compiled("stepped"), mode, action], stdout=subprocess.PIPE, text=True
        )
        self.pid = self._process.pid
        assert self._process.stdout is not None
        self._stdout = self._process.stdout
        assert self._stdout.readline() == "ready\n"

    def last_words(self) -> str:
        """Ends it by SIGUSR2; returns what it told, and checks that it ended by itself."""
        os.kill(self.pid, signal.SIGUSR2)
        told = self._stdout.read()
        assert self._process.wait() == 7
        return told

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._stdout.close()


@contextmanager
def target(mode: str, action: str = "default", program: str | None = None) -> Iterator[Target]:
    found = Target(mode, action, program)
    try:
        yield found
    finally:
        found.kill()


def perf_is_refused() -> bool:
    with target("block") as stepped:
        try:
            HardwareBreakpoint(stepped.pid, signal.SIGURG).close()
        except OSError:
            return True
    return False


@pytest.fixture(autouse=True)
def _needs_perf() -> None:
    if perf_is_refused():
        pytest.skip("perf_event_open is refused")


def rip_of(tracer: RawTracer) -> int:
    return requests.registers(tracer.pid)["rip"]


def handles(pid: int, signo: int) -> bool:
    """Returns whether a signal is pending, or its handler runs."""
    sets = (int(status_field(pid, field), 16) for field in ("SigPnd", "ShdPnd", "SigBlk"))
    return any(mask >> (signo - 1) & 1 for mask in sets)


# Each step is one instruction


def launched(program: str, *, hardware: bool, in_exec: bool = False) -> RawTracer:
    """Starts a program without address randomisation, stopped at its first instruction.

    Args:
        program: The program.
        hardware: Whether it may be stepped by breakpoints.
        in_exec: Whether it is left in the stop that reports its exec.
    """
    go, begin = os.pipe()
    pid = os.fork()
    if not pid:
        with suppress(BaseException):
            os.setsid()  # it signals its group
            ctypes.CDLL(None).personality(ADDR_NO_RANDOMIZE)
            os.close(begin)
            os.read(go, 1)
            os.execve(program, ["program"], {})
        os._exit(127)
    os.close(go)
    tracer = RawTracer(pid, hardware=hardware)
    ptrace(CONT, pid)
    os.write(begin, b"!")
    os.close(begin)
    while (stop := tracer.wait())[1] != EVENT_EXEC:
        ptrace(CONT, pid, 0, 0 if stop[1] else stop[0])
    if not in_exec:
        ptrace(INTERRUPT, pid)
        ptrace(CONT, pid)  # out of the exec, to its first instruction
        tracer.wait()
    tracer.reopen()
    return tracer


@pytest.mark.parametrize("hardware", [True, False])
def test_step_from_the_stop_of_an_exec_runs_the_first_instruction(hardware: bool) -> None:
    """A trap comes at the end of execve as well, before any instruction of the program."""
    with launched(compiled("stepped"), hardware=hardware, in_exec=True) as tracer:
        first = rip_of(tracer)
        registers = requests.registers(tracer.pid)
        expected = next_addresses("x86_64", registers, tracer.read, is_32bit=False)
        assert tracer.step() is Progress.DONE
        assert rip_of(tracer) != first
        assert rip_of(tracer) in (expected or [])
        os.kill(tracer.pid, signal.SIGKILL)
        os.waitpid(tracer.pid, 0x40000000)


def step_by_trap(tracer: RawTracer) -> None:
    """Steps as the processor's trap flag does; all iterations of a string instruction."""
    while True:
        rip = rip_of(tracer)
        ptrace(SINGLESTEP, tracer.pid)
        signo, event = tracer.wait()
        if signo != signal.SIGTRAP:
            assert not event
            ptrace(INTERRUPT, tracer.pid)
            ptrace(CONT, tracer.pid, 0, signo)
            tracer.wait()
            return
        again = rip_of(tracer) == rip
        if not again or tracer.read(rip, 1) not in {b"\xf3", b"\xf2"}:
            return


@pytest.mark.parametrize("width", [64, 32])
def test_step_every_kind_of_branch_leaves_the_registers_of_the_trap_flag(width: int) -> None:
    flags = ["-nostdlib", "-static", "-fno-stack-protector", *(["-m32"] if width == 32 else [])]
    try:
        program = compiled("stepped_twin", *flags)
    except subprocess.CalledProcessError:
        pytest.skip("the compiler makes no 32-bit programs")
    with launched(program, hardware=True) as ours, launched(program, hardware=False) as theirs:
        steps = compare(ours, theirs)
    assert steps > 3000
    assert ours.ways[Way.BREAKPOINT] > 3000
    assert ours.ways[Way.CALL] > 30
    assert not ours.ways[Way.TRAP]
    assert ours.signals == {signal.SIGUSR1: 8}


def runs_on(theirs: RawTracer) -> bool:
    """Steps by the trap flag; returns whether the program has not ended by that."""
    try:
        step_by_trap(theirs)
    except Ended as ended:
        return ended.args != (7 << 8,)
    return True


def compare(ours: RawTracer, theirs: RawTracer) -> int:
    """Steps two runs of one program to their ends, one each way; returns the steps."""
    steps = 0
    while runs_on(theirs):
        assert ours.step() is Progress.DONE
        wanted = requests.registers(theirs.pid)
        found = requests.registers(ours.pid)
        assert not found["eflags"] & (TRAP_FLAG | RESUME_FLAG)
        for name in ("eflags", "r11"):  # a trap shows its own flag, in r11 after a call
            wanted[name] &= ~TRAP_FLAG
        assert found == wanted
        steps += 1
    with pytest.raises(Ended) as ours_ended:
        ours.step()
    assert ours_ended.value.args == (7 << 8,)
    return steps


def test_step_jump_to_itself_stays_and_is_done() -> None:
    with target("itself") as stepped, RawTracer(stepped.pid) as tracer:
        while tracer.read(rip_of(tracer), 2) != b"\xeb\xfe":
            assert tracer.step() is Progress.DONE
        tracer.ways.clear()
        before = rip_of(tracer)
        for _ in range(100):
            assert tracer.step() is Progress.DONE
        assert tracer.ways == {Way.BREAKPOINT: 100}
        assert rip_of(tracer) == before
        tracer.detach()
        assert stepped.last_words() == "default open traps=0 queued=0\n"


def test_step_in_a_restartable_sequence_runs_its_abort_handler() -> None:
    with target("", program=compiled("stepped_rseq")) as stepped, RawTracer(stepped.pid) as tracer:
        in_sequence = 0
        for _ in range(1000):
            before = tracer.read(rip_of(tracer), 2)
            assert tracer.step() is Progress.DONE
            if before in {b"\x90\x90", b"\x90\xf3", b"\xf3\x90", b"\xeb\xfa"}:
                in_sequence += 1
                assert tracer.read(rip_of(tracer), 3) == b"\x48\xff\x05"  # incq, at `aborted`
        assert in_sequence > 50
        assert tracer.ways == {Way.BREAKPOINT: 1000}
        tracer.detach()
        assert int(stepped.last_words()) > 50


# Signals


@pytest.mark.parametrize("action", ACTIONS)
def test_step_leaves_the_action_and_mask_of_sigtrap(action: str) -> None:
    with target("work", action) as stepped, RawTracer(stepped.pid) as tracer:
        for _ in range(300):
            assert tracer.step() is Progress.DONE
        # Every signal would run a handler of a busy target, should the tracer die.
        assert not tracer.ways[Way.BREAKPOINT if action == "busy" else Way.TRAP]
        tracer.detach()
        assert stepped.last_words() == f"{ACTIONS[action]} traps=0 queued=0\n"


@pytest.mark.parametrize("action", ["default", "handled", "blocked"])
def test_step_by_trap_leaves_the_action_and_mask_of_sigtrap(action: str) -> None:
    with target("work", action) as stepped, RawTracer(stepped.pid, hardware=False) as tracer:
        for _ in range(300):
            assert tracer.step() is Progress.DONE
        assert tracer.ways[Way.TRAP] > 250
        tracer.detach()
        assert stepped.last_words() == f"{ACTIONS[action]} traps=0 queued=0\n"


def test_step_by_trap_of_a_task_that_ignores_sigtrap_is_refused() -> None:
    with target("itself", "ignored") as stepped, RawTracer(stepped.pid, hardware=False) as tracer:
        with pytest.raises(StepRefusedError):
            tracer.step()
        tracer.detach()
        assert stepped.last_words() == "ignored open traps=0 queued=0\n"


@pytest.mark.parametrize("hardware", [True, False])
def test_step_under_queued_signals_delivers_each_once(hardware: bool) -> None:
    with target("work") as stepped, RawTracer(stepped.pid, hardware=hardware) as tracer:
        sent = 0
        for number in range(400):
            if number % 4 == 0:
                os.kill(stepped.pid, signal.SIGRTMIN)
                os.kill(stepped.pid, signal.SIGUSR1)  # of a lower number than the breakpoint's
                sent += 1
            assert tracer.step() is Progress.DONE
        tracer.detach()
        # SIGUSR2 is delivered before any that is queued still, and inside of its handler.
        while handles(stepped.pid, signal.SIGRTMIN):
            os.sched_yield()
        assert stepped.last_words() == f"default open traps=0 queued={sent}\n"


def test_step_at_a_signal_that_is_left_reports_it_and_delivers_it_later() -> None:
    with target("itself") as stepped, RawTracer(stepped.pid) as tracer:
        os.kill(stepped.pid, signal.SIGRTMIN)
        step = tracer.stepper.start(stepped.pid)
        assert step.stopped(*tracer.wait()) is Progress.SIGNAL
        assert not step.leave()
        assert tracer.step(signal.SIGRTMIN) is Progress.DONE
        tracer.detach()
        while handles(stepped.pid, signal.SIGRTMIN):
            os.sched_yield()
        assert stepped.last_words() == "default open traps=0 queued=1\n"


def repeats(pid: int, address: int) -> bool:
    """Returns whether the instruction is one of the two of stepped.c that lead to themselves."""
    with open(f"/proc/{pid}/mem", "rb", 0) as memory:
        memory.seek(address)
        return memory.read(2) in (b"\xf3\xa4", b"\xe2\xfe")  # rep movsb, loop


def test_step_given_up_at_once_is_done_or_late_and_leaves_nothing() -> None:
    with target("work") as stepped, RawTracer(stepped.pid) as tracer:
        found: set[Progress] = set()
        for _ in range(300):
            before = rip_of(tracer)
            step = tracer.stepper.start(tracer.pid)
            step.give_up()
            progress = tracer.finish(step)
            found.add(progress)
            moved = rip_of(tracer) != before
            if step.way is Way.BREAKPOINT and not repeats(tracer.pid, before):
                assert moved or progress is Progress.LATE
            # It raises SIGUSR1 by itself now and then.
            assert not int(status_field(stepped.pid, "SigPnd"), 16) & ~bit(signal.SIGUSR1)
        assert Progress.LATE in found
        tracer.detach()
        assert stepped.last_words() == "default open traps=0 queued=0\n"


@pytest.mark.parametrize(
    ("code", "ours"),
    [
        (1, True),
        (2, True),
        (4, True),
        (5, True),
        (0, False),
        (-6, False),
        (0x80, False),
        (6, False),
    ],
)
def test_is_our_trap_by_its_code_tells_the_targets_own(code: int, ours: bool) -> None:
    assert is_our_trap(SigInfo(signal.SIGTRAP, code, b"")) is ours


# System calls


@pytest.mark.parametrize("hardware", [True, False])
def test_step_in_a_call_that_blocks_is_late_and_leaves_nothing(hardware: bool) -> None:
    with target("block") as stepped:
        while state_of(stepped.pid) != "S":
            os.sched_yield()
        for _ in range(20):
            with RawTracer(stepped.pid, hardware=hardware) as tracer:
                step = tracer.stepper.start(stepped.pid)
                assert step.way is Way.CALL
                while state_of(stepped.pid) != "S":  # in the call again, past the stop at its entry
                    if state_of(stepped.pid) == "t" and tracer.has_stop():
                        assert step.stopped(*tracer.wait()) is Progress.RUNS
                step.give_up()
                assert tracer.finish(step) is Progress.LATE
                for field in ("SigPnd", "ShdPnd"):
                    assert int(status_field(stepped.pid, field), 16) == 0
                tracer.detach()
        assert stepped.last_words() == "default open traps=0 queued=0\n"


# The death of the tracer


KILLS = 40


@pytest.mark.parametrize(
    ("mode", "action", "first"),
    [
        *(("work", action, 0) for action in ("default", "ignored", "handled", "blocked")),
        *(("work", "default", first) for first in (KILLS, 2 * KILLS)),
        *(("calls", action, 0) for action in ("default", "ignored", "handled", "blocked")),
        *(("calls", "default", first) for first in (KILLS, 2 * KILLS, 3 * KILLS)),
        ("itself", "default", 0),
    ],
)
def test_step_tracer_killed_at_any_request_leaves_the_target_unharmed(
    mode: str, action: str, first: int
) -> None:
    with (
        subprocess.Popen(
            [sys.executable, "-m", "tests.tracee.raw_tracer"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as tracers,
        target(mode, action) as stepped,
    ):
        assert tracers.stdin is not None
        assert tracers.stdout is not None
        for point in range(first, first + KILLS):
            print(stepped.pid, 1, point, file=tracers.stdin, flush=True)
            ended, requests, _, traps = map(int, tracers.stdout.readline().split())
            assert (ended, requests, traps) == (-signal.SIGKILL, point, 0)
            assert status_field(stepped.pid, "TracerPid") == "0"
        assert stepped.last_words() == f"{ACTIONS[action]} traps=0 queued=0\n"
        tracers.stdin.close()


# What cannot be had by breakpoints


def test_step_without_free_breakpoints_falls_back_to_the_trap() -> None:
    with target("work") as stepped, RawTracer(stepped.pid) as tracer:
        taken = [HardwareBreakpoint(stepped.pid, signal.SIGURG) for _ in range(SLOTS)]
        with pytest.raises(OSError, match="No space"):
            HardwareBreakpoint(stepped.pid, signal.SIGURG)
        for _ in range(50):
            assert tracer.step() is Progress.DONE
        assert not tracer.ways[Way.BREAKPOINT]
        for breakpoint_ in taken:
            breakpoint_.close()
        for _ in range(50):
            assert tracer.step() is Progress.DONE
        assert tracer.ways[Way.BREAKPOINT] > 40
        tracer.detach()
        assert stepped.last_words() == "default open traps=0 queued=0\n"


# The next addresses alone

REGISTERS = {
    "rip": 0x401000, "rsp": 0x7000, "rax": 0x5000, "rbx": 2, "rcx": 1, "rdx": 0, "rsi": 0, "rdi": 0,
    "rbp": 0, **{f"r{n}": n << 33 for n in range(8, 16)}, "cs": 0x33, "ss": 0x2B, "ds": 0x2B,
    "es": 0x2B, "fs_base": 0x10000, "gs_base": 0x20000,
}  # fmt: skip


def pointers(code: bytes, width: int) -> dict[str, object]:
    """Returns a reader of memory whose every word is its own address plus 1."""

    def read(address: int, length: int) -> bytes:
        if address == REGISTERS["rip"]:
            return code[:length]
        return (address + 1).to_bytes(width, "little")[:length]

    return {"read": read}


@pytest.mark.parametrize(
    ("code", "wanted"),
    [
        ("90", [0x401001]),
        ("ebfe", [0x401000]),
        ("7400", [0x401002]),  # both ways lead to one address
        ("7410", [0x401002, 0x401012]),
        ("e2fe", [0x401002, 0x401000]),
        ("e300", [0x401002]),
        ("e8fbffffff", [0x401000]),
        ("c3", [0x7001]),
        ("f3c3", [0x7001]),
        ("c21000", [0x7001]),
        ("ffd0", [0x5000]),
        ("41ffe1", [9 << 33]),
        ("ff2510000000", [0x401017]),
        ("ff24d810000000", None),  # jmp [rax + rbx*8] and what follows
        ("ff64d810", [0x5021]),
        ("64ff20", [0x15001]),
        ("67ff20", [0x5001]),
        ("f3a4", [0x401002]),
        ("cc", None),  # a uprobe runs another instruction there
        ("f1", None),
        ("8ed0", None),  # mov ss, eax holds the breakpoint back
        ("0f01e0", None),  # smsw: the kernel may emulate it
        ("66e900000000", None),  # 16 or 32 bits wide, as the maker likes
        ("66c3", None),
        ("6648e800000000", [0x401007]),
        ("cb", None),
        ("48cf", None),
        ("c7f800000000", None),
        ("0f0b", None),
        ("", None),
    ],
)
def test_next_addresses_64_bit_instruction_lead_where_it_can(
    code: str, wanted: list[int] | None
) -> None:
    reader = pointers(bytes.fromhex(code), 8)
    found = next_addresses("x86_64", REGISTERS, **reader, is_32bit=False)  # type: ignore[arg-type]
    if code == "ff24d810000000":
        wanted = [0x5011]  # base rax, index rbx * 8
    assert found == wanted


@pytest.mark.parametrize(
    ("code", "wanted"),
    [
        ("40", [0x401001]),  # inc eax
        ("c3", [0x7001]),
        ("66c3", None),
        ("65ff1510000000", [0x20011]),
        ("ffe0", [0x5000]),
        ("ff2000", [0x5001]),
        ("17", None),  # pop ss
    ],
)
def test_next_addresses_32_bit_instruction_lead_where_it_can(
    code: str, wanted: list[int] | None
) -> None:
    reader = pointers(bytes.fromhex(code), 4)
    registers = {**REGISTERS, "cs": 0x23}
    found = next_addresses("x86_64", registers, **reader, is_32bit=True)  # type: ignore[arg-type]
    assert found == wanted


def test_next_addresses_another_machine_is_unknown() -> None:
    reader = pointers(b"\x90", 8)
    found = next_addresses("aarch64", REGISTERS, **reader, is_32bit=False)  # type: ignore[arg-type]
    assert found is None
