# mypy: ignore-errors
"""f64 is no PodOnce."""

from procvm import Infallible, VmWriter, f64


def misuse(writer: VmWriter[Infallible]) -> None:
    writer.write_once(f64, 1.0)  # rejected
