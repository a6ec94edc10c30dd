"""Sources in C++ and Rust, and a machine without their compiler."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

import procvm
from procvm.testing import CompilerError, Spawner, compile_source
from tests.plugin.inner import ENVIRONMENT, OPTIONS

pytest_plugins = ["pytester"]

CPP = """
#include <cstdio>
#include <vector>
std::vector<unsigned> g_words{7, 8, 9};
int main() { std::printf("%p\\n", (void *)g_words.data()); std::fflush(stdout); std::getchar(); }
"""
RUST = """
use std::io::Read;
#[no_mangle]
pub static mut G_WORDS: [u32; 3] = [7, 8, 9];
fn main() {
    println!("{:p}", std::ptr::addr_of!(G_WORDS));
    let _ = std::io::stdin().read(&mut [0u8; 1]);
}
"""
SOURCES = {"c++": (CPP, "c++", ".cpp"), "rust": (RUST, "rustc", ".rs")}


@pytest.fixture(params=SOURCES)
def language(request: pytest.FixtureRequest) -> str:
    """A language whose compiler is here."""
    name: str = request.param
    compiler = SOURCES[name][1]
    # One that is there may not work: rustup's rustc without a toolchain.
    command = shutil.which(compiler)
    if (
        command is None
        or subprocess.run([command, "--version"], capture_output=True, check=False).returncode
    ):
        pytest.skip(f"needs {compiler}")
    return name


def test_spawn_of_a_source_reads_its_memory(
    procvm_spawn: Spawner, tmp_path: Path, language: str
) -> None:
    """As a string with its language, and as a file that says it by its name."""
    source, _, suffix = SOURCES[language]
    file = tmp_path / f"my-words{suffix}"
    file.write_text(source)
    for program in (
        procvm_spawn(source, language=language),  # type: ignore[call-overload]
        procvm_spawn(file),
    ):
        address = int(program.stdout.readline(), 16)
        assert program.vm.read_slice(address, procvm.u32, 3) == [7, 8, 9]
    assert procvm.explain(program.pid).pid == program.pid
    if language == "rust":
        assert program.symbol("G_WORDS") == address
    assert Path(f"/proc/{program.pid}/comm").read_text().startswith("my-words")


def test_source_that_does_not_compile_names_its_language(tmp_path: Path, language: str) -> None:
    with pytest.raises(CompilerError, match=r"the (C\+\+|Rust) source does not compile"):
        compile_source("{", language=language, cache=tmp_path)  # type: ignore[arg-type]


def test_language_that_is_not_known_is_refused_before_anything_happens(
    procvm_spawn: Spawner,
) -> None:
    with pytest.raises(ValueError, match="language is 'c', 'c\\+\\+' or 'rust', not 'ada'"):
        procvm_spawn("{", language="ada")  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="the program is a command"):
        procvm_spawn(["true"], language="rust")
    assert procvm_spawn.children == []


def test_test_without_its_compiler_is_skipped_with_its_name(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester.makeini("[pytest]\n")
    for name, value in {**ENVIRONMENT, "PATH": "/nowhere", "RUSTC": "", "CXX": ""}.items():
        monkeypatch.setenv(name, value)
    pytester.makepyfile(
        """
        import pytest
        @pytest.mark.parametrize("language", ["c++", "rust"])
        def test_it(procvm_spawn, language):
            procvm_spawn("int main() {}", language=language)
        """
    )
    result = pytester.runpytest_inprocess(*OPTIONS)
    result.assert_outcomes(skipped=2)
    text = result.stdout.str()
    assert "no Rust compiler: install one (the package rustc)" in text
    assert "no C++ compiler" in text
