"""A child with names and threads, which tells where its own things are."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from tests.support.build import compiled
from tests.support.patience import eventually
from tests.tracee.witness import states

FLAGS = ("-rdynamic", "-g", "-ldl")


class Facets:
    """The running child; a context manager that ends it.

    Attributes:
        at: Where it says that its own names are.
    """

    def __init__(
        self,
        threads: int = 0,
        *,
        program: str | Path | None = None,
        before: Sequence[str] = (),
        cwd: Path | None = None,
    ) -> None:
        self.popen = subprocess.Popen(
            [*before, str(program or compiled("facets", *FLAGS)), str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=cwd,
        )
        pairs = (word.split("=") for word in self._line().split())
        self.at = {name: int(value, 16) for name, value in pairs}
        self.ask("call 0")  # it has allocated what it needs to read a line
        # And waits for one: until then its stacks change.
        assert eventually(lambda: set(states(self.pid).values()) == {"S"})

    @property
    def pid(self) -> int:
        return self.popen.pid

    def _line(self) -> str:
        assert self.popen.stdout is not None
        line = self.popen.stdout.readline()
        if not line:
            raise EOFError("the child has ended")
        return line.decode().strip()

    def tell(self, line: str) -> None:
        """Sends a command that has no answer."""
        assert self.popen.stdin is not None
        self.popen.stdin.write(line.encode() + b"\n")
        self.popen.stdin.flush()

    def ask(self, line: str) -> str:
        """Sends a command and returns its answer."""
        self.tell(line)
        answer = self._line()
        if answer.startswith("error"):
            raise RuntimeError(f"{line[:80]}: {answer}")
        return answer

    def number(self, line: str) -> int:
        """Sends a command whose answer is an address."""
        return int(self.ask(line), 16)

    def open(self, path: str | Path) -> int:
        """Loads a library; returns its handle."""
        handle = self.number(f"open {str(path).encode().hex()}")
        assert handle
        return handle

    def unload(self, handle: int) -> None:
        """Unloads it."""
        self.ask(f"close {handle:x}")

    def load(self, path: str | Path, n: int) -> int:
        """Maps the beginning of a file, private and executable."""
        return self.number(f"load {str(path).encode().hex()} {n}")

    def tids(self) -> list[int]:
        """Returns the ids of its threads, the first one's too."""
        return [self.pid, *map(int, self.ask("ids").split())]

    def close(self) -> None:
        self.popen.kill()
        self.popen.wait()
        assert self.popen.stdin is not None
        assert self.popen.stdout is not None
        self.popen.stdin.close()
        self.popen.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def program(*flags: str) -> str:
    """Returns the path of the program, built with more flags."""
    return compiled("facets", *FLAGS, *flags)


def library(to: Path, name: str = "part", **defines: int) -> Path:
    """Builds a library whose symbols begin with a name; returns `to`."""
    more = [f"-D{key.upper()}={value}" for key, value in defines.items()]
    made = compiled("part", "-shared", "-fPIC", f"-DNAME={name}", *more)
    to.unlink(missing_ok=True)
    shutil.copy(made, to)
    return to
