"""Tries each capability as the user that runs this; one line of JSON for each.

It needs procvm and nothing else, and makes all of its targets itself.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import procvm
from procvm import u64

_TARGET = """
import ctypes, os, sys
word = ctypes.create_string_buffer(64)
word[:11] = b"hello world"
print(ctypes.addressof(word), flush=True)
os.read(0, 1)
"""


@contextmanager
def _child(**more: Any) -> Generator[tuple[int, int]]:
    """Yields the pid of a child of subprocess and the address of its bytes."""
    with subprocess.Popen(
        [sys.executable, "-S", "-c", _TARGET],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        **more,
    ) as popen:
        assert popen.stdout is not None
        try:
            yield popen.pid, int(popen.stdout.readline())
        finally:
            popen.kill()


@contextmanager
def _stranger() -> Generator[int]:
    """Yields the pid of a process of the same user that does not descend from this one."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if not child:
        os.setsid()
        grandchild = os.fork()
        if grandchild:
            os._exit(0)
        os.write(write_end, b"%d\n" % os.getpid())
        os.close(read_end)
        os.execv("/usr/bin/sleep", ["sleep", "600"])
    os.waitpid(child, 0)
    os.close(write_end)
    with os.fdopen(read_end) as pipe:
        pid = int(pipe.readline())
    time.sleep(0.2)  # it is about to exec
    try:
        yield pid
    finally:
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)


def _open() -> None:
    with _child() as (pid, at), procvm.open(pid) as process:
        assert process.vm.read_bytes(at, 5) == b"hello"


def _write() -> None:
    with _child() as (pid, at), procvm.open(pid) as process:
        process.vm.write_bytes(at, b"HELLO")
        assert process.vm.read_bytes(at, 5) == b"HELLO"


def _page_fault() -> None:
    with _child() as (pid, _), procvm.open(pid) as process:
        hole = next(
            one.end
            for one, later in zip(process.maps(), process.maps()[1:], strict=False)
            if one.end < later.start and "r" in str(one.perms)
        )
        found = (0, 0)
        try:
            process.vm.read_bytes(hole - 8, 16)
        except procvm.PageFaultError as error:
            found = error.address, error.copied_len
        assert found == (hole, 8)


def _forced() -> None:
    with _child() as (pid, _), procvm.open(pid) as process:
        text = process.maps().filter(perms="r-x")[0]
        old = process.vm.read_bytes(text.start, 1)
        process.vm.forced().write_bytes(text.start, b"\xcc")
        process.vm.forced().write_bytes(text.start, old)


def _search() -> None:
    with _child() as (pid, at), procvm.open(pid) as process:
        assert at in {int(hit) for hit in process.vm.search(b"hello world")}


def _snapshot() -> None:
    with _child() as (pid, at), procvm.open(pid) as process, process.snapshot() as saved:
        process.vm.write_bytes(at, b"HELLO")
        assert saved.vm.read_bytes(at, 5) == b"hello"


def _core() -> None:
    with tempfile.TemporaryDirectory() as folder, _child() as (pid, at):
        path = os.path.join(folder, "core")
        with procvm.open(pid) as process:
            process.save(path)
        with procvm.open_core(path) as core:
            assert core.vm.read_bytes(at, 5) == b"hello"


def _symbols() -> None:
    with _child() as (pid, _), procvm.open(pid) as process:
        at = process.symbol("libc.so.6!getpid")
        assert "getpid" in str(process.describe(at))


def _trace() -> None:
    with (
        _child() as (pid, at),
        procvm.open(pid) as process,
        process.trace_accesses((at + 7) & ~7, u64),
    ):
        pass


def _held(pid: int, at: int, tracee: procvm.Tracee) -> None:
    at = (at + 7) & ~7
    with tracee.stopped() as held:
        assert held.vm.read_bytes(at, 1)
        old = tracee.vm.atomic_load(at, u64)
        assert tracee.vm.atomic_compare_exchange(at, u64, old, old + 1) == (old, True)
        assert tracee.vm.atomic_load(at, u64) == old + 1
        assert len(tracee.threads()) == 1
    assert pid == tracee.pid


