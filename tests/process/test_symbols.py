"""Symbols: where they are by the target itself and by pyelftools, also of files that have gone."""

from __future__ import annotations

import contextlib
import functools
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from elftools.elf.elffile import ELFFile
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import procvm
from procvm import NoSuchSymbolError
from procvm._base.text import printable
from procvm._symbols import module_files as modulefiles
from tests.elf.cores import GDB, gdb
from tests.elf.facets import Facets, library, program
from tests.support.build import compiled
from tests.support.playground import PAGE, Playground

ROOT = Path(__file__).parents[2]
as_root = pytest.mark.root
GLOBAL = ("g_counter", "g_words", "g_text", "g_list", "environ", "answer_of", "weak_one", "main")
OWN = (*GLOBAL, "s_bss", "s_data", "hidden")


@pytest.fixture
def facets() -> Iterator[Facets]:
    with Facets() as child:
        yield child


@pytest.fixture
def process(facets: Facets) -> Iterator[procvm.Process]:
    with procvm.open(facets.pid) as opened:
        yield opened


class Named(NamedTuple):
    value: int
    size: int
    kind: str
    bind: str
    hidden: bool
    """Of a version that is not the one to link with."""


def debug_file_of(elf: Any) -> str:
    """Returns the path of the file with the symbols that were stripped off, or nothing."""
    section = elf.get_section_by_name(".note.gnu.build-id")
    if section is None:
        return ""
    (note,) = section.iter_notes()
    build = note["n_desc"]
    path = f"/usr/lib/debug/.build-id/{build[:2]}/{build[2:]}.debug"
    return path if os.path.exists(path) else ""


@functools.cache
def symbols_by_pyelftools(path: str | bytes | Path) -> dict[str, list[Named]]:
    """Returns all that a file defines, by name, from .symtab or else .dynsym."""
    found: dict[str, list[Named]] = {}
    with open(path, "rb") as file:
        elf: Any = ELFFile(file)
        table = elf.get_section_by_name(".symtab")
        debug = table is None and debug_file_of(elf)
        if debug:  # split off as it was stripped
            return symbols_by_pyelftools(debug)
        versions = None
        if table is None:
            table = elf.get_section_by_name(".dynsym")
            versions = elf.get_section_by_name(".gnu.version")
        for k, symbol in enumerate(table.iter_symbols()):
            if symbol["st_shndx"] in ("SHN_UNDEF", "SHN_ABS") or not symbol.name:
                continue
            version = versions.get_symbol(k)["ndx"] if versions is not None else 0
            info = symbol["st_info"]
            named = Named(
                symbol["st_value"],
                symbol["st_size"],
                info["type"],
                info["bind"],
                (isinstance(version, int) and bool(version & 0x8000))
                or ("@" in symbol.name and "@@" not in symbol.name),
            )
            found.setdefault(symbol.name.partition("@")[0], []).append(named)
    return found


def bias_of(process: procvm.Process, path: str | bytes) -> int:
    """Returns what is added to a file's addresses: of its first PT_LOAD, by pyelftools."""
    first = process.maps().filter(name=path)[0]
    with open(path, "rb") as file:
        elf: Any = ELFFile(file)
        head = next(part for part in elf.iter_segments() if part["p_type"] == "PT_LOAD")
        assert first.offset == head["p_offset"] == 0
        return int(first.start - head["p_vaddr"])


def copies_of(process: procvm.Process, path: str) -> dict[str, int]:
    """Returns where a program has its copies of libraries' variables, by pyelftools."""
    with open(path, "rb") as file:
        elf: Any = ELFFile(file)
        table: Any = elf.get_section_by_name(".rela.dyn")
        names: Any = elf.get_section_by_name(".dynsym")
        bias = bias_of(process, path)
        return {
            names.get_symbol(one["r_info_sym"]).name: bias + one["r_offset"]
            for one in table.iter_relocations()
            if one["r_info_type"] == 5  # R_X86_64_COPY
        }


ADDRESSED = ("STT_FUNC", "STT_OBJECT", "STT_NOTYPE", "STT_LOOS")


