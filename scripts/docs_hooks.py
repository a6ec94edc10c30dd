"""What mkdocs has to be told about the pages while it builds them."""

from __future__ import annotations

import re
from typing import Any

_FENCE = re.compile(r"^(```\w+) [a-z][\w-]*$", re.M)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Takes a bare word behind the language of a block away: it is for the tests."""
    return _FENCE.sub(r"\1", markdown)
