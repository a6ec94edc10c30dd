# mypy: ignore-errors
"""`VmIo.write` takes a reader."""

from procvm import Infallible, VmIo, VmWriter


def misuse(thing: VmIo, writer: VmWriter[Infallible]) -> None:
    thing.write(0, writer)  # rejected
