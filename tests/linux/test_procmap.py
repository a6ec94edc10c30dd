"""/proc/PID/maps: hostile names, torn listings, and the question for one mapping."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import threading
import types
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import procvm
from procvm._base.perms import Perms
from procvm._linux import proc_maps as procmap
from procvm._linux.proc_maps import VmaEntry, entry_at, parse_maps, read_maps, vma_at
from tests.support.playground import PAGE, Playground

LINE = b"7f0000000000-7f0000002000 r-xp 0000a000 fe:1c 4242       "


def entry(name: bytes) -> VmaEntry:
    return VmaEntry(0x7F0000000000, 0x7F0000002000, 5, 0xA000, (0xFE, 0x1C), 4242, name)


# Parsing


def test_a_line_is_parsed_to_all_its_fields() -> None:
    """Addresses, permissions, offset and device are hexadecimal, the inode is decimal."""
    assert parse_maps(LINE + b"/bin/true\n") == [entry(b"/bin/true")]


def test_a_line_without_a_name_has_an_empty_one() -> None:
    """An anonymous mapping, with the kernel's trailing blank or without, has the name b''."""
    text = b"00400000-00401000 ---p 00000000 00:00 0 \n00401000-00402000 rwxs 00000000 00:00 0\n"
    assert parse_maps(text) == [
        VmaEntry(0x400000, 0x401000, 0, 0, (0, 0), 0, b""),
        VmaEntry(0x401000, 0x402000, 15, 0, (0, 0), 0, b""),
    ]


def test_nothing_parses_to_no_mapping() -> None:
    """The empty text of an address space that is gone has no mappings."""
    assert parse_maps(b"") == []


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (rb"/a\012b", b"/a\nb"),
        (b"/a (deleted)", b"/a (deleted)"),
        (b"/a (deleted) (deleted)", b"/a (deleted) (deleted)"),
        (b"/back\\slash", b"/back\\slash"),
        (rb"/a\040b\011", rb"/a\040b\011"),
        (b"/\x1b[31mred\x1b[0m", b"/\x1b[31mred\x1b[0m"),
        (b"/) R 1", b"/) R 1"),
        (b"/\xff\xfe\xc3\x28", b"/\xff\xfe\xc3\x28"),
        (b"/a  b\tc ", b"/a  b\tc "),
        (b"/cr\rff\x0cvt\x0bfs\x1cnel\x85", b"/cr\rff\x0cvt\x0bfs\x1cnel\x85"),
        ("/\u202erlo\u2028ls".encode(), "/\u202erlo\u2028ls".encode()),
        (b"[anon: a  b ]", b"[anon: a  b ]"),
        (b"/x\r", b"/x\r"),
        (b"/7f0000000000-7f0000001000 rwxp 00000000 00:00 0", None),
    ],
)
def test_a_hostile_name_is_parsed_as_it_is(text: bytes, name: bytes | None) -> None:
    """Whatever is in the name is in the result, only the newline unescaped, and makes no line."""
    assert parse_maps(LINE + text + b"\n") == [entry(text if name is None else name)]
    both = parse_maps(LINE + text + b"\n" + LINE.replace(b"7f", b"7e") + b"/next\n")
    assert [found.name for found in both] == [text if name is None else name, b"/next"]


@given(st.binary(max_size=200).filter(lambda name: b"\0" not in name and b"\\012" not in name))
def test_any_name_of_a_file_survives(name: bytes) -> None:
    """A path of any bytes, escaped as the kernel escapes it, is parsed back."""
    text = LINE + b"/" + name.replace(b"\n", b"\\012") + b"\n"
    assert parse_maps(text) == [entry(b"/" + name)]


