"""Core files from elsewhere: 32-bit, compressed, cut off, of a crash, with pages left out."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import re
import resource
import shutil
import signal
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import procvm
from procvm import MalformedError, PageFaultError, UnsupportedError, i32, u8
from tests.elf.cores import gcore, gdb, load, made
from tests.process.test_own_means import free_descriptors
from tests.support.playground import PAGE, Playground

CRASHER = r"""
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
const char message[] = "the disk is full";
char pad[8192];
int value = 4711;
char *heap;
int main(int argc, char **argv) {
    heap = malloc(100);
    strcpy(heap, "in the heap");
    printf("%lx %lx %lx %lx\n", (unsigned long)message, (unsigned long)&value,
           (unsigned long)heap, (unsigned long)&heap);
    fflush(stdout);
    char c;
    while (read(0, &c, 1) == 1) {
        if (c == 'a') abort();
        if (c == 's') *(volatile int *)0x1234 = 1;
        if (c == 'n') *(volatile int *)(argc ? 0x1234567812345678 : 0) = 1;
        if (c == 'k') raise(SIGSEGV);
        if (c == 'i') __builtin_trap();
    }
    return 0;
}
"""


class Crasher:
    """A program that ends by a signal, in a folder where its core file is left."""

    def __init__(self, folder: Path, *flags: str, source: str = CRASHER) -> None:
        self.folder = folder
        self.program = folder / "crasher"
        (folder / "crasher.c").write_text(source)
        command = ["cc", "-O1", "-g", "-w", *flags, "-o", str(self.program), f"{folder}/crasher.c"]
        built = subprocess.run(command, capture_output=True, text=True, check=False)
        if built.returncode:
            pytest.skip(f"cc {' '.join(flags)} does not work here")

    def run(self, letter: bytes) -> tuple[Path, list[int]]:
        """Returns the core file of a run, and the addresses that the program printed."""
        if Path("/proc/sys/kernel/core_pattern").read_text().strip() != "core":
            pytest.skip("core files are not left in the folder of the process")
        unlimited = (resource.RLIM_INFINITY,) * 2
        with subprocess.Popen(
            [self.program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=self.folder,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CORE, unlimited),  # noqa: PLW1509
        ) as child:
            said, _ = child.communicate(letter)
        cores = [path for path in self.folder.iterdir() if re.fullmatch(r"core(\.\d+)?", path.name)]
        if not cores:
            pytest.skip("the kernel wrote no core file")
        return cores[0], [int(word, 16) for word in said.split()]


@pytest.mark.parametrize("flags", [(), ("-m32",)])
@pytest.mark.parametrize(
    ("letter", "signo", "address"),
    [(b"a", signal.SIGABRT, None), (b"s", signal.SIGSEGV, 0x1234), (b"k", signal.SIGSEGV, None)],
)
def test_core_of_a_crash_tells_its_signal_and_the_address(
    tmp_path: Path, flags: tuple[str, ...], letter: bytes, signo: int, address: int | None
) -> None:
    """The same after it was saved again; a signal that was sent has no address."""
    path, _ = Crasher(tmp_path, *flags).run(letter)
    with procvm.open_core(path) as core:
        assert (core.signal, core.fault_address) == (signo, address)
        assert core.address_size == (4 if flags else 8)
        core.save(tmp_path / "again")
    with procvm.open_core(tmp_path / "again") as core:
        assert (core.signal, core.fault_address) == (signo, address)
    said = gdb("p $_siginfo.si_signo", program=None, core=tmp_path / "again")
    assert f"= {int(signo)}" in said


def test_core_of_an_access_to_an_address_that_is_not_canonical_tells_no_address(
    tmp_path: Path,
) -> None:
    if os.uname().machine != "x86_64":
        pytest.skip("about addresses of x86-64")
    path, _ = Crasher(tmp_path).run(b"n")
    with procvm.open_core(path) as core:
        # SIGBUS where the compiler reached it by the frame pointer.
        assert core.signal in (signal.SIGSEGV, signal.SIGBUS)
        assert core.fault_address is None


def test_core_and_snapshot_of_no_crash_tell_no_signal(
    playground: Playground, tmp_path: Path
) -> None:
    with procvm.open(playground.pid) as process:
        process.save(tmp_path / "core")
        with process.snapshot([]) as kept:
            assert (kept.signal, kept.fault_address, kept.address_size) == (None, None, 8)
    with procvm.open_core(tmp_path / "core") as core:
        assert (core.signal, core.fault_address) == (None, None)


@pytest.mark.parametrize("flags", [(), ("-m32",), ("-Wl,--build-id=none",)])
def test_core_of_the_kernel_reads_unchanged_pages_from_the_file(
    tmp_path: Path, flags: tuple[str, ...]
) -> None:
    path, (message, value, heap, _) = Crasher(tmp_path, *flags).run(b"a")
    with procvm.open_core(path) as core:
        assert core.vm.read_cstring(message, 40) == b"the disk is full"
        assert core.vm.read_val(value, i32) == 4711
        assert core.vm.read_cstring(heap, 40) == b"in the heap"
        assert message in [int(hit) for hit in core.vm.search(b"the disk is full")]
        (text,) = (
            one for one in core.maps().filter(name="crasher") if one.perms & procvm.Perms.EXEC
        )
        data = core.vm.read_bytes(text.start, text.size)
        disk = (tmp_path / "crasher").read_bytes()
        assert data.rstrip(b"\0") in disk
        core.save(tmp_path / "again")
    said = gdb(f"x/s {message:#x}", core=tmp_path / "again")
    assert "the disk is full" in said


def _rebuilt(crasher: Crasher) -> dict[str, Any]:
    Crasher(crasher.folder, source=CRASHER.replace("4711", "4712"))
    return {}


def _removed(crasher: Crasher) -> dict[str, Any]:
    crasher.program.unlink()
    return {}


def _fifo(crasher: Crasher) -> dict[str, Any]:
    crasher.program.unlink()
    os.mkfifo(crasher.program)
    return {}


def _cut(crasher: Crasher) -> dict[str, Any]:
    os.truncate(crasher.program, PAGE // 2)
    return {}


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (_rebuilt, "crasher is another build"),
        (_removed, "crasher is not here"),
        (_fifo, "not here"),
    ],
)
def test_core_whose_file_is_not_the_one_that_ran_faults_and_names_it(
    tmp_path: Path, spoil: Callable[[Crasher], dict[str, Any]], why: str
) -> None:
    crasher = Crasher(tmp_path)
    path, (message, value, *_) = crasher.run(b"a")
    spoil(crasher)
    with procvm.open_core(path) as core:
        with pytest.raises(PageFaultError, match=why) as caught:
            core.vm.read_bytes(message, 8)
        assert caught.value.address == message
        assert core.vm.read_val(value, i32) == 4711


def test_core_opened_without_descriptors_says_so_and_not_that_a_file_is_gone(
    tmp_path: Path,
) -> None:
    path, (message, *_) = Crasher(tmp_path).run(b"a")
    procvm.open_core(path).close()  # what it imports is open no more
    with free_descriptors(1):
        core = procvm.open_core(path)
    with core, pytest.raises(PageFaultError, match="crasher cannot be opened: Too many open files"):
        core.vm.read_bytes(message, 8)


def test_core_without_a_build_id_faults_if_the_file_was_written_later(tmp_path: Path) -> None:
    crasher = Crasher(tmp_path, "-Wl,--build-id=none")
    path, (message, *_) = crasher.run(b"a")
    later = path.stat().st_mtime_ns + 10**9
    os.utime(crasher.program, ns=(later, later))
    with (
        procvm.open_core(path) as core,
        pytest.raises(PageFaultError, match="has no build ID and is not the same file"),
    ):
        core.vm.read_bytes(message, 8)


def test_core_with_exe_and_sysroot_reads_files_from_there(tmp_path: Path) -> None:
    crasher = Crasher(tmp_path)
    path, (message, *_) = crasher.run(b"a")
    moved = tmp_path / "elsewhere"
    there = moved / str(crasher.program).lstrip("/")
    there.parent.mkdir(parents=True)
    shutil.move(crasher.program, there)
    for options in (
        {"exe": there},
        {"exe": str(there)},
        {"sysroot": moved},
        {"sysroot": f"{moved}/"},
    ):
        with procvm.open_core(path, **options) as core:
            assert core.vm.read_cstring(message, 40) == b"the disk is full"
            assert core.symbol("crasher!message") == message
    with procvm.open_core(path) as core, pytest.raises(PageFaultError, match="not here"):
        core.vm.read_bytes(message, 8)
    wrong: list[dict[str, Any]] = [{"exe": 5}, {"sysroot": 1.5}]
    for options in wrong:
        with pytest.raises(TypeError, match="must be a path"):
            procvm.open_core(path, **options)


def test_core_does_not_read_pages_from_a_file_that_may_have_been_changed(tmp_path: Path) -> None:
    """A core without private memory leaves out relocated data, which is not what the file has."""
    crasher = Crasher(tmp_path)
    with subprocess.Popen(
        [crasher.program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=tmp_path
    ) as child:
        assert child.stdout is not None
        _, value, *_ = (int(word, 16) for word in child.stdout.readline().split())
        Path(f"/proc/{child.pid}/coredump_filter").write_text("0x10")
        resource.prlimit(child.pid, resource.RLIMIT_CORE, (resource.RLIM_INFINITY,) * 2)
        child.communicate(b"a")
    if not (tmp_path / "core").exists():
        pytest.skip("the kernel wrote no core file with that name")
    with (
        procvm.open_core(tmp_path / "core") as core,
        pytest.raises(PageFaultError, match="may have been changed"),
    ):
        core.vm.read_val(value, i32)


COMPRESSED: dict[str, Callable[[bytes], bytes]] = {
    "zstd": lambda data: b"\x28\xb5\x2f\xfd\x04\x58" + data,
    "lz4": lambda data: b"\x04\x22\x4d\x18\x64\x40" + data,
    "gzip": gzip.compress,
    "xz": lzma.compress,
    "bzip2": bz2.compress,
}


@pytest.mark.parametrize("name", COMPRESSED)
def test_open_core_of_a_compressed_file_names_the_compression(tmp_path: Path, name: str) -> None:
    path = tmp_path / "packed"
    path.write_bytes(COMPRESSED[name](made([load(0x10000, PAGE)]) + bytes(100)))
    with pytest.raises(UnsupportedError, match=rf"packed is compressed with {name}"):
        procvm.open_core(path)


def test_core_that_was_cut_off_names_that_where_bytes_are_missing(
    playground: Playground, tmp_path: Path
) -> None:
    """The kernel writes the headers and notes first, gdb the notes last, procvm both."""
    path, _ = Crasher(tmp_path).run(b"a")
    with procvm.open_core(path) as core:
        last = core.kept_ranges()[-1]
    size = path.stat().st_size
    # The page of [vsyscall], which is not user space, may be the last.
    cut = size - 2 * PAGE
    os.truncate(path, cut)
    why = rf"cut off: it has {cut} bytes"
    with procvm.open_core(path) as core, pytest.raises(PageFaultError, match=why) as caught:
        core.vm.read_bytes(last[0], last[1] - last[0])
    assert caught.value.copied_len == last[1] - last[0] - PAGE
    gcore(playground.pid, tmp_path / "gdbs")
    with procvm.open(playground.pid) as process:
        process.save(tmp_path / "own")
    for name in ("gdbs", "own"):
        for n in (3 * PAGE, (tmp_path / name).stat().st_size // 2):
            os.truncate(tmp_path / name, min(n, (tmp_path / name).stat().st_size - 1))
            with pytest.raises(MalformedError, match="cut off"):
                procvm.open_core(tmp_path / name)


def test_core_with_segments_without_bytes_is_opened_and_searched_at_once(tmp_path: Path) -> None:
    """Terabytes that the file does not have are neither kept nor walked."""
    rows = [load(k << 40, 1 << 40) for k in range(1, 100)]
    path = tmp_path / "core"
    path.write_bytes(made(rows))
    with procvm.open_core(path) as core:
        assert core.kept_len == 0
        assert list(core.vm.search(b"x")) == []
        with pytest.raises(PageFaultError):
            core.vm.read_val(1 << 40, u8)


def test_read_cstring_at_the_end_of_a_segment_needs_no_byte_after_the_nul(tmp_path: Path) -> None:
    data = b"text\0more"
    path = tmp_path / "core"
    head = made([load(0x10000, len(data), 4096, len(data))])
    path.write_bytes(head.ljust(4096, b"\0") + data)
    with procvm.open_core(path) as core:
        assert core.vm.read_cstring(0x10000, 100) == b"text"
        with pytest.raises(PageFaultError) as caught:
            core.vm.read_cstring(0x10005, 100)
        assert (caught.value.address, caught.value.copied_len) == (0x10009, 4)


NARROW = CRASHER.replace("    char c;\n", "    char c;\n    if (argc > 1) for (;;) ;\n")


def test_core_of_a_32_bit_process_is_one_for_gdb_and_for_us(tmp_path: Path) -> None:
    """Class, machine and registers, of a held process, a snapshot of it, and gdb's own core."""
    crasher = Crasher(tmp_path, "-m32", source=NARROW)
    with subprocess.Popen([crasher.program, "spin"], stdout=subprocess.PIPE) as child:
        try:
            assert child.stdout is not None
            message, value, heap, _ = (int(word, 16) for word in child.stdout.readline().split())
            with procvm.attach(child.pid) as tracee, tracee.stopped():
                rip = tracee.registers()
                tracee.save(tmp_path / "saved")
                with tracee.snapshot() as kept:
                    assert kept.address_size == 4
                    kept.save(tmp_path / "kept")
                    registers = kept.registers()
            gdbs = gcore(child.pid, tmp_path / "gcore")
        finally:
            child.kill()
    at = rip.get("eip", rip.get("rip"))
    assert registers["eip"] == at
    for path in (tmp_path / "saved", tmp_path / "kept"):
        head = path.read_bytes()[:20]
        assert (head[4], struct.unpack_from("<HH", head, 16)) == (1, (4, 3))
        with procvm.open_core(path) as core:
            assert core.address_size == 4
            assert core.registers() == registers
            assert core.vm.read_val(value, i32) == 4711
            assert core.vm.read_cstring(message, 40) == b"the disk is full"
            assert core.symbol("crasher!value") == value
        said = gdb("p/x $eip", "p/x $esp", "p value", program=str(crasher.program), core=path)
        assert f"= {at:#x}" in said
        assert f"= {registers['esp']:#x}" in said
        assert "= 4711" in said
    with procvm.open_core(gdbs) as core:
        assert core.address_size == 4
        assert core.registers()["eip"] > 0
        assert core.vm.read_cstring(heap, 40) == b"in the heap"


