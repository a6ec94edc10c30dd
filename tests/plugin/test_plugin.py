"""The plugin in runs of pytest: its fixtures, its mark, and what it adds to a report."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.plugin.inner import ENVIRONMENT, OPTIONS

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[2]

# A page behind the end of a file, and names and bytes that mean something to a terminal.
C_SOURCE = r"""
#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>
int main(void)
{
    int fd = memfd_create("\x1b[31m\xe2\x80\xae", 0);
    ftruncate(fd, 4096);
    unsigned char *page = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    for (int k = 0; k < 256; k++) page[4096 - 256 + k] = k;
    prctl(PR_SET_NAME, "\x1b]0;x\x07\n) R 1");
    printf("%p\n", (void *)(page + 4096));
    fflush(stdout);
    pause();
}
"""


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """Runs with nothing of the project around them, and no other plugin."""
    pytester.makeini("[pytest]\n")
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    return pytester


def inside(run: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return run.runpytest_inprocess(*OPTIONS, *arguments)


def test_the_fixtures_are_there(run: pytest.Pytester) -> None:
    """Each fixture gives what docs/testing.md says, and a patch is undone before the end."""
    run.makepyfile(
        """
        import procvm
        from procvm.testing import Patches, Playgrounds, Spawner

        played = []

        def test_one(procvm_patch, procvm_playground, procvm_spawn, assert_unchanged, wait_until):
            assert type(procvm_spawn) is Spawner
            assert type(procvm_playground) is Playgrounds
            assert type(procvm_patch) is Patches
            playground = procvm_playground("rw r", counters=1)
            played.append(playground)
            procvm_patch(playground.process, playground["r"], b"new")
            assert playground.peek(playground["r"], 3) == b"new"
            with assert_unchanged(playground.process, playground.pages):
                word = playground.counters[0]
                assert wait_until(playground.process, word, procvm.u64, bool) > 0

        def test_two():
            assert played[0].process.returncode == -9
        """
    )
    inside(run).assert_outcomes(passed=2)


def test_the_plugin_is_installed_with_the_package(
    run: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is found by its entry point, with its fixtures, its mark and its option."""
    monkeypatch.delenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD")
    found = "\n".join(run.runpytest_inprocess("--fixtures").outlines)
    for fixture in ("procvm_spawn", "procvm_playground", "procvm_patch", "wait_until"):
        assert fixture in found
    assert "@pytest.mark.needs_ptrace" in "\n".join(run.runpytest_inprocess("--markers").outlines)
    assert "--procvm-strict" in "\n".join(run.runpytest_inprocess("--help").outlines)


def test_the_plugin_is_light() -> None:
    """To load it imports no part of procvm that `import procvm` does not, and no numpy."""
    script = (
        "import sys, procvm; before = set(sys.modules); import pytest; pytest_ = set(sys.modules);"
        "import procvm.pytest_plugin;"
        "print(sorted(set(sys.modules) - pytest_), [m for m in sys.modules if 'testing' in m"
        " and m.startswith('procvm')])"
    )
    found = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert found.stdout == "['procvm.pytest_plugin'] []\n"


FAULT = f"""
    import procvm
    import pytest

    C = {C_SOURCE!r}

    def start(spawn):
        process = spawn(C)
        return process, int(process.stdout.readline(), 16)

    def test_plain(procvm_spawn):
        process, end = start(procvm_spawn)
        process.vm.read_bytes(end - 16, 32)

    def test_chained(procvm_spawn):
        process, end = start(procvm_spawn)
        try:
            process.vm.write_val(end, procvm.u64, 1)
        except procvm.ProcvmError as error:
            raise RuntimeError("the queue is broken") from error
    """


def text_of(result: pytest.RunResult) -> str:
    text = str(result.stdout)
    assert text.replace("\n", "").isprintable(), ascii(text)
    return text


