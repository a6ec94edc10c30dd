"""Names of programs as linkers make them and as the dynamic linker resolves them."""

from __future__ import annotations

import os
import pickle
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest
from elftools.elf.elffile import ELFFile

import procvm
from procvm import AmbiguousSymbolError, NoSuchSymbolError, i32
from procvm.elf.dynamic import Dynamic
from procvm.elf.headers import Elf
from procvm.linux.procfs import parse_auxv
from tests.elf.cores import GDB, gdb
from tests.elf.facets import Facets, library
from tests.process.linked import TELL, WAIT, Told, built

LEVELS = """
int level = 4; int room[3000]; const int limits[2] = {1, 2}; static int kept = 7;
int level_of(void) { return level + kept; } int *kept_at(void) { return &kept; }
"""
READS_LEVELS = f"""{TELL}
extern int level, room[]; extern const int limits[]; int level_of(void); int *kept_at(void);
int own = 5; static int own_static = 6; int own_room[5000];
int main(void) {{
    int *kept = kept_at(); own_static++;
    TELL(&level); TELL(room); TELL(limits); TELL(level_of); TELL(kept_at); TELL(kept);
    TELL(&own); TELL(&own_static); TELL(own_room); TELL(main); {WAIT}
"""
LAYOUTS = [
    ["-fuse-ld=bfd"],
    ["-fuse-ld=lld"],
    ["-fuse-ld=mold"],
    ["-fuse-ld=bfd", "-Wl,-z,noseparate-code"],
    ["-fuse-ld=lld", "-Wl,-z,separate-loadable-segments"],
    ["-fuse-ld=mold", "-Wl,-z,noseparate-code"],
    ["-fuse-ld=bfd", "-Wl,-z,max-page-size=65536"],
    ["-fuse-ld=lld", "-Wl,-z,max-page-size=65536"],
    ["-fuse-ld=mold", "-Wl,-z,max-page-size=65536"],
    ["-fuse-ld=lld", "-m32"],
    ["-fuse-ld=bfd", "-m32"],
    ["-fuse-ld=lld", "-Wl,--no-rosegment"],
    ["-fuse-ld=lld", "-Wl,--build-id=none", "-Wl,-z,norelro"],
]


def levels(folder: Path, *flags: str) -> Path:
    built(folder, "liblevel.so", LEVELS, "-shared", "-fPIC", *flags)
    more = (f"-L{folder}", "-llevel", f"-Wl,-rpath,{folder}")
    return built(folder, "reads", READS_LEVELS, "-fPIC", *flags, *more)


@pytest.mark.parametrize("flags", LAYOUTS, ids=" ".join)
@pytest.mark.parametrize("stripped", [False, True], ids=["", "stripped"])
def test_symbol_of_any_layout_is_where_the_program_says(
    tmp_path: Path, flags: list[str], stripped: bool
) -> None:
    """Code, data, constants and .bss of a program and a library; describe leads back."""
    program = levels(tmp_path, *flags)
    if stripped:
        subprocess.run(["strip", program, tmp_path / "liblevel.so"], check=True)
    with Told(program) as child, procvm.open(child.pid) as process:
        named = 0
        for word, address in child.at.items():
            name = word.lstrip("&")
            if stripped and name in ("kept", "own", "own_static", "own_room", "main"):
                continue
            file = "reads" if name.startswith("own") or name == "main" else "liblevel.so"
            assert process.symbol(name) == address
            assert process.symbol(f"{file}!{name}") == address
            assert process.describe(address) == f"{file}!{name}"
            assert process.describe(address + 1) == f"{file}!{name}+0x1"
            named += 1
        assert named > 4
        assert process.symbol("liblevel.so!room") + 11_996 < process.symbol("room") + 12_000


