"""`Debugged`: the types, variables and stacks of a memory, by debug information."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    import drgn

    from procvm._space.space import VmSpace
    from procvm._types.sources import ModuleSource, ThreadState
    from procvm._types.stacks import Frame, Stacks
    from procvm._types.typed import Typed

__all__ = ["Debugged"]


class Debugged(ABC):
    """Memory in which files are loaded that may have debug information."""

    _typed: Typed | None = None

    @property
    @abstractmethod
    def pid(self) -> int:
        """The pid of the process."""

    @property
    @abstractmethod
    def vm(self) -> VmSpace:
        """Its address space."""

    @abstractmethod
    def symbol(self, name: str) -> int:
        """Returns the address of a symbol."""

    @abstractmethod
    def describe(self, address: int) -> str:
        """Returns the name of an address."""

    @abstractmethod
    def _module_sources(self) -> list[ModuleSource]:
        """Returns the loaded files, as the search for debug information takes them."""

    def drgn(self) -> drgn.Program:
        """Returns a drgn program over this memory, with the debug information of its files.

        It is for what users of drgn know: ``p.drgn()["g_list"].next``. Later calls return the
        same program, with the files that were loaded meanwhile. A page fault is a
        `drgn.FaultError`. The extra ``types`` has drgn.

        Raises:
            UnsupportedError: drgn or pyelftools is not installed, or the program is not a
                64-bit one.
            ProcessExitedError: The process has ended.
        """
        return cast("drgn.Program", self._typing().program())

    def type(self, name: str) -> Any:
        """Returns the `Pod` of a type, as debug information lays it out.

        It is accepted wherever a pod is: `VmSpace.read_val`, `view`, `gather`, `read_array`,
        `write_val`. A value of a structure has its members as attributes. A pointer is an int
        with a ``target``, the pod of what it points to; an enumerator is an int with a
        ``name``. A call of the pod of a structure makes a value: ``Node(id=3)``.

        Args:
            name: As C writes it: ``"struct node"``, ``"node_t"``, ``"struct node *"``,
                ``"int [4]"``.

        Raises:
            NoSuchSymbolError: No debug information has the type.
            InvalidArgsError: It cannot be parsed.
            UnsupportedError: No loaded file has debug information; the message says where it
                was looked for. Or the type has no values (void, a function); or drgn or
                pyelftools is not installed.
            ProcessExitedError: The process has ended.
        """
        return self._typing().type(name)

    def variable(self, path: str) -> Any:
        """Returns a live view of a variable, typed by debug information.

        A structure is a `View` and an array an `ArrayView`, as `VmSpace.view` returns them; a
        number, a pointer or a text is a `Variable`, whose ``value`` is read and written.

        Args:
            path: A name, with its file if several have it (``"libc.so.6!environ"``), or a
                path as for `value`.

        Raises:
            NoSuchSymbolError: No debug information has it, or it has no single address.
            AmbiguousSymbolError: The name means several variables.
            InvalidArgsError: It cannot be parsed, or it is a bit field.
            PageFaultError: A pointer of the path could not be followed.
            UnsupportedError: As for `type`.
            ProcessExitedError: The process has ended.
        """
        return self._typing().variable(path)

    def value(self, path: str) -> Any:
        """Returns the present value of a C path: ``"g_list->next->at.x"``, ``"team[1].hp"``.

        Numbers, enumerators and pointers are ints or floats, texts in arrays of characters are
        bytes, other arrays are lists, and structures are copies with attributes.

        Args:
            path: Names, members by ``.`` and ``->``, ``[]``, ``*``, ``&``, ``+``, ``-``, casts
                such as ``(struct node *)0x7f0000001000``, and parentheses, as in C.

        Raises:
            NoSuchSymbolError: No debug information has the name, or the type no such member.
            AmbiguousSymbolError: The name means several variables.
            InvalidArgsError: It cannot be parsed, or asks what its type does not have.
            PageFaultError: A pointer could not be followed, or the value not be read.
            UnsupportedError: As for `type`.
            ProcessExitedError: The process has ended.
        """
        return self._typing().value(path)

    def stack(self, tid: int | None = None) -> list[Frame]:
        """Returns the calls that a thread is in, the innermost first.

        A `Tracee` is held only while its registers and the used part of the stack are copied;
        they are unwound afterwards. Frames have a source file and a line where there is debug
        information, and a function as long as there is a symbol.

        Args:
            tid: The thread; by default the leader, or the first of a core file.

        Raises:
            NotTracedError: It is a `Process`, whose threads run.
            NotStoppedError: The registers were not saved, as the process ran then.
            NoSuchProcessError: There is no such thread.
            UnsupportedError: drgn or pyelftools is not installed, or the program is not one of
                x86-64.
            ProcessExitedError: The process has ended.
        """
        typed = self._typing()  # before anything is stopped
        states, _ = self._thread_states(tid)
        return next(typed.stack(state) for state in states.values())

    def _unwound(self, state: ThreadState) -> list[Frame]:
        """Returns the frames of a thread that was sampled."""
        return self._typing().stack(state)

    def stacks(self) -> Stacks:
        """Returns the stacks of all threads, by tid; see `stack`.

        A `Tracee` is held once for all of them; ``stopped_s`` of the result says for how long.

        Raises:
            NotTracedError: It is a `Process`, whose threads run.
            NotStoppedError: The registers were not saved, as the process ran then.
            UnsupportedError: As for `stack`.
            ProcessExitedError: The process has ended.
        """
        typed = self._typing()
        states, stopped_s = self._thread_states(None, every=True)
        return typed.stacks(states, stopped_s)

    @abstractmethod
    def _thread_states(
        self, tid: int | None, *, every: bool = False
    ) -> tuple[dict[int, ThreadState], float]:
        """Returns what the stacks of threads are unwound from, and the seconds of the stop."""

    def _typing(self) -> Typed:
        if self._typed is None:
            from procvm._types.typed import Typed  # noqa: PLC0415 (few programs need it)

            self._typed = Typed(self, self._module_sources)
        return self._typed