def test_a_fault_is_shown_with_what_is_around_it(run: pytest.Pytester) -> None:
    """The mappings, where the fault is among them, and the bytes that can be read, all escaped."""
    run.makepyfile(FAULT)
    result = inside(run, "-k", "plain")
    result.assert_outcomes(failed=1)
    lines = text_of(result).splitlines()
    (title,) = [k for k, line in enumerate(lines) if "procvm: page fault at 0x" in line]
    assert lines[title].startswith("---")
    end = int(lines[title].split()[5], 16)
    assert lines[title + 1] == f"mappings around {end:#x}:"
    mark = f"> {end - 4096:#x}-{end + 4096:#x} rw-s 00000000 "
    (fault,) = [k for k, line in enumerate(lines) if line.startswith(mark)]
    assert title + 1 < fault < title + 6
    assert lines[fault].endswith(r" /memfd:\x1b[31m\u202e (deleted)")
    dump = lines.index(f"what can be read from {end - 128:#x} to {end + 128:#x}:")
    for k in range(8):
        cells = [f"{0x80 + 16 * k + n:02x}" for n in range(16)]
        digits = f"{' '.join(cells[:8])}  {' '.join(cells[8:])}"
        assert lines[dump + 1 + k] == f"{end - 128 + 16 * k:#018x}  {digits}  |{'.' * 16}|"
    assert lines[dump + 9] == f"{end:#018x}  128 bytes cannot be read: rw-s file"
    assert len(lines) < 120


def test_the_processes_of_a_failed_test_are_told(run: pytest.Pytester) -> None:
    """Each with its name, escaped, and its state; one that crashed with its signal."""
    run.makepyfile(
        f"""
        C = {C_SOURCE!r}

        def test_it(procvm_spawn):
            named = procvm_spawn(C)
            named.stdout.readline()
            held = procvm_spawn(["sleep", "1000"], stopped=True)
            crashed = procvm_spawn(["sh", "-c", "kill -SEGV $$"], traced=False)
            crashed.wait()
            done = procvm_spawn(["true"])
            done.wait()
            print("pids", named.pid, held.pid, crashed.pid, done.pid)
            assert 0
        """
    )
    result = inside(run)
    result.assert_outcomes(failed=1)
    lines = text_of(result).splitlines()
    (pids,) = [line.split()[1:] for line in lines if line.startswith("pids")]
    (title,) = [k for k, line in enumerate(lines) if "- procvm: processes of the test -" in line]
    named, held, crashed, done = lines[title + 1 : title + 5]
    name = rf"{pids[0]} (\x1b]0;x\x07\x0a) R 1)"
    assert named in (f"{name}: sleeping", f"{name}: running")
    assert held == f"{pids[1]} (sleep): held"
    assert crashed == f"{pids[2]}: ended by SIGSEGV"
    assert done == f"{pids[3]}: ended with status 0"


def test_a_fault_is_found_wherever_it_is_in_the_chain(run: pytest.Pytester) -> None:
    """A cause, a context, a group: the fault is shown, each one once."""
    run.makepyfile(
        FAULT
        + """
    def test_grouped(procvm_spawn):
        process, end = start(procvm_spawn)
        try:
            process.vm.read_bytes(end, 1)
        except procvm.ProcvmError as error:
            raise ExceptionGroup("several", [KeyError(1), error])
        """
    )
    result = inside(run, "-k", "chained or grouped")
    result.assert_outcomes(failed=2)
    assert text_of(result).count("- procvm: page fault at 0x") == 2


def test_how_much_is_shown_can_be_set(run: pytest.Pytester) -> None:
    """`procvm_dump_len = 0` shows mappings, and no byte of the target."""
    run.makepyfile(FAULT)
    result = inside(run, "-k", "plain", "-o", "procvm_dump_len=0")
    text = text_of(result)
    assert "mappings around" in text
    assert "what can be read" not in text
    result = inside(run, "-k", "plain", "-o", "procvm_dump_len=32")
    text = text_of(result)
    assert sum(line.endswith("|") for line in text.splitlines()) == 1
    assert text.count("  16 bytes cannot be read: rw-s file") == 1


def test_a_process_of_the_tests_own_is_shown_too(run: pytest.Pytester) -> None:
    """One that a variable of the test has open; of one that was closed nothing is looked at."""
    run.makepyfile(
        """
        import subprocess
        import procvm
        import pytest

        @pytest.fixture
        def child():
            with subprocess.Popen(["sleep", "1000"]) as child:
                yield child
                child.kill()

        @pytest.fixture
        def process(child):
            with procvm.open(child.pid) as process:
                yield process

        def test_open(process):
            try:
                process.vm.read_bytes(8, 1)
            except procvm.PageFaultError:
                assert process is None

        def test_closed(child):
            with procvm.open(child.pid) as process:
                process.vm.read_bytes(8, 1)
        """
    )
    result = inside(run)
    result.assert_outcomes(failed=2)
    lines = text_of(result).splitlines()
    first, second = (k for k, line in enumerate(lines) if "- procvm: page fault at 0x8 of" in line)
    assert lines[first + 2] == "> 0x00000008  not mapped"
    assert lines[second + 1].startswith("(no memory is shown: no fixture started the process")


