"""Opening a process, reading and writing it: the main job."""

from __future__ import annotations

import contextlib
import os
import pickle
import resource
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

import pytest

import procvm
from procvm import u64
from procvm._linux import procfs
from procvm._linux.processes import processes
from tests.support.patience import eventually
from tests.support.playground import PAGE, Playground, pattern


def test_a_read_gives_what_the_target_has(process: procvm.Process, playground: Playground) -> None:
    """Bytes read are the bytes that the target sees itself."""
    base = playground.layout("rw rw")
    assert process.vm.read_bytes(base, 2 * PAGE) == pattern(base, 2 * PAGE)


def test_a_write_reaches_the_target(process: procvm.Process, playground: Playground) -> None:
    """The target sees a value that was written, and nothing else changed."""
    base = playground.layout("rw")
    process.vm.write_val(base + 8, u64, 0x1122334455667788)
    expected = bytearray(pattern(base, PAGE))
    expected[8:16] = (0x1122334455667788).to_bytes(8, "little")
    assert playground.peek(base, PAGE) == expected


def test_a_read_into_a_hole_tells_how_far_it_came(
    process: procvm.Process, playground: Playground
) -> None:
    """The bytes before the hole are delivered, and the error says how many and where."""
    base = playground.layout("rw hole")
    buffer = bytearray(b"\xee" * 32)
    with pytest.raises(procvm.PageFaultError) as caught:
        process.vm.read_into(base + PAGE - 12, buffer)
    assert caught.value.copied_len == 12
    assert caught.value.address == base + PAGE
    assert caught.value.pid == playground.pid
    assert buffer == pattern(base + PAGE - 12, 12) + b"\xee" * 20


def test_the_tool_itself_can_be_opened() -> None:
    """A process may open itself, and closing it leaves no descriptor behind."""
    before = set(os.listdir("/proc/self/fd"))
    segment = procvm.Segment.alloc(1)
    segment.write_val(16, u64, 99)
    with procvm.open(os.getpid()) as process:
        assert process.vm.read_val(segment.address + 16, u64) == 99
    # What others left may have been collected meanwhile.
    assert set(os.listdir("/proc/self/fd")) <= before


Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a program and returns it once its exec is done; all are ended after the test."""
    with ExitStack() as stack:

        def run(path: Path, argv0: str = "") -> subprocess.Popen[bytes]:
            child = subprocess.Popen([argv0 or str(path), "1000"], executable=path)
            stack.enter_context(child)
            stack.callback(child.kill)
            wanted = os.fsencode(path.name)[:15]
            assert eventually(lambda: (procfs.read_stat(child.pid) or [b""] * 2)[1] == wanted)
            # The comm is that of the new program before its command line can be read.
            assert eventually(lambda: procfs.read_bytes(f"/proc/{child.pid}/cmdline"))
            return child

        yield run


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A program that sleeps, under a name that no other process of the machine has."""
    sleep = shutil.which("sleep")
    assert sleep is not None
    # Longer than a comm, which is cut to 15 bytes.
    return Path(shutil.copy(sleep, tmp_path / f"a-long-sleep-{os.getpid()}-x"))


@pytest.mark.parametrize("backend", ["auto", "mem"])
def test_open_by_the_name_of_the_executable(
    start: Start, program: Path, backend: Literal["auto", "mem"]
) -> None:
    """The one process of that name is opened, also where argv[0] is something else."""
    child = start(program, argv0="other")
    with procvm.open(program.name, backend=backend) as process:
        assert process.pid == child.pid
        assert process.maps()


def test_open_by_comm_and_by_argv0(start: Start, program: Path) -> None:
    """The comm, which the kernel cuts to 15 bytes, and the base name of argv[0] are names too."""
    child = start(program, argv0=f"/nowhere/zero-{os.getpid()}")
    for name in (program.name[:15], f"zero-{os.getpid()}"):
        with procvm.open(name) as process:
            assert process.pid == child.pid


def test_open_by_the_name_of_a_symlink(start: Start, program: Path) -> None:
    """A program that was started by a symlink is found by both names."""
    link = program.with_name(f"link-{os.getpid()}")
    link.symlink_to(program)
    child = start(link)
    for name in (link.name, program.name):
        with procvm.open(name) as process:
            assert process.pid == child.pid


def test_open_by_the_name_of_a_deleted_executable(start: Start, program: Path) -> None:
    """The kernel marks the path as deleted; the mark is not a part of the name."""
    child = start(program, argv0="other")
    program.unlink()
    with procvm.open(program.name) as process:
        assert process.pid == child.pid


