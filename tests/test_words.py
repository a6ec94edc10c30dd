"""The checker of the project's words finds what the rules forbid, and nothing else."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parent.parent / "scripts" / "check_words.py"


@pytest.fixture(scope="module")
def checker() -> ModuleType:
    """The script, imported from its file: scripts/ is not a package."""
    spec = importlib.util.spec_from_file_location("check_words", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


BROKEN = {
    '"""Reads a page that can not be read."""\n': 1,
    '"""Reads.\n\nA page that can\nnot be read.\n"""\n': 3,
    "x = 1\n# A long comment that\n# nobody reads.\n": 3,
    'print("the address is " f"{1} no" " page; process 5 is no tracee")\n': 1,
    'print(f"{1} can" " not be read")\n': 1,
    '"""Of a file nothing is found."""\n': 1,
    'def f():\n    """Whatever.\n\n    It reads. That is all.\n    """\n': 4,
    '"""Copies values that stand one behind the other."""\n': 1,
    '"""Checks if it runs."""\n': 1,
}


@pytest.mark.parametrize("source", BROKEN, ids=range(len(BROKEN)))
def test_check_words_broken_rule_gives_its_line(
    checker: ModuleType, tmp_path: Path, source: str
) -> None:
    """Docstrings, comments and literals are read, also over the end of a line or a literal."""
    path = tmp_path / "module.py"
    path.write_text(source)
    findings = checker.check(path)
    assert [finding.line for finding in findings][:1] == [BROKEN[source]], findings


PLAIN = [
    '"""Returns whether it cannot be read; there is no page, and it is no longer mapped."""\n',
    "# Without this, a write fails with ESRCH. What happens then? `can not` is code.\nnobody = 1\n",
    'SOURCE = "u32 stands for four bytes"\n',
    '"""Whatever it reads.\n\n    print("x")  # That\n"""\n',
]


@pytest.mark.parametrize("source", PLAIN, ids=range(len(PLAIN)))
def test_check_words_plain_text_gives_nothing(
    checker: ModuleType, tmp_path: Path, source: str
) -> None:
    """Plain sentences, questions, names in code and inline code are left alone."""
    path = tmp_path / "module.py"
    path.write_text(source)
    assert checker.check(path) == []


def test_check_words_markdown_reads_prose_and_not_code(checker: ModuleType, tmp_path: Path) -> None:
    """Fenced blocks, inline code and link targets are not prose; long lines of prose are found."""
    path = tmp_path / "page.md"
    path.write_text(
        "# What it is\n\n```c\n/* nobody */\n```\n\n`can not` and [a link](whoever.md).\n\n"
        f"Of this nothing is said.\n\n{'word ' * 30}\n\n| {'cell ' * 30}|\n\n"
        f"[{'x' * 130}](y.md)\n"
    )
    assert [finding.line for finding in checker.check(path)] == [9, 11]


def test_check_words_run_as_a_program_prints_places_and_fails(tmp_path: Path) -> None:
    """The exit code is 1 with a finding, which is printed with its file and line."""
    path = tmp_path / "module.py"
    path.write_text('"""It can not."""\n')
    run = subprocess.run(
        [sys.executable, str(SCRIPT), str(path)], capture_output=True, text=True, check=False
    )
    assert run.returncode == 1
    assert run.stdout == f"{path}:1: 'can not': write \"cannot\"\n"


@pytest.mark.parametrize(("length", "lines"), [(399, []), (400, [400])])
def test_check_words_module_of_400_lines_is_a_finding(
    checker: ModuleType, tmp_path: Path, length: int, lines: list[int]
) -> None:
    """A module keeps to one subject if it has to stay short."""
    path = tmp_path / "module.py"
    path.write_text("x = 1\n" * length)
    assert [finding.line for finding in checker.check(path)] == lines