@pytest.mark.parametrize("of", ["libc.so.6", "program", "ld-linux-x86-64.so.2"])
def test_every_symbol_is_where_pyelftools_says(
    facets: Facets, process: procvm.Process, of: str
) -> None:
    """All functions and objects that have one address, each with the file's load bias."""
    if of == "program":
        of = os.path.basename(program())
    found = process.maps().filter(name=of)
    if not found:
        pytest.skip(f"not loaded here: {of}")
    path = found[0].name.decode()
    bias = bias_of(process, path)
    every = symbols_by_pyelftools(path)
    copied: dict[int, int] = {}
    if of == "libc.so.6":
        copies = copies_of(process, program())
        copied = {every[name][0].value: address for name, address in copies.items()}
        assert facets.at["environ"] in copied.values()
    count = 0
    for name, all_of in every.items():
        kinds = {one.kind for one in all_of}
        usual = [one for one in all_of if not one.hidden] or all_of
        best = next(
            [one for one in usual if one.bind in binds]
            for binds in (("STB_GLOBAL", "STB_LOOS"), ("STB_WEAK",), ("STB_LOCAL",))
            if any(one.bind in binds for one in usual)
        )
        if len({one.value for one in best}) > 1:
            if not kinds <= {"STT_FUNC", "STT_OBJECT", "STT_NOTYPE"}:
                continue
            with pytest.raises(procvm.AmbiguousSymbolError) as caught:
                process.symbol(f"{of}!{name}")
            places = {one.address - bias for one in caught.value.candidates}
            assert places == {one.value for one in best}, name
            for one in caught.value.candidates:
                assert process.symbol(one.name) == one.address
        elif kinds <= {"STT_FUNC", "STT_OBJECT"}:
            there = copied.get(best[0].value, bias + best[0].value)
            assert process.symbol(f"{of}!{name}") == there, name
            count += 1
    assert count > 20


def test_libc_by_the_dynamic_linker_itself(facets: Facets, process: procvm.Process) -> None:
    """600 functions of libc are where dlsym says, versions that nobody links with left aside."""
    path = process.maps().filter(name="libc.so.6")[0].name
    names = [
        name
        for name, all_of in symbols_by_pyelftools(path).items()
        if {one.kind for one in all_of} == {"STT_FUNC"}
    ]
    several = [name for name, all_of in symbols_by_pyelftools(path).items() if len(all_of) > 1]
    picked = set(random.Random(6).sample(names, 600)) | (set(several) & set(names))
    for name in sorted(picked):
        there = facets.number(f"sym {name}")
        if there:
            assert process.symbol(f"libc.so.6!{name}") == there, name


@pytest.mark.parametrize("flags", [(), ("-no-pie",), ("-static-pie",), ("-static",), ("-O0",)])
def test_what_the_program_says_itself(flags: tuple[str, ...]) -> None:
    """Functions, data, .bss, statics and constants of every kind of executable."""
    with Facets(program=program(*flags)) as child, procvm.open(child.pid) as process:
        module = os.path.basename(program(*flags))
        for name in OWN:
            assert process.symbol(f"{module}!{name}") == child.at[name], name
            assert process.symbol(name) == child.at[name], name
            assert process.describe(child.at[name]) == f"{module}!{name}"
            assert process.describe(child.at[name] + 1) == f"{module}!{name}+0x1"
        assert process.vm.read_val(process.symbol("g_counter"), procvm.u64) == 0x1122334455667788


def test_a_variable_of_each_thread_is_refused_with_its_reason(process: procvm.Process) -> None:
    """It has no one address: said so, also with its file named."""
    for name in ("t_own", f"{os.path.basename(program())}!t_own", "libc.so.6!errno"):
        with pytest.raises(NoSuchSymbolError, match="each thread"):
            process.symbol(name)


def test_names_that_there_are_not(process: procvm.Process) -> None:
    """The error has the name, and says which of the two was not found."""
    with pytest.raises(NoSuchSymbolError, match="no symbol 'no_such'") as caught:
        process.symbol("no_such")
    assert caught.value.name == "no_such"
    with pytest.raises(NoSuchSymbolError, match=r"called 'libno\.so' is loaded"):
        process.symbol("libno.so!malloc")
    with pytest.raises(NoSuchSymbolError, match="no symbol 'g_counter' in"):
        process.symbol("libc.so.6!g_counter")
    for name in ("", "!", "libc.so.6!", "!main", "main ", "main\0"):
        with pytest.raises(NoSuchSymbolError):
            process.symbol(name)
    for bad in (7, b"main", None):
        with pytest.raises(TypeError):
            process.symbol(bad)  # type: ignore[arg-type]


@pytest.mark.parametrize("at", ["live", "tracee", "snapshot", "core"])
def test_the_vdso_has_names(facets: Facets, tmp_path: Path, at: str) -> None:
    """The functions of the kernel's own library, which is no file."""
    opened = procvm.attach if at == "tracee" else procvm.open
    with opened(facets.pid) as process:
        subject: Any = process
        if at == "snapshot":
            subject = process.snapshot()
        elif at == "core":
            process.save(tmp_path / "core")
            subject = procvm.open_core(tmp_path / "core")
        address = subject.symbol("[vdso]!__vdso_clock_gettime")
        vdso = process.find_vma(facets.at["vdso"])
        assert vdso is not None
        file: Any = process.vm.open(vdso.start, vdso.end)
        elf: Any = ELFFile(file)
        (symbol,) = elf.get_section_by_name(".dynsym").get_symbol_by_name("__vdso_clock_gettime")
        assert address == vdso.start + symbol["st_value"]
        assert subject.address(subject.describe(address)) == address
        assert subject.describe(address).startswith("[vdso]!")


