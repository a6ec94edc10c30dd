"""``read`` and ``write``."""

from __future__ import annotations

from typing import IO, Any

import click

import procvm
from procvm._space.chunks import read_chunks
from procvm._terminal.kind import Kind
from procvm._terminal.scalars import Bytes, Pointer
from procvm.cli.declare import (
    SIZE,
    address_argument,
    command,
    force_option,
    pid_argument,
)
from procvm.cli.exits import NOTHING
from procvm.cli.kind_param import kind_option
from procvm.cli.output import Output, fault_of, message_of, tell
from procvm.cli.target import address_in, name_of, names_register, open_target, pid_of, said_of
from procvm.errors import (
    AccessDeniedError,
    AlreadyTracedError,
    ProcvmError,
    SharedMemoryError,
    StopTimeoutError,
    UnsupportedError,
)

__all__ = ["read", "write"]


@command(
    "procvm read 1234 g_counter -t u32",
    "procvm read myprogram libc.so.6!environ -t ptr",
    "procvm read 1234 '[heap]+0x10' -t struct:x=u32,y=f64,name=char[8] -n 4",
    "procvm read 1234 0x7ffc1234a000 -t bytes -n 4096 --raw > page",
)
@pid_argument
@address_argument
@kind_option("u64")
@click.option(
    "-n", "--count", type=SIZE, metavar="N", default=1, show_default=True, help="How many values."
)
@click.option("-x", "--hex", "as_hex", is_flag=True, help="Show whole numbers in hexadecimal.")
@click.option("--raw", is_flag=True, help="Write the raw bytes to stdout.")
@force_option
def read(
    out: Output,
    target: str,
    address: str,
    kind: Kind,
    count: int,
    as_hex: bool,
    raw: bool,
    force: bool,
) -> None:
    """Read N consecutive values of TYPE at ADDRESS.

    On a terminal each value has its address; in a pipe there is one value per line, for
    scripts. Values before a fault are shown.
    """
    if raw and out.is_terminal:
        raise click.UsageError(
            "--raw does not write to a terminal; redirect it to a file or a program"
        )
    if raw and out.json:
        raise click.UsageError("--raw and --json exclude each other; give one of them")
    with open_target(target) as process:
        kind = kind.of_target(process.address_size)
        at = address_in(process, address)
        vm = process.vm.forced() if force else process.vm
        if raw:
            for data in read_chunks(vm, at, count * kind.size):
                out.raw(data)
        elif isinstance(kind, Bytes):
            _bytes(out, process.pid, vm, at, count)
        elif out.json:
            _document(out, process, vm, at, kind, count)
        else:
            for where, value in kind.read(vm, at, count):
                text = kind.text(value, as_hex=as_hex)
                if isinstance(kind, Pointer):
                    text = _pointer(out, text, name_of(process, value))
                prefix = f"{out.style(hex(where), 'address')}  " if out.is_terminal else ""
                out.line(prefix + text)


def _pointer(out: Output, text: str, where: str) -> str:
    if not where:
        return text
    return f"{text}  {out.style(where, 'name')}" if out.is_terminal else f"{text}\t{where}"


def _bytes(out: Output, pid: int, vm: procvm.VmSpace, at: int, n: int) -> None:
    """Writes bytes as one run of hexadecimal digits."""
    data = bytearray()
    broken: ProcvmError | None = None
    try:
        for piece in read_chunks(vm, at, n):
            data += piece
    except ProcvmError as error:
        broken = error
    if out.json:
        values = [{"address": hex(at), "value": data.hex()}] if data or not n else []
        out.document(_read_document(pid, at, "bytes", values, broken))
    elif data:
        prefix = f"{out.style(hex(at), 'address')}  " if out.is_terminal else ""
        out.line(prefix + (data.hex(" ") if out.is_terminal else data.hex()))
    if broken is not None:
        raise broken


