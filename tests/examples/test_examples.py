"""Every example is run as its reader would, on a real process, and what it prints is checked."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.process.test_accesses import pytestmark as perf_events
from tests.support.child import Child

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs/examples"
SCRIPTS = [
    "checkpoint",
    "heap_strings",
    "pointer_chain",
    "python_version",
    "trainer",
    "unlock",
    "walk_list",
    "watch_rate",
    "writers",
]
GROUPS = ["save_group", "search_group", "triage_cores"]
"""Those for many processes or files: `test_groups` runs them."""


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the C programs that the examples are for, compiled."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    assert compiler is not None, "no C compiler: install one (the package gcc)"
    folder = tmp_path_factory.mktemp("examples")
    for source in (EXAMPLES / "targets").glob("*.c"):
        subprocess.run(
            [compiler, "-O1", "-Wall", "-Werror", "-pthread", "-o", folder / source.stem, source],
            check=True,
        )
    return folder


class Game(Child):
    """The game, running; `player` and `score` are where it says they are."""

    def __init__(self, programs: Path) -> None:
        super().__init__([str(programs / "game")])
        self.player, self.score = (int(word, 16) for word in self.line().split())

    def shows(self, command: str = "look") -> list[str]:
        """Returns its gold, health and score after a command."""
        return self.ask(command).split()


@pytest.fixture
def game(programs: Path) -> Iterator[Game]:
    """A game of its own for the test."""
    with Game(programs) as child:
        yield child


def command(script: str, *arguments: object) -> list[str]:
    """Returns the command line of an example."""
    return [sys.executable, str(EXAMPLES / f"{script}.py"), *map(str, arguments)]


def run(script: str, *arguments: object, given: str = "") -> list[str]:
    """Runs an example that must succeed; returns the lines it prints."""
    done = subprocess.run(
        command(script, *arguments),
        input=given,
        capture_output=True,
        text=True,
        check=False,
        cwd=EXAMPLES,
    )
    assert done.stderr == ""
    assert done.returncode == 0
    return done.stdout.splitlines()


def refused(script: str, *arguments: object, given: str = "") -> str:
    """Runs an example that must end with a message; returns that."""
    done = subprocess.run(
        command(script, *arguments), input=given, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    return done.stderr


# What holds for all


def test_the_examples_there_are() -> None:
    """Every script of the folder is run by a test here."""
    there = [path.stem for path in EXAMPLES.glob("*.py") if not path.stem.startswith("test_")]
    assert sorted(there) == sorted(SCRIPTS + GROUPS)


@pytest.mark.parametrize("script", SCRIPTS)
def test_what_an_example_says_of_itself(script: str) -> None:
    """Without arguments it prints its two lines, of which the second says how it is used."""
    text = refused(script)
    first, second = text.strip().split("\n\n")
    assert first.endswith(".")
    assert second.startswith(f"Usage: {script}.py PID")


@pytest.mark.parametrize("script", SCRIPTS + GROUPS)
def test_an_example_is_short_and_uses_public_names_only(script: str) -> None:
    """It has no more than 40 lines that are not empty, and imports nothing of procvm but procvm."""
    text = (EXAMPLES / f"{script}.py").read_text()
    assert len([line for line in text.splitlines() if line.strip()]) <= 40
    assert not re.search(r"procvm\.[a-z_]+\.|from procvm\.|import procvm\.|\._[a-z]", text)


ARGUMENTS = {
    "checkpoint": ("0x1000", "8"),
    "heap_strings": (),
    "pointer_chain": ("u64", "0x1000"),
    "python_version": (),
    "trainer": ("5",),
    "unlock": ("0x1000",),
    "walk_list": ("0x1000",),
    "watch_rate": ("0x1000",),
    "writers": ("0x1000",),
}


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_process_that_is_not_there(script: str) -> None:
    """Of a process that does not exist it says that in a line."""
    text = refused(script, 2**22 + 9, *ARGUMENTS[script])
    assert text == f"no process has the pid {2**22 + 9}\n"


# Each


def test_the_version_of_a_running_python() -> None:
    """The number and the text that the interpreter itself tells."""
    code = "import sys; print(sys.hexversion, repr(sys.version), flush=True); input()"
    with Child([sys.executable, "-c", code]) as python:
        number, _, text = python.line().partition(" ")
        lines = run("python_version", python.pid)
    version = ".".join(map(str, sys.version_info[:3]))
    assert f"Py_Version is {int(number):#010x}: Python {version}" in lines[0]
    assert lines[1].endswith(f": {text}")


def test_a_linked_list(programs: Path) -> None:
    """Every item in the order of the list, and the escapes in a name escaped."""
    with Child([str(programs / "inventory")]) as child:
        assert child.line() == "ready"
        lines = run("walk_list", child.pid, "g_items")
    assert [line.split(maxsplit=1)[1] for line in lines[1:-1]] == [
        "  700     1.00  b'\\x1b[31mred ink'".strip(),
        "12     7.50  b'rope, 30 m'",
        "3     0.25  b'candle'",
    ]
    assert lines[-1] == "3 items"


def test_a_value_is_found_and_set(game: Game) -> None:
    """The gold is found as it is spent, and the game has what was set."""
    with Child(command("trainer", game.pid, 999999)) as trainer:
        assert trainer.line() == "what does the game show?"
        answer = trainer.ask(game.shows()[0])
        spent = 0
        while "places" in answer:
            spent += 7
            answer = trainer.ask(game.shows("spend 7")[0])
        assert answer.endswith(f": {1337 - spent} -> 999999")
        assert trainer.popen.wait() == 0
    assert game.shows() == ["999999", "17", "12.5"]


def test_a_value_that_is_not_there(game: Game) -> None:
    """A value that no place has is told."""
    assert "no place is left" in refused("trainer", game.pid, 1, given=f"{0x7F3B91D5}\n")


def test_a_rate_is_drawn(game: Game) -> None:
    """The values grow, and each rate has its bar."""
    lines = run("watch_rate", game.pid, "g_ticks", 5, 0.05)
    assert "g_ticks of process" in lines[0]
    rows = [line.split() for line in lines[1:] if line.strip()]
    values = [int(row[0]) for row in rows]
    assert len(rows) == 5
    assert values == sorted({*values})
    for _, rate, *bar in rows:
        assert 0 < int(rate) < 2100  # it sleeps 500 us after each
        assert "█" in "".join(bar)


@perf_events
def test_the_writers_of_the_gold_are_told(game: Game) -> None:
    """The gold is written where it is spent, and by nothing else."""
    with Child(command("writers", game.pid, "*gold", 3)) as writers:
        assert writers.line().startswith("who writes to [heap]+")
        for _ in range(3):
            game.shows("spend 7")
        assert re.fullmatch(r" +3 right before game!main\+0x\w+.*", writers.line())
        assert writers.line() == "0 came too fast"
        assert writers.popen.wait() == 0
    assert game.shows()[0] == str(1337 - 21)


def test_the_strings_of_the_heap(game: Game) -> None:
    """The texts that the game has on its heap, each at its address, and no shorter ones."""
    lines = run("heap_strings", game.pid, 10)
    assert f"{game.player:#14x}  Ada Lovelace" in lines
    assert [line for line in lines if line.endswith("  the treasure is under the old oak")]
    assert lines[-1] == f"{len(lines) - 1} strings of 10 or more"
    assert min(len(line[16:]) for line in lines[:-1]) >= 10


def test_a_chain_is_the_same_in_every_run(programs: Path) -> None:
    """The chain leads to the score in two runs that are loaded at other addresses."""
    seen = []
    for _ in range(2):
        with Game(programs) as game:
            lines = run("pointer_chain", game.pid, "f64", "g_world", 8, 24)
            assert lines[-2].endswith(f"; + 24 is {game.score:#x}")
            assert "[heap]+" in lines[1]
            assert lines[-1] == "there is the f64 12.5"
            seen.append(game.score)
            health = run("pointer_chain", game.pid, "i32", "g_world", 8, "0x10")
            assert health[-1] == "there is the i32 17"
    if Path("/proc/sys/kernel/randomize_va_space").read_text().strip() == "2":
        assert seen[0] != seen[1]


def test_a_chain_that_ends(game: Game) -> None:
    """The message about a null pointer has its address."""
    assert "at 0x0: the address is not mapped" in refused(
        "pointer_chain", game.pid, "u64", "g_world", 16, 0
    )


def test_a_checkpoint_is_gone_back_to(game: Game) -> None:
    """Each Enter shows the bytes that changed and restores them."""
    with Child(command("checkpoint", game.pid, f"{game.player:#x}", 32)) as script:
        assert script.line().startswith("kept 32 bytes at [heap]+")
        for _ in range(2):
            assert game.shows("heal")[1] == "100"
            assert script.ask("") == f"  {game.player + 16:#x}: 64 -> 11"
            assert script.line() == "1 bytes restored"
            assert game.shows()[1] == "17"
        assert script.ask("") == "0 bytes restored"


def test_a_hung_program_goes_on(programs: Path) -> None:
    """The lock is freed only if its word is what was expected, and the program then ends."""
    with Child([str(programs / "hung")]) as hung:
        assert hung.line() == "waiting for the lock"
        assert "g_lock is 1, not 5: nothing was written" in refused(
            "unlock", hung.pid, "g_lock", 5, 0
        )
        lines = run("unlock", hung.pid, "g_lock")
        assert lines[0].startswith(f"thread {hung.pid} b'hung' is in state R")
        assert lines[-1].endswith("g_lock: 1 -> 0")
        assert hung.line() == "got the lock"
        assert hung.popen.wait() == 0


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_pid_that_is_no_number(script: str) -> None:
    """What is no pid is told in a line."""
    assert "'12x'" in refused(script, "12x", *ARGUMENTS[script])