def test_attach_by_name_gives_a_tracee(start: Start, program: Path) -> None:
    """`attach` takes the same names as `open`."""
    child = start(program)
    with procvm.attach(program.name) as tracee:
        assert tracee.pid == child.pid
        with tracee.stopped():
            assert tracee.is_stopped()


@pytest.mark.parametrize("opening", [procvm.open, procvm.attach])
def test_open_by_an_ambiguous_name_lists_the_candidates(
    start: Start, program: Path, opening: Callable[[str], procvm.Process]
) -> None:
    """Two processes of one name: an error with both, each with its comm and command line."""
    pids = sorted(start(program).pid for _ in range(2))
    with pytest.raises(procvm.AmbiguousNameError) as caught:
        opening(program.name)
    error = caught.value
    assert isinstance(error, LookupError)
    assert isinstance(error, procvm.ProcessError)
    assert error.name == program.name
    assert list(error.candidates) == [(pid, program.name[:15], f"{program} 1000") for pid in pids]
    assert all(str(pid) in str(error) for pid in pids)
    back = pickle.loads(pickle.dumps(error))
    assert (back.candidates, back.name, str(back)) == (error.candidates, error.name, str(error))


def test_open_by_name_prefers_a_living_process_to_a_zombie(start: Start, program: Path) -> None:
    """A zombie has a comm; it hides no living process of its name, and alone it has ended."""
    name = program.name[:15]
    zombie, living = start(program), start(program)
    zombie.kill()
    assert eventually(lambda: (procfs.read_stat(zombie.pid) or [b""] * 3)[2] == b"Z")
    with procvm.open(name) as process:
        assert process.pid == living.pid
    living.kill()
    living.wait()
    with pytest.raises(procvm.ProcessExitedError, match="reaped"):
        procvm.open(name)


@pytest.mark.parametrize("name", ["no-such-name-at-all", "1", "a/b", "\udcff", "a\nb"])
def test_open_by_the_name_of_no_process(name: str) -> None:
    """NoSuchProcessError, also where the text is a number: a pid is an int."""
    for opening in (procvm.open, procvm.attach):
        with pytest.raises(procvm.NoSuchProcessError, match="no process is called"):
            opening(name)


def test_open_by_name_never_means_the_tool_itself(program: Path) -> None:
    """A tool whose own comm is the name opens another process or none."""
    code = "import os, procvm\ntry: procvm.open(os.path.basename(os.readlink('/proc/self/exe')))"
    code += "\nexcept procvm.NoSuchProcessError: print('none')\n"
    python = program.with_name(f"python-{os.getpid()}")
    shutil.copy(os.path.realpath(sys.executable), python)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    env["PYTHONHOME"] = sys.base_prefix
    found = subprocess.run([python, "-c", code], env=env, capture_output=True, check=False)
    assert (found.stdout, found.stderr) == (b"none\n", b"")


