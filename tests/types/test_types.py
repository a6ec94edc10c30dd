"""Types, variables and paths of debug information, judged by gdb and by the program."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import procvm
from procvm import (
    InvalidArgsError,
    NoSuchSymbolError,
    PageFaultError,
    UnsupportedError,
    u64,
)
from procvm._base import optional
from tests.elf.cores import GDB
from tests.support.build import compiled
from tests.support.child import Child
from tests.types.programs import gdb_says, lines, typed

needs_gdb = pytest.mark.skipif(GDB is None, reason="not installed: gdb")


@pytest.fixture(scope="module")
def child() -> Iterator[Child]:
    with typed("-g") as child:
        yield child


@pytest.fixture
def process(child: Child) -> Iterator[procvm.Process]:
    with procvm.open(child.pid) as process:
        yield process


# Types


@needs_gdb
@pytest.mark.parametrize("name", ["struct node", "struct flags", "struct tight", "struct point"])
def test_type_of_a_structure_is_laid_out_as_gdb_says(
    child: Child, process: procvm.Process, name: str
) -> None:
    """Each member begins where gdb prints it, bit fields to the bit, and the sizes agree."""
    pod = process.type(name)
    said = lines(child.pid, f"ptype /o {name}")
    members = {key: one.bit_offset for key, one in pod.ctype._procvm_members_.items()}
    found = 0
    for line in said:
        row = re.match(r"/\* *(\d+)(?:: *(\d+))? +\| .*?(\w+)(?:\[\d+\])*(?: : \d+)?;$", line)
        if row and row[3] in members:
            assert members[row[3]] == 8 * int(row[1]) + int(row[2] or 0), line
            found += 1
    assert found >= 2
    # Structures inside of it have theirs before.
    sizes = [re.search(r"total size \(bytes\): +(\d+)", line) for line in said]
    size = [int(one[1]) for one in sizes if one][-1]
    assert pod.size == size


@needs_gdb
def test_values_are_those_that_gdb_prints(child: Child, process: procvm.Process) -> None:
    """Numbers, floats, enumerators, bit fields, arrays, unions and pointers."""
    paths = {
        "g_list->next->at.x": float,
        "g_second.at.y": float,
        "g_second.id": int,
        "g_second.colour": str,
        "g_second.u.real": float,
        "g_second.u.whole": int,
        "g_second.inner_a": int,
        "g_second.inner_b": int,
        "g_second.flags.ready": int,
        "g_second.flags.delta": int,
        "g_second.flags.wide": int,
        "(int)g_second.flags.after": int,
        "g_second.flags.tint": str,
        "g_second.grid[1][2]": int,
        "(int)g_second.on": int,
        "g_second.big": float,
        "g_tight[1].value": int,
        "g_tight[g_index].end": int,
        "s_counter": int,
    }
    for path, said in zip(paths, gdb_says(child.pid, *paths), strict=True):
        value = process.value(path)
        assert paths[path](value) == paths[path](said), path
    (said,) = gdb_says(child.pid, "(long)&g_tight[2].value")
    assert process.value("&g_tight[2].value") == int(said)
    assert process.address("g_tight[2].value") == int(said)


def test_type_is_accepted_wherever_a_pod_is(process: procvm.Process) -> None:
    """read_val, view, gather, read_slice, read_array, write_val; a copy has the same members."""
    vm, node = process.vm, process.type("struct node")
    first, second = process.symbol("g_first"), process.symbol("g_second")
    copy = vm.read_val(second, node)
    assert (copy.id, copy.name, copy.at.x, copy.u.real) == (20, b"second", 3.5, 1.5)
    assert (copy.colour, copy.colour.name, copy.flags.tint.name) == (-2, "BLUE", "GREEN")
    assert (copy.flags.delta, copy.flags.wide, copy.inner_a) == (-3, 0x123456789A, -7)
    assert [one.id for one in vm.gather([second, first], node)] == [20, 10]
    view = vm.view(first, node)
    assert view.next == second
    assert view.next.deref().id == 20
    assert view.next.deref().flags.wide == copy.flags.wide
    tight = process.type("struct tight")
    values = [one.value for one in vm.read_slice(process.symbol("g_tight"), tight, 3)]
    assert values == [1, 0x1122334455667788, 5]
    assert list(vm.read_array(process.symbol("g_tight"), tight, 3)["value"]) == values
    assert process.type("node_t").ctype is node.ctype
    vm.write_val(second, node, copy)
    assert vm.read_val(second, node) == copy


def test_view_of_a_type_writes_just_the_named_bits() -> None:
    """A member that is written leaves its neighbours, bits included; what does not fit raises."""
    with typed("-g") as child, procvm.open(child.pid) as process:
        second = process.variable("g_second")
        before = process.value("g_second")
        second.flags.delta = 15
        second.flags.wide = 1
        second.colour = 5
        second.name = b"changed"
        second.grid[1][2] = -9
        second.next = 0x1230
        after = process.value("g_second")
        assert (after.flags.delta, after.flags.wide, after.flags.ready) == (15, 1, 1)
        assert (after.flags.after, after.flags.tint) == (200, 5)
        assert (after.colour.name, after.name, after.grid[1][2]) == ("GREEN", b"changed", -9)
        assert (after.next, after.at, after.id) == (0x1230, before.at, before.id)
        for member, value in (("delta", 16), ("delta", -17), ("ready", 2), ("after", 256)):
            with pytest.raises(OverflowError):
                setattr(second.flags, member, value)
        with pytest.raises(AttributeError):
            second.nme = b""
        copy = process.type("struct flags")(ready=1, delta=-16)
        assert (copy.ready, copy.delta, copy.wide) == (1, -16, 0)
        with pytest.raises(AttributeError):
            copy.redy = 1
        assert process.value("g_second").flags.delta == 15


def test_pointer_knows_what_it_points_to(process: procvm.Process) -> None:
    """In a copy by `target`, from memory by `deref`; void and code have no target."""
    copy = process.vm.read_val(process.symbol("g_first"), process.type("struct node"))
    assert copy.next.target is process.type("struct node")
    assert process.vm.read_val(copy.next, copy.next.target).id == 20
    with pytest.raises(TypeError, match="a copy"):
        copy.next.deref()
    assert process.value("g_second.call").target is None
    with pytest.raises(TypeError, match="give a pod"):
        process.value("g_second.call").deref()
    assert process.value("g_second.call") == process.symbol("called")
    assert process.describe(process.value("called")).symbol == "called"
    assert process.vm.read_cstring(process.value("g_second.text")) == b"words"


# Variables


def test_variable_is_a_live_view() -> None:
    """A number by `value`; a structure by members; an array by index; a pointer by deref."""
    with typed("-g") as child, procvm.open(child.pid) as process:
        index = process.variable("g_index")
        assert (index.value, int(index), index.address) == (1, 1, process.symbol("g_index"))
        index.value = 2
        assert process.value("g_index") == 2
        assert process.value("g_tight[g_index].end") == 6
        with pytest.raises(OverflowError):
            index.value = -1
        assert process.variable("g_list").deref().next.deref().id == 20
        assert process.variable("g_tight")[1].end == 3
        assert process.variable("g_list->next->at").y == -4
        assert process.variable("g_first.name").value == b"first"
        with pytest.raises(TypeError, match="not a pointer"):
            index.deref()
        assert process.vm.read_val(process.variable("g_list"), u64) == process.symbol("g_second")
    with pytest.raises(procvm.ProcvmError):
        process.value("g_index")


@pytest.mark.parametrize(
    ("path", "kind", "text"),
    [
        ("nope", NoSuchSymbolError, "no variable 'nope'"),
        ("g_list->nxt", NoSuchSymbolError, "did you mean next"),
        ("t_own", NoSuchSymbolError, "thread-local"),
        ("g_list->next->next->next->id", PageFaultError, "0x0"),
        ("g_list->", InvalidArgsError, "no member follows"),
        ("*s_counter", InvalidArgsError, "not an array or pointer"),
        ("&g_second.flags.delta", InvalidArgsError, "bit field"),
        ("g_list 5", InvalidArgsError, "left over"),
        ("", InvalidArgsError, "ends too early"),
        ("g_tight[1", InvalidArgsError, "ends too early"),
        ("(" * 100 + "g_list", InvalidArgsError, "nested deeper"),
        ("*" * 5000, InvalidArgsError, "too long"),
        ("99999999999999999999999", InvalidArgsError, "64 bits"),
    ],
)
def test_path_that_means_nothing_is_refused(
    process: procvm.Process, path: str, kind: type[Exception], text: str
) -> None:
    """Each with the error of the library that says why, also as a variable."""
    for ask in (process.value, process.variable):
        with pytest.raises(kind, match=re.escape(text)):
            ask(path)


def test_type_that_does_not_exist_is_refused(process: procvm.Process) -> None:
    """No such type, no type at all, and types without values."""
    with pytest.raises(NoSuchSymbolError, match="no type 'struct nope'"):
        process.type("struct nope")
    with pytest.raises(UnsupportedError, match="void"):
        process.type("void")
    with pytest.raises(InvalidArgsError):
        process.type("int (int)")
    with pytest.raises(TypeError):
        process.type(5)  # type: ignore[arg-type]


def test_variable_of_a_library_is_the_copy_of_the_program(process: procvm.Process) -> None:
    """`environ` is declared in libc's units, and lies where the linker says."""
    if "debug information" in str(_error_of(process, "environ")):
        pytest.skip("libc has no debug information here")
    assert process.variable("environ").address == process.symbol("environ")


