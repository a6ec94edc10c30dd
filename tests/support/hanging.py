"""A file system whose one file is never read: its pages never come."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.support.build import compiled
from tests.support.child import Child


def _flags() -> list[str]:
    """Returns what the compiler needs for FUSE, or skips the test where something is missing."""
    if os.geteuid() or not os.path.exists("/dev/fuse"):
        pytest.skip("only root mounts FUSE, by /dev/fuse")
    if shutil.which("pkg-config") is None:
        pytest.skip("no pkg-config to find libfuse3")
    found = subprocess.run(
        ["pkg-config", "--cflags", "--libs", "fuse3"], capture_output=True, text=True, check=False
    )
    if found.returncode:
        pytest.skip("libfuse3 is missing (the package libfuse3-dev)")
    # `compiled` names them before the source, where a linker would leave the library out.
    return ["-Wl,--no-as-needed", *shlex.split(found.stdout)]


@contextmanager
def hanging(folder: Path) -> Generator[Child]:
    """Mounts a file system whose one file is never read."""
    with Child([compiled("hanging", *_flags()), "-f", str(folder)]) as server:
        assert server.line() == "ready"
        try:
            yield server
        finally:
            with suppress(ProcessLookupError):
                os.kill(server.pid, signal.SIGKILL)
            subprocess.run(["umount", "-l", folder], check=False)
