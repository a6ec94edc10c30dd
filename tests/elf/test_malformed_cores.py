"""Core files that are not as they should be: one error class, little time, little memory."""

from __future__ import annotations

import contextlib
import os
import random
import struct
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

import procvm
from procvm import MalformedError, PageFaultError, Snapshot, UnsupportedError
from procvm._symbols.core_notes import (
    MAPS_OWNER,
    NT_AUXV,
    NT_FILE,
    NT_MAPS,
    NT_PRPSINFO,
    NT_PRSTATUS,
)
from tests.elf.cores import EHDR, PHDR, PT_NOTE, SHDR, hot_parts, load, made, note, three
from tests.elf.mutations import MOST_CPU_S, MOST_MEMORY, STORM, assert_cheap, cost_of, mutations

# The files that a core names are opened and not always closed: that has a test of its own.
UNCLOSED = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")

COUNT = 6667 if STORM else 400
"""Mutations of each of three cores."""

NOTES_LEN = 1 << 24


@pytest.fixture(scope="module")
def cores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Small cores of three makers."""
    return three(tmp_path_factory.mktemp("cores"))


def looked_at(core: Snapshot) -> None:
    """Asks an opened core for everything; faults and names that are not there are answers."""
    maps = core.maps()
    str(maps)
    for vma in maps[:40]:
        core.find_vma(vma.start)
        with contextlib.suppress(PageFaultError, procvm.AccessDeniedError):
            core.vm.read_bytes(vma.start, 16)
    for thread in core.threads():
        core.registers(thread.tid)
    calls: list[Callable[[], object]] = [
        lambda: core.symbol("g_counter"),
        lambda: core.symbol("libc.so.6!environ"),
        lambda: core.describe(maps[len(maps) // 2].start + 8) if maps else "",
        lambda: core.address("*g_list"),
    ]
    for call in calls:
        with contextlib.suppress(procvm.ProcvmError):
            call()


def opened(path: str | Path) -> bool:
    """Opens and looks; returns whether it could be opened. Any other error is the test's end."""
    try:
        core = procvm.open_core(path)
    except (MalformedError, UnsupportedError):
        return False
    with core:
        looked_at(core)
    return True


@pytest.mark.slow
@UNCLOSED
@pytest.mark.parametrize("maker", ["held", "plain", "gcore"])
def test_any_mutation_gives_a_snapshot_or_malformed(cores: dict[str, bytes], maker: str) -> None:
    """Bits, fields, cuts and splices: a snapshot or one class of error, cheap; some of both."""
    if maker not in cores:
        pytest.skip("not installed: gdb")
    data = cores[maker]
    counts = {True: 0, False: 0}
    with mutations(data, 1, 0, []) as steps:
        for file, _ in steps:
            file.put(data)
            assert opened(file.path)  # what is read once for all, symbols of files, is read
    with mutations(data, COUNT, 20260101, hot_parts(data)) as steps:
        for file, what in steps:
            seen: list[bool] = []
            try:
                cost = cost_of(lambda file=file, seen=seen: seen.append(opened(file.path)))  # type: ignore[misc]
            except Exception as error:
                raise AssertionError(what) from error
            counts[seen[0]] += 1
            if cost.seconds > MOST_CPU_S or cost.memory > MOST_MEMORY:
                assert_cheap(what, lambda file=file: opened(file.path))  # type: ignore[misc]
    assert min(counts.values()) > COUNT // 10, counts


