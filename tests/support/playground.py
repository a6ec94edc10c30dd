"""A child whose pages a test lays out, and which tells what it sees itself."""

from __future__ import annotations

import mmap
from collections.abc import Mapping, Sequence

from tests.support.build import compiled
from tests.support.child import Child

PAGE = mmap.PAGESIZE


def pattern(address: int, n: int) -> bytes:
    """Returns the bytes that new pages of the playground hold at `address`."""
    return bytes(1 + (a * 7 + (a >> 12) * 13) % 255 for a in range(address, address + n))


class Playground(Child):
    """The running child; a context manager that ends it."""

    def __init__(
        self,
        env: Mapping[str, str] | None = None,
        *,
        prefix: Sequence[str] = (),
        program: str = "",
    ) -> None:
        super().__init__([*prefix, program or compiled("playground")], env=env)
        assert self.line() == "ready"

    def ask(self, line: str) -> str:
        """Sends a command and returns its answer; RuntimeError if that is an error."""
        answer = super().ask(line)
        if answer.startswith("error"):
            raise RuntimeError(f"{line[:80]}: {answer}")
        return answer

    def layout(self, kinds: str) -> int:
        """Maps neighbouring pages of these kinds; returns the address of the first."""
        return int(self.ask(f"layout {kinds}"), 16)

    def protect(self, address: int, n: int, kind: str) -> None:
        self.ask(f"protect {address:x} {n} {kind}")

    def unmap(self, address: int, n: int) -> None:
        self.ask(f"unmap {address:x} {n}")

    def map(self, address: int, n: int, kind: str = "rw") -> None:
        self.ask(f"map {address:x} {n} {kind}")

    def clear(self, address: int, n: int) -> None:
        """Fills writable pages with the pattern again."""
        self.ask(f"clear {address:x} {n}")

    def peek(self, address: int, n: int) -> bytes:
        """Returns what the child itself has at an address, whatever the page allows."""
        return bytes.fromhex(self.ask(f"peek {address:x} {n}"))

    def poke(self, address: int, data: bytes) -> None:
        self.ask(f"poke {address:x} {data.hex()}")

    def spin(self, address: int) -> None:
        """Starts a thread of the child that counts an 8-byte word up."""
        self.ask(f"spin {address:x}")

    def reserve(self, n: int) -> int:
        """Maps private anonymous bytes that nobody has touched; returns the address."""
        return int(self.ask(f"reserve {n}"), 16)

    def window(self, n: int, window_len: int) -> int:
        """Maps the same `window_len` shared bytes again and again over `n`; returns the address."""
        return int(self.ask(f"window {n} {window_len}"), 16)

    def map_file(self, path: bytes, n: int, kind: str = "r") -> int:
        """Maps a file: privately (rw, r) or shared (srw, sr); returns the address."""
        return int(self.ask(f"mapfile {path.hex()} {n} {kind}"), 16)

    def map_memfd(self, name: bytes, n: int) -> int:
        """Maps a new memfd of this name, shared; returns the address."""
        return int(self.ask(f"memfd {name.hex()} {n}"), 16)

    def set_comm(self, name: bytes) -> None:
        """Gives the child's main thread a name; the kernel keeps 15 bytes of it."""
        self.ask(f"comm {name.hex()}")

    def storm(self, address: int, n: int, kind: str) -> None:
        """Starts a thread of the child that makes pages rw and `kind` again, for ever."""
        self.ask(f"storm {address:x} {n} {kind}")

    def random_at(self) -> int:
        """Returns where the child has the 16 random bytes of its exec."""
        return int(self.ask("random"), 16)
