"""The requests of the tool, each with the function that serves it."""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType

from procvm._hold.server import atomics, injection, moves, regsets, requests
from procvm._hold.server.lease import Lease, deadline_of
from procvm._hold.server.proof import Program
from procvm._hold.server.protocol import Op
from procvm._hold.server.requests import Gone
from procvm._hold.server.tasks import TaskState
from procvm._hold.server.writing import write_ranges
from procvm._linux.peers import require_no_peer

__all__ = ["OPERATIONS"]

_Fields = tuple[int, str, int, int, bytes, tuple[object, ...]]


def _stop(lease: Lease, fds: list[int], timeout: float | None, longest: float | None) -> int:
    return lease.stop(fds, timeout, longest)


def _resume(lease: Lease, _fds: list[int]) -> int:
    return lease.resume()


def _is_stopped(lease: Lease, _fds: list[int]) -> bool:
    return lease.is_held


def _echo(_lease: Lease, _fds: list[int]) -> None:
    """Answers; the request asks for nothing else."""


def _detach(lease: Lease, _fds: list[int]) -> None:
    lease.let_go()


def _atomic(
    lease: Lease,
    _fds: list[int],
    timeout: float | None,
    forced: bool,
    address: int,
    size: int,
    expected: bytes | None,
    desired: bytes,
) -> bytes | None:
    """Stops the target, operates and resumes it; a held target stays held.

    Returns:
        The bytes that were there; None if the target's own instruction would fault.
    """
    held = lease.is_held
    if held:
        lease.require_program()
    else:
        lease.stop_all(timeout)
    try:
        program = lease.proof.program
        stopped = lease.hold.in_state(TaskState.HELD)
        if program is None or not stopped:
            raise Gone
        require_no_peer(lease.pid)
        return atomics.operate(program, stopped[0], address, size, expected, desired, forced=forced)
    finally:
        if not held:
            lease.release()


def _take_image(lease: Lease, fds: list[int], token_address: int) -> None:
    """Takes the tool's descriptors of the program that a new process became."""
    mem, maps = fds
    fds.clear()
    lease.proof.program = Program(mem, maps, token_address)
    lease.hold.execed = False


def _await_exec(lease: Lease, fds: list[int], timeout: float | None, longest: float | None) -> None:
    """Seizes a process that waits for a byte, sends the byte, and holds it at its exec."""
    (go,) = fds
    lease.stop_at_exec(go, timeout, longest)


def _get_registers(lease: Lease, _fds: list[int], tid: int) -> dict[str, int]:
    return requests.registers(lease.held_task(tid))


def _get_floats(lease: Lease, _fds: list[int], tid: int) -> tuple[str, bool, bytes]:
    return regsets.float_regset(lease.held_task(tid))


def _set_registers(lease: Lease, _fds: list[int], tid: int, values: dict[str, int]) -> str | None:
    return requests.set_registers(lease.held_task(tid), values)


def _step(lease: Lease, _fds: list[int], tid: int, timeout: float | None) -> None:
    lease.held_task(tid)
    lease.moving = True
    try:
        moves.step(lease.hold, tid, timeout, lease.given_up)
    finally:
        lease.moving = False


def _cont(
    lease: Lease, _fds: list[int], timeout: float | None, calls: tuple[int, ...] | None
) -> _Fields | None:
    lease.require_hold()
    lease.hold.stepper.close()  # its breakpoints take slots
    for each in lease.hold.in_state(TaskState.HELD):
        lease.hold.points.arm(each)  # an error here does not end the hold
    with lease.moved():
        wanted = None if calls is None else frozenset(calls)
        found = moves.cont(lease.hold, deadline_of(timeout), lease.given_up, wanted)
    return None if found is None else found.fields


def _pending(lease: Lease, _fds: list[int]) -> list[_Fields]:
    lease.require_hold()
    return [event.fields for event in lease.hold.queue]


def _deliver(lease: Lease, _fds: list[int], tid: int, number: int, signo: int) -> None:
    lease.require_hold()
    moves.deliver(lease.hold, tid, number, signo)


def _call(
    lease: Lease,
    _fds: list[int],
    tid: int,
    gadget: int,
    function: int | None,
    number: int,
    arguments: tuple[int, ...],
    timeout: float | None,
) -> int:
    lease.held_task(tid)
    lease.hold.stepper.close(tid)
    lease.moving = True
    try:
        return injection.inject(
            lease.hold, tid, gadget, function, number, arguments, timeout, lease.given_up
        )
    finally:
        lease.moving = False


def _add_point(lease: Lease, _fds: list[int], on: str, address: int, size: int) -> int:
    lease.require_hold()
    lease.require_program()
    lease.hold.stepper.close()  # its breakpoints take slots
    held = lease.hold.in_state(TaskState.HELD)
    return lease.hold.points.add(on, address, size, held).number


def _remove_point(lease: Lease, _fds: list[int], number: int) -> None:
    hold = lease.hold
    hold.points.remove(number)
    hold.queue[:] = [event for event in hold.queue if event.point != number]


OPERATIONS: MappingProxyType[int, Callable[..., object]] = MappingProxyType(
    {
        Op.STOP: _stop,
        Op.RESUME: _resume,
        Op.IS_STOPPED: _is_stopped,
        Op.ATOMIC: _atomic,
        Op.IMAGE: _take_image,
        Op.AWAIT_EXEC: _await_exec,
        Op.DETACH: _detach,
        Op.GET_REGISTERS: _get_registers,
        Op.GET_FLOATS: _get_floats,
        Op.SET_REGISTERS: _set_registers,
        Op.STEP: _step,
        Op.CONT: _cont,
        Op.CALL: _call,
        Op.ADD_POINT: _add_point,
        Op.REMOVE_POINT: _remove_point,
        Op.PENDING: _pending,
        Op.DELIVER: _deliver,
        Op.ECHO: _echo,
        Op.WRITE: write_ranges,
    }
)
"""By request: the function, which takes the lease, the request's descriptors and arguments.

A function that keeps a descriptor removes it from the list; the worker closes the rest.
"""
