"""Every block of the README runs and prints what the README says."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

import procvm

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", README, re.M | re.S)
SOURCE = re.search(r'^```c title="(\S+)"\n(.*?)^```', README, re.M | re.S)
OUTPUT = re.search(r"^```text\n(.*?)^```", README, re.M | re.S)


def run(block: str, folder: Path) -> str:
    """Runs a block of Python in a folder; returns what it prints."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", block],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_readme_first_example_prints_the_output_that_is_shown(tmp_path: Path) -> None:
    """The C program of the README is built by the command shown, and its output is exact."""
    assert SOURCE is not None
    assert OUTPUT is not None
    (tmp_path / SOURCE[1]).write_text(SOURCE[2])
    command = re.search(r"^\$ (cc .*)$", README, re.M)
    assert command is not None
    subprocess.run(command[1].split(), cwd=tmp_path, check=True)
    assert run(BLOCKS[0], tmp_path) == OUTPUT[1]


@pytest.mark.parametrize("block", BLOCKS[1:], ids=range(1, len(BLOCKS)))
def test_a_block_runs_and_prints_what_its_comments_say(block: str, tmp_path: Path) -> None:
    """Every other Python block runs, and each `print(...)  # text` prints that text."""
    lines = iter(run(block, tmp_path).splitlines())
    for said in re.findall(r"print\(.*\)  # (.*)", block):
        pattern = ".*".join(re.escape(part.strip()) for part in said.split("..."))
        # A comment with a colon explains a value that is not known beforehand.
        if ":" not in said:
            assert any(re.fullmatch(pattern, line) for line in lines), said


def test_readme_links_lead_to_files() -> None:
    """Each link and picture of the README is a file of the repository."""
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", README)
    assert len(targets) > 10
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_readme_wheel_has_the_version_of_the_package() -> None:
    """The name of the wheel that the README installs is the one that a build gives."""
    assert f"procvm-{procvm.__version__}-py3-none-any.whl" in README


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


def test_the_tour_is_a_page_that_can_be_pasted(tmp_path: Path) -> None:
    """No line of the tour is wider than a page, it has no colours, and is not too long."""
    lines = run("from procvm.tour import main; main()", tmp_path).splitlines()
    assert max(map(len, lines)) <= 100
    assert len(lines) <= 60
    assert "".join(lines).isprintable()


def test_the_recording_shows_what_its_script_runs() -> None:
    """The SVG in the README is well formed, has no script, and every command of scripts/cast.py."""
    picture = (ROOT / "docs" / "pictures" / "cast.svg").read_text()
    root = ElementTree.fromstring(picture)  # noqa: S314 (a picture of ours)
    texts = {element.text for element in root.iter("{http://www.w3.org/2000/svg}text")}
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        cast = importlib.import_module("cast")
    finally:
        sys.path.pop(0)
    assert {command for command, _ in cast.SCENES} <= texts
    assert "<script" not in picture
    typed = "\x1b[1mone\x1b[0m two\r\n\x1b[2K\x1b[31mred\x1b[0m\x1b[1A\rOne"
    lines = cast.lines_of(typed)
    assert ["".join(text for text, _ in line) for line in lines] == ["One two", "red"]


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