def test_a_broken_target_breaks_no_report(run: pytest.Pytester) -> None:
    """What became of a target is said, and the test's own failure stands."""
    run.makepyfile(
        """
        import procvm

        def test_killed(procvm_playground):
            playground = procvm_playground("none")
            try:
                playground.vm.read_bytes(playground.base, 1)
            finally:
                playground.tracee.kill()

        def test_execs(procvm_spawn):
            process = procvm_spawn(["sh", "-c", "read x; echo; exec sleep 1000"])
            try:
                process.vm.read_bytes(8, 1)
            finally:
                process.stdin.write(b"x\\n")
                process.stdin.flush()
                process.stdout.read(1)
                while b"sleep" not in open(f"/proc/{process.pid}/cmdline", "rb", 0).readall():
                    pass

        def test_lies(procvm_playground):
            playground = procvm_playground("rw")
            raise procvm.PageFaultError("made up", address=-5, pid=playground.pid)
        """
    )
    result = inside(
        run,
        "-W",
        "ignore::ResourceWarning",
        "-W",
        "ignore::pytest.PytestUnraisableExceptionWarning",
    )
    result.assert_outcomes(failed=3)
    text = text_of(result)
    assert "(ProcessExitedError: process " in text
    assert "(ProcessExecedError: process " in text
    assert "made up" in text


PTRACE = """
    import pytest

    @pytest.mark.needs_ptrace
    def test_it(procvm_spawn):
        assert procvm_spawn(["true"]).wait() == 0

    def test_other(procvm_spawn):
        assert procvm_spawn(["true"], traced=False).wait() == 0
    """

FILTER = f"""
    import errno, sys
    sys.path.insert(0, {str(ROOT)!r})
    from tests.faults import tool
    tool.seccomp({{"ptrace": errno.EPERM}})
    """


def test_needs_ptrace_runs_where_it_is_allowed(run: pytest.Pytester) -> None:
    """The mark changes nothing there, and is known to --strict-markers."""
    run.makepyfile(PTRACE)
    inside(run, "--strict-markers").assert_outcomes(passed=2)


@pytest.mark.parametrize("strict", [False, True])
def test_needs_ptrace_where_it_is_refused(run: pytest.Pytester, strict: bool) -> None:
    """The test is skipped with the reason, or is an error with it; the others run."""
    run.makepyfile(PTRACE)
    run.makeconftest(FILTER)
    result = run.runpytest_subprocess(*OPTIONS, *["--procvm-strict"] * strict)
    if strict:
        result.assert_outcomes(passed=1, errors=1)
    else:
        result.assert_outcomes(passed=1, skipped=1)
    assert "ptrace is not allowed here: holding a child: AccessDeniedError" in str(result.stdout)
    assert "allow ptrace in the seccomp filter of the tool" in str(result.stdout)


@pytest.mark.parametrize("strict", [False, True])
def test_without_a_compiler(
    run: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, strict: bool
) -> None:
    """What needs a compiler is skipped, or fails; a list as a command needs none."""
    monkeypatch.setenv("CC", "no-such-compiler")
    run.makepyfile(
        """
        def test_source(procvm_spawn):
            procvm_spawn("int main(void) { return 0; }")

        def test_playground(procvm_playground):
            procvm_playground("rw")

        def test_command(procvm_spawn):
            procvm_spawn(["true"])
        """
    )
    result = inside(run, *["--procvm-strict"] * strict)
    if strict:
        result.assert_outcomes(passed=1, failed=2)
    else:
        result.assert_outcomes(passed=1, skipped=2)
    assert "the C compiler of CC, no-such-compiler, does not start" in text_of(result)


def test_without_the_cache_plugin(
    run: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Programs are kept in the user's folder then."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    run.makepyfile(
        """
        def test_it(procvm_spawn):
            assert procvm_spawn("int main(void) { return 9; }").wait() == 9
        """
    )
    inside(run, "-p", "no:cacheprovider").assert_outcomes(passed=1)
    assert len(list((tmp_path / "procvm" / "programs").iterdir())) == 2
