"""A tool that goes with a target from event to event, and notes each; it may be killed.

python -m scripts.soaking.continuer BOARD_FD COUNT PID GAPS SEED

It lets most signals be delivered, and discards or replaces those whose numbers end in 3 and 7.
"""

from __future__ import annotations

import mmap
import os
import random
import struct
import sys
from typing import Any

import procvm
from scripts.soaking.numbered import DISCARD, HEADER, REPLACE, SURE, At

REPLACEMENT = 60
FIRST, KINDS = 40, 4


def number_of(event: Any) -> int:
    """Returns the number that a signal carries, 0 where the event does not tell it."""
    info = getattr(event, "siginfo", None)
    if isinstance(info, bytes):
        return int(struct.unpack_from("=Q", info, 24)[0])
    for name in ("value", "si_value", "si_ptr"):
        if isinstance(found := getattr(info, name, None), int):
            return found
    return 0


class Continuer:
    """One tool on one target."""

    def __init__(self, fd: int, count: int, pid: int, gaps: int, seed: int) -> None:
        size = HEADER + 3 * (count + 1)
        self.bytes = memoryview(mmap.mmap(fd, size))
        self.words = self.bytes[:HEADER].cast("Q")
        self.told = HEADER + count + 1
        self.decided = self.told + count + 1
        self.pid = pid
        self.gaps = bool(gaps)
        self.chance = random.Random(seed + self.words[At.TOLD])
        self.unsure: list[int] = []
        # Delivered by a step of their thread before their events were told.
        self.stepped: set[int] = set()
        self.foretold: list[tuple[int, int, int]] = []
        self.complaint = ""

    def run(self) -> None:
        """Takes events until the storm says that it is over."""
        with procvm.attach(self.pid, longest_hold=None) as tracee:
            tracee.stop()
            os.write(1, b"holding\n")
            while not self.words[At.STOP]:
                # While events wait to be told no thread runs, and a replacement is not delivered:
                # if the tracer were killed now, the kernel would deliver the signal itself.
                runs = not tracee.pending_events()
                event = tracee.cont(timeout=0.2)
                if runs:
                    self._make_sure()
                if event is None:
                    self.words[At.IDLE] += 1
                else:
                    self._take(event)
                self._foretell(tracee, event)
                if self.gaps and self.chance.random() < 0.02:
                    self._leave_a_gap(tracee)
            tracee.resume()

    def _make_sure(self) -> None:
        """Notes that what was decided so far has taken effect."""
        for n in self.unsure:
            self.bytes[self.decided + n] |= SURE
        self.unsure.clear()

    def _take(self, event: Any) -> None:
        if event.kind != "signal" or not FIRST <= event.signo < FIRST + KINDS:
            if event.signo != REPLACEMENT:
                self.complaint = f"a strange event: {event}"
            return
        self.words[At.TOLD] += 1
        n = number_of(event)
        if not n:
            return
        self.bytes[self.told + n] += 1
        choice = {3: DISCARD, 7: REPLACE}.get(n % 10, 0)
        if choice and n not in self.stepped:
            self.bytes[self.decided + n] = choice
            self.unsure.append(n)
            self.words[At.TAKEN] += 1
            if choice == DISCARD:
                event.discard()
            else:
                event.replace(REPLACEMENT)

    def _foretell(self, tracee: Any, event: Any) -> None:
        """What pending_events() told before has to be what comes."""
        pending = getattr(tracee, "pending_events", None)
        if pending is None:
            return
        if self.foretold:
            found = (event.tid, event.signo, number_of(event)) if event is not None else None
            if found != self.foretold.pop(0):
                self.complaint = f"{found} came, pending_events() told another"
        now = [(e.tid, e.signo, number_of(e)) for e in pending()]
        if now[: len(self.foretold)] != self.foretold:
            self.complaint = f"pending_events() were {self.foretold}, and are {now}"
        self.foretold = now

    def _leave_a_gap(self, tracee: Any) -> None:
        """Does something else between two events; nothing may be lost by that."""
        kind = self.chance.choice(("resume", "step", "registers", "nested", "atomic"))
        if kind == "resume":
            self.foretold.clear()
            tracee.resume()
            self._make_sure()
            tracee.stop()
        elif kind == "step":
            self.foretold.clear()
            tid = self.chance.choice([thread.tid for thread in tracee.threads()])
            self.stepped.update(number_of(e) for e in tracee.pending_events() if e.tid == tid)
            try:
                tracee.step(tid, timeout=0.02)
            except procvm.StopTimeoutError:
                return  # it is in a call that blocks
        elif kind == "registers":
            tracee.set_registers(tracee.registers())
        elif kind == "nested":
            with tracee.stopped():
                pass
        else:
            tracee.vm.atomic_load(tracee.registers()["rsp"] & ~7, procvm.u64)


def main() -> None:
    continuer = Continuer(*map(int, sys.argv[1:]))
    try:
        continuer.run()
    except procvm.ProcvmError as error:
        print(f"done {type(error).__name__}: {error}", flush=True)
    else:
        print(f"done {continuer.complaint}", flush=True)


if __name__ == "__main__":
    main()
