"""`assert_same`: variables have the values that they had in a snapshot."""

from __future__ import annotations

import ctypes
import reprlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

from procvm._base.pods import PodLike, pod_of
from procvm._saved.snapshot import Snapshot
from procvm._symbols.mapped import Mapped

__all__ = ["assert_same"]

_MOST_SHOWN = 32


def assert_same(
    before: Snapshot,
    after: Mapped,
    variables: Mapping[str, PodLike[Any]],
    *,
    ignore: Iterable[str] = (),
) -> None:
    """Fails if a variable does not have the value any more that it had in a snapshot.

    The message has a line for each field that differs, such as ``g_queue.slots[3]: 0 -> 60``.

    Args:
        before: The snapshot, or a core file that `open_core` opened.
        after: The process, or a later snapshot of it.
        variables: The type of each variable, by its name or by an address expression.
        ignore: Fields that may differ, such as ``"g_queue.tail"``, with all that is in them.

    Raises:
        AssertionError: A field differs.
        ValueError: A name in `ignore` is not a field.
        NoSuchSymbolError: A name is not a symbol.
        PageFaultError: A variable cannot be read, or is not in the snapshot.
    """
    __tracebackhide__ = True
    left_out = dict.fromkeys(ignore, False)
    lines: list[str] = []
    for name, given in variables.items():
        pod = pod_of(given)
        old, new = (one.vm.read_val(one.address(name), pod) for one in (before, after))
        for (path, was), (_, now) in zip(_fields(name, old), _fields(name, new), strict=True):
            covering = [one for one in left_out if _is_in(path, one)]
            left_out.update(dict.fromkeys(covering, True))
            if was != now and not covering and not (was != was and now != now):  # noqa: PLR0124 (NaN)
                lines.append(f"  {path}: {reprlib.repr(was)} -> {reprlib.repr(now)}")
    wrong = [name for name, was_met in left_out.items() if not was_met]
    if wrong:
        raise ValueError(f"ignore names no field of the variables: {', '.join(wrong)}")
    if lines:
        n = len(lines)
        if n > _MOST_SHOWN:
            lines[_MOST_SHOWN:] = [f"  and {n - _MOST_SHOWN} more"]
        fields = "1 value" if n == 1 else f"{n} values"
        raise AssertionError(
            "\n".join([f"{fields} of process {after.pid} differ from the snapshot:", *lines])
        )


def _is_in(path: str, field: str) -> bool:
    return path == field or path.startswith((f"{field}.", f"{field}["))


def _fields(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yields the fields of a value with their paths; a union is shown as its bytes."""
    if isinstance(value, ctypes.Structure):
        kind = type(value)
        bases = [base for base in reversed(kind.__mro__) if "_fields_" in vars(base)]
        for base in bases:
            for field in vars(base)["_fields_"]:
                name = field[0]
                if name in getattr(kind, "_anonymous_", ()):
                    yield from _fields(path, getattr(value, name))
                else:
                    yield from _fields(f"{path}.{name}", getattr(value, name))
    elif isinstance(value, ctypes.Array):
        # After the isinstance, pyright takes its elements for unknown.
        for k, one in enumerate(cast("Any", value)):
            yield from _fields(f"{path}[{k}]", one)
    elif isinstance(value, ctypes.Union):
        yield path, bytes(value)
    else:
        yield path, value