@pytest.mark.skipif(GDB is None, reason="not installed: gdb")
@pytest.mark.parametrize("flags", LAYOUTS[:9], ids=" ".join)
def test_describe_of_any_layout_is_as_gdb_has_it(tmp_path: Path, flags: list[str]) -> None:
    """Data, constants, code and a static of a library: the same symbol and offset."""
    program = levels(tmp_path, *flags)
    with Told(program) as child, procvm.open(child.pid) as process:
        starts = [child.at[name] for name in ("&level", "limits", "level_of", "kept")]
        addresses = [start + offset for start in starts for offset in range(4)]
        said = gdb(f"attach {child.pid}", *(f"info symbol {at:#x}" for at in addresses))
        lines = [line for line in said.splitlines() if " in section " in line]
        assert len(lines) == len(addresses), said[-500:]
        for address, line in zip(addresses, lines, strict=True):
            name, _, offset = line.partition(" in section ")[0].partition(" + ")
            plus = f"+{int(offset):#x}" if offset else ""
            assert process.describe(address) == f"liblevel.so!{name}{plus}"


@pytest.mark.parametrize("flags", [LAYOUTS[1], LAYOUTS[2], LAYOUTS[12]], ids=" ".join)
@pytest.mark.parametrize("kind", ["snapshot", "core", "gcore"])
def test_symbol_of_the_past_is_where_the_program_said(
    tmp_path: Path, flags: list[str], kind: str
) -> None:
    """Of a snapshot, of our core file and of gdb's, with a build ID and without one."""
    program = levels(tmp_path, *flags)
    with Told(program) as child, procvm.open(child.pid) as process:
        if kind == "snapshot":
            past = process.snapshot()
        elif kind == "core":
            process.save(tmp_path / "core")
            past = procvm.open_core(tmp_path / "core")
        else:
            if shutil.which("gcore") is None:
                pytest.skip("not installed: gcore")
            command: list[str | Path] = ["gcore", "-o", tmp_path / "core", str(child.pid)]
            subprocess.run(command, check=True, capture_output=True, stdin=subprocess.DEVNULL)
            past = procvm.open_core(tmp_path / f"core.{child.pid}")
    with past:
        for word, address in child.at.items():
            name = word.lstrip("&")
            assert past.symbol(name) == address
            assert past.describe(address).endswith(f"!{name}")


STATIC = f"""{TELL}
int own = 5; static int own_static = 6;
int main(void) {{ own_static++; TELL(&own); TELL(&own_static); TELL(main); {WAIT}
"""


@pytest.mark.parametrize("flags", [["-static-pie"], ["-static"], ["-pie"], []], ids=" ".join)
@pytest.mark.parametrize("compiler", ["cc", "musl-gcc"])
def test_symbol_of_a_program_of_musl_or_glibc(
    tmp_path: Path, flags: list[str], compiler: str
) -> None:
    """Static and dynamic, position-independent or not; without symbols names are unknown."""
    program = built(tmp_path, "alone", STATIC, *flags, compiler=compiler)
    with Told(program) as child, procvm.open(child.pid) as process:
        for word, address in child.at.items():
            name = word.lstrip("&")
            assert process.symbol(name) == address
            assert process.describe(address + 2) == f"alone!{name}+0x2"
    subprocess.run(["strip", program], check=True)
    with Told(program) as child, procvm.open(child.pid) as process:
        with pytest.raises(NoSuchSymbolError):
            process.symbol("own_static")
        start = process.maps().filter(name="alone")[0].start
        assert process.describe(child.at["main"]) == f"alone+{child.at['main'] - start:#x}"


