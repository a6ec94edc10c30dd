"""The identity, the end and the threads of processes that are opened.

tests/tracee/test_catalogue.py has the same for processes that are held.
"""

from __future__ import annotations

import os
import random
import signal
from collections import Counter
from pathlib import Path

import pytest

import procvm
from procvm import (
    AccessDeniedError,
    NoSuchProcessError,
    PageFaultError,
    ProcessExitedError,
    u64,
)
from tests.faults.accesses import Accesses
from tests.faults.races import PRISTINE, Addresses, Backend, reuse_race
from tests.faults.subjects import NOBODY, Subject, as_root, needs, public, run_as, zombie_of
from tests.faults.tools import GatedTool, Refusal, Strace, Tool
from tests.support.build import compiled
from tests.support.child import Child
from tests.support.playground import PAGE, Playground, pattern
from tests.support.procfs import assert_unharmed, state_of

BACKENDS: list[Backend] = ["auto", "mem"]

# Words that only a message about permissions has.
PERMISSION_WORDS = ("permission", "denied", "allow", "user", "uid", "dumpable", "CAP_", "Yama")


def _speaks_of_permission(text: str) -> list[str]:
    return [word for word in PERMISSION_WORDS if word.lower() in text.lower()]


# The target ends at any instant


@pytest.mark.parametrize("backend", BACKENDS)
def test_killed_at_any_instant(backend: Backend) -> None:
    """SIGKILL at any instant of open and access: an end, never anything else."""
    rng = random.Random(f"13 {backend}")
    seen: Counter[str] = Counter()
    wrong: list[str] = []
    allowed = (ProcessExitedError, NoSuchProcessError, PageFaultError)
    with Child([compiled("killer")]) as killer:
        for k in range(5000):
            if k >= 60 and _met_enough(seen):
                break
            with Subject() as target:
                pid, address = target.pid, target.address
                most = 150_000 if k % 2 else 1_500_000
                killer.send(f"{pid} {rng.randrange(most)} 9")
                try:
                    process = procvm.open(pid, backend=backend)
                except (NoSuchProcessError, ProcessExitedError) as error:
                    seen["at open"] += 1
                    wrong += _speaks_of_permission(str(error))
                else:
                    with process:
                        calls = list(Accesses(process, address).all().items())
                        rng.shuffle(calls)
                        try:
                            while True:
                                for name, call in calls:  # noqa: B007 (told below)
                                    call()
                        except allowed as error:
                            seen[type(error).__name__] += 1
                            seen[name] += 1
                        assert process.wait() == -9
                        assert not process.is_alive()
                        Accesses(process, address).assert_all_raise(ProcessExitedError)
                assert killer.line() == "sent"
                assert target.popen.wait() == -9
    assert wrong == []
    assert _met_enough(seen), seen


def _met_enough(seen: Counter[str]) -> bool:
    """Whether the ends came at opens and at enough calls of other kinds."""
    calls = sum(name.startswith(("vm.", "forced.", "maps", "find")) for name in seen)
    return seen["at open"] >= 5 and seen["ProcessExitedError"] >= 60 and calls >= 15


def test_a_kill_in_the_middle_of_a_large_transfer() -> None:
    """Of a large transfer that the end cuts off only the bytes that did arrive count."""
    rng = random.Random("13 large")
    cut = 0
    n = 8192 * PAGE
    with Child([compiled("killer")]) as killer:
        for _ in range(500):
            if cut >= 3:
                break
            # By process_vm_readv it is one call, which is whole or does not count.
            with Playground() as target, procvm.open(target.pid, backend="mem") as process:
                base = 1 << 33
                target.map(base, n)
                target.clear(base, n)
                buffer = bytearray(n)
                killer.send(f"{target.pid} {rng.randrange(6_000_000)} 9")
                with pytest.raises((ProcessExitedError, PageFaultError)) as caught:  # noqa: PT012
                    while True:
                        process.vm.read_into(base, buffer)
                done = caught.value.copied_len
                assert 0 <= done < n
                # The pattern has no zeros, and the buffer had nothing else.
                assert buffer.count(0, 0, done) == 0
                cut += done > 0
                assert process.wait() == -9
                killer.line()
    assert cut >= 3


