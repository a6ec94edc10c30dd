"""What the pages of the documentation show runs as it stands there, and names what exists."""

from __future__ import annotations

import importlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import click
import pytest

import procvm
import procvm.testing
from procvm.cli.root import root

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"])

FENCE = re.compile(r"^```(\w+)(?: ([^\n]*))?\n(.*?)^```$", re.M | re.S)

RUN = ("procvm ", "cc ", "./", "kill ", "echo ")
"""How a command begins that a page shows and that is run."""

NOT_RUN = (
    "pip install",
    "./scripts/",
    "sudo ",
    "docker ",
    "procvm view",
    ". ",
    "pytest ",
    "mypy ",
    "typos ",
)
"""How one begins that is not: it installs, needs rights or another machine, or waits for keys."""

# Blocks run one after the other, as a reader would enter them: a name that one of them makes is
# there in the next. What is left running at the end, because a block failed, is ended.
DRIVER = r"""
import json, os, signal, subprocess, sys, traceback
with open(sys.argv[1]) as file:
    page, blocks = json.load(file)
names = {"__name__": "__main__"}
code = 0
try:
    for kind, line, text in blocks:
        print("\x1e", flush=True)
        if kind == "python":
            exec(compile("\n" * line + text, page, "exec"), names)
            sys.stdout.flush()
        else:
            subprocess.run(["bash", "-c", text], stderr=subprocess.STDOUT, check=True)
except BaseException:
    traceback.print_exc()
    code = 1
names.clear()
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.killpg(0, signal.SIGTERM)
sys.exit(code)
"""


class Block(NamedTuple):
    """A block of a page, and the line it stands in."""

    kind: str
    info: str
    line: int
    text: str


def blocks_of(page: Path) -> list[Block]:
    """Returns the blocks of code of a page."""
    text = page.read_text()
    return [
        Block(found[1], found[2] or "", text.count("\n", 0, found.start()) + 1, found[3])
        for found in FENCE.finditer(text)
    ]


def runnable(blocks: list[Block]) -> list[Block]:
    """Returns those that run: Python, and commands all of which can be run anywhere."""
    return [
        block
        for block in blocks
        if (block.kind == "python" and not block.info.startswith("notrun"))
        or (block.kind == "console" and not any(map(not_run, commands(block.text))))
    ]


def commands(text: str) -> list[str]:
    """Returns the command lines of a block of a console."""
    return [line[2:] for line in text.splitlines() if line.startswith("$ ")]


def not_run(command: str) -> bool:
    """Returns whether a command is one that is only shown; 1234 stands for any process."""
    return command.startswith(NOT_RUN) or re.search(r"\b1234\b", command) is not None


def script_of(text: str) -> str:
    """Returns a script that runs the commands of a block and marks where each ends, and how."""
    lines = [f"{command}\nprintf '\\x1f%d\\n' $?" for command in commands(text)]
    return "\n".join(lines)


ROW = re.compile(r"^\| .+ \| (.+) \|$")
CODE = re.compile(r"`([^`]+)`")

# What a table leaves open, as the program of its reader would.
CLOSE = """
for name in ("held", "tracee", "process", "core", "io"):
    if name in globals():
        globals().pop(name).__exit__(None, None, None)
"""


def tables_of(page: Path) -> list[Block]:
    """Returns each table of lines that do the same in another library, as a block of ours."""
    found: list[Block] = []
    lines = page.read_text().splitlines()
    for at, line in enumerate(lines):
        if re.fullmatch(r"\| [\w' -]+ \| procvm \|", line):
            code: list[str] = []
            for row in lines[at + 2 :]:
                cell = ROW.match(row)
                if cell is None:
                    break
                code.append("; ".join(CODE.findall(cell[1])))
            found.append(Block("python", "", at + 2, "\n".join(code) + CLOSE))
    return found


RUNNABLE = [page for page in PAGES if runnable(blocks_of(page))]


