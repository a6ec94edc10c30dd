"""Variables that the dynamic linker or several files make ambiguous."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

import procvm
from procvm import AmbiguousSymbolError, NoSuchSymbolError
from tests.support.child import Child

_LIBRARY = """
struct both { double wide; };
struct both twice = {2.5};
static float hidden = 1.5f;
int shared_count = 30;
float *keep(void) { hidden += 0; return &hidden; }
int *shared(void) { return &shared_count; }
"""
_PROGRAM = """
#include <stdio.h>
#include <unistd.h>
struct first { int narrow; };
struct first twice = {7};
static long several = 1;
extern int shared_count;
long *second(void); float *keep(void);
int main(void)
{
    char byte;
    shared_count += 5;
    puts("ready"); fflush(stdout);
    while (read(0, &byte, 1) > 0) twice.narrow++;
    return (int)(several++ + *second() + (long)*keep());
}
"""
_SECOND = """
static short several = 2;
static long its = 3;
long *second(void) { its += several++; return &its; }
"""


@pytest.fixture(scope="module")
def child(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    folder = tmp_path_factory.mktemp("linked")
    for name, text in (("lib", _LIBRARY), ("main", _PROGRAM), ("second", _SECOND)):
        (folder / f"{name}.c").write_text(text)
    build(folder, "-shared", "-fPIC", "-o", "libtwo.so", "lib.c")
    build(
        folder,
        "-no-pie",
        "-o",
        "linked",
        "main.c",
        "second.c",
        "-L.",
        "-l:libtwo.so",
        "-Wl,-rpath,$ORIGIN",
    )
    with Child([str(folder / "linked")]) as child:
        assert child.line() == "ready"
        yield child


def build(folder: Path, *arguments: str) -> None:
    subprocess.run(["cc", "-g", "-O0", *arguments], check=True, cwd=folder)


def test_variable_of_two_files_has_the_type_of_the_file_that_is_meant(child: Child) -> None:
    """The program's own first; with a file that of the file, and its static too."""
    with procvm.open(child.pid) as process:
        assert process.value("twice.narrow") == 7
        assert process.value("libtwo.so!twice.wide") == 2.5
        assert process.value("linked!twice").narrow == 7
        assert process.value("hidden") == process.value("libtwo.so!hidden") == 1.5


def test_variable_that_was_copied_into_the_program_is_the_copy(child: Child) -> None:
    """A copy relocation: the library's debug information, and the program's address."""
    with procvm.open(child.pid) as process:
        program = process.modules()["linked"]
        for path in ("shared_count", "libtwo.so!shared_count"):
            assert process.value(path) == 35
            assert process.variable(path).address in program


def test_variable_of_two_statics_is_ambiguous(child: Child) -> None:
    """As for `symbol`; a candidate is never read with the type of the other."""
    with procvm.open(child.pid) as process:
        with pytest.raises(AmbiguousSymbolError) as caught:
            process.value("several")
        read = []
        for one in caught.value.candidates:
            with suppress(NoSuchSymbolError):
                read.append(process.value(one.name))
                assert process.variable(one.name).address == one.address
        assert set(read) <= {1, 2}
        assert read