@pytest.mark.parametrize("linker", ["bfd", "lld", "mold"])
@pytest.mark.parametrize(
    "flags", [["-fno-pie", "-no-pie"], ["-fpie", "-pie"], ["-m32", "-fno-pie", "-no-pie"]]
)
def test_symbol_of_a_copied_variable_is_the_live_copy(
    tmp_path: Path, linker: str, flags: list[str]
) -> None:
    """`libc.so.6!environ` and its other names lead to the program's copy; the rest stays."""
    source = f"""{TELL}
        extern char **environ; extern int told; int *told_at(void); int *mine_at(void);
        int main(void) {{ environ[0] = environ[0]; told = 9;
            TELL(&environ); TELL(&told); TELL(told_at()); TELL(mine_at()); {WAIT}
    """
    other = "int told = 1; int *told_at(void) { return &told; }\n"
    other += "int mine = 2; int *mine_at(void) { return &mine; }"
    wide = {"-m32"} & set(flags)
    built(tmp_path, "libtold.so", other, "-shared", "-fPIC", f"-fuse-ld={linker}", *wide)
    more = (f"-L{tmp_path}", "-ltold", f"-Wl,-rpath,{tmp_path}")
    program = built(tmp_path, "copies", source, f"-fuse-ld={linker}", *flags, *more)
    with Told(program) as child, procvm.open(child.pid) as process:
        environ = child.at["&environ"]
        for name in ("environ", "libc.so.6!environ", "libc.so.6!__environ", "copies!environ"):
            assert process.symbol(name) == environ, name
        assert child.at["&told"] == child.at["told_at()"]
        assert process.symbol("libtold.so!told") == process.symbol("told") == child.at["&told"]
        assert process.symbol("libtold.so!mine") == child.at["mine_at()"]
        assert process.vm.read_val(process.symbol("libtold.so!told"), i32) == 9
        assert process.describe(environ) == "copies!environ"
        # The library's own place is not passed off as the variable, and can still be named.
        unused = process.symbol("libtold.so!told_at")
        assert process.describe(unused) == "libtold.so!told_at"
        dead = dead_copy(process, tmp_path / "libtold.so", "told")
        said = process.describe(dead)
        assert said.startswith("libtold.so!told@0x")
        assert process.address(said) == dead


def dead_copy(process: procvm.Process, path: Path, name: str) -> int:
    """Returns where a library itself has a variable, by nm."""
    done = subprocess.run(["nm", path], capture_output=True, text=True, check=True)
    value = next(line.split()[0] for line in done.stdout.splitlines() if line.endswith(f" {name}"))
    return process.maps().filter(name=path.name)[0].start + int(value, 16)


def test_symbol_of_a_preloaded_name_is_what_the_program_uses(tmp_path: Path) -> None:
    """By bare name the preloaded definition, in either order of loading; by library each."""
    body = "int version = %d; int version_of(void) { return version; }\n"
    built(tmp_path, "libbase.so", body % 1 + "int only_base = 3;", "-shared", "-fPIC")
    over = built(tmp_path, "libover.so", body % 2, "-shared", "-fPIC")
    second = built(tmp_path, "libsecond.so", body % 3, "-shared", "-fPIC")
    source = f"""{TELL}
        int version_of(void); int main(void) {{ TELL(version_of); TELL(version_of()); {WAIT}
    """
    flags = (f"-L{tmp_path}", "-lbase", f"-Wl,-rpath,{tmp_path}")
    program = built(tmp_path, "uses", source, "-fno-plt", "-fPIC", *flags)
    for preload, version in (("", 1), (f"{over}", 2), (f"{second} {over}", 3)):
        with Told(program, env={"LD_PRELOAD": preload}) as child:
            assert child.at["version_of()"] == version
            with procvm.open(child.pid) as process:
                assert process.symbol("version_of") == child.at["version_of"]
                assert process.vm.read_val(process.symbol("version"), i32) == version
                assert process.vm.read_val(process.symbol("libbase.so!version"), i32) == 1
                assert process.symbol("only_base") == process.symbol("libbase.so!only_base")
                said = process.describe(process.symbol("libbase.so!version"))
                assert said == "libbase.so!version"


IFUNC = """
static int one(int n) { return n + 1; } static int two(int n) { return n + 2; }
static void *pick_choice(void) { return (void *)two; }
int pick(int n) __attribute__((ifunc("pick_choice")));
void *chosen(void) { return (void *)two; } void *choosing(void) { return (void *)pick_choice; }
int call_pick(int n) { return pick(n) + one(n); }
"""


