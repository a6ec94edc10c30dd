"""Runs the long races and storms by name, and prints what they counted; see scripts/soak."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable

import click
from rich.console import Console
from rich.table import Table

from scripts.soaking.blows import BLOWS
from scripts.soaking.numbered import numbered_signals
from scripts.soaking.nursery import MODES
from scripts.soaking.operations import Plan, operations
from scripts.soaking.points import killed_points, watched_stops
from scripts.soaking.races import run_races
from scripts.soaking.tally import Tally

Storm = Callable[[int, int, float | None], Tally]


def _operations(plan: Plan) -> Storm:
    def run(count: int, seed: int, seconds: float | None) -> Tally:
        return operations(count, seed, plan, seconds=seconds)

    return run


def _signals(count: int, seed: int, seconds: float | None) -> Tally:
    return numbered_signals(count, seed, seconds=seconds)


def _signals_with_gaps(count: int, seed: int, seconds: float | None) -> Tally:
    return numbered_signals(count, seed, gaps=True, seconds=seconds)


def _signals_with_kills(count: int, seed: int, seconds: float | None) -> Tally:
    kills = max(count // 1000, 2)
    return numbered_signals(count, seed, kills=kills, seconds=seconds)


def _points(count: int, seed: int, seconds: float | None) -> Tally:
    return killed_points(count, seed, seconds=seconds)


def _stops(count: int, seed: int, seconds: float | None) -> Tally:
    return watched_stops(count, seed, seconds=seconds)


def _mutations() -> bool:
    """Runs the sweeps that the everyday tests take a part of; returns whether all went well.

    They open 20,000 mutations of each of a few core and ELF files, and access every edge
    between two pages with every length.
    """
    paths = ["tests/elf", "tests/linux/test_contract.py"]
    names = "mutation or before_the_first or forced"
    command = [sys.executable, "-m", "pytest", "-q", "-n", "2", *paths, "-k", names]
    return (
        subprocess.run(command, env={**os.environ, "PROCVM_STORM": "1"}, check=False).returncode
        == 0
    )


COUNTS = {
    "operations": 100_000,
    "signals": 1_000_000,
    "signals-gaps": 100_000,
    "signals-kills": 100_000,
    "points": 1_000,
    "points-stops": 10_000,
}
"""The storms, with the numbers of the claim."""


def _run(name: str, storm: Storm, count: int, seed: int, seconds: float | None) -> bool:
    """Runs a storm and prints what it counted; returns whether it did any harm."""
    begun = time.monotonic()
    try:
        tally = storm(count, seed, seconds)
    except Exception as error:  # noqa: BLE001 (a row of the table, and the exit status)
        tally = Tally()
        tally.harm("failed", f"{type(error).__name__}: {error}", seed)
    took = time.monotonic() - begun
    print(f"{name}: {count:,} asked for, seed {seed}, {took:.0f} s")
    table = Table("", "", "count")
    table.columns[2].justify = "right"
    for part, counts in (("done", tally.done), ("met", tally.met), ("harm", tally.harms)):
        for what, n in counts.most_common() or [("none", 0)]:
            table.add_row(part, what, f"{n:,}")
        table.add_section()
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(table)
    for example in tally.examples:
        console.print(example, markup=False, highlight=False, soft_wrap=True)
    return bool(tally.harms)


@click.command(context_settings={"show_default": True})
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--count", type=click.IntRange(1), help="How often; else the numbers of the claim.")
@click.option("--seed", type=int, help="Repeats a session that did harm; random if not given.")
@click.option("--minutes", type=float, default=60.0, help="Ends each race and storm after that.")
@click.option("--scale", type=float, default=1.0, help="Runs that part of the numbers.")
@click.option("--blow", "blows", multiple=True, type=click.Choice([*BLOWS]), help="Only these.")
@click.option("--target", "modes", multiple=True, type=click.Choice(MODES), help="Only these.")
def main(
    names: tuple[str, ...],
    count: int | None,
    seed: int | None,
    minutes: float,
    scale: float,
    blows: tuple[str, ...],
    modes: tuple[str, ...],
) -> None:
    """Runs the races and storms of docs/reliability.md, and counts harm, which has to be 0.

    NAME is operations, signals, signals-gaps, signals-kills, points, points-stops, mutations, or
    races; any other text picks the races with it in their titles. Without names everything runs.
    """
    seed = int.from_bytes(os.urandom(3)) if seed is None else seed
    print(
        f"Linux {platform.release()} {platform.machine()}, {os.cpu_count()} CPUs, "
        f"Python {platform.python_version()}, {time.strftime('%Y-%m-%d')}\n",
        flush=True,
    )
    storms: dict[str, Storm] = {
        "operations": _operations(Plan(blows or tuple(BLOWS), modes or MODES, burst=400)),
        "signals": _signals,
        "signals-gaps": _signals_with_gaps,
        "signals-kills": _signals_with_kills,
        "points": _points,
        "points-stops": _stops,
    }
    harmed = 0
    for name in [name for name in storms if not names or name in names]:
        times = count or max(round(COUNTS[name] * scale), 1)
        harmed += _run(name, storms[name], times, seed, minutes * 60)
    titles = [name for name in names if name not in storms and name != "mutations"]
    if titles or not names:
        harmed += run_races([] if "races" in titles else titles, minutes * 60, scale)
    if "mutations" in names or not names:
        harmed += not _mutations()
    print(f"{harmed} with harm" if harmed else "no harm", flush=True)
    sys.exit(bool(harmed))


if __name__ == "__main__":
    main()
