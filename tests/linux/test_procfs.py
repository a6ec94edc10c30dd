"""What /proc says of a process, whatever the process calls itself."""

from __future__ import annotations

import ctypes
import os
import signal
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from procvm._linux import procfs
from procvm._linux.procfs import parse_auxv, parse_stat, parse_status
from tests.support.playground import Playground

NAMES = [
    b") R 1",
    b"((a))",
    b"",
    b" ",
    b"new\nline",
    b"\nUid:\t0\t0\t0",
    b"x\nTracerPid:\t9",
    b"back\\slash",
    b"\x1b[31m",
    b"\xff\xfe",
    b"  lead trail  ",
    b"\ttab\t",
]


@pytest.fixture(params=NAMES)
def named(request: pytest.FixtureRequest, playground: Playground) -> bytes:
    """The playground under a hostile name."""
    name: bytes = request.param
    playground.set_comm(name)
    assert Path(f"/proc/{playground.pid}/comm").read_bytes() == name[:15] + b"\n"
    return name[:15]


# stat


def test_fields_after_a_hostile_name_stand_where_they_should(
    named: bytes, playground: Playground
) -> None:
    """The pid, the name, the state and the parent are those of the child."""
    stat = procfs.read_stat(playground.pid)
    assert stat is not None
    assert stat[0] == str(playground.pid).encode()
    assert stat[1] == named
    assert stat[2] in (b"S", b"R")
    assert int(stat[3]) == os.getpid()
    assert len(stat) == 52


@given(st.binary(max_size=64).filter(lambda name: b"\0" not in name))
def test_the_name_ends_at_the_last_parenthesis(name: bytes) -> None:
    """A name of any bytes comes back whole, and the fields after it are not touched."""
    assert parse_stat(b"12 (" + name + b") S 1 12 -1 0\n") == [
        b"12",
        name,
        b"S",
        b"1",
        b"12",
        b"-1",
        b"0",
    ]


@pytest.mark.parametrize("data", [b"", b"12", b"12 comm S 1", b"12 (comm", b"12 comm) S 1"])
def test_what_is_not_a_stat_is_a_value_error(data: bytes) -> None:
    """A cut or garbled stat is refused, as garbled maps and status are."""
    with pytest.raises(ValueError, match=r"."):
        parse_stat(data)


def test_a_process_that_is_not_there_has_no_stat() -> None:
    """The pid of a child that was reaped gives None from every reader."""
    pid = os.posix_spawn("/bin/true", ["true"], {})
    os.waitpid(pid, 0)
    assert procfs.read_stat(pid) is None
    assert procfs.read_status(pid) is None
    assert procfs.thread_leader(pid) is None
    assert procfs.thread_ids(pid) == []
    assert not procfs.has_memory(pid)


# status


def test_a_hostile_name_makes_no_field_of_status(named: bytes, playground: Playground) -> None:
    """Ids, tracer and group are the child's own, whatever lines its name pretends to be."""
    status = procfs.read_status(playground.pid)
    assert status is not None
    assert status.state in "SR"
    assert status.tgid == playground.pid
    assert status.tracer_pid == 0
    assert status.uids == (os.getuid(),) * 4
    assert status.gids == (os.getgid(),) * 4
    assert not status.kernel_thread


@pytest.mark.parametrize(
    "name",
    [b"plain", b"  lead trail  ", b"a\tb", b") R 1", b"\xff\xfe", b"a\nb", b"a\\b", b"a\\nb"],
)
def test_the_name_of_status_is_the_name_it_took(playground: Playground, name: bytes) -> None:
    """Blanks around a name belong to it; what the kernel escaped is unescaped."""
    playground.set_comm(name)
    status = procfs.read_status(playground.pid)
    assert status is not None
    assert status.name == name


STATUS = b"""Name:\tcat
Umask:\t0022
State:\tt (tracing stop)
Tgid:\t77
Pid:\t78
TracerPid:\t5
Uid:\t1\t2\t3\t4
Gid:\t5\t6\t7\t8
Kthread:\t0
CapPrm:\t000001ffffffffff
CapEff:\t0000000000080000
Seccomp:\t2
"""


def test_status_is_parsed_to_its_fields() -> None:
    """Numbers are decimal, capabilities hexadecimal, the state its one letter."""
    assert parse_status(STATUS) == procfs.Status(
        name=b"cat",
        state="t",
        tgid=77,
        tracer_pid=5,
        uids=(1, 2, 3, 4),
        gids=(5, 6, 7, 8),
        permitted=0x1FFFFFFFFFF,
        effective=0x80000,
        kernel_thread=False,
        seccomp=2,
    )


def test_an_old_status_without_kthread_is_no_kernel_thread() -> None:
    """The field came with Linux 6.8; without it nothing is known to be a kernel thread."""
    assert not parse_status(STATUS.replace(b"Kthread:\t0\n", b"")).kernel_thread
    assert parse_status(STATUS.replace(b"Kthread:\t0", b"Kthread:\t1")).kernel_thread


