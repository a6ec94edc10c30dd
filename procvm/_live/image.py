"""`Image`: one program in one process, and what the kernel tells of it."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import ExitStack
from typing import TypeVar, cast

from procvm._linux import procfs
from procvm._linux.proc_maps import VmaEntry, VmaRange, entry_at, read_maps, read_named, vma_at
from procvm._linux.process_vm import TOKEN_LEN
from procvm._live.facts import read_facts
from procvm._live.handle import Handle
from procvm._live.identity import Identity, identity_of, is_shared
from procvm._live.opening import open_pidfd, open_settled
from procvm._saved.facts import Facts
from procvm._symbols.core_notes import MACHINES
from procvm.errors import UnsupportedError

__all__ = ["Image", "open_image"]

T = TypeVar("T")

_ASKING = "cannot ask for a mapping of process {pid}"
_LISTING = "cannot read the mappings of process {pid}"


class Image(Handle):
    """A program that was opened. Every method raises one of these if it is not there any more.

    Raises:
        ProcessExitedError: The process has ended.
        ProcessExecedError: The process runs another program.
        ClosedError: It was closed.
    """

    _address_size = 0
    _identity: Identity | None = None

    @property
    def address_size(self) -> int:
        """The bytes of the program's pointers, 4 or 8; read once."""
        if not self._address_size:
            self._address_size = procfs.auxv_word(self.facts().auxv)
        return self._address_size

    # Mappings

    def vma_at(self, address: int, copied_len: int = 0) -> VmaRange | None:
        """Returns the range and the permissions of the mapping at `address`, or None.

        Args:
            address: The address.
            copied_len: The bytes that the access under way has moved, for an error.
        """
        return self._ask(lambda maps: vma_at(maps, address), _ASKING, copied_len)

    def entry_at(self, address: int) -> VmaEntry | None:
        """Returns all that is known of the mapping at `address`, or None."""
        return self._ask(lambda maps: entry_at(maps, address), _ASKING)

    def entries(self) -> list[VmaEntry]:
        """Returns all mappings as they are now, sorted and disjoint."""
        found = self._ask(read_maps, _LISTING)
        if not found:
            raise self.gone()
        return found

    def named_entries(self, known: bytes) -> tuple[bytes, list[VmaEntry]]:
        """Returns the text of maps and the mappings that have a name; see `read_named`."""
        found = self._ask(lambda number: read_named(number, known), _LISTING)
        if not found[0]:
            raise self.gone()
        return found

    def _ask(self, question: Callable[[int], T], what: str, copied_len: int = 0) -> T:
        """Asks the kernel something by the descriptor of maps.

        Args:
            question: Takes the descriptor.
            what: What cannot be done if it raises OSError, with ``{pid}``.
            copied_len: The bytes that the access under way has moved, for an error.
        """
        code = 0
        found = None
        try:
            with self.open_files(copied_len).maps.use() as maps:
                found = question(maps)
        except OSError as error:
            code = error.errno or errno.EIO
        if code:
            raise self.failure(code, what.format(pid=self.pid), copied_len)
        self.prove_if_due(copied_len)
        return cast("T", found)

    # Beside the memory

    def facts(self) -> Facts:
        """Returns what the kernel tells of the process beside its memory."""
        self.open_files()
        found = read_facts(self.pid, MACHINES.get(os.uname().machine, 0))
        # The files were read by pid. Without this proof they could be another process's.
        self.prove()
        if found is None:
            raise self.gone()
        return found

    def undumped(self) -> list[tuple[int, int]]:
        """Returns the mappings marked MADV_DONTDUMP, or none if the kernel does not tell.

        The kernel walks the page tables of the whole process for it.
        """
        self.open_files()
        found = procfs.parse_undumped(procfs.read_bytes(f"/proc/{self.pid}/smaps") or b"")
        self.prove()  # as in `facts`
        return found

    def identity(self) -> Identity:
        """Returns what tells the process from all others, for a process that opens it again.

        Raises:
            UnsupportedError: /proc does not show when the process started.
        """
        self.open_files()
        if self._identity is None:
            with self.open_pidfd().use() as pidfd:
                found = identity_of(self.pid, pidfd)
            self.prove()
            if found is None:
                raise UnsupportedError(
                    f"cannot pickle the memory of process {self.pid}: /proc does not show when the "
                    "process started, so another process could not tell it from a later process "
                    "with the same pid"
                )
            self._identity = found
        return self._identity

    def current_token(self) -> bytes:
        """Returns the token as it is now, for a process that opens the program again.

        Raises:
            UnsupportedError: The program has none that can be read.
        """
        token = None
        if self.token_address:
            token = self.open_files().peek(self.token_address, TOKEN_LEN)
        if not token:
            self.prove()
            raise UnsupportedError(
                f"cannot pickle the memory of process {self.pid}: its bytes at AT_RANDOM cannot "
                "be read, so another process could not tell whether it runs another program"
            )
        return token


def open_image(pid: int, *, by_calls: bool = True) -> Image:
    """Opens the program that process `pid` runs now.

    Raises:
        NoSuchProcessError: No process has the pid.
        ProcessExitedError: The process is a zombie.
        AccessDeniedError: The kernel or a security policy denies the access; the message says
            which.
        UnsupportedError: /proc is not mounted, or belongs to another pid namespace.
    """
    with ExitStack() as undo:
        # Closed explicitly: the traceback of an error that is kept would keep it open.
        pidfd = undo.enter_context(open_pidfd(pid))
        procfs.require_own_proc()
        files, token_address = open_settled(pid, pidfd)
        undo.pop_all()
    image = Image(pid, pidfd, files, token_address, by_calls=by_calls)
    if not image.pinned:
        # Now, since a sandbox that the tool enters later may forbid the question.
        image.shared = is_shared(pid)
    return image
