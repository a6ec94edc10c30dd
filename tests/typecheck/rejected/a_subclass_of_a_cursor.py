# mypy: ignore-errors
"""The cursors are final."""

from procvm import Fallible, VmReader


class Mine(VmReader[Fallible]): ...  # rejected
