"""`modules()`, `symbols()`, the parts of a `Location`, and names that are spelled alike."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import procvm
from procvm import AmbiguousSymbolError, Mapped, NoSuchSymbolError
from procvm._symbols.near import near_names
from tests.process.linked import TELL, WAIT, Told, built

LIBRARY = """
    int gauge_value = 31313; static int gauge_inner = 7; char gauge_room[64];
    static char gauge_bss[1 << 20]; char *gauge_bss_at(void) { return gauge_bss; }
    int *gauge_at(void) { return &gauge_value; }
    int *gauge_hidden(void) { gauge_inner++; return &gauge_inner; }
    __attribute__((weak)) int gauge_weak(void) { return 5; }
"""


@pytest.fixture(scope="module")
def child(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    folder = tmp_path_factory.mktemp("modules")
    flags = ("-shared", "-fPIC", "-Wl,-soname,libgauge.so.1", "-Wl,--build-id=0x00c0ffee")
    built(folder, "libgauge.so.1.4", LIBRARY, *flags)
    (folder / "libgauge.so.1").symlink_to("libgauge.so.1.4")
    source = f"""{TELL}
        int *gauge_at(void), *gauge_hidden(void); char *gauge_bss_at(void);
        extern char gauge_room[];
        int main(void) {{ TELL(gauge_at()); TELL(gauge_hidden()); TELL(&gauge_room);
            TELL(gauge_bss_at()); {WAIT}
    """
    flags = (
        "-no-pie",
        str(folder / "libgauge.so.1.4"),
        f"-Wl,-rpath,{folder}",
        "-Wl,--build-id=none",
    )
    with Told(built(folder, "reader", source, *flags)) as running:
        yield running


@pytest.fixture(params=["live", "snapshot", "core"])
def subject(request: pytest.FixtureRequest, child: Told, tmp_path: Path) -> Iterator[Mapped]:
    with procvm.open(child.pid) as process:
        if request.param == "live":
            yield process
        elif request.param == "snapshot":
            with process.snapshot() as snapshot:
                yield snapshot
        else:
            process.save(tmp_path / "core")
            with procvm.open_core(tmp_path / "core") as core:
                yield core


def test_modules_name_soname_and_path_lead_to_the_same_module(subject: Mapped) -> None:
    """The program comes first; each key is a name, and `get` and `in` know every name."""
    modules = subject.modules()
    assert next(iter(modules)) == "reader"
    assert len(modules) == len(list(modules)) == len(set(modules))
    assert {"libgauge.so.1.4", "[vdso]"} <= set(modules)
    library = modules["libgauge.so.1.4"]
    first = subject.maps().filter(name="libgauge.so.1.4")[0]
    path = os.fsdecode(first.name)
    assert modules["libgauge.so.1"] is modules[path] is library
    assert "libgauge.so.1" in modules
    assert modules.get(path) is library
    assert (library.name, library.soname, library.path) == (
        "libgauge.so.1.4",
        "libgauge.so.1",
        path,
    )
    assert library.base == first.start
    assert library.build_id == "00c0ffee"
    assert not library.is_deleted
    assert str(library) == "libgauge.so.1.4"
    program = modules["reader"]
    assert (program.soname, program.build_id) == (None, None)
    assert modules["[vdso]"].path is None


def test_modules_missing_name_raises_a_key_error(subject: Mapped) -> None:
    modules = subject.modules()
    with pytest.raises(KeyError, match=r"called 'libno\.so' is loaded") as caught:
        modules["libno.so"]
    assert isinstance(caught.value, NoSuchSymbolError)
    assert modules.get("libno.so") is None
    assert "libno.so" not in modules
    assert object() not in modules


def test_module_ranges_include_variables_without_initial_values(
    subject: Mapped, child: Told
) -> None:
    """A search in the ranges finds them, and `find` gives the module of an address."""
    modules = subject.modules()
    library = modules["libgauge.so.1"]
    room = child.at["gauge_bss_at()"]
    for address in (library.base, room, room + (1 << 20) - 1):
        assert address in library
        assert modules.find(address) == library
    assert library.base - 1 not in library
    at = child.at["gauge_at()"]
    assert at in library
    assert modules.find(at) == library
    assert modules.find(0x10) is None
    number = (31313).to_bytes(4, sys.byteorder)
    assert at in list(subject.vm.search(number, ranges=library.ranges, align=4))
    assert all(low < high for low, high in library.ranges)


def test_symbols_glob_gives_rows_that_symbol_confirms(subject: Mapped, child: Told) -> None:
    """A row's address is that of `symbol`; the rows are lazy, and say how a name binds."""
    rows = {row.name: row for row in subject.symbols("libgauge.so.1!gauge_*")}
    assert rows["gauge_value"].address == child.at["gauge_at()"]
    assert rows["gauge_inner"].address == child.at["gauge_hidden()"]
    assert {rows[name].binding for name in ("gauge_value", "gauge_at")} == {"global"}
    assert rows["gauge_inner"].binding == "local"
    assert rows["gauge_weak"].binding == "weak"
    assert rows["gauge_value"].size == 4
    assert rows["gauge_value"].demangled is None
    assert str(rows["gauge_value"]) == "libgauge.so.1.4!gauge_value"
    for row in rows.values():
        assert row.module == "libgauge.so.1.4"
        assert subject.symbol(str(row)) == row.address
    assert set(subject.symbols("lib[g]auge*!gauge_*")) == set(rows.values())
    assert {row.name for row in subject.symbols("main")} >= {"main"}
    assert next(subject.symbols()).module == "reader"
    assert list(subject.symbols("gauge")) == []
    assert list(subject.symbols("lib*no*!*")) == []


def test_symbols_of_a_file_that_is_not_loaded_raises(subject: Mapped) -> None:
    with pytest.raises(NoSuchSymbolError, match=r"called 'libno\.so' is loaded"):
        subject.symbols("libno.so!*")
    with pytest.raises(TypeError, match="a glob must be a str"):
        subject.symbols(b"main")  # type: ignore[arg-type]


def test_symbols_address_of_a_copied_variable_is_that_of_the_copy(
    subject: Mapped, child: Told
) -> None:
    """A program with fixed addresses has a copy of the library's `gauge_room`."""
    rows = list(subject.symbols("libgauge.so.1!gauge_room"))
    assert child.at["&gauge_room"] in subject.modules()["reader"]
    assert [row.address for row in rows] == [child.at["&gauge_room"]]


def test_describe_returns_a_text_with_its_parts(subject: Mapped, child: Told) -> None:
    at = child.at["gauge_at()"]
    here = subject.describe(at + 1)
    assert here == str(here) == "libgauge.so.1.4!gauge_value+0x1"
    assert (here.module, here.symbol, here.offset) == ("libgauge.so.1.4", "gauge_value", 1)
    assert here.line is None
    assert here.module in subject.modules()
    again = pickle.loads(pickle.dumps(here))
    assert (again, again.symbol, again.offset) == (here, here.symbol, here.offset)
    heap = subject.maps().filter(kind="heap")[0].start
    there = subject.describe(heap + 8)
    assert (there, there.module, there.symbol, there.offset) == ("[heap]+0x8", "[heap]", None, 8)
    nowhere = subject.describe(0x10)
    assert (nowhere, nowhere.module, nowhere.symbol, nowhere.offset) == ("0x10", None, None, 0)


def test_soname_alone_is_the_base_of_its_library(subject: Mapped, child: Told) -> None:
    base = subject.modules()["libgauge.so.1"].base
    assert subject.address("libgauge.so.1") == base
    assert subject.address("libgauge.so.1+0x10") == base + 0x10
    assert subject.address("libgauge.so.1!gauge_value+2") == child.at["gauge_at()"] + 2


# Names that are spelled alike


@pytest.mark.parametrize(
    ("wrong", "near"),
    [
        ("libgauge.so.1!gauge_valeu", "libgauge.so.1!gauge_value"),
        ("gauge_velue", "gauge_value"),
        ("GAUGE_VALUE", "gauge_value"),
        ("mian", "main"),
        ("libguage.so.1.4!gauge_at", "libgauge.so.1.4!gauge_at"),
    ],
)
def test_symbol_misspelled_suggests_the_names_that_are_near(
    subject: Mapped, wrong: str, near: str
) -> None:
    """The suggestion is in the message and in `near`, also after pickling; `symbol` takes it."""
    for call in (subject.symbol, subject.address):
        with pytest.raises(NoSuchSymbolError, match="did you mean ") as caught:
            call(wrong)
        error = pickle.loads(pickle.dumps(caught.value))
        assert near in error.near
        assert near in str(error)
    assert subject.symbol(near) == subject.address(near)


def test_symbol_unlike_any_name_suggests_nothing(subject: Mapped) -> None:
    with pytest.raises(NoSuchSymbolError) as caught:
        subject.symbol("zq_unlike_xyzzy_anything")
    assert caught.value.near == ()
    assert "did you mean" not in str(caught.value)


def test_near_names_of_many_and_of_long_names_takes_bounded_time() -> None:
    """Twelve million characters of names that are all alike, and names of 64 KiB."""
    wanted = b"same_name_with_some_length_000000"
    many = [b"same_name_with_some_length_%06d" % k for k in range(400_000)]
    began = time.process_time()
    assert near_names(wanted, many)[0] == many[0]
    assert near_names(b"a" * 65536, [b"a" * 65535]) == []
    assert near_names(b"a" * 128, [b"a" * 127 + b"%d" % k for k in range(10_000)])
    assert time.process_time() - began < 10


def test_modules_file_that_was_deleted_says_so(tmp_path: Path) -> None:
    source = f"{TELL} int main(void) {{ TELL(&main); {WAIT}"
    program = built(tmp_path, "gone", source)
    with Told(program) as child, procvm.open(child.pid) as process:
        program.unlink()
        module = process.modules()["gone"]
        assert module.is_deleted
        assert module.path == str(program)
        assert [row.address for row in process.symbols("gone!main")] == [child.at["&main"]]


def test_modules_of_one_file_name_are_told_apart_by_their_paths(tmp_path: Path) -> None:
    """The name that both have is ambiguous, and the candidates' names are keys."""
    paths = []
    for k in (1, 2):
        (tmp_path / f"{k}").mkdir()
        body = f"int twin_{k}(void) {{ return {k}; }}"
        paths.append(built(tmp_path / f"{k}", "libtwin.so", body, "-shared", "-fPIC"))
    source = f"{TELL} int twin_1(void), twin_2(void);\n"
    source += f"int main(void) {{ TELL(&twin_1); TELL(&twin_2); {WAIT}"
    program = built(tmp_path, "both", source, *map(str, paths))
    with Told(program) as child, procvm.open(child.pid) as process:
        modules = process.modules()
        with pytest.raises(AmbiguousSymbolError) as caught:
            modules["libtwin.so"]
        assert "libtwin.so" in modules
        names = [one.name for one in caught.value.candidates]
        assert names == [str(path) for path in paths]
        assert [modules[name].path for name in names] == names
        found = {row.module for row in process.symbols("libtwin.so!twin_?")}
        assert found == set(names)


def test_modules_without_pyelftools_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['elftools'] = None; sys.modules['elftools.elf.elffile'] = None\n"
        "import os, procvm\n"
        "with procvm.open(os.getpid()) as p:\n"
        "    for call in (p.modules, p.symbols):\n"
        "        try: call()\n"
        "        except procvm.UnsupportedError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.count("pip install 'procvm[symbols]'") == 2
