"""The picture of an address space."""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

import procvm
from procvm._base.text import size_text
from procvm.cli.picture import draw
from tests.support.playground import PAGE, Playground

_SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def target(playground: Playground) -> Iterator[procvm.Process]:
    """The playground, opened."""
    with procvm.open(playground.pid) as process:
        yield process


class Picture:
    """An SVG file that was drawn."""

    def __init__(self, path: Path) -> None:
        self.root = ElementTree.parse(path).getroot()  # noqa: S314 (a picture of ours)
        lines: dict[float, list[tuple[float, str]]] = {}
        for text in self.root.iter(f"{_SVG}text"):
            at = float(text.attrib["y"])
            lines.setdefault(at, []).append((float(text.attrib["x"]), text.text or ""))
        self.lines = [" ".join(word for _, word in sorted(lines[y])) for y in sorted(lines)]
        # A bar's outline says what it is of.
        self.bars = {
            rect[0].text or "": float(rect.attrib["width"])
            for rect in self.root.iter(f"{_SVG}rect")
            if len(rect)
        }

    def line(self, address: int) -> str:
        """Returns the text of the line that begins at an address."""
        return next(line for line in self.lines if line.startswith(f"{address:#x} "))

    def bar(self, address: int) -> float:
        return next(w for about, w in self.bars.items() if about.startswith(f"{address:#x}-"))


def use_of(pid: int, start: int) -> dict[str, int]:
    """Returns what smaps says of a mapping, in bytes."""
    text = Path(f"/proc/{pid}/smaps").read_text()
    (block,) = re.findall(rf"^{start:x}-.*\n((?:\w+: .*\n)+)", text, re.MULTILINE)
    return {
        name: 1024 * int(number)
        for name, number in re.findall(r"^(\w+): +(\d+) kB$", block, re.MULTILINE)
    }


def test_every_mapping_of_a_small_program_has_a_line(
    playground: Playground, target: procvm.Process, tmp_path: Path
) -> None:
    """It has its address, what it allows, its name, its size, and how it is used."""
    base = playground.layout("rw r rwx")
    draw(target, tmp_path / "map.svg")
    picture = Picture(tmp_path / "map.svg")
    for vma in target.maps():
        line = picture.line(vma.start)
        assert f" {vma.perms} " in line
        assert (vma.name.decode().rpartition("/")[2] or "(anonymous)") in line
    assert picture.line(base) == f"{base:#x} rw-p (anonymous) 4K 4K 4K"
    assert picture.line(base + 2 * PAGE) == f"{base + 2 * PAGE:#x} rwxp (anonymous) 4K 4K 4K"
    libc = target.maps().filter(name="libc.so.6", perms="x")[0]
    use = use_of(playground.pid, libc.start)
    assert use["Rss"] > 0
    assert picture.line(libc.start).endswith(f" {size_text(use['Rss'])} ·")
    assert picture.lines[0] == f"Address space of process {playground.pid}, playground"
    assert picture.lines[1].startswith(f"{len(target.maps())} mappings · size ")


def test_what_is_huge_hides_nothing(
    playground: Playground, target: procvm.Process, tmp_path: Path
) -> None:
    """Bars grow with the logarithm: 64 GiB are not 16 million times as long as 4 KiB."""
    page = playground.layout("rw")
    reserve = playground.reserve(64 << 30)
    draw(target, tmp_path / "map.svg")
    picture = Picture(tmp_path / "map.svg")
    assert picture.line(reserve) == f"{reserve:#x} rw-p (anonymous) 64G · ·"
    assert 11 < picture.bar(reserve) / picture.bar(page) < 14
    assert picture.bar(page) > 20
    assert any(line.endswith("T unmapped") for line in picture.lines)
    assert "kernel" in picture.lines or not target.maps().filter(name="[vsyscall]")


