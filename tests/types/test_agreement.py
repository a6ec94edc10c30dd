"""Symbols, variables and stacks of real programs, which must be as gdb has them."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import procvm
from procvm import AmbiguousSymbolError
from procvm._base.spellings import without_templates
from tests.elf.cores import GDB, gcore
from tests.support.child import Child
from tests.support.patience import eventually
from tests.support.procfs import states
from tests.types.agreement import ask_gdb, plain, same_symbol

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(GDB is None, reason="not installed: gdb"),
]

_NR_SYMBOLS, _NR_VARIABLES = 200, 50

_PYTHON = """
import ctypes, json, threading, sys
waiting = threading.Event()
threading.Thread(target=waiting.wait, daemon=True).start()
print("ready", flush=True)
sys.stdin.read()
"""
_CPP = """
#include <iostream>
#include <map>
#include <string>
#include <thread>
#include <unistd.h>
namespace game {
struct Score {
    int points = 3;
    virtual ~Score() {}
    __attribute__((noinline)) virtual int wait(int rounds);
};
std::map<std::string, Score> scores;
int Score::wait(int rounds)
{
    char byte;
    while (read(0, &byte, 1) > 0) rounds += points;
    return rounds;
}
template <class T> __attribute__((noinline)) T twice(T value)
{
    return value + scores["a"].wait(2);
}
}
int main()
{
    std::thread other([] { for (;;) pause(); });
    std::cout << "ready" << std::endl;
    _exit(game::twice<long>(1));
}
"""
_RUST = """
use std::io::{Read, Write};
mod inner {
    pub static LEVEL: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(7);
    #[inline(never)]
    pub fn wait(rounds: u64) -> u64 {
        let mut byte = [0u8; 1];
        let mut sum = rounds;
        while super::Read::read(&mut std::io::stdin(), &mut byte).unwrap() > 0 { sum += 1; }
        sum + LEVEL.load(std::sync::atomic::Ordering::SeqCst)
    }
}
fn main() {
    std::thread::spawn(|| loop { std::thread::park(); });
    println!("ready");
    std::io::stdout().flush().unwrap();
    let sum = inner::wait(5);
    std::process::exit(sum as i32);
}
"""
_GO = """
package main
import ("fmt"; "os")
var Total = 9
type Score struct{ Points int }
//go:noinline
func (s *Score) Wait(n int) int {
    b := make([]byte, 1)
    for { k, _ := os.Stdin.Read(b); if k == 0 { return n + Total }; n += s.Points }
}
func main() { fmt.Println("ready"); fmt.Println((&Score{3}).Wait(2)) }
"""
_NGINX = """
events {}
http { access_log off; server { listen unix:FOLDER/socket; }
  client_body_temp_path FOLDER/1; proxy_temp_path FOLDER/2; fastcgi_temp_path FOLDER/3;
  uwsgi_temp_path FOLDER/4; scgi_temp_path FOLDER/5; }