# Files that are not what they were


def test_a_library_that_comes_and_goes(
    facets: Facets, process: procvm.Process, tmp_path: Path
) -> None:
    """A dlopen makes its names known and dlclose forgets them, each at once."""
    path = library(tmp_path / "libone.so", "one")
    for _ in range(2):
        with pytest.raises(NoSuchSymbolError):
            process.symbol("one_turn")
        handle = facets.open(path)
        for name in ("one_turn", "one_value", "one_room"):
            there = facets.number(f"sym {name} {handle:x}")
            assert process.symbol(name) == process.symbol(f"libone.so!{name}") == there
            assert process.describe(there) == f"libone.so!{name}"
        inside = process.symbol("one_room") + 60_000
        assert process.describe(inside) == "libone.so!one_room+0xea60"
        facets.unload(handle)
        assert process.describe(there) == hex(there)


def test_a_library_that_takes_the_place_of_another(
    facets: Facets, process: procvm.Process, tmp_path: Path
) -> None:
    """What was the .bss of one is that of another: the first one's name is not known any more."""
    one = library(tmp_path / "libone.so", "one")
    two = library(tmp_path / "libtwo.so", "two", value=2)
    handle = facets.open(one)
    old = process.symbol("one_far")
    assert old == facets.number(f"sym one_far {handle:x}")
    facets.unload(handle)
    handle = facets.open(two)
    if facets.number(f"sym two_far {handle:x}") != old:
        pytest.skip("the second was put elsewhere")
    with pytest.raises(NoSuchSymbolError):
        process.symbol("one_far")


def test_the_executable_is_asked_first_and_a_global_name_before_a_weak_one(
    facets: Facets, process: procvm.Process, tmp_path: Path
) -> None:
    """Of a name that several files have the program's is meant; of two in one file the global."""
    facets.open(library(tmp_path / "libone.so", "answer", value=3))
    facets.open(library(tmp_path / "libtwo.so", "g"))
    both = {process.symbol("libone.so!part_common"), process.symbol("libtwo.so!part_common")}
    with pytest.raises(procvm.AmbiguousSymbolError) as caught:
        process.symbol("part_common")
    assert {one.address for one in caught.value.candidates} == both
    assert process.symbol("environ") == facets.at["environ"]
    assert process.symbol("libc.so.6!environ") == facets.at["environ"]


@pytest.mark.parametrize("stripped", [False, True])
def test_of_several_versions_the_one_that_is_linked_with(
    facets: Facets, process: procvm.Process, tmp_path: Path, stripped: bool
) -> None:
    """As dlsym has it, whichever comes first in the file, which differs from name to name."""
    (tmp_path / "map").write_text("V1 { };\nV2 { } V1;\n")
    path = tmp_path / "libturn.so"
    flags = ("-shared", "-fPIC", f"-Wl,--version-script={tmp_path}/map")
    shutil.copy(compiled("versions", *flags), path)
    if stripped:
        subprocess.run(["strip", path], check=True)
    handle = facets.open(path)
    there = {name: facets.number(f"sym {name} {handle:x}") for name in "abcdefgh"}
    assert all(there.values())
    assert {name: process.symbol(f"libturn.so!{name}") for name in there} == there


def copied(path: Path, *tool: str) -> Path:
    """Copies the program, and runs a tool over the copy."""
    shutil.copy(program(), path)
    if tool:
        subprocess.run([*tool, path], check=True)
    return path


def without_sections(path: Path) -> Path:
    """Cuts the section headers off, as strip does of newer binutils."""
    copied(path, "strip")
    data = bytearray(path.read_bytes())
    data[40:48], data[58:64] = bytes(8), bytes(6)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("gone", [False, True])
@pytest.mark.parametrize("how", ["stripped", "no sections"])
def test_a_stripped_program_has_what_the_dynamic_linker_uses(
    tmp_path: Path, how: str, gone: bool
) -> None:
    """Global names are known and statics are not; without sections they are read from memory."""
    path = tmp_path / "prog"
    _ = copied(path, "strip") if how == "stripped" else without_sections(path)
    with Facets(program=path) as child, procvm.open(child.pid) as process:
        if gone:
            path.unlink()
        for name in GLOBAL:
            assert process.symbol(f"prog!{name}") == child.at[name], name
        with pytest.raises(NoSuchSymbolError):
            process.symbol("hidden")
        inside = process.describe(child.at["answer_of"] + 3)
        assert inside == "prog!answer_of+0x3"
        assert process.address(inside) == child.at["answer_of"] + 3


