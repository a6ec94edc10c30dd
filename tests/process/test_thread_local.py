"""Thread-local variables by thread; each thread itself prints where it has its own."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import procvm
from procvm import (
    AmbiguousSymbolError,
    NoSuchProcessError,
    NoSuchSymbolError,
    NotStoppedError,
    NotTracedError,
    i64,
)
from tests.elf.cores import GDB
from tests.process.linked import built
from tests.support.child import Child
from tests.support.patience import PATIENCE

_LINKED = "__thread long linked_count = 20; long *linked(void) { return &linked_count; }"
_LATE = """
static __thread long both = 30;
__thread char room[5000];
__thread long late_count = 40;
long *late(void) { room[0]++; both++; return &late_count; }
"""
_NEXT = """
__thread char space[4000];
__thread long next_count = 50;
long *next(void) { space[0]++; return &next_count; }
"""
_PROGRAM = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>
__thread long own = 10;
__thread long aligned __attribute__((aligned(256))) = 11;
static __thread long both = 12;
long plain = 13;
long *linked(void);
static pthread_barrier_t done;
static long *(*late)(void);

static long task(void) { return syscall(SYS_gettid); }

static void *work(void *uses_late)
{
    own += task();
    printf("%ld own=%p aligned=%p linked_count=%p", task(), (void *)&own, (void *)&aligned,
           (void *)linked());
    if (uses_late) printf(" late_count=%p", (void *)late());
    puts("");
    fflush(stdout);
    pthread_barrier_wait(&done);
    if (task() != getpid()) for (;;) pause();
    return 0;
}

int main(int n, char **argv)
{
    pthread_t one, two;
    char byte;
    void *file = dlopen("./liblate.so", RTLD_NOW | RTLD_LOCAL);
    if (!file) { puts(dlerror()); return 1; }
    late = (long *(*)(void))dlsym(file, "late");
    both += plain;
    pthread_barrier_init(&done, 0, 2);
    pthread_create(&one, 0, work, "");
    pthread_barrier_wait(&done);
    pthread_create(&two, 0, work, 0);
    pthread_barrier_wait(&done);
    pthread_barrier_init(&done, 0, 1);
    work("");
    puts("ready");
    fflush(stdout);
    if (read(0, &byte, 1) != 1) return 0;
    dlclose(file);
    file = dlopen("./libnext.so", RTLD_NOW | RTLD_LOCAL);
    if (!file) return 2;
    printf("%p\\n", (void *)((long *(*)(void))dlsym(file, "next"))());
    fflush(stdout);
    return (int)read(0, &byte, 1);
}
"""

Places = dict[int, dict[str, int]]


@pytest.fixture
def child(tmp_path: Path) -> Iterator[tuple[Child, Places]]:
    for name, text in (("linked", _LINKED), ("late", _LATE), ("next", _NEXT)):
        built(tmp_path, f"lib{name}.so", text, "-shared", "-fPIC")
    built(tmp_path, "slots", _PROGRAM, "-g", "-pthread", "-L.", "-llinked", "-Wl,-rpath,$ORIGIN")
    with Child([str(tmp_path / "slots")], cwd=tmp_path) as child:
        places: Places = {}
        while (line := child.line()) != "ready":
            tid, *words = line.split()
            pairs = (word.partition("=") for word in words)
            places[int(tid)] = {name: int(place, 16) for name, _, place in pairs}
        assert len(places) == 3
        yield child, places


def test_thread_local_symbol_is_where_its_thread_says(
    child: tuple[Child, Places], tmp_path: Path
) -> None:
    """Of the program, of a linked library, and of one that dlopen loaded; also when saved."""
    target, places = child
    with procvm.attach(target.pid) as tracee:
        for tid, names in places.items():
            for name, place in names.items():
                assert tracee.symbol(name, tid=tid) == place, (tid, name)
            assert tracee.symbol("slots!own", tid=tid) == names["own"]
            assert tracee.vm.read_val(tracee.symbol("own", tid=tid), i64) == 10 + tid
        assert not tracee.is_stopped()
        assert tracee.symbol("plain", tid=target.pid) == tracee.symbol("plain")
        snapshot = tracee.snapshot()
        tracee.save(tmp_path / "core")
    with snapshot, procvm.open_core(tmp_path / "core") as core:
        for saved in (snapshot, core):
            for tid, names in places.items():
                for name, place in names.items():
                    assert saved.symbol(name, tid=tid) == place


