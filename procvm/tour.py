"""A walk through the main job, on children of its own: ``python -m procvm.tour``.

It uses public names only, and prints what they really gave.
"""

from __future__ import annotations

import ctypes
import io
import mmap
import shutil
import subprocess
import sys
import tempfile
from contextlib import ExitStack, contextmanager, redirect_stdout
from typing import TYPE_CHECKING

import procvm
from procvm import Mapped, Perms, i32, u64

if TYPE_CHECKING:
    from collections.abc import Generator

# The child keeps a structure in one writable page, followed by a read-only
# page and then by nothing, and says where.
_CHILD = """
import ctypes, mmap, signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the tour, which ends this
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
page = mmap.PAGESIZE
base = libc.mmap(None, 3 * page, 3, 0x22, -1, 0)
libc.munmap(base + 2 * page, page)
class Account(ctypes.Structure):
    _fields_ = [("number", ctypes.c_uint64), ("balance", ctypes.c_int32),
                ("owner", ctypes.c_char * 16)]
account = Account.from_address(base)
account.number, account.balance, account.owner = 4711, -250, sys.argv[1].encode()
ctypes.memmove(base + page, b"this page is read-only", 23)
libc.mprotect(base + page, page, 1)
print(hex(base), flush=True)
for line in sys.stdin:
    print(account.number, account.balance, account.owner.decode(), flush=True)
"""


# Four threads add to one counter by compare-and-exchange, until a line comes
# in; then it says how often they did.
_COUNTER = """
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
static uint64_t counter;
static int enough;
static void *count(void *done)
{
    while (!__atomic_load_n(&enough, __ATOMIC_SEQ_CST)) {
        uint64_t old = __atomic_load_n(&counter, __ATOMIC_SEQ_CST);
        if (__sync_bool_compare_and_swap(&counter, old, old + 1))
            ++*(uint64_t *)done;
    }
    return 0;
}
int main(void)
{
    pthread_t threads[4];
    uint64_t done[4] = {0}, sum = 0;
    for (int k = 0; k < 4; k++) pthread_create(&threads[k], 0, count, &done[k]);
    printf("%p\\n", (void *)&counter);
    fflush(stdout);
    getchar();
    enough = 1;
    for (int k = 0; k < 4; k++) { pthread_join(threads[k], 0); sum += done[k]; }
    printf("%lu %lu\\n", (unsigned long)sum, (unsigned long)counter);
    return 0;
}
"""


class Account(ctypes.Structure):
    """The structure that the child keeps."""

    _fields_ = (
        ("number", ctypes.c_uint64),
        ("balance", ctypes.c_int32),
        ("owner", ctypes.c_char * 16),
    )


class _Child:
    """A child and where its pages are."""

    def __init__(self, popen: subprocess.Popen[str]) -> None:
        self._popen = popen
        self.pid = popen.pid
        self.base = int(self._line(), 16)

    def _line(self) -> str:
        stdout = self._popen.stdout
        return stdout.readline().strip() if stdout is not None else ""

    def says(self) -> str:
        """Returns what the child itself sees in its structure."""
        if self._popen.stdin is not None:
            self._popen.stdin.write("\n")
            self._popen.stdin.flush()
        return self._line()


