"""The commands ``print`` and ``stack``, and C paths as ADDRESS."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import procvm
from tests.cli.running import ran
from tests.cli.test_documents import _assert_documented
from tests.support.child import Child
from tests.types.programs import typed


@pytest.fixture(scope="module")
def child() -> Iterator[Child]:
    with typed("-g") as child:
        yield child


def test_print_shows_values_as_c_does(child: Child) -> None:
    """Numbers, texts, enumerators, pointers with their names, structures, and JSON."""
    for path, text in {
        "g_list->next->at.x": "3.5\n",
        "g_second.name": '"second"\n',
        "g_second.colour": "BLUE\n",
        "g_second.at": "{x = 3.5, y = -4.0}\n",
        "g_second.grid": "{{1, 2, 3}, {-4, -5, -6}}\n",
    }.items():
        assert ran("print", child.pid, path).out == text
    out = ran("print", child.pid, "*g_list").out
    assert out.startswith("{\n  next = 0x")
    assert "!g_second,\n" in out
    assert "flags = {ready = 0, delta = 0, wide = 0, after = 0, tint = RED}" in out
    document = json.loads(ran("print", child.pid, "g_list->next->at", "--json").out)
    _assert_documented("print", document)
    assert document["value"] == {"x": 3.5, "y": -4.0}


def test_print_of_what_is_not_there_is_an_error(child: Child) -> None:
    """A name, a member, a path: each with one line and its exit code."""
    for path, code, text in (
        ("nope", 1, "no variable 'nope'"),
        ("g_list->nxt", 1, "did you mean next"),
        ("g_list->", 2, "no member follows"),
        ("g_list->next->next->next->id", 5, "0x0"),
    ):
        done = ran("print", child.pid, path)
        assert (done.code, done.out) == (code, ""), done
        assert text in done.err


def test_address_of_a_command_may_be_a_c_path(child: Child) -> None:
    """`read` reads what the path means; `&` changes nothing."""
    for path in ("g_list->next->at.x", "&g_list->next->at.x", "(*g_list).next->at.x"):
        done = ran("read", child.pid, path, "-t", "f64")
        assert "3.5" in done.out, done
    assert ran("read", child.pid, "g_list->nope", "-t", "u32").code == 1


def test_stack_lists_all_threads(child: Child, tmp_path: Path) -> None:
    """As text and as JSON; of one thread; of a core file; with variables."""
    out = ran("stack", child.pid).out
    assert out.startswith("thread ")
    assert out.count("\nthread ") == 3
    assert out.count(" wait_here at ") == sum((1, 3, 4, 8))
    assert "typed.c:" in out
    document = json.loads(ran("stack", child.pid, "--json").out)
    assert document["stopped_ms"] > 0
    assert len(document["threads"]) == 4
    _assert_documented("stack", document)
    one = ran("stack", child.pid, "--tid", child.pid, "--locals").out
    assert one.startswith("thread ")
    assert "\nthread " not in one
    assert "here = {x = 1.25, y = 2.5}" in one
    with procvm.attach(child.pid) as tracee:
        tracee.save(tmp_path / "core")
    frames = [line for line in out.splitlines() if line.startswith("  #")]
    saved = ran("stack", tmp_path / "core").lines
    assert [line for line in saved if line.startswith("  #")] == frames
    assert ran("stack", child.pid, "--tid", 1).code != 0
