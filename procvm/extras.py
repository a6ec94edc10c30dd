"""The packages that procvm can do without: imported at their first use."""

from __future__ import annotations

import functools
import importlib
from typing import Any

from procvm.errors import UnsupportedError

__all__ = ["numpy_or_none", "required"]

_EXTRA_OF = {"numpy": "numpy", "yara_x": "yara"}


@functools.cache
def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def numpy_or_none() -> Any:
    """Returns numpy, or None where it is not installed."""
    return _module("numpy")


def required(name: str, what: str) -> Any:
    """Returns an installed module.

    Args:
        name: Of the module.
        what: What needs it, in words.

    Raises:
        UnsupportedError: It is not installed; the message says how to do that.
    """
    found = _module(name)
    if found is None:
        extra = _EXTRA_OF[name]
        raise UnsupportedError(f"{what} needs {name}: pip install 'procvm[{extra}]'")
    return found