@pytest.mark.parametrize(
    "flags",
    [["-Wl,-z,now"], ["-Wl,-z,lazy"], ["-fuse-ld=lld"], ["-fuse-ld=mold"], ["-static"],
     ["-static-pie"], ["-m32"]],
    ids=" ".join,
)  # fmt: skip
def test_symbol_of_an_ifunc_is_the_function_that_was_chosen(
    tmp_path: Path, flags: list[str]
) -> None:
    """The resolver is never passed off as the function; describe marks it and leads back."""
    source = f"""{TELL}
        void *chosen(void), *choosing(void); int call_pick(int); int pick(int);
        int main(void) {{ call_pick(1); TELL(chosen()); TELL(choosing()); TELL(pick(1)); {WAIT}
    """
    if "-static" in flags or "-static-pie" in flags:
        file = "uses"
        built(tmp_path, "pick.o", IFUNC, "-c", "-fPIC")
        program = built(tmp_path, file, source, *flags, "pick.o")
    else:
        file = "libpick.so"
        built(tmp_path, file, IFUNC, "-shared", "-fPIC", *flags)
        more = (f"-L{tmp_path}", "-lpick", f"-Wl,-rpath,{tmp_path}")
        program = built(tmp_path, "uses", source, "-fPIC", *flags, *more)
    with Told(program) as child, procvm.open(child.pid) as process:
        resolver = child.at["choosing()"]
        assert child.at["pick(1)"] == 3
        said = process.describe(resolver)
        assert said == f"{file}!pick@ifunc-resolver"
        assert process.symbol(said) == process.address(said) == resolver
        assert process.symbol("pick") == process.symbol(f"{file}!pick") == child.at["chosen()"]
        assert process.describe(process.symbol("pick")) == f"{file}!two"
        with pytest.raises(NoSuchSymbolError):
            process.symbol("chosen@ifunc-resolver")


def test_symbol_of_an_ifunc_without_a_choice_says_so(tmp_path: Path) -> None:
    """Nobody called it, so nothing holds its choice: an error that names the resolver."""
    body = (
        'static void *choice(void) { return 0; }\nint pick(void) __attribute__((ifunc("choice")));'
    )
    lib = built(tmp_path, "libpick.so", body, "-shared", "-fPIC")
    with Facets() as child, procvm.open(child.pid) as process:
        child.open(lib)
        with pytest.raises(NoSuchSymbolError, match="IFUNC") as caught:
            process.symbol("pick")
        resolver = process.symbol("libpick.so!pick@ifunc-resolver")
        assert "libpick.so!pick@ifunc-resolver" in caught.value.reason
        assert process.describe(resolver) == "libpick.so!pick@ifunc-resolver"


# Names that mean several things


def test_symbol_of_two_statics_is_ambiguous_and_each_can_be_chosen(tmp_path: Path) -> None:
    """In one program; a global of the same name is preferred to statics."""
    (tmp_path / "second.c").write_text(
        "static int counter = 2; int *second(void) { counter++; return &counter; }\n"
        "static int best = 4; int *worse(void) { best++; return &best; }\n"
    )
    source = f"""{TELL}
        static int counter = 1; int best = 3; int *second(void), *worse(void);
        int main(void) {{
            counter++; TELL(&counter); TELL(second()); TELL(&best); TELL(worse()); {WAIT}
    """
    program = built(tmp_path, "two", source, "second.c")
    with Told(program) as child, procvm.open(child.pid) as process:
        for name in ("counter", "two!counter"):
            with pytest.raises(AmbiguousSymbolError) as caught:
                process.symbol(name)
            error = caught.value
            addresses = {one.address for one in error.candidates}
            assert addresses == {child.at["&counter"], child.at["second()"]}
            for one in error.candidates:
                assert process.symbol(one.name) == process.address(one.name) == one.address
                assert process.describe(one.address) == one.name
                assert one.name in str(error)
                assert f"{one.address:#x}" in str(error)
            again = pickle.loads(pickle.dumps(error))
            assert (again.name, again.candidates) == (name, error.candidates)
        with pytest.raises(AmbiguousSymbolError):
            process.address("counter+4")
        assert process.symbol("best") == child.at["&best"]
        said = process.describe(child.at["worse()"])
        assert process.address(said) == child.at["worse()"]
        assert said != "two!best"


