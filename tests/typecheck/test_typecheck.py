"""The types, as mypy --strict and pyright in strict mode enforce them.

Each program under ``accepted/`` is clean in both; each under ``rejected/`` has
its errors on the one line marked ``# rejected``, in both. The first line of a
program keeps mypy's ordinary run over the tests out of it: here each is checked
as a copy, in which that line asks pyright to be strict.
"""

from __future__ import annotations

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
NOT_HERE = "# mypy: ignore-errors"
MARK = "# rejected"


def programs(kind: str) -> list[str]:
    return sorted(path.stem for path in (HERE / kind).glob("*.py") if path.stem != "__init__")


ACCEPTED, REJECTED = programs("accepted"), programs("rejected")

Errors = dict[str, list[tuple[int, str]]]
"""File name relative to the copies -> (line, what the checker says of it)."""


class Verdicts(NamedTuple):
    """What the two checkers say, of all programs at once."""

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
    found: Errors = {}
    cache = REPOSITORY / ".mypy_cache" / "typecheck"
    flags = ("--strict", "--config-file=", "--no-error-summary", f"--cache-dir={cache}")
    for line in _run("mypy", *flags, "accepted", "rejected", cwd=folder).splitlines():
        match = re.fullmatch(r"(.+?\.py):(\d+): error: (.*)", line)
        if match:
            found.setdefault(match[1], []).append((int(match[2]), match[3]))
    return found


def _pyright(folder: Path) -> Errors:
    found: Errors = {}
    config = {"include": ["."], "pythonVersion": "3.11", "extraPaths": [str(REPOSITORY)]}
    (folder / "pyrightconfig.json").write_text(json.dumps(config))
    flags = ("--outputjson", "--pythonpath", sys.executable)
    answer = json.loads(_run("pyright", *flags, cwd=folder))
    assert answer["summary"]["filesAnalyzed"] >= len(ACCEPTED) + len(REJECTED)
    for entry in answer["generalDiagnostics"]:
        name = str(Path(entry["file"]).relative_to(folder.resolve()))
        line = entry["range"]["start"]["line"] + 1
        found.setdefault(name, []).append((line, entry["message"]))
    return found


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> Verdicts:
    """Each checker's errors over a copy of all programs, found by one run of each."""
    folder = tmp_path_factory.mktemp("typecheck")
    for kind in ("accepted", "rejected"):
        (folder / kind).mkdir()
        for path in (HERE / kind).glob("*.py"):
            text = path.read_text().replace(NOT_HERE, "# pyright: strict", 1)
            (folder / kind / path.name).write_text(text)
    return Verdicts(_mypy(folder), _pyright(folder))


@pytest.mark.parametrize("name", ACCEPTED)
def test_a_good_program_is_clean(verdicts: Verdicts, name: str) -> None:
    """Neither checker has anything to say of it."""
    file = f"accepted/{name}.py"
    assert verdicts.mypy.get(file, []) == []
    assert verdicts.pyright.get(file, []) == []


@pytest.mark.parametrize("name", REJECTED)
@pytest.mark.parametrize("checker", Verdicts._fields)
def test_a_misuse_is_an_error_on_its_line(verdicts: Verdicts, checker: str, name: str) -> None:
    """The checker finds an error on the marked line and on no other."""
    file = f"rejected/{name}.py"
    lines = (HERE / file).read_text().splitlines()
    marked = [number for number, line in enumerate(lines, 1) if line.endswith(MARK)]
    found: Errors = getattr(verdicts, checker)
    assert sorted({line for line, _ in found.get(file, [])}) == marked


@pytest.mark.parametrize("kind", ["accepted", "rejected"])
def test_a_program_is_written_to_be_checked(kind: str) -> None:
    """Each begins with the line that keeps it out of other runs; a rejected one has one mark."""
    for name in programs(kind):
        text = (HERE / kind / f"{name}.py").read_text()
        assert text.startswith(NOT_HERE + '\n"""'), name
        assert text.count(MARK) == (1 if kind == "rejected" else 0), name
        assert "type: ignore" not in text, name
        assert "Any]" not in text or kind == "accepted", name


def test_there_are_enough_programs() -> None:
    """No checker was run over an empty folder."""
    assert len(ACCEPTED) >= 15
    assert len(REJECTED) >= 20
