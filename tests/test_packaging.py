"""What the wheel holds: the core, Dagster's storage, and all that `ct init` writes out."""

import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ctcore.cli.init import PARTS

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The names in a wheel that is really built."""
    from hatchling.builders.wheel import WheelBuilder

    built = next(WheelBuilder(str(ROOT)).build(directory=str(tmp_path_factory.mktemp("wheel")), versions=["standard"]))
    return zipfile.ZipFile(built).namelist()


def test_nothing_with_a_common_name_is_installed_at_the_top(wheel: list[str]) -> None:
    tops = {name.partition("/")[0] for name in wheel if ".dist-info/" not in name}
    assert tops == {"ctcore", "ct_instance.py"}


def test_all_that_init_copies_is_in_the_wheel(wheel: list[str]) -> None:
    listed = {name.removeprefix("ctcore/_project/") for name in wheel if name.startswith("ctcore/_project/")}
    assert set(_sources()) - listed == set()
    assert not [name for name in listed if "__pycache__" in name]


def test_the_core_and_its_migrations_are_in_the_wheel(wheel: list[str]) -> None:
    core = {str(path.relative_to(ROOT)) for path in (ROOT / "ctcore").rglob("*.py*") if "__pycache__" not in str(path)}
    assert core - set(wheel) == set()
    assert "ctcore/catalog/migrations/script.py.mako" in wheel


def _sources() -> Iterator[str]:
    """The files of a checkout that make up a project."""
    for part in PARTS:
        if (ROOT / part).is_file():
            yield part
        yield from (str(path.relative_to(ROOT)) for path in (ROOT / part).rglob("*.py") if path.is_file())
    yield "dagster_home/dagster.yaml"
    yield from (str(path.relative_to(ROOT)) for path in (ROOT / "examples").rglob("*.*") if path.is_file())
