# mypy: ignore-errors
"""An f64 is not written from None."""

from procvm import Infallible, VmWriter, f64


def misuse(writer: VmWriter[Infallible]) -> None:
    writer.write_val(f64, None)  # rejected