@pytest.mark.parametrize("line", STATUS.splitlines(keepends=True))
def test_a_cut_status_is_parsed_or_a_value_error(line: bytes) -> None:
    """Without a line that is needed ValueError is raised, and never another error."""
    data = STATUS.replace(line, b"")
    if line.partition(b":")[0] not in (b"Umask", b"Pid", b"Kthread", b"Seccomp"):
        with pytest.raises(ValueError, match=r"."):
            parse_status(data)
    else:
        assert parse_status(data)._replace(seccomp=2) == parse_status(STATUS)


@given(st.binary(max_size=300))
def test_garbage_is_no_status(data: bytes) -> None:
    """No bytes raise anything but ValueError."""
    with pytest.raises(ValueError, match=r"."):
        parse_status(data)


@given(st.integers(0, len(STATUS)), st.binary(max_size=4))
def test_a_status_with_garbage_is_parsed_or_a_value_error(at: int, garbage: bytes) -> None:
    """Bytes put in anywhere give a status or ValueError."""
    with suppress(ValueError):
        parse_status(STATUS[:at] + garbage + STATUS[at:])


def test_a_kernel_thread_is_known_as_one() -> None:
    """kthreadd, where it can be seen, is a kernel thread without memory."""
    if Path("/proc/2/comm").exists() and Path("/proc/2/comm").read_text() == "kthreadd\n":
        status = procfs.read_status(2)
        assert status is not None
        assert status.kernel_thread
        assert not procfs.has_memory(2)
    else:
        pytest.skip("no kernel thread can be seen from here")


# Threads and memory


def test_threads_are_found_and_led_to_their_leader(playground: Playground) -> None:
    """Other threads are listed without the leader, and each names it."""
    assert procfs.thread_ids(playground.pid) == []
    base = playground.layout("rw")
    playground.spin(base)
    playground.spin(base + 8)
    tids = procfs.thread_ids(playground.pid)
    assert len(tids) == 2
    assert playground.pid not in tids
    assert [procfs.thread_leader(tid) for tid in tids] == [playground.pid] * 2
    assert procfs.thread_leader(playground.pid) is None


def test_a_zombie_has_no_memory_and_is_told_by_its_state(playground: Playground) -> None:
    """Before its end it has memory; as a zombie it has a status, a stat and none."""
    assert procfs.has_memory(playground.pid)
    os.kill(playground.pid, signal.SIGKILL)
    os.waitid(os.P_PID, playground.pid, os.WEXITED | os.WNOWAIT)
    assert not procfs.has_memory(playground.pid)
    status = procfs.read_status(playground.pid)
    assert status is not None
    assert status.state == "Z"
    stat = procfs.read_stat(playground.pid)
    assert stat is not None
    assert stat[2] == b"Z"


# auxv


def test_auxv_is_what_the_library_has() -> None:
    """What the library passes on as it is, is what getauxval says."""
    found = parse_auxv(Path("/proc/self/auxv").read_bytes())
    getauxval = ctypes.CDLL(None)["getauxval"]
    getauxval.restype = ctypes.c_ulong
    assert procfs.AT_RANDOM in found
    for kind in (3, 4, 5, 6, 9, 11, 12, 13, 14, procfs.AT_RANDOM):
        assert getauxval(ctypes.c_ulong(kind)) == found[kind]
    assert found[6] == os.sysconf("SC_PAGESIZE")


@pytest.mark.parametrize("cut", [0, 1, 8, 15, 16, 17, 31])
def test_a_cut_auxv_has_the_entries_before_the_cut(cut: int) -> None:
    """Half an entry is left out, and nothing is invented."""
    data = (25).to_bytes(8, "little") + (77).to_bytes(8, "little")
    data += (6).to_bytes(8, "little") + (4096).to_bytes(8, "little")
    assert parse_auxv(data[:cut]) == ({25: 77} if cut >= 16 else {})


def test_the_token_is_where_the_target_has_it(playground: Playground) -> None:
    """The address read from outside is the one that the target's own library has."""
    assert procfs.token_address(f"/proc/{playground.pid}") == playground.random_at()


# The machine


def test_a_setting_that_is_absent_is_none(tmp_path: Path) -> None:
    """A file that is not there gives None; one that is gives its text without blanks."""
    assert procfs.read_text(str(tmp_path / "absent")) is None
    (tmp_path / "there").write_bytes(b" 1\xff\n")
    assert procfs.read_text(str(tmp_path / "there")) == "1\ufffd"


def test_our_own_proc_is_accepted() -> None:
    """Where /proc/self is our pid nothing is raised."""
    procfs.require_own_proc()


def test_an_empty_auxv_is_that_of_a_task_without_memory(tmp_path: Path) -> None:
    """As Linux 6.1 has it for a leader that ended before its threads: not an exec under way."""
    auxv = tmp_path / "auxv"
    auxv.write_bytes(b"")
    with pytest.raises(ProcessLookupError):
        procfs.token_address(str(tmp_path))
    auxv.write_bytes(bytes(16))
    assert procfs.token_address(str(tmp_path)) is None