@pytest.mark.parametrize("status", [0, 3, 255, -signal.SIGTERM, -signal.SIGKILL, -signal.SIGABRT])
def test_the_true_status(status: int) -> None:
    """Wait gives the true status, before and after whoever started it has asked."""
    for popen_first in (False, True):
        with Subject() as target, procvm.open(target.pid) as process:
            if status < 0:
                os.kill(target.pid, -status)
            else:
                target.send(f"exit {status}")
            if popen_first:
                assert target.popen.wait() == status
            assert process.wait() == status
            assert process.wait(timeout=0) == status
            assert not process.is_alive()
            assert target.popen.wait() == status
            assert process.wait() == status
            Accesses(process, target.address).assert_all_raise(ProcessExitedError)


@pytest.mark.parametrize("status", [0, 7, -signal.SIGKILL])
def test_the_true_status_of_a_child_of_another(status: int, tmp_path: Path) -> None:
    """Wait gives the true status of a process that somebody else reaps."""
    # The shell reaps when it is told to: before that its child is a zombie.
    script = '"$0" <"$1" & echo $!; read x; wait $!; echo reaped; read x'
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    write_end = os.open(fifo, os.O_RDWR)
    with Child(["sh", "-c", script, compiled("subject"), str(fifo)]) as shell:
        lines = [shell.line(), shell.line()]
        (pid,) = (int(line) for line in lines if "ready" not in line)
        with procvm.open(pid) as process:
            if status < 0:
                os.kill(pid, -status)
            else:
                os.write(write_end, f"exit {status}\n".encode())
            assert process.wait() == status
            assert state_of(pid) == "Z"
            assert shell.ask("reap") == "reaped"
            assert process.wait() == status
        with pytest.raises(NoSuchProcessError):
            procvm.open(pid)
    os.close(write_end)


def test_waiting_in_vain() -> None:
    """A wait for a process that lives ends in time, and the process is unharmed."""
    with Subject() as target, procvm.open(target.pid) as process:
        for timeout in (0, 0.01, 0.0):
            with pytest.raises(TimeoutError) as caught:
                process.wait(timeout)
            assert isinstance(caught.value, procvm.ProcvmError)
        assert process.is_alive()
        assert process.vm.read_bytes(target.address, 4) == pattern(target.address, 4)
        assert_unharmed(target.pid)


