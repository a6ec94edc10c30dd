"""The command group, and the table of its commands, each imported when it is used."""

from __future__ import annotations

import importlib
from typing import Any, NamedTuple

import click

__all__ = ["COMMANDS", "LazyGroup", "root"]


class Entry(NamedTuple):
    """The module and the function of a command, and its line in the list of commands."""

    module: str
    function: str
    help: str


COMMANDS = {
    "ps": Entry("listing", "ps", "List processes, and whether they can be accessed."),
    "maps": Entry("listing", "maps", "List the mappings of a process."),
    "read": Entry("values", "read", "Read typed values."),
    "write": Entry("values", "write", "Write a typed value."),
    "hexdump": Entry("dumps", "hexdump", "Show memory in hexadecimal and as text."),
    "strings": Entry("dumps", "strings", "List the texts in memory."),
    "telescope": Entry("dumps", "telescope", "Follow the pointers at an address."),
    "print": Entry("debugging", "print_", "Print a variable, typed by debug information."),
    "stack": Entry("debugging", "stack", "List the calls that each thread is in."),
    "search": Entry("searching", "search", "Find every address of bytes, a text or a value."),
    "scan": Entry("scanning", "scan", "Narrow down where a changing value is kept."),
    "who": Entry("observing", "who", "Show which instructions write to an address."),
    "calls": Entry("observing", "calls", "Show the calls of a function with their arguments."),
    "pointers": Entry("pointing", "pointers", "Find pointer paths that survive a restart."),
    "watch": Entry("watching", "watch", "Show a value whenever it changes."),
    "freeze": Entry("watching", "freeze", "Keep a value unchanged by writing it again."),
    "snapshot": Entry("saving", "snapshot", "Save memory to a core file."),
    "diff": Entry("saving", "diff", "Show the bytes that changed since a snapshot."),
    "doctor": Entry("others", "doctor", "Say what prevents access, and how to fix it."),
    "help": Entry("others", "help_", "Show the help of a command, or what --json writes."),
    "tour": Entry("others", "tour", "Show what the library does, on processes it starts."),
    "view": Entry("others", "view", "View and edit a process in the terminal."),
}
"""The commands by name, in the order in which the help lists them."""

_EPILOG = """\
\b
Exit codes:
  0 done or found       3 denied                   130 interrupted
  1 nothing found       4 no such process, or it ended
  2 bad use             5 fault; all that was read before it is shown
diff exits as diff(1): 0 the same, 1 different, 2 and above trouble.

\b
Examples:
  procvm ps python
  procvm read 1234 libc.so.6!environ -t ptr
  procvm search myprogram --text secret
  procvm snapshot 1234 -o before.core && procvm diff before.core 1234

PID is a number or the name of a process. Commands that only read take the path of a
core file as well. ADDRESS is a number, a symbol, or an expression such as [heap]+8,
libc.so.6+0x10, module!symbol+8, or *0x7f.., the address that is stored at 0x7f...

Completion in bash: eval "$(_PROCVM_COMPLETE=bash_source procvm)"
"""


class LazyGroup(click.Group):
    """A group that lists its commands without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Returns the names of the commands."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Returns a command, imported now; None if no command has this name."""
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        module = importlib.import_module(f"procvm.cli.commands.{entry.module}")
        command: click.Command = getattr(module, entry.function)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the list of commands from the table."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.help) for name, entry in COMMANDS.items()])


def _show_version(ctx: click.Context, _param: click.Parameter, asked: Any) -> None:
    if asked and not ctx.resilient_parsing:
        from procvm import __version__  # noqa: PLC0415 (it imports this module)

        click.echo(f"procvm {__version__}")
        ctx.exit()


@click.group(
    cls=LazyGroup,
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 90},
)
@click.option(
    "-V",
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_show_version,
    help="Show the version.",
)
def root() -> None:
    """Read, write, search and watch the memory of live Linux processes."""
