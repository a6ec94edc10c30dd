"""`Tracee`: a live process that can be held."""

from __future__ import annotations

import errno
import signal
import socket
import subprocess
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, suppress
from types import TracebackType
from typing import Any, ClassVar, final

from procvm._base.address import as_int, as_len, as_timeout
from procvm._hold.calls import CACHE_LEN, Calls
from procvm._hold.control import Control
from procvm._hold.defaults import DEFAULT, Default, seconds_or
from procvm._hold.event import Event
from procvm._hold.held import LAST_BREATH_MS, Grip, Held
from procvm._hold.held_memory import HeldMemory
from procvm._hold.server.protocol import Op
from procvm._hold.stacks import copied_threads
from procvm._linux.libc import errno_error
from procvm._linux.pidfd import ended
from procvm._live.image import Image
from procvm._saved.facts import Facts, Thread
from procvm._space.space import VmSpace
from procvm._types.sources import ThreadState
from procvm.errors import (
    Hint,
    NotStoppedError,
    ProcessExitedError,
    ProcvmError,
    SharedMemoryError,
    WaitTimeoutError,
)

__all__ = ["Event", "Held", "Thread", "Tracee", "wait_for"]


@final
class Tracee(Control):
    """A live process that can be held (stopped), and whose memory can be used atomically.

    Between holds it is not traced and runs at full speed. A hold ends with `resume`, with its
    ``with`` statement, with `close`, after `longest_hold` seconds, and with the tool or the
    tracer, however they end.

    The target notices a hold as little as the kernel allows: no signal is lost, and a
    group-stop stays one. A few blocking calls return EINTR, as after any stop: epoll_wait and
    its kin, sigtimedwait, sigwaitinfo, semop, semtimedop, io_getevents, io_uring_enter, and
    recv, send and accept with a timeout.
    """

    default_timeout: ClassVar[float | None] = 2.0
    """Seconds that a stop or a step may take by default; None for no limit.

    A program that runs on very busy machines can set it, as
    ``procvm.Tracee.default_timeout = 60``; it counts for tracees that are opened later.
    """

    default_longest_hold: ClassVar[float | None] = 5.0
    """Seconds after which a hold ends by itself by default; None for never. It can be set too."""

    def __init__(
        self,
        image: Image,
        calls: Calls,
        *,
        longest_hold: float | None,
        popen: subprocess.Popen[bytes] | None = None,
    ) -> None:
        super().__init__(image, calls)
        self._longest_hold = longest_hold
        self._popen = popen

    @property
    def timeout(self) -> float | None:
        """Seconds that a stop or a step may take by default; None for no limit. It can be set."""
        return self._calls.timeout

    @timeout.setter
    def timeout(self, seconds: float | None) -> None:
        self._calls.timeout = as_timeout(seconds)

    def stop(self, timeout: float | Default | None = DEFAULT) -> None:
        """Stops every thread of the target; each `stop` needs its `resume`.

        Args:
            timeout: Seconds that it may take; None for no limit. By default `timeout`
                of the tracee.

        Raises:
            StopTimeoutError: A thread did not stop (it sleeps uninterruptibly). All threads
                run on, and none stops later.
            AlreadyTracedError: Another process traces the target.
            ProcessExitedError: The target has ended.
            ProcessExecedError: The target runs another program, which was let go untouched.
        """
        timeout = seconds_or(timeout, self._calls.timeout)
        self._calls.request(Op.STOP, timeout, self._longest_hold, timeout=timeout)

    def resume(self) -> None:
        """Takes back one `stop`; with the last one the target runs on.

        Raises:
            NotStoppedError: No `stop` is left to take back, or the hold's longest time
                was over.
        """
        self._calls.request(Op.RESUME)

    def stopped(
        self, timeout: float | Default | None = DEFAULT, *, cache_len: int = CACHE_LEN
    ) -> Held:
        """Stops the target until the result is closed: ``with tracee.stopped() as held:``.

        Such holds nest with each other and with `stop`. Ctrl-C at any moment in or around the
        ``with`` leaves the target running. If the longest time of the hold is over before the
        end of the ``with``, that end raises NotStoppedError.

        Args:
            timeout: Seconds that the stop may take; see `stop`.
            cache_len: Bytes of the target that `Held.vm` may keep; 0 for none. Reads beyond
                that are as slow as without a hold. The largest value of nested holds counts.

        Raises:
            StopTimeoutError: As `stop`, and so are the others.
        """
        timeout = seconds_or(timeout, self._calls.timeout)
        cache_len = as_len(cache_len, "cache_len")
        if cache_len:
            with suppress(SharedMemoryError):  # no page is kept then
                self._calls.look_for_peers()
        try:
            theirs, ours = socket.socketpair()
        except OSError as error:
            raise errno_error(
                error.errno or errno.EIO,
                f"no socket for a hold of process {self.pid}",
                pid=self.pid,
            ) from None
        grip = Grip(self.pid, ours)
        try:
            with theirs:
                number: int = self._calls.request(
                    Op.STOP, timeout, self._longest_hold, fds=(theirs.fileno(),), timeout=timeout
                )
            # After the request: one on a channel that has ended closes every remembered hold.
            self._calls.remember(grip)
            still = self._calls.standstill(cache_len)
            if still is None and not self._calls.has_expired(number):
                # A hold ends at once only with its target.
                with self._image.open_pidfd().use() as pidfd:
                    if ended(pidfd, LAST_BREATH_MS):
                        raise self._image.gone()
            vm = self._vm
            if still is not None:
                grip.reliance = still.reliance
                vm = VmSpace(HeldMemory(self._memory, still, grip))
        except BaseException:
            grip.close()
            raise
        # After a Ctrl-C from here on, dropping the grip ends the hold.
        return Held(grip, vm)

    @contextmanager
    def _at_one_instant(self) -> Generator[None]:
        with self.stopped():
            begun = self._calls.standstill()
            yield
            if begun is None or not begun.lasts:
                raise NotStoppedError(
                    f"process {self.pid} ran on before all was copied",
                    pid=self.pid,
                    hint=Hint("longest_hold"),
                )

    def _thread_states(
        self, tid: int | None, *, every: bool = False
    ) -> tuple[dict[int, ThreadState], float]:
        return copied_threads(self, tid, every=every)

    def _facts(self) -> Facts:
        """Returns the facts for a core file, with registers; the leader is the first thread."""
        known: dict[int, dict[str, int]] = {}
        threads = sorted(self.threads(), key=lambda thread: thread.tid != self.pid)
        for thread in threads:
            if thread.state not in "ZX":
                known[thread.tid] = self.registers(thread.tid)
        held = tuple(thread for thread in threads if thread.tid in known)
        return self._image.facts()._replace(threads=held, registers=known)

    def _hold(self) -> AbstractContextManager[object]:
        return self.stopped()

    def is_stopped(self) -> bool:
        """Returns whether the target is held by this tracee; a group-stop does not count."""
        return bool(self._calls.request(Op.IS_STOPPED))

    def send_signal(self, signo: int) -> None:
        """Sends a signal to the process by its pidfd, so never to another process.

        Args:
            signo: The signal, 1 to 64; 0 sends none, and only checks.

        Raises:
            ValueError: No signal has the number.
            ProcessExitedError: It has ended.
            AccessDeniedError: The kernel does not allow it.
        """
        number = as_int(signo, "signo")
        if not 0 <= number < signal.NSIG:
            raise ValueError(f"no signal has the number {number}; give 1 to {signal.NSIG - 1}")
        try:
            with self._image.open_pidfd().use() as pidfd:
                signal.pidfd_send_signal(pidfd, number)
        except ProcessLookupError:
            raise self._image.gone() from None
        except PermissionError as error:
            what = f"sending signal {number} to process {self.pid}"
            raise errno_error(error.errno or errno.EPERM, what, pid=self.pid) from None

    def kill(self) -> None:
        """Kills the process; does nothing if it has ended."""
        with suppress(ProcessExitedError):
            self.send_signal(signal.SIGKILL)

    def detach(self) -> None:
        """Detaches from the target; the same as `close`."""
        self.close()

    def close(self) -> None:
        """Ends every hold and the use of the target, which runs on. May be called twice."""
        if not self._calls.closed:
            self._undo_patches()  # within the hold in which they were made
            try:
                if self._calls.is_open:
                    self._calls.request(Op.DETACH)
            except ProcvmError:
                pass  # the target or the tracer has ended, and with it every hold
            finally:
                self._calls.close()
        super().close()

    def poll(self) -> int | None:
        """Returns the exit status of a spawned process, or None while it runs."""
        if self._popen is not None:
            return self._popen.poll()
        return None if self.is_alive() else self.wait()

    @property
    def returncode(self) -> int | None:
        """The exit status that `wait` or `poll` last returned."""
        return None if self._popen is None else self._popen.returncode

    @property
    def stdin(self) -> Any:
        """The pipe to a spawned process's input; None unless `spawn` was given PIPE."""
        return None if self._popen is None else self._popen.stdin

    @property
    def stdout(self) -> Any:
        """The pipe from a spawned process, if one was asked for."""
        return None if self._popen is None else self._popen.stdout

    @property
    def stderr(self) -> Any:
        """The pipe from a spawned process, if one was asked for."""
        return None if self._popen is None else self._popen.stderr

    def wait(self, timeout: float | None = None) -> int | None:
        """Waits until the process has ended; a spawned one is reaped. See `Process.wait`."""
        if self._popen is None:
            return super().wait(timeout)
        return wait_for(self._popen, timeout)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Closes the tracee; kills and reaps a spawned process."""
        try:
            if self._popen is not None:
                self._popen.kill()  # by Popen: the tracee may be closed already
                if self._popen.stdin is not None:
                    # The process has ended, so buffered input cannot reach it.
                    with suppress(BrokenPipeError):
                        self._popen.stdin.close()
                self._popen.__exit__(kind, error, traceback)
        finally:
            self.close()


def wait_for(popen: subprocess.Popen[Any], timeout: float | None) -> int:
    """Waits until a child of the tool has ended, reaps it, and returns its exit status.

    Raises:
        WaitTimeoutError: It has not ended within `timeout` seconds.
        ValueError: `timeout` is negative, infinite or nan.
    """
    timeout = as_timeout(timeout)
    try:
        return popen.wait(timeout)
    except subprocess.TimeoutExpired:
        raise WaitTimeoutError(
            f"process {popen.pid} has not ended within {timeout} s", pid=popen.pid
        ) from None