def test_deleted_files_are_still_read(tmp_path: Path) -> None:
    """The program and a library that were deleted while they run, statics too."""
    path = copied(tmp_path / "prog")
    lib = library(tmp_path / "libone.so", "one")
    with Facets(program=path) as child, procvm.open(child.pid) as process:
        child.open(lib)
        path.unlink()
        lib.unlink()
        assert process.maps()[0].deleted
        for name in OWN:
            assert process.symbol(f"prog!{name}") == child.at[name]
        assert process.describe(child.at["hidden"]) == "prog!hidden"
        assert process.symbol("libone.so!one_turn") == child.number("sym one_turn")


def other_program(path: Path) -> Path:
    """Puts a program at a path whose names are elsewhere."""
    path.unlink(missing_ok=True)
    shutil.copy(program("-O0"), path)
    return path


def test_another_file_at_the_path_is_not_used(tmp_path: Path) -> None:
    """A program and a library that were replaced: the names are those of what runs."""
    path, lib = copied(tmp_path / "prog"), library(tmp_path / "libone.so", "one")
    with Facets(program=path) as child, procvm.open(child.pid) as process:
        child.open(lib)
        other_program(path)
        library(lib, "one", pad=1, value=9)
        for name in OWN:
            assert process.symbol(f"prog!{name}") == child.at[name]
        with pytest.raises(NoSuchSymbolError):
            process.symbol("libone.so!one_pad")
        assert process.symbol("one_turn") == child.number("sym one_turn")


def the_past(child: Facets, folder: Path, kind: str) -> procvm.Snapshot:
    """Returns a process as it is, as a snapshot or by way of a core file."""
    with procvm.open(child.pid) as process:
        if kind == "snapshot":
            return process.snapshot()
        process.save(folder / "core")
        return procvm.open_core(folder / "core")


@pytest.mark.parametrize("kind", ["snapshot", "core"])
@pytest.mark.parametrize("file", ["there", "gone", "another inode"])
def test_the_past_has_the_same_names(tmp_path: Path, kind: str, file: str) -> None:
    """After the process has ended; without its file those that the dynamic linker used."""
    path = copied(tmp_path / "prog")
    with Facets(program=path) as child:
        at = child.at
        past = the_past(child, tmp_path, kind)
    modulefiles._tables.clear()  # noqa: SLF001 (a cache)
    if file != "there":
        kept = tmp_path / "kept"
        path.rename(kept)  # no other file gets its number
        if file == "another inode":
            other_program(path)
    with past:
        for name in OWN if file == "there" else GLOBAL:
            assert past.symbol(name) == past.symbol(f"prog!{name}") == at[name], name
            assert past.describe(at[name]) == f"prog!{name}"
            assert past.address(f"{name}+8") == at[name] + 8
        assert past.address("*g_list") == at["g_words"] + 8
        assert past.address("*(g_list+8)") == at["g_list"]
        if file != "there":
            with pytest.raises(NoSuchSymbolError):
                past.symbol("hidden")


@pytest.mark.parametrize("kind", ["snapshot", "core"])
def test_another_build_with_the_number_of_the_old_file_is_not_used(
    tmp_path: Path, kind: str
) -> None:
    """A program that was compiled again since: its names are not those of the past."""
    path = copied(tmp_path / "prog")
    with Facets(program=path) as child:
        at = child.at
        past = the_past(child, tmp_path, kind)
    modulefiles._tables.clear()  # noqa: SLF001 (a cache)
    path.write_bytes(Path(program("-O0")).read_bytes())
    with past:
        assert past.symbol("answer_of") == at["answer_of"]


def test_another_program_without_a_build_id_is_not_used(tmp_path: Path) -> None:
    """A program that does not say which build it is, compiled again since: not its names."""
    path = tmp_path / "prog"
    shutil.copy(program("-Wl,--build-id=none"), path)
    with Facets(program=path) as child:
        at = child.at
        past = the_past(child, tmp_path, "snapshot")
    path.write_bytes(Path(program("-Wl,--build-id=none", "-O0")).read_bytes())
    with past:
        assert past.symbol("answer_of") == at["answer_of"]


