"""Files on a file system that a process serves (FUSE), which may stop to answer."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import procvm
from procvm._linux.mounts import read_mounts
from procvm._symbols.mapped_file import SlowFiles
from tests.process.linked import TELL, WAIT, Told, built

ROOT = Path(__file__).parents[2]
SERVER = r"""
#define FUSE_USE_VERSION 31
#include <errno.h>
#include <fcntl.h>
#include <fuse.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
/* One folder, shown again; from when a file called "hang" is in it, nothing is answered. */
static int folder;
static void answer(void) { while (!faccessat(folder, "hang", F_OK, 0)) pause(); }
static const char *in(const char *path) { return path[1] ? path + 1 : "."; }
static int look(const char *path, struct stat *at, struct fuse_file_info *file)
{
    answer();
    return fstatat(folder, in(path), at, 0) ? -errno : 0;
}
static int begin(const char *path, struct fuse_file_info *file)
{
    answer();
    int fd = openat(folder, in(path), O_RDONLY);
    file->fh = fd;
    return fd < 0 ? -errno : 0;
}
static int give(const char *path, char *to, size_t n, off_t at, struct fuse_file_info *file)
{
    answer();
    ssize_t done = pread(file->fh, to, n, at);
    return done < 0 ? -errno : done;
}
static const struct fuse_operations calls = { .getattr = look, .open = begin, .read = give };
int main(int argc, char **argv)
{
    folder = open(argv[argc - 1], O_RDONLY);
    return fuse_main(argc - 1, argv, &calls, NULL);
}
"""


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """A folder, and the place where a server shows it again."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK) or shutil.which("fusermount3") is None:
        pytest.skip("needs /dev/fuse, and fusermount3 of the package fuse3")
    try:
        flags = subprocess.check_output(["pkg-config", "--cflags", "--libs", "fuse3"], text=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not installed: the headers of FUSE (libfuse3-dev)")
    server = built(tmp_path, "server", SERVER, *flags.split())
    folder, place = tmp_path / "folder", tmp_path / "place"
    folder.mkdir()
    place.mkdir()
    with subprocess.Popen([server, "-f", place, folder], stderr=subprocess.PIPE) as process:
        try:
            while not os.path.ismount(place):
                if process.poll() is not None:
                    assert process.stderr is not None
                    pytest.skip(f"cannot mount: {process.stderr.read().decode().strip()}")
            yield folder, place
        finally:
            process.kill()  # what waits for an answer gets an error
            process.wait()
            subprocess.run(["fusermount3", "-u", "-z", place], check=False)


SOURCE = f"""#include <fcntl.h>
#include <sys/mman.h>
{TELL}
int own = 5; int main(int argc, char **argv) {{
    int fd = open(argv[1], O_RDONLY); long n = lseek(fd, 0, SEEK_END);
    char *data = mmap(0, n, PROT_READ, MAP_PRIVATE, fd, 0);
    char *code = mmap(0, n, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0);
    TELL(&own); TELL(data); TELL(code); {WAIT}
"""
TOOL = """
import sys, procvm
pid, own, data, code = (int(word, 16) for word in sys.argv[1:])
with procvm.open(pid) as process:
    for _ in range(2):
        assert process.symbol("own") == own
        assert process.describe(own) == "maps-it!own"
        for at in (data, code):
            assert process.describe(at + 64).startswith("libslow.so+0x"), process.describe(at + 64)
        for name in ("no_such", "libslow.so!value", "no-file!value"):
            try:
                raise AssertionError(process.symbol(name))
            except procvm.NoSuchSymbolError as error:
                print(error)
        print([str(vma) for vma in process.mappings_of("libslow.so")])
"""


def test_names_of_a_target_whose_file_server_hangs_are_answered(
    served: tuple[Path, Path], tmp_path: Path
) -> None:
    """Neither symbol nor describe waits for it, whether the file is mapped to be run or read."""
    folder, place = served
    built(folder, "libslow.so", "int value = 5;", "-shared", "-fPIC")
    program = built(tmp_path, "maps-it", SOURCE)
    with Told(program, place / "libslow.so") as child:
        (folder / "hang").touch()
        numbers = [f"{child.at[name]:x}" for name in ("&own", "data", "code")]
        command = [sys.executable, "-c", TOOL, f"{child.pid:x}", *numbers]
        # A tool of its own, as one that hangs could not even be killed.
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False
        )
        (folder / "hang").unlink()
        assert not done.returncode, done.stderr
        assert "libslow.so cannot be read" in done.stdout


def test_names_of_a_library_on_a_served_file_system_are_known(
    served: tuple[Path, Path], tmp_path: Path
) -> None:
    """As long as the server answers the file is copied by a helper, and names are as elsewhere."""
    folder, place = served
    body = "int value = 5; static int kept = 6; int *kept_at(void) { return &kept; }"
    built(folder, "libslow.so", body, "-shared", "-fPIC")
    source = f"{TELL} extern int value; int *kept_at(void);"
    source += f"int main(void) {{ TELL(&value); TELL(kept_at()); {WAIT}"
    flags = ("-fPIC", f"-L{folder}", "-lslow", f"-Wl,-rpath,{place}")
    with Told(built(tmp_path, "uses", source, *flags)) as child:
        with procvm.open(child.pid) as process:
            vma = process.maps().filter(name="libslow.so")[0]
            files = SlowFiles(child.pid)
            assert files.is_slow(vma)
            assert process.symbol("value") == child.at["&value"]
            assert process.symbol("libslow.so!kept") == child.at["kept_at()"]
            assert process.describe(child.at["kept_at()"]) == "libslow.so!kept"
            assert not files.is_slow(process.maps().filter(name="uses")[0])
        slow = SlowFiles()
        assert slow.is_slow_path(str(place / "libslow.so"))
        assert not slow.is_slow_path(str(folder / "libslow.so"))
        assert any(one.dev == vma.dev and one.kind.startswith("fuse") for one in read_mounts())
