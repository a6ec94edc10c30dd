"""A tool that does what it is told over its standard input, wherever a test starts it.

Run by ``python -m tests.faults.tool``; each line of input is a JSON list (operation, arguments...),
each line of output the JSON answer. It lives as another user, in another namespace, under strace,
behind a filter, and tells what procvm gave it.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import mmap
import os
import platform
import resource
import signal
import struct
import tempfile
import traceback
import zlib
from collections.abc import Callable
from typing import Any

import procvm
from procvm import VmReader, VmReaderArray, VmWriter, u64
from tests.faults.races import Addresses, exec_race

_processes: dict[str, procvm.Process] = {}


def _failure(error: BaseException) -> dict[str, Any]:
    # KeyError and the like would be found by getattr as well as ours.
    return {
        "error": type(error).__name__,
        "procvm": isinstance(error, procvm.ProcvmError),
        "text": str(error),
        "seen": "".join(traceback.format_exception(error)),
        "copied_len": getattr(error, "copied_len", None),
        "address": getattr(error, "address", None),
        "pid": getattr(error, "pid", None),
    }


# Processes


def _open(pid: int, backend: Any = "auto", name: str = "it") -> int:
    _processes[name] = procvm.open(pid, backend=backend)
    return _processes[name].pid


def _close(name: str = "it") -> None:
    _processes.pop(name).close()


def _vm(name: str = "it", *, forced: bool = False) -> procvm.VmSpace:
    vm = _processes[name].vm
    return vm.forced() if forced else vm


def _read(address: int, n: int, forced: bool = False) -> str:
    return _vm(forced=forced).read_bytes(address, n).hex()


def _read_into(address: int, n: int, forced: bool = False) -> list[Any]:
    """Reads into a buffer of 0xEE; answers the error, if any, and the buffer."""
    buffer = bytearray(b"\xee" * n)
    try:
        _vm(forced=forced).read_into(address, buffer)
    except Exception as error:  # noqa: BLE001 (the answer tells which)
        return [_failure(error), buffer.hex()]
    return [None, buffer.hex()]


def _write(address: int, data: str, forced: bool = False) -> None:
    _vm(forced=forced).write_bytes(address, bytes.fromhex(data))


def _fill(address: int, n: int) -> None:
    _vm().fill_zeros(address, n)


def _read_val(address: int) -> int:
    return _vm().read_val(address, u64)


def _write_val(address: int, value: int) -> None:
    _vm().write_val(address, u64, value)


def _cstring(address: int, max_len: int) -> str:
    return _vm().read_cstring(address, max_len).hex()


def _gather(ranges: list[tuple[int, int]]) -> str:
    buffer = bytearray(sum(n for _, n in ranges))
    readers = [_vm().reader(address, n) for address, n in ranges]
    VmReaderArray(readers).read(VmWriter.from_buffer(buffer))
    return buffer.hex()


def _maps() -> list[tuple[int, int, str, str]]:
    return [(v.start, v.end, str(v.perms), v.name.hex()) for v in _processes["it"].maps()]


def _find(address: int) -> tuple[int, int] | None:
    vma = _processes["it"].find_vma(address)
    return None if vma is None else (vma.start, vma.end)


def _wait() -> int | None:
    return _processes["it"].wait()


def _is_alive() -> bool:
    return _processes["it"].is_alive()


def _each(calls: list[list[Any]]) -> list[Any]:
    """Does several operations; each has its own answer."""
    return [_answer(call) for call in calls]


def _open_read_close(pid: int, address: int, n: int) -> str:
    with procvm.open(pid) as process:
        return process.vm.read_bytes(address, n).hex()


def _open_until_gone(pid: int) -> dict[str, int]:
    """Opens a process that is ending until it can not be opened any more."""
    tries = 0
    while True:
        tries += 1
        try:
            process = procvm.open(pid)
        except (procvm.NoSuchProcessError, procvm.ProcessExitedError):
            return {"tries": tries}
        process.close()


# The tool itself


def _fds() -> list[str]:
    gc.collect()
    found = []
    for name in sorted(os.listdir("/proc/self/fd")):
        with contextlib.suppress(OSError):
            found.append(f"{name} {os.readlink(f'/proc/self/fd/{name}')}")
    return found


def _limit_fds(more: int | None) -> int:
    """Lets the tool open so many more descriptors at most, or as many as ever."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft = hard
    if more is not None:
        # The descriptor that lists is free again after it, and is none too many here.
        soft = max(map(int, os.listdir("/proc/self/fd"))) + more
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return soft