def test_open_by_the_name_of_the_interpreter_never_means_the_tracer(
    start: Start, program: Path
) -> None:
    """The tracer and its watchdog run the tool's interpreter, and the name means the tool alone."""
    python = program.with_name(f"py-{os.getpid()}")
    python.symlink_to(os.path.realpath(sys.executable))
    code = (
        "import sys, procvm\n"
        "with procvm.attach(int(sys.argv[1]), timeout=600):\n"
        "    print(end='+', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    child = start(program)
    with subprocess.Popen(
        [python, "-c", code, str(child.pid)],
        env=env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as tool:
        assert tool.stdout is not None
        assert tool.stdout.read(1) == b"+"
        with procvm.open(python.name) as process:
            assert process.pid == tool.pid
        helpers = [
            named
            for named in processes()
            if named.comm == b"procvm-tracer" and named.program == os.fsencode(python.name)
        ]
        assert len(helpers) >= 2
        tool.communicate()


@pytest.mark.parametrize("wrong", [b"sleep", 1.5, None, True, ["sleep"]])
def test_open_refuses_what_is_neither_a_pid_nor_a_name(wrong: object) -> None:
    """TypeError; an empty name is a ValueError."""
    for opening in (procvm.open, procvm.attach):
        with pytest.raises(TypeError, match="pid must be an int"):
            opening(wrong)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="empty"):
            opening("")


THREADS = """
import threading, os
def sleeper():
    os.write(1, b"%d %d\\n" % (threading.get_native_id(), threading.get_ident()))
    os.read(0, 1)
for _ in range(3):
    threading.Thread(target=sleeper, daemon=True).start()
os.read(0, 1)
"""


def test_threads_of_a_process_tell_their_stacks() -> None:
    """Each thread that sleeps has the mapping of its own stack; the leader has [stack]."""
    with subprocess.Popen(
        [sys.executable, "-c", THREADS], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        # A pthread_t is an address in the mapping of the thread's stack, with glibc and musl.
        lines = [child.stdout.readline().split() for _ in range(3)]
        handles = {int(tid): int(handle) for tid, handle in lines}
        with procvm.open(child.pid) as process:
            assert eventually(
                lambda: all(each.stack and each.state == "S" for each in process.threads())
            )
            found = process.threads()
            (stack,) = process.maps().filter(name=b"[stack]")
            assert [each.tid for each in found] == sorted({child.pid, *handles})
            assert {each.state for each in found} == {"S"}
            comm = Path(f"/proc/{child.pid}/comm").read_bytes().strip()
            assert found[0].name == comm
            for each in found:
                assert each.stack is not None
                if each.tid == child.pid:
                    assert each.stack == (stack.start, stack.end)
                else:
                    assert each.stack[0] <= handles[each.tid] < each.stack[1]
        child.kill()


def test_threads_of_a_process_that_ended_raise() -> None:
    """ProcessExitedError after its end, ClosedError after `close`."""
    with subprocess.Popen(["sleep", "1000"]) as child:
        process = procvm.open(child.pid)
        child.kill()
    with pytest.raises(procvm.ProcessExitedError):
        process.threads()
    process.close()
    with pytest.raises(procvm.ClosedError):
        process.threads()


def test_operations_without_free_descriptors_say_so_and_never_that_the_target_ended(
    process: procvm.Process, playground: Playground
) -> None:
    """Each open that fails is one of ours with the cause, at whichever call of an operation."""
    data = pickle.dumps(process.vm)
    address = playground.layout("rw")
    operations: dict[str, Callable[[procvm.Process], object]] = {
        "open": lambda p: procvm.open(p.pid).close(),
        "pickle": lambda p: _closed_after(p.pid, lambda q: pickle.dumps(q.vm)),
        "open by name": lambda _: procvm.open("no such name"),
        "threads": lambda p: p.threads(),
        "snapshot": lambda p: p.snapshot().close(),
        "search": lambda p: list(p.vm.search(b"no such bytes")),
        "explain": lambda p: procvm.explain(p.pid),
        "modules": lambda p: _closed_after(p.pid, lambda q: q.modules()),
        "trace": lambda p: p.trace_accesses(address & ~7, procvm.u64).close(),
    }
    for operation in operations.values():  # what it imports is open no more
        with contextlib.suppress(procvm.ProcvmError):
            operation(process)
    failures = Counter(
        name
        for name, operation in operations.items()
        for free in range(8)
        if not _works_with(free, lambda operation=operation: operation(process))  # type: ignore[misc]
    )
    assert failures.keys() == operations.keys()
    tool = subprocess.run(
        [sys.executable, "-c", _UNPICKLES, data.hex(), str(address)],
        check=True,
        capture_output=True,
        text=True,
    )
    assert set(tool.stdout.split()) == {"VmError", "read"}


_UNPICKLES = """
import os, pickle, resource, sys
import procvm
pickle.loads(bytes.fromhex(sys.argv[1]))  # imports what it takes
procvm.VmError
for free in range(8):
    if os.fork():
        os.wait()
        continue
    # Numbers of descriptors that are closed count as free, so there is none below the limit.
    resource.setrlimit(resource.RLIMIT_NOFILE, (3 + free, 1000))
    os.closerange(3, 100)
    try:
        pickle.loads(bytes.fromhex(sys.argv[1])).read_bytes(int(sys.argv[2]), 1)
        print("read", flush=True)
    except procvm.ProcvmError as error:
        print(type(error).__name__, flush=True)
    os._exit(0)
"""


def _closed_after(pid: int, use: Callable[[procvm.Process], object]) -> None:
    with procvm.open(pid) as process:
        use(process)


def _works_with(free: int, operation: Callable[[], object]) -> bool:
    """Returns whether an operation works with that many free descriptors, or says that it lacks."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(map(int, os.listdir("/proc/self/fd")))
    fill = [os.open("/dev/null", os.O_RDONLY)]
    while fill[-1] < highest:
        fill.append(os.open("/dev/null", os.O_RDONLY))
    resource.setrlimit(resource.RLIMIT_NOFILE, (fill[-1] + 1 + free, limits[1]))
    try:
        operation()
    except procvm.NoSuchProcessError:
        return True  # the name that is looked for
    except procvm.VmError as error:
        if "open files" not in str(error) and "descriptors" not in str(error):
            raise
        return False
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for fd in fill:
            os.close(fd)
    return True
