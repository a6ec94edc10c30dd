"""Processes that a spawner starts: from commands and C source, traced or not."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import procvm
from procvm.testing import CompilerError, Spawned, Spawner
from procvm.testing import keeper as keepers
from tests.plugin.processes import children_of_ours, is_gone, state_of

GREETER = r"""
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
static unsigned long word = 0x1122334455667788;
int main(int argc, char **argv)
{
    const char *name = getenv("NAME");
    printf("%p %s %s\n", (void *)&word, argc > 1 ? argv[1] : "", name ? name : "");
    fflush(stdout);
    getchar();
    return 7;
}
"""


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of compiled programs, the same for all of these tests."""
    return tmp_path_factory.mktemp("programs")


@pytest.fixture
def spawn(programs: Path) -> Iterator[Spawner]:
    """A spawner; after the test nothing of it is left."""
    before = children_of_ours()
    with Spawner(programs) as spawner:
        yield spawner
    assert children_of_ours() == before


@pytest.mark.parametrize("traced", [True, False])
def test_c_source_is_compiled_and_started(spawn: Spawner, traced: bool) -> None:
    """A string is C source: arguments, variables and pipes reach it, and its memory is read."""
    process = spawn(GREETER, args=["one"], env={"NAME": "two"}, traced=traced)
    assert type(process) is (procvm.Tracee if traced else Spawned)
    address, *words = process.stdout.readline().split()
    assert words == [b"one", b"two"]
    assert process.vm.read_val(int(address, 16), procvm.u64) == 0x1122334455667788
    process.stdin.close()
    assert process.wait() == 7
    assert process.returncode == 7
    assert process.poll() == 7


def test_a_file_of_c_source_is_a_program_too(spawn: Spawner, tmp_path: Path) -> None:
    """A path that ends in .c is compiled, with the flags that are given."""
    source = tmp_path / "status.c"
    source.write_text("int main(void) { return STATUS; }")
    assert spawn(source, cflags=["-DSTATUS=5"]).wait() == 5
    assert spawn(source, cflags=["-DSTATUS=6"]).wait() == 6


def test_a_list_is_a_command(spawn: Spawner, tmp_path: Path) -> None:
    """Its standard streams and its folder can be given as to subprocess.Popen."""
    with (tmp_path / "out").open("wb") as out:
        process = spawn(["pwd"], stdout=out, cwd=tmp_path, traced=False)
        assert process.stdout is None
        assert process.wait() == 0
    assert (tmp_path / "out").read_text() == f"{tmp_path}\n"


def test_stopped_is_held_at_the_first_instruction(spawn: Spawner) -> None:
    """It has run nothing, for as long as the test likes, and goes on with `resume`."""
    process = spawn(GREETER, stopped=True)
    assert process.is_stopped()
    assert len(process.maps().filter(name="libc.so.6")) == 0
    process.resume()
    assert process.stdout.readline().startswith(b"0x")


def test_a_held_and_a_stopped_process_end(programs: Path) -> None:
    """Whatever state they are in, all are ended and reaped, and so are their descendants."""
    with Spawner(programs) as spawn:
        held = spawn(["sleep", "1000"])
        held.stop()
        stopped = spawn(["sleep", "1000"], traced=False)
        os.kill(stopped.pid, signal.SIGSTOP)
        parent = spawn(["sh", "-c", "sleep 1000 & setsid sleep 1000 & echo $$ $!; wait"])
        pids = [*map(int, parent.stdout.readline().split()), held.pid, stopped.pid]
        assert spawn.children == [held, stopped, parent]
        closed = spawn(["sleep", "1000"])
        closed.close()
        pids.append(closed.pid)
    for pid in pids:
        assert is_gone(pid), state_of(pid)
    assert held.returncode == stopped.returncode == closed.returncode == -signal.SIGKILL


def test_a_process_that_has_ended_is_fine(spawn: Spawner) -> None:
    """What the test ended, waited for or closed itself is ended no second time."""
    with spawn(["sleep", "1000"]) as first:
        pass
    assert first.returncode == -signal.SIGKILL
    second = spawn(["true"], traced=False)
    assert second.wait() == 0
    third = spawn(["sleep", "1000"], traced=False)
    third.kill()
    os.waitpid(third.pid, 0)
    fourth = spawn(["cat"])
    fourth.stdin.write(b"never flushed")


def test_one_that_ends_before_it_is_opened_has_no_memory(spawn: Spawner) -> None:
    """Its status is there, and its memory is a ProcessExitedError, however quick it was."""
    for _ in range(10):
        process = spawn(["sh", "-c", "echo done; exit 4"], traced=False)
        assert process.stdout.read() == b"done\n"
        assert process.wait() == 4
        assert not process.is_alive()
        assert repr(process).startswith(f"<Spawned {process.pid}")
        with pytest.raises(procvm.ProcessExitedError):
            process.vm.read_bytes(4096, 1)
        with pytest.raises(procvm.ProcessExitedError):
            process.maps()
        with pytest.raises(AttributeError):
            process.no_such_thing  # type: ignore[attr-defined]
        process.close()


