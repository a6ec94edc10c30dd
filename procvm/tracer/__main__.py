"""The tracer's process: ``python -m procvm.tracer FD`` (the tool starts it, nobody else has to)."""

from __future__ import annotations

import os
import signal
import socket
import sys

from procvm.tracer.server import serve


def main(fd: int) -> None:
    """Serves the tool at the other end of socket `fd` until that is gone."""
    # Nothing but the end of the tool ends it: not Ctrl-C, a closed terminal or a polite kill,
    # which would leave the tool believing in a hold that is over.
    for signo in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGTSTP, signal.SIGPIPE):
        signal.signal(signo, signal.SIG_IGN)
    serve(socket.socket(fileno=fd))
    # Not by way of the interpreter's end: a worker may hang in a request.
    os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]))