"""


def _compile(folder: Path, tool: str, source: str, name: str, *argv: str) -> list[str]:
    (folder / name).write_text(source)
    env = {**os.environ, "GOCACHE": str(folder / "cache"), "GO111MODULE": "off"}
    subprocess.run([tool, *argv, name], cwd=folder, check=True, env=env)
    return [str(folder / "program")]


def _python(folder: Path) -> list[str]:
    del folder
    return [sys.executable, "-c", _PYTHON]


def _cpp(folder: Path) -> list[str]:
    return _compile(folder, "g++", _CPP, "p.cc", "-g", "-O1", "-pthread", "-o", "program")


def _rust(folder: Path) -> list[str]:
    return _compile(folder, "rustc", _RUST, "p.rs", "-g", "-o", "program")


def _go(folder: Path) -> list[str]:
    return _compile(folder, "go", _GO, "p.go", "build", "-o", "program")


def _redis(folder: Path) -> list[str]:
    where = ("--port", "0", "--unixsocket", str(folder / "socket"), "--dir", str(folder))
    return ["redis-server", *where, "--save", ""]


def _nginx(folder: Path) -> list[str]:
    (folder / "conf").write_text(_NGINX.replace("FOLDER", str(folder)))
    log = str(folder / "log")
    main = f"daemon off; master_process off; pid {folder}/pid; error_log {log};"
    return ["nginx", "-p", str(folder), "-e", log, "-c", str(folder / "conf"), "-g", main]


_PROGRAMS: dict[str, tuple[str, Callable[[Path], list[str]]]] = {
    "python": ("python3", _python),
    "cpp": ("g++", _cpp),
    "rust": ("rustc", _rust),
    "go": ("go", _go),
    "redis": ("redis-server", _redis),
    "nginx": ("nginx", _nginx),
}


@contextmanager
def _running(name: str, folder: Path) -> Iterator[int]:
    tool, argv_of = _PROGRAMS[name]
    path = f"{os.environ['PATH']}:/usr/sbin:/usr/local/go/bin"
    if shutil.which(tool, path=path) is None:
        pytest.skip(f"not installed: {tool}")
    argv = argv_of(folder)
    argv[0] = shutil.which(argv[0], path=path) or argv[0]
    with Child(argv) as child:
        if (folder / "conf").exists() or tool == "redis-server":
            request = b"PING\r\n" if tool == "redis-server" else b"GET / HTTP/1.0\r\n\r\n"
            assert eventually(lambda: _answers(folder / "socket", request))
        else:
            assert child.line() == "ready"
        # A thread that is being born has no stack yet on which the two could agree.
        assert eventually(lambda: set(states(child.pid).values()) == {"S"})
        yield child.pid


def _answers(path: Path, request: bytes) -> bool:
    """Returns whether a server is past its start."""
    with socket.socket(socket.AF_UNIX) as line:
        try:
            line.connect(str(path))
            line.sendall(request)
            return bool(line.recv(100))
        except OSError:
            return False


@pytest.fixture(params=_PROGRAMS)
def pid(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[int]:
    with _running(request.param, tmp_path) as pid:
        yield pid


def test_random_symbols_are_as_gdb_has_them(pid: int) -> None:
    """Each address has the name that gdb gives it, each name an address that gdb gives it."""
    with procvm.open(pid) as process:
        listed = list(process.symbols("*"))
        resolved = {one.name.partition("@")[0] for one in listed if "@ifunc" in one.name}
        every = [one for one in listed if one.module != "[vdso]" and one.name.isprintable()]
        every = [one for one in every if not {"@", "'"} & {*one.name}]
        rows = random.Random(5).sample(every, min(_NR_SYMBOLS, len(every)))
        said = ask_gdb(pid, [one.address for one in rows], [one.name for one in rows])
        wrong = [
            (str(process.describe(one.address)), answer)
            for one, answer in zip(rows, said.symbols, strict=True)
            if not same_symbol(process, one.address, answer)
        ]
        assert not wrong
        for one, address in zip(rows, said.addresses, strict=True):
            if address is None:
                continue
            if one.name in resolved:
                continue  # procvm tells the function that was chosen
            every_one = {other.address for other in process.symbols(one.name)}
            try:
                mine = {process.symbol(one.name)}
            except AmbiguousSymbolError as error:
                mine = {other.address for other in error.candidates}
            # gdb takes any of several files, and procvm the one that the linker takes.
            assert mine <= every_one, one.name
            assert address in every_one, one.name
            if len(every_one) == 1:
                assert mine == {address}, one.name


def test_stacks_of_all_threads_are_as_gdb_has_them(pid: int) -> None:
    """The same return addresses; of the functions at least 95 % have the same name."""
    # Without this, threads that wake up by themselves are elsewhere when gdb comes.
    os.kill(pid, signal.SIGSTOP)
    assert eventually(lambda: set(states(pid).values()) == {"T"})
    wrong: list[object] = []
    for _ in range(5):
        # Where one of the two lets a thread finish a system call, the next look has it again.
        same, wrong = _compared(pid)
        if same >= 0.95 * (same + len(wrong)):
            return
    pytest.fail(f"{same} frames are the same, others not: {wrong}")


def _compared(pid: int) -> tuple[int, list[object]]:
    """Returns how many frames are as gdb has them, and those that are not."""
    with procvm.attach(pid) as tracee:
        mine = tracee.stacks()
    said = ask_gdb(pid).stacks
    same, wrong = 0, list[object]()
    for tid, frames in said.items():
        # drgn finds inlined functions of C only, and goes on to the start of a thread.
        own = [one for one in mine[tid] if not one.is_inline]
        # gdb ends at main, and guesses where a stack has no more frames: one at 0 is none.
        theirs = [one for one in frames if one[0] and not one[2]]
        for frame, (address, name, _) in zip(own, theirs, strict=False):
            if frame.address == address and _is_same(frame.function, name):
                same += 1
            else:
                wrong.append((tid, str(frame), hex(address), name))
        wrong += theirs[len(own) :]
    return same, wrong


def _is_same(mine: str | None, name: str | None) -> bool:
    if name is None or mine is None:
        return name is None
    if _short(mine) == _short(name):
        return True
    # Debug information of Rust numbers what its mangled names spell out.
    return ("{" in name or "<" in mine) and _last(mine) == _last(name)


def _short(name: str) -> str:
    """Returns a name without arguments, and without what libc's aliases have in front."""
    name = without_templates(name.partition("(")[0])
    return name.partition("@")[0].lstrip("_").removeprefix("GI_").lstrip("_")


