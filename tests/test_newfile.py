"""Output files: new, their owner's alone, whole or not there, and nothing left beside them."""

from __future__ import annotations

import errno
import os
import resource
import secrets
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import procvm
from procvm._base import atomic_file as newfile
from procvm._base.atomic_file import new_file
from tests.elf.facets import Facets
from tests.support.playground import Playground

ROOT = Path(__file__).parent.parent
as_root = pytest.mark.root

os_open = os.open


def no_nameless_files(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
    """Opens as a file system does that has no files without a name."""
    if flags & os.O_TMPFILE == os.O_TMPFILE:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP), path)
    return os_open(path, flags, *args, **kwargs)


@pytest.fixture(params=["nameless", "named"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways: by a file without a name, and where there are none by one that is renamed."""
    if request.param == "named":
        monkeypatch.setattr(os, "open", no_nameless_files)
    return str(request.param)


def test_no_name_is_told_before_anything_is_written(tmp_path: Path) -> None:
    """A path without a last part is an error at once, with that path in it."""
    for path in ("", f"{tmp_path}/nothing/"):
        with pytest.raises(FileNotFoundError) as caught, new_file(path):
            pytest.fail("it was begun")
        assert caught.value.filename == path


def put(path: Any, data: bytes = b"new") -> None:
    with new_file(path) as fd:
        os.write(fd, data)


@pytest.fixture
def umask() -> Iterator[Callable[[int], int]]:
    """Gives os.umask, and puts back what was."""
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077, 0o177])
def test_it_is_its_owners_alone(
    tmp_path: Path, way: str, umask: Callable[[int], int], mask: int
) -> None:
    """Mode 0600 from the first instant, at a new path and in place of a public file."""
    umask(mask)
    for path in (tmp_path / "a", tmp_path / "b"):
        if path.name == "b":
            path.write_bytes(b"old")
            path.chmod(0o666)
        with new_file(path) as fd:
            assert stat.S_IMODE(os.fstat(fd).st_mode) == 0o600
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("mask", [0o200, 0o400, 0o777])
def test_its_owner_can_read_and_write_it_whatever_umask(
    tmp_path: Path, way: str, umask: Callable[[int], int], mask: int
) -> None:
    """A umask that takes rights from the owner does not: mode 0600."""
    umask(mask)
    put(tmp_path / "a")
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o600


def test_a_link_is_replaced_and_not_followed(tmp_path: Path, way: str) -> None:
    """A link at the path, to a file, to nothing or to itself, is replaced; its target stays."""
    target = tmp_path / "target"
    target.write_bytes(b"kept")
    for name, to in (("a", target), ("b", tmp_path / "none"), ("c", tmp_path / "c")):
        (tmp_path / name).symlink_to(to)
        put(tmp_path / name)
        assert not (tmp_path / name).is_symlink()
        assert (tmp_path / name).read_bytes() == b"new"
    assert target.read_bytes() == b"kept"
    assert sorted(os.listdir(tmp_path)) == ["a", "b", "c", "target"]
    os.link(target, tmp_path / "hard")
    put(tmp_path / "hard")
    assert target.read_bytes() == b"kept"


def test_a_link_that_was_planted_for_its_other_name_is_refused(
    tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody who guessed the name of the file in the making gets an error, and no write."""
    monkeypatch.setattr(secrets, "token_hex", lambda n: "00" * n)
    target = tmp_path / "target"
    target.write_bytes(b"kept")
    planted = tmp_path / (".a." + "00" * 8)
    planted.symlink_to(target)
    with pytest.raises(FileExistsError):
        put(tmp_path / "a")
    assert target.read_bytes() == b"kept"
    assert planted.is_symlink()
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    "name", ["x", "n" * 255, "-", "new\nline", b"\xff\xfe", "\u6f22" * 85, " ", ".hidden", "a" * 61]
)
def test_any_name_a_file_system_takes(tmp_path: Path, way: str, name: str | bytes) -> None:
    """Long ones, odd ones, and those that are no text."""
    path = os.path.join(os.fsencode(tmp_path), os.fsencode(name))
    put(path)
    assert os.listdir(os.fsencode(tmp_path)) == [os.fsencode(name)]
    assert Path(os.fsdecode(path)).read_bytes() == b"new"


def test_a_name_of_60_characters_of_four_bytes(tmp_path: Path, way: str) -> None:
    """A name of 240 bytes is one that the file system takes."""
    put(tmp_path / ("\U0001f600" * 60))


def test_a_path_is_text_bytes_or_a_path_and_relative(
    tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each kind of path; a folder that is left meanwhile is still the one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d").mkdir()
    put("a")
    put(b"b")
    put(Path("d") / ".." / "c")
    with new_file("d/e") as fd:
        os.rename("d", "moved")
        os.write(fd, b"new")
    assert sorted(os.listdir(".")) == ["a", "b", "c", "moved"]
    assert os.listdir("moved") == ["e"]
    with pytest.raises(IsADirectoryError):
        put("moved")
    with pytest.raises(FileNotFoundError):
        put("none/a")
    with pytest.raises(NotADirectoryError):
        put("a/b")
    with pytest.raises(TypeError):
        put(3)


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt(), SystemExit(1)])
def test_after_an_exception_all_is_as_before(
    tmp_path: Path, way: str, error: BaseException
) -> None:
    """What was there stays as it was, and nothing is beside it."""
    (tmp_path / "a").write_bytes(b"old")
    before = (tmp_path / "a").stat()

    def fail() -> None:
        with new_file(tmp_path / "a") as fd:
            os.write(fd, b"half")
            raise error

    with pytest.raises(type(error)):
        fail()
    assert os.listdir(tmp_path) == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"
    assert (tmp_path / "a").stat()[:9] == before[:9]


