"""A space that was pickled leads to the program that it was of, or to none."""

from __future__ import annotations

import pickle

import pytest

import procvm
from tests.faults.subjects import Subject
from tests.support.build import compiled


def test_pickle_of_a_space_after_an_exec_reaches_no_byte_of_the_new_program() -> None:
    """ProcessExecedError, by unpickling or by the first use, where both programs have memory."""
    with Subject() as target:
        with procvm.open(target.pid) as process:
            # Not unpickled before the exec: it could be told from what was opened then.
            data = pickle.dumps(process.vm)
        target.send(f"exec {compiled('subject')}")
        (address,) = target.hexes()
        for at in (address, target.address):
            with pytest.raises(procvm.ProcessExecedError) as caught:
                pickle.loads(data).read_bytes(at, 8)
            assert caught.value.pid == target.pid
