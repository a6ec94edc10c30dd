"""The test's end of tests/doctor/asked.py, and what is said of findings."""

from __future__ import annotations

import json
import os
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from procvm.doctor import Finding
from tests.support.child import Child

ROOT = Path(__file__).parents[2]

CAUSES = (
    "target",
    "target owner",
    "target capabilities",
    "target dumpable",
    "target user namespace",
    "target file mode",
    "target yama",
    "target security module",
)
"""Each is a cause for which the process can not be accessed; one of them fails, or none."""


class Report(dict[str, Finding]):
    """What was found, by the name of the check."""

    def failing(self) -> list[str]:
        """Returns the checks that fail, in order."""
        return [name for name, finding in self.items() if finding.verdict == "fails"]

    def causes(self) -> list[str]:
        """Returns the causes that fail."""
        return [name for name in self.failing() if name in CAUSES]

    def text(self) -> str:
        """Returns what is told of all that is there and is not well."""
        return "\n".join(
            f"{finding.check}: {finding.evidence}: {finding.fix}"
            for finding in self.values()
            if finding.verdict in ("warning", "fails")
        )


def report(findings: list[Any]) -> Report:
    """Returns findings by name; no name is there twice, and all of them are well formed."""
    found = Report()
    for finding in (Finding(*each) for each in findings):
        assert finding.check not in found
        assert finding.verdict in ("ok", "warning", "fails", "absent")
        assert finding.evidence
        assert (finding.evidence + finding.fix).isprintable()
        assert finding.verdict != "ok" or not finding.fix
        found[finding.check] = finding
    return found


class Doctor(Child):
    """A tool in a process of its own, started by a command that prepares its surroundings."""

    def __init__(self, *prefix: str, python: str = sys.executable) -> None:
        # Another Python has not the packages of this one.
        paths = [str(ROOT), sysconfig.get_path("purelib")]
        env = {**os.environ, "PYTHONPATH": ":".join(paths), "PYTHONDONTWRITEBYTECODE": "1"}
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed in `close`)
        super().__init__(
            [*prefix, python, "-m", "tests.doctor.asked"], env=env, stderr=self._errors.fileno()
        )

    def examine(self, pid: int | None = None) -> Report:
        answer = json.loads(self.ask(json.dumps(pid)))
        assert isinstance(answer, list), answer
        return report(answer)

    def take_away(self, **what: Any) -> None:
        """Takes something away from the tool: seccomp={call: errno}, landlock, descriptors=N."""
        assert json.loads(self.ask(json.dumps(what))) is None

    def close(self) -> None:
        super().close()
        self._errors.close()