def _interrupted(path: Path, at: int) -> bool:
    """Writes a file, with Ctrl-C before the line of newfile.py that comes `at` last; was it?"""
    count = 0

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal count
        if frame.f_code.co_filename != newfile.__file__:
            return None
        if event == "line":
            count += 1
            if count == at:
                sys.settrace(None)
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        put(path)
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


def test_ctrl_c_before_any_line_leaves_nothing_beside(tmp_path: Path, way: str) -> None:
    """Wherever it comes: the old file or the new one, whole, and no other."""
    path = tmp_path / "a"
    at = 0
    interrupted = True
    while interrupted:
        at += 1
        path.write_bytes(b"old")
        interrupted = _interrupted(path, at)
        assert os.listdir(tmp_path) == ["a"], at
        assert path.read_bytes() in ((b"old", b"new") if interrupted else (b"new",))
    assert at > 15


# As the file that a process is saved to


@pytest.fixture
def facets() -> Iterator[Facets]:
    """A child to be saved."""
    with Facets() as child:
        yield child


def test_an_exception_of_progress_leaves_no_file(facets: Facets, tmp_path: Path, way: str) -> None:
    """Of a process, of a held one and of a snapshot: what was at the path is as it was."""
    path = tmp_path / "core"
    path.write_bytes(b"old")

    class StopError(Exception):
        pass

    def stop(done: int, total: int) -> None:
        if done > total // 2:
            raise StopError

    with procvm.open(facets.pid) as process, process.snapshot() as snapshot:
        for subject in (process, snapshot):
            with pytest.raises(StopError):
                subject.save(path, progress=stop)
    with procvm.attach(facets.pid) as tracee:
        with pytest.raises(StopError):
            tracee.save(path, progress=stop)
        assert not tracee.is_stopped()
    assert os.listdir(tmp_path) == ["core"]
    assert path.read_bytes() == b"old"


def test_the_end_of_the_target_in_the_middle_leaves_no_file(tmp_path: Path, way: str) -> None:
    """A target that ends while it is saved: ProcessExitedError, and nothing written."""
    with Playground() as child, procvm.open(child.pid) as process:
        ended = False

        def end(done: int, total: int) -> None:
            nonlocal ended
            if not ended:
                ended = True
                child.popen.kill()
                child.popen.wait()

        with pytest.raises(procvm.ProcessExitedError):
            process.save(tmp_path / "core", progress=end)
    assert os.listdir(tmp_path) == []


def test_a_limit_of_the_size_of_files_leaves_no_file(
    facets: Facets, tmp_path: Path, way: str
) -> None:
    """RLIMIT_FSIZE: OSError EFBIG, and not the end of the tool."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with procvm.open(facets.pid) as process:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
        try:
            with pytest.raises(OSError, match="too large") as caught:
                process.save(tmp_path / "core")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.errno == errno.EFBIG
    assert os.listdir(tmp_path) == []


FULL = """
import errno, os, sys, procvm
with procvm.open(int(sys.argv[1])) as process:
    for again in range(2):
        try:
            process.save(sys.argv[2] + "/core")
        except OSError as error:
            assert error.errno == errno.ENOSPC, error
        else:
            raise SystemExit("there was room")
        assert os.listdir(sys.argv[2]) == ["old"], os.listdir(sys.argv[2])
    here = process.maps()[0]
    n = process.save(sys.argv[2] + "/old", [here])
    assert n == here.size
    with procvm.open_core(sys.argv[2] + "/old") as core:
        assert core.vm.read_bytes(here[0], 64) == process.vm.read_bytes(here[0], 64)
