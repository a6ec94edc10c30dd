"""Colours, widths, Ctrl-C, pipes that close, disks that are full, completion."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from procvm._base.text import shown, size_text
from procvm.cli.output import Color, wants_color
from tests.cli.running import (
    COMMAND,
    Dials,
    OnTerminal,
    assert_safe,
    in_process,
    on_terminal,
    ran,
    wait_for,
)
from tests.support.playground import Playground

COLORS: list[tuple[Color, bool, dict[str, str], bool]] = [
    ("auto", True, {}, True),
    ("auto", False, {}, False),
    ("auto", True, {"NO_COLOR": "1"}, False),
    ("auto", True, {"NO_COLOR": ""}, True),
    ("auto", False, {"FORCE_COLOR": "1"}, True),
    ("auto", True, {"NO_COLOR": "1", "FORCE_COLOR": "1"}, False),
    ("auto", True, {"TERM": "dumb"}, False),
    ("always", False, {"NO_COLOR": "1"}, True),
    ("never", True, {"FORCE_COLOR": "1"}, False),
]


def test_colours_by_option_environment_and_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """The option says first, then NO_COLOR, then FORCE_COLOR, then the terminal."""
    for color, is_terminal, env, expected in COLORS:
        monkeypatch.setenv("TERM", "xterm")
        for name in ("NO_COLOR", "FORCE_COLOR"):
            monkeypatch.delenv(name, raising=False)
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        found = wants_color(color, is_terminal=is_terminal)
        assert (color, is_terminal, env, found) == (color, is_terminal, env, expected)


def test_sizes_are_short() -> None:
    """A size has at most five characters."""
    sizes = {
        0: "0",
        1023: "1023",
        4096: "4K",
        10240: "10K",
        1500: "1.5K",
        1023 << 10: "1M",
        65 << 30: "65G",
        3 << 49: "1.5P",
    }
    assert {n: size_text(n) for n in sizes} == sizes


def test_messages_are_one_safe_line() -> None:
    """What is not printable is escaped; what was escaped before is not again."""
    assert shown("a\x1b[31m\n\\x1b é\u202e") == "a\\x1b[31m\\x0a\\x1b é\\u202e"


@pytest.mark.parametrize("width", [80, 50])
def test_tables_fit_the_terminal(dials: Dials, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """No line of a list is wider than the terminal; --wide leaves names whole."""
    monkeypatch.setattr(
        "shutil.get_terminal_size",
        lambda fallback=(80, 24): os.terminal_size((width, 24)),  # noqa: ARG005 (a keyword)
    )
    plain = re.compile(r"\x1b\[[0-9;]*m")
    for args in (["ps"], ["maps", str(dials.pid)]):
        found = ran(*args, terminal=True)
        assert found.code == 0
        # What the kernel maps at the very end alone has longer addresses.
        lines = [plain.sub("", line) for line in found.lines if "vsyscall" not in line]
        assert max(map(len, lines)) <= max(width, 60)
    assert "/libc.so.6" in ran("maps", dials.pid, "--wide", terminal=True).out


def test_a_terminal_shows_colours_and_a_pipe_does_not(dials: Dials) -> None:
    """The same command: colours on a terminal, none with NO_COLOR's option, none in a pipe."""
    args = ("hexdump", dials.pid, "g_name", 16)
    code, seen = on_terminal(*args)
    assert code == 0
    assert b"\x1b[36m" in seen
    text = assert_safe(seen)
    code, seen = on_terminal(*args, "--color", "never")
    assert seen == text.replace("\n", "\r\n").encode()
    *heads, row = text.splitlines()
    assert "g_name" in heads[0]  # a pipe has rows alone
    assert ran(*args).lines == [row]
    assert "\x1b[36m" in ran(*args, "--color", "always").out


def test_what_a_terminal_can_not_show_is_escaped(dials: Dials) -> None:
    """An encoding without a character gets it escaped, not an exception."""
    ran("write", dials.pid, "g_name", "é→", "-t", "cstr")
    env = {**os.environ, "PYTHONIOENCODING": "ascii"}
    found = in_process("read", dials.pid, "g_name", "-t", "cstr", env=env)
    assert found == (0, "\\xe9\\u2192\n", "")


@pytest.mark.parametrize("args", [["watch", "g_counter"], ["freeze", "g_counter", "99"]])
def test_ctrl_c_ends_cleanly(dials: Dials, args: list[str]) -> None:
    """130, one line, no traceback, and the target unharmed."""
    command = [*COMMAND, args[0], str(dials.pid), *args[1:], "-t", "u32", "-i", "0.01"]
    dials.ask("lives 5")
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as popen:
        assert popen.stdout is not None
        if args[0] == "watch":
            popen.stdout.readline()
        else:
            wait_for(lambda: dials.ask("show")[0] == "99")
        popen.send_signal(signal.SIGINT)
        _, err = popen.communicate()
    assert (popen.returncode, err) == (130, "procvm: interrupted\n")
    assert dials.ask("show")[1] == "5"


