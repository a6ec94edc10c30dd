"""Optional packages, which are imported when they are first used."""

from __future__ import annotations

import functools
import importlib
from typing import Any

from procvm.errors import UnsupportedError

__all__ = ["is_installed", "numpy_or_none", "optional", "required"]

_EXTRA_OF = {"drgn": "types", "elftools": "symbols", "numpy": "numpy", "yara_x": "yara"}
_PACKAGE_OF = {"elftools": "pyelftools"}


@functools.cache
def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def optional(name: str) -> Any:
    """Returns a module that makes something quicker, or None where it is not installed."""
    return _module(name)


def numpy_or_none() -> Any:
    """Returns numpy, or None where it is not installed."""
    return _module("numpy")


def is_installed(name: str) -> bool:
    """Returns whether a module of an extra can be imported."""
    return _module(name) is not None


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
        top = name.partition(".")[0]
        package, extra = _PACKAGE_OF.get(top, top), _EXTRA_OF[top]
        raise UnsupportedError(f"{what} needs {package}: pip install 'procvm[{extra}]'")
    return found
