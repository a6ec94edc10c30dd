# mypy: ignore-errors
"""A class that lacks `writer` can not be instantiated."""

from procvm import HasVmReaderWriter, Infallible, VmReader


class Half(HasVmReaderWriter):
    def reader(self) -> VmReader[Infallible]:
        return VmReader.from_buffer(b"")


def misuse() -> None:
    Half()  # rejected
