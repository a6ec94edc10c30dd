"""What docs/testing.md shows is true."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.plugin.inner import ENVIRONMENT, OPTIONS

pytest_plugins = ["pytester"]

DOCS = Path(__file__).parents[2] / "docs"
TEXT = (DOCS / "testing.md").read_text()


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    pytester.makeini("[pytest]\n")
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    return pytester


def test_the_example_passes(run: pytest.Pytester) -> None:
    """The tests of the queue pass as they stand there."""
    (run.path / "targets").mkdir()
    shutil.copy(DOCS / "examples/targets/queue.c", run.path / "targets")
    shutil.copy(DOCS / "examples/test_queue.py", run.path)
    run.runpytest_inprocess(*OPTIONS).assert_outcomes(passed=6)


@pytest.mark.parametrize(
    ("wrong", "failing"),
    [
        (("tail - queue->head == CAPACITY", "tail - queue->head > CAPACITY"), "full"),
        (("queue->slots[queue->tail % CAPACITY] =", "queue->slots[queue->tail % 9] ="), "after"),
        (("uint32_t head, tail;", "uint32_t head, tail, more;"), "slots"),
        (("queue->tail - queue->head == CAPACITY", "queue->tail >= queue->head + 8"), "wrap"),
    ],
    ids=["one too many", "a slot too many", "another layout", "no wrapping"],
)
def test_the_example_finds_what_is_wrong(
    run: pytest.Pytester, wrong: tuple[str, str], failing: str
) -> None:
    """Each mistake in the queue fails the test that is about it."""
    source = (DOCS / "examples/targets/queue.c").read_text()
    assert wrong[0] in source
    (run.path / "targets").mkdir()
    (run.path / "targets/queue.c").write_text(source.replace(*wrong))
    shutil.copy(DOCS / "examples/test_queue.py", run.path)
    result = run.runpytest_inprocess(*OPTIONS, "-k", failing)
    assert result.parseoutcomes().get("failed") == 1


def _copied(run: pytest.Pytester, name: str, wrong: tuple[str, str] = ("", "")) -> None:
    """Copies an example and its program, with a mistake in the program."""
    source = (DOCS / f"examples/targets/{name}.c").read_text()
    assert wrong[0] in source
    (run.path / "targets").mkdir()
    (run.path / f"targets/{name}.c").write_text(source.replace(*wrong) if wrong[0] else source)
    shutil.copy(DOCS / f"examples/test_{name}.py", run.path)


@pytest.mark.parametrize(("name", "passed"), [("allocator", 5), ("lock", 4)])
def test_suites_of_the_examples_pass(run: pytest.Pytester, name: str, passed: int) -> None:
    _copied(run, name)
    run.runpytest_inprocess(*OPTIONS).assert_outcomes(passed=passed)


@pytest.mark.parametrize(
    ("name", "wrong", "failing"),
    [
        ("allocator", ("pool->free_count--;", ""), "free_list"),
        ("allocator", (" || !pool->used[k]", ""), "double_free"),
        ("allocator", ("pool->used[k] = 0;", ""), "as_it_was"),
        ("lock", ("g_inside--;", ""), "inside"),
        ("lock", ("lock->owner, &none, self", "lock->owner, &none, 1"), "names"),
    ],
)
def test_suites_of_the_examples_find_a_mistake(
    run: pytest.Pytester, name: str, wrong: tuple[str, str], failing: str
) -> None:
    _copied(run, name, wrong)
    result = run.runpytest_inprocess(*OPTIONS, "-k", failing)
    assert result.parseoutcomes().get("failed") == 1


def test_the_blocks_run_as_tests(run: pytest.Pytester) -> None:
    """Each block of Python is a module of tests that passes."""
    blocks = re.findall(r"^```python\n(.*?)^```", TEXT, re.M | re.S)
    # The last one is a fixture alone.
    blocks[-1] += (
        "\ndef test_it(playground: Playground) -> None:\n    assert len(playground.pages) == 3\n"
    )
    for k, block in enumerate(blocks):
        (run.path / f"test_block_{k}.py").write_text(block)
    run.runpytest_inprocess(*OPTIONS).assert_outcomes(passed=len(blocks))


def test_every_fixture_and_option_is_documented() -> None:
    """What the plugin offers is in the page, by its name."""
    plugin = (DOCS.parent / "procvm/pytest_plugin.py").read_text()
    names = re.findall(r"@pytest\.fixture\ndef (\w+)", plugin)
    assert len(names) == 6
    for name in (*names, "--procvm-strict", "procvm_dump_len", "needs_ptrace"):
        assert f"`{name}" in TEXT or f"{name}`" in TEXT or name in TEXT, name