def _document(
    out: Output, process: Any, vm: procvm.VmSpace, at: int, kind: Kind, count: int
) -> None:
    values: list[dict[str, Any]] = []
    broken: ProcvmError | None = None
    try:
        for where, value in kind.read(vm, at, count):
            one = {"address": hex(where), "value": kind.as_json(value)}
            if isinstance(kind, Pointer):
                one["where"] = process.describe(value)
            values.append(one)
    except ProcvmError as error:
        broken = error
    out.document(_read_document(process.pid, at, kind.name, values, broken))
    if broken is not None:
        raise broken


def _read_document(
    pid: int, at: int, kind: str, values: list[dict[str, Any]], broken: ProcvmError | None
) -> dict[str, Any]:
    return {
        "pid": pid,
        "address": hex(at),
        "type": kind,
        "values": values,
        "fault": fault_of(broken),
    }


@command(
    "procvm write 1234 g_counter -t u32 7",
    "procvm write 1234 g_lock -t u32 0 --expect 1",
    "procvm write 1234 g_point -t struct:x=u32,y=f64 'x=1 y=2.5'",
    "procvm write 1234 main -t bytes 'c3' --force",
    "procvm write 1234 g_buffer --from page",
    ignore_unknown_options=True,  # -5 is a value
)
@pid_argument
@address_argument
@click.argument("value", metavar="[VALUE]", required=False)
@kind_option(None)
@click.option(
    "--from",
    "source",
    metavar="FILE",
    type=click.File("rb"),
    help="Write the bytes of this file instead of VALUE; - is stdin.",
)
@click.option("--expect", metavar="OLD", help="Write only if OLD is there; exit with 1 if not.")
@force_option
def write(
    out: Output,
    target: str,
    address: str,
    value: str | None,
    kind: Kind | None,
    source: IO[bytes] | None,
    expect: str | None,
    force: bool,
) -> int:
    """Write VALUE of TYPE, or the bytes of a file, at ADDRESS.

    VALUE is what procvm read shows of TYPE; a structure needs all its fields, as in 'x=1 y=2.5'.
    --expect holds the target for an instant, and compares and writes in one atomic step. Where
    the target cannot be held, the command says so, and compares and writes in two steps. In the
    hold ADDRESS may name a register of the first thread, as in '$rsp+8'.
    """
    if (value is None) == (source is None):
        raise click.UsageError("give one of VALUE and --from FILE")
    if source is not None:
        if kind is not None and not isinstance(kind, Bytes):
            raise click.UsageError("--from writes bytes; leave out -t")
        kind, value = Bytes(), source.read().hex()
    if kind is None or value is None:
        raise click.UsageError("Missing option '-t' / '--type': it says how VALUE is written")
    change = _Change(out, kind, address, value, expect, force=force)
    pid = pid_of(target)
    if expect is None:
        with procvm.open(pid) as process:
            return change.plain(process)
    try:
        tracee = procvm.attach(pid)
    except (AlreadyTracedError, AccessDeniedError, UnsupportedError, StopTimeoutError) as error:
        # Opening it raises the clearer error if access is denied altogether.
        with procvm.open(pid) as process:
            return change.compared(process, f"the process cannot be held: {message_of(error)}")
    with tracee:
        return change.held(tracee)


