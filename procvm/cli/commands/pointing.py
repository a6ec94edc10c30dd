"""``pointers``: the paths of pointers from variables of a program to an address."""

from __future__ import annotations

import click

from procvm._symbols.pointer_paths import PointerPaths
from procvm.cli.declare import SIZE, SIZE_ABOVE_0, address_argument, command, pid_argument
from procvm.cli.exits import DONE, NOTHING
from procvm.cli.meter import metered
from procvm.cli.output import Output, tell
from procvm.cli.target import address_in, name_of, open_target

__all__ = ["pointers"]


@command(
    "procvm pointers 1234 0x55d0c8a3f2b8 --save paths.json",
    "procvm pointers 5678 0x5617aa02c2b8 --check paths.json --save paths.json",
    "procvm pointers 1234 0x55d0c8a3f2b8 --depth 2 --max-offset 64",
)
@pid_argument
@address_argument
@click.option(
    "--depth",
    type=click.IntRange(1, 16),
    default=4,
    show_default=True,
    metavar="N",
    help="The most pointers in a row.",
)
@click.option(
    "--max-offset",
    type=SIZE,
    default=0x400,
    show_default=True,
    metavar="BYTES",
    help="The most bytes from where a pointer points to the next one.",
)
@click.option(
    "--limit", type=SIZE_ABOVE_0, default=1000, show_default=True, metavar="N", help="Most paths."
)
@click.option("--save", metavar="FILE", help="Write the paths to FILE.")
@click.option(
    "--check", metavar="FILE", help="Show the paths of FILE that lead to ADDRESS; do not search."
)
def pointers(
    out: Output,
    target: str,
    address: str,
    depth: int,
    max_offset: int,
    limit: int,
    save: str | None,
    check: str | None,
) -> int:
    """Find the pointer paths from variables of a program to ADDRESS.

    An address on the heap differs in each run, and so do the pointers that lead to it; a
    variable of a file has the same place in that file. Save the paths, start the program again,
    find the value there, and let --check keep the paths that lead to it in both runs. Each path
    is an address expression, which the other commands take in place of ADDRESS. The exit code
    is 0 if there is a path.
    """
    with open_target(target) as process, metered(out, "pointers") as meter:
        at = address_in(process, address)
        if check is not None:
            found = PointerPaths.load(check).rescan(process, at)
        else:
            found = process.pointer_paths(
                at, depth=depth, max_offset=max_offset, limit=limit, progress=meter
            )
        if save is not None:
            found.save(save)
        if out.json:
            rows = [
                {
                    "path": str(path),
                    "module": path.module,
                    "offset": path.offset,
                    "offsets": list(path.offsets),
                    "variable": name_of(process, process.modules()[path.module].base + path.offset),
                }
                for path in found
            ]
            out.document(
                {
                    "pid": process.pid,
                    "address": hex(at),
                    "complete": found.is_complete,
                    "paths": rows,
                }
            )
        else:
            for path in found:
                out.line(str(path))
        if not found.is_complete and check is None and not out.json:
            tell("not all paths are shown: lower --depth or --max-offset, or raise --limit")
        return DONE if found else NOTHING