def test_wait_says_when_it_takes_too_long(spawn: Spawner) -> None:
    """A process that does not end in time is a WaitTimeoutError."""
    with pytest.raises(procvm.WaitTimeoutError, match=r"has not ended within 0\.01 s"):
        spawn(["sleep", "1000"], traced=False).wait(0.01)


@pytest.mark.parametrize("traced", [True, False])
def test_what_can_not_be_started_says_so(spawn: Spawner, traced: bool) -> None:
    """A program that is not there is a FileNotFoundError, and nothing is left of it."""
    with pytest.raises(FileNotFoundError, match="no-such-program"):
        spawn(["no-such-program"], traced=traced)
    assert spawn.children == []


def test_misuse_is_told(spawn: Spawner) -> None:
    """What can not be meant is a ValueError that says what to do."""
    with pytest.raises(ValueError, match=r"give a command as a list: \['sleep 1'\]"):
        spawn("sleep 1")
    with pytest.raises(ValueError, match="stopped=True needs a tracee"):
        spawn(["true"], traced=False, stopped=True)
    with pytest.raises(ValueError, match="cflags and language are for source"):
        spawn(["true"], cflags=["-lm"])
    closed = Spawner()
    closed.close()
    closed.close()
    with pytest.raises(ValueError, match="the spawner was closed"):
        closed(["true"])


def test_source_that_does_not_compile_shows_why(spawn: Spawner) -> None:
    """The message is the compiler's, and printable."""
    with pytest.raises(CompilerError) as caught:
        spawn('int main(void) { return "\x1b[31m" + oops; }')
    text = str(caught.value)
    assert "oops" in text
    assert "error:" in text
    assert text.replace("\n", "").isprintable()


def test_without_a_compiler_the_reason_is_told(
    spawn: Spawner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a compiler in the path, nor the one that CC names."""
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(procvm.UnsupportedError, match="no C compiler: install one"):
        spawn(GREETER)
    monkeypatch.setenv("CC", "no-such-cc")
    with pytest.raises(procvm.UnsupportedError, match="no-such-cc, does not start"):
        spawn(GREETER)


def test_a_program_is_compiled_once(programs: Path, tmp_path: Path) -> None:
    """The same source and flags are the same program; others are not; nothing else is left."""
    cache = tmp_path / "cache"
    with Spawner(cache) as spawn:
        source = "int main(void) { return 0; }"
        spawn(source).wait()
        (program,) = (path for path in cache.iterdir() if not path.suffix)
        made = program.stat()
        spawn(source).wait()
        assert program.stat().st_ino == made.st_ino
        spawn(source, cflags=["-O2"]).wait()
    assert sorted(path.suffix for path in cache.iterdir()) == ["", "", ".c", ".c"]
    assert program.with_name(f"{program.name}.c").read_text() == source


def test_the_programs_of_a_user_are_kept_in_his_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a folder it is that of XDG_CACHE_HOME, which nobody else can read."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with Spawner() as spawn:
        assert spawn("int main(void) { return 3; }").wait() == 3
    folder = tmp_path / "procvm" / "programs"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert len(list(folder.iterdir())) == 2


def test_another_keeper_takes_over(spawn: Spawner) -> None:
    """A keeper that was killed is noticed at the next start, and the new one knows all."""
    first = spawn(["sleep", "1000"])
    old = keepers.keeper()
    (pid,) = _keepers()
    os.kill(pid, signal.SIGKILL)
    while old.alive():
        pass
    second = spawn(["sleep", "1000"], traced=False)
    new = keepers.keeper()
    assert new is not old
    assert set(new.kept) >= {first.pid, second.pid}
    assert len(_keepers()) == 1


def _keepers() -> list[int]:
    """Returns the keepers of this process: each has its pid as an argument."""
    run = subprocess.run(
        ["ps", "-ww", "-eo", "pid,args"], capture_output=True, text=True, check=True
    )
    words = [line.split() for line in run.stdout.splitlines() if "keeper_process.py" in line]
    return [int(line[0]) for line in words if line[-2] == str(os.getpid())]


def test_a_forked_child_ends_nothing(spawn: Spawner) -> None:
    """A child of the test process that leaves the ``with`` as well has no part in it."""
    process = spawn(["sleep", "1000"])
    pid = os.fork()
    if pid == 0:
        spawn.close()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert process.is_alive()
    assert state_of(process.pid) in ("S", "R", "D")
