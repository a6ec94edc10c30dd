"""What the tests of the catalogue share: targets, what must hold after each, who may run."""

from __future__ import annotations

import atexit
import ctypes
import functools
import os
import select
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

import pytest

import procvm
from tests.support.build import compiled
from tests.support.patience import PATIENCE
from tests.support.playground import PAGE, Playground, pattern

NOBODY = 65534
DAEMON = 1

as_root = pytest.mark.root


def needs(*programs: str) -> pytest.MarkDecorator:
    """Skips a test where a program is not installed."""
    missing = [program for program in programs if shutil.which(program) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {' '.join(missing)}")


# What holds after each row


def status_field(pid: int, field: str) -> str:
    """Returns a field of /proc/PID/status."""
    for line in Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines():
        key, _, value = line.partition(":")
        if key == field:
            return value.strip()
    raise AssertionError(f"no {field} of process {pid}")


def state_of(pid: int) -> str:
    """Returns the letter of a process's state."""
    return status_field(pid, "State")[0]


def assert_unharmed(pid: int, states: str = "RS") -> None:
    """The target lives, is traced by nobody, and is in one of these states."""
    assert status_field(pid, "TracerPid") == "0"
    assert state_of(pid) in states


def own_fds() -> list[tuple[int, str]]:
    """Returns every open descriptor of this process and what it is of."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            found.append((int(name), os.readlink(f"/proc/self/fd/{name}")))
        except OSError:
            continue  # the one that listed the directory
    return sorted(found)


def own_threads() -> list[str]:
    """Returns the ids of the threads of this process."""
    return sorted(os.listdir("/proc/self/task"))


def own_children() -> list[str]:
    """Returns the pids of the children of this process, zombies too."""
    found: list[str] = []
    for tid in own_threads():
        with suppress(FileNotFoundError):  # a thread that was joined is listed for a moment more
            found += Path(f"/proc/self/task/{tid}/children").read_text().split()
    return sorted(found)


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


class Child:
    """A process that answers a line with a line; a context manager that ends it."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        env: dict[str, str] | None = None,
        stderr: int | None = None,
        pass_fds: Sequence[int] = (),
    ) -> None:
        self.popen = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=env,
            pass_fds=pass_fds,
        )
        self._rest = b""
        self._poll = select.poll()
        assert self.popen.stdout is not None
        self._poll.register(self.popen.stdout, select.POLLIN)

    @property
    def pid(self) -> int:
        return self.popen.pid

    def line(self) -> str:
        """Returns the next line; fails if none comes, because the process ended or hangs."""
        assert self.popen.stdout is not None
        while b"\n" not in self._rest:
            if not self._poll.poll(PATIENCE * 1000):
                raise AssertionError(f"process {self.pid} hangs")
            part = os.read(self.popen.stdout.fileno(), 1 << 20)
            if not part:
                raise EOFError(f"process {self.pid} has ended")
            self._rest += part
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode()

    def has_line(self) -> bool:
        """Returns whether an answer has come, without waiting."""
        return b"\n" in self._rest or bool(self._poll.poll(0))

    def send(self, line: str) -> None:
        assert self.popen.stdin is not None
        self.popen.stdin.write(line.encode() + b"\n")
        self.popen.stdin.flush()

    def ask(self, line: str) -> str:
        """Sends a line and returns the answer."""
        self.send(line)
        return self.line()

    def hexes(self) -> list[int]:
        """Returns the addresses that a line with "ready" gives."""
        words = self.line().split()
        assert words[0] == "ready", words
        return [int(word, 16) for word in words[1:]]

    def close(self) -> None:
        self.popen.kill()
        self.popen.wait()
        for pipe in (self.popen.stdin, self.popen.stdout, self.popen.stderr):
            if pipe is not None:
                with suppress(BrokenPipeError):  # what was written after its end
                    pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Subject(Child):
    """tests/support/targets/subject.c, ready; `address` is its page with the pattern."""

    def __init__(self, *arguments: str, prefix: Sequence[str] = (), program: str = "") -> None:
        super().__init__([*prefix, program or compiled("subject"), *arguments])
        (self.address,) = self.hexes()


class PlaygroundBy(Playground):
    """The playground, started by another command: as another user, in another namespace."""

    def __init__(self, prefix: Sequence[str], program: str) -> None:
        self.popen = subprocess.Popen(
            [*prefix, program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._line() == "ready"


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