@pytest.mark.parametrize("page", RUNNABLE, ids=lambda page: page.stem)
def test_the_blocks_of_a_page_run_and_print_what_they_say(page: Path, tmp_path: Path) -> None:
    """Each block of a page runs after those before it, and gives what stands beside it."""
    every = blocks_of(page)
    for block in every:
        title = re.search(r'title="([\w.]+)"', block.info)
        if block.kind == "c" and title:
            (tmp_path / title[1]).write_text(block.text)
    blocks = sorted(runnable(every) + tables_of(page), key=lambda block: block.line)
    plan = tmp_path / "plan.json"
    plan.write_text(
        json.dumps(
            [
                str(page),
                [
                    (b.kind, b.line, b.text if b.kind == "python" else script_of(b.text))
                    for b in blocks
                ],
            ]
        )
    )
    outputs = run_plan(plan, tmp_path)
    assert len(outputs) == len(blocks)
    for block, output in zip(blocks, outputs, strict=True):
        where = f"{page.name}:{block.line}"
        if block.kind == "python":
            check_python(block.text, output, where)
        else:
            check_console(block.text, output, where)


def run_plan(plan: Path, folder: Path) -> list[str]:
    """Runs blocks in a process of their own, and returns what each wrote."""
    bin_folder = os.path.dirname(sys.executable)
    environment = os.environ | {
        "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}",
        "NO_COLOR": "1",
        "COLUMNS": "80",
        "LC_ALL": "C.UTF-8",
    }
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", DRIVER, str(plan)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env=environment,
        start_new_session=True,
    ) as popen:
        try:
            stdout, stderr = popen.communicate()
        except BaseException:
            os.killpg(popen.pid, signal.SIGKILL)  # not reaped yet: the group is still this one
            raise
    assert popen.returncode == 0, stdout[-2000:] + stderr
    assert stderr == ""
    return stdout.split("\x1e\n")[1:]


def matches(said: str, line: str) -> bool:
    """Returns whether a line is what was said, `...` standing for anything."""
    pattern = ".*".join(re.escape(part.strip()) for part in said.split("..."))
    return re.fullmatch(pattern, line.strip()) is not None


def check_python(text: str, output: str, where: str) -> None:
    """Asserts that each `print(...)  # text` printed that text, in order."""
    lines = iter(output.splitlines())
    for said in re.findall(r"print\(.*\)  # (.*)", text):
        assert any(matches(said, line) for line in lines), (where, said, output)


def check_console(text: str, output: str, where: str) -> None:
    """Asserts that each command gave the lines below it, in order, and ended well."""
    shown = re.split(r"^\$ .*\n", text, flags=re.M)[1:]
    given = re.split(r"\x1f(\d+)\n", output)
    assert len(given) == 2 * len(shown) + 1, (where, output)
    for command, expected, lines, status in zip(
        commands(text), shown, given[::2], given[1::2], strict=False
    ):
        left = iter(lines.splitlines())
        for said in expected.splitlines():
            assert any(matches(said, line) for line in left), (where, command, said, lines)
        assert status == "0" or "# exit code" in command, (where, command, lines)


def test_every_block_of_python_is_run_or_says_why_not() -> None:
    """A block that is not run is one of a few, and the line before it or its title tells why."""
    left_out = [
        (page.name, block.line, block.info)
        for page in PAGES
        for block in blocks_of(page)
        if block.kind == "python" and block not in runnable([block])
    ]
    assert all(re.search(r'notrun title="[^"]{10,}"', info) for _, _, info in left_out), left_out
    assert len(left_out) <= 3


def test_commands_of_procvm_that_are_shown_have_the_options_that_they_are_shown_with() -> None:
    """A command that is not run exists all the same, and takes each option that it is given."""
    for page in PAGES:
        for block in blocks_of(page):
            for line in commands(block.text) if block.kind == "console" else ():
                if line.startswith("procvm "):
                    words = shlex.split(line.split(" && ")[0])
                    context = click.Context(root)
                    command = root.get_command(context, words[1])
                    assert command is not None, (page.name, block.line, line)
                    known = {opt for one in command.get_params(context) for opt in one.opts}
                    given = {word.split("=")[0] for word in words[2:] if re.match("--?[a-z]", word)}
                    assert given <= known, (page.name, block.line, line)


