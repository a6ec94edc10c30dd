"""Pages that never come: what hangs, what ends it, and what goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import procvm
from tests.faults.races import Backend
from tests.faults.subjects import needs
from tests.support.hanging import hanging
from tests.support.playground import PAGE, Playground
from tests.support.procfs import state_of, status_field

ROOT = Path(__file__).parents[2]
BACKENDS: list[Backend] = ["auto", "mem"]

READER = """
import sys, procvm
with procvm.open(int(sys.argv[1]), backend=sys.argv[3]) as process:
    process.vm.read_bytes(int(sys.argv[2]), 8)
"""


def _is_pending(pid: int, signo: int) -> bool:
    pending = int(status_field(pid, "SigPnd"), 16) | int(status_field(pid, "ShdPnd"), 16)
    return bool(pending >> (signo - 1) & 1)


@needs("umount")
@pytest.mark.parametrize("backend", BACKENDS)
def test_read_of_a_fuse_page_hangs_until_its_server_ends(tmp_path: Path, backend: Backend) -> None:
    """As the model says: Ctrl-C does not end it, by neither backend; the rest of the target does.

    Its mappings are told, and a snapshot without the mapping is complete.
    """
    with Playground() as target, hanging(tmp_path) as server:
        rest = target.layout("rw")
        address = target.map_file(os.fsencode(tmp_path / "file"), 2 * PAGE)
        argv = [sys.executable, "-c", READER, str(target.pid), str(address), backend]
        reader = subprocess.Popen(argv, cwd=ROOT, stderr=subprocess.DEVNULL)
        try:
            assert server.line() == "asked"
            while state_of(reader.pid) != "D":
                pass
            reader.send_signal(signal.SIGINT)
            assert _is_pending(reader.pid, signal.SIGINT)
            assert state_of(reader.pid) == "D"
            with procvm.open(target.pid, backend=backend) as process:
                hangs = process.find_vma(address)
                assert hangs is not None
                assert os.fsencode(tmp_path) in hangs.name
                others = [vma for vma in process.maps().filter(perms="r") if vma.dev != hangs.dev]
                with process.snapshot(others) as snapshot:
                    assert snapshot.vm.read_bytes(rest, PAGE) == target.peek(rest, PAGE)
            assert reader.poll() is None
        finally:
            os.kill(server.pid, signal.SIGKILL)
            # Whatever it says of the page, it ends.
            assert reader.wait() != 0
