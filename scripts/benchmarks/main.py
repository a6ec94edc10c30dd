"""Measures procvm against C and its peers: ``main.py [--write] [--rounds N] [WORD...]``.

Nothing here fails because something was slow: it prints ratios taken within
one run, and beside them whether they are what was asked for.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import textwrap
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from children import Peer, Rival, Target, compiled
from clock import STABLE, Times, measure
from groups import BULK_LEN, GROUPS, Group, Scene, Table, imports, verdict
from observed import OBSERVED_TEXT, OBSERVED_TITLE, observed
from past import PAST
from peers import NAMES
from scale import SCALE
from tracing import TRACING

import procvm

_DOC = Path(__file__).resolve().parents[2] / "docs" / "performance.md"
_BEGIN, _END = "<!-- measured: begin -->", "<!-- measured: end -->"
_ROUNDS = 15
_PEER_LEN = 2 << 20
_IMPORT_MS = 60
_WIDTH = 108

_UNITS = {"ns": 1, "us": 1e3, "ms": 1e6}


@contextmanager
def _scene(cpus: set[int]) -> Generator[Scene]:
    with ExitStack() as stack:
        program, library = stack.enter_context(compiled())
        target = stack.enter_context(Target(program, BULK_LEN))
        peers: dict[str, Peer] = {}
        for name in NAMES:
            peer = Peer(name, stack.enter_context(Target(program, _PEER_LEN)))
            stack.callback(peer.close)
            if peer.refusal:
                print(f"{name} does not run here: {peer.refusal}")
            else:
                peers[name] = peer
        yield Scene(
            process=stack.enter_context(procvm.open(target.pid)),
            own=stack.enter_context(procvm.open(os.getpid())),
            target=target,
            rival=Rival(library, target.pid),
            own_rival=Rival(library, os.getpid()),
            peers=peers,
            program=program,
            library=library,
            cpus=cpus,
            stack=stack,
        )


def _table(group: Group, found: Times, names: list[str]) -> Table:
    base = names[0]
    what = "throughput" if group.n else "time"
    has_same = group.same in names
    has_median = any(found.median(name) is not None for name in names)
    rows: Table = [
        (
            "",
            "best",
            *(["median"] * has_median),
            f"{what}, x {base}",
            *([f"x {group.same}"] * has_same),
            "asked for",
        )
    ]
    for name in names:
        others = [base, group.same][: 1 + has_same]
        best = found.best(name)
        rows.append(
            (
                name,
                f"{group.n / best:.2f} GB/s" if group.n else _time(group, best),
                *([_time(group, found.median(name))] * has_median),
                *(_ratio(group, found, name, other) for other in others),
                "; ".join(
                    f"{goal.text}: {verdict(goal.met(found))}" for goal in group.goals.get(name, [])
                ),
            )
        )
    return rows


def _ratio(group: Group, found: Times, name: str, base: str) -> str:
    ratio, spread = found.ratio(name, base), found.spread(name, base)
    if group.n:
        ratio = 1 / ratio
    text = f"{ratio:,.0f}" if ratio >= 100 else f"{ratio:.2f}"
    if name == base:
        return text
    return f"{text} ±{100 * spread:.0f} %" + " (unstable)" * (spread > STABLE)


def _time(group: Group, ns: float | None) -> str:
    if ns is None:
        return ""
    number = ns / _UNITS[group.unit]
    return f"{number:,.{0 if group.unit == 'ns' or number >= 100 else 1}f} {group.unit}"


def _plain(rows: Table) -> str:
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = []
    for name, *cells in rows:
        *numbers, last = cells
        right = [cell.rjust(width) for cell, width in zip(numbers, widths[1:], strict=False)]
        lines.append("  ".join([name.ljust(widths[0]), *right, last]).rstrip())
    return "\n".join(lines)


def _markdown(rows: Table) -> str:
    head, *body = rows
    rule = ("---", *("---:" for _ in head[2:]), "---")
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, rule, *body))


def _imports() -> Table:
    took, foreign = imports()
    return [
        ("import procvm", "", "asked for"),
        (
            "beyond an empty program",
            f"{took:.1f} ms",
            f"<= {_IMPORT_MS} ms: {verdict(took <= _IMPORT_MS)}",
        ),
        (
            "modules that are not Python's own",
            " ".join(foreign) or "none",
            f"none: {verdict(not foreign)}",
        ),
    ]


_IMPORT_TITLE = "The import"
_IMPORT_TEXT = (
    "The best of twenty fresh interpreters (`python -I`) that import procvm, less that of twenty "
    "that do nothing. The time is that of Python's own `ctypes`, `struct`, `threading` and so "
    "on; no installed package is imported."
)


def _stay_on_one_cpu() -> set[int]:
    """Keeps this process and all it starts on one processor: two may differ in speed.

    Returns:
        Those it had.
    """
    cpus = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cpus)})
    return cpus


def _machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return (
        f"Linux {platform.release()} on {names[0] if names else platform.machine()}, "
        f"{os.cpu_count()} CPUs; {platform.python_implementation()} {platform.python_version()}."
    )


def _write(parts: list[str]) -> None:
    text = _DOC.read_text()
    before, begin, rest = text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        sys.exit(f"{_DOC.name} lacks the comments {_BEGIN} and {_END}")
    _DOC.write_text("\n\n".join([before + begin, *parts, end + after]))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--write", action="store_true", help="put the tables into the document")
    parser.add_argument("--rounds", type=int, default=_ROUNDS, help="default: %(default)s")
    parser.add_argument(
        "word", nargs="*", help="measure only what has one of these in its title, in any case"
    )
    options = parser.parse_args()
    if options.write and options.word:
        parser.error("--write puts all the tables into the document: give no word")

    def asked(title: str) -> bool:
        return not options.word or any(word.lower() in title.lower() for word in options.word)

    groups = [group for group in (*GROUPS, *TRACING, *SCALE, *PAST) if asked(group.title)]
    imports_asked, observed_asked = asked(_IMPORT_TITLE), asked(OBSERVED_TITLE)
    if not groups and not imports_asked and not observed_asked:
        parser.error("nothing measured here has such a word in its title")

    parts = [_machine()]
    busy = os.getloadavg()[0]
    if busy > (os.cpu_count() or 1) / 2:
        parts[0] += (
            f" Other work shared it (load {busy:.1f} at the start): trust the ratios a little, and "
            "the times not at all."
        )
    parts[0] = textwrap.fill(parts[0], _WIDTH)
    print(parts[0])
    cpus = _stay_on_one_cpu()

    def show(title: str, text: str, *tables: Table) -> None:
        print(f"\n{title}\n" + "\n\n".join(map(_plain, tables)), flush=True)
        parts.extend([f"### {title}", *map(_markdown, tables), textwrap.fill(text, _WIDTH)])

    with _scene(cpus) as scene:
        for group in groups:
            with ExitStack() as stack:
                contenders = group.contenders(scene._replace(stack=stack))
                rounds, passes = options.rounds, {}
                if group.rounds:
                    rounds, passes = min(rounds, group.rounds), {"passes": 1}
                found = measure(contenders, rounds, **passes, more=not group.rounds)
                names = [contender.name for contender in contenders]
                tables = [_table(group, found, names)]
                if group.tables is not None:
                    tables += group.tables(scene)
                show(group.title, group.text, *tables)
    if observed_asked:
        os.sched_setaffinity(0, cpus)  # the target runs while its hits are taken
        show(OBSERVED_TITLE, OBSERVED_TEXT, observed())
    if imports_asked:
        show(_IMPORT_TITLE, _IMPORT_TEXT, _imports())
    if options.write:
        _write(parts)


if __name__ == "__main__":
    main()