def _ending(pid: int) -> bool:
    """Whether a process that was killed is on its way out and has no memory any more."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return fields[0] not in "ZX" and Path(f"/proc/{pid}/statm").read_text().startswith("0 ")
    except OSError:
        return False


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_process_that_takes_long_to_end(backend: Backend) -> None:
    """A process whose memory is being taken down has ended: nothing else is said of it."""
    met = 0
    for _ in range(200):
        if met >= 2:
            break
        with Subject("big=192") as target, procvm.open(target.pid, backend=backend) as process:
            accesses = Accesses(process, target.address)
            os.kill(target.pid, 9)
            while not _ending(target.pid) and process.is_alive():
                pass
            before = _ending(target.pid)
            with pytest.raises(ProcessExitedError):
                process.vm.read_bytes(target.address, 8)
            with pytest.raises((ProcessExitedError, NoSuchProcessError)):
                procvm.open(target.pid, backend=backend)
            met += before and _ending(target.pid)
            accesses.assert_all_raise(ProcessExitedError)
            assert process.wait() == -9
    assert met >= 2, f"only {met} were still ending"


@as_root
@needs("setpriv")
def test_a_process_that_takes_long_to_end_of_a_user() -> None:
    """A user who opens his own ending process is told of the end, and of no permission."""
    program = public("subject")
    met = 0
    with Tool(*run_as(NOBODY)) as tool:
        for _ in range(200):
            if met >= 2:
                break
            with Subject("big=192", prefix=run_as(NOBODY), program=program) as target:
                os.kill(target.pid, 9)
                while not _ending(target.pid) and state_of(target.pid) not in "ZX":
                    pass
                before = _ending(target.pid)
                refusal = tool.refused("open", target.pid)
                met += before and _ending(target.pid)
                assert refusal.name in ("ProcessExitedError", "NoSuchProcessError"), refusal.text
                assert _speaks_of_permission(refusal.text) == []
    assert met >= 2, f"only {met} were still ending"


@as_root
@needs("setpriv")
def test_a_user_opens_his_process_until_it_is_gone() -> None:
    """From SIGKILL to the zombie every try of its user to open it gives an end."""
    program = public("subject")
    with Tool(*run_as(NOBODY)) as tool:
        for _ in range(10):
            with Subject("big=32", prefix=run_as(NOBODY), program=program) as target:
                os.kill(target.pid, 9)
                answer = tool.do("open_until_gone", target.pid)
                assert answer["tries"] >= 1


# Zombies, kernel threads and special pids


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_zombie(backend: Backend) -> None:
    """A zombie has ended: it is not opened, and what was opened says the same."""
    with Subject() as target:
        with procvm.open(target.pid, backend=backend) as process:
            accesses = Accesses(process, target.address)
            os.kill(target.pid, 9)
            assert process.wait() == -9
            assert state_of(target.pid) == "Z"
            accesses.assert_all_raise(ProcessExitedError)
            assert not process.is_alive()
            with pytest.raises(ProcessExitedError) as caught:
                procvm.open(target.pid, backend=backend)
            assert caught.value.pid == target.pid
            assert _speaks_of_permission(str(caught.value)) == []
            assert target.popen.wait() == -9
            accesses.assert_all_raise(ProcessExitedError)
            assert process.wait() == -9
        with pytest.raises(NoSuchProcessError):
            procvm.open(target.pid, backend=backend)


@as_root
@needs("setpriv")
def test_a_zombie_of_another_user() -> None:
    """A zombie of another user is a zombie: no word of permission."""
    with Subject() as parent, zombie_of(parent, 3) as pid, Tool(*run_as(NOBODY)) as tool:
        refusal = tool.refused("open", pid)
        assert refusal.name == "ProcessExitedError"
        assert _speaks_of_permission(refusal.text) == []
        assert refusal.pid == pid


@as_root
@needs("setpriv")
def test_a_zombie_leader_of_an_ordinary_user() -> None:
    """Its files then belong to root, and those of its threads still to the user."""
    with Subject(prefix=run_as(NOBODY), program=public("subject")) as target:
        assert target.ask("leader") == "ok"
        assert state_of(target.pid) == "Z"
        with Tool(*run_as(NOBODY)) as tool:
            tool.do("open", target.pid)
            assert tool.do("read", target.address, PAGE) == pattern(target.address, PAGE).hex()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("opened", ["before", "after"])
def test_a_zombie_leader_with_live_threads(opened: str, backend: Backend) -> None:
    """A process whose leading thread has ended lives on: all accesses work."""
    with Subject() as target:
        if opened == "after":
            assert target.ask("leader") == "ok"
            assert state_of(target.pid) == "Z"
        with procvm.open(target.pid, backend=backend) as process:
            accesses = Accesses(process, target.address)
            if opened == "before":
                accesses.assert_all_work()
                accesses = Accesses(process, target.address)
                assert target.ask("leader") == "ok"
                assert state_of(target.pid) == "Z"
            assert process.is_alive()
            accesses.assert_all_work()
            assert process.vm.read_bytes(target.address, PAGE) == pattern(target.address, PAGE)
            process.vm.write_val(target.address + 8, u64, 0x1122334455667788)
            assert target.ask(f"word {target.address + 8:x}") == "1122334455667788"
            found = process.maps().find(target.address)
            assert found is not None
            assert str(found.perms) == "rw-p"
            with pytest.raises(PageFaultError) as caught:
                process.vm.read_bytes(found.end - 5, PAGE)
            first_bad = caught.value.address
            assert process.maps().find(first_bad) is None or caught.value.copied_len >= 5
            with pytest.raises(TimeoutError):
                process.wait(0)
            with procvm.open(target.pid, backend=backend) as again:
                assert again.vm.read_val(target.address + 8, u64) == 0x1122334455667788
            target.send("exit 9")
            assert process.wait() == 9
            Accesses(process, target.address).assert_all_raise(ProcessExitedError)
        assert target.popen.wait() == 9


def _kernel_thread() -> int:
    """Returns the pid of a kernel thread; 2 unless we are in a pid namespace of our own."""
    for pid in ("2", *sorted(os.listdir("/proc"))):
        try:
            if pid.isdigit() and "\nKthread:\t1\n" in Path(f"/proc/{pid}/status").read_text():
                return int(pid)
        except OSError:
            continue
    pytest.skip("no kernel thread is visible: a pid namespace")


def test_a_kernel_thread() -> None:
    """A kernel thread is refused as what it is."""
    pid = _kernel_thread()
    for _ in range(2):
        with pytest.raises(AccessDeniedError) as caught:
            procvm.open(pid)
        assert "kernel thread" in str(caught.value)
        assert caught.value.pid == pid
        for word in ("Yama", "user,", "uid", "CAP_SYS_PTRACE", "dumpable", "hidepid"):
            assert word not in str(caught.value)


@as_root
@needs("setpriv")
def test_a_kernel_thread_for_a_user() -> None:
    """A user is told the same of a kernel thread, which nobody could open."""
    pid = _kernel_thread()
    with Tool(*run_as(NOBODY)) as tool:
        refusal = tool.refused("open", pid)
    assert refusal.name == "AccessDeniedError"
    assert "kernel thread" in refusal.text
    assert "CAP_SYS_PTRACE" not in refusal.text


@pytest.mark.parametrize("pid", [0, -1, -(2**31), 2**31, 2**31 - 1, 2**32 + 1, 2**64, 2**64 + 1])
def test_pids_of_nobody(pid: int) -> None:
    """A number that no process can have is no such process."""
    with pytest.raises(NoSuchProcessError) as caught:
        procvm.open(pid)
    assert caught.value.pid == pid
    assert str(pid) in str(caught.value)


@pytest.mark.parametrize("pid", [True, 1.5, b"1", None], ids=repr)
def test_open_of_neither_a_pid_nor_a_name_is_a_type_error(pid: object) -> None:
    """Only an int is a pid, and only a str is a name."""
    with pytest.raises(TypeError):
        procvm.open(pid)  # type: ignore[arg-type]  # what is under test


def test_a_thread_is_no_process() -> None:
    """The id of a thread is refused, and the message names its process."""
    with Subject() as target:
        tid = int(target.ask("thread"))
        with pytest.raises(NoSuchProcessError) as caught:
            procvm.open(tid)
        assert caught.value.pid == tid
        assert str(target.pid) in str(caught.value)
        with procvm.open(target.pid) as process:
            Accesses(process, target.address).assert_all_work()


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_tool_itself(backend: Backend) -> None:
    """The tool opens itself: every access works, and it is the same memory."""
    with procvm.Segment.alloc(2) as own, procvm.open(os.getpid(), backend=backend) as process:
        own.write_bytes(0, pattern(own.address, PAGE))
        accesses = Accesses(process, own.address)
        accesses.assert_all_work()
        assert process.vm.read_bytes(own.address, PAGE) == own.read_bytes(0, PAGE)
        process.vm.write_val(own.address + 8, u64, 77)
        assert own.read_val(8, u64) == 77
        assert process.is_alive()
        with pytest.raises(PageFaultError) as caught:
            process.vm.read_bytes(16, 8)
        assert (caught.value.address, caught.value.copied_len) == (16, 0)
        with pytest.raises(TimeoutError):
            process.wait(0)


@as_root
@needs("unshare", "nsenter", "setpriv")
def test_init() -> None:
    """An init can be accessed by root; to a user it is another user's process, no more."""
    # That of a pid namespace of our own: the machine's is nobody's to play with.
    alone = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    with Subject(prefix=alone, program=public("subject")) as target:
        outside = int(Path(f"/proc/{target.pid}/task/{target.pid}/children").read_text())
        inside = ["nsenter", "-t", str(outside), "-p", "-m"]
        with Tool(*inside) as tool:
            assert tool.do("open", 1) == 1
            assert tool.do("read", target.address, 8) == pattern(target.address, 8).hex()
            tool.do("write_val", target.address + 8, 77)
            assert tool.do("is_alive")
            tool.do("close")
        assert target.ask(f"word {target.address + 8:x}") == f"{77:016x}"
        with Tool(*inside, *run_as(NOBODY)) as tool:
            refusal = tool.refused("open", 1)
        assert_unharmed(outside)
    assert refusal.name == "AccessDeniedError"
    assert "user" in refusal.text
    for word in ("Yama", "dumpable", "set-uid", "namespace", "hidepid", "security module"):
        assert word not in refusal.text


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_stopped_target_stays_stopped(backend: Backend) -> None:
    """A target that job control has stopped can be accessed and stays stopped."""
    with Subject() as target, procvm.open(target.pid, backend=backend) as process:
        os.kill(target.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, target.pid, os.WSTOPPED | os.WNOWAIT)
        Accesses(process, target.address).assert_all_work()
        with procvm.open(target.pid, backend=backend) as again:
            Accesses(again, target.address).assert_all_work()
        assert_unharmed(target.pid, "T")
        os.kill(target.pid, signal.SIGCONT)
        assert target.ask(f"word {target.address:x}")


