"""What is measured against: the target, the rivals in C, the peers."""

from __future__ import annotations

import ctypes
import os
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from clock import Run

__all__ = ["Peer", "Rival", "Stopper", "Target", "compiled"]

_HERE = Path(__file__).parent
_AT_RANDOM = 25
_TOKEN_LEN = 16


@contextmanager
def compiled() -> Generator[tuple[Path, ctypes.CDLL]]:
    """Gives the target program and the library of rivals, made for this run."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        sys.exit(
            "no C compiler: the rivals are written in C (Debian: apt-get install gcc libc6-dev)"
        )
    with tempfile.TemporaryDirectory(prefix="procvm-bench-") as folder:
        program, library = Path(folder, "target"), Path(folder, "rivals.so")
        flags = [compiler, "-O2", "-Wall", "-Wextra", "-Werror"]
        subprocess.run([*flags, "-pthread", "-o", program, _HERE / "target.c"], check=True)
        rivals = [_HERE / "rivals.c", _HERE / "tracing.c"]
        subprocess.run([*flags, "-shared", "-fPIC", "-o", library, *rivals], check=True)
        yield program, ctypes.CDLL(str(library))


class Target:
    """A child whose pages are all there; a context manager that ends it.

    Args:
        program: target.c, compiled.
        n: Bytes that it maps.
        how: What it does besides, as target.c takes it; it sleeps if nothing is said.
    """

    def __init__(self, program: Path, n: int, *how: str) -> None:
        self._popen = subprocess.Popen(
            [program, str(n), *how], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._popen.stdout is not None
        self.pid = self._popen.pid
        self.address = int(self._popen.stdout.readline())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(ProcessLookupError):
            self._popen.kill()
        self._popen.communicate()


class _RivalTarget(ctypes.Structure):
    """``struct target`` of rivals.c."""

    _fields_ = (
        ("pid", ctypes.c_int),
        ("pidfd", ctypes.c_int),
        ("mem", ctypes.c_int),
        ("maps", ctypes.c_int),
        ("token_address", ctypes.c_uint64),
        ("token", ctypes.c_ubyte * _TOKEN_LEN),
    )


def _token_address(pid: int) -> int:
    entries = struct.iter_unpack("@NN", Path(f"/proc/{pid}/auxv").read_bytes())
    address: int = next(value for key, value in entries if key == _AT_RANDOM)
    return address


class Rival:
    """The functions of rivals.c on one process, as contenders' `run`."""

    def __init__(self, library: ctypes.CDLL, pid: int) -> None:
        self._library = library
        self.mem = os.open(f"/proc/{pid}/mem", os.O_RDWR | os.O_CLOEXEC)
        maps = os.open(f"/proc/{pid}/maps", os.O_RDONLY | os.O_CLOEXEC)
        at = _token_address(pid)
        token = (ctypes.c_ubyte * _TOKEN_LEN)(*os.pread(self.mem, _TOKEN_LEN, at))
        self._target = _RivalTarget(pid, os.pidfd_open(pid), self.mem, maps, at, token)

    def gather(self, addresses: Any, own: Any, size: int) -> float:
        """Reads an element of `size` bytes at each address of an array; returns the ns that took.

        Args:
            addresses: A numpy array of 64-bit words.
            own: Where they go, one behind the other; a numpy array as well.
            size: Bytes of each.
        """
        function = self._library["readv_at"]
        function.restype = ctypes.c_int64
        at, to = (ctypes.c_void_p(array.ctypes.data) for array in (addresses, own))
        n = ctypes.c_uint64(len(addresses))
        # Both arrays are this function's arguments, and live as long as it runs.
        took: int = function(ctypes.byref(self._target), at, to, ctypes.c_uint64(size), n)
        if took < 0:
            raise RuntimeError("readv_at failed")
        return took

    def run(self, name: str, address: int, own: Any, size: int, stride: int) -> Run:
        """Returns a run of the function `name`, which fails loudly."""
        function = self._library[name]
        function.restype = ctypes.c_int64
        function.argtypes = (
            ctypes.POINTER(_RivalTarget),
            ctypes.c_uint64,
            ctypes.c_void_p,
            *[ctypes.c_uint64] * 3,
        )
        at = ctypes.addressof(own)

        def run(n: int) -> float:
            took: int = function(ctypes.byref(self._target), address, at, size, stride, n)
            # `own` is named so that it lives as long as its address is used.
            if took < 0:
                raise RuntimeError(f"{name} at {address:#x} failed, {own!r}")
            return took

        return run


class Stopper:
    """The functions of tracing.c on one process; this thread is the tracer."""

    def __init__(self, library: ctypes.CDLL, target: Target) -> None:
        self._library = library
        self._target = target

    def times(self, name: str) -> Callable[[int], list[int]]:
        """Returns what makes the function `name` do its job, and returns the ns of each time."""
        function = self._library[name]
        function.argtypes = (
            ctypes.c_int,
            ctypes.c_uint64,
            ctypes.POINTER(ctypes.c_int64),
            ctypes.c_uint64,
        )

        def times(n: int) -> list[int]:
            each = (ctypes.c_int64 * n)()
            if function(self._target.pid, self._target.address, each, n) != 0:
                raise RuntimeError(f"{name} on process {self._target.pid} failed")
            return list(each)

        return times


class Peer:
    """A peer library in a process of its own, with a child of its own.

    Attributes:
        refusal: Why it does not run; empty if it does.
    """

    def __init__(
        self, name: str, target: Target, job: str = "read", script: str = "peers.py"
    ) -> None:
        where = (str(target.pid), str(target.address))
        self._popen = subprocess.Popen(
            [sys.executable, _HERE / script, job, name, *where],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        answer = self._answer()
        self.refusal = "" if answer == "ready" else answer or "it ended without a word"

    def _answer(self) -> str:
        assert self._popen.stdout is not None
        return self._popen.stdout.readline().strip()

    def run(self, size: int) -> Callable[[int], float]:
        """Returns a run of reads of `size` bytes, or of what else its job is with them."""
        return lambda n: float(self.ask(f"{size} {n}"))

    def ask(self, line: str) -> str:
        """Tells it a line; returns the one that it answers."""
        assert self._popen.stdin is not None
        self._popen.stdin.write(line + "\n")
        self._popen.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """Ends it."""
        self._popen.kill()
        self._popen.communicate()