def test_a_script_that_is_shown_is_a_file_that_is_tested() -> None:
    """What is marked as `py` is not run here: it is one of the examples, which have their tests."""
    tested = "".join(path.read_text() for path in (ROOT / "tests").glob("*/test_*.py"))
    for page in PAGES:
        for block in blocks_of(page):
            if block.kind == "py":
                included = re.fullmatch(r'--8<-- "docs/(examples/(\w+)\.py)"\n', block.text)
                assert included is not None, (page.name, block.line)
                assert (DOCS / included[1]).exists()
                assert included[2] in tested, included[2]


def test_every_command_that_is_shown_is_run_or_is_of_those_that_can_not_be() -> None:
    """No command of a page is left out by accident."""
    for page in PAGES:
        for block in blocks_of(page):
            if block.kind == "console":
                for command in commands(block.text):
                    assert command.startswith(RUN + NOT_RUN), (page.name, block.line, command)


def test_the_lines_of_other_libraries_have_lines_of_ours() -> None:
    """Each library of the migration page has a table of nine lines or more that run."""
    tables = tables_of(DOCS / "migration.md")
    assert len(tables) == 6
    for table in tables:
        assert len(table.text.removesuffix(CLOSE).splitlines()) >= 9, table.line


def test_the_reference_has_every_public_name_once() -> None:
    """Each name of `procvm` and `procvm.testing` is on one page of the reference, and no other."""
    named = [
        found
        for page in sorted((DOCS / "reference").glob("*.md"))
        for found in re.findall(r"^::: procvm\.(\S+)$", page.read_text(), re.M)
    ]
    names = [*procvm.__all__, "open", *(f"testing.{name}" for name in procvm.testing.__all__)]
    public = [name for name in named if "." not in name or name.startswith("testing.")]
    assert sorted(public) == sorted(names)
    for name in named:
        assert resolve(f"procvm.{name}").__doc__, name


def test_the_reference_shows_the_tree_of_errors_as_it_is() -> None:
    """Names in the tree of the page of errors stand below their bases, as in the code."""
    text = (DOCS / "reference" / "errors.md").read_text()
    tree = re.search(r"^```text\n(.*?)^```$", text, re.M | re.S)
    assert tree is not None
    above: list[Any] = []
    for line in tree[1].splitlines():
        found = re.search(r"[├└│ ─]*(\w+Error)(?: +\((\w+)\))?", line)
        assert found is not None, line
        depth, kind = found.start(1) // 3, getattr(procvm, found[1])
        del above[depth:]
        if above:
            assert issubclass(kind, above[-1]), line
        if found[2]:
            assert issubclass(kind, getattr(__import__("builtins"), found[2])), line
        above.append(kind)
    assert {name for name in procvm.__all__ if name.endswith("Error")} == set(
        re.findall(r"[├└─ │]*\b(\w+Error)\b(?! *\))", tree[1])
    )


def resolve(name: str) -> Any:
    """Returns what a dotted name of procvm is."""
    module, _, rest = name.partition(".")
    found = importlib.import_module(module)
    for part in rest.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            found = importlib.import_module(f"{found.__name__}.{part}")
    return found


# The public items of OSTD's mm::io, a type and its own.
SEED = {
    "VmIo": "read read_bytes read_val read_slice write write_bytes write_val write_slice",
    "VmIoFill": "fill_zeros",
    "VmIoOnce": "read_once write_once",
    "Fallible": "",
    "Infallible": "",
    "FallibleVmRead": "read_fallible",
    "FallibleVmWrite": "write_fallible",
    "VmReader": "clone from_kernel_space from_user_space from read read_val read_once atomic_load "
    "to_fallible remain has_remain cursor limit skip",
    "VmWriter": "from_kernel_space from_user_space from write write_val write_once fill_zeros "
    "to_fallible atomic_compare_exchange avail has_avail cursor limit skip clone_exclusive",
    "Pod": "",
    "PodOnce": "",
    "PodAtomic": "atomic_load_fallible atomic_cmpxchg_fallible",
}

