"""spawn gives a program what subprocess.Popen gives it, and a hold at its first instruction."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import procvm
from tests.support.build import compiled
from tests.support.child import ROOT, Child
from tests.support.patience import eventually
from tests.support.procfs import assert_free, own_children, state_of, status_field, tracers
from tests.tracee.witness import comm


def both(argv: Any, **options: Any) -> tuple[bytes, bytes]:
    """Returns what a program prints when spawn starts it, and when Popen does."""
    # What a library of the test's own put into C's environment is a test by itself, below.
    options.setdefault("env", dict(os.environ))
    with subprocess.Popen(argv, stdout=subprocess.PIPE, **options) as popen:
        assert popen.stdout is not None
        expected = popen.stdout.read()
    with procvm.spawn(argv, stdout=subprocess.PIPE, **options) as tracee:
        found = tracee.stdout.read()
        assert tracee.wait() == popen.returncode
        assert tracee.returncode == popen.returncode
    return found, expected


@contextlib.contextmanager
def inherited() -> Iterator[int]:
    """A descriptor that children inherit if they are told to."""
    with tempfile.TemporaryFile() as file:
        os.set_inheritable(file.fileno(), True)
        yield file.fileno()


OPTIONS: list[dict[str, Any]] = [
    {},
    {"env": {}},
    {"env": {"A": "1", "LC_ALL": "C", "LANG": "", "PYTHONPATH": "/x", "ODD": "\udcff=\n"}},
    {"env": {"LC_CTYPE": "POSIX"}},
    {"cwd": "/"},
    {"start_new_session": True},
    {"stdin": subprocess.DEVNULL},
    {"stdin": subprocess.DEVNULL, "stderr": subprocess.STDOUT},
    {"stderr": subprocess.DEVNULL},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_program_is_given_what_popen_gives_it(options: dict[str, Any]) -> None:
    """Arguments, environment, descriptors, signals, limits, session: each line is Popen's."""
    argv = [compiled("trace_printer"), "", "3", "a b", "\udcff", "-c"]
    found, expected = both(argv, **options)
    assert found.splitlines() == expected.splitlines()
    assert b"cwd /" in found


HIDDEN = """
import ctypes, os, procvm, subprocess
ctypes.CDLL(None).setenv(b"HIDDEN", b"1", 1)
popen = subprocess.run(["env"], stdout=subprocess.PIPE).stdout
with procvm.spawn(["env"], stdout=subprocess.PIPE) as tracee:
    found = tracee.stdout.read()
print(b"HIDDEN=1" in popen, found == popen)
"""


def test_an_inherited_environment_is_that_of_the_process() -> None:
    """Without env the program has C's environment, as with Popen, not only os.environ."""
    found = subprocess.run(
        [sys.executable, "-c", HIDDEN],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert found.stdout == "True True\n", found


def test_passed_descriptors_arrive_and_no_others() -> None:
    """pass_fds, with their numbers and flags, and the three standard ones; else nothing is open."""
    with inherited() as one, inherited() as two:
        argv = [compiled("trace_printer")]
        found, expected = both(argv, pass_fds=[one])
        assert found.splitlines() == expected.splitlines()
        assert f"fd {one} ".encode() in found
        assert f"fd {two} ".encode() not in found
        assert found.count(b"\nfd ") == 3
        assert f"fd {one} ".encode() in both(argv, pass_fds=(two, one))[0]


def test_signals_that_the_tool_ignores_or_blocks_are_so_in_the_program() -> None:
    """SIGINT, SIGUSR1 ignored, SIGUSR2 blocked, SIGPIPE as it is: the program sees Popen's."""
    old = {s: signal.signal(s, signal.SIG_IGN) for s in (signal.SIGINT, signal.SIGUSR1, 40)}
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
    try:
        found, expected = both([compiled("trace_printer")])
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR2])
        for signo, handler in old.items():
            signal.signal(signo, handler)
    assert found.splitlines() == expected.splitlines()
    assert b"signal 2 ignored" in found
    assert b"signal 12 blocked" in found


def test_the_umask_and_limits_of_the_tool_are_the_programs() -> None:
    """What the tool set for itself is given on as Popen does."""
    old = os.umask(0o27)
    try:
        found, expected = both([compiled("trace_printer")])
    finally:
        os.umask(old)
    assert found.splitlines() == expected.splitlines()
    assert b"umask 27" in found


