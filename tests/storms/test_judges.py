"""The storms see harm: each kind is done by hand here, and has to be found."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

import procvm
from procvm import u64
from scripts.soaking.board import Word, box
from scripts.soaking.nursery import MODES, Nursery, Victim
from tests.support.patience import eventually
from tests.support.procfs import state_of


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    with Nursery() as nursery:
        yield nursery


@pytest.fixture(params=["spin"])
def victim(request: pytest.FixtureRequest, nursery: Nursery) -> Iterator[Victim]:
    victim = nursery.start(request.param)
    yield victim
    victim.end()


@pytest.mark.parametrize("victim", MODES, indirect=True)
def test_judge_of_an_untouched_target_finds_no_harm(victim: Victim, nursery: Nursery) -> None:
    """Every kind of target runs on, with nothing to complain of."""
    before = victim.slot.beats()
    assert eventually(lambda: sum(victim.slot.beats()) > sum(before) + 50)
    assert victim.harms(nursery.log) == []


def test_judge_finds_a_word_that_nobody_answers_for(victim: Victim, nursery: Nursery) -> None:
    """More in the word than its own threads added is harm, unless a tool says that it did so."""
    with procvm.open(victim.pid) as process:
        word = process.vm.read_val(nursery.word_address, u64)
        process.vm.write_val(nursery.word_address, u64, word + (1 << 40))
    (harm,) = victim.harms(nursery.log)
    assert harm.startswith("word: ")
    nursery.log[box(victim.cookie)] = 1 << 41
    assert victim.harms(nursery.log) == []


@pytest.mark.parametrize("kind", ["registers set by a stranger", "refused values taken"])
def test_judge_finds_a_foreign_register(victim: Victim, nursery: Nursery, kind: str) -> None:
    """A value with another target's number, or with the mark of a refused one, is seen."""
    is_stranger = kind.startswith("registers")
    value = (victim.cookie + 1) << 32 if is_stranger else victim.cookie << 32 | 1 << 31
    with procvm.attach(victim.pid) as tracee, tracee.stopped():
        tracee.set_registers({"r15": value})
    at = Word.WRONG_REGISTER if is_stranger else Word.REFUSED_TOOK
    assert eventually(lambda: victim.slot[at] == 1)
    (harm,) = victim.harms(nursery.log)
    assert harm.startswith(kind)


def test_judge_finds_a_target_that_died(victim: Victim, nursery: Nursery) -> None:
    """The signal that ended it is told."""
    os.kill(victim.pid, signal.SIGTRAP)
    assert eventually(lambda: victim.status() != "alive")
    assert victim.harms(nursery.log)[-1] == "died: signal 5"


def test_judge_finds_a_target_that_is_left_stopped(victim: Victim, nursery: Nursery) -> None:
    """One that is held, and one that a signal stopped, do not pass."""
    with procvm.attach(victim.pid) as tracee:
        tracee.stop()
        (harm,) = victim.harms(nursery.log, 0.1)
        assert harm.startswith("left stopped: t")
    os.kill(victim.pid, signal.SIGSTOP)
    assert eventually(lambda: state_of(victim.pid) == "T")
    (harm,) = victim.harms(nursery.log, 0.1)
    assert harm.startswith("stands still: T")


def test_judge_finds_a_trap_of_a_debugger(nursery: Nursery) -> None:
    """A SIGTRAP that is not the target's own is told from those that are."""
    victim = nursery.start("traps")
    os.kill(victim.pid, signal.SIGTRAP)
    assert eventually(lambda: victim.slot[Word.FOREIGN_TRAP] == 1)
    (harm,) = victim.harms(nursery.log)
    assert harm.startswith("traps of a debugger: 1")
    victim.end()


def test_judge_finds_an_interrupted_call(nursery: Nursery) -> None:
    """A handler's signal cuts a sleep short, as a careless debugger might."""
    victim = nursery.start("blocked")
    while not victim.slot[Word.WRONG_CALL]:
        os.kill(victim.pid, signal.SIGUSR1)
    assert victim.harms(nursery.log)[0].startswith("calls cut short: ")
    victim.end()


@pytest.mark.parametrize("how", ["fork", "exec"])
def test_nursery_swap_gives_the_number_to_another(nursery: Nursery, how: str) -> None:
    """The new target has the number, the addresses and no cookie of the old one."""
    old = nursery.start("spin")
    new = nursery.swap(old, how)
    if new is None:
        pytest.skip("the number of a process cannot be chosen here (clone3 with set_tid)")
    assert new.pid == old.pid
    assert eventually(new.is_ready)
    with procvm.open(new.pid) as process:
        assert process.vm.read_val(nursery.cookie_address, u64) == new.cookie != old.cookie
    assert new.harms(nursery.log) == []
    new.end()
