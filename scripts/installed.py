"""Tests of an installed procvm, which scripts/release runs away from the source tree."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import procvm
from procvm.testing import Playgrounds


def _run(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def test_package_comes_from_the_environment() -> None:
    """Without this the tests could pass with the source tree instead of the installation."""
    assert Path(procvm.__file__).is_relative_to(sys.prefix)
    assert version("procvm") == procvm.__version__


def test_command_reads_this_process() -> None:
    """The console script is there, and works."""
    assert _run("procvm", "--version").strip() == f"procvm {procvm.__version__}"
    assert "[heap]" in _run("procvm", "maps", str(os.getpid()))


def test_manual_page_is_found_by_man() -> None:
    """Pip puts the page where man looks for it, beside the folder of the command."""
    command = shutil.which("procvm")
    assert command is not None
    share = Path(command).parents[1] / "share" / "man"
    assert "procvm" in _run("man", "-M", str(share), "-P", "cat", "procvm")


def test_plugin_gives_its_fixtures(procvm_playground: Playgrounds) -> None:
    """The plugin is loaded by its entry point."""
    assert procvm_playground is not None


def test_types_are_seen_by_mypy(tmp_path: Path) -> None:
    """Without py.typed every name would be Any, and the wrong assignment would pass."""
    program = tmp_path / "program.py"
    program.write_text("import procvm\nvalue: str = procvm.open(1).pid\n")
    found = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", str(program)],
        check=False,
        capture_output=True,
        text=True,
    )
    assert 'expression has type "int", variable has type "str"' in found.stdout, found.stdout
