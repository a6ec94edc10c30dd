"""The public names: complete, loaded when they are used, and documented."""

from __future__ import annotations

import ast
import inspect
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import procvm
import procvm.testing

SOURCE = Path(procvm.__file__)


def imported_for_type_checkers() -> dict[str, set[str]]:
    """The names that type checkers see, by the module that each is imported from."""
    found: dict[str, set[str]] = {}
    for statement in ast.parse(SOURCE.read_text()).body:
        if isinstance(statement, ast.If) and ast.unparse(statement.test) == "TYPE_CHECKING":
            for node in statement.body:
                assert isinstance(node, ast.ImportFrom)
                names = found.setdefault(str(node.module), set())
                names |= {alias.asname or alias.name for alias in node.names}
    return found


def at_run_time(code: str) -> str:
    """What a new interpreter prints."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout


def test_public_names_are_the_same_to_type_checkers_and_at_run_time() -> None:
    """The imports that checkers read, the table that loads, and `__all__` agree."""
    homes = {home: set(names.split()) for home, names in vars(procvm)["_HOMES"].items()}
    assert homes == imported_for_type_checkers()
    names = sorted(name for home in homes.values() for name in home)
    assert names == sorted([*procvm.__all__, "open"])


@pytest.mark.parametrize("name", [*procvm.__all__, "open"])
def test_public_name_is_what_its_module_defines(name: str) -> None:
    """Each is loaded from the module that the table gives, and is named as it is there."""
    home = next(home for home, names in vars(procvm)["_HOMES"].items() if name in names.split())
    value = getattr(procvm, name)
    assert value is getattr(sys.modules[home], name)
    assert getattr(value, "__name__", name) == name
    assert name in dir(procvm)


def test_import_loads_no_module_of_the_package() -> None:
    """A program pays for what it uses: `import procvm` alone loads nothing else of it."""
    loaded = at_run_time(
        "import procvm, sys; print([m for m in sys.modules if m.startswith('procvm.')])"
    )
    assert loaded.strip() == "[]"
    loaded = at_run_time(
        "import sys; from procvm import u32; print('procvm._hold' in sys.modules, u32.size)"
    )
    assert loaded.strip() == "False 4"


def test_star_import_leaves_the_builtin_open() -> None:
    """`from procvm import *` gives every name but `open`, which would hide the builtin."""
    said = at_run_time(
        "import builtins, procvm; from procvm import *; "
        "print(open is builtins.open, attach is procvm.attach, procvm.open is not open)"
    )
    assert said.strip() == "True True True"


def test_unknown_name_is_an_attribute_error() -> None:
    """A name that does not exist is told as any module does, with its name."""
    with pytest.raises(AttributeError, match=r"^module 'procvm' has no attribute 'opne'") as caught:
        procvm.opne  # type: ignore[attr-defined]
    assert caught.value.name == "opne"
    with pytest.raises(ImportError, match="opne"):
        exec("from procvm import opne")  # noqa: S102 (a literal)


def test_errors_module_is_an_attribute_of_the_package() -> None:
    """`procvm.errors` needs no import of its own."""
    assert at_run_time("import procvm; print(procvm.errors.VmError.__name__)") == "VmError\n"


def test_tracer_loads_nothing_of_the_tools_side() -> None:
    """The tracer process imports none of what only the tool needs, which slowed its start."""
    loaded = at_run_time(
        "import procvm._hold.server.server, sys; print(*(m for m in sys.modules if 'procvm' in m))"
    ).split()
    rooms = (
        "procvm._live",
        "procvm._mm",
        "procvm._space",
        "procvm._saved",
        "procvm._symbols",
        "procvm.cli",
    )
    assert not [name for name in loaded if name.startswith(rooms)]
    assert "procvm._hold.tracee" not in loaded


def test_names_of_testing_are_all_public() -> None:
    """`procvm.testing` lists what it has, and has what it lists."""
    public = {
        name
        for name, value in vars(procvm.testing).items()
        if not name.startswith("_") and name != "annotations" and not isinstance(value, type(sys))
    }
    assert public == set(procvm.testing.__all__)


PAGES = Path(__file__).parent.parent / "docs" / "reference"
ENTRY = re.compile(r"^::: (\S+)$((?:\n {4}.*)*)", re.M)
INHERITED = re.compile(r"inherited_members:\s*(true|\[[^\]]*\])")


def documented_classes() -> dict[type, set[str]]:
    """Returns the classes on the reference pages, and the inherited names that each page lists."""
    found: dict[type, set[str]] = {}
    for page in PAGES.glob("*.md"):
        for name, options in ENTRY.findall(page.read_text()):
            shown: object = pkgutil.resolve_name(name)
            if isinstance(shown, type):
                inherited = INHERITED.search(options)
                names = "" if inherited is None else inherited[1]
                found[shown] = set(dir(shown) if names == "true" else re.findall(r"\w+", names))
    return found


def own_names(owner: type) -> set[str]:
    """Returns the attributes that a class itself defines, or describes as fields."""
    return {*vars(owner), *re.findall(r"^    (\w+): ", inspect.getdoc(owner) or "", re.M)}


def test_public_attributes_of_documented_classes_are_on_the_reference_pages() -> None:
    """A name without an underscore that no page shows is plumbing, and gets an underscore."""
    classes = documented_classes()
    assert procvm.Process in classes
    missing = {}
    for owner in classes:
        shown: set[str] = set()
        for base in owner.__mro__:
            shown |= classes.get(base, set())
            if base in classes or not base.__module__.startswith("procvm"):
                shown |= own_names(base)
        hidden = {name for name in dir(owner) if not name.startswith("_")} - shown
        if hidden:
            missing[owner.__name__] = sorted(hidden)
    assert missing == {}