def test_thousands_of_mappings_are_a_picture_that_can_be_looked_at(
    playground: Playground, target: procvm.Process, tmp_path: Path
) -> None:
    """Neighbours share a line; the heap and the stack have their own; nothing is left out."""
    for k in range(1500):
        playground.map_memfd(b"m%d" % k, PAGE * (1 + k % 3))
    draw(target, tmp_path / "map.svg")
    picture = Picture(tmp_path / "map.svg")
    maps = target.maps()
    assert len(maps) > 1500
    assert float(picture.root.attrib["height"]) < 2000
    assert picture.lines[1].startswith(f"{len(maps):,} mappings in ")
    text = "\n".join(picture.lines)
    assert "[heap]" in text
    assert "[stack]" in text
    shared = sum(int(n) for n in re.findall(r" (\d+) mappings: ", text))
    several = sum(int(n) for n in re.findall(r"\((\d+)\) \d", text))
    rows = len(picture.bars)
    folded = len(re.findall(r" \d+ mappings: ", text))
    named = len(re.findall(r"\(\d+\) \d", text))
    assert shared + several + rows - folded - named == len(maps)


def test_names_are_text_whatever_is_in_them(
    playground: Playground, target: procvm.Process, tmp_path: Path
) -> None:
    """Neither XML nor control characters of a name get into the file."""
    base = playground.map_memfd(b"</text><script>&\x1b[2J\n\xff\"'", PAGE)
    playground.set_comm(b"<b>&\x1b")
    draw(target, tmp_path / "map.svg")
    picture = Picture(tmp_path / "map.svg")
    assert not list(picture.root.iter(f"{_SVG}script"))
    assert "<script>&\\x1b[2J\\x0a\\xff\"'" in picture.line(base)
    assert picture.lines[0].endswith(", <b>&\\x1b")
    data = (tmp_path / "map.svg").read_text()
    assert data.replace("\n", "").isprintable()


def test_the_file_is_its_owners_and_a_link_is_not_followed(
    target: procvm.Process, tmp_path: Path
) -> None:
    """What was there is replaced, what a link led to is not touched."""
    other = tmp_path / "other"
    other.write_text("precious")
    path = tmp_path / "map.svg"
    path.symlink_to(other)
    draw(target, path)
    assert not path.is_symlink()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert other.read_text() == "precious"
    assert sorted(os.listdir(tmp_path)) == ["map.svg", "other"]


def test_png_is_painted(target: procvm.Process, tmp_path: Path) -> None:
    """The same picture, twice as fine, with colours and with text."""
    image_module = pytest.importorskip("PIL.Image")
    draw(target, tmp_path / "map.svg")
    draw(target, os.fsencode(tmp_path / "map.PNG"))
    root = Picture(tmp_path / "map.svg").root
    with image_module.open(tmp_path / "map.PNG") as image:
        image.load()
        size: tuple[int, int] = image.size
        colors: set[Any] = {color for _, color in image.getcolors(1 << 24)}
    assert size == (2 * int(root.attrib["width"]), 2 * int(root.attrib["height"]))
    assert {(255, 255, 255), (0x8E, 0xC5, 0xFF), (0x33, 0x41, 0x55), (0x1E, 0x29, 0x3B)} <= colors


def test_without_pillow_png_says_what_to_install(
    target: procvm.Process, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And an SVG file needs nothing."""
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(procvm.UnsupportedError, match=r"pip install 'procvm\[picture\]'"):
        draw(target, tmp_path / "map.png")
    assert os.listdir(tmp_path) == []
    draw(target, tmp_path / "map.svg")


def test_a_snapshot_is_drawn_without_what_is_not_known(
    target: procvm.Process, tmp_path: Path
) -> None:
    """It has sizes, and no numbers that would be made up."""
    with target.snapshot() as snapshot:
        draw(snapshot, tmp_path / "map.svg")
    picture = Picture(tmp_path / "map.svg")
    heap = target.maps().filter(kind=procvm.Kind.HEAP)[0]
    assert picture.line(heap.start) == f"{heap.start:#x} rw-p [heap] {heap.size // 1024}K"
    assert picture.lines[1].endswith("resident and dirty are not known")
    assert picture.lines[0].endswith(", playground")


def test_what_can_not_be_drawn(
    playground: Playground, target: procvm.Process, tmp_path: Path
) -> None:
    """Another suffix, no such folder and a process that has ended are told; no file is left."""
    with pytest.raises(procvm.InvalidArgsError, match=r"map\.gif .* ends in \.svg or \.png"):
        draw(target, tmp_path / "map.gif")
    with pytest.raises(FileNotFoundError):
        draw(target, tmp_path / "nowhere" / "map.svg")
    playground.popen.kill()
    playground.popen.wait()
    with pytest.raises(procvm.ProcessExitedError):
        draw(target, tmp_path / "map.svg")
    assert os.listdir(tmp_path) == []
