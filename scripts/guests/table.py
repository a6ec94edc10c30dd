"""Writes docs/reach.md from the records of the guests; nothing in it is written by hand."""

from __future__ import annotations

import json
import re
import textwrap
from pathlib import Path
from typing import Any

from scripts.guests.image import ROOT

__all__ = ["PAGE", "RESULTS", "page", "read_results", "write_page"]

RESULTS = ROOT / "scripts/guests/results"
PAGE = ROOT / "docs/reach.md"

_HEAD = """# Reach

`scripts/kernels` boots kernels of Debian under an emulator, tries each capability as root and as an
ordinary user (uid 1000) under each value of `kernel.yama.ptrace_scope`, and writes this page. It
has only what was measured: a combination that is not listed was not run.
[Permissions](howto/permissions.md) says what to do about a refusal.
"""


def read_results() -> list[dict[str, Any]]:
    """Returns what was measured: one document for each guest, by name."""
    return [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]


def _who(record: dict[str, Any], *, yama: bool) -> str:
    return f"{record['user']}, scope {record['scope']}" if yama else record["user"]


def _cell(result: dict[str, Any]) -> str:
    return "yes" if result["result"] == "ok" else f"**{result['result'].removesuffix('Error')}**"


def _one(guest: dict[str, Any]) -> list[str]:
    """Returns the lines about one guest."""
    about = guest["guest"]
    yama = about["yama"]
    probes = [one for one in guest["records"] if one["kind"] == "probe"]
    lines = [
        f"## {guest['name']}",
        "",
        f"Linux {about['kernel']}, {about['machine']}, Python {about['python']}; measured on "
        f"{guest['date']} with procvm at {guest['version']}.",
        "",
        "| capability | " + " | ".join(_who(one, yama=yama) for one in probes) + " |",
        "| --- |" + " --- |" * len(probes),
    ]
    tables = [
        {one["capability"]: one for one in probe["results"] if "capability" in one}
        for probe in probes
    ]
    names = list(dict.fromkeys(name for table in tables for name in table))
    for name in names:
        cells = [_cell(table[name]) if name in table else "not run" for table in tables]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines.append("")
    tests = [one for one in guest["records"] if one["kind"] == "tests"]
    if tests:
        lines += ["| tests | passed | failed | skipped |", "| --- | --- | --- | --- |"]
        for one in tests:
            counts = one["counts"]
            bad = counts.get("failed", 0) + counts.get("error", 0)
            numbers = (counts.get("passed", 0), bad, counts.get("skipped", 0))
            cells = " | ".join(map(str, numbers))
            lines.append(f"| {_who(one, yama=yama)} | {cells} |")
        lines.append("")
    return lines


def _messages(guests: list[dict[str, Any]]) -> list[str]:
    """Returns the lines with each refusal as procvm told it, once."""
    told: dict[tuple[str, str], None] = {}
    for guest in guests:
        for record in guest["records"]:
            for one in record.get("results", ()):
                if one.get("text"):
                    told[(one["result"], _without_numbers(one["text"]))] = None
    if not told:
        return []
    lines = ["## The refusals, as they were told", ""]
    for name, text in sorted(told):
        # Neither a path nor an option is broken.
        lines += textwrap.wrap(
            f"* `{name}`: {text}",
            width=110,
            subsequent_indent="  ",
            break_long_words=False,
            break_on_hyphens=False,
        )
    return [*lines, ""]


def _without_numbers(text: str) -> str:
    text = re.sub(r"0x[0-9a-f]{6,}", "ADDRESS", text)
    text = re.sub(r"map_files/\S+", "map_files/RANGE'", text)
    text = re.sub(r"\b(process|pid) \d+", r"\1 PID", text)
    return text.replace("|", "\\|")


def page(guests: list[dict[str, Any]]) -> str:
    """Returns the text of docs/reach.md."""
    lines = [_HEAD]
    for guest in guests:
        lines += _one(guest)
    return "\n".join([*lines, *_messages(guests)]).rstrip() + "\n"


def write_page() -> Path:
    """Writes docs/reach.md, and returns its path."""
    PAGE.write_text(page(read_results()))
    return PAGE
