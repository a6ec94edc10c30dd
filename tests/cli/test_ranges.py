"""`--in`, `--range`, `--near` and `--perms` of every command that walks memory."""

from __future__ import annotations

from pathlib import Path

import pytest

import procvm
from tests.cli.running import Dials, ran

WALKING = [
    ["maps", "PID"],
    ["strings", "PID"],
    ["search", "PID", "--text", "node"],
    ["scan", "PID"],
    ["snapshot", "PID", "-o", "FILE"],
]


def _filled(args: list[str], dials: Dials, tmp_path: Path) -> list[str]:
    values = {"PID": str(dials.pid), "FILE": str(tmp_path / "file.core")}
    return [values.get(arg, arg) for arg in args]


@pytest.mark.parametrize("args", WALKING, ids=lambda args: args[0])
def test_ranges_without_a_mapping_exit_with_1_and_one_message(
    dials: Dials, tmp_path: Path, args: list[str]
) -> None:
    """Each command has the same message and exit code, and names what is similar."""
    command = _filled(args, dials, tmp_path)
    for given, message in (
        (["--in", "libc"], f"process {dials.pid} has no mapping called libc; did you mean libc.so"),
        (["--in", "dial"], f"process {dials.pid} has no mapping called dial; did you mean dials?"),
        (["--in", "qqqq"], f"process {dials.pid} has no mapping called qqqq\n"),
        (["--range", "0x0", "0x10"], f"no mapping of process {dials.pid} fits --range 0x0 0x10"),
        (["--near", "0x10", "4"], f"no mapping of process {dials.pid} fits --near 0x10 4"),
        (["--in", "dials", "--perms", "wx"],
         f"no mapping of process {dials.pid} fits --in dials --perms wx\n"),
    ):  # fmt: skip
        found = ran(*command, *given)
        assert (given, found.code, found.out) == (given, 1, "")
        assert found.err.startswith(f"procvm: {message}")


def test_ranges_clip_what_is_searched(dials: Dials) -> None:
    """The start is included and the end is not; --near is N bytes on both sides."""
    with procvm.open(dials.pid) as process:
        at = process.address("g_lives")

    def hits(*where: object) -> list[int]:
        found = ran("search", dials.pid, "-t", "i32", "--value", 1234567, *where)
        return [int(line.split("\t")[0], 16) for line in found.lines]

    assert hits("--in", "dials") == [at]
    assert hits("--range", hex(at), hex(at + 4)) == [at]
    assert hits("--range", "g_lives", "g_lives+4", "--in", "dials") == [at]
    assert hits("--range", hex(at), hex(at + 3)) == []
    assert hits("--range", hex(at + 1), hex(at + 64)) == []
    assert hits("--near", "g_lives+8", "8") == [at]
    assert hits("--near", "g_lives", "4") == [at]
    assert hits("--near", "g_lives+8", "7") == []
    assert ran("search", dials.pid, "90", "--near", "0x10", "4", "--range", "0", "8").code == 2


def test_ranges_of_maps_list_whole_mappings(dials: Dials) -> None:
    """The mapping around an address is listed as the kernel does."""
    lines = ran("maps", dials.pid).lines
    (line,) = ran("maps", dials.pid, "--near", "[heap]+0x10", "1").lines
    assert line in lines
    assert line.endswith("[heap]")
