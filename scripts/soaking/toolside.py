"""A tool as the storm sees it: its bursts, its tracer, its descriptors, and its end."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import select
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.soaking.board import Log
from scripts.soaking.nursery import Nursery
from scripts.soaking.tool import INSIDE
from tests.support.child import Child
from tests.support.patience import eventually
from tests.support.procfs import status_field, tracers

__all__ = ["Answer", "ToolProcess", "Tracer"]

START = 300.0
"""Seconds after which a Python that does not begin hangs; a busy machine may take a minute."""

_markers = itertools.count(1)


@dataclass
class Answer:
    """What a tool says of a burst.

    Attributes:
        done: Operations that succeeded, by name.
        errors: Errors of the library, by "operation: type".
        foreign: Exceptions that are not the library's, and other faults it saw.
    """

    done: Counter[str]
    errors: Counter[str]
    foreign: list[str]


class Tracer:
    """A tracer process, by a descriptor: its number may go to another process."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._pidfd = os.pidfd_open(pid)

    def signal(self, signo: int) -> None:
        """Sends it a signal; nothing happens when it has ended."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signo)

    def has_ended(self) -> bool:
        """Returns whether the process has ended."""
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        return bool(poll.poll(0))

    def close(self) -> None:
        """Closes the descriptor; the process goes on."""
        os.close(self._pidfd)


class ToolProcess(Child):
    """A child that runs scripts/soaking/tool.py."""

    def __init__(self, nursery: Nursery, inside: Sequence[str] = INSIDE) -> None:
        self.marker = f"{os.getpid()}-{next(_markers)}"
        self.tracer: Tracer | None = None
        self._log = nursery.log
        for at in Log:
            self._log[at] = 0
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the tool)
        numbers = nursery.log.fd, nursery.cookie_address, nursery.word_address
        module = "scripts.soaking.tool"
        super().__init__(
            [sys.executable, "-m", module, *map(str, numbers), ",".join(inside)],
            pass_fds=[nursery.log.fd],
            env={**os.environ, "PROCVM_STORM": self.marker},
            stderr=self._stderr.fileno(),
        )
        try:
            assert self.line() == "ready"
        except BaseException:
            self.close()
            raise

    def begin(self, pid: int, count: int, seed: int) -> None:
        """Starts a burst of operations on a process."""
        self._log[Log.GIVE_UP] = 0
        self.send(f"{pid} {count} {seed}")

    def is_through(self) -> bool:
        """Returns whether the burst is over, or the tool."""
        assert self.popen.stdout is not None
        return bool(select.select([self.popen.stdout], [], [], 0)[0])

    def answer(self, within: float) -> Answer:
        """Returns what the tool says of the burst when it is over."""
        found: dict[str, Any] = json.loads(self.line())
        return Answer(Counter(found["done"]), Counter(found["errors"]), found["foreign"])

    def find_tracer(self, target: int) -> Tracer | None:
        """Waits until the target is seized, and returns who traces it; None after the burst.

        Only a process that was started from this tool is taken: it inherits the marker.
        """
        if self.tracer is not None and not self.tracer.has_ended():
            return self.tracer
        self._drop_tracer()

        def seized() -> bool:
            with contextlib.suppress(OSError):
                for thread in tracers(target):
                    pid = int(status_field(thread, "Tgid"))
                    if self.marker.encode() in Path(f"/proc/{pid}/environ").read_bytes():
                        self.tracer = Tracer(pid)
            return self.tracer is not None or self.is_through()

        eventually(seized)
        return self.tracer

    def _drop_tracer(self) -> None:
        if self.tracer is not None:
            self.tracer.close()
            self.tracer = None

    def fds(self) -> Counter[str]:
        """Returns what kinds of descriptors it has open: socket, pipe, the path of a file."""
        found: Counter[str] = Counter()
        for name in os.listdir(f"/proc/{self.pid}/fd"):
            with contextlib.suppress(OSError):
                found[os.readlink(f"/proc/{self.pid}/fd/{name}").partition(":[")[0]] += 1
        return found

    def waits_in(self) -> str:
        """Returns what /proc shows of the place where it waits."""
        with contextlib.suppress(OSError):
            states = [Path(f"/proc/{self.pid}/{name}").read_text() for name in ("wchan", "syscall")]
            return " ".join(states).strip()
        return ""

    def highest_fd(self) -> int:
        """Returns the highest number of a descriptor that it has open."""
        return max(map(int, os.listdir(f"/proc/{self.pid}/fd")))

    def offspring(self) -> dict[int, str]:
        """Returns the command lines, by pid, of the processes that it has left."""
        found = {}
        for name in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                if int(name) == self.pid:
                    continue
                if self.marker.encode() in Path(f"/proc/{name}/environ").read_bytes():
                    line = Path(f"/proc/{name}/cmdline").read_bytes()
                    found[int(name)] = line.replace(b"\0", b" ").decode(errors="replace")
        return found

    def said(self) -> str:
        """Returns what the tool and its tracer wrote to stderr."""
        self._stderr.seek(0)
        return self._stderr.read().decode(errors="replace")

    def close(self) -> None:
        """Kills it if it lives, and closes all that belongs to it."""
        super().close()
        self._drop_tracer()
        self._stderr.close()