def _spawn() -> None:
    argv = [sys.executable, "-S", "-c", _TARGET]
    with procvm.spawn(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as tracee:
        _held(tracee.pid, int(tracee.stdout.readline()), tracee)


def _spawn_stopped() -> None:
    with procvm.spawn(["/usr/bin/sleep", "600"], stopped=True) as tracee:
        assert tracee.is_stopped()
        tracee.resume()
        with tracee.stopped():
            assert tracee.maps()


def _registers() -> None:
    with (
        procvm.spawn(["/usr/bin/sleep", "600"], stopped=True, longest_hold=None) as tracee,
    ):
        names = {"x86_64": "rsp", "aarch64": "sp"}
        stack = tracee.registers(tracee.pid)[names[os.uname().machine]]
        assert any(one.start <= stack < one.end for one in tracee.maps())


def _step() -> None:
    with procvm.spawn(["/usr/bin/sleep", "600"], stopped=True, longest_hold=None) as tracee:
        names = {"x86_64": "rip", "aarch64": "pc"}
        name = names[os.uname().machine]
        before = tracee.registers(tracee.pid)[name]
        tracee.step(tracee.pid)
        assert tracee.registers(tracee.pid)[name] != before


def _attach() -> None:
    with _child() as (pid, at), procvm.attach(pid) as tracee:
        _held(pid, at, tracee)


def _attach_admitted() -> None:
    with (
        _child(preexec_fn=procvm.allow_attach()) as (pid, at),
        procvm.attach(pid) as tracee,
    ):
        _held(pid, at, tracee)


_AGAIN = "import os; os.execv('/usr/bin/sleep', ['sleep', '600'])"


def _attach_after_exec() -> None:
    with procvm.spawn([sys.executable, "-S", "-c", _AGAIN]) as tracee:
        deadline = time.monotonic() + 60
        while os.readlink(f"/proc/{tracee.pid}/exe") == os.path.realpath(sys.executable):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        with procvm.attach(tracee.pid) as again, again.stopped():
            assert again.maps()


def _open_stranger() -> None:
    with _stranger() as pid, procvm.open(pid) as process:
        assert process.maps()


def _attach_stranger() -> None:
    with _stranger() as pid, procvm.attach(pid) as tracee, tracee.stopped():
        assert tracee.threads()


def _dead_leader() -> None:
    code = (
        "import ctypes, threading, time\n"
        "threading.Thread(target=time.sleep, args=(600,)).start()\n"
        "print('ready', flush=True)\n"
        "ctypes.CDLL(None).pthread_exit(None)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as popen:
        try:
            assert popen.stdout is not None
            popen.stdout.readline()
            deadline = time.monotonic() + 60
            stat = Path(f"/proc/{popen.pid}/stat")
            while stat.read_text().rpartition(")")[2].split()[0] != "Z":
                assert time.monotonic() < deadline
                time.sleep(0.05)
            with procvm.open(popen.pid) as process:
                assert process.vm.read_bytes(process.maps().filter(perms="r")[0].start, 4)
        finally:
            popen.kill()


def _map_files() -> None:
    name = os.listdir("/proc/self/map_files")[0]
    os.stat(f"/proc/self/map_files/{name}")


CAPABILITIES: dict[str, Callable[[], None]] = {
    "read": _open,
    "write": _write,
    "page fault, exact": _page_fault,
    "forced write": _forced,
    "search": _search,
    "snapshot": _snapshot,
    "core file": _core,
    "symbols": _symbols,
    "dead leader": _dead_leader,
    "trace of accesses": _trace,
    "spawn, hold, atomics": _spawn,
    "spawn stopped": _spawn_stopped,
    "registers": _registers,
    "step": _step,
    "attach after exec": _attach_after_exec,
    "attach, child": _attach,
    "attach, admitted child": _attach_admitted,
    "open, other process": _open_stranger,
    "attach, other process": _attach_stranger,
    "map_files": _map_files,
}
"""What is tried, by the head of its column."""


def _try(function: Callable[[], None]) -> tuple[str, str]:
    try:
        function()
    except (procvm.ProcvmError, OSError, AssertionError) as error:
        return type(error).__name__, " ".join(str(error).split())
    return "ok", ""


def _doctor() -> list[list[str]]:
    from procvm.doctor import examine  # noqa: PLC0415 (after everything else was tried)

    return [
        [finding.check, finding.verdict, finding.evidence, finding.fix] for finding in examine()
    ]


def main() -> None:
    """Prints a line for each capability, and one with the findings of doctor."""
    assert ctypes.sizeof(ctypes.c_void_p) == 8
    procvm.Tracee.default_timeout = 60.0
    procvm.Tracee.default_longest_hold = None
    for name, function in CAPABILITIES.items():
        begun = time.monotonic()
        result, text = _try(function)
        seconds = round(time.monotonic() - begun, 2)
        line = {"capability": name, "result": result, "text": text, "seconds": seconds}
        print(json.dumps(line), flush=True)
    print(json.dumps({"doctor": _doctor()}), flush=True)


if __name__ == "__main__":
    main()