@pytest.mark.strace
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_target_that_strace_traces(backend: Backend) -> None:
    """A traced target is opened, read and written like any other."""
    with Subject() as target, Strace(target.pid, "-e", "trace=none"):
        assert Path(f"/proc/{target.pid}/status").read_text().count("TracerPid:\t0\n") == 0
        with procvm.open(target.pid, backend=backend) as process:
            Accesses(process, target.address).assert_all_work()
        assert target.ask(f"word {target.address:x}") == pattern(target.address, 8)[::-1].hex()


# Pids that are given again


class Reuser(Child):
    """reuser.c: children with the same image and, one after the other, one pid."""

    def __init__(self) -> None:
        super().__init__([compiled("reuser")])
        self.at = Addresses(*self.hexes())

    def fork(self) -> int:
        return int(self.ask("fork"))

    def end(self, *, opened: bool = False) -> None:
        """Ends the child; if it was not opened its box must be as it was."""
        answer = self.ask("end")
        assert opened or answer == "0", "a process was written that was not opened"

    def replace(self, pid: int) -> None:
        """Has the child, which was opened, give way to a twin with its pid."""
        self.end(opened=True)
        assert int(self.ask(f"forkas {pid}")) == pid


@as_root
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("used", ["used", "unused"])
def test_a_pid_that_was_given_again(used: str, backend: Backend) -> None:
    """What was opened has ended, though a twin with the same bytes has its pid."""
    with Reuser() as server:
        pid = server.fork()
        opened: list[procvm.Process] = []
        accesses: list[Accesses] = []
        for serial in range(1, 20):
            process = procvm.open(pid, backend=backend)
            opened.append(process)
            accesses.append(Accesses(process, server.at.number))
            if used == "used":
                assert process.vm.read_val(server.at.number, u64) == serial
                assert process.vm.read_val(server.at.box, u64) == PRISTINE
                accesses[-1].assert_all_work()
            server.end()
            assert int(server.ask(f"forkas {pid}")) == pid
            for old in accesses[-3:]:
                old.assert_all_raise(ProcessExitedError)
            assert not process.is_alive()
            assert process.wait() == 0
        server.end()
        for process in opened:
            process.close()


