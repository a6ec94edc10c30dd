"""A handle reaches the process that was opened and no other: shared memory, pickles, pools."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal, cast

import pytest

import procvm
from procvm import VmSpace, u64
from procvm._live import identity
from procvm._live.image import Image, open_image
from procvm._live.memory import ProcessMemory
from tests.faults.accesses import Accesses
from tests.support.build import compiled
from tests.support.child import Child
from tests.support.playground import PAGE, Playground

ROOT = Path(__file__).parents[2]
PRISTINE = 0x1122334455667788
BACKENDS: list[Literal["auto", "mem"]] = ["auto", "mem"]

as_root = pytest.mark.root


class Sharer(Child):
    """tests/support/targets/sharer.c: a program, and a child that shares its address space."""

    def __init__(self) -> None:
        super().__init__([compiled("sharer")])
        (self.word,) = self.hexes()

    def assert_pristine(self) -> None:
        """The program's own word was not written."""
        assert int(self.ask("word"), 16) == PRISTINE


# An address space that is shared


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", ["clone", "vfork"])
@pytest.mark.parametrize("used", ["used", "unused"])
@pytest.mark.parametrize(
    ("end", "error"),
    [("end", procvm.ProcessExitedError), ("exec", procvm.ProcessExecedError)],
)
def test_handle_on_a_sharing_child_ends_with_it(
    backend: Literal["auto", "mem"],
    kind: str,
    used: str,
    end: str,
    error: type[procvm.ProcvmError],
) -> None:
    """After the child's end or exec every access is refused; its parent's memory is not written."""
    with Sharer() as parent:
        pid = int(parent.ask(kind))
        with procvm.open(pid, backend=backend) as process:
            page = parent.word - parent.word % 8
            accesses = Accesses(process, page)
            if used == "used":
                assert process.vm.read_val(parent.word, u64) == PRISTINE
                process.vm.write_val(parent.word, u64, 5)
                assert int(parent.ask("word"), 16) == 5
                process.vm.write_val(parent.word, u64, PRISTINE)
            assert parent.ask(end) == "0"
            accesses.assert_all_raise(error)
            with pytest.raises(error), process.patch(parent.word, b"abcd"):
                pass
            with pytest.raises(error):
                process.snapshot()
        parent.assert_pristine()


@pytest.mark.parametrize("backend", BACKENDS)
def test_handle_on_a_parent_that_execs_ends_with_it(backend: Literal["auto", "mem"]) -> None:
    """A child that keeps the old address space does not keep the handle good."""
    with Sharer() as parent:
        parent.ask("clone")
        with procvm.open(parent.pid, backend=backend) as process:
            accesses = Accesses(process, parent.word)
            parent.send("leave")
            (word,) = parent.hexes()
            accesses.assert_all_raise(procvm.ProcessExecedError)
            assert process.is_alive()
        with procvm.open(parent.pid, backend=backend) as process:
            assert process.vm.read_val(word, u64) == PRISTINE


@pytest.mark.parametrize("backend", BACKENDS)
def test_handle_on_a_parent_that_shares_later_ends_with_it(
    backend: Literal["auto", "mem"],
) -> None:
    """A child that was made after the handle was used keeps the old address space."""
    with Sharer() as parent, procvm.open(parent.pid, backend=backend) as process:
        process.vm.write_val(parent.word, u64, PRISTINE)
        accesses = Accesses(process, parent.word)
        parent.ask("clone")
        parent.send("leave")
        parent.hexes()
        # Until the proof is not believed any more that the memory was not shared.
        while process._image.proof_due > time.monotonic():  # noqa: SLF001 (waits until it is due)
            pass
        accesses.assert_all_raise(procvm.ProcessExecedError)


# Pickles


class Reuser(Child):
    """reuser.c: children with the same image and, one after the other, one pid."""

    def __init__(self) -> None:
        super().__init__([compiled("reuser")])
        self.serial, self.box = self.hexes()


def _without_inode(data: bytes) -> bytes:
    """Returns the pickle as a kernel before Linux 6.9 would have made it."""
    vm = cast("VmSpace", pickle.loads(data))
    memory = cast("ProcessMemory", vm.__reduce__()[1][0])
    function, (pickled, forced) = memory.__reduce__()
    old = pickled._replace(identity=pickled.identity._replace(inode=0))
    return pickle.dumps(VmSpace(function(old, forced)))


