"""Runs as root in a guest: measures each setting, and writes a record for each to the console."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

sys.path[:0] = ["/project"]

from scripts.guests.environments import SETTINGS, TESTED, TESTS, Setting  # noqa: E402 (its folder)

_SCOPE = Path("/proc/sys/kernel/yama/ptrace_scope")
_PROBE_SECONDS = 600
_TEST_SECONDS = 2400
_COMPILED = [f"/site/{name}" for name in ("elftools", "iced_x86", "psutil", "ptrace")]
_MARK = "GUEST-RECORD "


def _tell(record: dict[str, object]) -> None:
    print(f"\n{_MARK}{json.dumps(record)}", flush=True)


def _as(setting: Setting, command: list[str], seconds: float) -> tuple[str, int]:
    """Runs a command as a user; returns what it printed and its exit status."""
    is_user = setting.user == "user"
    home = "/home/user" if is_user else "/root"
    environment = {
        "PATH": "/usr/bin:/usr/sbin",
        "HOME": home,
        "LANG": "C.UTF-8",
        "TERM": "dumb",
        "PYTHONPATH": "/project:/site",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=home,
        env=environment,
        text=True,
        errors="replace",
        start_new_session=True,
        user=1000 if is_user else None,
        group=1000 if is_user else None,
        extra_groups=[] if is_user else None,
    ) as popen:
        try:
            return popen.communicate(timeout=seconds)[0], popen.returncode
        except subprocess.TimeoutExpired:
            popen.kill()
            return popen.communicate()[0], -1


def _word(name: str) -> str:
    """Returns the value of NAME=VALUE on the kernel's command line."""
    words = Path("/proc/cmdline").read_text().split()
    return next((word.partition("=")[2] for word in words if word.startswith(f"{name}=")), "")


def _probe(setting: Setting) -> None:
    printed, status = _as(
        setting, [sys.executable, "/project/scripts/guests/probe.py"], _PROBE_SECONDS
    )
    results = [json.loads(line) for line in printed.splitlines() if line.startswith("{")]
    _tell({"kind": "probe", **setting._asdict(), "status": status, "results": results})
    if status:
        print(printed, flush=True)


def _test(setting: Setting, paths: list[str]) -> None:
    pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=short"]
    where = ["--rootdir=/project", "-c", "/project/pyproject.toml"]
    command = [*pytest, *where, *(f"/project/{path}" for path in paths)]
    printed, status = _as(setting, command, _TEST_SECONDS)
    found = re.findall(r"(\d+) (passed|failed|skipped|error)", printed)
    counts = {word: int(number) for number, word in found}
    failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", printed, re.MULTILINE)
    _tell(
        {"kind": "tests", **setting._asdict(), "status": status, "counts": counts, "failed": failed}
    )
    print(printed[-60_000:], flush=True)


def main() -> None:
    """Measures the settings that the kernel's command line selects, or all."""
    os.chown("/home/user", 1000, 1000)
    subprocess.run(
        [sys.executable, "-m", "compileall", "-q", "/project/procvm", *_COMPILED],
        stdout=subprocess.DEVNULL,
        check=False,
    )
    yama = _SCOPE.exists()
    _tell(
        {
            "kind": "guest",
            "kernel": platform.release(),
            "machine": platform.machine(),
            "python": platform.python_version(),
            "yama": yama,
        }
    )
    wanted = _word("settings").split(",") if _word("settings") else []
    paths: list[str] = _word("tests").split(",") if _word("tests") else [*TESTS]
    for setting in SETTINGS:
        if wanted and f"{setting.user}{setting.scope}" not in wanted:
            continue
        if yama:
            _SCOPE.write_text(str(setting.scope))
        elif setting.scope:
            continue
        _probe(setting)
        if setting in TESTED and paths != ["none"]:
            _test(setting, paths)


if __name__ == "__main__":
    main()
