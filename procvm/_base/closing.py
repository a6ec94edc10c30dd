"""`Closing`: the base of objects that a with statement closes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self

__all__ = ["Closing"]


class Closing(ABC):
    """An object that `close` or the end of its with statement closes."""

    __slots__ = ()

    @abstractmethod
    def close(self) -> None:
        """Releases the resources of the object. A second call does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
