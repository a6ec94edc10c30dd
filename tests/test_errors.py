"""The tree of errors: who derives from whom, what each carries, and the gate from errno."""

from __future__ import annotations

import ast
import copy
import errno
import inspect
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from string import Formatter
from typing import Any

import pytest

import procvm
from procvm import errors
from procvm._error_values import WORDINGS
from procvm._linux.libc import errno_error
from procvm.cli import hints
from procvm.cli.output import message_of
from procvm.errors import (
    AccessDeniedError,
    AddressOverflowError,
    AlreadyTracedError,
    AmbiguousNameError,
    AmbiguousSymbolError,
    Candidate,
    ClosedError,
    Hint,
    InvalidArgsError,
    MalformedError,
    MismatchError,
    NoSuchProcessError,
    NoSuchSymbolError,
    NotStoppedError,
    NotTracedError,
    PageFaultError,
    ProcessError,
    ProcessExecedError,
    ProcessExitedError,
    ProcvmError,
    SharedMemoryError,
    StopTimeoutError,
    UnsupportedError,
    VmError,
)

TREE: dict[type[ProcvmError], tuple[type[BaseException], ...]] = {
    VmError: (ProcvmError,),
    InvalidArgsError: (VmError, ValueError),
    PageFaultError: (VmError, OSError),
    AccessDeniedError: (VmError, PermissionError),
    AddressOverflowError: (VmError, OverflowError),
    MismatchError: (VmError,),
    ProcessError: (ProcvmError,),
    NoSuchProcessError: (ProcessError, ProcessLookupError),
    AmbiguousNameError: (ProcessError, LookupError),
    ProcessExitedError: (ProcessError,),
    ProcessExecedError: (ProcessError,),
    AlreadyTracedError: (ProcessError,),
    NotTracedError: (ProcessError,),
    NotStoppedError: (ProcessError,),
    StopTimeoutError: (ProcessError, TimeoutError),
    SharedMemoryError: (ProcvmError,),
    NoSuchSymbolError: (ProcvmError, KeyError),
    AmbiguousSymbolError: (ProcvmError, LookupError),
    MalformedError: (ProcvmError, ValueError),
    UnsupportedError: (ProcvmError, NotImplementedError),
    ClosedError: (ProcvmError, ValueError),
}

FAMILIES: tuple[type[BaseException], ...] = (
    ValueError,
    OSError,
    PermissionError,
    ProcessLookupError,
    TimeoutError,
    OverflowError,
    LookupError,
    NotImplementedError,
    TypeError,
    VmError,
    ProcessError,
)


def every_class() -> list[type[ProcvmError]]:
    """Every public class of the tree, found by walking it."""
    found: list[type[ProcvmError]] = []
    queue: list[type[ProcvmError]] = [ProcvmError]
    while queue:
        kind = queue.pop(0)
        if kind not in found and kind.__module__.startswith("procvm."):
            found.append(kind)
            queue.extend(kind.__subclasses__())
    return [kind for kind in found if not kind.__name__.startswith("_")]


VALUES: dict[str, Any] = {
    "copied_len": 17,
    "address": 0x7FFF_1234_5000,
    "pid": 4242,
    "errno": errno.EIO,
    "tracer_pid": 99,
    "name": "g_counter",
    "reason": "it is thread-local",
    "hint": Hint("maps", {"pid": 4242}),
    "candidates": (Candidate("a!g_counter", 0x10), Candidate("b!g_counter", 0x20)),
}


def sample(kind: type[ProcvmError]) -> ProcvmError:
    """An error of this class with every attribute set to something unusual."""
    names = inspect.signature(kind).parameters
    fields = {name: value for name, value in VALUES.items() if name in names}
    return kind("what happened; what to do", **fields)


def attributes(error: BaseException) -> dict[str, Any]:
    names = ("message", "errno", "strerror", "filename", *VALUES)
    return {name: getattr(error, name) for name in names if hasattr(error, name)}


@pytest.mark.parametrize("kind", TREE)
def test_an_error_has_the_bases_of_the_contract_and_no_others(kind: type[ProcvmError]) -> None:
    """It is caught by the names that the contract draws above it, and by none beside them."""
    wanted = {base for base in FAMILIES if any(issubclass(b, base) for b in TREE[kind])}
    wanted |= {kind} & set(FAMILIES)
    assert {base for base in FAMILIES if issubclass(kind, base)} == wanted
    assert issubclass(kind, ProcvmError)
    assert issubclass(kind, Exception)


