"""A tool that examines what it is told, wherever a test starts it; a line of JSON each way.

Run by ``python -m tests.doctor.asked``: a line of input is a pid or null, or an object of what is
to be taken away from the tool first; a line of output the findings.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from typing import Any

from procvm.doctor import examine
from tests.faults import tool


def _take_away(what: dict[str, Any]) -> None:
    if "seccomp" in what:
        tool.seccomp(what["seccomp"])
    if "landlock" in what:
        tool.landlock()
    if "descriptors" in what:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        used = len(os.listdir("/proc/self/fd")) - 1
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + what["descriptors"], hard))


def main() -> None:
    """Answers until the input ends."""
    for line in sys.stdin:
        asked = json.loads(line)
        answer: Any = None
        try:
            if isinstance(asked, dict):
                _take_away(asked)
            else:
                answer = examine(asked)
        except Exception as error:  # noqa: BLE001 (the test's end says which)
            answer = f"{type(error).__name__}: {error}"
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
