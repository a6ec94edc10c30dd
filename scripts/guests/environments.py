"""The guests that can be booted, and the settings under which each is measured."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["GUESTS", "SETTINGS", "TESTED", "TESTS", "Guest", "Setting"]


class Guest(NamedTuple):
    """A machine to boot.

    Attributes:
        suite: The suite of Debian, whose kernel and Python it has.
        arch: Debian's name of the architecture.
        machine: The kernel's name of the architecture.
        python: The Python of the suite.
    """

    suite: str
    arch: str
    machine: str
    python: str

    @property
    def name(self) -> str:
        """The name on the command line."""
        return f"{self.suite}-{self.arch}"


_ALL = (
    Guest("bookworm", "amd64", "x86_64", "3.11"),
    Guest("trixie", "amd64", "x86_64", "3.13"),
    Guest("bookworm", "arm64", "aarch64", "3.11"),
    Guest("trixie", "arm64", "aarch64", "3.13"),
)

GUESTS = {guest.name: guest for guest in _ALL}
"""The guests by name."""


class Setting(NamedTuple):
    """Who runs procvm in a guest.

    Attributes:
        user: ``root`` or ``user``, which has the uid 1000.
        scope: The value of kernel.yama.ptrace_scope.
    """

    user: str
    scope: int


# Scope 3 comes last: the kernel does not leave it before the next boot.
SETTINGS = tuple(Setting(user, scope) for scope in range(4) for user in ("root", "user"))
"""The settings in the order in which they are measured."""

TESTED = (Setting("root", 1), Setting("user", 1), Setting("user", 0))
"""The settings under which a part of the test suite runs as well."""

TESTS = (
    "tests/linux",
    "tests/mm/test_seed.py",
    "tests/process/test_open.py",
    "tests/process/test_maps.py",
    "tests/process/test_search.py",
    "tests/tracee/test_attach.py",
    "tests/tracee/test_spawn.py",
    "tests/tracee/test_holds.py",
    "tests/tracee/test_atomics.py",
)
"""The part of the suite that runs in a guest."""
