"""Names of C++ and Rust as their sources have them; the program itself says where they are."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import procvm
from procvm import AmbiguousSymbolError, NoSuchSymbolError
from procvm._base import optional
from procvm._base.spellings import file_and_symbol, spelling_of
from tests.support.child import Child

_CPP = """
#include <cstdio>
#include <string>
#include <unistd.h>
static int limit = 4;
int lonely(const char *text) { return text[0] + limit; }
namespace game {
struct Score {
    int points;
    virtual ~Score();
    int hit(int by);
    int hit(long by);
    static int total;
    bool operator!=(const Score &other) const;
};
Score::~Score() {}
int Score::total = 9;
int Score::hit(int by) { return points += by; }
int Score::hit(long by) { return points += 2 * by; }
bool Score::operator!=(const Score &other) const { return points != other.points; }
template <class T> T twice(T x) { return x + x; }
template int twice<int>(int);
std::string name = "tagged";
namespace { int hidden = 5; }
thread_local int mine = 3;
}
int main()
{
    using namespace game;
    char byte;
    Score score, other;
    printf("%p %p %p %p %p\\n", (void *)&limit, (void *)&lonely, (void *)&Score::total,
           (void *)&name, (void *)&hidden);
    printf("%p\\n", (void *)(int (*)(int))&twice<int>);
    fflush(stdout);
    while (read(0, &byte, 1) > 0) score.hit(1);
    return score != other || mine;
}
"""

_RUST = """
use std::io::{Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};
pub static COUNTER: AtomicU64 = AtomicU64::new(41);
pub mod inner {
    pub struct Pair<T> { pub one: T }
    impl<T: Copy> Pair<T> {
        #[inline(never)] pub fn get(&self) -> T { self.one }
    }
}
fn main() {
    println!("{:p}", &COUNTER);
    std::io::stdout().flush().unwrap();
    let mut byte = [0u8; 1];
    while std::io::stdin().read(&mut byte).unwrap() > 0 { COUNTER.fetch_add(1, Ordering::SeqCst); }
    let sum = inner::Pair { one: 1u8 }.get() as i64 + inner::Pair { one: 2i64 }.get();
    std::process::exit(sum as i32);
}
"""

needs_cpp = pytest.mark.skipif(shutil.which("g++") is None, reason="not installed: g++")
needs_rust = pytest.mark.skipif(shutil.which("rustc") is None, reason="not installed: rustc")


@pytest.fixture(scope="module")
def game(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[procvm.Process, list[int]]]:
    folder = tmp_path_factory.mktemp("cpp")
    (folder / "game.cc").write_text(_CPP)
    subprocess.run(["g++", "-o", folder / "game", folder / "game.cc"], check=True)
    with Child([str(folder / "game")]) as child:
        said = [*child.line().split(), child.line()]
        with procvm.open(child.pid) as process:
            yield process, [int(one, 16) for one in said]


@needs_cpp
def test_symbol_of_cpp_as_its_source_has_it_is_where_the_program_says(
    game: tuple[procvm.Process, list[int]],
) -> None:
    """A static of the program before libraries' ones; with a file; arguments may be left out."""
    process, (limit, lonely, total, name, hidden, twice) = game
    assert process.symbol("limit") == limit
    for text in ("lonely", "lonely(char const*)", "lonely( char const * )", "game!lonely"):
        assert process.symbol(text) == lonely
    assert process.symbol("game::Score::total") == total
    assert process.symbol("_ZN4game5Score5totalE") == total
    assert process.symbol("game::name") == process.symbol("game::name[abi:cxx11]") == name
    assert process.symbol("game::(anonymous namespace)::hidden") == hidden
    for text in ("game::twice", "game::twice<int>", "int game::twice<int>(int)"):
        assert process.symbol(text) == twice
    assert process.address("game::Score::total+0x4") == total + 4
    assert process.address("game!game::Score::operator!=") in process.modules()["game"]


@needs_cpp
def test_symbol_of_cpp_with_overloads_is_ambiguous(
    game: tuple[procvm.Process, list[int]],
) -> None:
    """The candidates have arguments, lead to the addresses, and are what the compiler named."""
    process, _ = game
    with pytest.raises(AmbiguousSymbolError) as caught:
        process.symbol("game::Score::hit")
    names = {one.name: one.address for one in caught.value.candidates}
    assert names.keys() == {"game!game::Score::hit(int)", "game!game::Score::hit(long)"}
    assert all(process.symbol(one) == address for one, address in names.items())
    assert process.symbol("game::Score::hit(int)") == process.symbol("_ZN4game5Score3hitEi")
    # One destroys the object, one deletes it as well, and both are written alike.
    with pytest.raises(AmbiguousSymbolError) as caught:
        process.symbol("game::Score::~Score")
    for candidate in caught.value.candidates:
        assert process.symbol(candidate.name) == candidate.address


