"""Loops that race a target which changes under them; they raise at the first wrong answer.

They run in the test, and in tests/faults/tool.py where the tool must live in another namespace.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable
from typing import Literal, NamedTuple

import procvm
from procvm import VmReaderArray, VmWriter, u64

Backend = Literal["auto", "mem"]

TAG = 0xB0B0
PRISTINE = 0x5AFE5AFE5AFE5AFE
NR_WORDS = 4096


class Addresses(NamedTuple):
    """Where the target has what a race reads and writes."""

    number: int
    """Of its image or its process: 0 before it names itself."""
    box: int
    """Where only who knows the number may write, and the number and the TAG only."""
    words: int = 0
    """NR_WORDS times the number."""


class WrongAnswerError(AssertionError):
    """An access went to what was not opened."""


def _one_image(values: set[int], known: int, what: str) -> int:
    """Checks that numbers read are of one image: 0 before it names itself, then its number."""
    numbers = {value for value in (*values, known) if value}
    if len(numbers) > 1:
        raise WrongAnswerError(f"{what}: numbers of two images, {sorted(numbers)}")
    return numbers.pop() if numbers else 0


def _readers(at: Addresses) -> list[Callable[[procvm.VmSpace], set[int]]]:
    def by_value(vm: procvm.VmSpace) -> set[int]:
        return {vm.read_val(at.number, u64)}

    def by_cursor(vm: procvm.VmSpace) -> set[int]:
        reader = vm.reader(at.number, 8)
        return {reader.read_val(u64)}

    def in_bulk(vm: procvm.VmSpace) -> set[int]:
        buffer = bytearray(NR_WORDS * 8)
        vm.read_into(at.words, buffer)
        return set(struct.unpack(f"@{NR_WORDS}Q", buffer))

    def by_vector(vm: procvm.VmSpace) -> set[int]:
        buffer = bytearray(8 * 64)
        readers = [vm.reader(at.words + 4096 * (k % 8), 8) for k in range(64)]
        VmReaderArray(readers).read(VmWriter.from_buffer(buffer))
        return set(struct.unpack("@64Q", buffer))

    return [by_value, in_bulk, by_cursor, by_vector]


def exec_race(
    pid: int, at: Addresses, nr_execs: int, backend: Backend, *, forced_too: bool
) -> dict[str, int]:
    """Opens a process that execs at full speed again and again, and accesses each until it is gone.

    Every fourth is accessed with protections ignored, if that is asked for. It goes on until so
    many execs were met, and half as many writes and twice as many reads by then.

    Returns:
        How often what happened.
    """
    seen: Counter[str] = Counter()
    for k in range(100 * nr_execs):
        writes = seen["writes"] + seen["writes refused"]
        if min(seen["execed"], seen["reads"] // 2, 2 * writes) >= nr_execs:
            break
        try:
            process = procvm.open(pid, backend=backend)
        except procvm.ProcessExecedError:
            seen["open_execed"] += 1
            continue
        with process:
            seen["opened"] += 1
            vm = process.vm.forced() if forced_too and k % 4 == 3 else process.vm
            _use_until_the_exec(vm, at, seen)
            seen["execed"] += 1
            _refused(process, at, procvm.ProcessExecedError)
            if not process.is_alive():
                raise WrongAnswerError("an exec is not an end")
    else:
        raise AssertionError(f"too little was met: {dict(seen)}")
    return dict(seen)


def _use_until_the_exec(vm: procvm.VmSpace, at: Addresses, seen: Counter[str]) -> None:
    readers = _readers(at)
    number = 0
    try:
        while True:
            for read in readers:
                try:
                    values = read(vm)
                except procvm.PageFaultError:
                    # It was opened in the middle of an exec, and is being loaded.
                    if number:
                        raise
                    seen["loading"] += 1
                    continue
                number = _one_image(values, number, read.__name__)
                seen["reads"] += 1
                if number:
                    _write(vm, at.box, number, seen)
    except procvm.ProcessExecedError as error:
        if error.copied_len % 8:
            raise WrongAnswerError(f"half a word: {error.copied_len}") from error


def _write(vm: procvm.VmSpace, box_at: int, number: int, seen: Counter[str]) -> None:
    try:
        vm.write_val(box_at, u64, number << 32 | TAG)
    except procvm.AccessDeniedError as error:
        # What a tool may do that can not write safely: /proc is read-only.
        if "read-only" not in str(error):
            raise
        seen["writes refused"] += 1
    else:
        seen["writes"] += 1


def reuse_race(
    pid: int, at: Addresses, ended: Callable[[Counter[str]], bool], backend: Backend
) -> dict[str, int]:
    """Opens processes that get the same pid one after the other, and accesses each to its end.

    It goes on until `ended` says of the counts that it is enough.

    Returns:
        How often what happened; `reused` counts what was opened before and
        refused while another process, alive just before and just after, had the pid.
    """
    seen: Counter[str] = Counter()
    old: procvm.Process | None = None
    old_number = 0
    try:
        while not ended(seen):
            try:
                process = procvm.open(pid, backend=backend)
            except (procvm.NoSuchProcessError, procvm.ProcessExitedError):
                seen["not_opened"] += 1
                continue
            seen["opened"] += 1
            older, old = old, process
            try:
                if older is not None and process.vm.read_val(at.number, u64) not in (0, old_number):
                    _refused(older, at, procvm.ProcessExitedError)
                    seen["reused"] += process.is_alive()
            except procvm.ProcessExitedError:
                pass  # the newer one has ended too
            old_number = _use_until_its_end(process, at, seen)
            if older is not None:
                older.close()
    finally:
        if old is not None:
            old.close()
    return dict(seen)


def _use_until_its_end(process: procvm.Process, at: Addresses, seen: Counter[str]) -> int:
    number = 0
    try:
        while True:
            number = _one_image({process.vm.read_val(at.number, u64)}, number, "read_val")
            if number:
                process.vm.write_val(at.box, u64, number << 32 | TAG)
            seen["accesses"] += 1
    except procvm.ProcessExitedError:
        seen["exited"] += 1
    if process.is_alive():
        # Its memory is gone and it is about to end.
        process.wait()
    _refused(process, at, procvm.ProcessExitedError)
    return number


def _refused(process: procvm.Process, at: Addresses, kind: type[procvm.ProcessError]) -> None:
    """What has gone can not be accessed, whoever has the pid now; its target tells a write."""
    vm = process.vm
    accesses: dict[str, Callable[[], object]] = {
        "read_val": lambda: vm.read_val(at.number, u64),
        "write_val": lambda: vm.write_val(at.box, u64, TAG),
        "read_bytes": lambda: vm.read_bytes(at.number, 8),
        "forced": lambda: vm.forced().read_bytes(at.number, 8),
        "maps": process.maps,
    }
    for name, access in accesses.items():
        try:
            access()
        except kind:
            continue
        except procvm.AccessDeniedError as error:
            if name == "write_val" and "read-only" in str(error):
                continue
            raise
        raise WrongAnswerError(f"{name} of what has gone succeeded")
