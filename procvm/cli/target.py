"""Opens the process or the core file that PID names, and evaluates ADDRESS in it."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable
from typing import Any, TypeVar

import click

import procvm
from procvm._base.text import printable
from procvm._linux.processes import NamedProcess, processes, processes_called
from procvm._live.naming import the_process
from procvm._symbols.mapped import Mapped
from procvm.cli.output import AmbiguousError, message_of
from procvm.cli.param import Param
from procvm.errors import (
    AmbiguousNameError,
    InvalidArgsError,
    NoSuchProcessError,
    NoSuchSymbolError,
)

__all__ = [
    "TargetParam",
    "address_in",
    "name_of",
    "names_register",
    "open_process",
    "open_target",
    "pid_of",
    "process_text",
    "said_of",
    "similar_to",
]

T = TypeVar("T")


def pid_of(text: str) -> int:
    """Returns the pid of a number or a name.

    Raises:
        NoSuchProcessError: No process has this name; if a file has it, the message says so.
        AmbiguousError: Several processes have this name.
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
        raise click.UsageError("PID is empty; give a number or the name of a process")
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
    """Opens the process of a number or a name."""
    return procvm.open(pid_of(text))


def open_target(text: str) -> procvm.Process | procvm.Snapshot:
    """Opens a process or a core file; a text with a slash is always a file.

    Raises:
        AmbiguousError: Several processes have this name, or a process and a core file.
    """
    if text.isdecimal():
        return procvm.open(int(text))
    if "/" in text:
        return procvm.open_core(text)
    found = _called(text)
    if not found and os.path.isfile(text) and not os.access(text, os.R_OK):
        return procvm.open_core(text)  # its error says why the file cannot be read
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
    """Returns whether a file is a core by its ELF header; a program of that name is not."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return False
        with open(path, "rb") as file:
            head = file.read(18)
    except (OSError, ValueError):
        return False
    return head[:4] == b"\x7fELF" and head[16:18] in (b"\4\0", b"\0\4")


def address_in(process: Mapped, text: str, argument: str = "ADDRESS") -> int:
    """Returns the value of an address expression in a process.

    Raises:
        click.BadParameter: The expression is wrong; the message names `argument`.
        NoSuchSymbolError: No symbol or mapping has the name; the message names similar ones.
    """
    try:
        return said_of(argument, lambda: process.address(text))
    except NoSuchSymbolError as error:
        module = re.split(r"[!+]", error.name)[0]
        raise NoSuchSymbolError(
            error.message + similar_to(process, module),
            name=error.name,
            reason=error.reason,
            hint=error.hint,
        ) from None


def names_register(*expressions: str | None) -> bool:
    """Returns whether an address expression may name a register, which has a value in a hold."""
    return any("$" in one for one in expressions if one is not None)


def process_text(process: Mapped) -> str:
    """Returns how a message names a process or a core file."""
    kind = "the core file of process" if isinstance(process, procvm.Snapshot) else "process"
    return f"{kind} {process.pid}"


def similar_to(process: Mapped, name: str) -> str:
    """Returns ``; did you mean libc.so.6?`` if a mapping has a similar name, else nothing."""
    import difflib  # noqa: PLC0415 (only a wrong name needs it)

    names = {printable(os.path.basename(vma.plain_name)) for vma in process.maps() if vma.name}
    wanted = name.rpartition("/")[2].lower()
    if not wanted:
        return ""
    found = sorted(one for one in names if one.lower().strip("[").startswith(wanted.strip("[")))
    found = found or difflib.get_close_matches(wanted, sorted(names), 3)
    return f"; did you mean {' or '.join(found[:3])}?" if found else ""


def name_of(process: Mapped, address: int) -> str:
    """Returns the name of an address, such as ``libc.so.6!environ``; empty if none is known."""
    where = process.describe(address)
    return "" if where == hex(address) else where


def said_of(name: str, act: Callable[[], T]) -> T:
    """Returns what `act` returns; an error about a value becomes one about an argument.

    Raises:
        click.BadParameter: `act` raised for a wrong value.
    """
    try:
        return act()
    except InvalidArgsError as error:
        wrong = message_of(error)
    except procvm.ProcvmError:
        raise
    except (ValueError, OverflowError) as error:
        wrong = str(error)
    raise click.BadParameter(wrong, param_hint=name)


class TargetParam(Param):
    """PID, a number or a name; the shell completes both."""

    name = "pid"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[Any]:
        """Returns the processes whose number or name begins with `incomplete`."""
        from click.shell_completion import CompletionItem  # noqa: PLC0415 (only completion needs it)

        found: dict[str, str] = {}
        for process in processes():
            if str(process.pid).startswith(incomplete):
                found[str(process.pid)] = printable(process.program or process.comm)
            for name in map(os.fsdecode, {process.comm, process.program}):
                # A name that the shell would have to quote is left out.
                if incomplete and name.startswith(incomplete) and _is_plain(name):
                    found.setdefault(name, f"pid {process.pid}")
        return [CompletionItem(value, help=about) for value, about in found.items()]


def _is_plain(name: str) -> bool:
    return name.isascii() and all(char.isalnum() or char in "._+-" for char in name)
