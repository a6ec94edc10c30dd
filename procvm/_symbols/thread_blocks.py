"""`ThreadBlocks`: where a thread has its own variables of a loaded file.

Source:
    "ELF Handling For Thread-Local Storage" by Ulrich Drepper, variant II, and ``nptl_db`` of
    glibc: the C library describes its own structures by symbols named ``_thread_db_*``.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import final

from procvm._base.text import printable
from procvm._symbols.elf_headers import PT_TLS
from procvm._symbols.layout import LoadedFile
from procvm._symbols.module_files import UNREADABLE

__all__ = ["NoBlockError", "ThreadBlocks"]

_X86_64 = 62
_WORD = struct.Struct("=Q")
_NR_SLOT_LISTS = 1 << 10


class NoBlockError(Exception):
    """The block of a file cannot be found; the text says why."""


@final
class ThreadBlocks:
    """Finds the blocks of thread-local variables of one thread.

    Args:
        pointer: Its thread pointer, the register fs_base.
        read: Takes an address and a length, returns the bytes there.
        place_of: Returns the address of a symbol of the C library; None if it has none.
    """

    def __init__(
        self,
        pointer: int,
        read: Callable[[int, int], bytes],
        place_of: Callable[[bytes], int | None],
    ) -> None:
        self._pointer = pointer
        self._read = read
        self._place_of = place_of

    def start_of(self, module: LoadedFile, *, is_program: bool) -> int:
        """Returns the address of the thread's block of a file.

        Args:
            module: The file.
            is_program: Whether it is the program itself, whose block the linker has placed.

        Raises:
            NoBlockError: The thread has none yet, or the C library does not tell where it is.
        """
        if module.machine != _X86_64 or module.bits != 64:
            raise NoBlockError("the variables of threads are found for x86-64 programs only")
        if not self._pointer:
            raise NoBlockError("the thread has no variables of its own yet")
        if is_program:
            for one in module.segments:
                if one.type == PT_TLS:
                    align = max(one.align, 1)
                    return self._pointer - (one.memsz + align - 1) // align * align
        try:
            return self._of_library(module)
        except UNREADABLE as error:
            raise NoBlockError(f"the C library's list of blocks cannot be read: {error}") from None

    def _of_library(self, module: LoadedFile) -> int:
        name = printable(module.name)
        if not module.link_place:
            raise NoBlockError(f"the dynamic linker did not list {name}")
        number = self._word(module.link_place + self._offset(b"link_map_l_tls_modid"))
        generation = self._generation(number, module.link_place)
        vector = self._word(self._pointer + self._offset(b"pthread_dtvp"))
        entry = vector + self._offset(b"dtv_dtv") + number * self._bytes(b"dtv_dtv")
        is_current = generation <= self._word(vector + self._offset(b"dtv_t_counter"))
        if is_current:
            block = self._word(entry + self._offset(b"dtv_t_pointer_val"))
            if not block & 1:  # -1 where nothing is allocated
                return block
        # A block that was placed when the thread began needs no entry.
        offset = self._word(module.link_place + self._offset(b"link_map_l_tls_offset"))
        if offset in (0, (1 << 64) - 1):
            raise NoBlockError(
                f"the thread did not use a variable of {name} yet, and has no memory for them"
            )
        return self._pointer - offset

    def _generation(self, number: int, link_place: int) -> int:
        """Returns when a file got its number; a vector that is older has another file there."""
        root = self._place_of(b"_rtld_global")
        if root is None:
            raise NoBlockError("the dynamic linker is not that of glibc")
        part = self._word(root + self._offset(b"rtld_global__dl_tls_dtv_slotinfo_list"))
        first = 0
        for _ in range(_NR_SLOT_LISTS):
            if not part:
                break
            length = self._word(part + self._offset(b"dtv_slotinfo_list_len"))
            if first <= number < first + length:
                each = self._size(b"sizeof_dtv_slotinfo")
                slot = part + self._offset(b"dtv_slotinfo_list_slotinfo") + (number - first) * each
                if self._word(slot + self._offset(b"dtv_slotinfo_map")) != link_place:
                    break
                return self._word(slot + self._offset(b"dtv_slotinfo_gen"))
            first += length
            part = self._word(part + self._offset(b"dtv_slotinfo_list_next"))
        raise NoBlockError("the C library's list of blocks changes just now, or is damaged")

    # The structures of the C library, by its own description

    def _described(self, name: bytes, n: int) -> tuple[int, ...]:
        place = self._place_of(b"_thread_db_" + name)
        if place is None:
            raise NoBlockError(
                "the C library does not tell where threads have them (glibc does, for libthread_db)"
            )
        return struct.unpack(f"={n}I", self._read(place, 4 * n))

    def _offset(self, name: bytes) -> int:
        """Returns the offset of a member."""
        return self._described(name, 3)[2]

    def _bytes(self, name: bytes) -> int:
        """Returns the size of a member."""
        return self._described(name, 3)[0] // 8

    def _size(self, name: bytes) -> int:
        return self._described(name, 1)[0]

    def _word(self, address: int) -> int:
        value: int = _WORD.unpack(self._read(address, _WORD.size))[0]
        return value
