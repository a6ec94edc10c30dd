"""The pytest plugin: starts processes for tests and ends them; see docs/testing.md.

Every run of pytest loads it where procvm is installed. So this module imports only pytest; each
fixture imports what it needs.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

if TYPE_CHECKING:
    from procvm.testing import Patches, Playgrounds, Spawner

_DUMP_LEN = "procvm_dump_len"
_NEEDS_PTRACE = "needs_ptrace"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds ``--procvm-strict`` and the setting ``procvm_dump_len``."""
    group = parser.getgroup("procvm", "tests that access the memory of processes")
    group.addoption(
        "--procvm-strict",
        action="store_true",
        help="fail tests that need ptrace, a C compiler or a newer kernel where it is missing, "
        "instead of skipping them",
    )
    parser.addini(
        _DUMP_LEN,
        "number of bytes to show around a page fault when a test fails; 0 for none",
        default="256",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Registers the mark ``needs_ptrace``."""
    config.addinivalue_line(
        "markers",
        f"{_NEEDS_PTRACE}: the test traces processes; it is skipped, with the reason, where that "
        "is not allowed (with --procvm-strict it fails)",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips a test marked ``needs_ptrace`` if ptrace is not allowed."""
    if item.get_closest_marker(_NEEDS_PTRACE) is not None:
        from procvm.testing.permission import why_no_ptrace  # noqa: PLC0415 (see above)

        reason = why_no_ptrace()
        if reason:
            _lacks(item.config, f"ptrace is not allowed here: {reason}")


def _lacks(config: pytest.Config, reason: str) -> NoReturn:
    if config.getoption("--procvm-strict"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Adds sections about the processes of the test to the report of a failure."""
    report = yield
    if report.failed and call.excinfo is not None:
        report.sections += _sections(item, call.excinfo.value)
    return report


def _sections(item: pytest.Item, error: BaseException) -> list[tuple[str, str]]:
    try:
        from procvm.testing.report import sections  # noqa: PLC0415 (see above)

        return sections(error, int(item.config.getini(_DUMP_LEN)))
    except Exception as failure:  # noqa: BLE001 (it must not hide the test's failure)
        return [
            ("procvm", f"(no report of processes: {type(failure).__name__}: {failure!a})"[:500])
        ]


@pytest.fixture
def procvm_spawn(request: pytest.FixtureRequest) -> Generator[Spawner]:
    """Starts processes and ends them after the test; see `procvm.testing.Spawner`."""
    from procvm.testing.spawner import Spawner  # noqa: PLC0415 (see above)

    config = request.config
    with Spawner(_cache(config), lacks=lambda reason: _lacks(config, reason)) as spawner:
        yield spawner


def _cache(config: pytest.Config) -> Path | None:
    """Returns the folder for programs in pytest's cache, or None without a cache."""
    cache: pytest.Cache | None = getattr(config, "cache", None)
    if cache is None:
        return None
    try:
        return cache.mkdir("procvm")
    except OSError:
        return None  # the project is not writable: the user's cache is used


@pytest.fixture
def procvm_playground(procvm_spawn: Spawner) -> Playgrounds:
    """Makes children with pages of chosen kinds; see `procvm.testing.Playgrounds`."""
    from procvm.testing.playground import Playgrounds  # noqa: PLC0415 (see above)

    return Playgrounds(procvm_spawn)


# Depends on procvm_spawn so that pytest undoes the patches before it ends the processes.
@pytest.fixture
def procvm_patch(procvm_spawn: Spawner) -> Generator[Patches]:  # noqa: ARG001
    """Patches memory and undoes it after the test; see `procvm.testing.Patches`."""
    from procvm.testing.patches import Patches  # noqa: PLC0415 (see above)

    with Patches() as patches:
        yield patches


@pytest.fixture
def assert_unchanged() -> Callable[..., Any]:
    """Returns `procvm.testing.assert_unchanged`, which can be imported as well."""
    from procvm.testing import checks  # noqa: PLC0415 (see above)

    return checks.assert_unchanged


@pytest.fixture
def assert_same() -> Callable[..., Any]:
    """Returns `procvm.testing.assert_same`, which can be imported as well."""
    from procvm.testing import same  # noqa: PLC0415 (see above)

    return same.assert_same


@pytest.fixture
def wait_until() -> Callable[..., Any]:
    """Returns `procvm.testing.wait_until`, which can be imported as well."""
    from procvm.testing import checks  # noqa: PLC0415 (see above)

    return checks.wait_until
