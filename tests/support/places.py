"""The program of places.c while it runs, and where it has what."""

from __future__ import annotations

import functools
import shutil
import subprocess
from pathlib import Path
from typing import Self

import pytest

from tests.support.build import compiled


@functools.cache
def _has_32_bits(compiler: str) -> bool:
    done = subprocess.run(
        [compiler, "-m32", "-xc", "-", "-o", "/dev/null"],
        input=b'#include <stdio.h>\nint main(void) { return puts(""); }',
        capture_output=True,
        check=False,
    )
    return done.returncode == 0


class Places:
    """A running child; a context manager that ends it.

    Attributes:
        pid: Its pid.
        at: The addresses of its things by their names.
        width: The bytes of its pointers.
    """

    def __init__(self, width: int = 8) -> None:
        if width == 4 and not _has_32_bits(shutil.which("cc") or "gcc"):
            pytest.skip("needs a compiler that makes 32-bit programs (gcc-multilib)")
        self.width = width
        program = compiled("places", *(["-m32"] if width == 4 else []))
        self.program = Path(program).name
        self._popen = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.pid = self._popen.pid
        self.at: dict[str, int] = {}
        assert self._popen.stdout is not None
        for line in iter(self._popen.stdout.readline, b"ready\n"):
            name, address = line.decode().split()
            self.at[name] = int(address, 16)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._popen.kill()
        self._popen.communicate()
