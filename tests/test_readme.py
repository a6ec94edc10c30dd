"""What the README shows runs as it stands there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import procvm

ROOT = Path(__file__).parent.parent
BLOCKS = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_a_block_runs_and_prints_what_its_comments_say(block: str, tmp_path: Path) -> None:
    """Every Python block of the README runs, and each `print(...)  # text` prints that text."""
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", block],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""
    lines = iter(run.stdout.splitlines())
    for said in re.findall(r"print\(.*\)  # (.*)", block):
        pattern = ".*".join(re.escape(part.strip()) for part in said.split("..."))
        # A comment with a colon explains a value that is not known beforehand.
        if ":" not in said:
            assert any(re.fullmatch(pattern, line) for line in lines), said


def test_the_first_block_is_no_longer_than_twelve_lines_of_code() -> None:
    """The example that a stranger meets first stays small."""
    lines = [line for line in BLOCKS[0].splitlines() if line.strip()]
    assert len(lines) <= 12


def test_the_tour_comes_to_its_end() -> None:
    """The tour prints all of its seven parts, and its counter is exact."""
    run = subprocess.run(
        [sys.executable, "-W", "error", "-m", "procvm.tour"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""
    assert re.findall(r"^(\d)\. ", run.stdout, re.M) == list("1234567")
    assert ": exact" in run.stdout
    assert "copied_len 24" in run.stdout
    # What reads a live process reads a snapshot and a core file of it, line by line.
    assert len(re.findall(r": +the same \d\d lines$", run.stdout, re.M)) == 2


def test_the_core_imports_nothing_but_the_standard_library() -> None:
    """`import procvm` loads no module of another distribution."""
    script = (
        "import sys, procvm; print(*{m.split('.')[0] for m in sys.modules}"
        " - set(sys.stdlib_module_names) - {'procvm', '__main__'})"
    )
    run = subprocess.run(
        [
            sys.executable,
            "-I",
            "-S",
            "-c",
            f"import sys; sys.path.insert(0, {str(ROOT)!r}); {script}",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == ""


def test_every_public_name_is_documented() -> None:
    """Each name of the package and each of its public methods has a docstring."""
    for name in [*procvm.__all__, "open"]:
        thing = getattr(procvm, name)
        assert thing.__doc__, name
        if isinstance(thing, type):
            for key, value in vars(thing).items():
                if not key.startswith("_") and callable(value):
                    assert value.__doc__, f"{name}.{key}"