@pytest.mark.parametrize(
    "line",
    [
        b"x",
        b"7f0000000000 r-xp 0 0:0 0",
        b"7f0000000000-7f0000002000",
        b"7f0000000000-7f0000002000 r-xp",
        b"7f0000000000-7f0000002000 r-xp 00000000",
        b"7f0000000000-7f0000002000 r-xp 00000000 00:00",
        b"7f0000000000-7f0000002000 r-x 00000000 00:00 0",
        b"7f0000000000-7f0000002000 r-xpp 00000000 00:00 0",
        b"7f0000000000-7f0000002000 zzzz 00000000 00:00 0",
        b"zf0000000000-7f0000002000 r-xp 00000000 00:00 0",
        b"7f0000000000-zf0000002000 r-xp 00000000 00:00 0",
        b"7f0000000000- r-xp 00000000 00:00 0",
        b"-7f0000002000 r-xp 00000000 00:00 0",
        b"7f0000000000-7f0000002000 r-xp zz 00:00 0",
        b"7f0000000000-7f0000002000 r-xp 00000000 0000 0",
        b"7f0000000000-7f0000002000 r-xp 00000000 zz:00 0",
        b"7f0000000000-7f0000002000 r-xp 00000000 00:00 0x",
        b"7f0000002000-7f0000000000 r-xp 00000000 00:00 0",
        b"7f0000000000-7f0000002000 r-xp 00000000 00:00 -1",
        b"\xff\xff-\xff r-xp 00000000 00:00 0",
    ],
)
def test_what_is_not_a_line_of_maps_is_a_value_error(line: bytes) -> None:
    """Cut or garbled text is refused with ValueError and with no other error."""
    with pytest.raises(ValueError, match=r".") as caught:
        parse_maps(LINE + b"/good\n" + line + b"\n")
    assert type(caught.value) is ValueError


@given(st.binary(max_size=300))
def test_garbage_is_parsed_or_refused(text: bytes) -> None:
    """No bytes raise anything but ValueError."""
    with suppress(ValueError):
        parse_maps(text)


@pytest.mark.parametrize(
    ("letters", "perms"),
    [
        ("---p", Perms(0)),
        ("r--p", Perms.READ),
        ("-w-p", Perms.WRITE),
        ("--xp", Perms.EXEC),
        ("---s", Perms.SHARED),
        ("rw-p", Perms.READ | Perms.WRITE),
        ("r-xp", Perms.READ | Perms.EXEC),
        ("rw-s", Perms.READ | Perms.WRITE | Perms.SHARED),
        ("rwxs", Perms(15)),
    ],
)
def test_perms_are_written_as_maps_writes_them(letters: str, perms: Perms) -> None:
    """The text is the four letters, and parsing the four letters gives the same flags."""
    assert str(perms) == letters
    line = f"00400000-00401000 {letters} 00000000 00:00 0\n".encode()
    assert parse_maps(line)[0].flags == perms


# Torn listings


def span(start: int, end: int, name: bytes = b"") -> VmaEntry:
    return VmaEntry(start, end, 1, 0, (0, 0), 0, name)


SPANS = st.builds(
    lambda start, n, name: span(start, start + n, name),
    st.integers(0, 60),
    st.integers(1, 12),
    st.sampled_from([b"", b"a", b"b"]),
)


@given(st.lists(SPANS, max_size=20))
def test_a_torn_listing_is_made_sorted_and_disjoint(entries: list[VmaEntry]) -> None:
    """What is left is sorted, disjoint and was all in the listing; what is not contradicts it."""
    kept = procmap._without_contradictions(entries)  # noqa: SLF001 (pure, and hypothesis feeds it)
    assert all(a.end <= b.start for a, b in pairwise(kept))
    assert all(found in entries for found in kept)
    for left_out in entries:
        assert left_out in kept or any(
            left_out.start < found.end and found.start < left_out.end for found in kept
        )


@given(st.lists(SPANS, max_size=20))
def test_order_is_found_out_exactly(entries: list[VmaEntry]) -> None:
    """A listing is in order if each mapping begins where the one before it ends, or later."""
    expected = all(a.end <= b.start for a, b in pairwise(entries))
    assert procmap._in_order(entries) == expected  # noqa: SLF001 (pure, and hypothesis feeds it)


def _text(entries: list[VmaEntry]) -> bytes:
    return b"".join(
        f"{found.start:08x}-{found.end:08x} r--p 00000000 00:00 0 ".encode() + found.name + b"\n"
        for found in entries
    )


GOOD = [span(0x1000, 0x2000, b"a"), span(0x2000, 0x3000, b"b"), span(0x8000, 0x9000, b"c")]


