"""Accesses while the address space changes.

A race counts what it really met and fails if that is too little.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

import procvm
from procvm import PageFaultError, VmReader, VmReaderArray, VmWriter, u64
from tests.faults.accesses import Accesses
from tests.faults.races import TAG, Addresses, Backend, exec_race
from tests.faults.subjects import (
    NOBODY,
    PROC_READ_ONLY,
    Subject,
    as_root,
    in_mounts,
    needs,
    public,
    run_as,
)
from tests.faults.tools import GatedTool, Refusal, Tool
from tests.support.build import compiled
from tests.support.child import Child
from tests.support.playground import PAGE, Playground, pattern
from tests.support.procfs import assert_unharmed

BACKENDS: list[Backend] = ["auto", "mem"]
STATIC = ("-static", "-no-pie")


MANY = 150
"""How much of each kind a race is to meet, however long it takes."""


# Mappings that change during a transfer


class Storm(Child):
    """tests/support/targets/storm.c, whose region begins at `base`."""

    def __init__(self, mode: str) -> None:
        super().__init__([compiled("storm"), mode])
        self.base, nr_pages = self.hexes()
        self.n = int(f"{nr_pages:x}") * PAGE  # the second number is decimal

    def begin(self) -> None:
        assert self.ask("begin") == "ok"

    def rounds(self, seen: Counter[str], *kinds: str) -> Iterator[int]:
        """Counts until enough of all kinds was seen, and of changes that the storm made."""
        for k in range(1, 5_000_000):
            enough = k % 64 == 0 and min(seen[kind] for kind in kinds) >= MANY
            if enough and int(self.ask("count")) >= MANY:
                return
            yield k
        raise AssertionError(f"only {seen} were met")

    def end(self) -> tuple[int, int]:
        """Returns the changes that were made, and the pages that somebody wrote who may not."""
        assert_unharmed(self.pid)
        word, cycles, touched = self.ask("end").split()
        assert word == "stopped"
        return int(cycles), int(touched)


def _assert_at_a_page_edge(
    error: PageFaultError, start: int, end: int, starts: Sequence[int] = ()
) -> None:
    """A fault is at the beginning of a page, or of an access: of the whole, of a range of many."""
    assert error.address == start + error.copied_len
    assert start <= error.address < end
    assert error.address in (start, *starts) or error.address % PAGE == 0


def has_gap(backend: Backend, mode: str) -> bool:
    """Whether a page may slip through that was readable before and after it was read, not then.

    docs/architecture.md says why; where the tool is kept waiting in between it is seen.
    """
    return backend == "mem" and mode == "poison"


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("mode", ["protect", "unmap", "poison"])
def test_a_read_in_a_storm_is_whole_or_ends_at_a_page_edge(mode: str, backend: Backend) -> None:
    """Every byte that counts is one the target could read, and the count is exact."""
    with Storm(mode) as storm, procvm.open(storm.pid, backend=backend) as process:
        base, n = storm.base, storm.n
        expected = pattern(base, n)
        buffer = bytearray(n)
        seen = Counter[str]()
        k = slipped = 0
        storm.begin()
        for k in storm.rounds(seen, "whole", "faults"):
            start = k * 1009 % (n - 8)
            end = n if k % 2 else min(n, start + 8 + k % (2 * PAGE))
            view = memoryview(buffer)[start:end]
            starts = range(base + start, base + start + 9) if k % 3 == 0 else ()
            try:
                if not starts:
                    process.vm.read_into(base + start, view)
                else:
                    readers = [process.vm.reader(at, 1) for at in starts[:-1]]
                    readers.append(process.vm.reader(starts[-1], end - start - 8))
                    VmReaderArray(readers).read(VmWriter.from_buffer(view))
            except PageFaultError as error:
                _assert_at_a_page_edge(error, base + start, base + end, starts)
                good = error.copied_len
                seen["faults"] += 1
            else:
                good = end - start
                seen["whole"] += 1
            slipped += view[:good] != expected[start : start + good]
            view.release()
        storm.end()
    assert slipped * 100 <= (k if has_gap(backend, mode) else 0), f"{slipped} of {k}"


@pytest.mark.parametrize("mode", ["protect", "unmap", "poison"])
def test_a_write_in_a_storm_is_whole_or_ends_at_a_page_edge(mode: str) -> None:
    """A write is whole, or a fault at a page edge with the exact count."""
    with Storm(mode) as storm, procvm.open(storm.pid) as process:
        base, n = storm.base, storm.n
        data = pattern(base, n)
        seen = Counter[str]()
        storm.begin()
        for k in storm.rounds(seen, "whole", "faults"):
            start = k * 1009 % (n - 8)
            end = n if k % 2 else min(n, start + 8 + k % (2 * PAGE))
            try:
                if k % 3:
                    process.vm.write_bytes(base + start, memoryview(data)[start:end])
                else:
                    reader = VmReader.from_buffer(data).skip(start).limit(end - start)
                    process.vm.writer(base + start, end - start).write_fallible(reader)
            except PageFaultError as error:
                _assert_at_a_page_edge(error, base + start, base + end)
                seen["faults"] += 1
            else:
                seen["whole"] += 1
        storm.end()
        if mode != "poison":
            assert process.vm.read_bytes(base, n) == data


def test_a_write_in_a_storm_seldom_reaches_a_page_that_has_just_turned_read_only() -> None:
    """Of pages that turn read-only all the time, few are written: one in thirty at most.

    A write looks the page up and then writes it by a descriptor that can reach no other program;
    a page that changes within the microsecond between the two is written. docs/architecture.md
    says why that was chosen, and not a write by number that an exec could turn elsewhere.
    """
    with Storm("poison") as storm, procvm.open(storm.pid) as process:
        base, n = storm.base, storm.n
        data = pattern(base, n)
        faults = 0
        storm.begin()
        for k in range(5_000_000):
            if k >= 50_000 and faults >= 100:
                break
            at = k * 1009 % (n - 64)
            try:
                process.vm.write_bytes(base + at, memoryview(data)[at : at + 64])
            except PageFaultError:
                faults += 1
        cycles, touched = storm.end()
    assert faults >= 100, f"{faults} faults"
    # One in a thousand where nothing else runs; more where the tool is kept waiting in between.
    assert touched * 30 <= cycles + 300, f"{touched} of {cycles} read-only pages were written"


@pytest.mark.parametrize("backend", BACKENDS)
def test_read_of_a_page_that_is_closed_at_any_system_call_gives_no_byte_of_later(
    playground: Playground, backend: Backend
) -> None:
    """What the target wrote and made inaccessible meanwhile never counts as read."""
    base = playground.layout("rw rw")
    expected = pattern(base, PAGE)
    secret = bytes(byte ^ 0xFF for byte in expected)

    def close() -> None:
        playground.poke(base, secret)
        playground.protect(base, PAGE, "none")

    faults = 0
    with GatedTool() as tool:
        tool.do("open", playground.pid, backend)
        for call in (["read", base, PAGE], ["read_val", base], ["gather", [(base, 8)]]):
            for n in range(1, MOST_CALLS):
                playground.protect(base, PAGE, "rw")
                playground.clear(base, PAGE)
                held, answer = tool.held_at(n, close, *call)
                if not held:
                    break
                if isinstance(answer, Refusal):
                    assert answer.name == "PageFaultError", (call, n, answer)
                    faults += 1
                elif isinstance(answer, int):
                    assert answer == int.from_bytes(expected[:8], "little"), (call, n)
                else:
                    assert bytes.fromhex(answer) in (expected, expected[:8]), (call, n)
        tool.do("close")
    assert faults >= 3


@pytest.mark.parametrize("backend", BACKENDS)
def test_small_values_in_a_storm(backend: Backend) -> None:
    """One value is right or a fault; a cursor stands still after the fault."""
    with Storm("poison") as storm, procvm.open(storm.pid, backend=backend) as process:
        base, n = storm.base, storm.n
        expected = pattern(base, n)
        seen = Counter[str]()
        k = slipped = 0
        storm.begin()
        for k in storm.rounds(seen, "right", "faults"):
            at = k * 1013 % (n - 8)
            reader = process.vm.reader(base + at, 8)
            try:
                value = reader.read_val(u64)
            except PageFaultError as error:
                _assert_at_a_page_edge(error, base + at, base + at + 8)
                assert reader.cursor() == base + at
                seen["faults"] += 1
            else:
                slipped += value.to_bytes(8, "little") != expected[at : at + 8]
                seen["right"] += 1
        storm.end()
    assert slipped * 100 <= (k if has_gap(backend, "poison") else 0), f"{slipped} of {k}"


# Listings of mappings that change


def test_maps_are_sorted_and_disjoint_under_churn() -> None:
    """Every listing is sorted and disjoint, and has the mappings that never changed."""
    with Storm("churn") as storm, procvm.open(storm.pid) as process:
        still = [v for v in process.maps() if not storm.base <= v.start < storm.base + storm.n]
        still = [v for v in still if v.name]  # its stack, its program, its libraries
        assert len(still) > 5
        seen = Counter[str]()
        before: list[procvm.Vma] = []
        storm.begin()
        for _ in storm.rounds(seen, "changed"):
            maps = list(process.maps())
            ends = [0] + [v.end for v in maps[:-1]]
            assert all(end <= v.start < v.end for end, v in zip(ends, maps, strict=True))
            assert [v for v in maps if v.name] == still
            seen["changed"] += maps != before
            before = maps
        storm.end()


def test_a_mapping_is_found_under_churn() -> None:
    """The mapping of one address holds it, or there is none; what is still is found."""
    with Storm("churn") as storm, procvm.open(storm.pid) as process:
        code = process.maps().filter(perms="x")[0]
        seen = Counter[str]()
        storm.begin()
        for k in storm.rounds(seen, "found", "missing"):
            address = storm.base + k * 7919 % storm.n
            vma = process.find_vma(address)
            if vma is None:
                seen["missing"] += 1
            else:
                assert vma.start <= address < vma.end
                seen["found"] += 1
            assert process.find_vma(code.start) == code
        storm.end()


# An exec between two accesses


class Execer(Child):
    """tests/support/targets/execer.c at its fixed addresses, which runs itself again at a line."""

    def __init__(self, who: str, step: str, prefix: Sequence[str] = (), program: str = "") -> None:
        program = program or compiled("execer", *STATIC)
        super().__init__([*prefix, "setarch", "-R", program, who, step, "00000001"])
        self.at = Addresses(0, 0)
        self.image_is_new()

    def image_is_new(self) -> None:
        """Waits for the next image, which says that nobody touched it."""
        words = self.line().split()
        assert words[0] == "ready", words
        at = Addresses(*(int(word, 16) for word in words[1:4]))
        assert self.at in (Addresses(0, 0), at), "not the addresses of the image before"
        self.at = at
        assert words[4] == "ok", "the new image was written"

    def run_again(self) -> None:
        self.send("again")
        self.image_is_new()


@needs("setarch")
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("who", ["main", "thread"])
def test_after_an_exec_nothing_goes_to_the_new_image(who: str, backend: Backend) -> None:
    """After an exec, by the leader or another thread, every access says so and no more."""
    with Execer(who, "step") as target, procvm.open(target.pid, backend=backend) as process:
        accesses = Accesses(process, target.at.words)
        accesses.assert_all_work()
        assert process.vm.read_val(target.at.number, u64) == 1
        for _ in range(3):
            target.run_again()
            accesses.assert_all_raise(procvm.ProcessExecedError)
            Accesses(process, target.at.words).assert_all_raise(procvm.ProcessExecedError)
            assert process.is_alive()
        with procvm.open(target.pid, backend=backend) as again:
            assert again.vm.read_val(target.at.number, u64) == 4
            Accesses(again, target.at.words).assert_all_work()
            target.run_again()
            Accesses(again, target.at.words).assert_all_raise(procvm.ProcessExecedError)
        with pytest.raises(procvm.ProcessExecedError) as caught:
            process.vm.read_bytes(target.at.words, 8)
        assert caught.value.pid == target.pid
        assert_unharmed(target.pid)


@needs("setarch")
@pytest.mark.parametrize("backend", BACKENDS)
def test_an_exec_that_was_never_read_before(backend: Backend) -> None:
    """The first access of all comes after the exec: it is refused too."""
    with Execer("main", "step") as target:
        with procvm.open(target.pid, backend=backend) as process:
            target.run_again()
            with pytest.raises(procvm.ProcessExecedError):
                process.vm.write_val(target.at.box, u64, 1)
        with procvm.open(target.pid) as process:
            target.run_again()
            with pytest.raises(procvm.ProcessExecedError):
                process.vm.fill_zeros(target.at.box, 8)
        with procvm.open(target.pid) as process:
            target.run_again()
            with pytest.raises(procvm.ProcessExecedError):
                process.maps()
        target.run_again()


def _assert_raced(target: Execer) -> None:
    assert target.popen.stdin is not None
    target.popen.stdin.close()
    assert target.line().split()[0] == "end", "an image was written that was not opened"


NR_EXECS = 60
"""How many images a race is to access until their exec."""


@contextmanager
def _racing(who: str) -> Iterator[Execer]:
    with Execer(who, "run") as target:
        target.send("go")
        yield target


@needs("setarch")
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("who", ["main", "thread"])
def test_execs_at_full_speed(who: str, backend: Backend) -> None:
    """Not one byte of another image is read or written while the target execs in a loop."""
    with _racing(who) as target:
        exec_race(target.pid, target.at, NR_EXECS, backend, forced_too=True)
        _assert_raced(target)


@as_root
@needs("setarch", "unshare")
def test_execs_at_full_speed_where_proc_is_read_only() -> None:
    """The same where /proc is read-only, so that writes can not go by /proc/PID/mem."""
    with Tool(*in_mounts(PROC_READ_ONLY)) as tool, _racing("main") as target:
        tool.do("race_execs", target.pid, target.at, NR_EXECS, "auto")
        _assert_raced(target)


MOST_CALLS = 60


def _assert_told(answer: Refusal, case: object, *, writing: bool, read_only: bool) -> None:
    """It is told that the target execed, or that it could not be written anyway."""
    if writing and read_only and "read-only" in answer.text:
        assert answer.name == "AccessDeniedError", case
    else:
        assert answer.name == "ProcessExecedError", case
    assert answer.copied_len == 0 or writing, case


def _exec_at_every_call(
    tool: GatedTool, backend: Backend, operation: str, *, read_only: bool = False
) -> int:
    """Has the target exec at each system call of an operation; returns how many there were."""
    writing = operation in ("write", "write_val", "fill")
    with Execer("main", "step") as target:
        generation = 1
        for n in range(1, MOST_CALLS):
            box, word = target.at.box, target.at.number
            calls: dict[str, list[object]] = {
                "write": ["write", box, "00" * 8],
                "write_val": ["write_val", box, 0],
                "fill": ["fill", box, 8],
                "read": ["read", word, 8],
                "read_val": ["read_val", word],
                "cstring": ["cstring", word, 2],
                "gather": ["gather", [(word, 8)]],
                "open": ["open", target.pid, backend],
                "maps": ["maps"],
                "find": ["find", word],
            }
            if operation != "open":
                tool.do("open", target.pid, backend)
            held, answer = tool.held_at(n, target.run_again, *calls[operation])
            if not held:
                return n - 1
            case = operation, n, answer
            generation += 1
            if isinstance(answer, Refusal):
                _assert_told(answer, case, writing=writing, read_only=read_only)
            if operation == "open" and not isinstance(answer, Refusal):
                # It is one of the two images, and stays it.
                later = tool.answer("read_val", word)
                if isinstance(later, Refusal):
                    assert later.name == "ProcessExecedError", (case, later)
                else:
                    assert later == generation, case
                    tool.do("write_val", target.at.words, generation)
            elif operation != "open":
                # What came is of the old image; the new one says whether it was written.
                old = (generation - 1).to_bytes(8, "little")
                values = {"read": old.hex(), "read_val": generation - 1, "gather": old.hex()}
                values["cstring"] = old.split(b"\0")[0].hex()
                if not isinstance(answer, Refusal) and operation in values:
                    assert answer == values[operation], case
                later = tool.refused("read_val", word)
                _assert_told(later, case, writing=False, read_only=read_only)
                later = tool.refused("write_val", box, 0)
                _assert_told(later, case, writing=True, read_only=read_only)
            if not (operation == "open" and isinstance(answer, Refusal)):
                tool.do("close")
            target.run_again()  # "bad" here: the image was written
            generation += 1
    raise AssertionError("too many system calls")


@needs("setarch")
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "operation",
    [
        *("open", "read", "read_val", "cstring", "gather"),
        *("write", "write_val", "fill", "maps", "find"),
    ],
)
def test_an_exec_at_every_system_call(operation: str, backend: Backend) -> None:
    """Whatever the tool was about to ask the kernel when the exec came, it is found out."""
    with GatedTool() as tool:
        assert _exec_at_every_call(tool, backend, operation) >= 1


@as_root
@needs("setarch", "unshare")
@pytest.mark.parametrize("operation", ["read", "write", "write_val", "fill"])
def test_an_exec_at_every_system_call_where_proc_is_read_only(operation: str) -> None:
    """The same where writes can not go by /proc/PID/mem."""
    with GatedTool(*in_mounts(PROC_READ_ONLY)) as tool:
        nr = _exec_at_every_call(tool, "auto", operation, read_only=True)
        assert nr >= 1 or operation != "read"


@contextmanager
def _sharer(target: Subject) -> Iterator[int]:
    """Gives a process that shares the memory of a target, and ends it whatever comes."""
    pid = int(target.ask("share"))
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_exec_is_told_though_another_process_keeps_the_old_memory(backend: Backend) -> None:
    """The process runs another program, though one that shared its memory still has it."""
    with (
        Subject() as target,
        _sharer(target),
        procvm.open(target.pid, backend=backend) as process,
    ):
        accesses = Accesses(process, target.address)
        accesses.assert_all_work()
        target.send(f"exec {compiled('subject')}")
        target.hexes()
        accesses.assert_all_raise(procvm.ProcessExecedError)
        assert process.is_alive()


@as_root
@needs("setarch", "setpriv")
@pytest.mark.parametrize("backend", BACKENDS)
def test_an_exec_of_a_set_uid_program(backend: Backend) -> None:
    """After an exec of a set-uid program the tool of root is told of the exec."""
    program = public("subject")
    set_uid = public("subject", mode=0o4755)
    with Subject(prefix=run_as(NOBODY), program=program) as target:
        with procvm.open(target.pid, backend=backend) as process:
            accesses = Accesses(process, target.address)
            target.send(f"exec {set_uid}")
            target.hexes()
            accesses.assert_all_raise(procvm.ProcessExecedError)
        assert Path(f"/proc/{target.pid}/status").read_text().count(f"Uid:\t{NOBODY}\t0\t") == 1


@as_root
@needs("setpriv")
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("owner", [0, 1])
def test_an_exec_of_a_set_uid_program_by_a_user_like_the_tool(owner: int, backend: Backend) -> None:
    """A tool without rights over the new program never reaches it, and is told why."""
    program = public("subject")
    set_uid = public("subject", owner=owner, mode=0o4755)
    with Subject(prefix=run_as(NOBODY), program=program) as target, Tool(*run_as(NOBODY)) as tool:
        tool.do("open", target.pid, backend)
        assert tool.do("read", target.address, 8) == pattern(target.address, 8).hex()
        tool.do("write_val", target.address + 64, TAG)
        target.send(f"exec {set_uid}")
        (address,) = target.hexes()
        for call in (
            ["read", target.address, 8],
            ["read", address, 8],
            ["read_val", address],
            ["write", address, "00"],
            ["write_val", address, 0],
            ["fill", address, 8],
            ["cstring", address, 8],
            ["gather", [(address, 8)]],
            ["maps"],
            ["find", address],
        ):
            refusal = tool.refused(*call)
            assert refusal.name == "ProcessExecedError", (call, refusal.text)
            assert refusal.copied_len == 0
        assert target.ask(f"word {address:x}") == pattern(address, 8)[::-1].hex()
        assert tool.refused("open", target.pid).name == "AccessDeniedError"


def test_an_exec_to_another_program_and_its_end() -> None:
    """An exec is told as an exec while the new program runs, and as an end after it."""
    with subprocess.Popen(
        ["sh", "-c", 'echo old; read x; exec sh -c "echo new; read x"'],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.readline() == b"old\n"
        with procvm.open(child.pid) as process:
            text = process.maps()[0].start
            assert process.vm.read_bytes(text, 4) == b"\x7fELF"
            child.stdin.write(b"\n")
            child.stdin.flush()
            assert child.stdout.readline() == b"new\n"
            with pytest.raises(procvm.ProcessExecedError):
                process.vm.read_bytes(text, 4)
            child.stdin.close()
            assert process.wait() == child.wait()
            with pytest.raises(procvm.ProcessExitedError):
                process.vm.read_bytes(text, 4)