@as_root
@pytest.mark.skipif(shutil.which("unshare") is None, reason="not installed: unshare")
def test_a_program_of_another_mount_namespace(tmp_path: Path) -> None:
    """What it runs is at a path that is something else here."""
    hidden = tmp_path / "at"
    hidden.mkdir()
    other_program(hidden / "prog")
    script = f'mount -t tmpfs none {hidden} && cp "$0" {hidden}/prog && exec {hidden}/prog "$@"'
    before = ("unshare", "--mount", "sh", "-c", script)
    with Facets(program=program(), before=before) as child, procvm.open(child.pid) as process:
        assert process.maps()[0].name == os.fsencode(hidden / "prog")
        for name in OWN:
            assert process.symbol(f"prog!{name}") == child.at[name], name


UNPRIVILEGED = """
import os, subprocess, sys, warnings
from pathlib import Path
import procvm
from procvm import NoSuchSymbolError
from procvm._base.text import printable
from tests.elf.facets import Facets
warnings.simplefilter("error")
prog, lib, other, how = sys.argv[1:]
with Facets(program=prog) as child, procvm.open(child.pid) as process:
    child.open(lib)
    if how != "there":
        os.unlink(prog); os.unlink(lib)
    if how == "replaced":
        for path in (prog, lib):
            Path(path).write_bytes(Path(other).read_bytes())
    try:
        os.open(f"/proc/{child.pid}/map_files/" + os.listdir(f"/proc/{child.pid}/map_files")[0], 0)
        print("it may read map_files")
    except PermissionError:
        pass
    for name in ("g_counter", "answer_of", "main", "hidden"):
        assert process.symbol(name) == child.at[name], name
    assert process.symbol("one_turn") == child.number("sym one_turn")
    assert process.describe(child.at["hidden"] + 1) == "prog!hidden+0x1"
print("done")
"""


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that any user may enter: each run of pytest closes that of tmp_path to others."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        yield folder


@as_root
@pytest.mark.parametrize("how", ["there", "deleted", "replaced"])
def test_an_unprivileged_tool_has_the_names(open_folder: Path, how: str) -> None:
    """Who may not read map_files goes by the paths, by exe and by memory, and closes all of it."""
    path, lib = copied(open_folder / "prog"), library(open_folder / "libone.so", "one")
    other = other_program(open_folder / "other")
    for one in (path, lib):
        os.chown(one, 1234, 1234)
        one.chmod(0o755)
    command = [sys.executable, "-c", UNPRIVILEGED, str(path), str(lib), str(other), how]
    done = subprocess.run(
        ["setpriv", "--reuid=1234", "--regid=1234", "--clear-groups", *command],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "HOME": str(open_folder)},
    )
    if "Permission denied" in done.stderr and "python" in done.stderr.splitlines()[0]:
        pytest.skip("another user can not run this Python")
    assert (done.stdout, done.stderr) == ("done\n", "")


