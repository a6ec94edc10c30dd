"""The test's end of tests/faults/tool.py, and strace on it."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

from tests.support.build import compiled
from tests.support.child import Child
from tests.support.patience import PATIENCE

ROOT = Path(__file__).parents[2]


class Refusal(NamedTuple):
    """What an operation of the tool raised."""

    name: str
    procvm: bool
    text: str
    seen: str
    copied_len: int | None
    address: int | None
    pid: int | None


class Tool(Child):
    """A tool in a process of its own, started by a command that prepares its surroundings."""

    def __init__(
        self,
        *prefix: str,
        env: dict[str, str] | None = None,
        pass_fds: Sequence[int] = (),
        python: str = sys.executable,
    ) -> None:
        paths = {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed in `close`)
        super().__init__(
            [*prefix, python, "-m", "tests.faults.tool"],
            env={**os.environ, **paths, **(env or {})},
            stderr=self._errors.fileno(),
            pass_fds=pass_fds,
        )

    def answer(self, *call: object) -> Any:
        """Returns the value of an operation, or its `Refusal`."""
        return _unpack(json.loads(self.ask(json.dumps(call))))

    def do(self, *call: object) -> Any:
        """Returns the value of an operation that must succeed."""
        answer = self.answer(*call)
        if isinstance(answer, Refusal):
            raise AssertionError(f"{call[0]} raised {answer.name}: {answer.seen}")  # noqa: TRY004
        return answer

    def each(self, *calls: Sequence[object]) -> list[Any]:
        """Returns the answers of several operations."""
        return [_unpack(answer) for answer in self.do("each", calls)]

    def refused(self, *call: object) -> Refusal:
        """Returns the ProcvmError of an operation that must raise one."""
        answer = self.answer(*call)
        assert isinstance(answer, Refusal), f"{call[0]} gave {answer!r}"
        assert answer.procvm, f"a foreign exception: {answer.seen}"
        return answer

    def finish(self) -> None:
        """Ends the tool by the end of its input; it must say nothing and leave with 0."""
        assert self.popen.stdin is not None
        self.popen.stdin.close()
        status = self.popen.wait()
        self._errors.seek(0)
        assert (status, self._errors.read().decode()) == (0, "")

    def close(self) -> None:
        super().close()
        self._errors.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        try:
            if error[0] is None:
                self.finish()
        finally:
            self.close()


class GatedTool(Tool):
    """A tool that can be held at the entry of any of its system calls."""

    def __init__(self, *prefix: str) -> None:
        self._at_gate, self._out = os.pipe()
        self._in, self._go_on = os.pipe()
        shim = compiled("gate", "-shared", "-fPIC")
        super().__init__(*prefix, env={"LD_PRELOAD": shim}, pass_fds=[self._out, self._in])

    def held_at(self, n: int, change: Callable[[], object], *call: object) -> tuple[bool, Any]:
        """Does an operation, and a change of the target when it is at its n-th system call.

        Returns:
            Whether there was an n-th call, and the answer of the operation.
        """
        self.send(json.dumps(["gated", n, self._out, self._in, call]))
        poll = select.poll()
        poll.register(self._at_gate, select.POLLIN)
        assert self.popen.stdout is not None
        poll.register(self.popen.stdout, select.POLLIN)
        ready = poll.poll(PATIENCE * 1000)
        assert ready, "the tool hangs"
        held = (self._at_gate, select.POLLIN) in ready
        if held:
            assert os.read(self._at_gate, 1)
            change()
            os.write(self._go_on, b"x")
        passed, answer = json.loads(self.line())["value"]
        assert held == (passed >= n)
        return held, _unpack(answer)

    def close(self) -> None:
        super().close()
        for fd in (self._at_gate, self._out, self._in, self._go_on):
            os.close(fd)


def unpack_all(answers: list[Any]) -> list[Any]:
    """Returns the answers of an operation that does several."""
    return [_unpack(answer) for answer in answers]


def _unpack(answer: Any) -> Any:
    if "value" in answer:
        return answer["value"]
    return Refusal(
        answer["error"],
        answer["procvm"],
        answer["text"],
        answer["seen"],
        answer["copied_len"],
        answer["address"],
        answer["pid"],
    )


class Strace:
    """strace on a process that runs already; a context manager that lets go of it."""

    def __init__(self, pid: int, *options: str) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="procvm-strace-")
        self._log = Path(self._folder.name) / "log"
        self._popen = subprocess.Popen(
            ["strace", "-f", "-o", self._log, "-p", str(pid), *options],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        assert self._popen.stderr is not None
        line = self._popen.stderr.readline()
        if b"attached" not in line:
            rest = self._popen.stderr.read()
            self.stop()
            raise AssertionError(f"strace: {line + rest!r}")

    def stop(self) -> list[str]:
        """Detaches; returns the lines of the log."""
        if self._popen.returncode is None:
            self._popen.send_signal(signal.SIGINT)
            self._popen.wait()
            assert self._popen.stderr is not None
            self._popen.stderr.close()
            self._lines = self._log.read_text(errors="replace").splitlines()
            self._folder.cleanup()
        return self._lines

    def hits(self) -> int:
        """Detaches; returns how many system calls were made to fail."""
        return sum("(INJECTED)" in line for line in self.stop())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def injected(lines: Sequence[str]) -> list[str]:
    """Returns the names of the system calls that were made to fail."""
    return [
        found[1]
        for line in lines
        if "(INJECTED)" in line and (found := re.search(r"(\w+)(?:\(| resumed)", line))
    ]
