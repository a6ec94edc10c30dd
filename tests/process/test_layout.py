"""Where the parts of a loaded file and of a mapped object lie."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import pytest

from procvm import Perms, Vma
from procvm._base.perms import READ
from procvm._live.extents import layout_of
from procvm._live.image import open_image
from procvm._mm.extent import Content
from procvm._symbols.elf_headers import Segment
from procvm._symbols.layout import instances_of
from tests.support.playground import PAGE

PT_LOAD = 1


def mapped(start: int, offset: int, n: int = PAGE) -> Vma:
    """Returns a private mapping of a file."""
    return Vma(start, start + n, Perms(READ), offset, (8, 1), 42, b"/lib/one.so")


def test_instances_of_mapping_at_another_shift_is_not_of_the_instance() -> None:
    """A page of the file that a program mapped among the segments by itself is not one of them.

    It lies where the second segment would be, and shows another part of the file.
    """
    segments = [
        Segment(PT_LOAD, 4, 0, 0, PAGE, PAGE, PAGE),
        Segment(PT_LOAD, 4, PAGE, PAGE, PAGE, PAGE, PAGE),
    ]
    first, second = 0x10000, 0x50000
    foreign = mapped(first + PAGE, 7 * PAGE)
    whole = [mapped(second, 0), mapped(second + PAGE, PAGE)]
    found = list(instances_of([mapped(first, 0), foreign, *whole], segments))
    assert found == [(first, [mapped(first, 0)]), (second, whole)]


@pytest.mark.parametrize("shared", [True, False])
def test_layout_of_sparse_object_lists_its_data_alone(shared: bool) -> None:
    """The pages that an object never had are zeros, so that a copy reads two pages of sixty-four.

    Without this each of them would be allocated in the object, or read for nothing.
    """
    fd = os.memfd_create("sparse")
    try:
        os.ftruncate(fd, 64 * PAGE)
        for page in (3, 40):
            os.pwrite(fd, b"x", page * PAGE)
        flags = mmap.MAP_SHARED if shared else mmap.MAP_PRIVATE
        with mmap.mmap(fd, 64 * PAGE, flags=flags) as pages:
            base = _start_of(fd)
            image = open_image(os.getpid())
            try:
                found = list(layout_of(image, base, base + 64 * PAGE, READ))
            finally:
                image.close()
            assert len(pages) == 64 * PAGE
    finally:
        os.close(fd)
    data = [(one.start - base, one.end - base) for one in found if one.content is Content.DATA]
    assert data == [(page * PAGE, page * PAGE + PAGE) for page in (3, 40)]
    assert {one.content for one in found} == {Content.DATA, Content.ZEROS}


def _start_of(fd: int) -> int:
    inode = str(os.fstat(fd).st_ino)
    lines = Path("/proc/self/maps").read_text().splitlines()
    (line,) = [line for line in lines if line.split()[4] == inode and "memfd:sparse" in line]
    return int(line.partition("-")[0], 16)
