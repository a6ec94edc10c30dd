"""The tool's own life, with processes that are opened.

Not provoked: a failing close (strace would leave the descriptor open, which the kernel never does).
"""

from __future__ import annotations

import gc
import os
import pickle
import signal
import threading
import zlib
from collections import Counter
from collections.abc import Callable

import pytest

import procvm
from procvm import ClosedError, PageFaultError, VmReader, VmWriter, u32, u64
from tests.faults.accesses import Accesses
from tests.faults.races import Backend
from tests.faults.subjects import Subject, as_root, needs, run_as
from tests.faults.tools import Refusal, Strace, Tool, injected, unpack_all
from tests.support.build import compiled
from tests.support.child import Child
from tests.support.playground import PAGE, Playground, pattern
from tests.support.procfs import assert_unharmed, own_fds

BACKENDS: list[Backend] = ["auto", "mem"]


# Threads and forks of the tool


@pytest.mark.parametrize("backend", BACKENDS)
def test_many_threads_on_one_process(playground: Playground, backend: Backend) -> None:
    """Threads on one process and one space get each its own bytes, never another's."""
    nr_threads, rounds = 12, 1500
    base = playground.layout("rw " * (nr_threads + 1) + "hole")
    hole = base + (nr_threads + 1) * PAGE
    wrong: list[object] = []
    done: Counter[str] = Counter()

    def work(k: int, process: procvm.Process, start: threading.Barrier) -> None:
        own = base + k * PAGE
        mine = pattern(own, PAGE)
        reader = process.vm.reader(own, PAGE)
        buffer = bytearray(300)
        start.wait()
        for turn in range(rounds):
            at = turn * 13 % (PAGE - 300)
            got: object
            expected: object
            match turn % 6:
                case 0:
                    got = process.vm.read_val(own + at, u64)
                    expected = int.from_bytes(mine[at : at + 8], "little")
                case 1:
                    got = reader.clone().skip(at).read_val(u32)
                    expected = int.from_bytes(mine[at : at + 4], "little")
                case 2:
                    process.vm.read_into(own + at, buffer)
                    got, expected = bytes(buffer), mine[at : at + 300]
                case 3:
                    process.vm.write_val(own + at, u64, k << 32 | turn)
                    got = process.vm.read_val(own + at, u64)
                    expected = k << 32 | turn
                    process.vm.write_bytes(own + at, mine[at : at + 8])
                case 4:
                    try:
                        process.vm.read_bytes(hole - 1 - k, 64)
                    except PageFaultError as error:
                        got = error.copied_len, error.address
                    else:
                        got = None
                    expected = (1 + k, hole)
                case _:
                    got = process.find_vma(own) is not None
                    expected = True
            if got != expected:
                wrong.append((k, turn, got, expected))
                return
        done[f"thread {k}"] = rounds

    with procvm.open(playground.pid, backend=backend) as process:
        start = threading.Barrier(nr_threads)
        threads = [
            threading.Thread(target=work, args=(k, process, start)) for k in range(nr_threads)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []
    assert sum(done.values()) == nr_threads * rounds
    assert playground.peek(base, nr_threads * PAGE) == pattern(base, nr_threads * PAGE)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_close_under_the_accesses_of_other_threads(
    playground: Playground, backend: Backend
) -> None:
    """An access under way at the close is right, or a ClosedError."""
    base = playground.layout("rw")
    expected = pattern(base, PAGE)
    zeros = bytes(64)
    wrong: list[object] = []
    seen: Counter[str] = Counter()

    def work(k: int, process: procvm.Process, began: threading.Semaphore) -> None:
        try:
            began.release()
            while True:
                at = k * 64
                got = process.vm.read_bytes(base + at, 64)
                if got != expected[at : at + 64]:
                    wrong.append(got)
                process.vm.write_bytes(base + at, expected[at : at + 64])
                if process.vm.read_val(base, u64) != int.from_bytes(expected[:8], "little"):
                    wrong.append("read_val")
                process.find_vma(base)
                seen["accesses"] += 1
        except ClosedError:
            seen["closed"] += 1
        except BaseException as error:  # noqa: BLE001 (none is right)
            wrong.append(error)

    for _ in range(60):
        process = procvm.open(playground.pid, backend=backend)
        began = threading.Semaphore(0)
        threads = [threading.Thread(target=work, args=(k, process, began)) for k in range(4)]
        for thread in threads:
            thread.start()
        for _ in threads:
            began.acquire()
        process.vm.read_bytes(base, PAGE)
        process.close()
        # Files that take the numbers of those that were closed.
        others = [os.open("/dev/zero", os.O_RDWR) for _ in range(6)]
        for thread in threads:
            thread.join()
        for fd in others:
            os.close(fd)
        assert wrong == []
    assert seen["closed"] == 60 * 4
    assert seen["accesses"] >= 60, seen
    assert playground.peek(base, 64) == expected[:64] != zeros


def test_a_forked_child_of_the_tool_is_refused(playground: Playground) -> None:
    """A child that the tool forks may not use what the tool opened; the tool still may."""
    base = playground.layout("rw")
    calls: list[list[object]] = [
        ["read", base, 8],
        ["read_val", base],
        ["read_into", base, 8],
        ["write", base, "00"],
        ["write_val", base, 0],
        ["fill", base, 8],
        ["cstring", base, 8],
        ["gather", [(base, 8)]],
        ["maps"],
        ["find", base],
        ["is_alive"],
        ["wait"],
        ["read", base, 8, True],
    ]
    for backend in BACKENDS:
        with Tool() as tool:
            tool.do("open", playground.pid, backend)
            tool.do("read_val", base)
            before = tool.do("fds")
            for answer in unpack_all(tool.do("in_fork", calls)):
                if isinstance(answer, list):  # read_into tells the error in its answer
                    assert answer[0]["error"] == "ClosedError"
                else:
                    assert isinstance(answer, Refusal)
                    assert answer.name == "ClosedError", answer
            fresh = tool.do("in_fork", [["open_read_close", playground.pid, base, 8]])
            assert unpack_all(fresh) == [pattern(base, 8).hex()]
            assert tool.do("read", base, 8) == pattern(base, 8).hex()
            assert tool.do("fds") == before
            tool.do("close")
    assert playground.peek(base, PAGE) == pattern(base, PAGE)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_tool_and_its_forked_child_read_at_once(playground: Playground, backend: Backend) -> None:
    """A forked child that opens for itself and its parent do not mix their bytes."""
    n = 64 * PAGE
    addresses = [1 << 33, 1 << 34]
    for address in addresses:
        playground.map(address, n)
        playground.clear(address, n)
    sums = [zlib.crc32(pattern(address, n)) for address in addresses]
    assert sums[0] != sums[1]
    with Tool() as tool:
        wrong = tool.do("in_both", playground.pid, backend, addresses, sums, n)
    assert wrong == [0, 0], "reads with wrong bytes, of 3000 in the tool and 3000 in its child"


def test_a_forked_child_can_not_open_the_tool_as_itself() -> None:
    """A child forked by a tool that opened itself does not read the tool as itself."""
    with Tool() as tool:
        own = tool.do("who")["pid"]
        tool.do("open", own)
        (vma, *_) = tool.do("maps")
        assert tool.do("read", vma[0], 4) == b"\x7fELF".hex()
        calls = [["read", vma[0], 4], ["read_val", vma[0]], ["write", vma[0], ""], ["maps"]]
        for answer in unpack_all(tool.do("in_fork", calls)):
            assert isinstance(answer, Refusal) or answer is None, answer
            assert answer is None or answer.name == "ClosedError", answer


# System calls of the tool that fail

ERRORS = ("ENOMEM", "EINTR", "EAGAIN", "EPERM", "EACCES", "ENOSYS", "EIO", "ESRCH", "EMFILE")
FAILING = (
    "process_vm_readv",
    "pread64",
    "pwrite64",
    "ioctl",
    "openat",
    "pidfd_open",
    "poll",
    "read",
    "readlink",
    "lseek",
    "newfstatat",
    "fstat",
    "getdents64",
)


class Scenario:
    """Operations whose answers are known, and what went wrong with them."""

    def __init__(self, playground: Playground, backend: Backend) -> None:
        self.playground = playground
        self.problems: list[str] = []
        base = playground.layout("rw rw hole")
        edge = base + 2 * PAGE
        playground.poke(base + 100, b"text\0")
        self.base, self.there = base, playground.peek(base, 2 * PAGE)
        there = self.there
        self.calls: list[list[object]] = [
            ["open", playground.pid, backend],
            ["read_val", base],
            ["read", base + 8, PAGE],
            ["read_into", edge - 6, 10],
            ["cstring", base + 100, 50],
            ["gather", [(base, 3), (base + 50, 4)]],
            ["write", base + 200, there[200:230].hex()],
            ["write_val", base + 300, int.from_bytes(there[300:308], "little")],
            ["read", base, 64, True],
            ["find", base],
            ["is_alive"],
            ["read", base, 2 * PAGE],
        ]
        self.right: list[object] = [
            playground.pid,
            int.from_bytes(there[:8], "little"),
            there[8 : 8 + PAGE].hex(),
            (6, edge, there[-6:].hex()),
            b"text".hex(),
            (there[:3] + there[50:54]).hex(),
            None,
            None,
            there[:64].hex(),
            [base, edge],
            True,
            there.hex(),
        ]

    def check(self, answers: list[object], case: object, fault: str = "") -> int:
        """Notes what is wrong: neither the right answer nor, under a fault, an error of ours.

        Returns:
            How many operations failed.
        """
        failed = 0
        opened = not isinstance(answers[0], Refusal)
        for call, right, given in zip(self.calls, self.right, answers, strict=True):
            if not opened and call[0] != "open":
                continue  # the tool has no process
            answer = given
            if call[0] == "read_into" and isinstance(given, list):
                answer = self._fault_told(given, fault)
            if not isinstance(answer, Refusal):
                if answer != right:
                    self._note(case, call, f"a wrong answer: {answer!r}")
                continue
            failed += 1
            # What these two errors of the kernel say of a page and of an address space.
            lies = {
                "EIO": {"ProcessExecedError", "ProcessExitedError"},
                "ESRCH": {"PageFaultError"},
            }.get(fault, {"ProcessExecedError", "ProcessExitedError", "PageFaultError"})
            if not fault:
                self._note(case, call, f"{answer.name}: {answer.text}")
            elif not answer.procvm:
                where = [line.strip() for line in answer.seen.splitlines() if "/procvm/" in line]
                self._note(case, call, f"a foreign exception, {answer.name}, {where[-1:]}")
            elif answer.name in lies:
                self._note(case, call, f"a cause that is none, {answer.name}: {answer.text}")
        return failed

    def _fault_told(self, answer: list[object], fault: str) -> object:
        """Returns a read that faulted as (count, address, bytes), or the other error it raised."""
        error, buffer = answer
        assert isinstance(buffer, str)
        if not isinstance(error, dict):
            return "no error"
        good = error["copied_len"] or 0
        if error["error"] == "PageFaultError" and fault != "EIO":
            return good, error["address"], buffer[: 2 * good]
        if buffer[: 2 * good] != self.there[-6:].hex()[: 2 * good]:
            return "bytes that are none"
        kept = (error[key] for key in ("procvm", "text", "seen", "copied_len", "address", "pid"))
        return Refusal(error["error"], *kept)

    def _note(self, case: object, call: list[object], what: str) -> None:
        self.problems.append(f"{case}: {call[0]}: {what}")

    def assert_well(self) -> None:
        """Nothing went wrong, and the target has what it had."""
        if self.problems:
            some = "\n".join(self.problems[:40])
            pytest.fail(f"{len(self.problems)} wrong answers:\n{some}", pytrace=False)
        assert self.playground.peek(self.base, 2 * PAGE) == self.there


def _run(tool: Tool, scenario: Scenario) -> list[object]:
    answers = tool.each(*scenario.calls)
    if not isinstance(answers[0], Refusal):
        tool.do("close")
    return answers


def _sweep(backend: Backend, playground: Playground, syscalls: tuple[str, ...]) -> int:
    """Has the n-th system call of each kind fail, with every error; returns the hits."""
    hits = 0
    scenario = Scenario(playground, backend)
    with Tool() as tool:
        scenario.check(_run(tool, scenario), "before")
        fds = tool.do("fds")
        for syscall in syscalls:
            for n in range(1, 14):
                # For each n a third of the errors, so that all meet all in the end.
                hit = 0
                for error in ERRORS[n % 3 :: 3]:
                    fault = f"inject={syscall}:error={error}:when={n}"
                    with Strace(tool.pid, "-e", f"trace={syscall}", "-e", fault) as strace:
                        answers = _run(tool, scenario)
                    hit += strace.hits()
                    scenario.check(answers, (syscall, error, n), error)
                hits += hit
                if not hit:
                    break
            scenario.check(_run(tool, scenario), ("after", syscall))
        scenario.assert_well()
        assert [fd for fd in tool.do("fds") if fd not in fds] == [], "left behind"
    return hits


@pytest.mark.strace
@pytest.mark.parametrize("backend", BACKENDS)
def test_one_failing_memory_call(playground: Playground, backend: Backend) -> None:
    """Whichever call that moves bytes fails once: right results, or an error of ours."""
    calls = ("process_vm_readv",) if backend == "auto" else ()
    assert _sweep(backend, playground, (*calls, "pread64", "pwrite64", "ioctl")) >= 20


@pytest.mark.strace
@pytest.mark.parametrize("backend", BACKENDS)
def test_one_failing_call_of_another_kind(playground: Playground, backend: Backend) -> None:
    """Whichever call around them fails once: right results, or an error of ours."""
    calls = ("openat", "pidfd_open", "poll", "readlink", "read", "newfstatat", "lseek")
    assert _sweep(backend, playground, calls) >= 20


@pytest.mark.strace
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_call_that_always_fails(playground: Playground, backend: Backend) -> None:
    """A call that fails every time: right results by another way, or an error of ours."""
    scenario = Scenario(playground, backend)
    with Tool() as tool:
        scenario.check(_run(tool, scenario), "before")
        fds = tool.do("fds")
        for error in ERRORS:
            for syscall in ("process_vm_readv", "pread64", "pwrite64", "ioctl", "openat", "poll"):
                if error == "EINTR" and syscall != "process_vm_readv":
                    continue  # Python itself asks again for ever
                if backend == "mem" and syscall == "process_vm_readv":
                    continue
                fault = f"inject={syscall}:error={error}"
                with Strace(tool.pid, "-e", f"trace={syscall}", "-e", fault) as strace:
                    answers = _run(tool, scenario)
                assert strace.hits() >= 1
                failed = scenario.check(answers, (syscall, error, "always"), error)
                if syscall == "process_vm_readv" and error in ("EPERM", "EACCES", "ENOSYS"):
                    assert failed == 0, f"{error}: there is another way"
        scenario.check(_run(tool, scenario), "after")
        scenario.assert_well()
        assert [fd for fd in tool.do("fds") if fd not in fds] == [], "left behind"


@pytest.mark.strace
@pytest.mark.parametrize("error", ["EPERM", "ENOSYS"])
def test_a_call_that_is_forbidden_after_a_while(playground: Playground, error: str) -> None:
    """Process_vm_readv refused from its n-th call on: the results stay the same."""
    scenario = Scenario(playground, "auto")
    with Tool() as tool:
        scenario.check(_run(tool, scenario), "before")
        hits = []
        for n in range(1, 14):
            fault = f"inject=process_vm_readv:error={error}:when={n}+"
            with Strace(tool.pid, "-e", "trace=process_vm_readv", "-e", fault) as strace:
                answers = _run(tool, scenario)
            hits.append(strace.hits())
            scenario.check(answers, (error, n))
        assert sum(hits) >= 8
    scenario.assert_well()


@pytest.mark.strace
def test_a_system_call_that_a_signal_interrupts(playground: Playground) -> None:
    """EINTR a few times over is asked again: the results are right."""
    scenario = Scenario(playground, "auto")
    with Tool() as tool:
        scenario.check(_run(tool, scenario), "before")
        for syscall in ("process_vm_readv", "pread64", "pwrite64", "poll"):
            hits = 0
            for first in (1, 2, 3):
                fault = f"inject={syscall}:error=EINTR:when={first}..{first + 4}"
                with Strace(tool.pid, "-e", f"trace={syscall}", "-e", fault) as strace:
                    answers = _run(tool, scenario)
                hits += strace.hits()
                scenario.check(answers, (syscall, first))
            assert hits >= 5, syscall
    scenario.assert_well()


@pytest.mark.parametrize("backend", BACKENDS)
def test_signals_that_arrive_all_the_time(playground: Playground, backend: Backend) -> None:
    """A timer's signals at every moment: all results are right."""
    scenario = Scenario(playground, backend)
    base = 1 << 33
    n = 4096 * PAGE
    playground.map(base, n)
    with Tool() as tool:
        tool.do("interrupt_every", 50)
        for k in range(60):
            scenario.check(_run(tool, scenario), k)
        tool.do("open", playground.pid, backend)
        for _ in range(5):
            tool.do("fill", base, n)
        tool.do("close")
        assert tool.do("interrupt_every", 0) >= 100
    scenario.assert_well()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_wait_that_signals_interrupt(backend: Backend) -> None:
    """A wait goes on after signals and gives the true status."""
    with Subject() as target, Tool() as tool:
        tool.do("open", target.pid, backend)
        tool.do("interrupt_every", 200)
        tool.send('["wait"]')
        # It waits while signals arrive: a hundred of them, counted by the kernel.
        for _ in range(100):
            os.kill(tool.pid, signal.SIGALRM)
        assert not tool.has_line()
        target.send("exit 5")
        assert tool.line() == '{"value": 5}'
        tool.do("interrupt_every", 0)
        assert target.popen.wait() == 5


def test_no_descriptors_left(playground: Playground) -> None:
    """Where no descriptor is left opening says so, leaves none behind, and works later."""
    base = playground.layout("rw")
    with Tool() as tool:
        assert tool.do("open_read_close", playground.pid, base, 8) == pattern(base, 8).hex()
        fds = tool.do("fds")
        refused = 0
        for more in range(12):
            tool.do("limit_fds", more)
            answer = tool.answer("open_read_close", playground.pid, base, 8)
            tool.do("limit_fds", None)
            assert tool.do("fds") == fds, more
            if isinstance(answer, Refusal):
                assert answer.procvm, answer.seen
                assert "descriptors" in answer.text, answer.text
                assert "EMFILE" in answer.text
                refused += 1
            else:
                assert answer == pattern(base, 8).hex()
        assert 3 <= refused < 12


@as_root
@needs("setpriv")
def test_no_descriptors_left_for_a_user_who_is_not_allowed(playground: Playground) -> None:
    """Where no descriptor is left no other cause is made up."""
    with Tool(*run_as(65534)) as tool:
        assert tool.refused("open", playground.pid).name == "AccessDeniedError"
        for more in range(6):
            tool.do("limit_fds", more)
            answer = tool.refused("open", playground.pid)
            tool.do("limit_fds", None)
            assert "hidepid" not in answer.text, (more, answer.text)
            assert "security module" not in answer.text, (more, answer.text)


@pytest.mark.parametrize("backend", BACKENDS)
def test_accesses_need_no_new_descriptor(backend: Backend) -> None:
    """What is open works on, and tells the end, where no descriptor is left."""
    with Subject() as target, Tool() as tool:
        tool.do("open", target.pid, backend)
        tool.do("limit_fds", 0)
        first = pattern(target.address, 8)
        assert tool.do("read", target.address, 8) == first.hex()
        tool.do("write_val", target.address, int.from_bytes(first, "little"))
        assert len(tool.do("maps")) > 5
        os.kill(target.pid, 9)
        assert tool.do("wait") == -9 or target.popen.wait() == -9
        assert tool.refused("read", target.address, 8).name == "ProcessExitedError"
        tool.do("limit_fds", None)


SHORT = [(1, 1), (3, 1), (7, 2), (15, 1), (17, 1), (100, 2), (PAGE, 1), (PAGE + 8, 1)]


@pytest.mark.parametrize("backend", BACKENDS)
def test_short_counts(playground: Playground, backend: Backend) -> None:
    """Calls that move less than was asked for: whole and right results, or an error."""
    scenario = Scenario(playground, backend)
    with Tool(env={"LD_PRELOAD": compiled("short", "-shared", "-fPIC")}) as tool:
        for most, every in SHORT:
            tool.do("short", most, every)
            answers = _run(tool, scenario)
            tool.do("short", 0, 0)
            # No kernel cuts a transfer in the middle of a word; there an error will do.
            scenario.check(answers, f"at most {most} bytes", "short" if most < 16 else "")
            scenario.check(_run(tool, scenario), f"after at most {most} bytes")
    scenario.assert_well()


@pytest.mark.parametrize("backend", BACKENDS)
def test_short_counts_of_maps(playground: Playground, backend: Backend) -> None:
    """A listing that comes in small pieces is the same listing."""
    playground.layout("rw r none rw " * 40)
    with Tool(env={"LD_PRELOAD": compiled("short", "-shared", "-fPIC")}) as tool:
        tool.do("open", playground.pid, backend)
        whole = tool.do("maps")
        for most in (1, 50, 4095, 4096, 4097):
            tool.do("short", most, 1)
            assert tool.do("maps") == whole
            tool.do("short", 0, 0)
        tool.do("close")


@pytest.mark.strace
def test_maps_whose_read_fails(playground: Playground) -> None:
    """A listing whose read fails is an error of ours, or the whole listing."""
    playground.layout("rw r none rw " * 40)
    problems = []
    with Tool() as tool:
        tool.do("open", playground.pid)
        whole = tool.do("maps")
        for error in ERRORS:
            for n in (1, 2, 3):
                fault = f"inject=pread64:error={error}:when={n}"
                with Strace(tool.pid, "-e", "trace=pread64", "-e", fault) as strace:
                    answer = tool.answer("maps")
                assert injected(strace.stop()) == ["pread64"], (error, n)
                if isinstance(answer, Refusal):
                    if not answer.procvm:
                        problems.append(f"{error}, {n}: a foreign exception: {answer.name}")
                else:
                    assert answer == whole
        assert tool.do("maps") == whole
        tool.do("close")
    assert problems == []


@pytest.mark.strace
@pytest.mark.parametrize("syscall", ["poll", "waitid", "ioctl", "openat", "read"])
def test_a_wait_whose_calls_fail(syscall: str) -> None:
    """A wait whose calls fail gives the true status, or an error of ours."""
    problems = []
    with Tool() as tool:
        for error in ERRORS:
            with Subject() as target:
                tool.do("open", target.pid)
                os.kill(target.pid, 9)
                fault = f"inject={syscall}:error={error}:when=1"
                with Strace(tool.pid, "-e", f"trace={syscall}", "-e", fault):
                    answer = tool.answer("wait")
                if isinstance(answer, Refusal):
                    if not answer.procvm:
                        problems.append(f"{error}: a foreign exception: {answer.name}")
                elif answer not in (-9, None):
                    problems.append(f"{error}: a wrong status: {answer}")
                assert tool.do("wait") == -9
                tool.do("close")
    assert problems == []


# Closed and forgotten objects


def _uses(process: procvm.Process, address: int) -> dict[str, Callable[[], object]]:
    """Returns every use of a process, with objects that were made of it before."""
    accesses = Accesses(process, address)
    vm = process.vm
    reader, writer = vm.reader_writer(address, 8)
    return accesses.all() | {
        "is_alive": process.is_alive,
        "wait": lambda: process.wait(0),
        "wait for ever": process.wait,
        "atomic_load": lambda: vm.atomic_load(address, u64),
        "atomic_compare_exchange": lambda: vm.atomic_compare_exchange(address, u64, 0, 0),
        "atomic_fetch_update": lambda: vm.atomic_fetch_update(address, u64, lambda value: value),
        "reader.atomic_load": lambda: reader.atomic_load(u64),
        "writer.atomic_compare_exchange": lambda: writer.atomic_compare_exchange(reader, u64, 0, 0),
        "new reader": lambda: vm.reader(address, 8).read_val(u64),
        "own to target": lambda: (
            VmReader.from_buffer(bytes(8)).to_fallible().read_fallible(vm.writer(address, 8))
        ),
        "target to own": lambda: (
            VmWriter.from_buffer(bytearray(8)).to_fallible().write_fallible(vm.reader(address, 8))
        ),
        "target to target": lambda: vm.reader(address, 8).read_fallible(vm.writer(address + 8, 8)),
    }


@pytest.mark.parametrize("used", ["used", "unused"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_use_after_close(playground: Playground, backend: Backend, used: str) -> None:
    """After the close every use of a process, its space, its cursors is a ClosedError."""
    base = playground.layout("rw")
    fds = own_fds()
    process = procvm.open(playground.pid, backend=backend)
    uses = _uses(process, base)
    if used == "used":
        Accesses(process, base).assert_all_work()
        for name, use in uses.items():
            if "wait" not in name and "atomic" not in name:
                use()
        playground.clear(base, PAGE)
    maps = process.maps()
    process.close()
    assert own_fds() == fds
    wrong = []
    for name, use in uses.items():
        try:
            use()
        except ClosedError as error:
            if error.copied_len or not isinstance(error, ValueError):
                wrong.append(f"{name}: {error!r}")
        except BaseException as error:  # noqa: BLE001 (the list tells which)
            wrong.append(f"{name}: {error!r}")
        else:
            wrong.append(f"{name} succeeds")
    assert wrong == []
    # A listing that was made is the caller's.
    assert maps.find(base) is not None
    assert playground.peek(base, PAGE) == pattern(base, PAGE)
    assert "closed" in repr(process)


def test_closing_twice(playground: Playground) -> None:
    """A second close is nothing, by hand, by the with statement, by another thread."""
    fds = own_fds()
    process = procvm.open(playground.pid)
    process.close()
    process.close()
    with procvm.open(playground.pid) as process:
        process.close()
    process.close()
    process = procvm.open(playground.pid)
    threads = [threading.Thread(target=process.close) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert own_fds() == fds
    with pytest.raises(ClosedError), process:
        process.is_alive()
    assert process.pid == playground.pid


def test_entering_what_is_closed(playground: Playground) -> None:
    """A with statement over a closed process does not open it again."""
    process = procvm.open(playground.pid)
    process.close()
    with pytest.raises(ClosedError), process as again:
        again.maps()


def test_what_was_forgotten_warns_and_is_closed(playground: Playground) -> None:
    """A process that nobody closed gives a ResourceWarning, and its files are closed."""
    fds = own_fds()
    process = procvm.open(playground.pid)
    assert own_fds() != fds
    with pytest.warns(ResourceWarning, match=str(playground.pid)):  # noqa: PT031 (one thing)
        del process
        gc.collect()
    assert own_fds() == fds
    assert_unharmed(playground.pid)


def test_what_was_closed_does_not_warn(playground: Playground) -> None:
    """A process that was closed is let go in silence, and so is one that failed to open."""
    process = procvm.open(playground.pid)
    process.close()
    del process
    with pytest.raises(procvm.NoSuchProcessError):
        procvm.open(2**22 + 5)
    gc.collect()  # a warning is an error here


def test_cursors_keep_no_process_open(playground: Playground) -> None:
    """Cursors that outlive the with statement are ClosedError, their files are closed."""
    base = playground.layout("rw")
    fds = own_fds()
    with procvm.open(playground.pid) as process:
        reader = process.vm.reader(base, PAGE)
        writer = process.vm.writer(base, PAGE)
        assert reader.read_val(u64)
        at = reader.cursor()
    assert own_fds() == fds
    with pytest.raises(ClosedError):
        reader.read_val(u64)
    with pytest.raises(ClosedError):
        writer.fill_zeros(8)
    assert (reader.cursor(), writer.cursor()) == (at, base)
    assert playground.peek(base, PAGE) == pattern(base, PAGE)


def test_a_closed_error_pickles() -> None:
    """The error of a use after the close goes to another process and back."""
    with Child([compiled("subject")]) as child:
        child.hexes()
        process = procvm.open(child.pid)
        process.close()
        with pytest.raises(ClosedError) as caught:
            process.maps()
    again = pickle.loads(pickle.dumps(caught.value))
    assert (type(again), str(again)) == (ClosedError, str(caught.value))
