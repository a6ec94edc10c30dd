"""Which process, or which core file, a person means."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from typing import Any, TypeVar

import click

import procvm
from procvm._base.text import printable
from procvm._linux.processes import NamedProcess, processes, processes_called
from procvm._live.naming import the_process
from procvm._symbols.mapped import Mapped
from procvm.cli.param import Param
from procvm.errors import AmbiguousNameError, InvalidArgsError, NoSuchProcessError

__all__ = [
    "AmbiguousError",
    "TargetParam",
    "address_in",
    "name_of",
    "open_process",
    "open_target",
    "pid_of",
]

T = TypeVar("T")


class AmbiguousError(click.UsageError):
    """Several are meant by a name.

    Attributes:
        choices: A line for each.
    """

    def __init__(self, message: str, choices: list[str]) -> None:
        super().__init__(message)
        self.choices = choices


def pid_of(text: str) -> int:
    """Returns the pid that a number or a name stands for.

    Raises:
        NoSuchProcessError: No process is called that; it may be a core file.
        AmbiguousError: Several are.
    """
    if text.isdecimal():
        return int(text)
    found = _called(text)
    if not found and os.path.isfile(text):
        what = (
            "a core file: core files are read-only and never change" if _is_core(text) else "a file"
        )
        raise NoSuchProcessError(
            f"{printable(os.fsencode(text))} is {what}; give the pid or the name of a live process",
            pid=0,
        )
    return _one(text, found)


def _called(name: str) -> list[NamedProcess]:
    if not name:
        raise click.UsageError("an empty PID: give a number, or the name of a process")
    return processes_called(name)


def _one(name: str, found: list[NamedProcess]) -> int:
    try:
        return the_process(name, found).pid
    except AmbiguousNameError as error:
        raise AmbiguousError(
            f"{len(error.candidates)} processes are called {printable(name)}; give a pid:",
            [str(process) for process in found],
        ) from None


def open_process(text: str) -> procvm.Process:
    """Opens the process that a number or a name stands for."""
    return procvm.open(pid_of(text))


def open_target(text: str) -> procvm.Process | procvm.Snapshot:
    """Opens a process, or a core file: what has a slash in it, or is the name of one.

    Raises:
        AmbiguousError: Several processes are called that, or a process and a file.
    """
    if text.isdecimal():
        return procvm.open(int(text))
    if "/" in text:
        return procvm.open_core(text)
    found = _called(text)
    if not found and os.path.isfile(text) and not os.access(text, os.R_OK):
        return procvm.open_core(text)  # says why that file can not be read
    if not _is_core(text):
        return procvm.open(_one(text, found))
    if found:
        name = printable(text)
        raise AmbiguousError(
            f"both a core file and a process are called {name}; give ./{name} or a pid:",
            [str(process) for process in found],
        )
    return procvm.open_core(text)


def _is_core(path: str) -> bool:
    """Returns whether a file says that it is a core; the program itself often lies beside."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return False
        with open(path, "rb") as file:
            head = file.read(18)
    except (OSError, ValueError):
        return False
    return head[:4] == b"\x7fELF" and head[16:18] in (b"\4\0", b"\0\4")


def address_in(process: Mapped, text: str) -> int:
    """Returns the address that an expression stands for in a process.

    Raises:
        click.BadParameter: It can not be understood.
    """
    return said_of("ADDRESS", lambda: process.address(text))


def name_of(process: Mapped, address: int) -> str:
    """Returns what an address is, for people; empty where it has no name that can be found."""
    where = process.describe(address)
    return "" if where == hex(address) else where


def said_of(name: str, act: Callable[[], T]) -> T:
    """Does something with an argument; what is wrong with that is said of the argument.

    Raises:
        click.BadParameter: It has no meaning.
    """
    try:
        return act()
    except InvalidArgsError as error:
        wrong = str(error)
    except procvm.ProcvmError:
        raise
    except (ValueError, OverflowError) as error:
        wrong = str(error)
    raise click.BadParameter(wrong, param_hint=name)


class TargetParam(Param):
    """PID: a number or a name; the shell completes both."""

    name = "pid"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[Any]:
        """Returns the processes whose number or name begins so."""
        from click.shell_completion import CompletionItem  # noqa: PLC0415 (for the shell only)

        found: dict[str, str] = {}
        for process in processes():
            if str(process.pid).startswith(incomplete):
                found[str(process.pid)] = printable(process.program or process.comm)
            for name in map(os.fsdecode, {process.comm, process.program}):
                # What the shell would have to quote is not offered.
                if incomplete and name.startswith(incomplete) and _is_plain(name):
                    found.setdefault(name, f"pid {process.pid}")
        return [CompletionItem(value, help=about) for value, about in found.items()]


def _is_plain(name: str) -> bool:
    return name.isascii() and all(char.isalnum() or char in "._+-" for char in name)
