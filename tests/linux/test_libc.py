"""The gate from errno to our errors, and descriptors that close when nobody needs them."""

from __future__ import annotations

import errno
import os
import pickle
import signal

import pytest

import procvm
from procvm._base.fd import Fd
from procvm._linux.libc import errno_error
from procvm._linux.pidfd import exit_status

EXPECTED: dict[int, type[procvm.ProcvmError]] = {
    errno.EFAULT: procvm.PageFaultError,
    errno.EIO: procvm.PageFaultError,
    errno.ESRCH: procvm.ProcessExitedError,
    errno.EPERM: procvm.AccessDeniedError,
    errno.EACCES: procvm.AccessDeniedError,
    errno.ENOSYS: procvm.UnsupportedError,
}


@pytest.mark.parametrize("code", [*sorted(errno.errorcode), 0, 4095])
def test_the_gate_from_errno_is_total(code: int) -> None:
    """Every errno is an error of ours, with the count, the address and the pid it was given."""
    error = errno_error(code, "reading", pid=77, address=0x1000, copied_len=5)
    assert type(error) is EXPECTED.get(code, procvm.VmError)
    assert error.copied_len == 5
    if isinstance(error, procvm.PageFaultError):
        assert (error.address, error.pid, error.errno) == (0x1000, 77, code)
    if isinstance(error, procvm.ProcessError | procvm.AccessDeniedError):
        assert error.pid == 77
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert vars(again) == vars(error)
    assert str(again) == str(error)


@pytest.mark.parametrize("code", sorted(errno.errorcode))
def test_a_failure_that_is_not_of_an_access_is_no_page_fault(code: int) -> None:
    """Without an address even EFAULT and EIO are no PageFaultError."""
    error = errno_error(code, "opening", pid=77)
    assert not isinstance(error, procvm.PageFaultError)
    assert isinstance(error, procvm.ProcvmError)
    assert errno.errorcode[code] in str(error) or "77" in str(error)


def test_a_descriptor_closes_with_its_last_user() -> None:
    """While anybody holds the object the number is open, after that it is not."""
    fd = Fd.open("/dev/null", os.O_RDONLY)
    number = fd.number
    assert not os.get_inheritable(number)
    user = fd
    del fd
    os.fstat(number)
    del user
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)


def test_a_descriptor_that_is_closed_in_a_use_stays_open_to_its_end() -> None:
    """No other file gets the number while the use goes on."""
    fd = Fd.open("/dev/null", os.O_RDONLY)
    number = fd.number
    with fd.use() as used:
        fd.close()
        assert used == number
        os.fstat(number)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)


@pytest.mark.parametrize("status", [0, 1, 7, 255])
def test_the_status_of_a_child_that_returned(status: int) -> None:
    """A child of ours tells its exit code, and is still there to be reaped."""
    pid = os.posix_spawn("/bin/sh", ["sh", "-c", f"exit {status}"], {})
    pidfd = os.pidfd_open(pid)
    os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOWAIT)
    assert exit_status(pidfd, pid) == status
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == status
    os.close(pidfd)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_the_status_of_a_child_that_a_signal_ended(number: signal.Signals) -> None:
    """A child of ours tells minus the number of the signal."""
    pid = os.posix_spawn("/bin/sh", ["sh", "-c", f"kill -{int(number)} $$; read x"], {})
    pidfd = os.pidfd_open(pid)
    os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOWAIT)
    assert exit_status(pidfd, pid) == -number
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -number
    os.close(pidfd)


def test_the_status_of_a_child_that_was_reaped_is_true_or_unknown() -> None:
    """After somebody else reaped it the kernel may still tell, and never tells a wrong one."""
    pid = os.posix_spawn("/bin/sh", ["sh", "-c", "exit 9"], {})
    pidfd = os.pidfd_open(pid)
    os.waitpid(pid, 0)
    assert exit_status(pidfd, pid) in (9, None)
    os.close(pidfd)