def test_symbol_of_two_libraries_statics_is_ambiguous(tmp_path: Path) -> None:
    """Each with its library; the program's own static of a name is preferred."""
    body = "static int inner = %d; int *inner_%d(void) { inner++; return &inner; }"
    for k in (1, 2):
        built(tmp_path, f"lib{k}.so", body % (k, k), "-shared", "-fPIC")
    for own in ("", "static int inner = 9;"):
        use = "inner++; TELL(&inner);" if own else ""
        source = f"""{TELL}
            {own} int *inner_1(void), *inner_2(void);
            int main(void) {{ {use} TELL(inner_1()); TELL(inner_2()); {WAIT}
        """
        flags = (f"-L{tmp_path}", "-l:lib1.so", "-l:lib2.so", f"-Wl,-rpath,{tmp_path}")
        program = built(tmp_path, "uses", source, *flags)
        with Told(program) as child, procvm.open(child.pid) as process:
            for k in (1, 2):
                assert process.symbol(f"lib{k}.so!inner") == child.at[f"inner_{k}()"]
            if own:
                assert process.symbol("inner") == child.at["&inner"]
                continue
            with pytest.raises(AmbiguousSymbolError) as caught:
                process.symbol("inner")
            names = [one.name for one in caught.value.candidates]
            assert sorted(names) == ["lib1.so!inner", "lib2.so!inner"]


NAMESPACES = f"""#define _GNU_SOURCE
#include <dlfcn.h>
{TELL}
int main(int argc, char **argv) {{
    void *first = dlopen(argv[1], RTLD_NOW), *second = dlmopen(LM_ID_NEWLM, argv[1], RTLD_NOW);
    void *one = dlsym(first, "part_value"), *two = dlsym(second, "part_value");
    void *three = dlsym(second, "getpid"), *four = (void *)getpid;
    TELL(one); TELL(two); TELL(three); TELL(four); {WAIT}
"""


def test_symbol_of_a_library_that_is_loaded_twice_is_ambiguous(tmp_path: Path) -> None:
    """By dlopen and by dlmopen: both are candidates; a bare name means the program's libc."""
    body = "int getpid(void); int part_value = 3; int part_turn(void) { return getpid(); }"
    lib = built(tmp_path, "libpart.so", body, "-shared", "-fPIC")
    program = built(tmp_path, "twice", NAMESPACES, "-ldl")
    with Told(program, lib) as child, procvm.open(child.pid) as process:
        at = child.at
        assert at["one"] != at["two"]
        for name in ("part_value", "libpart.so!part_value", f"{lib}!part_value"):
            with pytest.raises(AmbiguousSymbolError) as caught:
                process.symbol(name)
            assert {one.address for one in caught.value.candidates} == {at["one"], at["two"]}
            for one in caught.value.candidates:
                assert process.symbol(one.name) == process.address(one.name) == one.address
                assert process.describe(one.address + 1) == one.name + "+0x1"
        assert process.symbol("getpid") == at["four"] != at["three"]
        with pytest.raises(AmbiguousSymbolError) as caught:
            process.symbol("libc.so.6!getpid")
        assert {one.address for one in caught.value.candidates} == {at["three"], at["four"]}
        with process.snapshot() as snapshot, pytest.raises(AmbiguousSymbolError):
            snapshot.symbol("part_value")


# What a file is called


