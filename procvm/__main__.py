"""``python -m procvm``: the same as the command ``procvm``."""

from __future__ import annotations

import sys

from procvm.cli import main

if __name__ == "__main__":
    sys.exit(main())