@needs_cpp
def test_describe_of_cpp_is_demangled_and_leads_back(
    game: tuple[procvm.Process, list[int]],
) -> None:
    """For every symbol of the program; the parts keep the mangled name."""
    process, (_, lonely, total, *_) = game
    here = process.describe(total + 1)
    assert here == "game!game::Score::total+0x1"
    assert (here.symbol, here.demangled) == ("_ZN4game5Score5totalE", "game::Score::total")
    assert process.describe(lonely).demangled == "lonely(char const*)"
    assert process.describe(process.symbol("main")).demangled is None
    for one in process.symbols("game!_Z*"):
        where = process.describe(one.address)
        assert process.address(where) == one.address


@needs_cpp
def test_symbols_of_cpp_are_listed_by_either_name(
    game: tuple[procvm.Process, list[int]],
) -> None:
    """A glob matches the mangled name or the one of the source; each row has both."""
    process, _ = game
    rows = {one.name: one.demangled for one in process.symbols("game!game::Score::hit*")}
    assert rows == {
        "_ZN4game5Score3hitEi": "game::Score::hit(int)",
        "_ZN4game5Score3hitEl": "game::Score::hit(long)",
    }
    assert [one.demangled for one in process.symbols("game!_ZN4game5Score5*")] == [
        "game::Score::total"
    ]
    assert [one.demangled for one in process.symbols("game!main")] == [None]


@needs_cpp
def test_symbol_of_cpp_that_is_misspelled_is_answered_with_the_right_one(
    game: tuple[procvm.Process, list[int]],
) -> None:
    """And a thread-local one says so."""
    process, _ = game
    with pytest.raises(NoSuchSymbolError) as caught:
        process.symbol("game::Score::totl")
    assert "game::Score::total" in caught.value.near
    with pytest.raises(NoSuchSymbolError, match="thread-local in game"):
        process.symbol("game::mine")


@needs_cpp
def test_names_stay_mangled_without_the_package(
    game: tuple[procvm.Process, list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The linker's names work as before."""
    process, (_, _, total, *_) = game
    monkeypatch.setitem(sys.modules, "demangle", None)
    for cache in (optional._module, spelling_of.__globals__["_spelling_of"]):  # noqa: SLF001 (a cache)
        cache.cache_clear()
    try:
        with procvm.open(process.pid) as other:
            assert other.describe(total) == "game!_ZN4game5Score5totalE"
            assert other.symbol("_ZN4game5Score5totalE") == total
            assert [one.demangled for one in other.symbols("game!_ZN4game5Score5*")] == [None]
            with pytest.raises(NoSuchSymbolError):
                other.symbol("game::Score::total")
    finally:
        for cache in (optional._module, spelling_of.__globals__["_spelling_of"]):  # noqa: SLF001 (a cache)
            cache.cache_clear()


@needs_rust
@pytest.mark.parametrize("flags", [(), ("-C", "symbol-mangling-version=v0")])
def test_symbol_of_rust_as_its_source_has_it(tmp_path: Path, flags: tuple[str, ...]) -> None:
    """Both manglings; generic functions of several types are ambiguous, or have the type."""
    (tmp_path / "rs.rs").write_text(_RUST)
    subprocess.run(["rustc", *flags, "rs.rs"], cwd=tmp_path, check=True)
    with Child([str(tmp_path / "rs")]) as child:
        place = int(child.line(), 16)
        with procvm.open(child.pid) as process:
            assert process.symbol("rs::COUNTER") == process.symbol("rs!rs::COUNTER") == place
            assert process.describe(place) == "rs!rs::COUNTER"
            assert process.vm.read_val(process.address("rs::COUNTER"), procvm.u64) == 41
            if next(process.symbols("rs!*COUNTER*")).name.startswith("_R"):
                one = process.symbol("<rs::inner::Pair<u8>>::get")
                assert process.describe(one) == "rs!<rs::inner::Pair<u8>>::get"
            else:
                with pytest.raises(AmbiguousSymbolError) as caught:
                    process.symbol("rs::inner::Pair<T>::get")
                for each in caught.value.candidates:
                    assert process.symbol(each.name) == each.address


def test_file_and_symbol_are_divided_at_the_last_sign_that_is_no_operator() -> None:
    """`operator!` and `operator!=` contain the sign."""
    assert file_and_symbol("main") == ("", False, "main")
    assert file_and_symbol("a!b!main") == ("a!b", True, "main")
    assert file_and_symbol("a!C::operator!=(C)") == ("a", True, "C::operator!=(C)")
    assert file_and_symbol("C::operator!") == ("", False, "C::operator!")


@pytest.mark.parametrize("name", [b"_Z", b"_ZN", b"_R", b"_Znot", b"_ZN\xff1aE", b"main", b"_ZN1a"])
def test_name_that_only_looks_mangled_has_no_spelling(name: bytes) -> None:
    """It stays as it is."""
    assert spelling_of(name) is None