def test_symbol_takes_a_soname_a_link_and_every_name_of_the_program(tmp_path: Path) -> None:
    """A library by its file, soname, link and paths; a program by comm, link and real name."""
    body = "int gauge = 3; int *gauge_at(void) { return &gauge; }"
    real = built(tmp_path, "libgauge.so.1.4", body, "-shared", "-fPIC", "-Wl,-soname,libgauge.so.1")
    (tmp_path / "libgauge.so.1").symlink_to(real.name)
    (tmp_path / "libgauge.so").symlink_to(real.name)
    os.link(real, tmp_path / "hard.so")
    source = f"{TELL} int *gauge_at(void); int own = 5;\n"
    source += f"int main(void) {{ TELL(gauge_at()); TELL(&own); {WAIT}"
    program = built(
        tmp_path, "real-name", source, f"-L{tmp_path}", "-lgauge", f"-Wl,-rpath,{tmp_path}"
    )
    link = tmp_path / "link-name"
    link.symlink_to(program.name)
    os.link(program, tmp_path / "hard-name")
    with Told("argument-0", executable=link) as child, procvm.open(child.pid) as process:
        files = [real, *(tmp_path / name for name in ("libgauge.so.1", "libgauge.so", "hard.so"))]
        for file in [*map(str, files), *(file.name for file in files)]:
            assert process.symbol(f"{file}!gauge") == child.at["gauge_at()"], file
            assert process.address(f"{file}!gauge+4") == child.at["gauge_at()"] + 4
            start = process.maps().filter(name=real.name)[0].start
            assert process.address(file) == start, file
            assert list(process.mappings_of(file)) == list(process.maps().filter(name=real.name))
        assert process.describe(child.at["gauge_at()"]) == "libgauge.so.1.4!gauge"
        for name in ("real-name", "link-name", "argument-0", "hard-name", str(link), str(program)):
            assert process.symbol(f"{name}!own") == child.at["&own"], name
        for name in ("no-name", "ink-name", str(tmp_path), "", str(tmp_path / "real-name.c")):
            with pytest.raises(NoSuchSymbolError):
                process.symbol(f"{name}!own")
        with process.snapshot() as snapshot:
            for name in ("libgauge.so.1!gauge", "libgauge.so!gauge"):
                assert snapshot.symbol(name) == child.at["gauge_at()"]
            assert snapshot.symbol("link-name!own") == child.at["&own"]


# Symbols without a size


LABELS = """
    .data
    .globl first, second, sized, tail
    .balign 64
first:  .long 1, 2, 3
second: .long 4, 5
    .type sized, @object
    .size sized, 4
sized:  .long 6
    .long 7
tail:   .long 8
    .section .middle, "aw", @progbits
    .globl middle
middle: .long 9
at_end:
    .globl at_end
    .section .note.GNU-stack, "", @progbits
"""


@pytest.mark.parametrize("stripped", [False, True], ids=["", "stripped"])
def test_describe_of_a_symbol_of_size_0_reaches_to_the_next(tmp_path: Path, stripped: bool) -> None:
    """Up to the next symbol or the end of its section, and never beyond either."""
    built(tmp_path, "labels.o", LABELS, "-c", suffix=".s")
    flags = ("-shared", "-nostdlib", "-Wl,-z,noseparate-code")
    built(tmp_path, "liblabels.so", "", "labels.o", *flags)
    source = f"""{TELL} extern char first[], second[], sized[], tail[], middle[];
        int main(void) {{ TELL(first); TELL(second); TELL(sized); TELL(tail); TELL(middle); {WAIT}
    """
    program = built(
        *(tmp_path, "uses", source, "-fPIC", f"-L{tmp_path}", "-llabels", f"-Wl,-rpath,{tmp_path}"),
    )
    if stripped:
        subprocess.run(["strip", tmp_path / "liblabels.so"], check=True)
    with Told(program) as child, procvm.open(child.pid) as process:
        at = child.at
        for name, size in (("first", 12), ("second", 8), ("sized", 4), ("tail", 4), ("middle", 4)):
            assert process.symbol(name) == at[name]
            for offset in range(size):
                plus = f"+{offset:#x}" if offset else ""
                assert process.describe(at[name] + offset) == f"liblabels.so!{name}{plus}"
        # After a size no symbol goes on, and none goes on after the end of its section.
        start = process.maps().filter(name="liblabels.so")[0].start
        for address in (at["sized"] + 4, at["middle"] + 4):
            assert process.describe(address) == f"liblabels.so+{address - start:#x}"


# Never a stale name


def test_symbol_of_a_file_rewritten_in_place_is_the_new_one(tmp_path: Path) -> None:
    """Unloaded, written over under the same inode, and loaded again at the same address."""
    one = library(tmp_path / "one.so", "part", value=1)
    two = library(tmp_path / "two.so", "part", value=1, pad=1)
    path = tmp_path / "plugin.so"
    shutil.copy(one, path)
    inode = path.stat().st_ino
    with Facets() as child, procvm.open(child.pid) as process:
        for source in (one, two, one, two):
            with open(path, "r+b") as file:  # not a new file: the inode stays
                file.truncate()
                file.write(source.read_bytes())
            assert path.stat().st_ino == inode
            handle = child.open(path)
            for name in ("part_turn", "part_value", "part_common"):
                there = child.number(f"sym {name} {handle:x}")
                assert process.symbol(name) == process.symbol(f"plugin.so!{name}") == there
                assert process.describe(there) == f"plugin.so!{name}"
            child.unload(handle)
            with pytest.raises(NoSuchSymbolError):
                process.symbol("part_turn")


