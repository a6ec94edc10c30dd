# mypy: ignore-errors
"""A space is no VmIoOnce."""

from procvm import VmIoOnce, VmSpace


def ring(thing: VmIoOnce) -> None: ...


def misuse(space: VmSpace) -> None:
    ring(space)  # rejected