@UNCLOSED
@pytest.mark.parametrize("maker", ["held", "plain", "gcore"])
def test_every_length_of_a_core_is_an_answer(cores: dict[str, bytes], maker: str) -> None:
    """A file that was cut off in its header, its segments or its notes says so, or faults."""
    if maker not in cores:
        pytest.skip("not installed: gdb")
    data = cores[maker]
    lengths = {*range(70), *(random.Random(1).randrange(len(data)) for _ in range(60))}
    for a, b in hot_parts(data):
        lengths |= {a - 1, a, a + 1, (a + b) // 2, b - 1, b}
    with mutations(data, 1, 0, []) as steps:
        for file, _ in steps:
            for n in sorted(n for n in lengths if 0 <= n <= len(data)):
                file.put(data[:n])
                opened(file.path)


@pytest.fixture
def malformed(tmp_path: Path) -> Callable[[bytes], Path]:
    """Returns what writes a file."""

    def write(data: bytes) -> Path:
        path = tmp_path / "core"
        path.write_bytes(data)
        return path

    return write


Write = Callable[[bytes], Path]


def core_note(kind: int, desc: bytes) -> bytes:
    return note(b"CORE", kind, desc)


BAD = {
    "an empty file": b"",
    "text": b"not a core file\n" * 100,
    "a header alone, cut off": made([])[:63],
    "the magic number": b"\x7fELF",
    "segments that are not there": made([], phnum=9),
    "65,535 segments and no section that counts them": made([], phnum=0xFFFF),
    "segments that overlap": made([load(0x10000, 0x3000), load(0x12000, 0x1000)]),
    "two segments at one address": made([load(0x10000, 0x1000)] * 2),
    "a segment that wraps": made([load((1 << 64) - 0x1000, 0x2000)]),
    "a segment that ends where it began": made([load(0x1000, (1 << 64) - 1)]),
    "more in the file than in memory": made([load(0x10000, 0x1000, 64, 0x1001)]),
    "2^64 - 1 bytes in the file": made([load(0x10000, 0x1000, 64, (1 << 64) - 1)]),
    "a note longer than all": made([], struct.pack("=III", 0xFFFFFFFF, 0xFFFFFFFF, 1) + bytes(8)),
    "a note that is not all there": made([], core_note(NT_PRSTATUS, bytes(336))[:-8]),
    "a thread of 8 bytes": made([], core_note(NT_PRSTATUS, bytes(8))),
    "a process of 8 bytes": made([], core_note(NT_PRPSINFO, bytes(8))),
    "2^63 files": made([], core_note(NT_FILE, struct.pack("=QQ", 1 << 63, 4096) + bytes(100))),
    "2^64 - 1 files": made([], core_note(NT_FILE, struct.pack("=QQ", (1 << 64) - 1, 1))),
    "files without names": made(
        [], core_note(NT_FILE, struct.pack("=QQQQQ", 1, 1, 0, 4096, 0))[:-4]
    ),
    "mappings in 4 bytes": made([], note(MAPS_OWNER, NT_MAPS, bytes(4))),
    "2^63 mappings": made([], note(MAPS_OWNER, NT_MAPS, struct.pack("=Q", 1 << 63) + bytes(99))),
    "a mapping that ends before it starts": made(
        [],
        note(
            MAPS_OWNER, NT_MAPS, struct.pack("=QQQIQIIQ", 1, 0x3000, 0x2000, 3, 0, 0, 0, 0) + b"\0"
        ),
    ),
    "a mapping of unknown permissions": made(
        [],
        note(
            MAPS_OWNER, NT_MAPS, struct.pack("=QQQIQIIQ", 1, 0x2000, 0x3000, 16, 0, 0, 0, 0) + b"\0"
        ),
    ),
    "notes of 17 MiB": made([], bytes(17 << 20)),
    "no core but a program": made([])[:16] + struct.pack("=H", 2) + made([])[18:],
}


@pytest.mark.parametrize("what", BAD)
def test_what_is_no_core_is_malformed(malformed: Write, what: str) -> None:
    """Each is a MalformedError that names the file, at once."""
    path = malformed(BAD[what])
    with pytest.raises(MalformedError, match=str(path)):
        procvm.open_core(path)
    assert_cheap(what, lambda: opened(path))


def test_core_of_the_other_byte_order_is_refused_and_one_of_32_bits_is_opened(
    malformed: Write,
) -> None:
    plain = made([])
    wide = bytearray(plain)
    wide[5] = 2
    wide[16:18] = b"\0\x04"
    narrow = struct.pack(
        "=16sHHIIIIIHHHHHH", b"\x7fELF\1\1\1", 4, 3, 1, 0, 52, 0, 0, 52, 32, 0, 0, 0, 0
    )
    with pytest.raises(UnsupportedError, match="byte order"):
        procvm.open_core(malformed(bytes(wide)))
    with procvm.open_core(malformed(narrow)) as core:
        assert (core.address_size, core.kept_len, core.threads()) == (4, 0, [])


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    """A pipe without a writer, a folder and a device without an end are told apart, at once."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (pipe, tmp_path, Path("/dev/zero"), Path("/dev/null")):
        with pytest.raises(MalformedError, match="not a regular file"):
            procvm.open_core(path)
    with pytest.raises(FileNotFoundError):
        procvm.open_core(tmp_path / "none")


def test_odd_cores_that_are_cores_open(malformed: Write) -> None:
    """No segments, no notes, an unknown machine, a segment behind the file's end: as they are."""
    with procvm.open_core(malformed(made([]))) as core:
        assert (core.pid, len(core.maps()), core.threads(), core.kept_len) == (0, 0, [], 0)
        with pytest.raises(PageFaultError) as caught:
            core.vm.read_bytes(0x1000, 4)
        assert caught.value.address == 0x1000
    with procvm.open_core(
        malformed(made([], core_note(NT_PRSTATUS, bytes(400)), machine=9))
    ) as core:
        assert core.threads() == []
    beyond = made([load(0x10000, 0x2000, 1 << 63, 0x2000)])
    with procvm.open_core(malformed(beyond)) as core:
        assert core.maps()[0][:2] == (0x10000, 0x12000)
        with pytest.raises(PageFaultError):
            core.vm.read_bytes(0x10000, 1)
    odd = made([], core_note(NT_AUXV, bytes(21)))
    assert opened(malformed(odd))


def test_segments_counted_by_a_section(malformed: Write, tmp_path: Path) -> None:
    """e_phnum 0xffff: the first section says how many; one that lies is malformed."""
    head = EHDR.pack(b"\x7fELF\2\1\1", 4, 62, 1, 0, 128, 64, 0, 64, 56, 0xFFFF, 64, 1, 0)
    row = PHDR.pack(*load(0x10000, 0x1000))

    def of(count: int) -> bytes:
        return head + SHDR.pack(0, 0, 0, 0, 0, 1, 0, count, 0, 0) + row

    with procvm.open_core(malformed(of(1))) as core:
        assert [vma[:2] for vma in core.maps()] == [(0x10000, 0x11000)]
    for count, why in ((2, "not there"), (0xFFFF, "not there"), (0xFFFFFFFF, "4294967295")):
        with pytest.raises(MalformedError, match=why):
            procvm.open_core(malformed(of(count)))


def test_a_file_that_is_cut_off_after_it_was_opened_faults(
    cores: dict[str, bytes], tmp_path: Path
) -> None:
    """PageFaultError where it ends, with the bytes before it, and no SIGBUS; for values as well."""
    path = tmp_path / "core"
    path.write_bytes(made([load(0x10000, 0x2000, 4096, 0x2000)], data=bytes(16 << 10)))
    with procvm.open_core(path) as core:
        reader = core.vm.reader(0x10000, 0x2000)
        assert core.vm.read_val(0x10FFC, procvm.u32) == 0
        os.truncate(path, 4096 + 0xFFE)
        with pytest.raises(PageFaultError) as caught:
            core.vm.read_bytes(0x10F00, 0x200)
        assert (caught.value.address, caught.value.copied_len) == (0x10FFE, 0xFE)
        with pytest.raises(PageFaultError) as caught:
            core.vm.read_val(0x10FFC, procvm.u32)
        assert caught.value.address == 0x10FFE
        values, ok = core.vm.gather([0x10000, 0x10FFC, 0x11000], procvm.u32, faults="mask")
        assert [*map(bool, ok)] == [True, False, False]
        assert [*map(int, values)] == [0, 0, 0]
        assert reader.read_val(procvm.u64) == 0
        assert len(list(core.vm.search(bytes(16), align=16))) == 0xFF


def just_opened(path: Path) -> None:
    with contextlib.suppress(MalformedError):
        procvm.open_core(path).close()


def crowd_of_threads() -> bytes:
    return made([], b"".join(core_note(NT_PRSTATUS, bytes(336)) for _ in range(40_000)))


COSTLY: dict[str, Callable[[], bytes]] = {
    "16 MiB of the smallest notes": lambda: made([], bytes(NOTES_LEN)),
    "16 MiB of notes of somebody": lambda: made([], note(b"x", 1, b"") * (NOTES_LEN // 16)),
    "a file note of 16 MiB of nothing": lambda: made(
        [], core_note(NT_FILE, struct.pack("=QQ", 0, 1) + bytes(NOTES_LEN - 99))
    ),
    "a maps note of 16 MiB of nothing": lambda: made(
        [], note(MAPS_OWNER, NT_MAPS, bytes(NOTES_LEN - 99))
    ),
    "an auxv of a million": lambda: made(
        [],
        core_note(
            NT_AUXV, b"".join(struct.pack("=QQ", k + 1, k) for k in range(NOTES_LEN // 16 - 9))
        ),
    ),
    "twenty segments of the same 16 MiB of notes": lambda: made(
        [(PT_NOTE, 0, EHDR.size + 20 * PHDR.size, 0, 0, NOTES_LEN, 0, 4)] * 20,
        data=core_note(99, bytes(NOTES_LEN - 20)),
    ),
    "four segments of the same 60,000 notes": lambda: made(
        [(PT_NOTE, 0, EHDR.size + 4 * PHDR.size, 0, 0, 960_000, 0, 4)] * 4,
        data=note(b"x", 1, b"") * 60_000,
    ),
    "600,000 files mapped at one place": lambda: made(
        [],
        core_note(
            NT_FILE,
            struct.pack("=QQ", 600_000, 4096)
            + struct.pack("=QQQ", 4096, 8192, 0) * 600_000
            + bytes(600_000),
        ),
    ),
    "40,000 threads of one number": crowd_of_threads,
    "30,000 segments, the last of which overlaps": lambda: made(
        [*(load(k << 12, 4096) for k in range(30_000)), load(4096, 4096)]
    ),
}


@pytest.mark.parametrize("what", COSTLY)
def test_a_core_that_is_made_to_cost_is_cheap(malformed: Write, what: str) -> None:
    """No file of a few megabytes takes more than 50 ms and 64 MiB, whatever it says."""
    path = malformed(COSTLY[what]())
    assert_cheap(what, lambda: just_opened(path))


def test_a_sparse_file_of_segments_is_refused_at_once(tmp_path: Path) -> None:
    """A terabyte of nothing that is said to be 400,000 segments is malformed before it is read."""
    path = tmp_path / "core"
    head = EHDR.pack(b"\x7fELF\2\1\1", 4, 62, 1, 0, 4096, 64, 0, 64, 56, 0xFFFF, 64, 1, 0)
    path.write_bytes(head + SHDR.pack(0, 0, 0, 0, 0, 1, 0, 400_000, 0, 0))
    os.truncate(path, 1 << 40)
    assert_cheap("sparse", lambda: just_opened(path))


def file_note(*rows: tuple[int, int, int], unit: int = 1) -> bytes:
    head = struct.pack("=QQ", len(rows), unit)
    names = b"".join(b"/file%d\0" % k for k in range(len(rows)))
    return core_note(NT_FILE, head + b"".join(struct.pack("=QQQ", *row) for row in rows) + names)


def test_a_core_with_an_offset_of_126_bits_is_saved_again_or_malformed(
    malformed: Write, tmp_path: Path
) -> None:
    """What was opened can be saved, or says that it is malformed; no error of another library."""
    notes = file_note((0x10000, 0x11000, 1 << 63), unit=1 << 63)
    path = malformed(made([load(0x10000, 0x1000)], notes))
    with contextlib.suppress(MalformedError), procvm.open_core(path) as core:
        core.save(tmp_path / "again")
        with procvm.open_core(tmp_path / "again") as again:
            assert again.maps()[0] == core.maps()[0]


def test_mappings_are_sorted_and_disjoint_whatever_a_core_says(malformed: Write) -> None:
    """Rows that end before they begin, and rows that overlap, are malformed or put right."""
    notes = file_note((0x30000, 0x20000, 0), (0x10000, 0x90000, 0), (0x40000, 0x50000, 0))
    with contextlib.suppress(MalformedError), procvm.open_core(malformed(made([], notes))) as core:
        last = 0
        for vma in core.maps():
            assert last <= vma.start < vma.end
            last = vma.end


def test_a_file_outside_of_user_space_does_not_hide_all_symbols(malformed: Write) -> None:
    """A core that names a file at the kernel's addresses: no such symbol, not another error."""
    start = (1 << 64) - 0xA00000
    path = malformed(made([], file_note((start, start + 0x1000, 0))))
    with procvm.open_core(path) as core, pytest.raises(procvm.NoSuchSymbolError):
        core.symbol("main")


def test_the_files_that_a_core_names_are_closed(malformed: Write) -> None:
    """A core without the first bytes of a file: what is at its path is looked at, and closed."""
    path = os.fsencode(malformed(b"\x7fELF").with_name("named"))
    Path(os.fsdecode(path)).write_bytes(b"another file")
    desc = struct.pack("=QQQQQ", 1, 1, 0x10000, 0x11000, 0) + path + b"\0"
    with (
        procvm.open_core(malformed(made([], core_note(NT_FILE, desc)))) as core,
        warnings.catch_warnings(record=True) as caught,
    ):
        warnings.simplefilter("always", ResourceWarning)
        before = len(os.listdir("/proc/self/fd"))
        assert core.describe(0x10008) == "named+0x8"
        assert not [one for one in caught if one.category is ResourceWarning]
        assert len(os.listdir("/proc/self/fd")) == before
