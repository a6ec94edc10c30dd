"""The command ``procvm``.

This module imports neither click nor rich, so that it can say which of them is missing. The
command itself is `procvm.cli.run`; each of its commands is imported when it is used.
"""

from __future__ import annotations

import importlib.util
import sys

__all__ = ["main"]


def main() -> int:
    """Runs the command with the arguments of this process; returns its exit code."""
    if any(importlib.util.find_spec(name) is None for name in ("click", "rich")):
        print(
            "procvm: the command needs click and rich: pip install 'procvm[cli]'", file=sys.stderr
        )
        return 2
    from procvm.cli.run import run  # noqa: PLC0415 (it needs click)

    return run(sys.argv[1:])
