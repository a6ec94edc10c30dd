"""Records commands on a terminal as an SVG file that plays itself; needs only the standard library.

The commands run for real, each on a terminal of 80 columns, with the C program of the README as
their target. The file contains no script: each line appears by an animation of CSS, so that it
plays where a README shows it.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import shlex
import struct
import subprocess
import sys
import tempfile
import termios
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape

ROOT = Path(__file__).parent.parent
COLUMNS = 80
SCENES = (
    ("procvm doctor game", "May I?"),
    ("procvm watch game g_score -t i32 -n 4 -i 0.2", "Watch a variable, by its name."),
    ("procvm write game g_score 1000000 -t i32", "Change it. The program runs on."),
    ("procvm hexdump game g_player 32", "Look at the bytes."),
    ("procvm search game --text ada --perms rw", "Find them again."),
    ("procvm telescope game environ 2", "Follow pointers."),
    ("procvm maps game --in game", "How much is in use?"),
    ("procvm snapshot game -o game.core", "Keep it for gdb."),
)
"""Each command, and the comment above it."""

_SECONDS_PER_KEY, _SECONDS_AFTER, _SECONDS_AT_END = 0.035, 1.3, 4.0
_LINE, _CHAR, _MARGIN = 18, 8.4, 16
_COLORS = {
    31: "#ff6b6b",
    32: "#69db7c",
    33: "#ffd43b",
    34: "#74c0fc",
    35: "#da77f2",
    36: "#66d9e8",
}


class Style(NamedTuple):
    """How a character is drawn."""

    color: int = 0
    bold: bool = False
    dim: bool = False
    reverse: bool = False


class Line(NamedTuple):
    """A line of the recording: its parts, and when it appears, in seconds."""

    parts: list[tuple[str, Style]]
    at: float


def source_of_readme() -> str:
    """Returns the C program of the README."""
    found = re.search(
        r'^```c title="game.c"\n(.*?)^```', (ROOT / "README.md").read_text(), re.M | re.S
    )
    if found is None:
        raise SystemExit("README.md has no block of C called game.c")
    return found[1]


def shown_by(command: list[str], folder: str) -> str:
    """Runs a command on a terminal, and returns all that it wrote to it."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(folder)
        # The package of this checkout, also from another folder.
        os.environ.update(PYTHONPATH=str(ROOT), TERM="xterm-256color", COLUMNS=str(COLUMNS))
        os.execv(sys.executable, [sys.executable, "-m", *command])
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, COLUMNS, 0, 0))
    parts: list[bytes] = []
    while True:
        try:
            part = os.read(terminal, 65536)
        except OSError:
            break  # the command has ended, and the terminal is closed
        if not part:
            break
        parts.append(part)
    os.close(terminal)
    _, status = os.waitpid(pid, 0)
    text = b"".join(parts).decode()
    if os.waitstatus_to_exitcode(status):
        raise SystemExit(f"{shlex.join(command)} failed:\n{text}")
    return text


_TOKEN = re.compile(r"\x1b\[([?0-9;]*)([A-Za-z])|(\r\n|\r|\n)|([^\x1b\r\n]+)")


def lines_of(text: str) -> list[list[tuple[str, Style]]]:
    """Returns the lines that a terminal shows after it got the text."""
    rows: list[list[tuple[str, Style]]] = [[]]
    row = column = 0
    style = Style()
    for numbers, final, newline, plain in _TOKEN.findall(text):
        if plain:
            for char in plain:
                line = rows[row]
                line.extend([(" ", Style())] * (column + 1 - len(line)))
                line[column] = char, style
                column += 1
        elif newline:
            column = 0
            row += "\n" in newline
            rows.extend([] for _ in range(row + 1 - len(rows)))
        elif final == "m":
            for number in map(int, (numbers or "0").split(";")):
                style = _styled(style, number)
        elif final == "K":
            del rows[row][0 if numbers == "2" else column :]
        elif final == "A":
            row = max(row - int(numbers or 1), 0)
        elif final not in "hl":  # the cursor is shown or hidden
            raise SystemExit(f"an escape sequence that this script does not know: {numbers}{final}")
    while rows and not rows[-1]:
        rows.pop()
    return [_runs(line) for line in rows]