@as_root
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_pid_that_was_given_again_by_the_last_pid(backend: Backend) -> None:
    """The same where the number was made to come round by ns_last_pid."""
    reused = 0
    with Reuser() as server:
        for _ in range(10_000):
            pid = server.fork()
            with procvm.open(pid, backend=backend) as process:
                accesses = Accesses(process, server.at.number)
                server.end()
                if int(server.ask(f"lastpid {pid}")) != pid:
                    continue  # another process of the machine was faster
                reused += 1
                accesses.assert_all_raise(ProcessExitedError)
                server.end()
            if reused == 10:
                break
    assert reused == 10


MOST_CALLS = 60


def _calls(serial_at: int, box_at: int) -> dict[str, list[object]]:
    return {
        "read": ["read", serial_at, 8],
        "read_val": ["read_val", serial_at],
        "forced": ["read", serial_at, 8, True],
        "gather": ["gather", [(serial_at, 8)]],
        "write": ["write", box_at, "00" * 8],
        "write_val": ["write_val", box_at, 0],
        "fill": ["fill", box_at, 8],
        "maps": ["maps"],
        "find": ["find", serial_at],
        "is_alive": ["is_alive"],
    }


def _assert_of_the_first(answer: object, serial: int, operation: str) -> None:
    """What an operation gave while its process went is of it, or tells its end."""
    if isinstance(answer, Refusal):
        assert answer.name == "ProcessExitedError", (operation, answer)
    elif operation in ("read", "forced", "gather"):
        assert answer == serial.to_bytes(8, "little").hex(), operation
    elif operation == "read_val":
        assert answer == serial


def _assert_gone(tool: Tool, calls: dict[str, list[object]], case: object) -> None:
    """The tool's process has ended, for every operation."""
    for name, call in calls.items():
        if name == "is_alive":
            assert tool.do(*call) is False, case
        else:
            assert tool.refused(*call).name == "ProcessExitedError", (case, name)


