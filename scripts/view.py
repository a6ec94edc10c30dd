"""Writes the screen of the viewer on the C program of the README to an SVG file."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from cast import source_of_readme

import procvm
from procvm.tui.app import Viewer

SIZE = (118, 30)
_SECONDS = 1.0
"""How long the program runs before the picture, so that a byte has changed."""


async def picture(process: procvm.Process) -> str:
    """Returns the screen with the cursor on the variable, after some reads."""
    viewer = Viewer(process, process.symbol("g_score"))
    async with viewer.run_test(size=SIZE) as pilot:
        await pilot.pause(_SECONDS)
        await pilot.press("m", "down")
        await pilot.pause(_SECONDS)
        return viewer.export_screenshot(title="procvm view game g_score")


def main(path: str) -> None:
    """Compiles and starts the program, and writes the picture."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "game.c").write_text(source_of_readme())
        subprocess.run(["cc", "-g", "game.c", "-o", "game"], cwd=folder, check=True)
        with subprocess.Popen([Path(folder, "game")]) as child:
            try:
                with procvm.open(child.pid) as process:
                    text = asyncio.run(picture(process))
            finally:
                child.kill()
    # The fonts of a reader's own machine do: without this, the file names a server.
    Path(path).write_text(re.sub(r"@font-face \{.*?\}\s*", "", text, flags=re.DOTALL))


if __name__ == "__main__":
    main(*sys.argv[1:])