def test_thread_local_symbol_that_a_thread_did_not_use_has_no_address(
    child: tuple[Child, Places],
) -> None:
    """Its memory is allocated at the first use; a block of a file that has gone is none."""
    target, places = child
    with procvm.attach(target.pid) as tracee:
        idle = next(tid for tid, names in places.items() if "late_count" not in names)
        with pytest.raises(NoSuchSymbolError, match=r"did not use a variable of liblate\.so"):
            tracee.symbol("late_count", tid=idle)
        target.send("")
        place = int(target.line(), 16)
        assert tracee.symbol("next_count", tid=target.pid) == place
        assert tracee.vm.read_val(place, i64) == 50
        for tid in places.keys() - {target.pid}:
            # One of them has the block of the file that had the same number before.
            with pytest.raises(NoSuchSymbolError, match=r"did not use a variable of libnext\.so"):
                tracee.symbol("next_count", tid=tid)
            with pytest.raises(NoSuchSymbolError):
                tracee.symbol("late_count", tid=tid)


def test_thread_local_static_of_two_files_is_that_of_the_program(
    child: tuple[Child, Places],
) -> None:
    """The library's one by its file."""
    target, places = child
    with procvm.attach(target.pid) as tracee:
        read = tracee.vm.read_val
        assert read(tracee.symbol("both", tid=target.pid), i64) == 25
        assert read(tracee.symbol("liblate.so!both", tid=target.pid), i64) == 31
        for tid in places:
            assert read(tracee.symbol("both", tid=tid), i64) == (25 if tid == target.pid else 12)


def test_thread_local_statics_of_one_file_are_ambiguous(tmp_path: Path) -> None:
    """The candidates lead to both."""
    (tmp_path / "other.c").write_text(
        "static __thread long twin = 2; long *f(void) { return &twin; }"
    )
    source = """
    #include <stdio.h>
    #include <unistd.h>
    static __thread long twin = 1; long *f(void);
    int main(void) { char b; printf("%p %p\\n", (void *)&twin, (void *)f()); fflush(stdout);
                     return (int)read(0, &b, 1); }
    """
    program = built(tmp_path, "twins", source, "other.c")
    with Child([str(program)]) as child:
        places = {int(one, 16) for one in child.line().split()}
        with procvm.attach(child.pid) as tracee:
            with pytest.raises(AmbiguousSymbolError) as caught:
                tracee.symbol("twin", tid=child.pid)
            assert {one.address for one in caught.value.candidates} == places
            for one in caught.value.candidates:
                assert tracee.symbol(one.name, tid=child.pid) == one.address


def test_thread_of_a_symbol_must_exist_and_be_readable(child: tuple[Child, Places]) -> None:
    """A process that runs has no registers to read, and says what to do."""
    target, _ = child
    with procvm.open(target.pid) as process:
        with pytest.raises(NoSuchSymbolError, match="thread-local in slots"):
            process.symbol("own")
        with pytest.raises(NotTracedError):
            process.symbol("own", tid=target.pid)
        with process.snapshot() as snapshot, pytest.raises(NotStoppedError):
            snapshot.symbol("own", tid=target.pid)
    with procvm.attach(target.pid) as tracee:
        with pytest.raises(NoSuchProcessError):
            tracee.symbol("own", tid=1)
        with pytest.raises(TypeError):
            tracee.symbol("own", tid="1")  # type: ignore[arg-type]


@pytest.mark.skipif(GDB is None, reason="not installed: gdb")
def test_thread_local_symbol_is_where_gdb_says(child: tuple[Child, Places]) -> None:
    """Thread by thread; where gdb has no libthread_db that fits, it says nothing."""
    target, places = child
    assert GDB is not None
    done = subprocess.run(
        [
            *(GDB, "-nx", "-batch", "-p", str(target.pid)),
            *("-iex", "set debuginfod enabled off", "-ex", "thread apply all print &own"),
        ],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    found = re.findall(r"LWP (\d+).*\n\$\d+ = .*?(0x[0-9a-f]+)", done.stdout)
    if not found:
        pytest.skip("gdb finds no thread-local variables here: libthread_db does not fit")
    assert {int(tid): int(place, 16) for tid, place in found} == {
        tid: names["own"] for tid, names in places.items()
    }


@pytest.mark.parametrize(
    ("compiler", "flags"),
    [("cc", ("-static",)), ("musl-gcc", ()), ("musl-gcc", ("-static",)), ("cc", ("-no-pie",))],
)
def test_thread_local_symbol_of_programs_that_are_linked_otherwise(
    tmp_path: Path, compiler: str, flags: tuple[str, ...]
) -> None:
    """The linker itself places the block of a program, whichever C library it has."""
    source = """
    #include <stdio.h>
    #include <unistd.h>
    __thread char odd[3]; __thread long own __attribute__((aligned(64))) = 7;
    int main(void) { char b; printf("%p %p\\n", (void *)&own, (void *)odd); fflush(stdout);
                     return (int)read(0, &b, 1); }
    """
    program = built(tmp_path, "single", source, *flags, compiler=compiler)
    with Child([str(program)]) as child:
        own, odd = (int(one, 16) for one in child.line().split())
        with procvm.attach(child.pid) as tracee:
            assert tracee.symbol("own", tid=child.pid) == own
            assert tracee.symbol("odd", tid=child.pid) == odd