print("done")
"""


@as_root
@pytest.mark.skipif(shutil.which("unshare") is None, reason="not installed: unshare")
def test_a_full_file_system_is_left_as_it_was(facets: Facets, tmp_path: Path) -> None:
    """ENOSPC of a file system of its own, twice: nothing is left, and what fits then fits."""
    script = (
        f"mount -t tmpfs -o size=200k none {tmp_path} && echo old > {tmp_path}/old && "
        f'exec {sys.executable} -c "$0" {facets.pid} {tmp_path}'
    )
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, FULL],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("done\n", 0), done.stderr


VFAT = """
import os, sys, procvm
with procvm.open(int(sys.argv[1])) as process:
    process.save(sys.argv[2] + "/core", [process.maps()[0]])
assert os.listdir(sys.argv[2]) == ["core"]
with procvm.open_core(sys.argv[2] + "/core") as core:
    assert core.pid == int(sys.argv[1])
print("done")
"""


@as_root
@pytest.mark.skipif(shutil.which("unshare") is None, reason="not installed: unshare")
@pytest.mark.parametrize("kind", ["overlay", "ramfs"])
def test_other_file_systems(facets: Facets, tmp_path: Path, kind: str) -> None:
    """A file system that may have no files without a name: the same file."""
    (tmp_path / "at").mkdir()
    mount = {
        "overlay": f"mount -t tmpfs none {tmp_path} && cd {tmp_path} && "
        "mkdir lower upper work at && "
        f"mount -t overlay none -o lowerdir=lower,upperdir=upper,workdir=work at && cd {ROOT}",
        "ramfs": f"mount -t ramfs none {tmp_path}/at",
    }[kind]
    script = f'{mount} || exit 77; exec {sys.executable} -c "$0" {facets.pid} {tmp_path}/at'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, VFAT],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    if done.returncode == 77:
        pytest.skip(f"the kernel mounts no {kind}: {done.stderr}")
    assert (done.stdout, done.returncode) == ("done\n", 0), done.stderr


KILLED = """
import os, sys, time, procvm
def progress(done, total):
    print("half", flush=True)
    sys.stdin.read()
with procvm.open(int(sys.argv[1])) as process:
    process.save(sys.argv[2], progress=progress)
"""


@pytest.mark.parametrize("signo", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_tool_that_ends_in_the_middle_leaves_nothing(
    facets: Facets, tmp_path: Path, signo: signal.Signals
) -> None:
    """SIGKILL, Ctrl-C and SIGTERM while it writes: no file beside, and the old one as it was."""
    path = tmp_path / "core"
    path.write_bytes(b"old")
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(facets.pid), path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=ROOT,
    ) as tool:
        assert tool.stdout is not None
        assert tool.stdout.readline() == b"half\n"
        tool.send_signal(signo)
        tool.wait()
    assert os.listdir(tmp_path) == ["core"]
    assert path.read_bytes() == b"old"


READ_ONLY = """
import sys, procvm
with procvm.open(int(sys.argv[1])) as process:
    try:
        process.save(sys.argv[2], progress=lambda *_: print("it was read"))
    except OSError as error:
        print(type(error).__name__, error.filename)
"""


def saved_read_only(pid: int, folder: Path) -> str:
    """Saves to a folder that is mounted read-only; returns what was said."""
    script = f'mount -t tmpfs -o ro none {folder} && exec {sys.executable} -c "$0" {pid} {folder}/a'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, READ_ONLY],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    return done.stdout


@as_root
@pytest.mark.skipif(shutil.which("unshare") is None, reason="not installed: unshare")
def test_a_folder_that_can_not_be_written_is_said_first(facets: Facets, tmp_path: Path) -> None:
    """Before anything of the target is read: an OSError of the system."""
    assert saved_read_only(facets.pid, tmp_path).startswith("OSError ")


@as_root
@pytest.mark.skipif(shutil.which("unshare") is None, reason="not installed: unshare")
def test_an_error_names_the_path_that_was_given(facets: Facets, tmp_path: Path) -> None:
    """Which file could not be made is in the error."""
    assert saved_read_only(facets.pid, tmp_path) == f"OSError {tmp_path}/a\n"
