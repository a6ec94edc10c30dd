"""`Variable`: a number, pointer or text of a target, as a view."""

from __future__ import annotations

from typing import Any, final

from procvm._base.pods import Pod
from procvm._space.access import Access
from procvm._space.view import Address, view_of_kind

__all__ = ["Variable"]


@final
class Variable:
    """A variable that is one value: a number, a pointer, an enumerator or a text.

    `value` reads or writes the target each time. Where a number is asked for, as in
    ``vm.read_val(variable, u8)``, it is the present value.
    """

    __slots__ = ("_address", "_pod", "_space")

    def __init__(self, space: Access, address: int, pod: Pod[Any]) -> None:
        self._space = space
        self._address = address
        self._pod = pod

    def __repr__(self) -> str:
        return f"<Variable of {self._pod.name} at {self._address:#x}>"

    @property
    def address(self) -> int:
        """Its address."""
        return self._address

    @property
    def pod(self) -> Pod[Any]:
        """The pod of its type."""
        return self._pod

    @property
    def value(self) -> Any:
        """Its value, read now; setting it writes it.

        Raises:
            PageFaultError: It could not be read.
        """
        return view_of_kind(self._space, self._address, self._pod)

    @value.setter
    def value(self, value: Any) -> None:
        self._space.write_bytes(self._address, self._pod.to_bytes(value))

    def deref(self, kind: Any = None) -> Any:
        """Returns what a pointer points to; see `Address.deref`.

        Raises:
            TypeError: It is not a pointer.
        """
        found = self.value
        if not isinstance(found, Address):
            raise TypeError(f"{self._pod.name} is not a pointer")
        return found.deref(kind)

    def __index__(self) -> int:
        return int(self.value)

    __int__ = __index__

    def __float__(self) -> float:
        return float(self.value)

    def __bool__(self) -> bool:
        return bool(self.value)
