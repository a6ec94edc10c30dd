"""``who``, ``calls`` and ``pointers``: what they show is what the program did."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import procvm
from procvm.cli.commands import observing
from tests.cli.running import Result, ran
from tests.cli.test_documents import _assert_documented
from tests.process.test_accesses import Touched, pytestmark, touched
from tests.process.test_pointer_paths import chased
from tests.support.build import compiled
from tests.support.child import Child
from tests.support.patience import PATIENCE

__all__ = ["pytestmark", "touched"]


def _while_armed(act: Callable[[], object], *args: object) -> Result:
    """Runs a command, and does something as soon as its breakpoints are armed.

    The command ends when that is done and no hit waits any more, however long it takes.
    """
    results: list[Result] = []
    is_armed, is_done = threading.Event(), threading.Event()
    hits_of = observing._hits  # noqa: SLF001

    def until_done(
        process: procvm.Process, trace: procvm.AccessTrace, _duration: float | None
    ) -> Iterator[list[procvm.Access]]:
        for hits in hits_of(process, trace, None):
            # Before the hits are taken: what comes until it is done is in the next ones.
            was_done = is_done.is_set()
            yield hits
            if was_done and not hits:
                return

    def told(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            found = method(*given, **named)
            is_armed.set()
            return found

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in ("trace_accesses", "trace_calls"):
            patch.setattr(procvm.Process, name, told(getattr(procvm.Process, name)))
        patch.setattr(observing, "_hits", until_done)
        thread = threading.Thread(target=lambda: results.append(ran(*args)))
        thread.start()
        assert is_armed.wait(PATIENCE)
        act()
        is_done.set()
        thread.join()
    return results[0]


def _with_a_line(document: Any) -> Any:
    """Returns a document whose rows name a line, as those of a program with debug information."""
    rows = [row | {"line": row["line"] or "a.c:1"} for row in document["instructions"]]
    return document | {"instructions": rows}


def test_who_tells_the_instructions_that_write_and_how_often(touched: Touched) -> None:
    did: list[tuple[int, int, int, int]] = []
    result = _while_armed(
        lambda: did.append(touched.work(300)),
        *("who", touched.popen.pid, hex(touched.word), "--json"),
    )
    assert result.code == 0
    increments, stores, births, _ = did[0]
    document = result.document
    assert document["instructions"][0]["stack"] == []
    _assert_documented("who", _with_a_line(document))
    assert document["count"] == increments + stores
    assert document["lost"] == 0
    by_function: dict[str, int] = {}
    for row in document["instructions"]:
        location = touched.process.describe(int(row["instruction"], 16))
        assert location.symbol is not None
        by_function[location.symbol] = by_function.get(location.symbol, 0) + row["count"]
        assert row["is_exact"]
        assert "touched" in row["text"] or "[" in row["text"]
        assert row["registers"]
    assert by_function == {"increment": increments, "store": stores}
    assert len({tid for row in document["instructions"] for tid in row["threads"]}) == 2 + births


def test_who_reads_shows_the_instructions_that_read(touched: Touched) -> None:
    result = _while_armed(
        lambda: touched.work(20),
        *("who", touched.popen.pid, "touched", "--reads"),
    )
    assert result.code == 0
    assert any("!load" in line for line in result.lines)
    assert any("!store" in line for line in result.lines)
    assert " hits in " in result.lines[-1]


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="these instructions are of x86-64")
@pytest.mark.parametrize(
    ("line", "label"),
    [
        ("bytes 2049", "stosb"),  # the last byte: the processor is past it
        ("bytes 2056", "stosb"),
        ("bytes 4000", "stosb"),
        ("words 257", "stosq"),
        ("words 300", "stosq"),
        ("copy  2052", "movsb"),
        ("copy  4000", "movsb"),
        ("plain", "plain"),  # and a repeated instruction comes next
    ],
)
def test_who_tells_the_repeated_instruction_that_was_under_way(line: str, label: str) -> None:
    with Child([compiled("repeated")]) as child:
        word, *places = child.hexes()
        places_of = dict(zip(("stosb", "stosq", "movsb", "plain"), places, strict=True))
        result = _while_armed(lambda: child.ask(line), *("who", child.pid, hex(word), "--json"))
    (row,) = result.document["instructions"]
    assert int(row["instruction"], 16) == places_of[label]
    assert row["is_exact"]
    assert row["text"].startswith("mov" if label == "plain" else f"rep {label}")
    assert row["count"] >= 1


def test_who_without_a_hit_exits_with_1_and_an_odd_type_is_refused(touched: Touched) -> None:
    pid = touched.popen.pid
    assert ran("who", pid, "touched", "--for", "0.1").code == 1
    refused = ran("who", pid, "touched", "-t", "struct:<HB", "--for", "0.1")
    assert refused.code == 2
    assert "1, 2, 4 or 8 bytes" in refused.err
    crooked = ran("who", pid, "touched+1", "--for", "0.1")
    assert crooked.code == 2
    assert "multiple of the 8 bytes" in crooked.err


def test_calls_shows_each_call_with_its_arguments_and_caller(touched: Touched) -> None:
    result = _while_armed(
        lambda: touched.ask("call"),
        *("calls", touched.popen.pid, "called", "--json", "-n", "1"),
    )
    assert result.code == 0
    (record,) = result.records
    _assert_documented("calls", record)
    assert [int(one, 16) for one in record["arguments"][:6]] == [1, 2, 3, 4, 5, 6]
    assert record["tid"] == touched.popen.pid
    assert record["function"].endswith("!called")
    assert "!main+" in record["caller"]


def test_calls_without_a_call_exits_with_1(touched: Touched) -> None:
    assert ran("calls", touched.popen.pid, "called", "--for", "0.1").code == 1
    assert ran("calls", touched.popen.pid, "no_such_function", "--for", "0.1").code == 1


def test_pointers_saved_in_one_run_lead_to_the_value_in_the_next(tmp_path: Path) -> None:
    file = tmp_path / "paths.json"
    with chased() as run:
        document: Any = ran(
            "pointers", run.popen.pid, hex(run.address), "--save", file, "--json"
        ).document
        assert document["complete"]
        _assert_documented("pointers", document)
        assert any(path["variable"].endswith("!g_player") for path in document["paths"])
    for noise in (101, 402):
        with chased(noise) as run:
            args = ("pointers", run.popen.pid, hex(run.address), "--check", file, "--save", file)
            assert ran(*args).code == 0
    with chased(777) as run:
        kept = procvm.PointerPaths.load(file)
        assert 0 < len(kept) < len(document["paths"])
        shown = ran("read", run.popen.pid, str(kept[0]), "-t", "u64", "--json").document
        assert shown["values"][0]["value"] == run.value() == 1777
        # The path leads to the value, and to nothing else.
        assert ran("pointers", run.popen.pid, hex(run.address + 8), "--check", file).code == 1
