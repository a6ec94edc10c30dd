"""What a storm has counted: what was done, which races were met, and every harm with its seed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

__all__ = ["Tally"]

EXAMPLES = 12
"""Harms of each kind that are kept in full."""


@dataclass
class Tally:
    """The counts of one storm.

    Attributes:
        done: What was done, by name.
        met: The races that were really met, by name.
        harms: Counts that have to be 0, by kind.
        examples: Each of the first harms of a kind, with the seed that repeats it.
    """

    done: Counter[str] = field(default_factory=Counter)
    met: Counter[str] = field(default_factory=Counter)
    harms: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)

    def harm(self, kind: str, detail: str, seed: int, times: int = 1) -> None:
        """Counts a harm; `seed` starts the storm at the session that did it."""
        if self.harms[kind] < EXAMPLES:
            self.examples.append(f"{kind}: {detail} (--seed {seed})")
        self.harms[kind] += times

    def report(self) -> str:
        """Returns all of it as text, for a test that fails."""
        rows = [
            f"{title}: " + (", ".join(f"{n:,} {what}" for what, n in counts.most_common()) or "0")
            for title, counts in (("done", self.done), ("met", self.met), ("harm", self.harms))
        ]
        return "\n".join([*rows, *self.examples])