def test_without_pyelftools_it_is_said_what_to_install(facets: Facets) -> None:
    """The name is not said to be missing where nobody could look for it."""
    code = (
        "import sys; sys.modules['elftools'] = None; sys.modules['elftools.elf.elffile'] = None\n"
        "import procvm\n"
        f"with procvm.open({facets.pid}) as p:\n"
        "    for call in (lambda: p.symbol('main'), lambda: p.describe(p.maps()[1].start)):\n"
        "        try: print(call())\n"
        "        except procvm.UnsupportedError as error: print(error)\n"
        "        except procvm.ProcvmError as error: print('wrong:', error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    assert "pip install 'procvm[symbols]'" in lines[0]
    with procvm.open(facets.pid) as process:
        vmas = process.maps()
        program = vmas.filter(name=vmas[1].name)[0]
    assert lines[1] == f"{Path(program.name.decode()).name}+{vmas[1].start - program.start:#x}"


# What an address is


def random_addresses(process: procvm.Process, count: int) -> list[int]:
    pick = random.Random(7)
    vmas = [vma for vma in process.maps() if vma.name != b"[vsyscall]"]
    return [pick.randrange(vma.start, vma.end) for vma in pick.choices(vmas, k=count)]


def test_describe_is_as_the_file_has_it(facets: Facets, process: procvm.Process) -> None:
    """2,000 addresses: the name is one that covers it, the last to begin, or there is none."""
    files: dict[str, tuple[int, dict[str, list[Named]]]] = {}
    for vma in process.maps():
        if vma.offset == 0 and vma.name.endswith((b".so.6", b".so.2", b"facets-rdynamic-g-ldl")):
            path = vma.name.decode()
            files[os.path.basename(path)] = bias_of(process, path), symbols_by_pyelftools(path)
    named = 0
    text = [vma for vma in process.maps().filter(perms="rx") if vma.kind is procvm.Kind.FILE]
    pick = random.Random(3)
    addresses = random_addresses(process, 1000)
    addresses += [pick.randrange(vma.start, vma.end) for vma in pick.choices(text, k=1000)]
    for address in addresses:
        said = process.describe(address)
        module, bang, rest = said.partition("!")
        if module.partition("+")[0] not in files:
            continue
        bias, symbols = files[module.partition("+")[0]]
        covering = [
            (bias + one.value, name)
            for name, all_of in symbols.items()
            for one in all_of
            if one.kind in ADDRESSED and one.value <= address - bias < one.value + one.size
        ]
        if not bang:
            assert covering == [], said
            continue
        name, _, offset = rest.partition("+")
        there = address - int(offset or "0", 16)
        named += 1
        # A resolver is told from the function that it picks, and a static from others of its name.
        name, marked, _ = name.partition("@ifunc-resolver")
        name = re.sub("@0x[0-9a-f]+$", "", name)
        kinds = {one.kind for one in symbols[name] if one.value == there - bias}
        assert ("STT_LOOS" in kinds) == bool(marked), said
        if covering:
            assert (there, name) in covering, said
            assert there == max(covering)[0], said
        else:
            assert there - bias in {one.value for one in symbols[name] if not one.size}, said
    assert named > 600


@pytest.mark.skipif(GDB is None, reason="not installed: gdb")
def test_describe_is_as_gdb_has_it(facets: Facets, process: procvm.Process) -> None:
    """Where gdb names the symbol of the same address it is ours, or another of that place."""
    libc = process.maps().filter(name="libc.so.6", perms="x")[0]
    own = process.maps().filter(name=os.path.basename(program()), perms="x")[0]
    pick = random.Random(9)
    addresses = [pick.randrange(vma.start, vma.end) for vma in (libc, own) for _ in range(150)]
    said = gdb(f"attach {facets.pid}", *(f"info symbol {address:#x}" for address in addresses))
    lines = [line for line in said.splitlines() if " in section " in line or "No symbol" in line]
    assert len(lines) == len(addresses), said[-500:]
    same = 0
    for address, line in zip(addresses, lines, strict=True):
        ours = process.describe(address)
        if "!" not in ours or line.startswith("No symbol"):
            continue
        name, _, _ = line.partition(" in section ")
        symbol, _, offset = name.partition(" + ")
        there = address - int(offset or 0)
        ours_there = process.address(ours.partition("+")[0])
        if ours_there == there:
            same += 1
            values = {bias_of(process, path) + one.value for path in (libc.name, own.name)
                      for one in symbols_by_pyelftools(path).get(symbol.partition("@")[0], [])
                      if path == (libc if address in libc else own).name}  # fmt: skip
            assert not values or there in values  # none: of a stub of another file
    assert same > 200


def test_an_address_that_is_described_is_found_again(
    facets: Facets, process: procvm.Process, tmp_path: Path
) -> None:
    """2,000 random addresses of everything that is mapped, and the borders of each mapping."""
    facets.open(library(tmp_path / "libone.so", "one"))
    addresses = random_addresses(process, 2000)
    for vma in process.maps():
        addresses += [vma.start, vma.end - 1]
    for address in addresses:
        said = process.describe(address)
        assert process.address(said) == address, said


def test_two_statics_of_one_name_are_told_apart(
    facets: Facets, process: procvm.Process, tmp_path: Path
) -> None:
    """Of a name that two parts of one library keep to themselves: each is found by what it is."""
    for k in range(2):
        (tmp_path / f"{k}.c").write_text(
            f"static __attribute__((noinline)) int same(int n) {{ return n * {k + 3}; }}\n"
            f"void *where{k}(int n) {{ return same(n) ? (void *)same : 0; }}\n"
        )
    lib = tmp_path / "libtwo.so"
    sources = [tmp_path / "0.c", tmp_path / "1.c"]
    subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", lib, *sources], check=True)
    facets.open(lib)
    bias = bias_of(process, os.fsencode(lib))
    first, second = (bias + one.value for one in symbols_by_pyelftools(lib)["same"])
    assert first != second
    for address in (first, second):
        assert process.address(process.describe(address)) == address


def test_two_libraries_of_one_name_are_told_apart(
    facets: Facets, process: procvm.Process, tmp_path: Path
) -> None:
    """What describe says of the one is not an address of the other."""
    for k, folder in enumerate(("x", "y")):
        (tmp_path / folder).mkdir()
        facets.open(library(tmp_path / folder / "lib.so", f"n{k}", value=k + 1))
    for vma in process.maps().filter(name="lib.so"):
        assert process.address(process.describe(vma.start + 5)) == vma.start + 5


HOSTILE = [
    b"\x1b[31mred", b"two\nlines", b"\xe2\x80\xaedlrow", b"\xff\xfe", b"a (deleted)", b"a b",
    b"a!b", b"a+0x10", b"*star", b"(paren", b"0x1234", b"1234", b"[heap]", b"a\\x1b",
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE, ids=repr)
def test_describe_is_printable_whatever_a_file_is_called(tmp_path: Path, name: bytes) -> None:
    """Escapes, newlines and turned text of a program's name do not come out in what is said."""
    path = os.path.join(os.fsencode(tmp_path), name)
    shutil.copy(program(), os.fsdecode(path))
    with Facets(program=os.fsdecode(path)) as child, procvm.open(child.pid) as process:
        for address in (child.at["answer_of"], process.maps()[0].start + 5):
            said = process.describe(address)
            assert said.isprintable()
            # What the heap is called as well is told by its whole path.
            called = path if name == b"[heap]" else name.removesuffix(b" (deleted)")
            assert said.startswith(printable(called))
        assert process.symbol("answer_of") == child.at["answer_of"]
        for thread in (process.snapshot(),):
            assert thread.describe(child.at["answer_of"]) == process.describe(child.at["answer_of"])


@pytest.mark.parametrize("name", [b"plain", b"a b", b"a+0x10", b"[heap]", b"a-b.so.1", b"a@b"])
def test_a_file_is_found_by_what_is_said_of_it(tmp_path: Path, name: bytes) -> None:
    """Of names with spaces and signs too; what has to be escaped is for people alone."""
    path = os.path.join(os.fsencode(tmp_path), name)
    Path(os.fsdecode(path)).write_bytes(bytes(PAGE))
    with Playground() as child, procvm.open(child.pid) as process:
        at = child.map_file(path, PAGE)
        assert process.address(process.describe(at)) == at
        assert process.address(process.describe(at + 5)) == at + 5


# Expressions


def test_the_table_of_expressions(facets: Facets, process: procvm.Process, tmp_path: Path) -> None:
    """Numbers, names, areas, signs, parentheses and pointers, with spaces where one likes."""
    odd = library(tmp_path / "libstd-c++.so.6", "one")
    facets.open(odd)
    at = facets.at
    libc = process.maps().filter(name="libc.so.6")[0].start
    heap = process.maps().filter(kind=procvm.Kind.HEAP)[0].start
    loader = process.maps().filter(name="ld-linux-x86-64.so.2")
    table: dict[str | int, int] = {
        0x1234: 0x1234,
        "0x1234": 0x1234,
        "0X1f": 0x1F,
        " 10\t": 10,
        "010": 10,
        "0xffffffffffffffff": (1 << 64) - 1,
        "1+2-3": 0,
        "0x10-0x20+0x20": 0x10,
        "libc.so.6": libc,
        "libc.so.6+0x10": libc + 16,
        "libc.so.6 - 16": libc - 16,
        "[heap]+8": heap + 8,
        "[stack]": process.maps().filter(kind=procvm.Kind.STACK)[0].start,
        "[vdso]+1": at["vdso"] + 1,
        "libstd-c++.so.6": process.maps().filter(name="libstd-c++.so.6")[0].start,
        "libstd-c++.so.6+8-4": process.maps().filter(name="libstd-c++.so.6")[0].start + 4,
        "libstd-c++.so.6!one_value+4": facets.number("sym one_value") + 4,
        "g_counter": at["g_counter"],
        "g_counter + 8": at["g_counter"] + 8,
        "g_counter-8": at["g_counter"] - 8,
        "g_counter+8-0x8+1": at["g_counter"] + 1,
        "libc.so.6!malloc+0x12": facets.number("sym malloc") + 0x12,
        "(g_counter)": at["g_counter"],
        "((g_counter)+8)-8": at["g_counter"],
        "( g_counter )": at["g_counter"],
        "*g_list": at["g_words"] + 8,
        "* g_list": at["g_words"] + 8,
        "*g_list+8": at["g_words"] + 16,
        "*(g_list+8)": at["g_list"],
        "**(g_list+8)": at["g_words"] + 8,
        "*(*(g_list+8)+8)": at["g_list"],
        "*(*(*(g_list + 8) + 8) + 8) + 1": at["g_list"] + 1,
        "*g_words": 1,
        f"*{at['g_words'] + 8:#x}": 2,
    }
    if loader:
        table["ld-linux-x86-64.so.2+8"] = loader[0].start + 8
        table["ld-linux-x86-64.so.2"] = loader[0].start
    for expression, address in table.items():
        assert process.address(expression) == address, expression
    with process.snapshot() as snapshot:
        for expression, address in table.items():
            assert snapshot.address(expression) == address, expression


REFUSED: dict[str, type[procvm.ProcvmError]] = {
    "": procvm.InvalidArgsError,
    "  ": procvm.InvalidArgsError,
    "()": procvm.InvalidArgsError,
    "*": procvm.InvalidArgsError,
    "*()": procvm.InvalidArgsError,
    "1-2": procvm.InvalidArgsError,
    "0x10000000000000000": procvm.InvalidArgsError,
    "0xffffffffffffffff+1": procvm.InvalidArgsError,
    "*(1-2)": procvm.InvalidArgsError,
    "nothing": NoSuchSymbolError,
    "nothing+8": NoSuchSymbolError,
    "no!thing": NoSuchSymbolError,
    "g_counter+": NoSuchSymbolError,
    "g_counter+g_counter": NoSuchSymbolError,
    "g_counter++8": NoSuchSymbolError,
    "1_000": NoSuchSymbolError,
    "0b1": NoSuchSymbolError,
    "\u0663": NoSuchSymbolError,
    "main\0": NoSuchSymbolError,
    "t_own": NoSuchSymbolError,
    "*8": procvm.PageFaultError,
    "*g_words+8-g": NoSuchSymbolError,
    "****(g_list+8)+1": procvm.PageFaultError,
}


@pytest.mark.parametrize("expression", REFUSED)
def test_what_is_no_address_is_refused(process: procvm.Process, expression: str) -> None:
    """Each by the error that says why, and with what was given in it."""
    if expression.startswith("****"):
        process.vm.write_val(process.symbol("g_words") + 8, procvm.usize, 0x30)
    with pytest.raises(REFUSED[expression]):
        process.address(expression)


@pytest.mark.parametrize("bad", [None, 1.5, b"main", True])
def test_what_is_no_text_is_refused(process: procvm.Process, bad: Any) -> None:
    """TypeError; a negative number and one of 65 bits are refused as elsewhere."""
    with pytest.raises(TypeError):
        process.address(bad)
    with pytest.raises(procvm.InvalidArgsError):
        process.address(-1)
    with pytest.raises(procvm.AddressOverflowError):
        process.address(1 << 64)


@pytest.mark.parametrize(
    "expression",
    [
        "g_counter" + "+1" * 3000,
        "(" * 3000 + "g_counter" + ")" * 3000,
        "*" * 3000 + "g_counter",
        "a" + " " * 5000 + "b",
        "\ud800",
        "\ud800!main",
        "1" * 5000,
        "g_counter+" + "1" * 5000,
    ],
    ids=["signs", "parens", "stars", "spaces", "surrogate", "module", "digits", "more digits"],
)
def test_expressions_that_go_too_far(process: procvm.Process, expression: str) -> None:
    """Deep, long and unprintable ones are an error of procvm, or an address, within a second."""
    begun = time.thread_time()
    with contextlib.suppress(procvm.InvalidArgsError, NoSuchSymbolError, procvm.PageFaultError):
        process.address(expression)
    assert time.thread_time() - begun < 1


def test_a_pointer_to_the_kernel_is_not_followed(process: procvm.Process) -> None:
    """`*` of an address outside of user space: AccessDeniedError, as of any read there."""
    with pytest.raises(procvm.AccessDeniedError):
        process.address("*0xffff888000000000")


PIECES = st.sampled_from(
    ["g_counter", "libc.so.6", "[heap]", "!", "+", "-", "*", "(", ")", " ", "0x", "8", "0x7f",
     "main", "g_list", "\t", "[", "]", "\n", "$", "@", "0xffffffffffffffff", "\0", "\\", "/", "e"]
)  # fmt: skip
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@settings(
    max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(PIECES, max_size=9).map("".join) | TEXT)
@example("**")
@example("*(g_list)")
def test_any_text_is_an_address_or_one_of_four_errors(
    process: procvm.Process, expression: str
) -> None:
    """Never a foreign error, never a number that is no address."""
    try:
        address = process.address(expression)
    except (
        procvm.InvalidArgsError,
        NoSuchSymbolError,
        procvm.PageFaultError,
        procvm.AddressOverflowError,
        procvm.AccessDeniedError,  # of a pointer to the kernel
    ):
        return
    assert 0 <= address < 1 << 64


def test_a_process_that_has_gone_says_so(facets: Facets, process: procvm.Process) -> None:
    """Also of a name that was known before."""
    process.symbol("g_counter")
    facets.popen.kill()
    facets.popen.wait()
    calls: list[Callable[[], object]] = [
        lambda: process.symbol("g_counter"),
        lambda: process.symbol("main"),
        lambda: process.describe(facets.at["main"]),
        lambda: process.address("[heap]"),
        lambda: process.address("*g_list"),
    ]
    for call in calls:
        with pytest.raises(procvm.ProcessExitedError):
            call()
