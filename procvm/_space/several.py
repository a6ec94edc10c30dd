"""`Several`: several needles at once, whose bytes an engine may find in one pass."""

from __future__ import annotations

from array import array

from procvm._space.engines import Literals
from procvm._space.needle import Needle

__all__ = ["Several"]


class Several(Needle):
    """Several needles at once; each hit says which."""

    stride = 3

    def __init__(self, needles: list[Needle]) -> None:
        self.needles = needles
        self.before = max(needle.before for needle in needles)
        self.after = max(needle.after for needle in needles)
        # Without an alignment: an engine knows nothing of addresses.
        self._numbers = [
            number
            for number, needle in enumerate(needles)
            if needle.literal is not None and needle.align == 1
        ]
        self._literals = Literals([needles[number].literal or b"" for number in self._numbers])

    def find(self, view: memoryview, address: int, base: int) -> array[int]:
        """Returns the offsets of all of them, in order."""
        found = [at for needle in self.needles for at in needle.find(view, address, base)]
        return array("Q", sorted(found))

    def find_between(
        self, view: memoryview, address: int, base: int, first: int, last: int
    ) -> array[int]:
        """Returns addresses, and behind each the number of its needle and where it ends."""
        hits: list[tuple[int, int, int]] = []
        known: dict[int, array[int]] = {}
        at_once = self._literals.find(view)
        if at_once is not None:
            for number, offsets in zip(self._numbers, at_once, strict=True):
                inside = [at + base for at in offsets if first <= at < last]
                known[number] = array("Q", inside)
        for number, needle in enumerate(self.needles):
            found = known.get(number)
            if found is None:
                found = needle.find_between(view, address, base, first, last)
            if needle.stride == 2:
                hits += zip(found[::2], [number] * len(found), found[1::2], strict=False)
            else:
                hits += [(at, number, at + needle.after + 1) for at in found]
        return array("Q", [word for hit in sorted(hits) for word in hit])
