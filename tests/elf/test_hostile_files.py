"""ELF files that a target maps and that are not as they should be: no harm to who asks."""

from __future__ import annotations

import contextlib
import os
import shutil
import struct
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from elftools.elf.elffile import ELFFile

import procvm
from procvm import MalformedError, NoSuchSymbolError, UnsupportedError
from procvm._symbols.elf_headers import Elf, build_id_of
from procvm._symbols.elf_symbols import SymbolTable, symbols_in_memory, symbols_of
from tests.elf.facets import Facets, library, program
from tests.elf.mutations import MOST_CPU_S, STORM, assert_cheap, cost_of, mutations
from tests.support.build import compiled
from tests.support.playground import PAGE, Playground

COUNT = 10_000 if STORM else 600
"""Mutations of each of two files."""


def hot_parts(data: bytes) -> list[tuple[int, int]]:
    """Returns the parts of an ELF file that say what the rest is."""
    elf: Any = ELFFile(BytesIO(data))
    head = elf.header
    parts = [(0, 64)]
    parts.append((head["e_phoff"], head["e_phoff"] + 56 * head["e_phnum"]))
    parts.append((head["e_shoff"], head["e_shoff"] + 64 * head["e_shnum"]))
    for name in (".dynsym", ".dynstr", ".dynamic", ".symtab", ".gnu.hash", ".note.gnu.build-id"):
        section = elf.get_section_by_name(name)
        if section is not None:
            parts.append((section["sh_offset"], section["sh_offset"] + section["sh_size"]))
    return parts


def in_memory(data: bytes, loads: list[tuple[int, int, int]]) -> SymbolTable | None:
    """Reads the tables that the dynamic linker uses, the file being mapped at 0."""
    size = max(vaddr + n for vaddr, _, n in loads)
    memory = bytearray(size)
    for vaddr, offset, n in loads:
        part = data[offset : offset + n]
        memory[vaddr : vaddr + len(part)] = part

    def read(address: int, n: int) -> bytes:
        if not 0 <= address <= address + n <= size:
            raise procvm.PageFaultError("none", address=address, pid=1)
        return bytes(memory[address : address + n])

    elf = Elf(BytesIO(data), "mutated")
    return symbols_in_memory(elf, elf.segments(), 0, read)


def loads_of(data: bytes) -> list[tuple[int, int, int]]:
    """Returns (address, offset, length) of what is loaded of a good file."""
    elf: Any = ELFFile(BytesIO(data))
    loads = (part.header for part in elf.iter_segments("PT_LOAD"))
    return [(one["p_vaddr"], one["p_offset"], one["p_filesz"]) for one in loads]


def looked_at(data: bytes, loads: list[tuple[int, int, int]] | None = None) -> bool:
    """Asks for all that is looked for in a file; returns whether all of it could be had."""
    done = 0
    for ask in (
        lambda: Elf(BytesIO(data), "mutated").segments(),
        lambda: build_id_of(Elf(BytesIO(data), "mutated")),
        lambda: symbols_of(Elf(BytesIO(data), "mutated")),
        lambda: in_memory(data, loads) if loads else None,
    ):
        try:
            found = ask()
        except (MalformedError, UnsupportedError, procvm.PageFaultError):
            continue
        done += 1
        if isinstance(found, SymbolTable):
            found.find(b"main")
            found.at(0x1139)
    return done == 4


@pytest.mark.slow
@pytest.mark.parametrize("of", ["library", "program"])
def test_any_mutation_of_a_file_is_symbols_or_malformed(tmp_path: Path, of: str) -> None:
    """Bits, fields, cuts and splices of headers and tables: symbols, or one class; cheap."""
    path = (
        library(tmp_path / "lib.so") if of == "library" else Path(compiled("killer", "-rdynamic"))
    )
    data = path.read_bytes()
    loads = loads_of(data)
    assert looked_at(data, loads)
    found = in_memory(data, loads)
    assert found is not None
    assert len(found) > 0
    good = 0
    with mutations(data, COUNT, 99, hot_parts(data)) as steps:
        for file, what in steps:
            changed = os.pread(file.fd, 1 << 20, 0)
            seen: list[bool] = []
            try:
                cost = cost_of(lambda d=changed, seen=seen: seen.append(looked_at(d, loads)))  # type: ignore[misc]
            except Exception as error:
                raise AssertionError(what) from error
            good += seen[0]
            if cost.seconds > MOST_CPU_S:
                assert_cheap(what, lambda d=changed: looked_at(d, loads))  # type: ignore[misc]
    assert COUNT // 20 < good < COUNT