def _who() -> dict[str, Any]:
    with open("/proc/self/status") as file:
        fields = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
    return {"uids": os.getresuid(), "CapEff": int(fields["CapEff"], 16), "pid": os.getpid()}


def _in_fork(calls: list[list[Any]]) -> list[Any]:
    """Does several operations in a forked child."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(write_end, json.dumps(_each(calls)).encode())
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        answers: list[Any] = json.loads(pipe.read())
    assert os.waitpid(pid, 0)[1] == 0
    return answers


def _in_both(pid: int, backend: Any, addresses: list[int], sums: list[int], n: int) -> list[int]:
    """Reads one range in the tool and another in a forked child, at once; answers the wrong ones.

    The child opens the process for itself.
    """

    def wrong(process: procvm.Process, which: int) -> int:
        buffer = bytearray(n)
        count = 0
        for _ in range(3000):
            process.vm.read_into(addresses[which], buffer)
            count += zlib.crc32(buffer) != sums[which]
        return count

    with procvm.open(pid, backend=backend) as process:
        process.vm.read_bytes(addresses[0], n)
        read_end, write_end = os.pipe()
        child = os.fork()
        if child == 0:
            with procvm.open(pid, backend=backend) as again:
                os.write(write_end, json.dumps(wrong(again, 1)).encode())
            os._exit(0)
        os.close(write_end)
        own = wrong(process, 0)
        with os.fdopen(read_end, "rb") as pipe:
            childs = json.loads(pipe.read())
        assert os.waitpid(child, 0)[1] == 0
    return [own, childs]


def _interrupt_every(us: int) -> int:
    """Has a signal arrive every so many microseconds; answers how many did since the last time."""
    global _interrupts
    arrived, _interrupts = _interrupts, 0

    def handler(*_: object) -> None:
        global _interrupts  # noqa: PLW0603 (as above)
        _interrupts += 1

    signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, us / 1e6, us / 1e6)
    return arrived


_interrupts = 0


# What a policy takes away

_NUMBERS = {
    "x86_64": {
        "process_vm_readv": 310,
        "process_vm_writev": 311,
        "pidfd_open": 434,
        "ptrace": 101,
        "ioctl": 16,
        "perf_event_open": 298,
    },
    "aarch64": {
        "process_vm_readv": 270,
        "process_vm_writev": 271,
        "pidfd_open": 434,
        "ptrace": 117,
        "ioctl": 29,
        "perf_event_open": 241,
    },
}
_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int, what: str) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")
    return result


def _no_new_privs() -> None:
    _checked(_libc.prctl(38, *(ctypes.c_ulong(n) for n in (1, 0, 0, 0))), "PR_SET_NO_NEW_PRIVS")


def seccomp(refused: dict[str, int]) -> None:
    """Has the kernel refuse system calls of the tool, each with an errno."""
    numbers = _NUMBERS[platform.machine()]
    code = [struct.pack("HBBI", 0x20, 0, 0, 0)]  # load the number
    for name, errno in refused.items():
        code.append(struct.pack("HBBI", 0x15, 0, 1, numbers[name]))  # another one: skip a step
        code.append(struct.pack("HBBI", 0x06, 0, 0, 0x00050000 | errno))
    code.append(struct.pack("HBBI", 0x06, 0, 0, 0x7FFF0000))  # allow
    text = ctypes.create_string_buffer(b"".join(code))
    program = ctypes.create_string_buffer(struct.pack("@HP", len(code), ctypes.addressof(text)))
    _no_new_privs()
    arguments = (ctypes.c_ulong(2), ctypes.byref(program), ctypes.c_ulong(0), ctypes.c_ulong(0))
    _checked(_libc.prctl(22, *arguments), "PR_SET_SECCOMP")


def landlock() -> None:
    """Puts the tool into a Landlock domain that forbids nothing but what any domain forbids."""
    make_sock = struct.pack("Q", 1 << 9)
    fd = _libc.syscall(444, ctypes.c_char_p(make_sock), ctypes.c_size_t(8), ctypes.c_uint(0))
    _checked(fd, "landlock_create_ruleset")
    _no_new_privs()
    _checked(_libc.syscall(446, ctypes.c_int(fd), ctypes.c_uint(0)), "landlock_restrict_self")
    os.close(fd)


def _gated(n: int, out_fd: int, in_fd: int, call: list[Any]) -> list[Any]:
    """Does an operation that is held at its n-th call of the system; answers how many it made."""
    _libc.gate_arm(ctypes.c_long(n), ctypes.c_int(out_fd), ctypes.c_int(in_fd))
    answer = _answer(call)
    passed = _libc.gate_passed()
    _libc.gate_arm(ctypes.c_long(0), ctypes.c_int(-1), ctypes.c_int(-1))
    return [passed, answer]


def _short(most: int, every: int) -> None:
    """Has every so many calls of the tool move so many bytes at most."""
    _libc.short_arm(ctypes.c_size_t(most), ctypes.c_ulong(every))


# Own buffers that fault


def _cut_off_buffer() -> tuple[mmap.mmap, int]:
    """Returns four pages of a mapped file of which the last two are not there any more."""
    with tempfile.TemporaryFile() as file:
        file.truncate(4 * mmap.PAGESIZE)
        pages = mmap.mmap(file.fileno(), 4 * mmap.PAGESIZE, mmap.MAP_SHARED)
        file.truncate(2 * mmap.PAGESIZE)
    return pages, 2 * mmap.PAGESIZE


def _own_fault(how: str, address: int, start: int, n: int) -> dict[str, Any]:
    """Moves bytes between a target and the tool's own buffer that faults after two pages."""
    pages, end = _cut_off_buffer()
    view = memoryview(pages)[start : start + n]
    own = ctypes.addressof(ctypes.c_char.from_buffer(pages))
    vm = _vm()
    ways: dict[str, Callable[[], object]] = {
        "read_into": lambda: vm.read_into(address, view),
        "read": lambda: vm.read(address, VmWriter.from_buffer(view)),
        "read_fallible": lambda: vm.reader(address, n).read_fallible(VmWriter.from_buffer(view)),
        "write_bytes": lambda: vm.write_bytes(address, view),
        "write": lambda: vm.write(address, VmReader.from_buffer(view)),
        "array": lambda: VmReaderArray([vm.reader(address, n)]).read(VmWriter.from_buffer(view)),
    }
    try:
        ways[how]()
    except Exception as error:  # noqa: BLE001 (the answer tells which)
        failure = _failure(error)
        failure["from_own"] = None if failure["address"] is None else failure["address"] - own
        failure["there"] = pages[start:end].hex()
        return failure
    return {"error": None}