def _error_of(process: procvm.Process, path: str) -> Exception | None:
    try:
        process.value(path)
    except procvm.ProcvmError as error:
        return error
    return None


def test_program_without_debug_information_is_told_with_the_places() -> None:
    """One line that names the program and where was looked."""
    with typed("-s", "-Wl,--build-id") as child, procvm.open(child.pid) as process:
        build_id = process.modules()[next(iter(process.modules()))].build_id
        assert build_id is not None
        for ask in (process.type, process.variable, process.value):
            with pytest.raises((NoSuchSymbolError, UnsupportedError)) as caught:
                ask("g_list")
            said = str(caught.value)
            assert f"/usr/lib/debug/.build-id/{build_id[:2]}/{build_id[2:]}.debug" in said
            assert "debuginfod_client" in said
            assert "typed" in said
            assert "\n" not in said


def test_missing_drgn_is_named(
    child: Child, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Where it is not installed each entry says what to install, and the rest works."""
    monkeypatch.setitem(sys.modules, "drgn", None)
    optional._module.cache_clear()  # noqa: SLF001 (a cache)
    try:
        with procvm.attach(child.pid) as tracee:
            asks: tuple[Callable[[], object], ...] = (
                lambda: tracee.type("struct node"),
                lambda: tracee.variable("g_list"),
                lambda: tracee.value("g_list"),
                tracee.drgn,
                tracee.stack,
                tracee.stacks,
            )
            for ask in asks:
                with pytest.raises(UnsupportedError, match=r"drgn: pip install 'procvm\[types\]'"):
                    ask()
            assert not tracee.is_stopped()
            with pytest.raises(NoSuchSymbolError):
                tracee.address("g_list->next")
    finally:
        optional._module.cache_clear()  # noqa: SLF001 (a cache)


def test_debug_file_of_the_debuginfod_cache_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that debuginfod downloaded before is found by its build ID; one of another is not."""
    whole = compiled("typed", "-g", "-Wl,--build-id")
    program = tmp_path / "stripped"
    subprocess.run(["strip", "-o", program, whole], check=True)
    monkeypatch.setenv("DEBUGINFOD_CACHE_PATH", str(tmp_path / "cache"))
    with Child([str(program)]) as child:
        child.line()
        with procvm.open(child.pid) as process:
            build_id = process.modules()["stripped"].build_id
            assert build_id is not None
            with pytest.raises((NoSuchSymbolError, UnsupportedError), match="cache"):
                process.type("struct node")
        folder = tmp_path / "cache" / build_id
        folder.mkdir(parents=True)
        shutil.copy("/bin/true", folder / "debuginfo")
        with procvm.open(child.pid) as process, pytest.raises(procvm.ProcvmError):
            process.type("struct node")
        shutil.copy(whole, folder / "debuginfo")
        with procvm.open(child.pid) as process:
            assert process.type("struct node").size == 112
            assert process.value("g_list->next->id") == 20


_CPP = """
#include <cstdio>
#include <string>
#include <unistd.h>
namespace game {
struct Base { int id = 3; virtual ~Base() {} };
class Score : public Base {
public:
    int points = 7; double factor = 1.5; std::string name = "abc"; static int total;
    const int &same = points;
};
int Score::total = 9;
Score score; Score *best = &score;
enum class Kind : unsigned char { A, B = 200 };
Kind kind = Kind::B;
__int128 huge = -5;
float _Complex curve;
}
int main()
{
    char byte;
    puts("ready"); fflush(stdout);
    while (read(0, &byte, 1) > 0) game::score.points++;
    return game::best->points + (int)game::kind + (int)game::huge + (int)__real__ game::curve;
}
"""


@pytest.mark.skipif(shutil.which("g++") is None, reason="not installed: g++")
def test_members_of_cpp_are_found_and_what_drgn_does_not_know_is_refused(tmp_path: Path) -> None:
    """Names with namespaces; a reference, which drgn cannot read, is left out of its class."""
    (tmp_path / "game.cc").write_text(_CPP)
    subprocess.run(["g++", "-g", "-o", tmp_path / "game", tmp_path / "game.cc"], check=True)
    with Child([str(tmp_path / "game")]) as child:
        assert child.line() == "ready"
        with procvm.open(child.pid) as process:
            assert process.value("game::score.points") == 7
            assert process.value("game::best->factor") == 1.5
            assert process.value("game::Score::total") == 9
            assert process.value("game::kind").name == "B"
            assert process.value("game::huge") == -5
            assert process.type("game::Score").size == process.type("class game::Score").size
            score = process.variable("game::best").deref()
            score.points = 8
            assert process.value("game::score").points == 8
            for path in ("game::best->same", "game::curve"):
                with pytest.raises(UnsupportedError, match="drgn does not support"):
                    process.value(path)
