r"""Hostile text: in names, in mappings, and in what memory holds.

Not provoked: a file name with a NUL or a slash in it, which Linux has not.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import signal
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

import procvm
from procvm import Segment, VmReader, VmReaderArray, VmWriter, f64, u8, u16, u32, u64
from procvm._mm.cursor import memory_of
from tests.faults.subjects import (
    NOBODY,
    Subject,
    as_root,
    needs,
    public,
    run_as,
    texts_of,
    zombie_of,
)
from tests.faults.tools import Tool
from tests.support.build import compiled
from tests.support.child import Child
from tests.support.playground import PAGE, Playground

NAMES = [
    b"plain",
    b"with space",
    b" leading and trailing ",
    b"two\nlines\n",
    b"\nfirst",
    b"tab\tand\rreturn\x0b\x0c",
    b"\x1b[2J\x1b]0;title\x07red\x1b[31m",
    b"\x9b31m C1 \x85 \x90",
    "c1 as text \u009b31m \u0085".encode(),
    b") R 1 (x) S 2",
    "bidi \u202egnp.exe \u2066\u2069 \u200f".encode(),
    "zero width \u200b\u200d\ufeff".encode(),
    "line separators \u2028 \u2029".encode(),
    b"bad utf-8 \xff\xfe\xc3(\xe2\x82",
    "surrogate \udc80 in text".encode("utf-8", "surrogatepass"),
    b"back\\slash \\",
    b"literal \\012 escape",
    b"literal \\x1b[31m",
    b"quotes ' \" `",
    b"gone (deleted)",
    b"[heap]",
    b"[stack]",
    b"00400000-00500000 rwxp 00000000 00:00 0",
    "\N{SNOWMAN} \N{GREEK SMALL LETTER ALPHA}".encode(),
    b"\x7f\x01\x02",
    b"%s%n{0}",
    b"n" * 255,
]


def assert_printable(text: str) -> None:
    """Nothing but printable text and newlines: safe for a terminal, a log, a bug report."""
    bad = sorted({hex(ord(char)) for char in text if not char.isprintable() and char != "\n"})
    assert not bad, f"{bad} in {text!r}"
    text.encode("utf-8")  # no half of a surrogate


def _lines(text: str) -> list[str]:
    # As a terminal and `grep` count them; str.splitlines knows more separators.
    return text.split("\n")


# Hostile names


@pytest.mark.parametrize("name", NAMES, ids=repr)
def test_the_name_of_a_mapped_file(
    process: procvm.Process, playground: Playground, tmp_path: Path, name: bytes
) -> None:
    """The name of a mapped file is told byte by byte, by the listing and by one query."""
    path = os.path.join(os.fsencode(tmp_path), name)
    with open(path, "wb") as file:
        file.write(b"x" * PAGE)
    at = playground.map_file(path, PAGE, "r")
    inode = os.stat(path).st_ino
    in_list = process.maps().find(at)
    by_query = process.find_vma(at)
    for vma in (in_list, by_query):
        assert vma is not None
        assert (vma.start, vma.end, str(vma.perms), vma.offset) == (at, at + PAGE, "r--p", 0)
        assert vma.inode == inode
        assert vma.kind is procvm.Kind.FILE
    assert by_query is not None
    assert in_list is not None
    assert by_query.name == path
    assert in_list.name == path
    found = process.maps().filter(name=path)
    assert [vma.start for vma in found] == [at]
    os.unlink(path)
    for vma in (process.maps().find(at), process.find_vma(at)):
        assert vma is not None
        assert vma.name == path + b" (deleted)"
        assert vma.deleted


@pytest.mark.parametrize("name", [name[:200] for name in NAMES], ids=repr)
def test_the_name_of_a_memfd(process: procvm.Process, playground: Playground, name: bytes) -> None:
    """The name of a memfd is told byte by byte, by the listing and by one query."""
    at = playground.map_memfd(name, PAGE)
    for vma in (process.maps().find(at), process.find_vma(at)):
        assert vma is not None
        assert vma.name == b"/memfd:" + name + b" (deleted)"
        assert vma.kind is procvm.Kind.FILE
        assert str(vma.perms) == "rw-s"


def test_a_listing_of_hostile_names(
    process: procvm.Process, playground: Playground, tmp_path: Path
) -> None:
    """A listing with every hostile name is one printable line a mapping, none too many."""
    for name in NAMES:
        path = os.path.join(os.fsencode(tmp_path), name)
        with open(path, "wb") as file:
            file.write(b"x")
        playground.map_file(path, PAGE, "r")
        playground.map_memfd(name[:200], PAGE)
    maps = process.maps()
    raw = Path(f"/proc/{playground.pid}/maps").read_bytes()
    assert len(maps) == raw.count(b"\n")
    assert_printable(str(maps))
    lines = _lines(str(maps))
    assert len(lines) == len(maps)
    for line, vma in zip(lines, maps, strict=True):
        assert line == str(vma)
        assert line.startswith(f"{vma.start:#010x}-{vma.end:#010x} {vma.perms}")
        assert "\n" not in str(vma)
        assert_printable(repr(vma))
    # Two names that differ are told apart by their text too.
    texts = {str(vma).split(None, 5)[5] for vma in maps if b"hostile" in vma.name or vma.inode}
    assert len(texts) == len({vma.name for vma in maps if vma.inode})
    for shown in (repr(maps), repr(maps[0]), repr(process), repr(process.vm), repr(maps[:3])):
        assert_printable(shown)
        assert "\n" not in shown


@pytest.mark.parametrize("name", [name[:15] for name in NAMES], ids=repr)
def test_the_name_of_a_process(
    process: procvm.Process, playground: Playground, name: bytes
) -> None:
    """Whatever a process calls itself, it is opened, read and told about the same."""
    playground.set_comm(name)
    base = playground.layout("rw hole")
    assert len(process.vm.read_bytes(base, PAGE)) == PAGE
    with procvm.open(playground.pid) as again:
        assert again.is_alive()
        assert len(again.maps()) > 5
        for shown in (repr(again), repr(again.vm), repr(again.vm.reader(base, 8))):
            assert_printable(shown)
        with pytest.raises(procvm.PageFaultError) as caught:
            again.vm.read_bytes(base + PAGE, 8)
        assert_printable(str(caught.value) + repr(caught.value))


@as_root
@needs("setpriv")
@pytest.mark.parametrize("cause", ["another user", "not dumpable", "set-uid"])
def test_the_name_of_a_process_in_a_refusal(cause: str) -> None:
    """A refusal that tells the name of the process is printable, and has one line."""
    mode = 0o4755 if cause == "set-uid" else 0o755
    prefix = [] if cause == "another user" else run_as(NOBODY)
    program = public("playground" if cause != "not dumpable" else "subject", mode=mode)
    with Tool(*run_as(NOBODY)) as tool:
        if cause == "not dumpable":
            for name in NAMES:
                if b"\0" in name or not name:
                    continue
                text = b"comm=" + name[:15]
                with Subject("nodump", os.fsdecode(text), prefix=prefix, program=program) as target:
                    _assert_said(tool.refused("open", target.pid).text, cause)
            return
        with Playground(prefix=prefix, program=program) as playground:
            for name in NAMES:
                playground.set_comm(name[:15])
                _assert_said(tool.refused("open", playground.pid).text, cause)


def _assert_said(text: str, cause: str) -> None:
    assert_printable(text)
    assert "\n" not in text.removesuffix("\n")
    assert cause in text


@pytest.mark.parametrize("name", [") R 1 (x", "x) Z 0 0", "))))", "a b", ") S\n1 1", "(((", "Z"])
@pytest.mark.parametrize("status", [3, -signal.SIGKILL])
def test_the_status_of_a_process_with_a_hostile_name(name: str, status: int) -> None:
    """A name that looks like the fields of stat hides neither the state nor the status."""
    with Subject(f"comm={name}") as parent, zombie_of(parent, status) as pid:
        assert Path(f"/proc/{pid}/comm").read_text() == name[:15] + "\n"
        with pytest.raises(procvm.ProcessExitedError) as caught:
            procvm.open(pid)
        assert_printable(str(caught.value))
    # One that is opened, and that its parent, who is not us, leaves a zombie.
    script = '"$0" "$1" <"$2" & echo $!; read x'
    _status_through(script, f"comm={name}", status)


def _status_through(script: str, comm: str, status: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        fifo = os.path.join(folder, "fifo")
        os.mkfifo(fifo)
        write_end = os.open(fifo, os.O_RDWR)
        with Child(["sh", "-c", script, compiled("subject"), comm, fifo]) as shell:
            lines = [shell.line(), shell.line()]
            (pid,) = (int(line) for line in lines if "ready" not in line)
            with procvm.open(pid) as process:
                if status < 0:
                    os.kill(pid, -status)
                else:
                    os.write(write_end, f"exit {status}\n".encode())
                assert process.wait() == status
                assert not process.is_alive()
        os.close(write_end)


def test_a_memory_full_of_hostile_text(process: procvm.Process, playground: Playground) -> None:
    """What memory holds comes as it is, and no error about it shows it."""
    base = playground.layout("rw hole")
    text = b"\x1b[2J\x9b\n\r\xff) R 1 \xe2\x80\xae"
    playground.poke(base + PAGE - len(text), text)
    at = base + PAGE - len(text)
    assert process.vm.read_bytes(at, len(text)) == text
    calls: list[Callable[[], object]] = [
        lambda: process.vm.read_cstring(at, len(text) + 1),
        lambda: process.vm.read_cstring(at, len(text)),
        lambda: process.vm.read_bytes(at, len(text) + 1),
    ]
    for call in calls:
        with pytest.raises(procvm.ProcvmError) as caught:
            call()
        assert_printable(texts_of(caught.value))


# Bytes of the target in messages

SECRET = b"hunter2!"  # eight bytes, so that they are a number too


class _Cell(ctypes.Structure):
    _fields_ = (("secret", ctypes.c_char * 8), ("word", ctypes.c_uint64))


def _shapes(secret: bytes) -> list[str]:
    """Returns the ways in which text could give the secret away."""
    little, big = (int.from_bytes(secret, order) for order in ("little", "big"))
    halves = struct.unpack("<2I", secret)
    return [
        secret.decode(),
        secret[:5].decode(),
        secret.hex(),
        secret.hex(" "),
        secret[::-1].hex(),
        str(list(secret)).strip("[]"),
        str(little),
        str(big),
        f"{little:x}",
        *(str(half) for half in halves),
        *(f"{half:x}" for half in halves),
    ]


def assert_secret(shown: str) -> None:
    """None of the target's bytes are in what was shown."""
    found = [shape for shape in _shapes(SECRET) if shape in shown]
    assert not found, f"{found} in {shown}"