SECRET = r"""
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
int main(void) {
    char c, *at = mmap(0, 8192, 3, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    madvise(at, 4096, MADV_DONTDUMP);
    for (int k = 0; k < 16; k++) at[k] = "q7Zk20vXw9LmP4tR"[15 - k];
    strcpy(at + 4096, "not a secret");
    printf("%lx\n", (unsigned long)at); fflush(stdout);
    read(0, &c, 1);
}
"""  # noqa: S105 (a program)


def test_save_leaves_out_memory_that_is_marked_dontdump_unless_it_is_asked_for(
    tmp_path: Path,
) -> None:
    """Also where its range is named. A snapshot in memory has it, so that restore is whole."""
    crasher = Crasher(tmp_path, source=SECRET)
    with (
        subprocess.Popen([crasher.program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child,
        procvm.open(child.pid) as process,
    ):
        assert child.stdout is not None
        at = int(child.stdout.readline(), 16)
        ranges = [(at, at + 2 * PAGE)]
        key = b"q7Zk20vXw9LmP4tR"[::-1]
        for name, options in (("plain", {}), ("named", {"ranges": ranges})):
            for dontdump in (False, True):
                process.save(tmp_path / name, dontdump=dontdump, **options)  # type: ignore[arg-type]
                data = (tmp_path / name).read_bytes()
                assert (key in data, b"not a secret" in data) == (dontdump, True)
                with process.snapshot(**options) as kept:  # type: ignore[arg-type]
                    assert kept.vm.read_bytes(at, 16) == key
                    kept.save(tmp_path / name, dontdump=dontdump)
                data = (tmp_path / name).read_bytes()
                assert (key in data, b"not a secret" in data) == (dontdump, True)
        child.communicate(b"x")


def test_snapshot_and_save_with_exclude_leave_ranges_out(
    playground: Playground, tmp_path: Path
) -> None:
    at = playground.layout("rw rw rw")
    out = [(at + 10, at + 20), range(at + PAGE, at + 2 * PAGE)]
    expected = [(at, at + 10), (at + 20, at + PAGE), (at + 2 * PAGE, at + 3 * PAGE)]
    ranges = [(at, at + 3 * PAGE)]
    with procvm.open(playground.pid) as process:
        with process.snapshot(ranges, exclude=out) as kept:
            assert kept.kept_ranges() == expected
        process.save(tmp_path / "core", ranges, exclude=out)
        with procvm.open_core(tmp_path / "core") as core:
            assert core.kept_ranges() == expected
        vma = process.find_vma(at)
        with process.snapshot(exclude=[vma]) as kept:
            assert at not in [start for start, _ in kept.kept_ranges()]
        for wrong in ([(at + 1, at)], [5], 7):
            with pytest.raises((TypeError, ValueError)):
                process.snapshot(exclude=wrong)  # type: ignore[arg-type]
