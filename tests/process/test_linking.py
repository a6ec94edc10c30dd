"""Names of programs as linkers make them and as the dynamic linker resolves them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

import procvm
from procvm import NoSuchSymbolError, i32
from tests.elf.cores import GDB, gdb
from tests.elf.facets import Facets
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
