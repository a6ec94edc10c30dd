"""The tracer's process: ``python -m procvm._hold.server FD TOOL``, which the tool starts."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import sys

from procvm._hold.server.server import serve


def main(fd: int, tool: int) -> None:
    """Serves the tool, whose pid is `tool`, at the other end of socket `fd` until it is gone."""
    # Only the end of the tool ends it: Ctrl-C, a closed terminal or a polite kill would
    # leave the tool believing in a hold that is over.
    for signo in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGTSTP, signal.SIGPIPE):
        signal.signal(signo, signal.SIG_IGN)
    with contextlib.suppress(OSError, ValueError):
        # A tool with a low limit of its own may hold many targets.
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        tool_pidfd = os.pidfd_open(tool)
    except OSError:
        os._exit(1)  # the tool is gone
    serve(socket.socket(fileno=fd), tool_pidfd)
    # Without the interpreter's own end: a worker may hang in a request.
    os._exit(0)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:3]))