class _Change:
    """One write and its report."""

    def __init__(
        self,
        out: Output,
        kind: Kind,
        address: str,
        value: str,
        expect: str | None,
        *,
        force: bool,
    ) -> None:
        self._out = out
        self._kind = kind
        self._address = address
        self._texts = (value, expect)
        self._force = force
        self._at = 0
        self._new = b""
        self._old: bytes | None = None

    def _resolve(self, process: procvm.Process) -> procvm.VmSpace:
        self._kind = self._kind.of_target(process.address_size)
        encode, address_of = self._kind.encode, process.address
        value, expect = self._texts
        self._at = address_in(process, self._address)
        self._new = said_of("VALUE", lambda: encode(value, address_of))
        if expect is not None:
            self._old = said_of("--expect", lambda: encode(expect, address_of))
            if len(self._old) != len(self._new):
                raise click.UsageError(
                    f"--expect has {len(self._old)} bytes and VALUE {len(self._new)}; "
                    "both must have the same size"
                )
        return process.vm.forced() if self._force else process.vm

    def plain(self, process: procvm.Process) -> int:
        """Writes unconditionally."""
        vm = self._resolve(process)
        vm.write_bytes(self._at, self._new)
        return self._done(process, None, is_atomic=None)

    def compared(self, process: procvm.Process, why: str) -> int:
        """Reads, compares and writes in separate steps, and says so."""
        return self._compare(process, self._resolve(process), why)

    def held(self, tracee: procvm.Tracee) -> int:
        """Compares and writes in one step, while the target is held."""
        # A register has a value in a hold only, and that of another hold is another one.
        if names_register(self._address, *self._texts):
            with tracee.stopped():
                return self._held(tracee)
        return self._held(tracee)

    def _held(self, tracee: procvm.Tracee) -> int:
        vm = self._resolve(tracee)
        old = self._old or b""
        pod = {4: procvm.u32, 8: procvm.u64}.get(len(old))
        try:
            if pod is not None and self._at % pod.size == 0:
                found, is_done = vm.atomic_compare_exchange(
                    self._at, pod, pod.from_bytes(old), pod.from_bytes(self._new)
                )
                return self._said(tracee, pod.to_bytes(found), is_done=is_done, is_atomic=True)
            self._require_private(tracee)
        except SharedMemoryError as error:
            return self._compare(tracee, vm, message_of(error))
        with tracee.stopped() as hold:
            space = hold.vm.forced() if self._force else hold.vm
            found_bytes = space.read_bytes(self._at, len(old))
            if found_bytes == old:
                space.write_bytes(self._at, self._new)
        return self._said(tracee, found_bytes, is_done=found_bytes == old, is_atomic=True)

    def _require_private(self, process: procvm.Process) -> None:
        for at in (self._at, self._at + len(self._new) - 1):
            vma = process.find_vma(at)
            if vma is not None and vma.perms & procvm.Perms.SHARED:
                raise SharedMemoryError(
                    f"the memory at {at:#x} is shared, so another process may write it meanwhile"
                )

    def _compare(self, process: procvm.Process, vm: procvm.VmSpace, why: str) -> int:
        tell(f"not atomic: {why}")
        old = self._old or b""
        found = vm.read_bytes(self._at, len(old))
        if found == old:
            vm.write_bytes(self._at, self._new)
        return self._said(process, found, is_done=found == old, is_atomic=False)

    def _said(
        self, process: procvm.Process, found: bytes, *, is_done: bool, is_atomic: bool
    ) -> int:
        if is_done:
            return self._done(process, found, is_atomic=is_atomic)
        value, expected = map(self._kind.decode_one, (found, self._old or b""))
        if self._out.json:
            self._document(process.pid, found, is_written=False, is_atomic=is_atomic)
        tell(
            f"nothing was written at {self._at:#x}: the value is {self._kind.text(value)}, "
            f"not {self._kind.text(expected)}"
        )
        return NOTHING

    def _done(self, process: procvm.Process, found: bytes | None, *, is_atomic: bool | None) -> int:
        if self._out.json:
            self._document(process.pid, found, is_written=True, is_atomic=is_atomic)
        elif self._out.is_terminal:
            n = len(self._new)
            where = name_of(process, self._at)
            name = f" ({where})" if where else ""
            self._out.line(f"wrote {n} byte{'s' * (n != 1)} at {self._at:#x}{name}")
        return 0

    def _document(
        self, pid: int, found: bytes | None, *, is_written: bool, is_atomic: bool | None
    ) -> None:
        def value(data: bytes) -> Any:
            return self._kind.as_json(self._kind.decode_one(data))

        self._out.document(
            {
                "pid": pid,
                "address": hex(self._at),
                "type": self._kind.name,
                "value": value(self._new),
                "found": None if found is None else value(found),
                "written": is_written,
                "atomic": is_atomic,
            }
        )
