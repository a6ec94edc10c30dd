"""The numpy types of public signatures, for type checkers only.

numpy is imported at its first use, by `procvm._base.optional`, and may be missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import ctypes
    from _ctypes import _SimpleCData  # pyright: ignore[reportPrivateUsage]  # as in _base.pods

    import numpy as np
    from numpy.typing import ArrayLike, NDArray  # noqa: TC004 (in __all__)

    # Narrower than numpy's own, which takes any type: structures of ctypes give lists.
    DTypeLike: TypeAlias = (
        np.dtype[Any] | type[np.generic | _SimpleCData[Any] | ctypes.Array[Any]] | str | list[Any]
    )

    Array: TypeAlias = NDArray[Any]
    Truths: TypeAlias = NDArray[np.bool_]
    Addresses: TypeAlias = Iterable[int] | NDArray[np.integer[Any]]
    Predicate: TypeAlias = Callable[[Array], Truths]

__all__ = ["Addresses", "Array", "ArrayLike", "DTypeLike", "Predicate", "Truths"]
