"""Compiled programs are kept where no other user can put one."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from procvm.testing.compiler import compile_c
from procvm.testing.private import is_own_program, is_private

NOBODY = 65534
SOURCE = '#include <stdio.h>\nint main(void) { puts("honest"); return 0; }\n'
PLANTED = "#!/bin/sh\necho planted\n"

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can leave a file to another user")


def said(program: Path) -> str:
    return subprocess.run([program], capture_output=True, text=True, check=True).stdout.strip()


def plant(path: Path, *, owner: int = -1) -> None:
    path.unlink(missing_ok=True)
    path.write_text(PLANTED)
    path.chmod(0o755)
    os.chown(path, owner, owner)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A folder for programs, which no other user can write."""
    folder = tmp_path / "cache"
    folder.mkdir(mode=0o700)
    return folder


def test_compile_c_private_folder_is_used_again(cache: Path) -> None:
    """The program is compiled once, whatever the umask is."""
    usual = os.umask(0o002)
    try:
        program = compile_c(SOURCE, cache=cache)
        made = program.stat()
        assert compile_c(SOURCE, cache=cache) == program
    finally:
        os.umask(usual)
    assert program.parent == cache
    assert (program.stat().st_ino, program.stat().st_mtime_ns) == (made.st_ino, made.st_mtime_ns)
    assert said(program) == "honest"


@as_root
@pytest.mark.parametrize("depth", ["folder", "parent", "grandparent"])
def test_compile_c_folder_of_another_user_is_not_used(tmp_path: Path, depth: str) -> None:
    """Its owner, or that of a folder above it, could replace the program at any time."""
    inner = tmp_path / "a" / "b" / "cache"
    inner.mkdir(parents=True)
    program = compile_c(SOURCE, cache=inner)
    assert program.parent == inner
    plant(program)
    theirs = {"folder": inner, "parent": inner.parent, "grandparent": inner.parent.parent}[depth]
    os.chown(theirs, NOBODY, NOBODY)
    found = compile_c(SOURCE, cache=inner)
    assert found.parent != inner
    assert said(found) == "honest"


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777, 0o1777])
def test_compile_c_folder_that_others_write_is_not_used(cache: Path, mode: int) -> None:
    """Any of them could put a program there before it is made."""
    cache.chmod(mode)
    assert not is_private(cache)
    assert compile_c(SOURCE, cache=cache).parent != cache


@pytest.mark.parametrize(("mode", "private"), [(0o777, False), (0o775, False), (0o1777, True)])
def test_is_private_parent_that_others_write(tmp_path: Path, mode: int, private: bool) -> None:
    """Its sticky bit keeps the folder; without it the folder can be replaced."""
    folder = tmp_path / "open" / "cache"
    folder.mkdir(parents=True, mode=0o700)
    folder.parent.chmod(mode)
    assert is_private(folder) is private


@as_root
def test_compile_c_program_of_another_user_is_replaced(cache: Path) -> None:
    """A program that was there before the folder became private is not run."""
    program = compile_c(SOURCE, cache=cache)
    plant(program, owner=NOBODY)
    assert said(compile_c(SOURCE, cache=cache)) == "honest"
    assert program.stat().st_uid == os.geteuid()


@pytest.mark.parametrize("kind", ["symbolic link", "hard link", "writable"])
def test_compile_c_program_that_another_user_could_change_is_replaced(
    cache: Path, tmp_path: Path, kind: str
) -> None:
    """A link leads to what another user may own or write."""
    program = compile_c(SOURCE, cache=cache)
    other = tmp_path / "other"
    plant(other)
    program.unlink()
    if kind == "symbolic link":
        program.symlink_to(other)
    elif kind == "hard link":
        program.hardlink_to(other)
    else:
        plant(program)
        program.chmod(0o775)
    assert not is_own_program(program)
    assert said(compile_c(SOURCE, cache=cache)) == "honest"
    assert is_own_program(program)
    assert other.read_text() == PLANTED


@as_root
def test_compile_c_link_to_a_folder_of_another_user_is_not_used(tmp_path: Path) -> None:
    """The folder that a link leads to is looked at, and not the link."""
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    os.chown(theirs, NOBODY, NOBODY)
    link = tmp_path / "link"
    link.symlink_to(theirs)
    found = compile_c(SOURCE, cache=link)
    assert found.parent not in (link, theirs)
    assert said(found) == "honest"
