"""Names that mean several things or nothing, what files are called, and when names change."""

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
from procvm._linux.procfs import parse_auxv
from procvm._symbols.elf_dynamic import Dynamic
from procvm._symbols.elf_headers import Elf
from tests.cli.running import ran
from tests.elf.facets import Facets, library
from tests.process.linked import TELL, WAIT, Told, built

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
        done = ran("write", child.pid, "counter", "-t", "i32", "9")
        assert done.code == 2
        assert all(f"{one.name} ({one.address:#x})" in done.err for one in error.candidates)
        values = [process.vm.read_val(one.address, i32) for one in error.candidates]
        assert sorted(values) == [2, 3]
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
            child.unload(handle)  # and no question before it is there again
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
        files = process._subject  # noqa: SLF001 (a cache)
        token, vmas = files.listing(None)
        assert vmas is not None
        assert len(vmas) < 100
        assert files.listing(token) == (token, None)
        process.symbol("g_counter")
        known = process._known()._now  # noqa: SLF001 (a cache)
        process.symbol("g_words")
        assert process._known()._now is known  # noqa: SLF001 (a cache)
        child.number("stripes 2000")
        assert process.symbol("g_list") == child.at["g_list"]
        assert process._known()._now is known  # noqa: SLF001 (a cache)


# What is said where a name has no address


def test_message_of_a_thread_local_name_says_so(tmp_path: Path) -> None:
    """By symbol, by an expression and by the command."""
    source = f"{TELL} __thread int slot = 5; int main(void) {{ slot++; TELL(main); {WAIT}"
    with Told(built(tmp_path, "slots", source)) as child, procvm.open(child.pid) as process:
        for call in (process.symbol, process.address):
            with pytest.raises(NoSuchSymbolError, match="thread-local in slots") as caught:
                call("slot")
            assert "thread-local" in caught.value.reason
        done = ran("read", child.pid, "slot", "-t", "i32")
        assert done.code == 1
        assert "thread-local in slots" in done.err


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
    for layout, phdr_len in (("=QQ", 56), ("=II", 32)):
        pairs = ((33, 0xF7FC5000), (4, phdr_len), (9, 0x565560A0), (25, 0xFFFFD10B), (0, 0))
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
