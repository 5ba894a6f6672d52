"""What the wheel holds: the core, Dagster's storage, and all that `ct init` writes out."""

import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hatchling.metadata.core import ProjectMetadata
from hatchling.plugin.manager import PluginManager

from ctcore.cli.init import PARTS
from tools.wheel_metadata import readme, urls

ROOT = Path(__file__).parents[2]
TARGET = re.compile(r"\]\(([^)\s]+)\)")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The names in a wheel that is really built."""
    from hatchling.builders.wheel import WheelBuilder

    built = next(WheelBuilder(str(ROOT)).build(directory=str(tmp_path_factory.mktemp("wheel")), versions=["standard"]))
    return zipfile.ZipFile(built).namelist()


def test_nothing_with_a_common_name_is_installed_at_the_top(wheel: list[str]) -> None:
    tops = {name.partition("/")[0] for name in wheel if ".dist-info/" not in name}
    assert tops == {"ctcore", "ct_instance"}


def test_an_editable_install_imports_the_checkout_and_no_copy(tmp_path: Path) -> None:
    from hatchling.builders.wheel import WheelBuilder

    built = next(WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["editable"]))
    assert [name for name in zipfile.ZipFile(built).namelist() if name.endswith(".py")] == [
        "ctcore/_project/definitions.py"  # data: nothing imports it from there
    ]


def test_all_that_init_copies_is_in_the_wheel(wheel: list[str]) -> None:
    listed = {name.removeprefix("ctcore/_project/") for name in wheel if name.startswith("ctcore/_project/")}
    assert set(_sources()) - listed == set()
    assert not [name for name in listed if "__pycache__" in name]


def test_the_core_and_its_migrations_are_in_the_wheel(wheel: list[str]) -> None:
    core = {str(path.relative_to(ROOT)) for path in (ROOT / "ctcore").rglob("*.py*") if "__pycache__" not in str(path)}
    assert core - set(wheel) == set()
    migrations = {
        f"ctcore/catalog/migrations/{name}" for name in ("script.py.mako", "new_sqlite.sql", "new_postgresql.sql")
    }
    assert migrations | {"ctcore/py.typed"} <= set(wheel)


def _sources() -> Iterator[str]:
    """The files of a checkout that make up a project."""
    for part in PARTS:
        if (ROOT / part).is_file():
            yield part
        yield from (str(path.relative_to(ROOT)) for path in (ROOT / part).rglob("*.py") if path.is_file())
    yield "dagster_home/dagster.yaml"
    yield from (str(path.relative_to(ROOT)) for path in (ROOT / "examples").rglob("*.*") if path.is_file())


def metadata(repository: str | None = None) -> ProjectMetadata:
    """What the wheel says of itself; `repository` in place of pyproject.toml's."""
    found = ProjectMetadata(str(ROOT), PluginManager())
    if repository is not None:
        found.config["tool"]["hatch"]["metadata"]["hooks"]["custom"]["repository"] = repository
    return found


@pytest.mark.parametrize("repository", [None, "https://example.org/ct"])
def test_the_packages_readme_has_no_relative_target(repository: str | None) -> None:
    core = metadata(repository).core
    assert core.readme_content_type == "text/markdown"
    assert "## Your own cohort" in core.readme
    assert [target for target in TARGET.findall(core.readme) if not target.startswith("https://")] == []
    assert ("![The lineage of the cohort report" in core.readme) == (repository is not None)


def test_every_address_of_the_package_is_below_the_repository() -> None:
    assert set(metadata("https://example.org/ct/").core.urls) == {"Repository", "Documentation", "Changelog", "Issues"}
    assert {address[:22] for address in urls("https://example.org/ct").values()} == {"https://example.org/ct"}
    assert metadata("").core.urls == {}


def test_links_to_a_place_in_the_readme_and_to_elsewhere_stay() -> None:
    text = "[a](#b) [c](https://d) ![e](f.png) [g](h.md)"
    assert readme(text, "") == "[a](#b) [c](https://d)  g"
    assert readme(text, "https://r") == (
        "[a](#b) [c](https://d) ![e](https://r/raw/main/f.png) [g](https://r/blob/main/h.md)"
    )


def test_the_package_says_its_licence_and_what_it_is_for() -> None:
    core = metadata().core
    assert (core.license_expression, core.license_files) == ("MIT", ["LICENSE"])
    assert {"Typing :: Typed", "Topic :: Scientific/Engineering :: Bio-Informatics"} <= set(core.classifiers)
    assert (ROOT / "ctcore" / "py.typed").is_file()
    assert core.requires_python == ">=3.11"


def test_classifiers_are_those_that_an_index_takes() -> None:
    from trove_classifiers import classifiers

    assert set(metadata().core.classifiers) - classifiers == set()
