"""The types, as mypy --strict and pyright in strict mode enforce them.

Both checkers accept all of accepted.py. In rejected.py they find an error on each line marked
``# rejected``, and on no other line. The first line of the two keeps mypy's ordinary run over the
tests out of them: here a copy is checked, in which that line asks pyright to be strict.
"""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

HERE = Path(__file__).parent
REPOSITORY = HERE.parent.parent
FILES = ("accepted.py", "rejected.py")
NOT_HERE = "# mypy: ignore-errors"
MARK = "  # rejected"

Errors = dict[str, dict[int, str]]
"""File name -> the lines with an error -> what the checker says of the line."""


def _marked() -> dict[str, list[int]]:
    """Returns the marked lines of rejected.py by the function or class that holds them."""
    text = (HERE / "rejected.py").read_text()
    marked = [number for number, line in enumerate(text.splitlines(), 1) if line.endswith(MARK)]
    found: dict[str, list[int]] = {}
    for node in ast.parse(text).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            assert node.end_lineno is not None
            if lines := [line for line in marked if node.lineno <= line <= node.end_lineno]:
                found[node.name] = lines
    return found


MARKED = _marked()


class Verdicts(NamedTuple):
    """What the two checkers say of both files."""

    mypy: Errors
    pyright: Errors


def _run(*argv: str, cwd: Path) -> str:
    environment = os.environ | {"MYPYPATH": str(REPOSITORY), "NO_COLOR": "1"}
    environment.pop("MYPY_CACHE_DIR", None)
    done = subprocess.run(
        [sys.executable, "-m", *argv],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    # 1 is "found errors"; anything else is a checker that did not check.
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return done.stdout


def _mypy(folder: Path) -> Errors:
    found: Errors = {name: {} for name in FILES}
    cache = REPOSITORY / ".mypy_cache" / "typecheck"
    flags = ("--strict", "--config-file=", "--no-error-summary", f"--cache-dir={cache}")
    for line in _run("mypy", *flags, *FILES, cwd=folder).splitlines():
        match = re.fullmatch(r"(.+?\.py):(\d+): error: (.*)", line)
        if match:
            found[match[1]][int(match[2])] = match[3]
    return found


def _pyright(folder: Path) -> Errors:
    found: Errors = {name: {} for name in FILES}
    config = {"include": ["."], "pythonVersion": "3.11", "extraPaths": [str(REPOSITORY)]}
    (folder / "pyrightconfig.json").write_text(json.dumps(config))
    flags = ("--outputjson", "--pythonpath", sys.executable)
    answer = json.loads(_run("pyright", *flags, cwd=folder))
    assert answer["summary"]["filesAnalyzed"] == len(FILES)
    for entry in answer["generalDiagnostics"]:
        found[Path(entry["file"]).name][entry["range"]["start"]["line"] + 1] = entry["message"]
    return found


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> Verdicts:
    """The errors that one run of each checker finds in a copy of both files."""
    folder = tmp_path_factory.mktemp("typecheck")
    for name in FILES:
        text = (HERE / name).read_text()
        (folder / name).write_text(text.replace(NOT_HERE, "# pyright: strict", 1))
    return Verdicts(_mypy(folder), _pyright(folder))


@pytest.mark.parametrize("checker", Verdicts._fields)
def test_accepted_programs_have_no_error(verdicts: Verdicts, checker: str) -> None:
    found: Errors = getattr(verdicts, checker)
    assert found["accepted.py"] == {}


@pytest.mark.parametrize("checker", Verdicts._fields)
@pytest.mark.parametrize("name", MARKED)
def test_rejected_program_has_an_error_on_each_marked_line(
    verdicts: Verdicts, checker: str, name: str
) -> None:
    found: Errors = getattr(verdicts, checker)
    assert [line for line in MARKED[name] if line not in found["rejected.py"]] == []


@pytest.mark.parametrize("checker", Verdicts._fields)
def test_rejected_programs_have_no_error_on_another_line(verdicts: Verdicts, checker: str) -> None:
    found: Errors = getattr(verdicts, checker)
    marked = {line for lines in MARKED.values() for line in lines}
    assert {at: said for at, said in found["rejected.py"].items() if at not in marked} == {}


def test_files_begin_with_the_line_that_is_replaced() -> None:
    """Without it the ordinary run of mypy fails, and pyright is not strict."""
    for name in FILES:
        text = (HERE / name).read_text()
        assert text.startswith(NOT_HERE + '\n"""'), name
        assert "type: ignore" not in text, name


def test_every_program_of_rejected_has_a_mark() -> None:
    """A function that takes an argument of a certain type is used by others, and has none."""
    assert len(MARKED) >= 61
    tree = ast.parse((HERE / "rejected.py").read_text())
    names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert {name for name in names - MARKED.keys() if not name.startswith("takes_")} == set()