def test_ctrl_c_at_a_prompt_keeps_a_scan(dials: Dials) -> None:
    """On a terminal, where the keys are read: it drops the line, as in gdb; Ctrl-D ends."""
    with OnTerminal("scan", dials.pid) as terminal:
        terminal.until(b"> ")
        stat = Path(f"/proc/{terminal.pid}/stat")
        wait_for(lambda: stat.read_text().rpartition(")")[2].split()[0] == "S")
        terminal.type("\x03")
        terminal.until(b"the list is unchanged; quit or Ctrl-D leaves\r\n> ")
        wait_for(lambda: stat.read_text().rpartition(")")[2].split()[0] == "S")
        terminal.type("\x04")
        assert terminal.end() == 1
        assert b"Traceback" not in terminal.seen


def test_watch_on_a_terminal_shows_changes_and_its_cursor_again(dials: Dials) -> None:
    """Each change is a line, with what it is more or less, and the cursor is back at the end."""
    with OnTerminal(
        "watch", dials.pid, "g_counter", "-t", "u32", "-i", "0.02", "--until", "9"
    ) as terminal:
        terminal.until(b"Ctrl-C ends")
        dials.ask("inc")
        terminal.until(b"+1")
        dials.ask("inc")
        assert terminal.end() == 0
    text = assert_safe(terminal.seen)
    assert re.search(r"\d\.\d{3}  8  \+1", text)
    assert terminal.seen.rindex(b"\x1b[?25h") > terminal.seen.rindex(b"\x1b[?25l")


def test_a_reader_that_goes_away_is_no_error(playground: Playground) -> None:
    """``| head -1`` gets its line, and nothing is said."""
    playground.window(4000 * 4096, 4096)
    pipe = subprocess.run(
        [
            "bash",
            "-c",
            '"$@" | head -1; echo "${PIPESTATUS[0]}"',
            "-",
            *COMMAND,
            "maps",
            str(playground.pid),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    lines = pipe.stdout.splitlines()
    assert len(lines) == 2
    assert lines[0].endswith("playground")
    assert (lines[1], pipe.stderr) == ("141", "")


@pytest.mark.parametrize("args", [["maps"], ["strings"], ["maps", "--json"]])
def test_a_full_disk_is_told(dials: Dials, args: list[str]) -> None:
    """5, and one line that says why."""
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*COMMAND, args[0], str(dials.pid), *args[1:]],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 5
    assert done.stderr == "procvm: cannot write the output: No space left on device\n"


def test_a_closed_stdout_is_told_before_anything_is_done(dials: Dials) -> None:
    """Nothing is written to the target where nothing could be said of it."""
    args = ["write", str(dials.pid), "g_lives", "1", "-t", "i32"]
    done = subprocess.run(
        ["bash", "-c", '"$@" >&-', "-", *COMMAND, *args],
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert done.returncode == 5
    assert done.stderr == "procvm: cannot write the output: stdout is closed\n"
    assert dials.ask("show")[1] == "1234567"


def test_long_work_shows_a_bar_on_a_terminal_alone(playground: Playground) -> None:
    """A bar with a rate, gone before the end; none where stderr is no terminal."""
    at = playground.window(48 << 20, 1 << 20)
    # Pages that nobody has touched would not be looked at.
    playground.poke(at, b"once upon a time " * (1 << 16))
    args = ("search", playground.pid, "--regex", r"([a-z])\1nothing")
    with OnTerminal(*args) as terminal:
        terminal.until(b"MiB")
        terminal.until(b"/s")
        assert terminal.end() == 1
    assert_safe(terminal.seen)
    # The last that is done with the bar is to take it away, and to show the cursor again.
    end = terminal.seen[terminal.seen.rindex(b"/s") :]
    assert b"\x1b[2K" in end
    assert b"\x1b[?25h" in end


@pytest.mark.parametrize(
    ("words", "cword", "expected"),
    [
        (["procvm", "te"], 1, {"plain,telescope"}),
        (["procvm", "read", "1", "0x10", "-t", "u"], 5, {"plain,u8", "plain,u64", "plain,usize"}),
    ],
)
def test_the_shell_completes(words: list[str], cword: int, expected: set[str]) -> None:
    """Commands and types, by click's own protocol for bash."""
    env = {
        **os.environ,
        "_PROCVM_COMPLETE": "bash_complete",
        "COMP_WORDS": " ".join(words),
        "COMP_CWORD": str(cword),
    }
    script = "import sys; sys.argv = ['procvm']; from procvm.cli import main; sys.exit(main())"
    found = subprocess.run(
        [*COMMAND[:1], "-c", script], env=env, capture_output=True, text=True, check=False
    )
    assert expected <= set(found.stdout.splitlines())
    assert found.stderr == ""


def test_the_shell_completes_pids_and_names() -> None:
    """A number by its digits, a name by its letters; no name that a shell would have to quote."""
    import click  # noqa: PLC0415 (only here)

    from procvm.cli.target import TargetParam  # noqa: PLC0415

    name = f"fill{os.getpid()}"
    with Dials(name=name) as child, Dials(name=name + " x") as quoted:
        context = click.Context(click.Command("x"))
        param = click.Argument(["target"])

        def completed(incomplete: str) -> set[str]:
            return {one.value for one in TargetParam().shell_complete(context, param, incomplete)}

        assert completed(name[:6]) >= {name}
        assert not any(" " in one for one in completed("fill"))
        assert str(child.pid) in completed(str(child.pid)[:1])
        assert str(quoted.pid) in completed("")
