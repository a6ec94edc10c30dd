"""``doctor``, ``help``, ``tour`` and ``view``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from procvm._base.text import shown
from procvm.cli.declare import command, missing, pid_argument
from procvm.cli.exits import DENIED, DONE
from procvm.cli.output import Output, folded
from procvm.cli.target import TargetParam, address_in, open_process, pid_of
from procvm.errors import UnsupportedError

if TYPE_CHECKING:
    from procvm.doctor import Finding

__all__ = ["doctor", "help_", "tour", "view"]

_STYLES = {"ok": "good", "warning": "new", "fails": "bad", "absent": "dim"}


@command("procvm doctor", "procvm doctor 1234", "procvm doctor 1234 --json")
@click.argument("target", metavar="[PID]", type=TargetParam(), required=False)
@click.option("--all", "show_all", is_flag=True, help="Show the checks that are in order as well.")
def doctor(out: Output, target: str | None, show_all: bool) -> int:
    """Say what prevents access on this machine or to a process, and how to fix it.

    The first line says what you can do. Each further line is a check that is not in order, with
    its evidence, the file or the call that says so, and what to do. The exit code is 3 if a
    check fails.
    """
    from procvm.doctor import examine, verdict_on  # noqa: PLC0415 (only this command needs it)

    pid = None if target is None else pid_of(target)
    findings = examine(pid)
    summary = verdict_on(findings, pid)
    if out.json:
        rows = [_finding(one) for one in findings]
        out.document({"pid": pid, "summary": shown(summary), "findings": rows})
    else:
        _show(out, summary, findings, show_all=show_all)
    return DENIED if any(one.verdict == "fails" for one in findings) else DONE


def _finding(one: Finding) -> dict[str, str]:
    return {
        "check": one.check,
        "verdict": one.verdict,
        "evidence": shown(one.evidence),
        "fix": shown(one.fix),
    }


def _show(out: Output, summary: str, findings: list[Finding], *, show_all: bool) -> None:
    listed = [one for one in findings if show_all or one.verdict in ("warning", "fails")]
    if not out.is_terminal:
        out.line(shown(summary))
        for one in listed:
            out.line("\t".join([one.verdict, one.check, shown(one.evidence), shown(one.fix)]))
        return
    for line in folded(shown(summary), out.width):
        out.line(out.style(line, "head"))
    for one in listed:
        out.line()
        out.line(f"{out.style(f'{one.verdict:7}', _STYLES[one.verdict])}  {one.check}")
        for line in folded(shown(one.evidence), out.width - 4):
            out.line(f"    {line}")
        for k, line in enumerate(folded(shown(one.fix), out.width - 6)):
            out.line(f"    {out.arrow if k == 0 else ' ' * len(out.arrow)} {line}")
    rest = len(findings) - len(listed)
    if rest:
        out.line()
        which = f"the other {rest}" if listed else f"all {rest}"
        text = f"{which} checks are in order or not needed; --all shows them"
        out.line(out.style(text, "dim"))


@command(
    "procvm help",
    "procvm help read",
    "procvm help json",
    no_json="help prints texts for people; procvm help json is about --json itself",
)
@click.argument("topic", metavar="[TOPIC]", required=False)
def help_(out: Output, topic: str | None) -> None:
    """Show the help of a command, or what --json writes.

    TOPIC is the name of a command, or json.
    """
    from procvm.cli.root import root  # noqa: PLC0415 (it imports this module)

    if topic == "json":
        for line in _json_page().splitlines():
            out.line(line)
        return
    context = click.Context(root, info_name="procvm")
    if topic is None:
        out.line(root.get_help(context))
        return
    shown_command = root.get_command(context, topic)
    if shown_command is None:
        raise click.UsageError(f"no command is called {topic!r}; procvm help lists them")
    out.line(shown_command.get_help(click.Context(shown_command, context, info_name=topic)))


def _json_page() -> str:
    """Returns docs/json.md of the checkout, or the copy that the wheel installed."""
    checkout = Path(__file__).parents[3] / "docs" / "json.md"
    if checkout.exists():
        return checkout.read_text()
    import importlib.metadata  # noqa: PLC0415 (only this page needs it)

    for file in importlib.metadata.files("procvm") or ():
        if file.as_posix().endswith("share/doc/procvm/json.md"):
            return Path(str(file.locate())).read_text()
    raise UnsupportedError("the page about --json is not installed; install procvm by its wheel")


@command("procvm tour", no_json="tour prints a text for people, and no data")
def tour(_out: Output) -> None:
    """Show what the library does, on processes that it starts; it takes some seconds."""
    from procvm.tour import main  # noqa: PLC0415 (only this command needs it)

    main()


@command(
    "procvm view 1234",
    "procvm view myprogram '[heap]'",
    no_json="view draws on the terminal until it is left, and writes no data",
)
@pid_argument
@click.argument("address", metavar="[ADDRESS]", required=False)
def view(_out: Output, target: str, address: str | None) -> None:
    """View a process in the terminal: mappings, live bytes and their values; search and edit."""
    try:
        from procvm.tui.app import run  # noqa: PLC0415 (it needs textual)
    except ModuleNotFoundError as error:
        raise missing(error, "procvm view", "tui") from None
    with open_process(target) as process:
        run(process, None if address is None else address_in(process, address))
