# mypy: ignore-errors
"""A segment gives infallible writers."""

from procvm import Fallible, Segment, VmWriter


def misuse(segment: Segment) -> None:
    writer: VmWriter[Fallible] = segment.writer()  # rejected
    writer.clone_exclusive()
