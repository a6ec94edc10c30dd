"""Which parts of memory a command looks at: ``--in``, ``--range``, ``--near``, ``--perms``."""

from __future__ import annotations

import os
from typing import NamedTuple

import click

from procvm._base.text import printable
from procvm._space.maps import Maps, Vma
from procvm._symbols.mapped import Mapped
from procvm.cli.output import NothingFoundError
from procvm.cli.target import address_in, process_text, said_of, similar_to

__all__ = ["Where", "ranges_in"]


class Where(NamedTuple):
    """The options that say where to look, as the user gave them.

    Attributes:
        perms: ``--perms``: letters that a mapping must allow.
        within: ``--in``: the name of mappings; None for any.
        span: ``--range``: two address expressions; None for all of memory.
        near: ``--near``: an address expression, and how many bytes around it.
    """

    perms: str
    within: str | None = None
    span: tuple[str, str] | None = None
    near: tuple[str, int] | None = None

    @property
    def expressions(self) -> tuple[str, ...]:
        """The address expressions among the options."""
        near = () if self.near is None else (self.near[0],)
        return (*(self.span or ()), *near)

    def __str__(self) -> str:
        parts: list[str] = []
        if self.within is not None:
            parts.append(f"--in {printable(os.fsencode(self.within))}")
        if self.span is not None:
            parts.append("--range " + " ".join(self.span))
        if self.near is not None:
            parts.append(f"--near {self.near[0]} {self.near[1]}")
        if self.perms:
            parts.append(f"--perms {self.perms}")
        return " ".join(parts)


def ranges_in(process: Mapped, where: Where, *, whole: bool = False) -> Maps:
    """Returns the mappings that the options select, clipped to ``--range`` or ``--near``.

    The empty name selects the mappings without a name.

    Args:
        process: The process or the core file.
        where: The options.
        whole: Whether to return mappings unclipped, and to keep the one after the end of
            user space, which no read can reach.

    Raises:
        click.BadParameter: An option has no meaning in this process.
        NothingFoundError: No mapping fits; the message names similar names.
    """
    name = where.within
    every = process.maps() if name is None else process.mappings_of(os.fsencode(name))
    fitting = said_of("--perms", lambda: every.filter(perms=where.perms or None))
    if name is not None and not every:
        raise NothingFoundError(
            f"{process_text(process)} has no mapping called {printable(os.fsencode(name))}"
            + similar_to(process, name)
        )
    low, high = _bounds(process, where)
    end = (1 << 64) if whole else process.vm.end
    found = [
        vma if whole else _clipped(vma, low, high)
        for vma in fitting
        if vma.start < high and vma.end > low and vma.end <= end
    ]
    if not found:
        raise NothingFoundError(f"no mapping of {process_text(process)} fits {where}".rstrip())
    return Maps(found)


def _clipped(vma: Vma, low: int, high: int) -> Vma:
    start = max(vma.start, low)
    offset = vma.offset + (start - vma.start if vma.inode else 0)
    return vma._replace(start=start, end=min(vma.end, high), offset=offset)


def _bounds(process: Mapped, where: Where) -> tuple[int, int]:
    """Returns the first address to look at, and the first one after all of them."""
    if where.span is not None and where.near is not None:
        raise click.UsageError("--range and --near exclude each other; give one of them")
    if where.span is not None:
        low, high = (address_in(process, text, "--range") for text in where.span)
        if low >= high:
            raise click.BadParameter(
                f"the end {high:#x} is not after the start {low:#x}", param_hint="--range"
            )
        return low, high
    if where.near is not None:
        text, n = where.near
        at = address_in(process, text, "--near")
        return max(at - n, 0), at + n
    return 0, 1 << 64