@pytest.mark.parametrize("kind", [ProcvmError, *TREE])
def test_an_error_is_public(kind: type[ProcvmError]) -> None:
    """Each class of the contract is importable from `procvm` and listed there."""
    assert getattr(procvm, kind.__name__) is kind
    assert kind.__name__ in procvm.__all__


def test_every_error_that_there_is_is_public() -> None:
    """No class of the tree hides: each is in `procvm.errors.__all__` and in `procvm.__all__`."""
    names = {kind.__name__ for kind in every_class()}
    assert names | {"Candidate", "Hint", "ProcessCandidate"} == set(errors.__all__)
    assert names <= set(procvm.__all__)
    assert {kind.__name__ for kind in TREE} <= names


@pytest.mark.parametrize("kind", every_class())
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_an_error_survives_pickling(kind: type[ProcvmError], protocol: int) -> None:
    """Class, attributes, str, args and errno are the same on the other side."""
    error = sample(kind)
    back = pickle.loads(pickle.dumps(error, protocol))
    assert type(back) is kind
    assert attributes(back) == attributes(error)
    assert (str(back), back.args, repr(back)) == (str(error), error.args, repr(error))


@pytest.mark.parametrize("kind", every_class())
def test_an_error_survives_copying(kind: type[ProcvmError]) -> None:
    """A copy and a deep copy are the same error."""
    error = sample(kind)
    for back in (copy.copy(error), copy.deepcopy(error)):
        assert type(back) is kind
        assert attributes(back) == attributes(error)
        assert str(back) == str(error)


@pytest.mark.parametrize("kind", every_class())
def test_an_error_that_changed_on_its_way_up_pickles_as_it_is(kind: type[ProcvmError]) -> None:
    """A `copied_len` corrected after the raise is the one that arrives."""
    error = sample(kind)
    error.copied_len += 1000
    back = pickle.loads(pickle.dumps(error))
    assert back.copied_len == 1017
    assert str(back) == str(error)
    assert "1017" in str(back)


@pytest.mark.parametrize("kind", every_class())
def test_copied_len_is_zero_unless_said_otherwise(kind: type[ProcvmError]) -> None:
    """Without a count nothing took effect, and the text does not speak of it."""
    names = inspect.signature(kind).parameters
    needed = {
        name: VALUES[name]
        for name in ("address", "name", "pid", "tracer_pid", "candidates")
        if name in names
    }
    error = kind("what happened", **needed)
    assert error.copied_len == 0
    assert str(error) == "what happened"
    assert "17" in str(sample(kind))
    assert str(sample(kind)).startswith("what happened; what to do")


def test_a_page_fault_tells_where_how_far_and_whose() -> None:
    """Its attributes are what it was made with; errno is EFAULT unless it was EIO."""
    error = PageFaultError("fault", address=0x1000, pid=7, copied_len=3)
    assert (error.address, error.pid, error.copied_len) == (0x1000, 7, 3)
    assert error.errno == errno.EFAULT
    error = PageFaultError("fault", address=0x1000, pid=7, errno=errno.EIO)
    assert (error.errno, error.copied_len) == (errno.EIO, 0)


def test_errors_that_are_os_errors_have_an_errno() -> None:
    """Who catches OSError finds the number that the kernel would have given."""
    assert AccessDeniedError("no").errno == errno.EPERM
    assert AccessDeniedError("no", errno=errno.EACCES).errno == errno.EACCES
    assert NoSuchProcessError("none", pid=5).errno == errno.ESRCH
    assert StopTimeoutError("late", pid=5).errno == errno.ETIMEDOUT


def test_a_process_error_names_its_process() -> None:
    """Each error of a process carries `pid`, and one of tracing the tracer's as well."""
    for kind in every_class():
        if issubclass(kind, ProcessError):
            error = sample(kind)
            assert isinstance(error, ProcessError)
            assert error.pid == 4242
    tracing = AlreadyTracedError("held", pid=5, tracer_pid=6)
    assert (tracing.pid, tracing.tracer_pid) == (5, 6)


# Hints


ROOT = Path(errors.__file__).parent


def hints_made() -> dict[str, dict[str, set[str]]]:
    """The names of the values given with each key of a hint, by place, wherever one is made."""
    found: dict[str, dict[str, set[str]]] = {}
    for path in sorted(ROOT.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and ast.unparse(node.func) == "Hint"):
                continue
            key = node.args[0]
            assert isinstance(key, ast.Constant), f"{path}:{node.lineno}: a key that is no literal"
            names: set[str] = set()
            if len(node.args) > 1:
                names = set(ast.literal_eval(f"[{', '.join(_keys(node.args[1]))}]"))
            found.setdefault(str(key.value), {})[f"{path}:{node.lineno}"] = names
    return found


