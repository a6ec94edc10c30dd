"""Programs that are compiled and linked in several ways, and tell where their names are."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import pytest


def built(
    folder: Path, name: str, source: str, *flags: str, compiler: str = "cc", suffix: str = ".c"
) -> Path:
    """Compiles a source to ``folder/name``; the test is skipped where the tools are missing."""
    if shutil.which(compiler) is None:
        pytest.skip(f"not installed: {compiler}")
    (folder / (name + suffix)).write_text(source)
    command: list[str | Path] = [
        compiler,
        "-O1",
        "-w",
        folder / (name + suffix),
        "-o",
        folder / name,
        *flags,
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
    if done.returncode:
        missing = ("cannot find", "No such file", "not found", "invalid linker")
        assert any(sign in done.stderr for sign in missing), done.stderr
        pytest.skip(f"cannot build {name}: {done.stderr.strip().splitlines()[-1]}")
    return folder / name


class Told:
    """A running program whose first line is ``name=hex ...``; it ends with the test.

    Attributes:
        at: What it told.
    """

    def __init__(
        self,
        *argv: str | Path,
        env: Mapping[str, str] | None = None,
        executable: str | Path | None = None,
    ) -> None:
        self.popen = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=None if env is None else {**os.environ, **env},
            executable=executable,
        )
        self.at = self.told()

    @property
    def pid(self) -> int:
        return self.popen.pid

    def told(self) -> dict[str, int]:
        """Returns what the next line tells."""
        assert self.popen.stdout is not None
        words = self.popen.stdout.readline().decode().split()
        assert words, "it has ended"
        return {name: int(value, 16) for name, _, value in (word.partition("=") for word in words)}

    def ask(self, line: str) -> dict[str, int]:
        """Sends a line and returns what the answer tells."""
        assert self.popen.stdin is not None
        self.popen.stdin.write(line.encode() + b"\n")
        self.popen.stdin.flush()
        return self.told()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.popen.kill()
        self.popen.communicate()


TELL = """
#include <stdio.h>
#include <unistd.h>
#define TELL(name) printf(#name "=%lx ", (unsigned long)(name))
#define TOLD (puts(""), fflush(stdout))
"""
WAIT = " TOLD; char c; while (read(0, &c, 1) == 1); return 0; }\n"