@pytest.fixture
def facets() -> Iterator[Facets]:
    with Facets() as child:
        yield child


# Errors that are procvm's, and not those that symbol and describe are said to raise: see below.
OTHER = (procvm.InvalidArgsError, procvm.AccessDeniedError, procvm.AddressOverflowError)


def test_a_process_that_maps_mutated_files_is_described(facets: Facets, tmp_path: Path) -> None:
    """Mapped to be run, one after another: the program's names stay, and no foreign error."""
    data = library(tmp_path / "lib.so").read_bytes()
    path = tmp_path / "mutated.so"
    count = 400 if STORM else 80
    with (
        mutations(data, count, 7, hot_parts(data)) as steps,
        procvm.open(facets.pid) as process,
    ):
        for file, what in steps:
            path.unlink(missing_ok=True)
            path.write_bytes(os.pread(file.fd, 1 << 20, 0))
            n = -(-max(path.stat().st_size, 1) // PAGE) * PAGE
            at = facets.load(path, n)
            try:
                for name in ("part_turn", "mutated.so!part_turn", "mutated.so!none"):
                    with contextlib.suppress(
                        NoSuchSymbolError, MalformedError, UnsupportedError, *OTHER
                    ):
                        process.symbol(name)
                for offset in (0, 0x1100, n - 1):
                    with contextlib.suppress(UnsupportedError, *OTHER):
                        assert process.describe(at + offset).isprintable()
                with contextlib.suppress(*OTHER):
                    assert process.symbol("answer_of") == facets.at["answer_of"]
            except Exception as error:
                raise AssertionError(what) from error
            facets.ask(f"unmap {at:x} {n}")


EHDR = struct.Struct("=16sHHIQQQIHHHHHH")
PHDR = struct.Struct("=IIQQQQQQ")
SHDR = struct.Struct("=IIQQQQIIQQ")
SYM = struct.Struct("=IBBHQQ")


def made(
    *,
    symbols: bytes = b"",
    strings: bytes = b"\0",
    strings_len: int | None = None,
    vaddr: int = 0,
    sections: int = 3,
    ident: bytes = b"\x7fELF\2\1\1",
) -> bytes:
    """Returns a library of one segment with a symbol table."""
    symbols_at = EHDR.size + PHDR.size + SHDR.size * sections
    strings_at = symbols_at + len(symbols)
    head = EHDR.pack(
        *(ident, 3, 62, 1, 0, EHDR.size, EHDR.size + PHDR.size, 0),
        *(64, 56, 1, 64, sections, 2),
    )
    load = PHDR.pack(1, 5, 0, vaddr, 0, 0x1000, 0x1000, 4096)
    n = len(strings) if strings_len is None else strings_len
    table = [
        SHDR.pack(0, 0, 0, 0, 0, 0, 0, 0, 0, 0),
        SHDR.pack(0, 2, 0, 0, symbols_at, len(symbols), 2, 0, 8, SYM.size),
        SHDR.pack(0, 3, 0, 0, strings_at, n, 0, 0, 1, 0),
    ]
    table += [SHDR.pack(k, 1, 0, 0, 0, 0, 0, 0, 1, 0) for k in range(1, sections - 2)]
    return head + load + b"".join(table) + symbols + strings


def symbol(name: int, value: int, size: int = 8) -> bytes:
    return SYM.pack(name, 0x12, 0, 1, value, size)


def test_a_library_made_by_hand_is_one(facets: Facets, tmp_path: Path) -> None:
    """What the tests below make is read as it is meant, as long as it is not too much."""
    path = tmp_path / "made.so"
    path.write_bytes(made(symbols=symbol(1, 0x30), strings=b"\0here\0").ljust(PAGE, b"\0"))
    at = facets.load(path, PAGE)
    with procvm.open(facets.pid) as process:
        assert process.symbol("made.so!here") == at + 0x30
        assert process.describe(at + 0x32) == "made.so!here+0x2"


def test_names_without_an_end_are_cheap() -> None:
    """300 symbols whose names end where a megabyte does: not 300 MiB."""
    names = b"".join(symbol(k, 8 * k) for k in range(1, 301))
    data = made(symbols=names, strings=b"x" * 1_000_000)
    assert_cheap("names", lambda: looked_at(data))


def test_names_of_sections_without_an_end_are_cheap() -> None:
    """300 sections whose names end where a megabyte does."""
    data = made(strings=b"x" * 1_000_000, sections=303)
    assert_cheap("names", lambda: looked_at(data))


def test_a_sparse_table_is_refused(tmp_path: Path) -> None:
    """A table of strings of 256 MiB of nothing in a file that takes no room."""
    path = tmp_path / "sparse.so"
    path.write_bytes(made(symbols=symbol(1, 8), strings_len=256 << 20))
    os.truncate(path, 300 << 20)

    def look() -> None:
        with open(path, "rb", buffering=0) as file, contextlib.suppress(MalformedError):
            symbols_of(Elf(file, "sparse"))

    assert_cheap("sparse", look)


def test_a_sparse_table_of_symbols_is_refused(tmp_path: Path) -> None:
    """Four million symbols of nothing in a file that takes no room."""
    path = tmp_path / "sparse.so"
    data = bytearray(made(symbols=symbol(1, 8)))
    at = EHDR.size + PHDR.size + SHDR.size + 32
    data[at : at + 8] = struct.pack("=Q", 96_000_000)
    path.write_bytes(data)
    os.truncate(path, 300 << 20)

    def look() -> None:
        with open(path, "rb", buffering=0) as file, contextlib.suppress(MalformedError):
            symbols_of(Elf(file, "sparse"))

    assert_cheap("sparse", look)


def test_a_sparse_table_of_segments_is_refused(tmp_path: Path) -> None:
    """400,000 segments of nothing of a library."""
    path = tmp_path / "sparse.so"
    head = EHDR.pack(b"\x7fELF\2\1\1", 3, 62, 1, 0, 4096, 64, 0, 64, 56, 0xFFFF, 64, 1, 0)
    path.write_bytes(head + SHDR.pack(0, 0, 0, 0, 0, 1, 0, 400_000, 0, 0))
    os.truncate(path, 300 << 20)

    def look() -> None:
        with open(path, "rb", buffering=0) as file, contextlib.suppress(MalformedError):
            Elf(file, "sparse").segments()

    assert_cheap("sparse", look)


def dynamic(at: int, **tags: int) -> bytes:
    """Returns a library without sections whose dynamic part is at an offset."""
    names = {"hash": 4, "strtab": 5, "symtab": 6, "strsz": 10, "gnu_hash": 0x6FFFFEF5}
    head = EHDR.pack(b"\x7fELF\2\1\1", 3, 62, 1, 0, 64, 0, 0, 64, 56, 2, 64, 0, 0)
    rows = b"".join(struct.pack("=QQ", names[name], value) for name, value in tags.items())
    load = PHDR.pack(1, 5, 0, 0, 0, 0x1000, 0x1000, 4096)
    return (
        (head + load + PHDR.pack(2, 6, at, at, 0, 512, 512, 8)).ljust(at, b"\0") + rows + bytes(16)
    )


def in_zeros(data: bytes, reads: list[int]) -> None:
    """Reads the tables of a library that lies in a long area of zeros."""

    def read(address: int, n: int) -> bytes:
        reads.append(n)
        return data[address : address + n].ljust(n, b"\0")

    elf = Elf(BytesIO(data), "mutated")
    with contextlib.suppress(MalformedError):
        symbols_in_memory(elf, elf.segments(), 0, read)


def test_a_chain_without_an_end_is_given_up_soon() -> None:
    """A hash table whose last chain does not end: not millions of reads of a process."""
    data = dynamic(0x200, strtab=0x100, symtab=0x100, strsz=8, gnu_hash=0x800).ljust(0x800, b"\0")
    data += struct.pack("=IIIIQI", 1, 1, 1, 0, 0, 1)
    reads: list[int] = []
    in_zeros(data, reads)
    assert len(reads) < 10_000


def test_buckets_without_number_are_cheap() -> None:
    """A hash table that says it has 16 million buckets, in 64 MiB of nothing."""
    data = dynamic(0x200, strtab=0x100, symtab=0x100, strsz=8, gnu_hash=0x800).ljust(0x800, b"\0")
    data += struct.pack("=IIIIQ", 4_000_000, 1, 1, 0, 0)
    assert_cheap("buckets", lambda: in_zeros(data, []))


@pytest.mark.parametrize("vaddr", [1 << 63, (1 << 64) - PAGE, 1 << 50])
def test_a_file_that_says_it_is_loaded_beyond_all_addresses(
    facets: Facets, tmp_path: Path, vaddr: int
) -> None:
    """A symbol whose address would be none is no symbol: NoSuchSymbolError."""
    path = tmp_path / "made.so"
    path.write_bytes(
        made(symbols=symbol(1, 0x30), strings=b"\0here\0", vaddr=vaddr).ljust(PAGE, b"\0")
    )
    facets.load(path, PAGE)
    with procvm.open(facets.pid) as process, pytest.raises((NoSuchSymbolError, MalformedError)):
        process.symbol("made.so!here")


def test_a_symbol_beyond_all_addresses(facets: Facets, tmp_path: Path) -> None:
    """A value of 2^64 - 1 in a library: not an address."""
    path = tmp_path / "made.so"
    path.write_bytes(made(symbols=symbol(1, (1 << 64) - 1), strings=b"\0here\0").ljust(PAGE, b"\0"))
    facets.load(path, PAGE)
    with procvm.open(facets.pid) as process, pytest.raises((NoSuchSymbolError, MalformedError)):
        process.symbol("made.so!here")


def test_a_file_that_is_another_on_disk_does_not_hide_the_others(tmp_path: Path) -> None:
    """A library whose header the target wrote over in its own copy: other names are still found."""
    path = tmp_path / "made.so"
    turned = b"\x7fELF\2\2\1"
    path.write_bytes(made(symbols=symbol(1, 0x30), strings=b"\0here\0", ident=turned).ljust(PAGE))
    with Playground() as child, procvm.open(child.pid) as process:
        at = child.map_file(os.fsencode(path), PAGE, "rw")
        child.poke(at, b"\x7fELF\2\1\1")
        child.protect(at, PAGE, "rwx")
        assert process.describe(at + 0x31) == "made.so+0x31"
        with pytest.raises(NoSuchSymbolError):
            process.symbol("no_such")


def test_names_of_symbols_are_printable(facets: Facets, tmp_path: Path) -> None:
    """Escapes and newlines of a symbol's name do not come out of describe, nor of an error."""
    path = tmp_path / "made.so"
    strings = b"\0\x1b[31m\n\xff\xe2\x80\xae\0"
    path.write_bytes(made(symbols=symbol(1, 0x30), strings=strings).ljust(PAGE, b"\0"))
    at = facets.load(path, PAGE)
    with procvm.open(facets.pid) as process:
        assert process.describe(at + 0x31) == "made.so!\\x1b[31m\\x0a\\xff\\u202e+0x1"
        name = strings[1:-1].decode("utf-8", "surrogateescape")
        assert process.symbol(name) == at + 0x30
        with pytest.raises(NoSuchSymbolError) as caught:
            process.symbol(name + "x")
        assert str(caught.value).isprintable()


def test_a_malformed_file_is_said_to_be_so_when_it_is_named(facets: Facets, tmp_path: Path) -> None:
    """Named it is MalformedError with why; not named it is passed over, and told of at the end."""
    path = tmp_path / "made.so"
    data = bytearray(made(symbols=symbol(1, 0x30), strings=b"\0here\0").ljust(PAGE, b"\0"))
    at = EHDR.size + PHDR.size + SHDR.size
    data[at + 24 : at + 32] = struct.pack("=Q", 1 << 40)  # where its symbols are
    path.write_bytes(data)
    facets.load(path, PAGE)
    with procvm.open(facets.pid) as process:
        with pytest.raises(MalformedError, match=str(path)):
            process.symbol("made.so!here")
        assert process.symbol("answer_of") == facets.at["answer_of"]
        with pytest.raises(NoSuchSymbolError, match="could not be read"):
            process.symbol("no_such")


@pytest.mark.parametrize("what", ["shared", "device", "pipe"])
def test_what_is_mapped_and_no_program_is_left_alone(tmp_path: Path, what: str) -> None:
    """Shared memory is not read for symbols, and a pipe at a path is not waited for."""
    path = tmp_path / "mapped"
    shutil.copy(program(), path)
    with Playground() as child, procvm.open(child.pid) as process:
        if what == "device":
            at = child.map_file(b"/dev/zero", PAGE, "rw")
            assert process.describe(at + 1) == "zero+0x1"
        elif what == "shared":
            at = child.map_file(os.fsencode(path), PAGE, "sr")
            assert process.describe(at + 64) == "mapped+0x40"
        else:
            at = child.map_file(os.fsencode(path), PAGE, "r")
            path.unlink()
            os.mkfifo(path)
            assert process.describe(at + 1) == "mapped+0x1"
        with pytest.raises(NoSuchSymbolError):
            process.symbol("g_counter")
