"""Finds text that breaks the project's rules of writing; `scripts/test` runs it.

Usage: check_words.py [FILE ...]

Without FILE it reads the docstrings, comments and string literals of `procvm/` and of the
examples, and the prose of every Markdown page. A module is at most 399 lines long. Each finding
is one line, `FILE:LINE: message`, and the exit code is 1 if there is one. Code in Markdown
(fenced blocks and `inline`) is not prose.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
LINE_LEN = 120
"""The longest line of prose in Markdown; ruff checks the lines of Python."""

MODULE_LEN = 399
"""The most lines of a module; a longer one is split by subject."""

OPENERS = "Of|What|Whoever|That|Not|Behind"

RULES = (
    (re.compile(r"\bcan\s+not\b", re.I), 'write "cannot"'),
    (
        re.compile(r"\b(?:somebody|nobody|anybody|everybody|whoever|someone|whomever)\b", re.I),
        "name the actor: the kernel, the target, the caller, the tracer, the thread",
    ),
    (
        re.compile(
            r"(?<!\bthere\s)(?<!\bThere\s)\b(?:is|are|was|were)\s+no\s+"
            r"(?!longer\b|more\b|less\b|fewer\b|other\b|later\b|such\b)",
        ),
        'write "is not a ...", or "there is no ..."',
    ),
    (re.compile(r"(?<!\bthere\s)(?<!\bThere\s)\b(?:is|are)\s+none\b"), 'write "is not one"'),
    (re.compile(r"\bone\s+behind\s+the\s+other\b", re.I), 'write "consecutive"'),
    (
        re.compile(
            r"\b(?:stands|stand|stood)\s+"
            r"(?:at|in|on|there|here|behind|beside|everywhere|where|before|after|nowhere)\b",
            re.I,
        ),
        'write "is" or "lies"',
    ),
    (re.compile(r"\b(?:tell|tells|check|checks|ask|asks)\s+if\b", re.I), 'write "whether"'),
)

SENTENCE_START = r"(?:\A|(?<=[.!?])\s+|\n\s*\n\s*|\n\s*[*-]\s+)"
# A question may open with "What"; `[^?]*?` up to the end of the sentence leaves questions out.
OPENING = re.compile(rf"{SENTENCE_START}({OPENERS})\s[^?]*?(?:[.!:](?=\s|\Z)|\Z)")
FIRST_LINE = re.compile(rf"\A\s*({OPENERS})\b")


class Finding(NamedTuple):
    """One place where a text breaks a rule; lines count from 1."""

    path: Path
    line: int
    message: str

    def __str__(self) -> str:
        try:
            shown = self.path.resolve().relative_to(ROOT)
        except ValueError:
            shown = self.path
        return f"{shown}:{self.line}: {self.message}"


class Text(NamedTuple):
    """A piece of prose, and the line of its file at which it begins."""

    line: int
    text: str
    is_docstring: bool = False


def strings_of(source: str) -> Iterator[Text]:
    """Yields the string literals of Python source; parts written side by side are one text."""
    tree = ast.parse(source)
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield Text(node.lineno, node.value, id(node) in docstrings)
        elif isinstance(node, ast.JoinedStr):
            parts = [part.value if isinstance(part, ast.Constant) else "0" for part in node.values]
            yield Text(node.lineno, "".join(map(str, parts)))
        else:
            waiting.extend(ast.iter_child_nodes(node))


def comments_of(source: str) -> Iterator[Text]:
    """Yields the comments of Python source; those on consecutive lines are one text."""
    begin, lines, last = 0, [""], -1
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT:
            continue
        text, row = token.string.lstrip("#").strip(), token.start[0]
        if row == last + 1:
            lines.append(text)
        else:
            yield Text(begin, "\n".join(lines))
            begin, lines = row, [text]
        last = row
    yield Text(begin, "\n".join(lines))


def blank(found: re.Match[str]) -> str:
    """Replaces code by a letter and its line ends, which keeps the numbers of later lines."""
    return "X" + "\n" * found[0].count("\n")


def without_code(text: str) -> str:
    """Returns prose without the code in it: fenced blocks, `inline`, and the targets of links."""
    text = re.sub(r"^ *(```|~~~).*?^ *\1 *$", blank, text, flags=re.M | re.S)
    text = re.sub(r"(`+)(?!`).+?(?<!`)\1(?!`)", blank, text, flags=re.S)
    return re.sub(r"\]\([^)\s]*\)", "]", text)


def broken_rules(path: Path, text: Text) -> Iterator[Finding]:
    """Yields what is wrong with one piece of prose."""
    prose = without_code(text.text)
    for rule, message in RULES:
        for found in rule.finditer(prose):
            line = text.line + prose.count("\n", 0, found.start())
            yield Finding(path, line, f"{' '.join(found[0].split())!r}: {message}")
    found = FIRST_LINE.match(prose) if text.is_docstring else None
    if found:
        yield Finding(path, text.line, f"the first line opens with {found[1]!r}: say what it does")
    for found in OPENING.finditer(prose) if " " in prose.strip() else ():
        if not (text.is_docstring and found.start() == 0):
            line = text.line + prose.count("\n", 0, found.start(1))
            yield Finding(path, line, f"a sentence opens with {found[1]!r}: name the subject first")


def check_markdown(path: Path, source: str) -> Iterator[Finding]:
    """Yields the findings of a page: headings and tables by the words, paragraphs by all rules."""
    prose = without_code(source)
    for number, line in enumerate(source.splitlines(), 1):
        if len(line) > LINE_LEN and not line.startswith("|") and "](" not in line:
            in_prose = prose.splitlines()[number - 1 : number]
            if in_prose and in_prose[0].strip(" X"):
                yield Finding(path, number, f"a line of {len(line)} characters: at most {LINE_LEN}")
    paragraphs = re.sub(r"^(?:#+ .*|\|.*)$", lambda found: f"X {found[0]}", prose, flags=re.M)
    yield from broken_rules(path, Text(1, paragraphs))


def check(path: Path) -> list[Finding]:
    """Returns the findings of one file, in order of their lines."""
    source = path.read_text()
    if path.suffix == ".md":
        return sorted(check_markdown(path, source))
    findings = sorted(
        finding
        for text in (*strings_of(source), *comments_of(source))
        for finding in broken_rules(path, text)
    )
    length = source.count("\n")
    if length > MODULE_LEN:
        message = f"a module of {length} lines: split it by subject, at most {MODULE_LEN}"
        findings.append(Finding(path, MODULE_LEN + 1, message))
    return findings


def all_files() -> list[Path]:
    """Returns the files of the project whose text is checked."""
    return sorted(
        {
            *(ROOT / "procvm").rglob("*.py"),
            *(ROOT / "docs").rglob("*.md"),
            *(ROOT / "docs").rglob("*.py"),
            *ROOT.glob("*.md"),
        }
    )


def main(names: list[str]) -> int:
    """Checks the files named, or all; returns the exit code."""
    files = [Path(name) for name in names] or all_files()
    findings = [finding for path in files for finding in check(path)]
    for finding in findings:
        print(finding)
    return int(bool(findings))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