def _styled(style: Style, number: int) -> Style:
    if number == 0:
        return Style()
    changed = {1: {"bold": True}, 2: {"dim": True}, 7: {"reverse": True}}.get(number)
    if changed is not None:
        return style._replace(**changed)
    return style._replace(color=number if number in _COLORS else 0)


def _runs(line: list[tuple[str, Style]]) -> list[tuple[str, Style]]:
    runs: list[tuple[str, Style]] = []
    for char, style in line:
        if runs and runs[-1][1] == style:
            runs[-1] = runs[-1][0] + char, style
        else:
            runs.append((char, style))
    return runs


def recorded() -> list[Line]:
    """Runs the scenes, and returns the lines of the recording."""
    lines: list[Line] = []
    now = 0.5
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "game.c").write_text(source_of_readme())
        subprocess.run(["cc", "game.c", "-o", "game"], cwd=folder, check=True)
        with subprocess.Popen(["./game"], cwd=folder) as game:
            try:
                for command, comment in SCENES:
                    lines.append(Line([(f"# {comment}", Style(dim=True))], now))
                    typed = [("$ ", Style(32, bold=True)), (command, Style(bold=True))]
                    now += 0.4
                    lines.append(Line(typed, now))
                    now += _SECONDS_PER_KEY * len(command)
                    for parts in lines_of(shown_by(shlex.split(command), folder)):
                        now += 0.05
                        lines.append(Line(parts, now))
                    now += _SECONDS_AFTER
                    lines.append(Line([], now))
            finally:
                game.kill()
    return lines[:-1]


def svg_of(lines: list[Line]) -> str:
    """Returns the recording as an SVG file; without animations it shows all lines."""
    total = lines[-1].at + _SECONDS_AT_END
    width = round(COLUMNS * _CHAR + 2 * _MARGIN)
    height = len(lines) * _LINE + 2 * _MARGIN + 24
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" xml:space="preserve" '
        'role="img" aria-label="procvm on a terminal">',
        "<style>",
        "text { font: 14px ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace; "
        "fill: #e9ecef; white-space: pre; }",
        "@media (prefers-reduced-motion: no-preference) {",
        f".l {{ animation: {total:.1f}s infinite step-end; }}",
    ]
    for k, line in enumerate(lines):
        percent = 100 * line.at / total
        out.append(
            f"@keyframes k{k} {{ 0% {{ opacity: 0 }} {percent:.2f}% {{ opacity: 1 }} }} "
            f".k{k} {{ animation-name: k{k} }}"
        )
    out += ["}", "</style>", f'<rect width="{width}" height="{height}" rx="8" fill="#1a1b26"/>']
    out += [
        f'<circle cx="{_MARGIN + 20 * k}" cy="18" r="6" fill="{color}"/>'
        for k, color in enumerate(("#ff5f57", "#febc2e", "#28c840"))
    ]
    for k, line in enumerate(lines):
        y = _MARGIN + 24 + _LINE * (k + 1) - 4
        spans = _spans(line.parts, y)
        out.append(f'<g class="l k{k}">{spans}</g>')
    return "\n".join([*out, "</svg>", ""])


def _spans(parts: list[tuple[str, Style]], y: int) -> str:
    spans: list[str] = []
    column = 0
    for text, style in parts:
        x = _MARGIN + column * _CHAR
        length = len(text) * _CHAR
        fill = _COLORS.get(style.color, "#e9ecef")
        if style.reverse:
            spans.append(
                f'<rect x="{x:.1f}" y="{y - 14}" width="{length:.1f}" height="{_LINE}" '
                f'fill="{fill}"/>'
            )
            fill = "#1a1b26"
        look = f' fill="{fill}" style="fill: {fill}"'
        look += ' font-weight="bold"' if style.bold else ""
        look += ' opacity="0.6"' if style.dim else ""
        # With its length given, columns stay aligned in every font.
        if text.strip():
            spans.append(
                f'<text x="{x:.1f}" y="{y}" textLength="{length:.1f}"{look}>{escape(text)}</text>'
            )
        column += len(text)
    return "".join(spans)


def main() -> None:
    """Writes the recording to the file that the command line names."""
    Path(sys.argv[1]).write_text(svg_of(recorded()))


if __name__ == "__main__":
    main()
