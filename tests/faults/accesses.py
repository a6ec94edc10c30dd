"""Every way to access an opened process, each made ready while all was well."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import procvm
from procvm import Fallible, VmReader, VmReaderArray, VmSpace, VmWriter, VmWriterArray, u32, u64
from tests.faults.subjects import texts_of
from tests.support.playground import PAGE

Calls = dict[str, Callable[[], object]]

LEN = 64
DATA = b"\xc7" * LEN


def _string(vm: VmSpace, at: int) -> bytes:
    try:
        return vm.read_cstring(at, 8)
    except procvm.InvalidArgsError:  # eight bytes that are all not NUL were read
        return b""


def _reads(vm: VmSpace, at: int, reader: VmReader[Fallible]) -> Calls:
    return {
        "read_bytes": lambda: vm.read_bytes(at, LEN),
        "read_into": lambda: vm.read_into(at, bytearray(LEN)),
        "read": lambda: vm.read(at, VmWriter.from_buffer(bytearray(LEN))),
        "read_val": lambda: vm.read_val(at, u64),
        "read_slice": lambda: vm.read_slice(at, u32, 4),
        "read_cstring": lambda: _string(vm, at),
        "reader.read_val": lambda: reader.clone().read_val(u64),
        "reader.read_val, moving": lambda: reader.read_val(u64),
        "reader.read_bytes": lambda: reader.clone().read_bytes(LEN),
        "reader.read_slice": lambda: reader.clone().read_slice(u64, 4),
        "reader.read_fallible": lambda: reader.clone().read_fallible(
            VmWriter.from_buffer(bytearray(LEN))
        ),
        "array.read": lambda: VmReaderArray([vm.reader(at, 8), vm.reader(at + 16, 8)]).read(
            VmWriter.from_buffer(bytearray(16))
        ),
    }


def _writes(vm: VmSpace, at: int, writer: VmWriter[Fallible]) -> Calls:
    return {
        "write_bytes": lambda: vm.write_bytes(at, DATA),
        "write": lambda: vm.write(at, VmReader.from_buffer(DATA)),
        "write_val": lambda: vm.write_val(at, u64, 7),
        "write_slice": lambda: vm.write_slice(at, u32, [1, 2]),
        "fill_zeros": lambda: vm.fill_zeros(at, LEN),
        "writer.write_val": lambda: writer.clone_exclusive().write_val(u64, 7),
        "writer.write_val, moving": lambda: writer.write_val(u64, 7),
        "writer.write_bytes": lambda: writer.clone_exclusive().write_bytes(DATA),
        "writer.write_slice": lambda: writer.clone_exclusive().write_slice(u64, [1, 2]),
        "writer.fill_zeros": lambda: writer.clone_exclusive().fill_zeros(LEN),
        "writer.write_fallible": lambda: writer.clone_exclusive().write_fallible(
            VmReader.from_buffer(DATA)
        ),
        "array.write": lambda: VmWriterArray([vm.writer(at, 8), vm.writer(at + 16, 8)]).write(
            VmReader.from_buffer(DATA)
        ),
    }


class Accesses:
    """Calls on 128 writable bytes of a target, with cursors that were made when this was."""

    def __init__(self, process: procvm.Process, address: int) -> None:
        self.process = process
        self.address = address
        self._calls: Calls = {
            "maps": process.maps,
            "find_vma": lambda: process.find_vma(address),
        }
        for name, vm in (("vm", process.vm), ("forced", process.vm.forced())):
            reader, writer = vm.reader(address, PAGE), vm.writer(address, PAGE)
            for call, access in _reads(vm, address, reader).items():
                self._calls[f"{name}.{call}"] = access
            for call, access in _writes(vm, address, writer).items():
                self._calls[f"{name}.{call}"] = access

    def all(self) -> Calls:
        """Returns the calls by name; each reads, writes or lists, and raises what it raises."""
        return dict(self._calls)

    def assert_all_raise(self, kind: type[procvm.ProcvmError]) -> None:
        """Every access raises exactly this error, and none of its bytes counts as moved."""
        wrong: list[str] = []
        for name, call in self._calls.items():
            try:
                value = call()
            except procvm.ProcvmError as error:
                if type(error) is not kind or error.copied_len:
                    wrong.append(f"{name} raises {type(error).__name__}: {error}")
            except Exception as error:  # noqa: BLE001 (any other is the finding)
                wrong.append(f"{name} raises {type(error).__name__}: {texts_of(error)}")
            else:
                wrong.append(f"{name} succeeds: {value!r:.60}")
        if wrong:
            pytest.fail(f"{len(wrong)} calls, not {kind.__name__}:\n" + "\n".join(wrong[:60]))

    def assert_all_work(self) -> None:
        """Every access succeeds; what was there is there again."""
        before = self.process.vm.read_bytes(self.address, 2 * LEN)
        for call in self._calls.values():
            call()
        self.process.vm.write_bytes(self.address, before)
