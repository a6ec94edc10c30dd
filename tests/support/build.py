"""Compiles the C targets, once a run."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

TARGETS = Path(__file__).parent / "targets"


@functools.cache
def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="procvm-targets-"))
    pid = os.getpid()

    def remove() -> None:
        if os.getpid() == pid:  # not in a child that was forked
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)
    return folder


@functools.cache
def compiled(name: str, *flags: str) -> str:
    """Returns the path of the program made of ``targets/NAME.c``."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise RuntimeError("no C compiler: install one (the package gcc)")
    suffix = "".join(flags).replace("/", "_")
    program = _folder() / f"{name}{suffix}"
    source = TARGETS / f"{name}.c"
    subprocess.run(
        [compiler, "-O1", "-Wall", "-Werror", *flags, "-o", program, source, "-pthread"],
        check=True,
    )
    return str(program)
