"""What gdb says of the symbols, variables and stacks of a process, to be compared with procvm."""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from collections.abc import Sequence
from typing import Any, NamedTuple

import procvm
from tests.elf.cores import GDB
from tests.support.patience import PATIENCE

# Runs in gdb, which has a Python of its own.
_SCRIPT = r"""
import gdb, json

def run(command):
    try:
        return gdb.execute(command, to_string=True)
    except gdb.error as error:
        return "ERROR " + str(error)

def plain(value):
    kind = value.type.strip_typedefs()
    if kind.code in (gdb.TYPE_CODE_STRUCT, gdb.TYPE_CODE_UNION):
        return {one.name: plain(value[one]) for one in kind.fields()
                if one.name and hasattr(one, "bitpos") and not one.is_base_class}
    if kind.code == gdb.TYPE_CODE_ARRAY:
        low, high = kind.range()
        return [plain(value[k]) for k in range(low, high + 1)]
    if kind.code == gdb.TYPE_CODE_FLT:
        return float(value)
    return int(value)

def variable(name):
    try:
        return plain(gdb.parse_and_eval(name))
    except (gdb.error, TypeError) as error:
        return "ERROR " + str(error)

def stack(thread):
    thread.switch()
    found, frame = [], gdb.newest_frame()
    while frame is not None:
        try:
            if frame.type() != gdb.TAILCALL_FRAME:
                found.append((frame.pc(), frame.name(), frame.type() == gdb.INLINE_FRAME))
            frame = frame.older()
        except gdb.error:
            break
    return found

gdb.execute("set print demangle off")
asked = json.load(open("ASKED"))
said = {
    "symbols": [run("info symbol %#x" % one) for one in asked["addresses"]],
    "addresses": [run("info address " + one) for one in asked["names"]],
    "values": [variable(one) for one in asked["variables"]],
}
gdb.execute("set print demangle on")
said["stacks"] = {one.ptid[1]: stack(one) for one in gdb.selected_inferior().threads()}
print("@@" + json.dumps(said))
"""


class Said(NamedTuple):
    """The answers of gdb.

    Attributes:
        symbols: (name, offset) of each address; None where it knows none.
        addresses: The address of each name; None where it knows none.
        values: The value of each variable, as numbers, lists and dicts; a str is an error.
        stacks: By tid, (address, function, whether it is inlined) of each frame.
    """

    symbols: list[tuple[str, int] | None]
    addresses: list[int | None]
    values: list[Any]
    stacks: dict[int, list[tuple[int, str | None, bool]]]


def ask_gdb(
    pid: int,
    addresses: Sequence[int] = (),
    names: Sequence[str] = (),
    variables: Sequence[str] = (),
) -> Said:
    """Asks gdb about a process, or returns what it said of a core file."""
    assert GDB is not None
    with tempfile.TemporaryDirectory() as folder:
        with open(f"{folder}/asked", "w") as asked:
            json.dump(
                {"addresses": list(addresses), "names": list(names), "variables": list(variables)},
                asked,
            )
        with open(f"{folder}/ask.py", "w") as script:
            script.write(_SCRIPT.replace("ASKED", asked.name))
        done = subprocess.run(
            [
                *(GDB, "-nx", "-batch", "-iex", "set debuginfod enabled off"),
                *("-p", str(pid), "-x", script.name),
            ],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PATIENCE,
            check=False,
        )
    line = next((one for one in done.stdout.splitlines() if one.startswith("@@")), None)
    assert line is not None, done.stderr[-2000:]
    said = json.loads(line[2:])
    return Said(
        [_symbol(one) for one in said["symbols"]],
        [_address(one) for one in said["addresses"]],
        said["values"],
        {int(tid): [(a, b, c) for a, b, c in frames] for tid, frames in said["stacks"].items()},
    )


def _symbol(text: str) -> tuple[str, int] | None:
    found = re.match(r"(.*?)(?: \+ (\d+))? in section ", text)
    return (found[1], int(found[2] or 0)) if found else None


def _address(text: str) -> int | None:
    found = re.findall(r"(?:at|at address) (0x[0-9a-f]+)", text)
    return int(found[-1], 16) if found else None


def plain(value: Any) -> Any:
    """Returns a value of procvm as numbers, lists and dicts."""
    if isinstance(value, bytes):
        return list(value)
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    members = getattr(type(value), "_procvm_members_", None)
    if members is not None:
        return {name: plain(getattr(value, name)) for name in members}
    if hasattr(value, "_length_"):
        return [plain(one) for one in value]
    return value if isinstance(value, float) else int(value)


def same_symbol(process: procvm.Process, address: int, said: tuple[str, int] | None) -> bool:
    """Returns whether procvm names an address as gdb does, or by another name of the same."""
    mine = process.describe(address)
    if said is None or mine.symbol is None:
        return said is None and mine.symbol is None
    name, offset = said
    if offset != mine.offset:
        return False
    own = mine.symbol.removesuffix("@ifunc-resolver").partition("@0x")[0]
    start = address - offset
    return name == own or any(
        one.address == start and one.name.removesuffix("@ifunc-resolver") == name
        for one in process.symbols(f"{mine.module}!*")
    )
