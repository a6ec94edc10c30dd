"""`watch`, `freeze`, `snapshot` and `diff`."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import procvm
from tests.cli.running import COMMAND, Dials, ran, wait_for
from tests.support.patience import USUAL


@contextmanager
def _running(*args: object) -> Iterator[subprocess.Popen[str]]:
    """The command in a process of its own, ended after it."""
    with subprocess.Popen(
        [*COMMAND, *map(str, args)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as popen:
        try:
            yield popen
        finally:
            popen.kill()


def test_watch_shows_each_change_until_its_condition_holds(dials: Dials) -> None:
    """A line for the first value and one for each other, at once; it ends as it was asked to."""
    with _running("watch", dials.pid, "g_counter", "-t", "u32", "-i", "0.01",
                  "--until", ">= 9") as watch:  # fmt: skip
        assert watch.stdout is not None
        assert watch.stdout.readline().split("\t")[1] == "7\n"
        dials.ask("inc")
        assert watch.stdout.readline().split("\t")[1] == "8\n"
        dials.ask("inc")
        out, err = watch.communicate()
        assert out.split("\t")[1] == "9\n"
        assert (watch.returncode, err) == (0, "")


def test_watch_ends_after_its_looks(dials: Dials) -> None:
    """N looks at a value that stays are one line; 1 if a condition did not hold by then."""
    args = ("watch", dials.pid, "g_name", "-t", "cstr", "-i", "0.01", "-n", 3)
    found = ran(*args)
    assert found.code == 0
    assert found.out == "0.000\ta \\x1b[31mred\\x1b[0m name\\x0a\n"
    assert ran(*args, "--until", "changed").code == 1


def test_watch_is_told_of_the_end_of_the_process(dials: Dials) -> None:
    """4, and one line that says so, after what was seen."""
    with _running("watch", dials.pid, "g_counter", "-t", "u32", "-i", "0.01") as watch:
        assert watch.stdout is not None
        watch.stdout.readline()
        dials.close()
        out, err = watch.communicate()
        assert (out, watch.returncode) == ("", 4)
        assert err == f"procvm: process {dials.pid} has ended\n"


def test_freeze_puts_a_value_back(dials: Dials) -> None:
    """What the process writes is replaced again, and the number of times is told."""
    dials.ask("run")
    found = ran(
        "freeze", dials.pid, "g_ticks", "5", "-t", "u64", "-i", "0.005", "--for", "0.2", "--json"
    )
    assert found.code == 0
    assert found.document["value"] == 5
    assert 1 <= found.document["writes"] <= found.document["looks"] <= 40
    with procvm.open(dials.pid) as process:
        at = process.address("g_lives")
        frozen = _running("freeze", dials.pid, "g_lives", "-9", "-t", "i32", "-i", "0.005")
        with frozen:
            wait_for(lambda: process.vm.read_val(at, procvm.i32) == -9)
            dials.ask("lives 3")
            wait_for(lambda: process.vm.read_val(at, procvm.i32) == -9)


def test_freeze_of_a_process_that_ends_is_told(dials: Dials) -> None:
    """4, and one line that says so."""
    with _running("freeze", dials.pid, "g_lives", "-9", "-t", "i32", "-i", "0.005") as frozen:
        wait_for(lambda: dials.ask("show")[1] == "-9")
        dials.close()
        out, err = frozen.communicate()
        assert (out, frozen.returncode) == ("", 4)
        assert err == f"procvm: process {dials.pid} has ended\n"


def test_diff_shows_what_changed_since_a_snapshot(dials: Dials, tmp_path: Path) -> None:
    """Exactly the bytes that differ, old and new, with 1; 0 without a difference, as diff(1)."""
    core = tmp_path / "before.core"
    assert ran("snapshot", dials.pid, "-o", core) == (0, "", "")
    assert ran("diff", core, dials.pid, "--in", "dials") == (0, "", "")
    with procvm.open(dials.pid) as process:
        process.vm.write_bytes(process.address("g_counter"), b"\x01\x02\x07\x08")
        process.vm.write_bytes(process.address("g_ratio"), b"\xff")
        at, other = process.address("g_counter"), process.address("g_ratio")
    found = ran("diff", core, dials.pid, "--in", "dials")
    assert found.code == 1
    assert sorted(found.lines) == sorted(
        [
            f"{at:#x}\t4\tdials!g_counter\t07000000\t01020708",
            f"{other:#x}\t1\tdials!g_ratio\t00\tff",
        ]
    )
    after = tmp_path / "after.core"
    assert ran("snapshot", dials.pid, "-o", after, "--no-hold").code == 0
    assert ran("diff", core, after, "--in", "dials").lines == found.lines
    assert ran("diff", after, after).code == 0
    state = Path(f"/proc/{dials.pid}/status").read_text()
    assert "TracerPid:\t0" in state


def test_a_snapshot_keeps_what_was_asked_for(dials: Dials, tmp_path: Path) -> None:
    """Only the mappings of a name are in the file."""
    core = tmp_path / "heap.core"
    assert ran("snapshot", dials.pid, "-o", core, "--in", "[heap]").code == 0
    assert ran("read", core, "[heap]", "-t", "u8").code == 0
    assert ran("read", core, "g_counter", "-t", "u32").code in (1, 5)


def test_a_snapshot_that_can_not_be_written_leaves_nothing(dials: Dials, tmp_path: Path) -> None:
    """A folder that there is not, and a file that is no core."""
    found = ran("snapshot", dials.pid, "-o", tmp_path / "no" / "such.core")
    assert found.code == 2
    assert found.err.startswith("procvm: ")
    assert found.err.count("\n") == 1
    text = tmp_path / "text"
    text.write_text("no core")
    found = ran("read", text, "0x1000")
    assert found.code == 2
    assert found.err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["text"]


def test_diff_that_fails_exits_with_2_or_above(dials: Dials, tmp_path: Path) -> None:
    """1 would mean a difference: a wrong name, file or address is trouble."""
    core = tmp_path / "before.core"
    assert ran("snapshot", dials.pid, "-o", core).code == 0
    for args in (["--in", "nothing"], ["--near", "no_symbol", "16"], ["--perms", "q"]):
        found = ran("diff", core, core, *args)
        assert (args, found.code, found.out) == (args, 2, "")
        assert found.err.startswith("procvm: ")


def test_snapshot_is_held_by_default_and_has_registers(
    dials: Dials, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--no-hold has none; a process that cannot be held is saved as well, and it is said."""
    path = tmp_path / "a.core"

    def registers(*args: str) -> int:
        found = ran("snapshot", dials.pid, "-o", path, "--json", *args)
        assert found.code == 0, found.err
        with procvm.open_core(path) as core:
            try:
                nr = len(core.registers())
            except procvm.NotStoppedError:
                nr = 0
        assert found.document["held"] is (nr > 0)
        return nr

    assert registers() > 0
    assert registers("--hold") > 0
    assert registers("--no-hold") == 0
    with procvm.attach(dials.pid) as tracee, tracee.stopped():
        monkeypatch.setattr(procvm.Tracee, "default_timeout", USUAL)
        found = ran("snapshot", dials.pid, "-o", path)
        assert found.code == 0
        assert found.err.startswith("procvm: not held, so the file has no registers: ")
        assert ran("snapshot", dials.pid, "-o", path, "--hold").code == 3
