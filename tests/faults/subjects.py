"""What the tests of faults share: targets, what must hold after each, who may run."""

from __future__ import annotations

import atexit
import ctypes
import functools
import os
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

import procvm
from tests.support.build import compiled
from tests.support.child import Child
from tests.support.playground import PAGE, pattern

NOBODY = 65534
DAEMON = 1

as_root = pytest.mark.root


def needs(*programs: str) -> pytest.MarkDecorator:
    """Skips a test where a program is not installed."""
    missing = [program for program in programs if shutil.which(program) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {' '.join(missing)}")


# What holds after each row


def assert_works(pid: int, address: int) -> None:
    """Reads, writes and lists a healthy target: all calls must do."""
    expected = pattern(address, 64)
    with procvm.open(pid) as process:
        assert process.vm.read_bytes(address, 64) == expected
        process.vm.write_bytes(address + 32, b"\x01\x02")
        assert process.vm.read_bytes(address + 32, 2) == b"\x01\x02"
        process.vm.write_bytes(address + 32, expected[32:34])
        assert process.vm.read_val(address, procvm.u8) == expected[0]
        found = process.maps().find(address)
        assert found is not None
        assert found.perms & procvm.Perms.WRITE
        assert process.is_alive()


# Targets


class Subject(Child):
    """tests/support/targets/subject.c, ready; `address` is its page with the pattern."""

    def __init__(self, *arguments: str, prefix: Sequence[str] = (), program: str = "") -> None:
        super().__init__([*prefix, program or compiled("subject"), *arguments])
        (self.address,) = self.hexes()


@contextmanager
def zombie_of(parent: Subject, status: int) -> Iterator[int]:
    """Gives the pid of a zombie that is no child of ours; its parent lives."""
    yield int(parent.ask(f"zombie {status}"))


# What other users may run


@functools.cache
def _public_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="procvm-faults-"))
    folder.chmod(0o755)
    pid = os.getpid()

    def remove() -> None:
        if os.getpid() == pid:
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)
    return folder


@functools.cache
def public(name: str, *flags: str, owner: int = 0, mode: int = 0o755) -> str:
    """Returns a compiled target that every user may run, maybe with a set-uid or set-gid bit."""
    path = _public_folder() / f"{name}-{len(flags)}-{owner}-{mode:o}"
    shutil.copyfile(compiled(name, *flags), path)
    os.chown(path, owner, owner)
    path.chmod(mode)
    return str(path)


@functools.cache
def everybodys_python() -> str:
    """Returns a Python that a user without capabilities can run by himself; skips without one."""
    for python in (sys.executable, "/usr/bin/python3", "/usr/local/bin/python3"):
        # By a shell: setpriv itself still has root's capabilities when it runs a program.
        test = f"import sys; sys.exit(sys.version_info < {(3, 11)})"
        as_nobody = [*run_as(NOBODY), "sh", "-c", f'exec {python} -c "{test}"']
        if subprocess.run(as_nobody, capture_output=True, check=False).returncode == 0:
            return python
    pytest.skip("no Python that another user may run")


def run_as(uid: int) -> list[str]:
    """Returns the command that runs what follows as a user without any capability."""
    return [
        "setpriv",
        f"--reuid={uid}",
        f"--regid={uid}",
        "--clear-groups",
        "--inh-caps=-all",
    ]


ROOT_WITHOUT_PTRACE = ["setpriv", "--bounding-set=-sys_ptrace", "--inh-caps=-all"]
"""Runs what follows as root without CAP_SYS_PTRACE."""


def in_mounts(script: str) -> list[str]:
    """Returns the command that runs what follows in a mount namespace prepared by `script`."""
    return ["unshare", "-m", "sh", "-ec", f'{script}\nexec "$@"', "sh"]


PROC_READ_ONLY = "mount -o bind,remount,ro /proc"


# What a target's bytes may not get into


def texts_of(error: BaseException) -> str:
    """Returns all that a log or a person could see of an exception."""
    seen: list[str] = []
    current: BaseException | None = error
    while current is not None:
        seen += [str(current), repr(current), repr(current.args), repr(vars(current))]
        seen += getattr(current, "__notes__", [])
        current = current.__cause__ or current.__context__
    seen += traceback.format_exception(error)
    return "\n".join(seen)


def own_page() -> ctypes.Array[ctypes.c_char]:
    return ctypes.create_string_buffer(PAGE)
