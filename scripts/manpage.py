"""Writes the man page of the command from its options, arguments and help texts.

One page for all commands, with their examples: what click-man makes has neither, and leaves out
commands that are imported when they are used.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from procvm import __version__
from procvm.cli.root import root


def page() -> str:
    """Returns the page, in the macros of man(7)."""
    context = click.Context(root, info_name="procvm")
    lines = [
        f'.TH PROCVM 1 "" "procvm {__version__}" "User Commands"',
        ".SH NAME",
        f"procvm \\- {_text(_summary())}",
        ".SH SYNOPSIS",
        ".B procvm",
        ".I COMMAND",
        "[\\fIOPTIONS\\fR] [\\fIARGUMENTS\\fR]",
        ".SH DESCRIPTION",
        *_paragraphs(root.help),
        *_paragraphs(root.epilog),
        ".SH OPTIONS",
        *_options(context, root),
        ".SH COMMANDS",
    ]
    for name in root.list_commands(context):
        command = root.get_command(context, name)
        if command is None:
            raise LookupError(f"there is no command {name}")
        lines += [f".SS {_text(_usage(context, name, command))}", *_paragraphs(command.help)]
        lines += [*_options(context, command), *_paragraphs(command.epilog)]
    lines += [
        ".SH ENVIRONMENT",
        ".TP",
        ".B NO_COLOR",
        "If it is set, no colours are used.",
        ".TP",
        ".B FORCE_COLOR",
        "If it is set, colours are used also where the output is not a terminal.",
        ".TP",
        ".B PROCVM_TRACEBACK",
        "If it is set, an unexpected error is shown with where it came from.",
        ".SH SEE ALSO",
        ".BR proc_pid_maps (5),",
        ".BR proc_pid_mem (5),",
        ".BR process_vm_readv (2),",
        ".BR ptrace (2)",
    ]
    return "\n".join(lines) + "\n"


def _summary() -> str:
    line = (root.help or "").strip().partition("\n")[0].rstrip(".")
    return line[:1].lower() + line[1:]


def _text(text: str) -> str:
    """Returns text that troff takes as it is."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{text}" if text.startswith((".", "'")) else text


def _paragraphs(text: str | None) -> list[str]:
    """Returns paragraphs; those that click leaves alone keep their lines."""
    lines: list[str] = []
    for part in (text or "").strip().split("\n\n"):
        rows = part.strip("\n").split("\n")
        if rows[0].strip() == "\b":
            lines += [".PP", ".nf", *(_text(row) for row in rows[1:]), ".fi"]
        elif part.strip():
            lines += [".PP", *(_text(row.strip()) for row in rows)]
    return lines


def _usage(context: click.Context, name: str, command: click.Command) -> str:
    pieces = command.collect_usage_pieces(click.Context(command, context, info_name=name))
    return " ".join(["procvm", name, *pieces])


def _options(context: click.Context, command: click.Command) -> list[str]:
    lines: list[str] = []
    for one in command.get_params(click.Context(command, context)):
        if not isinstance(one, click.Option) or one.hidden or "--help" in one.opts:
            continue
        names = ", ".join(f"\\fB{_text(name)}\\fR" for name in one.opts)
        if not one.is_flag:
            names += f" \\fI{_text(one.make_metavar(context))}\\fR"
        lines += [".TP", names, _text(one.help or "")]
    return lines


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.parent.mkdir(exist_ok=True)
    target.write_text(page())