def _last(name: str) -> str:
    last = without_templates(name).removesuffix("::").rpartition("::")[2]
    return "closure" if "{closure" in last else last


_TYPES = {
    "char {}": "{}",
    "unsigned char {}": "{}",
    "short {}": "-{}",
    "long {}": "-{}000000007",
    "unsigned long {}": "0xfedcba9876543200ul + {}",
    "float {}": "{}.5f",
    "double {}": "-{}.125",
    "bool {}": "{} & 1",
    "int *{}": "(int *)(0x1000l + {})",
    "enum colour {}": "{} & 1 ? BLUE : RED",
    "unsigned char {}[8]": '"ab{}"',
    "int {}[3][2]": "{{{{1, 2}}, {{3, {}}}, {{5, 6}}}}",
    "struct pair {}": "{{{}, -1.5}}",
    "struct pair {}[2]": "{{{{{}, 2.5}}, {{4, 8}}}}",
    "struct bits {}": "{{1, 9, -3, {{.whole = {}}}}}",
    "word_t {}": "{}",
}
_VARIABLES = """
#include <stdbool.h>
#include <stdio.h>
#include <unistd.h>
enum colour {{ RED, BLUE = 9 }};
typedef unsigned short word_t;
struct pair {{ int first; double second; }};
union both {{ int whole; word_t half[2]; }};
struct bits {{ unsigned one : 1, five : 5; int six : 6; union both in; }};
{}
int main(void)
{{
    char byte;
    puts("ready"); fflush(stdout);
    return (int)read(0, &byte, 1);
}}
"""


@pytest.mark.parametrize("compiler", ["cc", "g++"])
def test_random_variables_are_as_gdb_has_them(tmp_path: Path, compiler: str) -> None:
    """Numbers, floats, enumerators, pointers, bit fields, arrays, structures and unions."""
    if shutil.which(compiler) is None:
        pytest.skip(f"not installed: {compiler}")
    some = random.Random(7)
    kinds = [some.choice([*_TYPES]) for _ in range(_NR_VARIABLES)]
    names = [f"v{k}" for k in range(_NR_VARIABLES)]
    lines = [
        f"{some.choice(['', 'static volatile '])}{kind.format(name)} = "
        f"{_TYPES[kind].format(some.randrange(100))};"
        for kind, name in zip(kinds, names, strict=True)
    ]
    suffix = "c" if compiler == "cc" else "cc"
    (tmp_path / f"p.{suffix}").write_text(_VARIABLES.format("\n".join(lines)))
    subprocess.run([compiler, "-g", "-w", "-o", "program", f"p.{suffix}"], cwd=tmp_path, check=True)
    with Child([str(tmp_path / "program")]) as child:
        assert child.line() == "ready"
        said = ask_gdb(child.pid, variables=names).values
        with procvm.attach(child.pid) as tracee, tracee.stopped():
            found = [plain(tracee.value(name)) for name in names]
        for name, kind, mine, theirs in zip(names, kinds, found, said, strict=True):
            # procvm ends a text at its NUL.
            rest = [0] * (len(theirs) - len(mine)) if isinstance(mine, list) else None
            assert theirs == (mine if rest is None else mine + rest), (name, kind)


def test_same_lines_live_in_a_snapshot_and_in_cores(tmp_path: Path) -> None:
    """Symbols, variables and stacks by one script: live, snapshot, own core, core of gcore."""
    (tmp_path / "build").mkdir()
    with _running("cpp", tmp_path / "build") as pid:
        with procvm.attach(pid) as tracee:
            live = _told(tracee)
            snapshot = tracee.snapshot()
            tracee.save(tmp_path / "own")
        theirs = gcore(pid, tmp_path / "theirs")
        with snapshot:
            assert _told(snapshot) == live
        for path in (tmp_path / "own", theirs):
            with procvm.open_core(path) as core:
                assert _told(core) == live
        assert any("game::Score::wait" in line for line in live)


def _told(memory: procvm.Tracee | procvm.Snapshot) -> list[str]:
    """Returns what a script prints of a memory."""
    lines = [
        f"{one} {one.demangled} {one.address:#x} {memory.describe(one.address + 1)}"
        for one in memory.symbols("program!*")
    ]
    lines.append(f"{memory.symbol('malloc'):#x} {memory.address('libc.so.6!environ'):#x}")
    lines += [f"{memory.value(path)}" for path in ("game::scores", "&game::scores")]
    for tid, frames in memory.stacks().items():
        lines.append(f"{tid}")
        lines += [f"{one} {one.module} {one.locals()}" for one in frames]
    return lines
