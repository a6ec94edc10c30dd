"""A child with names and threads, which tells where its own things are."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from tests.support.build import compiled
from tests.support.child import ROOT, Child
from tests.support.patience import eventually
from tests.support.procfs import states

FLAGS = ("-rdynamic", "-g", "-ldl")


class Facets(Child):
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
        cwd: Path = ROOT,
    ) -> None:
        command = [*before, str(program or compiled("facets", *FLAGS)), str(threads)]
        super().__init__(command, cwd=cwd)
        pairs = (word.split("=") for word in self.line().split())
        self.at = {name: int(value, 16) for name, value in pairs}
        self.ask("call 0")  # it has allocated what it needs to read a line
        # And waits for one: until then its stacks change.
        assert eventually(lambda: set(states(self.pid).values()) == {"S"})

    def ask(self, line: str) -> str:
        """Sends a command and returns its answer; RuntimeError if that is an error."""
        answer = super().ask(line)
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