def _keys(values: ast.expr) -> list[str]:
    assert isinstance(values, ast.Dict)
    return [ast.unparse(key) for key in values.keys if key is not None]


@pytest.mark.parametrize("wordings", [WORDINGS, hints.WORDINGS], ids=["Python", "the command"])
def test_hint_of_every_key_has_a_wording(wordings: Mapping[str, str]) -> None:
    """A table words every key that is used and no others, with the values that are given."""
    made = hints_made()
    assert set(wordings) == set(made)
    for key, places in made.items():
        needed = {name for _, name, _, _ in Formatter().parse(wordings[key]) if name}
        for place, names in places.items():
            assert needed <= names, f"{place} does not give what the wording of {key!r} needs"


def test_message_names_no_method_and_no_option() -> None:
    """What only one front end has is a hint: no text of an error in the package names it."""
    known = {kind.__name__ for kind in every_class()}
    for path in sorted(ROOT.rglob("*.py")):
        if "testing" in path.parts or "cli" in path.parts:
            continue  # only Python code, and only the command, meets these
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and ast.unparse(node.func) in known and node.args):
                continue
            message = "".join(
                str(part.value) for part in ast.walk(node.args[0]) if isinstance(part, ast.Constant)
            )
            found = re.findall(r"procvm\.\w+|\w+\(\)|--\w+|longest_hold|backend=", message)
            assert not found, f"{path}:{node.lineno}: {found}"


def test_str_of_an_error_adds_the_hint_to_its_message() -> None:
    """The message stands alone; the text has the hint in Python's words, the command in its own."""
    error = PageFaultError(
        "cannot read process 7 at 0x1000: the process itself cannot read there",
        address=0x1000,
        pid=7,
        copied_len=3,
        hint=Hint("forced", {"pid": 7}),
    )
    assert "forced" not in error.message
    assert "vm.forced()" in str(error)
    assert str(error).startswith(error.message)
    assert "copied_len=3" in str(error)
    said = message_of(error)
    assert "--force" in said
    assert "procvm maps 7" in said
    assert "forced()" not in said
    assert ClosedError("it was closed").hint is None


# The gate from errno


@pytest.mark.parametrize("code", [*sorted(errno.errorcode), 0, 134, 4095, 99999])
def test_the_gate_from_errno_is_total(code: int) -> None:
    """Every errno, and what is none, is an error of ours with the count and the process in it."""
    for address in (None, 0x1000):
        error = errno_error(code, "reading", pid=4242, address=address, copied_len=17)
        assert isinstance(error, ProcvmError)
        assert type(error) in every_class()
        assert error.copied_len == 17
        assert str(error)
        assert getattr(error, "pid", 4242) == 4242
        assert type(pickle.loads(pickle.dumps(error))) is type(error)
        if isinstance(error, OSError):
            assert error.errno == code


@pytest.mark.parametrize("code", [errno.EFAULT, errno.EIO])
def test_the_gate_makes_a_fault_of_an_access_a_page_fault(code: int) -> None:
    """EFAULT, and EIO of /proc/PID/mem, with an address are a PageFaultError there."""
    error = errno_error(code, "reading", pid=4242, address=0x1000, copied_len=17)
    assert type(error) is PageFaultError
    assert (error.address, error.pid, error.copied_len) == (0x1000, 4242, 17)
    assert error.errno == code


def test_the_gate_makes_a_page_fault_of_nothing_else() -> None:
    """No other errno is told as a page fault, which would blame the address."""
    for code in errno.errorcode:
        if code not in (errno.EFAULT, errno.EIO):
            error = errno_error(code, "reading", pid=4242, address=0x1000)
            assert not isinstance(error, PageFaultError)


@pytest.mark.parametrize("code", [errno.EPERM, errno.EACCES])
def test_the_gate_makes_a_refusal_access_denied(code: int) -> None:
    """EPERM and EACCES are an AccessDeniedError with that errno."""
    error = errno_error(code, "reading", pid=4242, address=0x1000)
    assert type(error) is AccessDeniedError
    assert (error.errno, error.pid) == (code, 4242)


def test_the_gate_tells_a_missing_process_and_a_missing_call() -> None:
    """ESRCH is an error of the process, ENOSYS is UnsupportedError."""
    assert isinstance(errno_error(errno.ESRCH, "reading", pid=4242), ProcessError)
    assert type(errno_error(errno.ENOSYS, "reading", pid=4242)) is UnsupportedError