@pytest.mark.parametrize("argv", ["trace_printer", ["trace_printer"], [b"trace_printer", b"x"]])
def test_a_program_is_looked_for_as_popen_does(argv: Any) -> None:
    """In the PATH of the environment given, by str, bytes or a single string."""
    folder = str(Path(compiled("trace_printer")).parent)
    found, expected = both(argv, env={"PATH": f"/nonexistent:{folder}"})
    assert found.splitlines() == expected.splitlines()


def test_pipes_are_the_programs_own() -> None:
    """stdin, stdout, stderr as pipes carry bytes both ways; those not asked for are None."""
    with procvm.spawn(
        [compiled("trace_printer"), "cat"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as tracee:
        tracee.stdin.write(b"\x00\xffhello")
        tracee.stdin.close()
        assert tracee.stdout.read().endswith(b"\x00\xffhello")
        assert tracee.stderr.read() == b"to stderr\n"
        assert tracee.wait() == 0
    with procvm.spawn(["true"]) as plain:
        assert (plain.stdin, plain.stdout, plain.stderr) == (None, None, None)


def outcome(start: Any, argv: Any, options: dict[str, Any]) -> tuple[Any, ...]:
    """Returns all that an exception of a start tells."""
    try:
        with start(argv, **options):
            pass
    except Exception as error:  # noqa: BLE001 (compared)
        return (
            type(error),
            str(error),
            getattr(error, "errno", None),
            getattr(error, "filename", None),
        )
    raise AssertionError(f"{start} did not fail")


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Files that cannot be executed, each for a reason of its own."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name)
        (path / "plain").write_text("no program")
        (path / "text").write_text("no program")
        (path / "text").chmod(0o755)
        (path / "lost").write_text("#!/nonexistent/interpreter\n")
        (path / "lost").chmod(0o755)
        (path / "folder").mkdir()
        yield path


FAILURES: list[tuple[Any, dict[str, Any]]] = [
    (["/nonexistent/program"], {}),
    ("/nonexistent/program", {}),
    ([b"/nonexistent/program"], {}),
    ([Path("/nonexistent/program")], {}),
    (["surely-no-such-program"], {}),
    (["surely-no-such-program"], {"env": {}}),
    (["plain"], {"env": {"PATH": "/nonexistent:/etc/passwd"}}),
    (["plain"], {"env": {"PATH": "/etc/passwd:/nonexistent"}}),
    (["{}/plain"], {}),
    (["{}/text"], {}),
    (["{}/lost"], {}),
    (["{}/folder"], {}),
    (["plain"], {"env": {"PATH": "{}:/nonexistent"}}),
    (["plain"], {"env": {"PATH": "/nonexistent:{}"}}),
    (["true"], {"cwd": "/nonexistent/folder"}),
    (["true"], {"cwd": "/etc/passwd"}),
    (["true", "x" * (1 << 18)], {}),
    (["true", "a\0b"], {}),
    (["true"], {"env": {"A=B": "1"}}),
    (["true"], {"env": {"A": "\0"}}),
    ([""], {}),
    (["true"], {"pass_fds": [9999]}),
    (["true"], {"stdin": 9999}),
]


@pytest.mark.parametrize(("argv", "options"), FAILURES, ids=lambda what: str(what)[:60])
def test_a_failed_start_raises_what_popen_raises(
    argv: Any, options: dict[str, Any], folder: Path
) -> None:
    """Class, message, errno and file name are those of Popen, and nothing is left behind."""

    def fill(what: Any) -> Any:
        return what.replace("{}", str(folder)) if isinstance(what, str) else what

    if isinstance(argv, list):
        argv = [fill(argument) for argument in argv]
    if "env" in options:
        options = {**options, "env": {k: fill(v) for k, v in options["env"].items()}}
    children = own_children()
    expected = outcome(subprocess.Popen, argv, options)
    assert outcome(procvm.spawn, argv, options) == expected
    assert own_children() == children


def test_stopped_is_at_the_first_instruction() -> None:
    """Only the program, its interpreter and the kernel's mappings are there; rip is its entry."""
    program = compiled("trace_printer")
    with procvm.spawn([program], stopped=True, stdout=subprocess.PIPE) as tracee:
        assert tracee.is_stopped()
        assert state_of(tracee.pid) == "t"
        assert len(os.listdir(f"/proc/{tracee.pid}/task")) == 1
        lines = Path(f"/proc/{tracee.pid}/maps").read_text().splitlines()
        names = {line.split(maxsplit=5)[5] for line in lines if len(line.split()) > 5}
        loader = {name for name in names if "ld-" in name or "ld." in name}
        kernels = {"[stack]", "[vdso]", "[vvar]", "[vvar_vclock]", "[vsyscall]", "[heap]"}
        assert names - kernels - loader == {program}
        assert len(loader) == 1
        # "running", or: number of the call, six arguments, stack pointer, instruction pointer.
        at = int(Path(f"/proc/{tracee.pid}/syscall").read_text().split()[-1], 16)
        (text,) = [
            line for line in lines if line.split()[-1] in loader and line.split()[1] == "r-xp"
        ]
        first, end = (int(part, 16) for part in text.split()[0].split("-"))
        assert first <= at < end
        entry = _entry_of(next(iter(loader)))
        base = min(int(line.split("-")[0], 16) for line in lines if line.split()[-1] in loader)
        assert at == base + entry
        assert Path(f"/proc/{tracee.pid}/cmdline").read_bytes() == program.encode() + b"\0"
        tracee.resume()
        assert b"cwd" in tracee.stdout.read()
        assert tracee.wait() == 0


def _entry_of(elf: str) -> int:
    data = Path(elf).read_bytes()[:64]
    return int.from_bytes(data[24:32], "little")


def test_a_static_program_is_stopped_at_its_entry() -> None:
    """Without an interpreter the first instruction is the entry of the program itself."""
    try:
        program = compiled("trace_printer", "-static", "-no-pie")
    except subprocess.CalledProcessError:
        pytest.skip("no static libc")
    with procvm.spawn([program], stopped=True, stdout=subprocess.DEVNULL) as tracee:
        at = int(Path(f"/proc/{tracee.pid}/syscall").read_text().split()[-1], 16)
        assert at == _entry_of(program)


def test_a_spawned_program_runs_untraced() -> None:
    """The program runs, traced by nobody; holds work as on an attached one."""
    with procvm.spawn(["sleep", "1000"]) as tracee:
        assert_free(tracee.pid)
        assert tracee.poll() is None
        assert tracee.returncode is None
        with tracee.stopped():
            assert state_of(tracee.pid) == "t"
        assert_free(tracee.pid)
        assert status_field(tracee.pid, "PPid") == str(os.getpid())
        with pytest.raises(procvm.WaitTimeoutError) as caught:
            tracee.wait(0.01)
        assert caught.value.pid == tracee.pid
        assert isinstance(caught.value, TimeoutError)


def test_the_with_statement_ends_the_program() -> None:
    """Leaving the with kills and reaps it, held or not; its pid is nobody's then."""
    for stopped in (False, True):
        with procvm.spawn(["sleep", "1000"], stopped=stopped) as tracee:
            pid = tracee.pid
        assert tracee.returncode == -signal.SIGKILL
        assert not os.path.exists(f"/proc/{pid}")


@pytest.mark.parametrize("end", ["close", "detach"])
def test_the_with_statement_ends_a_program_that_was_closed(end: str) -> None:
    """After close or detach inside it the with still kills and reaps, and raises nothing."""
    tracee = procvm.spawn(["sleep", "1000"])
    pid = tracee.pid
    try:
        with tracee:
            getattr(tracee, end)()
        assert tracee.returncode == -signal.SIGKILL
        assert not os.path.exists(f"/proc/{pid}")
    finally:
        if tracee.returncode is None:
            os.kill(pid, signal.SIGKILL)
            tracee.wait()


def test_close_leaves_a_spawned_program_running() -> None:
    """Without the with it is left to its owner: close lets go, and wait still gives its status."""
    tracee = procvm.spawn(["sleep", "1000"], stopped=True)
    tracee.close()
    assert_free(tracee.pid)
    assert state_of(tracee.pid) in "RSD"
    os.kill(tracee.pid, signal.SIGTERM)
    assert tracee.wait() == -signal.SIGTERM


@pytest.mark.parametrize(("script", "status"), [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", -9)])
def test_the_status_is_the_programs_own(script: str, status: int) -> None:
    """Wait, poll and returncode give the exit code, or minus the signal."""
    with procvm.spawn(["sh", "-c", script], stopped=True) as tracee:
        assert tracee.poll() is None
        tracee.resume()
        assert tracee.wait() == status
        assert (tracee.poll(), tracee.returncode) == (status, status)
        assert not tracee.is_alive()


def test_threads_of_a_tool_spawn_side_by_side() -> None:
    """Four threads spawn 6 programs each, which outlive the threads."""
    found: list[procvm.Tracee] = []
    wrong: list[BaseException] = []

    def start() -> None:
        try:
            for k in range(6):
                found.append(procvm.spawn(["sleep", "1000"], stopped=bool(k % 2)))  # noqa: PERF401 (those made before the error are ended)
        except BaseException as error:  # noqa: BLE001 (shown by the test's thread)
            wrong.append(error)

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    try:
        assert wrong == []
        for tracee in found:
            assert tracee.poll() is None
            assert bool(tracers(tracee.pid)) == tracee.is_stopped()
    finally:
        for tracee in found:
            with tracee:
                pass
    assert {tracee.returncode for tracee in found} == {-signal.SIGKILL}


def test_a_hold_at_the_start_ends_after_its_longest_time() -> None:
    """stopped=True is a hold like any other: the program runs on when its time is over."""
    with procvm.spawn(["sh", "-c", "exit 5"], stopped=True, longest_hold=0.1) as tracee:
        assert tracee.wait() == 5


def test_what_popen_calls_first_is_no_shell() -> None:
    """A single string is the program, not a command line."""
    with pytest.raises(FileNotFoundError) as caught:
        procvm.spawn("true --help")
    assert caught.value.filename == "true --help"


SCRIPT = """
import procvm, subprocess, sys
with procvm.spawn(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as tracee:
    tracee.stdin.write(b"x"); tracee.stdin.close()
    print(tracee.stdout.read(), tracee.wait())
"""


@pytest.mark.parametrize("closed", ["0<&-", "0<&- 1>&2 2>&-", "2>&-"])
def test_a_tool_without_standard_descriptors_can_spawn(closed: str) -> None:
    """Pipes of our own may get the numbers 0 to 2 then; the program gets its pipes all the same."""
    with tempfile.NamedTemporaryFile() as out:
        command = f'exec "$@" 1>{out.name} {closed}' if "1>" not in closed else ""
        if not command:
            command = f'exec "$@" 0<&- 2>&- 1>{out.name}'
        status = subprocess.run(
            ["sh", "-c", command, "sh", sys.executable, "-c", SCRIPT],
            check=False,
            cwd=ROOT,
        ).returncode
        assert (status, out.read()) == (0, b"b'x' 0\n")


INTERRUPTED = """
import os, sys, procvm
# The program that is to become the one that was asked for never does.
sys.executable = sys.argv[1]
def children():
    return open(f"/proc/self/task/{os.getpid()}/children").read().split()
print("spawning", flush=True)
try:
    procvm.spawn(["true"])
except KeyboardInterrupt:
    print(children(), flush=True)
"""


def test_spawn_that_is_interrupted_leaves_no_child(tmp_path: Path) -> None:
    """Ctrl-C while the program is still to be started: what was begun is ended and reaped."""
    wrapper = tmp_path / "never"
    wrapper.write_text("#!/bin/sh\nexec sleep 1000\n")
    wrapper.chmod(0o755)
    with Child([sys.executable, "-c", INTERRUPTED, str(wrapper)]) as tool:
        assert tool.line() == "spawning"
        children = Path(f"/proc/{tool.pid}/task/{tool.pid}/children")
        assert eventually(
            lambda: [comm(int(pid)) for pid in children.read_text().split()] == ["sleep"]
        )
        (child,) = map(int, children.read_text().split())
        assert eventually(lambda: state_of(tool.pid) == "S")
        tool.signal(signal.SIGINT)
        assert tool.line() == "[]"
        assert not os.path.exists(f"/proc/{child}")
        assert tool.popen.wait() == 0


def test_spawning_leaves_nothing_behind() -> None:
    """After 10 programs the tool has the children and descriptors it had."""
    before = own_children(), len(os.listdir("/proc/self/fd"))
    for k in range(10):
        with procvm.spawn(["true"], stdout=subprocess.PIPE, stopped=bool(k % 2)) as tracee:
            if k % 2:
                tracee.resume()
            tracee.stdout.read()
    assert eventually(lambda: (own_children(), len(os.listdir("/proc/self/fd"))) == before)
