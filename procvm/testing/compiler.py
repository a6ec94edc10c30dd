"""`compile_source`: compiles C, C++ or Rust once for each source, compiler and set of flags."""

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
from typing import Literal, NamedTuple, TypeAlias, get_args

from procvm._base.text import printable
from procvm.errors import UnsupportedError
from procvm.testing.private import is_own_program, is_private

__all__ = [
    "CompilerError",
    "Language",
    "as_language",
    "compile_c",
    "compile_source",
    "language_of",
    "user_cache",
]

Language: TypeAlias = Literal["c", "c++", "rust"]


class _Compiler(NamedTuple):
    """How a language is compiled.

    Attributes:
        name: The name of the language in messages.
        suffixes: The ends of names of its source files; the first is used for what is compiled.
        variable: The environment variable that names the compiler.
        commands: The compilers to look for without it.
        flags: Arguments that come before those of the caller.
        packages: What to install.
    """

    name: str
    suffixes: tuple[str, ...]
    variable: str
    commands: tuple[str, ...]
    flags: tuple[str, ...]
    packages: str


_C_FLAGS = ("-g", "-O1", "-pthread")
_COMPILERS: dict[str, _Compiler] = {
    "c": _Compiler(
        "C", (".c",), "CC", ("cc", "gcc", "clang"), _C_FLAGS, "the package gcc or clang"
    ),
    "c++": _Compiler(
        "C++",
        (".cc", ".cpp", ".cxx"),
        "CXX",
        ("c++", "g++", "clang++"),
        _C_FLAGS,
        "the package g++ or clang",
    ),
    "rust": _Compiler(
        "Rust",
        (".rs",),
        "RUSTC",
        ("rustc",),
        # Without a name of its own, a file with a - in its name would be refused.
        ("-g", "-C", "opt-level=1", "--edition=2021", "--crate-name=program"),
        "the package rustc",
    ),
}


class CompilerError(Exception):
    """The compiler refused a source; the message is the output of the compiler."""


def as_language(language: object) -> Language:
    """Returns a language that is known.

    Raises:
        ValueError: The language is not known.
    """
    for known in get_args(Language):
        if language == known:
            found: Language = known
            return found
    raise ValueError(f"language is 'c', 'c++' or 'rust', not {language!r}")


def language_of(path: Path) -> Language | None:
    """Returns the language of a source file by the end of its name; None if it is not one."""
    for name, compiler in _COMPILERS.items():
        if path.suffix in compiler.suffixes:
            return as_language(name)
    return None


def user_cache() -> Path:
    """Returns the folder in the user's cache where programs are kept outside of pytest."""
    root = os.environ.get("XDG_CACHE_HOME", "")
    folder = Path(root) if os.path.isabs(root) else Path.home() / ".cache"
    return folder / "procvm" / "programs"


def compile_c(
    source: str, *, cflags: Sequence[str] = (), cache: Path | None = None, name: str = "program"
) -> Path:
    """Compiles C source, as `compile_source` does."""
    return compile_source(source, language="c", cflags=cflags, cache=cache, name=name)


def compile_source(
    source: str,
    *,
    language: Language,
    cflags: Sequence[str] = (),
    cache: Path | None = None,
    name: str = "program",
) -> Path:
    """Compiles a source, unless the cache has the program already, and returns its path.

    The compiler of C is ``$CC``, or cc, gcc or clang; of C++ ``$CXX``, or c++, g++ or clang++,
    both with ``-g -O1 -pthread``; of Rust ``$RUSTC`` or rustc, with ``-g -C opt-level=1``. The
    source is kept next to the program for debuggers. Several processes may call this at the same
    time: a program appears under its name only when it is complete.

    Args:
        source: The source.
        language: ``"c"``, ``"c++"`` or ``"rust"``.
        cflags: More arguments of the compiler, also libraries (``-lm``).
        cache: The folder where programs are kept; by default one in the user's cache. If the
            folder cannot be written, or another user can write to it, the user's cache is used,
            and if that is not possible, a temporary folder of this run.
        name: The start of the program's name, as lists of processes show it.

    Raises:
        CompilerError: The source does not compile.
        UnsupportedError: There is no compiler of the language.
        ValueError: The language is not known.
        OSError: The folder cannot be written.
    """
    compiler = _COMPILERS[as_language(language)]
    command, version = _found(
        compiler, os.environ.get(compiler.variable, ""), os.environ.get("PATH", os.defpath)
    )
    what = json.dumps([command, version, platform.machine(), compiler.flags, list(cflags), source])
    key = hashlib.sha256(what.encode("utf-8", "surrogateescape")).hexdigest()[:32]
    program = _private_folder(cache) / f"{name}-{key}"
    if not is_own_program(program):
        _compile(compiler, command, source, cflags, program)
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
def _found(compiler: _Compiler, chosen: str, path: str) -> tuple[list[str], str]:
    """Returns the command of the compiler, and its version text."""
    command = shlex.split(chosen)
    for name in () if command else compiler.commands:
        found = shutil.which(name, path=path)
        if found is not None:
            command = [found]
            break
    if not command:
        raise UnsupportedError(
            f"no {compiler.name} compiler: install one ({compiler.packages}), or name it in "
            f"{compiler.variable}"
        )
    try:
        run = subprocess.run([*command, "--version"], capture_output=True, check=False)
    except OSError as error:
        raise UnsupportedError(
            f"the {compiler.name} compiler of {compiler.variable}, {printable(command[0])}, does "
            f"not start: {error.strerror}"
        ) from None
    return command, run.stdout.decode(errors="replace")


def _compile(
    compiler: _Compiler, command: list[str], source: str, cflags: Sequence[str], program: Path
) -> None:
    text = program.with_name(f"{program.name}{compiler.suffixes[0]}")
    with tempfile.TemporaryDirectory(dir=program.parent) as scratch:
        folder = Path(scratch)
        draft = folder / "draft"
        draft.write_text(source, "utf-8", "surrogateescape")
        # Renamed before compiling: the compiler writes this name into the debug information.
        os.replace(draft, text)
        made = folder / "program"
        run = subprocess.run(
            [*command, *compiler.flags, "-o", made, text, *cflags],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env={**os.environ, "LC_ALL": "C"},
            check=False,
        )
        if run.returncode:
            lines = (run.stderr or run.stdout).splitlines()
            arguments = printable(shlex.join([*command, *compiler.flags, *cflags]))
            raise CompilerError(
                "\n".join(
                    [
                        f"the {compiler.name} source does not compile ({arguments}, status "
                        f"{run.returncode}):",
                        *map(printable, lines),
                    ]
                )
            )
        os.chmod(made, 0o700)  # with a umask of 002 `is_own_program` would refuse it
        os.replace(made, program)
