"""For tests that look into processes: what the fixtures of the pytest plugin are made of.

It needs no pytest, and can be used by any test, and in fixtures of a larger scope::

    @pytest.fixture(scope="module")
    def server():
        with procvm.testing.Spawner() as spawn:
            yield spawn(["./server"])
"""

from __future__ import annotations

from procvm.testing.checks import assert_unchanged, wait_until
from procvm.testing.compiler import CompilerError, compile_c
from procvm.testing.patches import Patches
from procvm.testing.playground import Page, Playground, Playgrounds, pattern
from procvm.testing.spawner import Spawned, Spawner

__all__ = [
    "CompilerError",
    "Page",
    "Patches",
    "Playground",
    "Playgrounds",
    "Spawned",
    "Spawner",
    "assert_unchanged",
    "compile_c",
    "pattern",
    "wait_until",
]