def test_symbol_after_a_second_dlopen_is_ambiguous_at_once(tmp_path: Path) -> None:
    """A name that was one library's, asked for before, is two libraries' now; then one's again."""
    one = library(tmp_path / "one.so", "part", value=1)
    two = library(tmp_path / "two.so", "part", value=2)
    with Facets() as child, procvm.open(child.pid) as process:
        child.open(one)
        first = process.symbol("part_value")
        handle = child.open(two)
        with pytest.raises(AmbiguousSymbolError):
            process.symbol("part_value")
        child.unload(handle)
        assert process.symbol("part_value") == first


def test_symbol_after_an_exec_is_refused(tmp_path: Path) -> None:
    """The program that was opened is gone; a name that was known is not answered either."""
    source = f"""{TELL}
        int own = 5; int main(int argc, char **argv) {{ char d; TELL(&own); TOLD;
        read(0, &d, 1); if (argc < 2) execl("/proc/self/exe", "again", "x", (char *)0); {WAIT}
    """
    with Told(built(tmp_path, "execs", source)) as child, procvm.open(child.pid) as process:
        assert process.symbol("own") == child.at["&own"]
        child.ask("")
        for call in (lambda: process.symbol("own"), lambda: process.describe(child.at["&own"])):
            with pytest.raises(procvm.ProcessExecedError):
                call()


def test_listing_of_an_unchanged_process_is_not_parsed_again() -> None:
    """A second new name costs a reading of maps and no more; a change without a name neither."""
    with Facets() as child, procvm.open(child.pid) as process:
        child.number("stripes 2000")
        token, vmas = process.listing(None)
        assert vmas is not None
        assert len(vmas) < 100
        assert process.listing(token) == (token, None)
        process.symbol("g_counter")
        known = process._known()._now
        process.symbol("g_words")
        assert process._known()._now is known
        child.number("stripes 2000")
        assert process.symbol("g_list") == child.at["g_list"]
        assert process._known()._now is known


# What is said where a name has no address


def test_message_of_a_thread_local_name_says_so(tmp_path: Path) -> None:
    """By symbol, by an expression and by the command."""
    source = f"{TELL} __thread int slot = 5; int main(void) {{ slot++; TELL(main); {WAIT}"
    with Told(built(tmp_path, "slots", source)) as child, procvm.open(child.pid) as process:
        for call in (process.symbol, process.address):
            with pytest.raises(NoSuchSymbolError, match="thread-local in slots") as caught:
                call("slot")
            assert "thread-local" in caught.value.reason


@pytest.mark.parametrize("build_id", ["sha1", "none"])
@pytest.mark.parametrize("kind", ["snapshot", "core"])
def test_names_of_another_build_are_not_used_and_the_file_is_named(
    tmp_path: Path, build_id: str, kind: str
) -> None:
    """The program was built anew since: no name of it, and the reason is that file."""
    body = "static int value = 5; int main(void) { value++; TELL(&value);"
    flag = f"-Wl,--build-id={build_id}"
    program = built(tmp_path, "crasher", TELL + body + WAIT, flag)
    with Told(program) as child, procvm.open(child.pid) as process:
        if kind == "snapshot":
            past = process.snapshot()
        else:
            process.save(tmp_path / "core")
            past = procvm.open_core(tmp_path / "core")
    program.unlink()
    built(tmp_path, "crasher", TELL + "long pad[40] = {1};" + body + WAIT, flag)
    with past:
        for call in (past.symbol, past.address):
            with pytest.raises(NoSuchSymbolError, match="crasher is not the one that is loaded"):
                call("value")
        assert past.describe(child.at["&value"]).startswith("crasher+0x")


# Pages of files are left alone


RESIDENT = """
static const char table[1 << 22] = {1}; int last = 5;
int *last_at(void) { return &last + (table[0] - 1); }
"""