@as_root
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_pid_that_is_given_again_at_every_system_call(backend: Backend) -> None:
    """Whatever the tool was about to ask when its pid went to a twin, it is found out."""
    with GatedTool() as tool, Reuser() as server:
        pid = server.fork()
        serial = 1
        calls = _calls(server.at.number, server.at.box)
        for operation, call in calls.items():
            for n in range(1, MOST_CALLS):
                tool.do("open", pid, backend)
                held, answer = tool.held_at(n, lambda: server.replace(pid), *call)
                if not held:
                    assert n > 1, operation
                    tool.do("close")
                    break
                _assert_of_the_first(answer, serial, operation)
                _assert_gone(tool, calls, (operation, n))
                assert tool.do("wait") in (0, 1)  # 1 if it was written while it lived
                tool.do("close")
                server.end()  # the twin was not written
                assert int(server.ask(f"forkas {pid}")) == pid
                serial += 2
        server.end(opened=True)


@as_root
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_pid_that_is_given_again_while_it_is_opened(backend: Backend) -> None:
    """What is opened is one process: the first, which has ended, or its twin."""
    opened = 0
    with GatedTool() as tool, Reuser() as server:
        pid = server.fork()
        serial = 1
        calls = _calls(server.at.number, server.at.box)
        for n in range(1, MOST_CALLS):
            held, answer = tool.held_at(n, lambda: server.replace(pid), "open", pid, backend)
            if not held:
                break
            serial += 1
            if isinstance(answer, Refusal):
                assert answer.name in ("NoSuchProcessError", "ProcessExitedError"), (n, answer)
                assert _speaks_of_permission(answer.text) == []
                continue
            opened += 1
            if tool.do("is_alive"):
                assert tool.do("read_val", server.at.number) == serial, n
                tool.do("write_val", server.at.number, serial)
                assert tool.do("maps")
                server.end()
                assert tool.do("wait") == 0
                assert int(server.ask(f"forkas {pid}")) == pid
                serial += 1
            _assert_gone(tool, calls, f"opened while the twin came at system call {n}")
            tool.do("close")
        assert 5 <= n < MOST_CALLS
        tool.do("close")
        server.end()
    assert opened >= 1


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("reaped", [True, False], ids=["reaped", "zombie"])
def test_an_end_at_every_system_call(backend: Backend, *, reaped: bool) -> None:
    """Whatever the tool was about to ask when the target was killed: it has ended."""
    with GatedTool() as tool:
        for operation in ("open", *_calls(0, 0)):
            for n in range(1, MOST_CALLS):
                with Subject() as target:
                    if not _killed_at(tool, n, target, operation, backend, reaped=reaped):
                        assert n > 1, operation
                        break
                    assert target.popen.wait() == -9


def _killed_at(
    tool: GatedTool, n: int, target: Subject, operation: str, backend: Backend, *, reaped: bool
) -> bool:
    call: list[object] = ["open", target.pid, backend]
    calls = _calls(target.address, target.address)
    names = ["ProcessExitedError", "NoSuchProcessError"]
    if operation != "open":
        tool.do(*call)
        call = calls[operation]
        names = ["ProcessExitedError", "PageFaultError"]

    def change() -> None:
        os.kill(target.pid, 9)
        os.waitid(os.P_PID, target.pid, os.WEXITED | os.WNOWAIT)
        if reaped:
            target.popen.wait()

    held, answer = tool.held_at(n, change, *call)
    if held and isinstance(answer, Refusal):
        assert answer.name in names, (operation, n, answer)
        assert "Page" in answer.name or _speaks_of_permission(answer.text) == []
        if operation == "open":
            return True
    if held:
        assert tool.do("wait") == -9, (operation, n)
        _assert_gone(tool, calls, (operation, n))
    tool.do("close")
    return held


@as_root
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_pid_that_is_given_again_at_full_speed(backend: Backend) -> None:
    """0 accesses succeed on another process while a pid goes from twin to twin."""
    with Reuser() as server:
        pid = server.fork()
        server.end()
        server.send(f"race {pid} 1000000")

        def enough(seen: Counter[str]) -> bool:
            return (seen["reused"] >= 40 and seen["accesses"] >= 1000) or server.has_line()

        seen = reuse_race(pid, server.at, enough, backend)
        word, raced, bad = server.ask("enough").split()
        assert word == "raced"
    assert bad == "0", f"{bad} of {raced} were written that were not opened; {seen}"
    assert seen.get("reused", 0) >= 40, seen
    assert seen["accesses"] >= 1000, seen
