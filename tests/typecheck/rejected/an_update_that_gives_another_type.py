# mypy: ignore-errors
"""`atomic_fetch_update` takes a function of int to int."""

from procvm import VmSpace, u64


def misuse(space: VmSpace) -> None:
    space.atomic_fetch_update(0x1000, u64, str)  # rejected
