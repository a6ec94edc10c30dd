"""`compile_c`: compiles C source once for each source, compiler and set of flags."""

from __future__ import annotations

import atexit
import contextlib
import functools
import hashlib
import json
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from procvm._base.text import printable
from procvm.errors import UnsupportedError
from procvm.testing.private import is_own_program, is_private

__all__ = ["CompilerError", "compile_c", "user_cache"]

_FLAGS = ("-g", "-O1", "-pthread")


class CompilerError(Exception):
    """The compiler refused a C source; the message is the output of the compiler."""


def user_cache() -> Path:
    """Returns the folder in the user's cache where programs are kept outside of pytest."""
    root = os.environ.get("XDG_CACHE_HOME", "")
    folder = Path(root) if os.path.isabs(root) else Path.home() / ".cache"
    return folder / "procvm" / "programs"


def compile_c(
    source: str, *, cflags: Sequence[str] = (), cache: Path | None = None, name: str = "program"
) -> Path:
    """Compiles C source, unless the cache has the program already, and returns its path.

    The compiler is ``$CC``, or cc, gcc or clang, with ``-g -O1 -pthread``. The source is kept
    next to the program for debuggers. Several processes may call this at the same time: a
    program appears under its name only when it is complete.

    Args:
        source: The C source.
        cflags: More arguments of the compiler, also libraries (``-lm``).
        cache: The folder where programs are kept; by default one in the user's cache. If the
            folder cannot be written, or another user can write to it, the user's cache is used,
            and if that is not possible, a temporary folder of this run.
        name: The start of the program's name, as lists of processes show it.

    Raises:
        CompilerError: The source does not compile.
        UnsupportedError: There is no compiler.
        OSError: The folder cannot be written.
    """
    command, version = _compiler(os.environ.get("CC", ""), os.environ.get("PATH", os.defpath))
    what = json.dumps([command, version, platform.machine(), _FLAGS, list(cflags), source])
    key = hashlib.sha256(what.encode("utf-8", "surrogateescape")).hexdigest()[:32]
    program = _private_folder(cache) / f"{name}-{key}"
    if not is_own_program(program):
        _compile(command, source, cflags, program)
    return program


def _private_folder(cache: Path | None) -> Path:
    """Returns a folder for programs to which no other user can write."""
    for folder in [user_cache()] if cache is None else [cache, user_cache()]:
        with contextlib.suppress(OSError):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if os.access(folder, os.W_OK | os.X_OK) and is_private(folder):
                return folder
    return _of_this_run()


@functools.cache
def _of_this_run() -> Path:
    folder, owner = tempfile.mkdtemp(prefix="procvm-"), os.getpid()

    def remove() -> None:
        if os.getpid() == owner:  # a forked child must not remove it
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)
    return Path(folder)


@functools.cache
def _compiler(chosen: str, path: str) -> tuple[list[str], str]:
    """Returns the command of the compiler, and its version text."""
    command = shlex.split(chosen)
    for name in [] if command else ["cc", "gcc", "clang"]:
        found = shutil.which(name, path=path)
        if found is not None:
            command = [found]
            break
    if not command:
        raise UnsupportedError(
            "no C compiler: install one (the package gcc or clang), or name it in CC"
        )
    try:
        run = subprocess.run([*command, "--version"], capture_output=True, check=False)
    except OSError as error:
        raise UnsupportedError(
            f"the C compiler of CC, {printable(command[0])}, does not start: {error.strerror}"
        ) from None
    return command, run.stdout.decode(errors="replace")


def _compile(command: list[str], source: str, cflags: Sequence[str], program: Path) -> None:
    text = program.with_name(f"{program.name}.c")
    with tempfile.TemporaryDirectory(dir=program.parent) as scratch:
        folder = Path(scratch)
        draft = folder / "draft.c"
        draft.write_text(source, "utf-8", "surrogateescape")
        # Renamed before compiling: the compiler writes this name into the debug information.
        os.replace(draft, text)
        made = folder / "program"
        run = subprocess.run(
            [*command, *_FLAGS, "-o", made, text, *cflags],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env={**os.environ, "LC_ALL": "C"},
            check=False,
        )
        if run.returncode:
            lines = (run.stderr or run.stdout).splitlines()
            arguments = printable(shlex.join([*command, *_FLAGS, *cflags]))
            raise CompilerError(
                "\n".join(
                    [
                        f"the C source does not compile ({arguments}, status {run.returncode}):",
                        *map(printable, lines),
                    ]
                )
            )
        os.chmod(made, 0o700)  # with a umask of 002 `is_own_program` would refuse it
        os.replace(made, program)