@as_root
@pytest.mark.parametrize("kernel", ["new", "old"])
@pytest.mark.parametrize("used", [True, False], ids=["used", "unused"])
def test_unpickled_space_of_a_pid_given_again_is_refused(kernel: str, used: bool) -> None:
    """A forked sibling with the same bytes has the pid: nothing of it is read or written."""
    with Reuser() as server:
        pid = int(server.ask("fork"))
        for _ in range(20):
            with procvm.open(pid) as process:
                if kernel == "old":
                    # As `identity_of` does it where the inode tells nothing.
                    while identity._now() <= (identity._start_of(pid) or 0):  # noqa: SLF001 (the clock that it reads)
                        pass
                data = pickle.dumps(process.vm)
                if kernel == "old":
                    data = _without_inode(data)
                # What was used is open, and knows its process by that.
                assert not used or pickle.loads(data).read_val(server.box, u64)
            server.ask("end")
            assert int(server.ask(f"forkas {pid}")) == pid
            vm = pickle.loads(data)
            with pytest.raises(procvm.ProcessExitedError):
                vm.read_val(server.serial, u64)
            with pytest.raises(procvm.ProcessExitedError):
                vm.write_val(server.box, u64, 0)
        assert server.ask("end") == "0"


def test_unpickled_space_whose_pid_is_given_again_as_it_is_opened_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The sibling has the same token: only the second look at the process tells it apart."""
    with Reuser() as server:
        pid = int(server.ask("fork"))
        with procvm.open(pid) as process:
            data = pickle.dumps(process.vm)

        def late(pid: int, *, by_calls: bool) -> Image:
            server.ask("end")
            assert int(server.ask(f"forkas {pid}")) == pid
            return open_image(pid, by_calls=by_calls)

        monkeypatch.setattr("procvm._live.again.open_image", late)
        with pytest.raises(procvm.ProcessExitedError):
            pickle.loads(data).read_val(server.serial, u64)
        assert server.ask("end") == "0"


def test_unpickled_space_of_a_process_that_execs_is_refused() -> None:
    """The pid and the process are the same, the program is not."""
    with Sharer() as target:
        with procvm.open(target.pid) as process:
            data = pickle.dumps(process.vm)
        target.send("leave")
        (word,) = target.hexes()
        with pytest.raises(procvm.ProcessExecedError) as caught:
            pickle.loads(data).read_val(word, u64)
        assert caught.value.pid == target.pid


def test_unpickling_opens_nothing(playground: Playground) -> None:
    """The first access opens the target; a pool of workers does not break by a pickle."""
    start = playground.layout("rw")
    with procvm.open(playground.pid) as process:
        data = pickle.dumps(process.vm)
        forced = pickle.dumps(process.vm.forced())
    before = sorted(os.listdir("/proc/self/fd"))
    vm, forced_vm = pickle.loads(data), pickle.loads(forced)
    again = pickle.loads(pickle.dumps(vm))
    assert str(playground.pid) in repr(vm)
    assert sorted(os.listdir("/proc/self/fd")) == before
    for space in (vm, forced_vm, again, vm.forced()):
        assert space.read_bytes(start, 9) == playground.peek(start, 9)
    playground.popen.kill()
    playground.popen.wait()
    dead = pickle.loads(data)
    for space in (vm, dead):
        with pytest.raises(procvm.ProcessExitedError) as caught:
            space.read_bytes(start, 9)
        assert caught.value.pid == playground.pid


@pytest.mark.parametrize(
    ("field", "value", "error"),
    [
        ("boot", "another", procvm.ProcessExitedError),
        ("namespace", 1, procvm.UnsupportedError),
        ("inode", 1, procvm.ProcessExitedError),
        ("pid", 2**22 + 5, procvm.ProcessExitedError),
    ],
)
def test_unpickled_space_from_elsewhere_is_refused(
    process: procvm.Process, field: str, value: Any, error: type[procvm.ProcvmError]
) -> None:
    """Another boot, another pid namespace, another process: never a read by the number alone."""
    function, (pickled, forced) = process.vm.__reduce__()[1][0].__reduce__()
    other = pickled._replace(identity=pickled.identity._replace(**{field: value}))
    vm = VmSpace(function(other, forced))
    with pytest.raises(error):
        vm.read_bytes(process.maps()[0].start, 8)


def test_process_pickle_says_to_pickle_its_vm(playground: Playground) -> None:
    """A handle has to be closed where it was opened, so it is not copied either."""
    with procvm.open(playground.pid) as process, procvm.attach(playground.pid) as tracee:
        for handle in (process, tracee):
            with pytest.raises(TypeError, match="pickle its vm"):
                pickle.dumps(handle)
            with pytest.raises(TypeError, match="pickle its vm"):
                copy.copy(handle)


# Work in other processes


@pytest.fixture(scope="module")
def pool() -> Iterator[ProcessPoolExecutor]:
    """Two workers that import what they are sent."""
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as executor:
        yield executor


def _read(vm: VmSpace, address: int) -> bytes:
    return vm.read_bytes(address, 8)


def test_search_by_a_pool_of_a_dead_target_fails_alone(pool: ProcessPoolExecutor) -> None:
    """The search of a target that died raises ProcessExitedError; the pool goes on."""
    for turn in range(6):
        with Playground() as dying, Playground() as living:
            where, start = dying.reserve(64 << 20), living.layout("rw")
            living.poke(start + 8, b"needle")
            with procvm.open(dying.pid) as first, procvm.open(living.pid) as second:
                ranges = [(where, where + (64 << 20))]
                found = first.vm.search(b"needle", ranges=ranges, executor=pool)
                data = pickle.dumps(first.vm)
                dying.popen.kill()
                dying.popen.wait()
                work = pool.submit(_read, pickle.loads(data), where)
                with pytest.raises(procvm.ProcessExitedError):
                    list(found) if turn % 2 else work.result()
                hits = second.vm.search(b"needle", ranges=[(start, start + PAGE)], executor=pool)
                assert list(hits) == [start + 8]


# Descriptors


def test_kept_error_of_a_closed_process_keeps_no_descriptor() -> None:
    """Frames of the error have what the access used; the descriptors are closed all the same."""
    errors: list[BaseException] = []
    gc.collect()
    gc.disable()
    try:
        before = sorted(os.listdir("/proc/self/fd"))
        for backend in BACKENDS * 3:
            with Playground() as target, procvm.open(target.pid, backend=backend) as process:
                page = target.layout("rw hole")
                calls = Accesses(process, page).all()
                with pytest.raises(procvm.PageFaultError) as fault:
                    process.vm.read_bytes(page + PAGE, 8)
                errors.append(fault.value)
                target.popen.kill()
                target.popen.wait()
                for call in calls.values():
                    with pytest.raises(procvm.ProcessExitedError) as caught:
                        call()
                    errors.append(caught.value)
                with pytest.raises(procvm.ProcvmError) as refused:
                    procvm.open(target.pid)
                errors.append(refused.value)
        assert sorted(os.listdir("/proc/self/fd")) == before
    finally:
        gc.enable()
    assert len(errors) > 100


INTERRUPTED = """
import gc, os, random, signal, sys, time
import procvm

