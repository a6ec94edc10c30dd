"""`ScanSession`: the lines of ``scan``, and the addresses that are left."""

from __future__ import annotations

import itertools
import re
import sys
from collections import deque
from collections.abc import Callable
from typing import Any

import click

import procvm
from procvm._base.closing import Closing
from procvm._base.text import shown
from procvm._space.scan import Place
from procvm._terminal.freezer import FreezerThread
from procvm.cli.meter import metered
from procvm.cli.output import NothingFoundError, Output, message_of, tell
from procvm.cli.ranges import Where, ranges_in
from procvm.cli.scanned import Found, Scanned
from procvm.cli.target import address_in, name_of
from procvm.errors import MalformedError, MismatchError, NoSuchSymbolError, PageFaultError

__all__ = ["ScanSession", "WrongLineError"]

_UNDO_DEPTH = 4
"""Scans that can be undone; each keeps its own list of addresses."""

_LISTED = 20

_FREEZE_EVERY = 0.01
"""Seconds between two looks at what is frozen."""

_HELP = """\
5, = 5, != 5, > 5, < 5, >= 5, <= 5, 5..9    keep the addresses with such a value
+, -, changed, unchanged    keep those whose value rose, fell, changed or did not
                  The first scan reads all memory; each later one narrows the list.
                  A float such as 3.14 is found as it is shown, = 3.14 exactly.
                  With -t text a line is a text; = list is the text "list".
any               Start with every address, if the value is not known.
list [N]          Show the first N addresses and their values.
set K VALUE       Write VALUE to address K of the list; set all VALUE writes to all.
freeze K [VALUE]  Keep the value of address K, or VALUE; freeze all does it with all.
unfreeze K        Keep it no longer; unfreeze all keeps none.
delete K ...      Remove addresses from the list: delete 0 3 7..9
exclude NAME      Remove those in a mapping, such as [heap]; or from START up to END.
undo              Undo the last scan, delete or exclude.
save FILE         Write the list to a file; load FILE goes on with it.
reset             Start again.
quit              Leave; nothing is frozen any more.
"""


class WrongLineError(Exception):
    """A line is wrong; the message says why."""


