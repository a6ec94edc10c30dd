"""Boots a guest under qemu and takes what it tells over its serial line."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any

from scripts.guests.environments import Guest
from scripts.guests.image import Image

__all__ = ["MARK", "boot", "command_line", "records_of"]

MARK = "GUEST-RECORD "
"""Begins each line with a record, which is JSON."""

_CONSOLES = {"x86_64": "ttyS0", "aarch64": "ttyAMA0"}
_MACHINES = {
    "x86_64": ("qemu-system-x86_64", "-M", "q35", "-cpu", "max"),
    # Pointer authentication as the architecture has it takes most of the time of an emulator.
    "aarch64": ("qemu-system-aarch64", "-M", "virt", "-cpu", "max,pauth-impdef=on"),
}


def command_line(guest: Guest, image: Image, *, words: str = "") -> list[str]:
    """Returns the command that boots a guest with two processors, emulated, without a disk."""
    console = _CONSOLES[guest.machine]
    kernel_words = f"quiet loglevel=3 console={console} panic=-1 random.trust_cpu=on {words}"
    return [
        *("nice", *_MACHINES[guest.machine], "-accel", "tcg,thread=multi"),
        *("-m", "3G", "-smp", "2", "-nographic", "-nodefaults", "-no-reboot", "-serial", "stdio"),
        *("-kernel", str(image.kernel), "-initrd", str(image.initrd)),
        *("-append", kernel_words.strip()),
    ]


def records_of(line: str) -> list[dict[str, Any]]:
    """Returns the record of a line of the console: none, or one."""
    _, mark, text = line.partition(MARK)
    try:
        return [json.loads(text)] if mark else []
    except ValueError:
        return []  # the kernel wrote into the line


def boot(
    guest: Guest, image: Image, log: Path, *, seconds: float, words: str = ""
) -> list[dict[str, Any]]:
    """Boots a guest, waits until it powers off, and returns its records.

    Args:
        guest: The guest.
        image: Its files.
        log: Where all that it wrote is kept.
        seconds: After which it is ended.
        words: More words for the kernel's command line.

    Raises:
        FileNotFoundError: qemu for the architecture is not installed.
    """
    command = command_line(guest, image, words=words)
    if shutil.which(command[1]) is None:
        raise FileNotFoundError(f"{command[1]} is not installed")
    records: list[dict[str, Any]] = []
    with (
        log.open("w") as kept,
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as qemu,
    ):
        end = threading.Timer(seconds, qemu.kill)
        end.start()
        try:
            assert qemu.stdout is not None
            for line in qemu.stdout:
                kept.write(line)
                kept.flush()
                records += records_of(line)
        finally:
            end.cancel()
            qemu.kill()
    return records
