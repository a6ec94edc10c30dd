"""Children and checks for tests that access processes; the pytest plugin is built on them.

This package does not need pytest. Use it in any test, and in fixtures with a larger scope::

    @pytest.fixture(scope="module")
    def server():
        with procvm.testing.Spawner() as spawn:
            yield spawn(["./server"])
"""

from __future__ import annotations

from procvm.testing.checks import assert_unchanged, wait_until
from procvm.testing.compiler import CompilerError, compile_c, compile_source
from procvm.testing.patches import Patches
from procvm.testing.playground import Page, Playground, Playgrounds, pattern
from procvm.testing.same import assert_same
from procvm.testing.spawned import Spawned
from procvm.testing.spawner import Spawner

__all__ = [
    "CompilerError",
    "Page",
    "Patches",
    "Playground",
    "Playgrounds",
    "Spawned",
    "Spawner",
    "assert_same",
    "assert_unchanged",
    "compile_c",
    "compile_source",
    "pattern",
    "wait_until",
]
