"""Fixtures for the command."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cli.running import Dials


@pytest.fixture
def dials() -> Iterator[Dials]:
    """A program of its own for the test."""
    with Dials() as child:
        yield child
