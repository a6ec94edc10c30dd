"""Which parts of memory a command looks at."""

from __future__ import annotations

import os

from procvm._space.maps import Maps
from procvm._symbols.mapped import Mapped
from procvm.cli.target import said_of

__all__ = ["ranges_in"]


def ranges_in(process: Mapped, within: str | None, perms: str) -> Maps:
    """Returns the mappings of a name that allow at least `perms`.

    Those that have no name are all meant by none. The kernel's own at the end of the address
    space is no memory of the process.

    Raises:
        click.BadParameter: There is no mapping of that name.
    """

    def find() -> Maps:
        every = process.maps() if within is None else process.mappings_of(os.fsencode(within))
        if within is not None and not every:
            raise ValueError(f"no mapping is called {within}")
        found = every.filter(perms=perms)
        end = process.vm.end
        return Maps([vma for vma in found if vma.end <= end])

    return said_of("--in" if within is not None else "--perms", find)
