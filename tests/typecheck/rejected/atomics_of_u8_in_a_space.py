# mypy: ignore-errors
"""u8 has no atomics in a space either."""

from procvm import VmSpace, u8


def misuse(space: VmSpace) -> None:
    space.atomic_load(0x1000, u8)  # rejected
