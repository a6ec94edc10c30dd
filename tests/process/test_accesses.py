"""Who touches an address: every hit is told or counted as lost, and nothing stays armed."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Generator
from types import FrameType
from typing import Any

import pytest

import procvm
from procvm import u16, u64
from procvm._linux.perf_event import SLOTS
from tests.process.test_own_means import free_descriptors
from tests.support.build import compiled
from tests.support.patience import eventually
from tests.support.procfs import own_fds


def _why_not() -> str:
    with procvm.open(os.getpid()) as process:
        try:
            with process.trace_accesses(1 << 12, u64):
                return ""
        except procvm.ProcvmError as error:
            return str(error)


_WHY_NOT = _why_not()
pytestmark = pytest.mark.skipif(bool(_WHY_NOT), reason=_WHY_NOT or "perf events work")


class Touched:
    """The program touched.c, and what it says it did."""

    def __init__(self) -> None:
        self.popen = subprocess.Popen(
            [compiled("touched", "-O1", "-pthread")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.line() == "ready"
        self.process = procvm.open(self.popen.pid)
        self.word = self.process.symbol("touched")

    def line(self) -> str:
        assert self.popen.stdout is not None
        return self.popen.stdout.readline().strip()

    def send(self, line: str) -> None:
        assert self.popen.stdin is not None
        self.popen.stdin.write(line + "\n")
        self.popen.stdin.flush()

    def ask(self, line: str) -> str:
        self.send(line)
        return self.line()

    def work(self, rounds: int) -> tuple[int, int, int, int]:
        """Has it touch the word; returns its increments, stores, births and reads so far."""
        a, b, c, d = map(int, self.ask(str(rounds)).split())
        return a, b, c, d

    def close(self) -> None:
        self.process.close()
        self.popen.kill()
        self.popen.wait()
        assert self.popen.stdin is not None
        assert self.popen.stdout is not None
        self.popen.stdin.close()
        self.popen.stdout.close()


@pytest.fixture
def touched() -> Generator[Touched]:
    found = Touched()
    try:
        yield found
    finally:
        found.close()


def functions(touched: Touched, hits: list[procvm.Access]) -> Counter[str | None]:
    """Returns how many hits were in each function of the program."""
    return Counter(touched.process.describe(hit.ip).symbol for hit in hits)


def test_trace_accesses_tells_each_write_with_its_function_also_of_threads_born_later(
    touched: Touched,
) -> None:
    with touched.process.trace_accesses(touched.word, u64) as trace:
        increments, stores, births, _ = touched.work(300)
        hits = trace.read(0)
        assert trace.count == increments + stores == len(hits) + trace.lost
        # Small rings, where other traces of the user have locked much memory, lose some.
        missing: Counter[str | None] = Counter({"increment": increments, "store": stores})
        missing.subtract(functions(touched, hits))
        assert min(missing.values()) >= 0
        assert missing.total() == trace.lost
        # Two writers, and the threads that were born, each of which wrote once.
        assert len({hit.tid for hit in hits}) >= 2 + births - trace.lost
        assert {hit.address for hit in hits} == {touched.word}
        assert [hit.time for hit in hits] == sorted(hit.time for hit in hits)
        assert not hits[0].registers
        assert not hits[0].stack_bytes


def test_trace_accesses_on_access_tells_reads_too(touched: Touched) -> None:
    with touched.process.trace_accesses(touched.word, u64, on="access") as trace:
        increments, stores, _, reads = touched.work(50)
        found = functions(touched, trace.read(0))
    assert found["load"] == reads
    assert found["store"] == stores
    # It reads and then writes, by one instruction or by two.
    assert found["increment"] in (increments, 2 * increments)


def test_trace_accesses_counts_what_a_full_ring_loses(touched: Touched) -> None:
    """Everything that is not told is counted as lost: the sum is what the program counted."""
    with touched.process.trace_accesses(touched.word, u64, registers=True, stack_len=4096) as trace:
        increments, stores, _, _ = touched.work(3000)
        hits = trace.read(0)
        assert trace.lost > 0
        assert trace.count == increments + stores == len(hits) + trace.lost
        assert all(len(hit.stack_bytes) >= 64 for hit in hits)
    assert trace.count == increments + stores


def test_trace_accesses_while_threads_are_born_tells_each_write_once(touched: Touched) -> None:
    """A thread that is born while the trace opens has two breakpoints, its own and a copy."""
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            touched.work(2000)

    worker = threading.Thread(target=work)
    worker.start()
    try:
        births: set[int] = set()
        for done in range(1000):
            if births and done >= 20:
                break
            with touched.process.trace_accesses(touched.word, u16) as trace:
                seen = Counter((hit.tid, hit.time) for hit in trace.read(None))
            assert max(seen.values()) == 1
            births |= {tid for tid, n in Counter(tid for tid, _ in seen).items() if n == 1}
        assert births
    finally:
        stop.set()
        worker.join()


def test_trace_calls_gives_arguments_and_the_time(touched: Touched) -> None:
    with touched.process.trace_calls("called") as trace:
        assert touched.ask("call") == "called"
        (hit,) = trace.read(0)
    assert hit.arguments[:6] == (1, 2, 3, 4, 5, 6)
    assert hit.ip == touched.process.symbol("called") == hit.address
    assert hit.tid == touched.popen.pid
    assert hit.registers["rip" if "rip" in hit.registers else "pc"] == hit.ip


def test_trace_accesses_leaves_out_a_child_of_fork(touched: Touched) -> None:
    with touched.process.trace_accesses(touched.word, u64) as trace:
        assert touched.ask("fork") == "forked"
        assert trace.count == 0
        assert trace.read(0.01) == []


def test_trace_iteration_ends_with_the_target(touched: Touched) -> None:
    with touched.process.trace_accesses(touched.word, u64) as trace:
        increments, stores, _, _ = touched.work(20)
        assert touched.popen.stdin is not None
        touched.popen.stdin.close()
        assert len(list(trace)) == increments + stores


def test_trace_after_an_exec_is_an_exec_error(touched: Touched) -> None:
    with touched.process.trace_accesses(touched.word, u64) as trace:
        touched.send("exec")
        with pytest.raises(procvm.ProcessExecedError):
            trace.read()


def test_trace_after_close_is_closed_and_keeps_its_counts(touched: Touched) -> None:
    with touched.process.trace_accesses(touched.word, u64) as trace:
        touched.work(5)
        n = trace.count
    trace.close()
    assert trace.count == n == 10
    with pytest.raises(procvm.ClosedError):
        trace.read(0)


def test_trace_a_fifth_at_once_is_unsupported_and_names_the_slots(touched: Touched) -> None:
    traces = [touched.process.trace_accesses(touched.word, u64) for _ in range(SLOTS)]
    fds = len(os.listdir("/proc/self/fd"))
    with pytest.raises(procvm.UnsupportedError, match=r"debug registers.*4 on x86-64"):
        touched.process.trace_accesses(touched.word, u64)
    assert len(os.listdir("/proc/self/fd")) == fds
    for trace in traces:
        trace.close()
    touched.process.trace_accesses(touched.word, u64).close()


@pytest.mark.parametrize("how", ["kill", "fork"])
def test_trace_of_a_tool_that_dies_frees_the_debug_registers(touched: Touched, how: str) -> None:
    """Also where a child that the tool forked lives on."""
    script = (
        "import os, sys, procvm\n"
        f"process = procvm.open({touched.popen.pid})\n"
        f"traces = [process.trace_accesses({touched.word}, procvm.u64) for _ in range({SLOTS})]\n"
        "child = os.fork() if 'fork' in sys.argv else 0\n"
        "if 'fork' in sys.argv and child == 0:\n"
        "    print('ready', flush=True)\n"
        "    os.read(0, 1)\n"
        "    os._exit(0)\n"
        "if not child:\n"
        "    print('ready', flush=True)\n"
        "os.waitpid(child, 0) if child else os.read(0, 1)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, how], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as tool:
        assert tool.stdout is not None
        assert tool.stdout.readline() == b"ready\n"
        with pytest.raises(procvm.UnsupportedError):
            touched.process.trace_accesses(touched.word, u64)
        tool.send_signal(signal.SIGKILL)
        os.waitid(os.P_PID, tool.pid, os.WEXITED | os.WNOWAIT)

        def four() -> bool:
            traces: list[procvm.AccessTrace] = []
            try:
                for _ in range(SLOTS):
                    traces.append(touched.process.trace_accesses(touched.word, u64))  # noqa: PERF401 (those made before the error are closed)
            except procvm.UnsupportedError:
                return False
            finally:
                for trace in traces:
                    trace.close()
            return True

        assert eventually(four)
        touched.work(10)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"address": 1}, ValueError),
        ({"pod": "u64"}, TypeError),
        ({"on": "read"}, ValueError),
        ({"stack_len": 12}, ValueError),
        ({"stack_len": 1 << 16}, ValueError),
        ({"stack_len": -8}, ValueError),
        ({"address": -8}, procvm.InvalidArgsError),
        ({"address": "touched"}, TypeError),
    ],
)
def test_trace_accesses_refuses_bad_arguments(
    change: dict[str, object], error: type[Exception]
) -> None:
    with procvm.open(os.getpid()) as process:
        arguments: dict[str, object] = {"address": 4096, "pod": u64, "on": "write", **change}
        fds = len(os.listdir("/proc/self/fd"))
        with pytest.raises(error):
            process.trace_accesses(**arguments)  # type: ignore[arg-type]
        assert len(os.listdir("/proc/self/fd")) == fds


def test_trace_accesses_of_a_kernel_address_is_refused(touched: Touched) -> None:
    with pytest.raises((procvm.AccessDeniedError, procvm.UnsupportedError), match="0xffff"):
        touched.process.trace_accesses(0xFFFF_8000_0000_0000, u64)


@pytest.mark.root("starts a tool of another user")
def test_trace_accesses_without_rights_names_the_setting(touched: Touched) -> None:
    script = (
        "import os, sys, procvm\n"
        f"process = procvm.open({touched.popen.pid})\n"
        # Once with rights: what it imports may be in a folder of root's.
        f"process.trace_accesses({touched.word}, procvm.u64).close()\n"
        "os.setresuid(1000, 1000, 1000)\n"
        "try:\n"
        f"    process.trace_accesses({touched.word}, procvm.u64)\n"
        "except procvm.AccessDeniedError as error:\n"
        "    print(error)\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    ).stdout
    assert "perf_event_paranoid is" in found


def interrupted_at(n: int, use: Callable[[], object]) -> bool:
    """Raises KeyboardInterrupt at the n-th instruction of a use that is in the rooms of a trace."""
    left = n

    def each(_frame: FrameType, event: str, _: object) -> Any:
        nonlocal left
        if event == "opcode":
            left -= 1
            if not left:
                raise KeyboardInterrupt
        return each

    def begin(frame: FrameType, _event: str, _: object) -> Any:
        if not frame.f_code.co_filename.endswith(ROOMS):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return each

    before = sys.gettrace()
    sys.settrace(begin)
    try:
        use()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


ROOMS = ("_live/accesses.py", "_linux/perf_samples.py", "_linux/perf_event.py", "_base/fd.py")


def test_trace_accesses_interrupted_at_any_instruction_leaves_no_descriptor(
    touched: Touched,
) -> None:
    def use() -> None:
        touched.process.trace_accesses(touched.word, u64)

    use()
    gc.collect()
    before = own_fds()
    n = 1
    while interrupted_at(n, use):
        gc.collect(0)
        assert own_fds() == before, n
        n += 3
    assert n > 500


def test_trace_accesses_that_cannot_start_leaves_no_descriptor(touched: Touched) -> None:
    """Each time another call of the kernel is refused; the errors are kept."""
    kept: list[BaseException] = []
    touched.process.trace_accesses(touched.word, u64).close()
    before = own_fds()
    for free in range(40):
        try:
            with free_descriptors(free):
                touched.process.trace_accesses(touched.word, u64).close()
        except procvm.VmError as error:
            kept.append(error)
        else:
            break
        assert own_fds() == before
    assert kept
    assert free < 39
