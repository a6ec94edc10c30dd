"""Checks what the tool can do on its own memory, and which packages are installed."""

from __future__ import annotations

import errno
import importlib.metadata
import mmap
import os
from collections.abc import Iterator

from procvm._base.address import PAGE_SIZE
from procvm._base.fd import Fd
from procvm._base.text import printable
from procvm._linux import procfs
from procvm._linux.access import Explanation
from procvm._linux.pagemap import touched
from procvm._live.process import open as open_process
from procvm._local.buffers import pin
from procvm.doctor.calls import killing_call, way_out
from procvm.doctor.finding import Finding, said
from procvm.errors import AccessDeniedError, PageFaultError, ProcvmError

__all__ = ["extras", "forced", "map_files", "pagemap_scan"]


def forced(calls: list[Finding]) -> Finding:
    """Tries a forced write to a page of the tool."""
    name, option = "forced access", "proc_mem.force_override"
    if killing_call(calls):
        return Finding(name, "absent", f"not known: {killing_call(calls)} would end the tool")
    page = mmap.mmap(
        -1, PAGE_SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=mmap.PROT_READ
    )
    held = pin(page, writable=False)
    boot = procfs.read_text("/proc/cmdline") or ""
    given = next((word for word in boot.split() if word.startswith(option + "=")), "")
    try:
        with open_process(os.getpid()) as process:
            process.vm.forced().write_bytes(held.address, b"\x01")
    except PageFaultError as error:
        return Finding(
            name,
            "warning",
            f"a write to a read-only page of the tool: {said(error)}; "
            + (
                f"{printable(given)} in /proc/cmdline" if given else f"no {option} in /proc/cmdline"
            ),
            f"boot with {option}=always, if forced() is needed",
        )
    except AccessDeniedError as error:
        return Finding(name, "warning", f"a write to a read-only page of the tool: {said(error)}")
    except ProcvmError as error:
        return Finding(name, "absent", f"not known: {said(error)}")
    if held.view[0] != 1:
        return Finding(name, "fails", "a write to a read-only page of the tool had no effect")
    return Finding(name, "ok", "a read-only page of the tool was written with /proc/self/mem")


def pagemap_scan(ours: Explanation) -> Finding:
    """Tries PAGEMAP_SCAN on a page of the tool."""
    name = "PAGEMAP_SCAN"
    page = mmap.mmap(-1, PAGE_SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    held = pin(page, writable=True)
    # The page was read, not written: only the scan distinguishes the two.
    seen = held.view[0]
    try:
        pagemap = Fd.open("/proc/self/pagemap", os.O_RDONLY)
        runs = touched(pagemap.number, held.address, held.address + PAGE_SIZE)
    except OSError as error:
        return Finding(
            name,
            "warning",
            f"/proc/self/pagemap: {said(error)}; untouched memory is searched too",
        )
    if seen or runs:
        return Finding(
            name,
            "absent",
            "ioctl(/proc/self/pagemap) is not supported: procvm reads its entries, which is slower",
            way_out("ioctl", ours, "Linux 6.7 or later"),
        )
    return Finding(name, "ok", "ioctl(/proc/self/pagemap)")


def map_files() -> Finding:
    """Tries to open the object of a mapping."""
    name, folder = "map_files", "/proc/self/map_files"
    try:
        link = f"{folder}/{os.listdir(folder)[0]}"
        os.stat(link)
    except OSError as error:
        return Finding(
            name,
            "warning",
            f"{folder}: {said(error)}; an atomic on shared memory works only if the target "
            "has the object open as well",
            "run the tool with CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN"
            if error.errno == errno.EPERM
            else "",
        )
    return Finding(name, "ok", f"a link of {folder} can be followed")


# The name of a package, what it is for, and the extra that brings it.
_EXTRAS = (
    ("numpy", "arrays, scan", "numpy"),
    ("pyelftools", "symbols", "symbols"),
    ("drgn", "types, variables and stacks from debug information", "types"),
    ("yara-x", "rules in a search", "yara"),
    ("click", "the command", "cli"),
    ("rich", "the command", "cli"),
    ("textual", "the viewer", "tui"),
    ("pytest", "the pytest plugin", "pytest"),
)


def extras() -> Iterator[Finding]:
    """Yields which of the optional packages are installed."""
    for name, purpose, extra in _EXTRAS:
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            evidence = f"{name} is not installed: {purpose}"
            yield Finding(name, "absent", evidence, f"pip install 'procvm[{extra}]'")
        else:
            yield Finding(name, "ok", f"{name} {printable(version)}: {purpose}")
