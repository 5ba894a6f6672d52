"""The house: what lies at the root, a name is used once, and each module is named by a test of its own package."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from ctcore.cli import _COMMANDS

ROOT = Path(__file__).parents[2]
CORE = ROOT / "ctcore"
TWICE = {
    "cli": "a command has the name of what it shows",
    "terminal": "it shows what the module of this name knows",
}


def modules() -> list[Path]:
    return [path for path in CORE.rglob("[!_]*.py") if "migrations" not in path.parts and "_project" not in path.parts]


def test_the_root_is_what_a_users_file_imports() -> None:
    assert {path.stem for path in CORE.glob("[!_]*.py")} == {"step", "contract", "project", "errors"}


def test_a_file_of_the_command_line_is_a_command() -> None:
    assert {path.stem for path in (CORE / "cli").glob("[!_]*.py")} == {*_COMMANDS, "run_again"}


def test_no_module_has_the_name_of_another() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for path in modules():
        if path.parent.name not in TWICE:
            places[path.stem].append(str(path.relative_to(CORE)))
    assert [some for some in places.values() if len(some) > 1] == []


# Tests of these packages lie elsewhere, too.
ALSO: dict[str, tuple[str, ...]] = {"execution": ("slurm",), "cli": ("repository",)}
LONGEST = 60  # letters of a test's name


def names_in(test: Path) -> Iterator[str]:
    """The modules that a test imports or writes down, and the commands that it types (`ct("status")`)."""
    for node in ast.walk(ast.parse(test.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from (node.module, *(f"{node.module}.{one.name}" for one in node.names))
        elif isinstance(node, ast.Import):
            yield from (one.name for one in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            for dotted in re.findall(r"ctcore(?:\.\w+)+", node.value):
                yield from (dotted, dotted.rpartition(".")[0])
            if (typed := node.value.partition(" ")[0]) in _COMMANDS:
                yield f"ctcore.cli.{typed}"


@cache
def named_by(package: str) -> set[str]:
    folders = (package, *ALSO.get(package, ()))
    return {name for one in folders for test in (ROOT / "tests" / one).rglob("*.py") for name in names_in(test)}


def test_each_module_is_named_by_a_test_of_its_package() -> None:
    lacking = set()
    for path in modules():
        package, *inner = path.relative_to(CORE).with_suffix("").parts
        dotted = ".".join(("ctcore", package, *inner))
        if inner and dotted not in named_by(package):
            lacking.add(dotted.removeprefix("ctcore."))
    assert sorted(lacking) == [], "write a test of them in tests/PACKAGE"


def test_no_file_of_tests_has_the_name_of_another() -> None:
    """Without packages in `tests`, pytest imports a file by its bare name, and stops at the second one of a name."""
    places: dict[str, list[str]] = defaultdict(list)
    for path in (ROOT / "tests").rglob("test_*.py"):
        places[path.name].append(str(path.relative_to(ROOT)))
    assert [some for some in places.values() if len(some) > 1] == []


def test_a_tests_name_is_under_sixty_letters() -> None:
    long = [
        f"{path.relative_to(ROOT)}: {node.name}"
        for path in (ROOT / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_") and len(node.name) >= LONGEST
    ]
    assert long == []


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("from ctcore.a import b", {"ctcore.a", "ctcore.a.b"}),
        ("x = 'see ctcore.a.b.name'", {"ctcore.a.b.name", "ctcore.a.b"}),
        ("ct('status', '--all')", {"ctcore.cli.status"}),
        ("'statuses of ctcore'", set()),
    ],
)
def test_a_test_names_what_it_imports_writes_or_types(tmp_path: Path, text: str, names: set[str]) -> None:
    (tmp_path / "test_x.py").write_text(text)
    assert set(names_in(tmp_path / "test_x.py")) == names
