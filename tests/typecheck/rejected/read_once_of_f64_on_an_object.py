# mypy: ignore-errors
"""f64 is no PodOnce for an object either."""

from procvm import Segment, f64


def misuse(segment: Segment) -> None:
    segment.read_once(0, f64)  # rejected