class Listings:
    """A maps file whose next readings are given; each is handed out in two pieces."""

    def __init__(self, texts: list[bytes]) -> None:
        self.texts = texts
        self.read = 0

    def pread(self, fd: int, n: int, offset: int) -> bytes:
        text = self.texts[min(self.read, len(self.texts) - 1)]
        piece = text[offset : offset + max(1, len(text) // 2)]
        if not piece:
            self.read += 1
        return piece


@pytest.fixture
def listings(monkeypatch: pytest.MonkeyPatch) -> Listings:
    """Puts the given texts in the place of the kernel's answers."""
    given_texts = Listings([])
    monkeypatch.setattr(procmap, "os", types.SimpleNamespace(pread=given_texts.pread))
    return given_texts


@pytest.mark.parametrize(
    "torn",
    [
        [GOOD[0], GOOD[1], GOOD[1]],
        [GOOD[1], GOOD[0], GOOD[2]],
        [GOOD[0], span(0x1800, 0x2800), GOOD[2]],
        [span(0x1000, 0x9000), GOOD[1]],
    ],
    ids=["repeated", "swapped", "overlapping", "inside"],
)
def test_a_torn_listing_is_read_again(listings: Listings, torn: list[VmaEntry]) -> None:
    """After contradicting readings the first one that holds together is the result."""
    listings.texts = [_text(torn), _text(torn), _text(GOOD)]
    assert read_maps(-1) == GOOD
    assert listings.read == 3


def test_a_listing_that_never_holds_together_is_repaired(listings: Listings) -> None:
    """A target that never rests gives a sorted and disjoint listing, after few readings."""
    listings.texts = [_text([GOOD[2], GOOD[0], GOOD[1], GOOD[1]])]
    assert read_maps(-1) == GOOD
    assert listings.read <= 10


def test_a_good_listing_is_read_once(listings: Listings) -> None:
    """Nothing is read again that holds together."""
    listings.texts = [_text(GOOD)]
    assert read_maps(-1) == GOOD
    assert listings.read == 1


# A real child


HOSTILE = [
    b"plain",
    b"new\nline",
    b"two\n\nnewlines\n",
    b"esc\x1b[31mape",
    b") R 1",
    b"gone (deleted)",
    b"\xff\xfebad utf-8\xc3",
    b"back\\slash",
    b"back\\\\two",
    b"oct\\040al",
    b" lead and trail ",
    b"tab\tcr\rff\x0cvt\x0b",
    "\u202erlo \u2028 \x85".encode(),
    b"n" * 255,
]


@pytest.fixture
def maps_fd(playground: Playground) -> Iterator[int]:
    fd = os.open(f"/proc/{playground.pid}/maps", os.O_RDONLY | os.O_CLOEXEC)
    yield fd
    os.close(fd)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_mapped_file_has_its_own_name(
    playground: Playground, maps_fd: int, tmp_path: Path, name: bytes
) -> None:
    """The listing and the question for one mapping both give the path, to the byte."""
    path = bytes(tmp_path) + b"/" + name
    Path(os.fsdecode(path)).write_bytes(bytes(PAGE))
    at = playground.map_file(path, PAGE, "r")
    (found,) = [vma for vma in read_maps(maps_fd) if vma.start == at]
    stat = os.stat(path)
    assert found == VmaEntry(
        at,
        at + PAGE,
        Perms.READ,
        0,
        (os.major(stat.st_dev), os.minor(stat.st_dev)),
        stat.st_ino,
        path,
    )
    assert entry_at(maps_fd, at) == found
    os.unlink(path)
    (found,) = [vma for vma in read_maps(maps_fd) if vma.start == at]
    assert found.name == path + b" (deleted)"
    assert entry_at(maps_fd, at) == found


def test_a_backslash_in_a_name_is_told_from_an_escaped_newline(
    process: procvm.Process, playground: Playground, tmp_path: Path
) -> None:
    r"""A file called ``a\012b`` and one called a, newline, b have different names."""
    names = {}
    for name in (b"a\\012b", b"a\nb"):
        path = bytes(tmp_path) + b"/" + name
        Path(os.fsdecode(path)).write_bytes(bytes(PAGE))
        names[playground.map_file(path, PAGE, "r")] = path
    for at, path in names.items():
        found = process.find_vma(at)
        assert found is not None
        assert found.name == path
    for at, path in names.items():
        found = process.maps().find(at)
        assert found is not None
        assert found.name == path


@pytest.mark.parametrize("name", HOSTILE[:-1])
def test_a_memfd_has_its_own_name(playground: Playground, maps_fd: int, name: bytes) -> None:
    """A memfd is /memfd:NAME (deleted), whatever bytes are in the name."""
    at = playground.map_memfd(name, PAGE)
    (found,) = [vma for vma in read_maps(maps_fd) if vma.start == at]
    assert found.name == b"/memfd:" + name + b" (deleted)"
    assert found.flags == Perms.READ | Perms.WRITE | Perms.SHARED
    assert entry_at(maps_fd, at) == found


def test_a_name_that_is_longer_than_a_path_may_be_is_no_error(
    process: procvm.Process, playground: Playground, tmp_path: Path
) -> None:
    """A file so deep that its path exceeds PATH_MAX can be asked for, and is the listing's."""
    top = fd = os.open(tmp_path, os.O_RDONLY)
    for _ in range(20):
        os.mkdir("d" * 250, dir_fd=fd)
        deeper = os.open("d" * 250, os.O_RDONLY, dir_fd=fd)
        if fd != top:
            os.close(fd)
        fd = deeper
    file = os.open("file", os.O_RDWR | os.O_CREAT, 0o600, dir_fd=fd)
    os.ftruncate(file, PAGE)
    try:
        at = playground.map_file(f"/proc/{os.getpid()}/fd/{file}".encode(), PAGE, "r")
    finally:
        for opened in (file, fd, top):
            os.close(opened)
        shutil.rmtree(tmp_path / ("d" * 250))
    listed = process.maps().find(at)
    assert listed is not None
    assert listed.start == at
    assert process.find_vma(at) == listed


def _wild(playground: Playground) -> None:
    """Gives the child mappings of every sort."""
    playground.layout("rw r none wo xo hole eof guard srw sr file fro rwx")
    playground.map_memfd(b"a\nb ", PAGE)
    playground.reserve(1 << 34)
    playground.spin(playground.layout("rw"))


def test_one_mapping_asked_for_is_the_one_of_the_listing(
    process: procvm.Process, playground: Playground
) -> None:
    """For the first, a middle and the last byte of every mapping, the two agree in every field."""
    _wild(playground)
    listing = process.maps()
    assert len(listing) > 30
    for vma in listing:
        for address in (vma.start, (vma.start + vma.end) // 2, vma.end - 1):
            assert process.find_vma(address) == vma, str(vma)


def test_where_nothing_is_mapped_there_is_no_mapping(
    process: procvm.Process, playground: Playground, maps_fd: int
) -> None:
    """Before, between and behind mappings the answer is None."""
    base = playground.layout("rw hole rw")
    assert entry_at(maps_fd, base + PAGE) is None
    assert vma_at(maps_fd, base + PAGE) is None
    listing = list(process.maps())
    ends = {vma.end for vma in listing} - {vma.start for vma in listing}
    for address in [0, 4096, *ends]:
        assert entry_at(maps_fd, address) is None
        assert vma_at(maps_fd, address) is None


def _refuse(monkeypatch: pytest.MonkeyPatch, code: int) -> list[int]:
    """Lets PROCMAP_QUERY fail, in this module only; returns what was asked."""
    asked: list[int] = []

    def ioctl(fd: int, request: int, argument: object) -> int:
        asked.append(request)
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(procmap, "fcntl", types.SimpleNamespace(ioctl=ioctl))
    return asked


@pytest.mark.parametrize("name", ["ENOTTY", "EINVAL", "ENOSYS", "EPERM", "EACCES"])
def test_without_the_question_the_text_answers_the_same(
    playground: Playground, maps_fd: int, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """On a kernel without PROCMAP_QUERY, or one that refuses it, every answer is the same."""
    _wild(playground)
    listing = read_maps(maps_fd)
    known = [vma for vma in listing if vma.start < 1 << 47]
    addresses = [a for vma in known for a in (vma.start - 1, vma.start, vma.end - 1, vma.end)]
    expected = [(entry_at(maps_fd, a), vma_at(maps_fd, a)) for a in addresses]
    asked = _refuse(monkeypatch, getattr(errno, name))
    assert [(entry_at(maps_fd, a), vma_at(maps_fd, a)) for a in addresses] == expected
    assert len(asked) == 2 * len(addresses)


def test_without_the_question_accesses_fault_where_they_should(
    process: procvm.Process, playground: Playground, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reads and writes are as exact on a kernel without PROCMAP_QUERY."""
    base = playground.layout("rw none rw r hole")
    _refuse(monkeypatch, errno.ENOTTY)
    for page, good_read, good_write in ((1, 8, 8), (3, 16, 8), (4, 8, 0)):
        at = base + page * PAGE - 8
        if good_read == 16:
            process.vm.read_bytes(at, 16)
        else:
            with pytest.raises(procvm.PageFaultError) as caught:
                process.vm.read_bytes(at, 16)
            assert (caught.value.copied_len, caught.value.address) == (good_read, at + good_read)
        with pytest.raises(procvm.PageFaultError) as caught:
            process.vm.write_bytes(at, bytes(16))
        assert (caught.value.copied_len, caught.value.address) == (good_write, at + good_write)


@pytest.mark.parametrize("name", ["EIO", "ENOMEM", "EFAULT", "ESRCH"])
def test_another_refusal_of_the_question_is_passed_on(
    maps_fd: int, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """An error that does not mean an old kernel is raised, not hidden by the text."""
    _refuse(monkeypatch, getattr(errno, name))
    for ask in (entry_at, vma_at):
        with pytest.raises(OSError, match=r".") as caught:
            ask(maps_fd, 4096)
        assert caught.value.errno == getattr(errno, name)


def _end(playground: Playground, *, reaped: bool) -> None:
    """Ends the child, which is then a zombie or gone altogether."""
    os.kill(playground.pid, signal.SIGKILL)
    os.waitid(os.P_PID, playground.pid, os.WEXITED | os.WNOWAIT)
    if reaped:
        playground.popen.wait()


@pytest.mark.parametrize("reaped", [False, True], ids=["zombie", "reaped"])
def test_an_address_space_that_is_gone_has_no_mappings(
    playground: Playground, maps_fd: int, reaped: bool
) -> None:
    """After the end of its process a descriptor of maps lists nothing."""
    _end(playground, reaped=reaped)
    assert read_maps(maps_fd) == []


@pytest.mark.parametrize("reaped", [False, True], ids=["zombie", "reaped"])
@pytest.mark.parametrize("refused", [False, True], ids=["asked", "refused"])
def test_a_question_about_an_address_space_that_is_gone_is_no_such_process(
    playground: Playground,
    maps_fd: int,
    monkeypatch: pytest.MonkeyPatch,
    refused: bool,
    reaped: bool,
) -> None:
    """After the end of its process it is ESRCH, asked the one way or the other."""
    base = playground.layout("rw")
    _end(playground, reaped=reaped)
    if refused:
        _refuse(monkeypatch, errno.ENOTTY)
    for ask in (entry_at, vma_at):
        with pytest.raises(OSError, match=r".") as caught:
            ask(maps_fd, base)
        assert caught.value.errno == errno.ESRCH


@pytest.mark.parametrize("reaped", [False, True], ids=["zombie", "reaped"])
@pytest.mark.parametrize("refused", [False, True], ids=["asked", "refused"])
def test_the_mappings_of_a_process_that_has_ended_are_an_error_of_procvm(
    process: procvm.Process,
    playground: Playground,
    monkeypatch: pytest.MonkeyPatch,
    refused: bool,
    reaped: bool,
) -> None:
    """maps() and find_vma() say ProcessExitedError, of a zombie and of one that was reaped."""
    base = playground.layout("rw")
    _end(playground, reaped=reaped)
    if refused:
        _refuse(monkeypatch, errno.ENOTTY)
    for ask in (process.maps, lambda: process.find_vma(base)):
        with pytest.raises(procvm.ProcessExitedError) as caught:
            ask()
        assert caught.value.pid == playground.pid


@pytest.mark.parametrize("reaped", [False, True], ids=["zombie", "reaped"])
@pytest.mark.parametrize("refused", [False, True], ids=["asked", "refused"])
def test_an_access_to_a_process_that_has_ended_says_so(
    process: procvm.Process,
    playground: Playground,
    monkeypatch: pytest.MonkeyPatch,
    refused: bool,
    reaped: bool,
) -> None:
    """Reads and writes, forced or not, are ProcessExitedError and move nothing."""
    base = playground.layout("rw")
    prepared = process.vm.reader(base, PAGE)
    assert prepared.read_val(procvm.u8) == playground.peek(base, 1)[0]
    _end(playground, reaped=reaped)
    if refused:
        _refuse(monkeypatch, errno.ENOTTY)
    buffer = bytearray(b"\xee" * 16)
    for vm in (process.vm, process.vm.forced()):
        accesses: list[Callable[[], object]] = [
            partial(vm.read_into, base, buffer),
            partial(vm.read_val, base, procvm.u64),
            partial(vm.read_cstring, base, 16),
            partial(prepared.read_val, procvm.u8),
            partial(vm.write_bytes, base, b"x"),
            partial(vm.write_val, base, procvm.u64, 1),
            partial(vm.fill_zeros, base, 16),
        ]
        for access in accesses:
            with pytest.raises(procvm.ProcessExitedError) as caught:
                access()
            assert (caught.value.pid, caught.value.copied_len) == (playground.pid, 0)
    assert buffer == b"\xee" * 16
    assert prepared.cursor() == base + 1


def test_a_long_listing_is_whole(process: procvm.Process, playground: Playground) -> None:
    """Thousands of mappings, far more than one read of maps gives, are all listed in order."""
    base = playground.layout(" ".join(["rw", "r"] * 1500))
    found = [vma for vma in process.maps() if base <= vma.start < base + 3000 * PAGE]
    assert [(vma.start, vma.end, str(vma.perms)) for vma in found] == [
        (base + k * PAGE, base + (k + 1) * PAGE, "r--p" if k % 2 else "rw-p") for k in range(3000)
    ]


def test_a_listing_under_churn_is_sorted_and_disjoint(
    process: procvm.Process, playground: Playground
) -> None:
    """While a thread unmaps and maps pages in the middle of many, no listing contradicts itself."""
    base = playground.layout(" ".join(["rw", "r"] * 200))
    playground.storm(base + 11 * PAGE, 3 * PAGE, "hole")
    playground.storm(base + 101 * PAGE, 30 * PAGE, "hole")
    stays = {base + k * PAGE for k in range(140, 400)}
    for _ in range(200):
        listing = list(process.maps())
        assert all(a.end <= b.start for a, b in pairwise(listing))
        assert stays <= {vma.start for vma in listing}


def test_threads_that_list_one_changing_process_get_whole_listings(
    process: procvm.Process, playground: Playground
) -> None:
    """Threads share one descriptor of maps: none begins to read within a line of another's."""
    base = playground.layout(" ".join(["rw", "r"] * 200))
    playground.storm(base + 11 * PAGE, 3 * PAGE, "hole")
    stays = {base + k * PAGE for k in range(140, 400)}

    def listings() -> None:
        for _ in range(60):
            listing = list(process.maps())
            assert all(a.end <= b.start for a, b in pairwise(listing))
            assert stays <= {vma.start for vma in listing}

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(listings) for _ in range(4)]:
            done.result()


def test_a_torn_line_is_read_again(listings: Listings) -> None:
    """A text that begins within a line, as an open file that a forked child reads may give."""
    listings.texts = [_text(GOOD)[21:], _text(GOOD)]
    assert read_maps(-1) == GOOD
    assert listings.read == 2


def test_a_forked_child_waits_for_no_listing_of_its_parent(maps_fd: int) -> None:
    """A thread that lists at the time of a fork does not exist in the child."""
    listing = read_maps(maps_fd)
    begun, over = threading.Event(), threading.Event()

    def hold_turn() -> None:
        with procmap._turns.of(maps_fd):  # noqa: SLF001 (the lock that the fork meets)
            begun.set()
            over.wait()

    thread = threading.Thread(target=hold_turn)
    thread.start()
    begun.wait()
    try:
        child = os.fork()
        if not child:
            os._exit(0 if read_maps(maps_fd) == listing else 1)
        assert os.waitpid(child, 0)[1] == 0
    finally:
        over.set()
        thread.join()