def resident_kb(pid: int, path: Path) -> dict[str, int]:
    """Returns the resident kilobytes of each mapping of a file, by smaps."""
    found: dict[str, int] = {}
    head = ""
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        words = line.split()
        if "-" in words[0] and not words[0].endswith(":"):
            head = line
        elif line.startswith("Rss:") and head.endswith(str(path)):
            found[head.split()[0]] = int(words[1])
    return found


def test_symbol_and_describe_make_no_file_page_resident(tmp_path: Path) -> None:
    """The target's resident pages of every file are as before, by the kernel's own count."""
    source = f"""#include <fcntl.h>
        #include <sys/mman.h>
        {TELL} int *last_at(void); int main(int argc, char **argv) {{
            int fd = open(argv[1], O_RDONLY); long n = lseek(fd, 0, SEEK_END);
            char *unread = mmap(0, n, PROT_READ, MAP_PRIVATE, fd, 0);
            char *may_run = mmap(0, n, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0);
            madvise(unread, n, MADV_RANDOM); madvise(may_run, n, MADV_RANDOM);
            TELL(last_at()); TELL(unread); TELL(may_run); {WAIT}
    """
    lib = built(tmp_path, "liblast.so", RESIDENT, "-shared", "-fPIC")
    other = built(tmp_path, "libother.so", RESIDENT, "-shared", "-fPIC")
    flags = (f"-L{tmp_path}", "-llast", f"-Wl,-rpath,{tmp_path}")
    program = built(tmp_path, "maps-it", source, *flags)
    with Told(program, other) as child, procvm.open(child.pid) as process:
        files = (lib, other, program)
        before = [resident_kb(child.pid, path) for path in files]
        assert before[1]
        assert not any(before[1].values())
        assert process.symbol("last") == child.at["last_at()"]
        with pytest.raises(NoSuchSymbolError):
            process.symbol("no_such")
        for address in (child.at["last_at()"], child.at["unread"] + 64, child.at["may_run"] + 64):
            assert "libl" in process.describe(address) or "libother" in process.describe(address)
        assert [resident_kb(child.pid, path) for path in files] == before


def test_parse_auxv_of_a_32_bit_program_has_half_as_wide_entries() -> None:
    """The same types and values, by the width of the entries."""
    pairs = ((33, 0xF7FC5000), (9, 0x565560A0), (25, 0xFFFFD10B), (0, 0))
    for layout in ("=QQ", "=II"):
        data = b"".join(struct.pack(layout, *pair) for pair in pairs)
        assert parse_auxv(data) == dict(pairs)


def test_symbols_of_a_file_are_as_pyelftools_has_their_relocations(tmp_path: Path) -> None:
    """The dynamic section read by hand: soname, what is needed, and every relocation."""
    flags = ("-shared", "-fPIC", "-Wl,-soname,libthis.so.7", "-lm", "-Wl,--no-as-needed")
    source = "extern char **environ; double cos(double); int *at; int here;\n"
    source += "double turn(double n) { return cos(n) + (environ != 0) + (at = &here, *at); }"
    path = built(tmp_path, "libthis.so", source, *flags)
    with open(path, "rb") as file:
        elf = Elf(file, "libthis.so")
        segments = elf.segments()
        dynamic = Dynamic(elf, segments, 0, lambda at, n: elf.at(segments, at, n))
        assert dynamic.soname == b"libthis.so.7"
        theirs: Any = ELFFile(file)
        tags = list(theirs.get_section_by_name(".dynamic").iter_tags())
        wanted = [tag.needed.encode() for tag in tags if tag.entry.d_tag == "DT_NEEDED"]
        assert dynamic.needed == wanted != []
        kinds = frozenset(range(64))
        found = {(one.offset, one.kind, one.symbol, one.addend) for one in
                 dynamic.relocations(kinds)}  # fmt: skip
        every = {
            (one["r_offset"], one["r_info_type"], one["r_info_sym"], one["r_addend"])
            for name in (".rela.dyn", ".rela.plt")
            if (section := theirs.get_section_by_name(name)) is not None
            for one in section.iter_relocations()
        }
        assert found == every != set()