class ScanSession(Closing):
    """The addresses of the last scan and of those before it."""

    def __init__(
        self, out: Output, process: procvm.Process, scanned: Scanned, where: Where
    ) -> None:
        self.out = out
        self._process = process
        self._scanned = scanned
        self._where = where
        self._scan: Found | None = None
        self._older: deque[Found | None] = deque(maxlen=_UNDO_DEPTH)
        self._frozen = FreezerThread(process.vm, _FREEZE_EVERY, tell)
        # Checked here: a wrong option must fail before the user types a line.
        ranges_in(process, where)

    def __str__(self) -> str:
        return f"process {self._process.pid}, {self._scanned.name}"

    def close(self) -> None:
        """Freezes nothing any more."""
        self._frozen.close()

    @property
    def is_begun(self) -> bool:
        """Whether the first scan was done."""
        return self._scan is not None

    @property
    def nr(self) -> int:
        """How many addresses are left."""
        return 0 if self._scan is None else len(self._scan)

    def obey(self, line: str) -> bool:
        """Executes a line; returns False after the last one.

        Raises:
            WrongLineError: The line is wrong.
        """
        words = line.split()
        if not words or words[0].startswith("#"):
            return True
        word = words[0].lower()
        if word in ("quit", "q", "exit"):
            return False
        act: Callable[[list[str]], None] | None = {
            "any": self._any,
            "snapshot": self._any,
            "list": self._list,
            "set": self._set,
            "freeze": self._freeze,
            "unfreeze": self._unfreeze,
            "delete": self._delete,
            "exclude": self._exclude,
            "save": self._save,
            "load": self._load,
            "undo": self._undo,
            "reset": self._reset,
            "help": self._help,
            "?": self._help,
        }.get(word)
        if act is not None:
            act(words[1:])
        else:
            self._look(line.strip())
        return True

    # Looks

    def _look(self, line: str) -> None:
        try:
            asked = self._scanned.asked(line)
        except OverflowError as error:
            raise WrongLineError(str(error)) from None
        except ValueError:
            raise WrongLineError(f"{line!r} is neither a value nor a command; try help") from None
        if self._scan is None:
            if "how" in asked:
                raise WrongLineError("no scan was done yet; give a value, or any")
            self._first(asked)
            return
        narrow: Any = self._scan.refine
        with metered(self.out, "scan", unit="addresses") as meter:
            if isinstance(self._scan, procvm.Scan):
                asked["progress"] = meter
            self._became(self._attempted(lambda: narrow(**asked)))

    def _any(self, _words: list[str]) -> None:
        if self._scan is not None:
            raise WrongLineError("the first scan is done already; reset starts again")
        self._first({})

    def _first(self, asked: dict[str, Any]) -> None:
        ranges = ranges_in(self._process, self._where)
        with metered(self.out, "scan") as meter:
            found = self._attempted(
                lambda: self._scanned.first(self._process, asked, ranges=ranges, progress=meter)
            )
        self._became(found)

    @staticmethod
    def _attempted(act: Callable[[], Found]) -> Found:
        try:
            return act()
        except procvm.ProcvmError:
            raise
        except (ValueError, OverflowError) as error:
            raise WrongLineError(str(error)) from None

    def _became(self, found: Found | None) -> None:
        self._older.append(self._scan)
        self._scan = found
        self._count()

    def _count(self) -> None:
        if self.out.json:
            self.out.record({"places": self.nr})
        else:
            self.out.line(f"{self.nr} address{'es' * (self.nr != 1)}", flush=True)
        if self.out.is_terminal and 0 < self.nr <= 5:
            self._list([])

    def _undo(self, _words: list[str]) -> None:
        if not self._older:
            raise WrongLineError("there is nothing to undo")
        self._scan = self._older.pop()
        self._count()

    def _reset(self, _words: list[str]) -> None:
        self._became(None)

    def _help(self, _words: list[str]) -> None:
        if self.out.json:
            self.out.record({"help": _HELP})
        else:
            self.out.line(_HELP.rstrip(), flush=True)

    # The list

    def _list(self, words: list[str]) -> None:
        most = self._number(words[0], "list N") if words else _LISTED
        scan = self._scan
        places = [] if scan is None else list(itertools.islice(scan.places(), most))
        for k, place in enumerate(places):
            self._show(k, place)
        if self.nr > len(places) and self.out.is_terminal:
            more = f"{self.out.ellipsis} {self.nr - len(places)} more; list N shows N"
            self.out.line(f"      {self.out.style(more, 'dim')}")

    def _show(self, k: int, place: Place) -> None:
        at, kind = place.address, self._scanned.type_of(place)
        text, json = self._scanned.shown(self._process, place)
        is_frozen = at in self._frozen
        if self.out.json:
            where = self._process.describe(at)
            record = {"index": k, "address": hex(at), "where": where, "type": kind, "value": json}
            self.out.record(record | {"frozen": is_frozen})
            return
        name = name_of(self._process, at)
        mixed = [kind] if self._scanned.is_mixed else []
        if self.out.is_terminal:
            parts = [self.out.style(text, "new"), *mixed, self.out.style(name, "name")]
            parts += ["frozen"] * is_frozen
            self.out.line(
                f"{k:>4}  {self.out.style(hex(at), 'address')}  {'  '.join(parts)}".rstrip()
            )
        else:
            self.out.line("\t".join([str(k), hex(at), text, name, *mixed]), flush=True)

    def _chosen(self, word: str, usage: str) -> list[Place]:
        """Returns the place of a number, or all."""
        if self._scan is None:
            raise WrongLineError("no scan was done yet; give a value, or any")
        if word == "all":
            return list(self._scan.places())
        k = self._number(word, usage)
        places = list(itertools.islice(self._scan.places(), k, k + 1))
        if not places:
            raise WrongLineError(f"there is no address {k}: the list has {self.nr}")
        return places

    def _each(
        self, places: list[Place], text: str | None, act: Callable[[int, bytes], object]
    ) -> int:
        """Does something with the bytes of a value at each place; returns how often it could."""
        done = 0
        for place in places:
            try:
                act(place.address, self._scanned.encoded(self._process, place, text))
            except PageFaultError as error:
                tell(message_of(error))
            except procvm.ProcvmError:
                raise
            except (ValueError, OverflowError) as error:
                raise WrongLineError(str(error)) from None
            else:
                done += 1
        return done

    def _did(self, what: str, n: int) -> None:
        if self.out.json:
            self.out.record({what: n})
        else:
            self.out.line(f"{n} {what}", flush=True)

    def _set(self, words: list[str]) -> None:
        if len(words) < 2:
            raise WrongLineError("set takes two words: set 0 999, or set all 999")
        places = self._chosen(words[0], "set K VALUE")
        written = self._each(places, " ".join(words[1:]), self._process.vm.write_bytes)
        self._did("written", written)

    def _freeze(self, words: list[str]) -> None:
        if not words:
            raise WrongLineError("freeze takes a number: freeze 0, freeze 0 999, freeze all")
        places = self._chosen(words[0], "freeze K [VALUE]")
        text = " ".join(words[1:]) or None
        self._did("frozen", self._each(places, text, self._frozen.keep))

    def _unfreeze(self, words: list[str]) -> None:
        if len(words) != 1:
            raise WrongLineError("unfreeze takes a number, or all")
        if words[0] == "all":
            self._did("unfrozen", self._frozen.leave_all())
            return
        places = self._chosen(words[0], "unfreeze K")
        self._did("unfrozen", sum(self._frozen.leave(place.address) for place in places))

    def _delete(self, words: list[str]) -> None:
        if self._scan is None or not words:
            raise WrongLineError("delete takes numbers of the list: delete 0 3 7..9")
        numbers: set[int] = set()
        for word in words:
            first, dots, last = word.partition("..")
            low = self._number(first, "delete K")
            high = self._number(last, "delete K..L") if dots else low
            if not low <= high < self.nr:
                raise WrongLineError(f"there is no address {word}: the list has {self.nr}")
            numbers.update(range(low, high + 1))
        gone = {at for k, at in enumerate(self._scan) if k in numbers}
        self._became(self._scan.without(gone))

    def _exclude(self, words: list[str]) -> None:
        scan = self._scan
        if scan is None or not 1 <= len(words) <= 2:
            raise WrongLineError("exclude takes the name of a mapping, or START END")
        try:
            if len(words) == 2:
                low, high = (address_in(self._process, word) for word in words)
                ranges = [(low, high)]
            else:
                mappings = ranges_in(self._process, Where("", within=words[0]))
                ranges = [(one.start, one.end) for one in mappings]
        except click.ClickException as error:
            raise WrongLineError(error.format_message()) from None
        except NoSuchSymbolError as error:
            raise WrongLineError(message_of(error)) from None
        except NothingFoundError as error:
            raise WrongLineError(str(error)) from None
        self._became(self._attempted(lambda: scan.without(ranges)))

    # Files

    def _save(self, words: list[str]) -> None:
        if self._scan is None or not words:
            raise WrongLineError("save takes the name of a file, after a scan")
        try:
            self._scan.save(" ".join(words))
        except OSError as error:
            raise WrongLineError(f"cannot write the file: {error}") from None
        self._count()

    def _load(self, words: list[str]) -> None:
        if not words:
            raise WrongLineError("load takes the name of a file")
        try:
            found = self._scanned.load(self._process, " ".join(words))
        except OSError as error:
            raise WrongLineError(f"cannot read the file: {error}") from None
        except (MalformedError, MismatchError) as error:
            raise WrongLineError(message_of(error)) from None
        self._became(found)

    @staticmethod
    def _number(text: str, usage: str) -> int:
        if not re.fullmatch(r"[0-9]+", text):
            raise WrongLineError(f"{shown(text)!r} is not a number; write {usage}")
        return min(int(text), sys.maxsize - 1)  # islice takes no larger number