# Of the same kernel, beside that module.
KERNEL = {
    "VmSpace": "reader writer reader_writer",
    "Segment": "",
    "IoMem": "",
    "HasVmReaderWriter": "",
    "VmReaderArray": "",
    "VmWriterArray": "",
    "read_cstring": "",
}


def items(tree: dict[str, str]) -> set[str]:
    """Returns the items of a tree by their names in Rust."""
    return {*tree} | {f"{kind}::{name}" for kind, names in tree.items() for name in names.split()}


def seed_rows() -> list[tuple[str, list[str]]]:
    """Returns the rows of the tables of items: the item, and the names here."""
    found = [
        (row[1], re.findall(r"`(procvm\.[\w.]+)`", row[2]))
        for row in re.finditer(
            r"^\| `([\w:]+)` \| ([^|]+) \| [^|]+ \|$", (DOCS / "seed.md").read_text(), re.M
        )
    ]
    assert found
    return found


def test_every_item_of_the_seed_has_a_row() -> None:
    """The table has each public item of the seed once, and no item that there is not."""
    rows = [item for item, _ in seed_rows()]
    assert len(rows) == len(set(rows))
    assert items(SEED) <= set(rows)
    errors = {f"Error::{name}" for name in ("InvalidArgs", "PageFault", "AccessDenied", "Overflow")}
    assert set(rows) == items(SEED) | items(KERNEL) | errors


def test_every_name_that_stands_for_an_item_of_the_seed_exists() -> None:
    """Each name on the right of the table can be imported, and is documented."""
    for item, names in seed_rows():
        assert names, item
        for name in names:
            assert resolve(name).__doc__, (item, name)


def test_the_pages_and_the_navigation_are_the_same() -> None:
    """Every page is in the navigation once, and every page that it names is there."""
    named = re.findall(r"(\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.M)
    there = sorted(str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md"))
    assert sorted(named) == there


def test_links_between_pages_lead_somewhere() -> None:
    """Each relative link leads to a file that is there."""
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), (page.name, target)


def test_contributing_where_do_i_look_names_files_that_exist() -> None:
    """Each of the twelve answers names one to three paths of the repository, and all exist."""
    table = (ROOT / "CONTRIBUTING.md").read_text().partition("## Where do I look")[2]
    rows = re.findall(r"^\| ([^|]+\?) \| ([^|]+) \|$", table, re.M)
    assert len(rows) == 12
    for question, answer in rows:
        paths = re.findall(r"`((?:procvm|docs|tests)/[\w/.]*)`", answer)
        assert 1 <= len(paths) <= 3, question
        for path in paths:
            assert (ROOT / path).exists(), (question, path)


def test_architecture_names_files_that_exist() -> None:
    """Each path of a room that the pages about the design name is in the package."""
    for page in (DOCS / "architecture.md", ROOT / "CONTRIBUTING.md"):
        for path in re.findall(r"`(_\w+/[\w/]*(?:\.py)?)`", page.read_text()):
            assert (ROOT / "procvm" / path).exists(), (page.name, path)


def test_anchors_of_links_between_pages_are_headings() -> None:
    """Each `page.md#anchor` is a heading of that page, or an anchor that it defines."""
    for page in PAGES:
        for target, anchor in re.findall(r"\]\(([^)#\s:]*)#([\w-]+)\)", page.read_text()):
            to = page.parent / target if target else page
            included = re.fullmatch(r'--8<-- "(.+)"\n', to.read_text())
            to = ROOT / included[1] if included else to
            text = re.sub(r"^```.*?^```", "", to.read_text(), flags=re.M | re.S)
            defined = set(re.findall(r"\{#([\w-]+)\}", text))
            for heading in re.findall(r"^#+ (.+)$", text, re.M):
                words = re.sub(r"[^\w\s-]", "", heading).strip().lower()
                defined.add(re.sub(r"[\s-]+", "-", words))
            assert anchor in defined or "." in anchor, (page.name, target, anchor)