random.seed(int(sys.argv[2]))
fired = surfaced = 0
swallowed = []

def interrupt(*_):
    global fired
    fired += 1
    raise KeyboardInterrupt

signal.signal(signal.SIGALRM, interrupt)
sys.unraisablehook = swallowed.append
pid = int(sys.argv[1])
with procvm.open(pid) as process:
    at = process.maps().filter(perms="rw")[0].start
gc.collect()
before = len(os.listdir("/proc/self/fd"))
while fired < 150:
    try:
        signal.setitimer(signal.ITIMER_REAL, random.uniform(3e-5, 2e-3))
        while True:
            with procvm.open(pid, backend=random.choice(["auto", "mem"])) as process:
                process.vm.write_val(at, procvm.u64, process.vm.read_val(at, procvm.u64))
                process.find_vma(at)
            procvm.open(pid).vm.read_bytes(at, 8)
            procvm.Segment.alloc(1, shared=True).write_val(0, procvm.u64, 1)
            procvm.Segment.alloc(1, shared=True).close()
    except KeyboardInterrupt:
        surfaced += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
process = None
gc.collect()
left = len(os.listdir("/proc/self/fd")) - before
print(surfaced == fired, len(swallowed), left)
for number in os.listdir("/proc/self/fd") if left else ():
    if os.path.lexists("/proc/self/fd/" + number):
        print(number, os.readlink("/proc/self/fd/" + number), file=sys.stderr)
"""


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_ctrl_c_is_never_swallowed_and_leaves_no_descriptor(
    playground: Playground, seed: int
) -> None:
    """At any moment of an open, an access, a close, and of a handle that is dropped."""
    argv = [sys.executable, "-c", INTERRUPTED, str(playground.pid), str(seed)]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "True 0 0", done.stderr


def test_process_open_at_exit_says_nothing_on_stderr(playground: Playground) -> None:
    """A handle that is alive as the interpreter ends is let go of in silence."""
    code = (
        "import procvm, sys\n"
        "process = procvm.open(int(sys.argv[1]))\n"
        "segment = procvm.Segment.alloc(1, shared=True)\n"
        "sys.kept = [process, segment]\n"
    )
    argv = [sys.executable, "-c", code, str(playground.pid)]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