def test_no_byte_of_the_target_in_an_exception(
    process: procvm.Process, playground: Playground
) -> None:
    """No error of any access shows a byte that it read."""
    base = playground.layout("rw rw hole")
    end = base + 2 * PAGE
    playground.poke(base, SECRET * (2 * PAGE // len(SECRET)))
    vm = process.vm
    buffer = bytearray(64)
    reader = vm.reader(end - 32, 40)
    failing: dict[str, Callable[[], object]] = {
        "read_bytes": lambda: vm.read_bytes(end - 32, 64),
        "read_into": lambda: vm.read_into(end - 32, buffer),
        "read": lambda: vm.read(end - 32, VmWriter.from_buffer(buffer)),
        "read_val": lambda: vm.read_val(end - 4, u64),
        "read_val of a structure": lambda: vm.read_val(end - 8, _Cell),
        "read_slice": lambda: vm.read_slice(end - 32, u32, 20),
        "read_cstring": lambda: vm.read_cstring(base + PAGE - 20, 30),
        "read_cstring to a hole": lambda: vm.read_cstring(end - 30, 60),
        "reader.read_val": lambda: vm.reader(end - 4, 8).read_val(u64),
        "reader.read_fallible": lambda: reader.read_fallible(VmWriter.from_buffer(buffer)),
        "reader.skip": lambda: vm.reader(base, 8).skip(9),
        "reader too short": lambda: vm.reader(base, 4).read_val(u64),
        "array": lambda: VmReaderArray([vm.reader(base, 8), vm.reader(end - 8, 16)]).read(
            VmWriter.from_buffer(buffer)
        ),
        "forced": lambda: vm.forced().read_bytes(end - 32, 64),
        "write over the end": lambda: vm.write_bytes(end - 4, SECRET),
        "write_val over the end": lambda: vm.write_val(
            end - 4, u64, int.from_bytes(SECRET, "little")
        ),
        "target to target": lambda: vm.reader(base, 64).read_fallible(vm.writer(end - 32, 64)),
        "atomic_load": lambda: vm.atomic_load(base, u64),
        "atomic at an odd place": lambda: vm.atomic_load(base + 1, u64),
    }
    for name, call in failing.items():
        with pytest.raises((procvm.ProcvmError, ValueError)) as caught:
            call()
        assert_secret(f"{name}: {texts_of(caught.value)}")
        if isinstance(caught.value, procvm.ProcvmError):
            assert SECRET not in pickle.dumps(caught.value)


def test_no_byte_of_the_target_in_a_repr(process: procvm.Process, playground: Playground) -> None:
    """No repr or text of an object shows a byte that it stands for or has read."""
    base = playground.layout("rw")
    playground.poke(base, SECRET * (PAGE // len(SECRET)))
    vm = process.vm
    buffer = bytearray(PAGE)
    reader = vm.reader(base, PAGE)
    writer = vm.writer(base, PAGE)
    own = VmWriter.from_buffer(buffer)
    array = VmReaderArray([reader.clone(), reader.clone()])
    with Segment.alloc(1) as segment:
        reader.clone().read_fallible(segment.writer())
        assert segment.read_bytes(0, 8) == SECRET
        assert reader.read_val(u64) == int.from_bytes(SECRET, "little")
        assert reader.read_val(f64)
        assert reader.read_val(u16)
        assert reader.read_val(u8)
        vm.read_into(base, buffer)
        for thing in (
            *(process, vm, vm.forced(), reader, writer, own, array, segment, segment.reader()),
            *(VmReader.from_buffer(buffer), reader.clone(), own.to_fallible(), process.maps()),
            *(u64, memory_of(reader), memory_of(own), vm.memory, process.find_vma(base)),
        ):
            assert_secret(repr(thing))
            assert_secret(str(thing))
            assert_printable(repr(thing))


def test_no_byte_of_the_target_in_the_error_of_its_end() -> None:
    """The errors of an end and of a close show nothing that was read before."""
    with Subject() as target, procvm.open(target.pid) as process:
        process.vm.write_bytes(target.address, SECRET * 8)
        reader = process.vm.reader(target.address, 64)
        assert reader.read_bytes(8) == SECRET
        assert reader.read_val(u64) == int.from_bytes(SECRET, "little")
        os.kill(target.pid, 9)
        assert process.wait() == -9
        errors = []
        for call in (
            lambda: reader.read_val(u64),
            lambda: process.vm.read_val(target.address, u64),
            lambda: process.vm.read_bytes(target.address, 8),
            process.maps,
        ):
            with pytest.raises(procvm.ProcessExitedError) as caught:
                call()
            errors.append(caught.value)
        process.close()
        with pytest.raises(procvm.ClosedError) as closed:
            reader.read_val(u64)
        for error in (*errors, closed.value):
            assert_secret(texts_of(error))
            assert_secret(repr(reader))