# Races


def _race_execs(pid: int, at: list[int], nr_opens: int, backend: Any) -> dict[str, int]:
    return exec_race(pid, Addresses(*at), nr_opens, backend, forced_too=False)


_OPERATIONS: dict[str, Callable[..., Any]] = {
    "open": _open,
    "close": _close,
    "read": _read,
    "read_into": _read_into,
    "write": _write,
    "fill": _fill,
    "read_val": _read_val,
    "write_val": _write_val,
    "cstring": _cstring,
    "gather": _gather,
    "maps": _maps,
    "find": _find,
    "wait": _wait,
    "is_alive": _is_alive,
    "each": _each,
    "open_read_close": _open_read_close,
    "open_until_gone": _open_until_gone,
    "fds": _fds,
    "limit_fds": _limit_fds,
    "who": _who,
    "in_fork": _in_fork,
    "in_both": _in_both,
    "interrupt_every": _interrupt_every,
    "seccomp": seccomp,
    "landlock": landlock,
    "gated": _gated,
    "short": _short,
    "own_fault": _own_fault,
    "race_execs": _race_execs,
}


def _answer(call: list[Any]) -> Any:
    name, *arguments = call
    try:
        return {"value": _OPERATIONS[name](*arguments)}
    except Exception as error:  # noqa: BLE001 (the answer tells which)
        return _failure(error)


def _line() -> bytes:
    # Not by `input`: a test has the system calls of the tool fail, and these are not the point.
    line = b""
    while not line.endswith(b"\n"):
        try:
            part = os.read(0, 1 << 16)
        except OSError:
            continue
        if not part:
            break
        line += part
    return line


def main() -> None:
    """Answers until the input ends."""
    while line := _line():
        rest = json.dumps(_answer(json.loads(line))).encode() + b"\n"
        while rest:
            rest = rest[os.write(1, rest) :]
    for process in _processes.values():
        process.close()


if __name__ == "__main__":
    main()
