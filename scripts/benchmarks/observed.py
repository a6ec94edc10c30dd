"""What a trace costs its target."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import procvm
from procvm import u64

__all__ = ["OBSERVED_TEXT", "OBSERVED_TITLE", "observed"]

OBSERVED_TITLE = "Observed: what a trace costs the target"
OBSERVED_TEXT = (
    "A target writes a word in a function at a steady rate of its CPU time, and measures that time "
    "itself, with and without a trace whose hits a thread of the tool takes. The cost of a hit is "
    "that at 20,000 hits per second; the rates follow from it, and the last column is what a run "
    "at these rates found, with the hits that came too fast. CPU time, since other programs on the "
    "machine change it little; the least of five runs each."
)

_ROUNDS = 5
_NS = 1_000_000_000
_CPU_NS = 400_000_000
"""CPU time of a run without a trace."""

_SLOWDOWNS = (0.01, 0.10)

Open = Callable[[procvm.Process, int, int], procvm.AccessTrace]

_TRACES: dict[str, Open] = {
    "trace_accesses": lambda process, word, _: process.trace_accesses(word, u64),
    "trace_accesses, registers": lambda process, word, _: process.trace_accesses(
        word, u64, registers=True
    ),
    "trace_accesses, registers and 8 KiB of stack": lambda process, word, _: process.trace_accesses(
        word, u64, registers=True, stack_len=8192
    ),
    "trace_calls": lambda process, _, function: process.trace_calls(function),
}


class _Target:
    """observed.c, running."""

    def __init__(self, program: Path) -> None:
        self.popen = subprocess.Popen(
            [program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.popen.stdout is not None
        self.word, self.function = (int(one, 16) for one in self._line().split()[1:])

    def _line(self) -> str:
        assert self.popen.stdout is not None
        return self.popen.stdout.readline()

    def run(self, writes: int, spins: int) -> int:
        """Returns the nanoseconds of CPU time of so many writes."""
        assert self.popen.stdin is not None
        self.popen.stdin.write(f"{writes} {spins}\n")
        self.popen.stdin.flush()
        return int(self._line())


@contextmanager
def _target() -> Generator[_Target]:
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    assert compiler is not None, "no C compiler: install one (the package gcc)"
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "observed"
        source = Path(__file__).with_name("observed.c")
        subprocess.run([compiler, "-O1", "-o", program, source], check=True)
        target = _Target(program)
        try:
            yield target
        finally:
            target.popen.kill()
            target.popen.communicate()


def _slowdown(
    target: _Target, process: procvm.Process, open_: Open, rate: float
) -> tuple[float, int, int]:
    """Returns the slowdown at a rate of hits per second, and the hits and how many were lost.

    Runs with and without the trace take turns; the least of each count.
    """
    per_spin = min(target.run(1, 20_000_000) for _ in range(3)) / 20_000_000
    spins = max(round(_NS / rate / per_spin), 0)
    writes = max(round(rate * _CPU_NS / _NS), 1)
    plain: list[int] = []
    traced: list[int] = []
    hits = lost = 0
    for _ in range(_ROUNDS):
        plain.append(target.run(writes, spins))
        with open_(process, target.word, target.function) as trace:
            is_over = threading.Event()

            def take(trace: procvm.AccessTrace = trace, is_over: threading.Event = is_over) -> None:
                while not is_over.is_set():
                    trace.read(0.05)

            taker = threading.Thread(target=take)
            taker.start()
            traced.append(target.run(writes, spins))
            is_over.set()
            taker.join()
            hits, lost = hits + trace.count, lost + trace.lost
    return min(traced) / min(plain) - 1, hits, lost


def observed() -> list[tuple[str, ...]]:
    """Returns the rows of the table: a kind of trace, its cost, and the rates of each slowdown."""
    rows: list[tuple[str, ...]] = [
        ("", "CPU time of a hit", *(f"hits/s at {at:.0%}" for at in _SLOWDOWNS), "measured there")
    ]
    with _target() as target, procvm.open(target.popen.pid) as process:
        for name, open_ in _TRACES.items():
            slowed, _, _ = _slowdown(target, process, open_, 20_000)
            cost = slowed / 20_000
            measured: list[str] = []
            for at in _SLOWDOWNS:
                found, hits, lost = _slowdown(target, process, open_, at / cost)
                measured.append(f"{found:.1%} ({lost:,} of {hits:,} lost)")
            rates = (f"{at / cost:,.0f}" for at in _SLOWDOWNS)
            rows.append((name, f"{cost * 1e6:.1f} us", *rates, ", ".join(measured)))
    return rows
