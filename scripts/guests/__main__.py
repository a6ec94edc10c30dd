"""Builds, boots and measures guests by name; see scripts/kernels."""

from __future__ import annotations

import datetime
import json
import os
import subprocess
from pathlib import Path

import click

from scripts.guests.boot import boot
from scripts.guests.environments import GUESTS
from scripts.guests.image import ROOT, Image, build
from scripts.guests.table import RESULTS, write_page


def _lab() -> Path:
    return Path(os.environ.get("PROCVM_GUESTS", ROOT / "build/guests"))


@click.group()
def main() -> None:
    """Boots kernels of Debian under qemu, and measures what procvm can do there."""


@main.command("list")
def list_guests() -> None:
    """Lists the guests, and what there is of each."""
    for name, guest in GUESTS.items():
        image = Image(guest, _lab())
        built = "built" if image.initrd.exists() else "not built"
        measured = "measured" if (RESULTS / f"{name}.json").exists() else "not measured"
        click.echo(f"{name:18} Python {guest.python}, {built}, {measured}")


@main.command()
@click.argument("name", type=click.Choice(list(GUESTS)))
@click.option("--minutes", default=60.0, help="After which the guest is ended.")
@click.option("--settings", default="", help="Only these, as in root0,user1.")
@click.option("--tests", default="", help="Paths of tests, with commas; none for no tests.")
@click.option("--keep/--no-keep", default=True, help="Whether docs/reach.md is written.")
def run(name: str, minutes: float, settings: str, tests: str, keep: bool) -> None:
    """Builds the guest NAME, boots it, and writes docs/reach.md again."""
    guest = GUESTS[name]
    image = Image(guest, _lab())
    # Before the project is copied: a commit that is made meanwhile is not what was measured.
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    build(image)
    words = " ".join(
        f"{key}={value}" for key, value in (("settings", settings), ("tests", tests)) if value
    )
    log = image.folder / "console.log"
    click.echo(f"{name}: what it tells is in {log}")
    records = boot(guest, image, log, seconds=minutes * 60, words=words)
    about = [record for record in records if record["kind"] == "guest"]
    if not about:
        raise click.ClickException(f"the guest told nothing; see {log}")
    for record in records:
        click.echo(json.dumps({key: value for key, value in record.items() if key != "results"}))
    if not keep:
        return
    document = {
        "name": name,
        "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        "version": described.stdout.strip(),
        "guest": about[0],
        "records": [record for record in records if record["kind"] != "guest"],
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n")
    click.echo(f"{write_page()} was written")


@main.command()
def page() -> None:
    """Writes docs/reach.md from what was measured, without a guest."""
    click.echo(f"{write_page()} was written")


if __name__ == "__main__":
    main()