@contextmanager
def _child(owner: str) -> Generator[_Child]:
    with subprocess.Popen(
        [sys.executable, "-I", "-c", _CHILD, owner],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as popen:
        try:
            yield _Child(popen)
        finally:
            popen.kill()


def _title(text: str) -> None:
    print(f"\n{text}\n{'-' * len(text)}")


def main() -> None:
    """Runs the tour."""
    with ExitStack() as stack:
        ada, bob = stack.enter_context(_child("ada")), stack.enter_context(_child("bob"))
        process = stack.enter_context(procvm.open(ada.pid))
        other = stack.enter_context(procvm.open(bob.pid))
        vm, base, page = process.vm, ada.base, mmap.PAGESIZE

        _look(process, base)

        _title("4. A typed write, and a read-only page, written as a debugger would")
        vm.write_val(base + 8, i32, 1_000_000)
        print(f"vm.write_val({base + 8:#x}, i32, 1000000)")
        print(f"the child itself now says:          {ada.says()}")
        try:
            vm.write_bytes(base + page + 13, b"WRITTEN! ")
        except procvm.PageFaultError as fault:
            print(f"without forced(): {type(fault).__name__}, copied_len {fault.copied_len}")
        vm.forced().write_bytes(base + page + 13, b"WRITTEN! ")
        print(f"with forced():    {vm.read_cstring(base + page, 64)!r}")

        _title(f"5. A copy from process {other.pid} to process {process.pid}")
        source, target = other.vm.reader(bob.base, 28), vm.writer(base, 28)
        print(f"reader.read_fallible(writer) -> {source.read_fallible(target)} bytes")
        print(f"the first child itself now says:    {ada.says()}")

        _show_the_past(process, base)
    _show_atomics()
    print("\nAll children ended. The README and docs/ go on from here.")


def _look(process: Mapped, base: int) -> None:
    """Shows what can be read: of a live process, of a snapshot, of a core file."""
    vm, page = process.vm, mmap.PAGESIZE
    _title(f"1. The mappings of process {process.pid}")
    maps = process.maps()
    writable = maps.filter(perms="rw")
    size = sum(vma.size for vma in maps if vma.perms & Perms.READ)
    print(f"{len(maps)} mappings, {len(writable)} of them writable, {size >> 10} KiB readable")
    print(f"its structure is in   {process.find_vma(base)}")
    print(f"the page after it is {process.find_vma(base + page)}")

    _title("2. Typed reads, and a C structure")
    print(f"vm.read_val({base:#x}, u64)      -> {vm.read_val(base, u64)}")
    print(f"vm.read_val({base + 8:#x}, i32)      -> {vm.read_val(base + 8, i32)}")
    account = vm.reader(base, 64).read_val(Account)
    print(f"reader.read_val(Account) -> number {account.number}, owner {account.owner!r}")

    _title("3. A read that runs into a hole")
    buffer = bytearray(64)
    reader = vm.reader(base + 2 * page - 24, 64)
    try:
        reader.read_fallible(procvm.VmWriter.from_buffer(buffer))
    except procvm.PageFaultError as fault:
        print(f"address {fault.address:#x}, copied_len {fault.copied_len}: 24 of 64 arrived,")
        print(f"and the reader is after them, with {reader.remain()} bytes left")


def _show_the_past(process: procvm.Process, base: int) -> None:
    _title("6. The same over a snapshot, and over a core file")
    with tempfile.TemporaryDirectory() as folder, process.snapshot() as snapshot:
        path = f"{folder}/core"
        kept_len = snapshot.save(path)
        print(f"a core file of {kept_len >> 10} KiB of memory, which gdb opens as well")
        now = _said(process, base)
        print(f"parts 1 to 3 of the snapshot: {_same(_said(snapshot, base), now)}")
        try:
            with procvm.open_core(path) as core:
                print(f"parts 1 to 3 of the file:     {_same(_said(core, base), now)}")
        except procvm.UnsupportedError as error:
            print(f"left out: {error}")


def _said(process: Mapped, base: int) -> str:
    said = io.StringIO()
    with redirect_stdout(said):
        _look(process, base)
    return said.getvalue()


def _same(one: str, other: str) -> str:
    return f"the same {one.count(chr(10))} lines" if one == other else "OTHERS"


def _show_atomics() -> None:
    _title("7. A compare-and-exchange on a counter of four running threads")
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        print(
            "left out: there is no C compiler to build the child with (Debian: apt-get install gcc)"
        )
        return
    with tempfile.TemporaryDirectory() as folder:
        program = f"{folder}/counter"
        subprocess.run(
            [compiler, "-O1", "-pthread", "-x", "c", "-", "-o", program],
            input=_COUNTER,
            text=True,
            check=True,
        )
        with procvm.spawn([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as tracee:
            counter = int(tracee.stdout.readline(), 16)
            ours = 0
            while ours < 300:
                old = tracee.vm.read_val(counter, u64)
                _, stored = tracee.vm.atomic_compare_exchange(counter, u64, old, old + 1)
                if not stored:
                    # In a hold no thread of the target can write first.
                    with tracee.stopped() as held:
                        old = held.vm.atomic_load(counter, u64)
                        _, stored = held.vm.atomic_compare_exchange(counter, u64, old, old + 1)
                ours += stored
            tracee.stdin.write(b"\n")
            tracee.stdin.flush()
            theirs, total = map(int, tracee.stdout.readline().split())
    print(f"its threads added {theirs}, we added {ours} while they ran,")
    print(f"and the counter is {total}: {'exact' if theirs + ours == total else 'WRONG'}")


if __name__ == "__main__":
    main()
