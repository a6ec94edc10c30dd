"""Shows how a run by several workers goes on: which test runs, and what failed, when it did."""

from __future__ import annotations

# pyright: reportPrivateUsage=false
# pytest gives no other way to the writer of its reporter.
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from _pytest.terminal import TerminalReporter

_OFTEN = 0.2
_LONG = 30.0
"""Seconds after which a test that still runs is told of, where no line can be written over."""


class Progress:
    """Writes a line for each file that is done, the failures at once, and what runs now.

    The dots of pytest tell none of it where tests run in other processes: its failures come at the
    end, which a run that hangs never reaches.
    """

    def __init__(self, reporter: TerminalReporter) -> None:
        self._reporter = reporter
        self._is_terminal = reporter.isatty
        reporter._show_progress_info = False  # it goes with the dots
        self._lock = threading.Lock()
        self._running: dict[str, float] = {}
        self._told: set[str] = set()
        self._left: Counter[str] = Counter()
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._outcomes: dict[str, Counter[str]] = {}
        self._done = self._all = 0
        self._shown = False
        self._end = threading.Event()
        self._watch = threading.Thread(target=self._watch_over, daemon=True)

    def pytest_sessionstart(self) -> None:
        """Begins to show."""
        self._watch.start()

    def pytest_sessionfinish(self) -> None:
        """Shows no more."""
        self._end.set()
        self._watch.join()
        with self._lock:
            self._wipe()

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: list[str]) -> None:
        """Learns what there is to run; every worker tells the same."""
        if not self._all:
            self._all = len(ids)
            self._left.update(map(_file, ids))

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, str]:
        """Takes the letters away, and leaves the counts and the words of the summary."""
        outcome = _outcome(report)
        return outcome, "", "" if outcome == "passed" else outcome.upper()

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Notes that a test begins."""
        with self._lock:
            self._running[nodeid] = time.monotonic()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Tells a failure at once."""
        file = _file(report.nodeid)
        self._seconds[file] += report.duration
        if outcome := _outcome(report):
            self._outcomes.setdefault(file, Counter())[outcome] += 1
        if report.failed:
            with self._lock:
                self._wipe()
                self._reporter.write_sep("_", f"FAILED {report.nodeid} ({report.when})", red=True)
                report.toterminal(self._reporter._tw)
        if report.when not in ("setup", "call", "teardown"):
            self.pytest_runtest_logfinish(
                report.nodeid
            )  # the worker has crashed, and tells nothing

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """Tells a file, once its last test has ended."""
        file = _file(nodeid)
        with self._lock:
            self._running.pop(nodeid, None)
            self._done += 1
            self._left[file] -= 1
            if self._left[file] == 0:
                counts = ", ".join(f"{n} {what}" for what, n in self._outcomes[file].items())
                self._wipe()
                self._reporter.write_line(
                    f"{self._share()}  {file}: {counts} in {self._seconds[file]:.1f} s"
                )

    def _share(self) -> str:
        return f"[{100 * self._done // max(self._all, 1):3}%]"

    def _wipe(self) -> None:
        """Takes the last line away, if it is one that is written over. The lock is held."""
        if self._shown:
            self._reporter.rewrite("", erase=True)
            self._reporter._tw.write("\r")
            self._shown = False

    def _watch_over(self) -> None:
        show: Callable[[float], None] = self._show if self._is_terminal else self._tell_long_ones
        while not self._end.wait(_OFTEN):
            with self._lock:
                show(time.monotonic())
                self._reporter.flush()  # a file has it too when the run hangs

    def _show(self, now: float) -> None:
        running = [f"{nodeid} {now - begun:.0f} s" for nodeid, begun in self._running.items()]
        line = f"{self._share()} {self._done}/{self._all}  {'  |  '.join(running)}"
        width = self._reporter._tw.fullwidth
        self._reporter.rewrite(line[: width - 1], erase=True)
        self._shown = True

    def _tell_long_ones(self, now: float) -> None:
        for nodeid, begun in self._running.items():
            if now - begun > _LONG and nodeid not in self._told:
                self._told.add(nodeid)
                self._reporter.write_line(
                    f"{self._share()}  still runs after {_LONG:.0f} s: {nodeid}"
                )


def _outcome(report: pytest.TestReport) -> str:
    """Returns what the summary counts a report as; empty if as nothing."""
    if hasattr(report, "wasxfail"):
        return "xfailed" if report.skipped else "xpassed"
    if report.failed:
        return "failed" if report.when == "call" else "error"
    return "skipped" if report.skipped else "passed" * (report.when == "call")


def _file(nodeid: str) -> str:
    return nodeid.partition("::")[0]


def show(config: pytest.Config) -> None:
    """Shows the progress of a run whose tests run in workers, in the process that starts these."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    is_worker = hasattr(config, "workerinput")
    if reporter is None or is_worker or not config.getoption("numprocesses", None):
        return  # pytest itself tells the file that it is at
    config.pluginmanager.register(Progress(reporter), "procvm-progress")
