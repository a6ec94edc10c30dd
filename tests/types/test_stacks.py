"""Stacks of all threads, judged by gdb; live, held, of a snapshot and of a core file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import procvm
from procvm import NoSuchProcessError, NotStoppedError, NotTracedError, u64
from tests.elf.cores import GDB, gcore
from tests.support.child import Child
from tests.types.programs import gdb_stacks, shown, typed

needs_gdb = pytest.mark.skipif(GDB is None, reason="not installed: gdb")


@pytest.fixture(scope="module")
def child() -> Iterator[Child]:
    with typed("-g") as child:
        yield child


def plain(frames: list[tuple[str, str]]) -> list[str]:
    """Returns the names of functions without the prefixes that libc's aliases have."""
    return [name.lstrip("_").removeprefix("GI_").lstrip("_") for name, _ in frames]


@needs_gdb
def test_stacks_of_all_threads_are_those_of_gdb(child: Child) -> None:
    """Function, file and line of each frame of each thread."""
    said = gdb_stacks(child.pid)
    with procvm.attach(child.pid) as tracee:
        found = tracee.stacks()
        assert not tracee.is_stopped()
        assert found.stopped_s > 0
    assert found.keys() == said.keys()
    assert len(found) == 4
    for tid, frames in found.items():
        mine = [one for one in shown(frames) if one[1].startswith("typed.c")]
        assert mine == [one for one in said[tid] if one[1].startswith("typed.c")], tid
        assert len(mine) >= 2
        # Both take one of several names of a function of libc; gdb ends at main.
        assert plain(shown(frames))[: len(said[tid])] == plain(said[tid])


def test_stack_is_the_same_live_held_in_a_snapshot_and_in_a_core(
    child: Child, tmp_path: Path
) -> None:
    """The threads all wait, so each way gives the same lines, and the same values."""
    path = tmp_path / "core"
    with procvm.attach(child.pid) as tracee:
        live = {tid: list(map(str, frames)) for tid, frames in tracee.stacks().items()}
        with tracee.stopped():
            held = {tid: list(map(str, frames)) for tid, frames in tracee.stacks().items()}
            tid = tracee.threads()[1].tid
            assert list(map(str, tracee.stack(tid))) == live[tid]
        snapshot = tracee.snapshot()
        tracee.save(path)
        expected = tracee.value("g_list->next->at.x"), tracee.value("g_second.flags")
    assert live == held
    assert any("wait_here at" in line for line in live[child.pid])
    with snapshot, procvm.open_core(path) as core:
        for saved in (snapshot, core):
            again = {tid: list(map(str, frames)) for tid, frames in saved.stacks().items()}
            assert again == live
            assert list(map(str, saved.stack())) == live[child.pid]
            found = saved.value("g_list->next->at.x"), saved.value("g_second.flags")
            assert (found[0], bytes(found[1])) == (expected[0], bytes(expected[1]))
            assert saved.drgn()["g_list"].next.id.value_() == 20
            assert saved.variable("g_second").colour.name == "BLUE"


@needs_gdb
def test_stack_of_a_core_of_gdb_is_that_of_the_process(child: Child, tmp_path: Path) -> None:
    """The file of gcore has the registers of each thread, and leaves out the pages of files."""
    path = gcore(child.pid, tmp_path / "core")
    with procvm.attach(child.pid) as tracee:
        live = {tid: list(map(str, frames)) for tid, frames in tracee.stacks().items()}
    with procvm.open_core(path) as core:
        saved = {tid: list(map(str, frames)) for tid, frames in core.stacks().items()}
        assert saved == live
        assert core.value("g_list->next->at.x") == 3.5


def test_frame_has_the_values_of_its_arguments_and_variables(child: Child) -> None:
    """At the time of the stop, by name; those that the compiler dropped are None."""
    with procvm.attach(child.pid) as tracee:
        for frames in tracee.stacks().values():
            depths = [one.locals()["depth"] for one in frames if one.function == "wait_here"]
            assert len(depths) >= 1
            assert all(depth is None or depth == k for k, depth in enumerate(depths))
        main = next(one for one in tracee.stack() if one.function == "main")
        here = main.locals()["here"]
        assert (here.x, here.y) == (1.25, 2.5)
        assert main.module is not None
        assert main.module.startswith("typed")
        assert main.address in tracee.modules()[main.module]
        assert main.file is not None
        assert Path(main.file).name == "typed.c"
        text = Path(main.file).read_text().splitlines()
        assert main.line is not None
        assert "wait_here(0, g_list)" in text[main.line - 1]


def test_stack_of_a_program_without_debug_information_has_names_of_symbols() -> None:
    """CFI alone unwinds; functions are those of the symbol table, without files."""
    with typed() as child, procvm.attach(child.pid) as tracee:
        frames = tracee.stack()
        names = [one.function for one in frames]
        assert "wait_here" in names
        assert names[names.index("wait_here") + 1] == "main"
        mine = next(one for one in frames if one.function == "wait_here")
        assert (mine.file, mine.line, mine.locals()) == (None, None, {})


def test_stack_of_a_process_that_runs_is_refused(child: Child, tmp_path: Path) -> None:
    """With the way out; a snapshot of it has no registers, and a thread must exist."""
    with procvm.open(child.pid) as process:
        for ask in (process.stack, process.stacks):
            with pytest.raises(NotTracedError, match=r"procvm.attach\(pid\)"):
                ask()
        with process.snapshot() as snapshot, pytest.raises(NotStoppedError):
            snapshot.stack()
    with procvm.attach(child.pid) as tracee:
        with pytest.raises(NoSuchProcessError):
            tracee.stack(1)
        with pytest.raises(TypeError):
            tracee.stack("1")  # type: ignore[arg-type]
        assert not tracee.is_stopped()


def test_stack_of_a_hit_is_that_of_its_caller() -> None:
    """`Access.stack` unwinds the registers and the stack that came with a hit."""
    with typed("-g") as child, procvm.open(child.pid) as process:
        try:
            trace = process.trace_accesses(
                process.symbol("g_notes"), u64, registers=True, stack_len=4096
            )
        except (procvm.AccessDeniedError, procvm.UnsupportedError) as error:
            pytest.skip(str(error))
        with trace:
            child.send("")
            hit = trace.read()[0]
            frames = hit.stack()
        names = [one.function for one in frames]
        assert names[:2] == ["note", "wait_here"]
        assert names[-1] in ("_start", "__clone3", "clone3", "__clone")
        assert frames[0].address == hit.ip
        assert frames[1].locals()["which"] == process.symbol("g_second") or hit.tid == child.pid
        with process.trace_accesses(process.symbol("g_notes"), u64) as bare:
            child.send("")
            with pytest.raises(ValueError, match="registers=True"):
                bare.read()[0].stack()
