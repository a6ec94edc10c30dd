"""Exit codes: one for every error, and one line for each."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from typing import Any

import pytest

import procvm
from procvm.cli.exits import exit_code, exit_code_of_file
from procvm.errors import ProcvmError
from tests.cli.running import Dials, in_process, ran
from tests.support.playground import PAGE, Playground

CODES = {
    "VmError": 5,
    "InvalidArgsError": 2,
    "AddressOverflowError": 2,
    "PageFaultError": 5,
    "AccessDeniedError": 3,
    "MismatchError": 1,
    "ProcessError": 4,
    "NoSuchProcessError": 4,
    "ProcessExitedError": 4,
    "ProcessExecedError": 4,
    "AlreadyTracedError": 3,
    "AmbiguousNameError": 2,
    "NotTracedError": 2,
    "NotStoppedError": 5,
    "StopTimeoutError": 5,
    "WaitTimeoutError": 1,
    "SharedMemoryError": 3,
    "NoSuchSymbolError": 1,
    "AmbiguousSymbolError": 2,
    "MalformedError": 2,
    "UnsupportedError": 2,
    "ClosedError": 4,
}


def _public_tree(kind: type[ProcvmError]) -> list[type[ProcvmError]]:
    found = []
    for one in kind.__subclasses__():
        if not one.__name__.startswith("_") and one.__module__ == "procvm.errors":
            found.append(one)
        found += _public_tree(one)
    return found


def _made(kind: type[ProcvmError]) -> ProcvmError:
    values: dict[str, Any] = {"name": "x", "errno": errno.EPERM}
    return kind("it failed", **{field: values.get(field, 1) for field in kind._fields})


def test_every_error_has_its_exit_code() -> None:
    """The whole tree of errors gives the codes that are documented, and none is left out."""
    found = {kind.__name__: exit_code(_made(kind)) for kind in _public_tree(ProcvmError)}
    assert found == CODES
    assert exit_code(ProcvmError("something else")) == 5


def test_an_address_outside_of_user_space_is_a_fault() -> None:
    """No right is missing there, and so it is not called denied."""
    error = procvm.AccessDeniedError("it leaves user space", errno=errno.EFAULT)
    assert exit_code(error) == 5


def test_files_of_the_user_have_theirs() -> None:
    """A file that may not be written is denied, a full disk a fault, a wrong path bad use."""
    codes = {errno.EACCES: 3, errno.EROFS: 3, errno.ENOSPC: 5, errno.ENOENT: 2, errno.EISDIR: 2}
    assert {code: exit_code_of_file(OSError(code, "")) for code in codes} == codes


def _one_line(err: str) -> str:
    assert err.startswith("procvm: ")
    assert err.count("\n") == 1
    return err


WRONG: list[tuple[list[str], str]] = [
    (["nope"], "No such command 'nope'"),
    (["read"], "Missing argument 'PID'"),
    (["read", "PID"], "Missing argument 'ADDRESS'"),
    (["read", "PID", "0x10", "--nope"], "No such option"),
    (["read", "PID", "0x10", "-t", "u33"], "'u33' is not a type"),
    (["read", "PID", "0x10", "-t", "struct:x=u33"], "u33 is not a type of fields"),
    (["read", "PID", "0x10", "-t", "struct:x=u8,x=u8"], "given twice"),
    (["read", "PID", "0x10", "-t", "struct:<Z"], "not a format of the struct module"),
    (["read", "PID", "0x10", "-n", "ten"], "'ten' is not a size"),
    (["read", "PID", "0x10", "--raw", "--json"], "exclude each other"),
    (["write", "PID", "g_counter", "5"], "Missing option '-t'"),
    (["write", "PID", "g_counter", "x5", "-t", "u32"], "'x5' is not a whole number"),
    (["write", "PID", "g_counter", "300", "-t", "u8"], "300 does not fit u8"),
    (["write", "PID", "g_counter", "0g", "-t", "bytes"], "not hexadecimal bytes"),
    (["write", "PID", "g_name", "1", "-t", "struct:x=u8"], "not a field and its value"),
    (["write", "PID", "g_name", "x=1", "-t", "struct:x=u8,y=u8"], "y must be given too"),
    (["write", "PID", "g_name", "z=1", "-t", "struct:x=u8"], "no field 'z'"),
    (["write", "PID", "g_name"], "give one of VALUE and --from"),
    (["view", "PID", "--json"], "--json is not possible here: view draws"),
    (["search", "PID", "90", "--range", "0x20", "0x10"], "is not after the start"),
    (["search", "PID", "90", "--align", "0"], "less than 1"),
    (["help", "nothing"], "no command is called 'nothing'"),
    (["search", "PID"], "give one of PATTERN"),
    (["search", "PID", "zz"], "'zz' is not a pattern"),
    (["search", "PID", "??"], "matches everywhere"),
    (["search", "PID", "--regex", "("], "--regex"),
    (["search", "PID", "--regex", "a*"], "so it matches everywhere"),
    (["search", "PID", "-t", "u8", "--value", "+"], "a search reads once"),
    (["maps", "PID", "--perms", "q"], "letters of r, w, x, s and p"),
    (["watch", "PID", "0x10", "-i", "0"], "not a number of seconds"),
    (["watch", "PID", "g_counter", "--until", "<<"], "is not a condition"),
    (["watch", "PID", "g_name", "-t", "cstr", "--until", "5"], "takes only changed"),
    (["scan", "PID", "-t", "cstr"], "a scan is for numbers"),
    (["diff", "/nonexistent", "PID"], "does not exist"),
    (["snapshot", "PID"], "Missing option '-o'"),
]


def test_bad_use_is_told_in_one_line(dials: Dials) -> None:
    """A command line that makes no sense gives 2, one line that names what is wrong, no output."""
    for args, words in WRONG:
        found = ran(*[str(dials.pid) if arg == "PID" else arg for arg in args])
        assert (args, found.code, found.out) == (args, 2, "")
        assert words in _one_line(found.err)
    found = ran("read", dials.pid, "0x10 + + 1")
    assert found.code in (1, 2)
    _one_line(found.err)


def test_no_such_process_gives_4(dials: Dials) -> None:
    """A pid that nobody has, a name that nobody has, and one that has ended."""
    dials.close()
    for target in (dials.pid, "no-such-name", "999999999"):
        found = ran("read", target, "0x1000")
        assert found.code == 4
        assert str(target) in _one_line(found.err)


def test_a_fault_gives_5_and_what_was_before_it(playground: Playground) -> None:
    """What could be read is written, and the fault is told with its address."""
    base = playground.layout("rw none")
    found = ran("read", playground.pid, hex(base + PAGE - 16), "-t", "u64", "-n", 4)
    assert found.code == 5
    expected = playground.peek(base + PAGE - 16, 16)
    assert found.lines == [str(int.from_bytes(expected[k : k + 8], sys.byteorder)) for k in (0, 8)]
    assert f"{base + PAGE:#x}" in _one_line(found.err)


def test_another_users_process_gives_3(playground: Playground) -> None:
    """Denied, with the cause."""
    target = playground.pid if os.getuid() == 0 else 1
    script = (
        "import os, sys\n"
        "import procvm.cli.commands.values\n"
        "from procvm import open\n"  # another user may not be allowed to load it
        "from procvm.cli.run import run\n"
        "if os.getuid() == 0:\n"
        "    os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        f"sys.exit(run(['read', '{target}', '0x1000']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 3, done.stderr
    assert "another user" in _one_line(done.stderr)
    assert done.stdout == ""


@pytest.mark.parametrize("package", ["click", "rich"])
def test_without_its_packages_it_says_what_to_install(package: str) -> None:
    """One line and 2, whichever is missing."""
    script = (
        f"import sys; sys.modules[{package!r}] = None\n"
        "from procvm.cli import main\n"
        "sys.argv = ['procvm', 'ps']; sys.exit(main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == "procvm: the command needs click and rich: pip install 'procvm[cli]'\n"


def test_the_viewer_without_its_package_says_what_to_install(dials: Dials) -> None:
    """One line and 2 where textual is not installed."""
    script = (
        "import sys; sys.modules['textual'] = None\n"
        "from procvm.cli.run import run\n"
        f"sys.exit(run(['view', '{dials.pid}']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert _one_line(done.stderr) == (
        "procvm: procvm view needs textual: pip install 'procvm[tui]'\n"
    )


def test_a_defect_is_one_line_too(dials: Dials, monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody expected is told without a traceback, and gives 70."""

    def fails(*_: object) -> object:
        raise AssertionError("a \x1b[31mtext")

    monkeypatch.setattr("procvm.cli.commands.listing.open_target", fails)
    found = ran("maps", dials.pid)
    assert found.code == 70
    assert _one_line(found.err) == (
        "procvm: a defect of procvm: AssertionError: a \\x1b[31mtext "
        "(PROCVM_TRACEBACK=1 shows the traceback)\n"
    )


def test_an_ambiguous_name_lists_them() -> None:
    """2, and a line for each process of that name, on stderr."""
    name = f"both{os.getpid()}"
    with Dials(name=name) as one, Dials(name=name) as other:
        found = ran("read", name, "g_counter")
    assert found.code == 2
    assert found.out == ""
    first, *lines = found.err.splitlines()
    assert first == f"procvm: 2 processes are called {name}; give a pid:"
    assert {int(line.split()[0]) for line in lines} == {one.pid, other.pid}


def test_without_arguments_it_shows_its_help() -> None:
    """The help, and 2: nothing was asked for."""
    found = ran()
    assert found.code == 2
    assert "Commands:" in found.out
    assert found.err == ""


def test_the_module_is_the_command() -> None:
    """``python -m procvm`` is the same command, under its name."""
    found = in_process("read", "--help")
    assert found.code == 0
    assert found.lines[0] == "Usage: procvm read [OPTIONS] PID ADDRESS"
