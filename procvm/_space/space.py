"""`VmSpace`: a target's address space."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

from procvm._base.address import check_range
from procvm._base.pods import PodLike, pod_of
from procvm._space.bulk import Bulk
from procvm._space.finder import Finder
from procvm._space.hexdump import Hexdump
from procvm._space.telescope import Telescope
from procvm._space.view import ArrayView, View, is_overlay, view_of_kind

if TYPE_CHECKING:
    import ctypes

__all__ = ["VmSpace"]


class VmSpace(Finder, Bulk):
    """The address space of a process; an offset is an address of the target.

    An access faults exactly where the target's own access would; `forced` returns the space as
    a debugger sees it. The target runs meanwhile and may change bytes under an access: a copy
    is not atomic. Several threads may use one space.

    Source:
        OSTD ``VmSpace``.
    """

    def __repr__(self) -> str:
        return f"<VmSpace of {self._memory!r}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return VmSpace, (self._memory,)

    def forced(self) -> VmSpace:
        """Returns the same space with page protections ignored.

        Reads and writes also reach pages that the target may not read or write. A private
        mapping is written by copy-on-write, so a file on disk never changes. Shared read-only
        memory still faults.

        Source:
            proc_pid_mem(5).
        """
        return VmSpace(self._memory.forced())

    @overload
    def view(self, vaddr: int, kind: type[ctypes.Structure | ctypes.Union]) -> View: ...
    @overload
    def view(self, vaddr: int, kind: type[ctypes.Array[Any]]) -> ArrayView: ...
    @overload
    def view(self, vaddr: int, kind: PodLike[Any]) -> View | ArrayView: ...
    def view(self, vaddr: int, kind: PodLike[Any]) -> View | ArrayView:
        """Returns a live view of a ctypes structure or array at `vaddr`; nothing is read yet.

        An attribute of the view is read or written when it is named, and nothing else is.

        Raises:
            AccessDeniedError: The range leaves user space.
            TypeError: Not a structure, union or array of plain data.
        """
        pod = pod_of(kind)
        if not is_overlay(pod.ctype):
            raise TypeError(f"{pod.name} has no fields; read_val reads it")
        vaddr, _ = self._check(vaddr, pod.size)
        found: View | ArrayView = view_of_kind(self, vaddr, pod)
        return found

    def hexdump(self, address: int, n: int) -> Hexdump:
        """Returns the `n` bytes at an address as rows of hexadecimal digits and text.

        `print` shows them; iteration gives each row with its address and its bytes.

        Raises:
            PageFaultError: Only `copied_len` bytes could be read; they are dropped.
        """
        address, n = check_range(address, n)
        return Hexdump(address, self.read_bytes(address, n))

    def telescope(self, address: int, n: int = 8, *, depth: int = 6) -> Telescope:
        """Returns the `n` words at an address, each followed as long as it is a pointer.

        `print` shows them; iteration gives each word with its value and its chain: the value,
        what it points at, and so on, up to a number, code or a text. Words are as wide as the
        target's pointers.

        Args:
            address: The address of the first word.
            n: The number of words.
            depth: The most pointers to follow.

        Raises:
            PageFaultError: A word could not be read.
        """
        address, _ = check_range(address, n)
        return Telescope(self, address, n, depth)
