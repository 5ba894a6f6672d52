"""The table of exit codes in docs/operations.md is what the commands do, and what their help says."""

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from ctcore.cli import cli
from ctcore.errors import CtError, Usage
from ctcore.terminal.render import FOUND
from tests.helpers.kit import TOML, make_all, make_project
from tests.helpers.shell import ct

PAGE = (Path(__file__).parents[2] / "docs/operations.md").read_text()
SECTION = PAGE.partition("## Exit codes\n")[2].partition("\n## ")[0]
CODES, COMMANDS = (
    [line.strip("| ").split(" | ") for line in part.splitlines()[2:]] for part in SECTION.strip().split("\n\n")
)


def _helps(group: click.Group, before: str = "") -> Iterator[tuple[str, str]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from _helps(command, f"{before}{name} ")
        else:
            yield f"{before}{name}", " ".join((command.help or "").split())


def test_the_table_has_the_codes_of_the_errors() -> None:
    assert [code for code, _ in CODES] == ["0", str(CtError.exit_code), str(Usage.exit_code), str(FOUND), "130"]


def test_the_table_has_each_command_that_finds_something() -> None:
    listed = {name.removeprefix("ct ") for row in COMMANDS for name in re.findall(r"`([^`]*)`", row[0])}
    listed = {name.partition(" STEP")[0] for name in listed}
    assert listed == {name for name, said in _helps(cli) if "xit code 3" in said}


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One project in which all is made and whole, and one in which a result is gone and ct.toml differs."""
    base = tmp_path_factory.mktemp("codes")
    whole, broken = (make_project(base / name) for name in ("whole", "broken"))
    for project in (whole, broken):
        make_all(project)
    for file in (broken.root / "store/merged").rglob("n.txt"):
        file.parent.chmod(0o755)
        file.unlink()
    (broken.root / "ct.toml").write_text(TOML.replace("site = {}", "site = {}\ntissue = {}"))
    return {"whole": whole.root, "broken": broken.root}


@pytest.mark.parametrize(
    "call",
    [
        *(["status"], ["stale"], ["why", "merged/S1"], ["plan"], ["path", "merged/S1", "n"], ["verify"]),
        *(["status", "merged", "--missing"], ["schema", "diff"]),
    ],
    ids=" ".join,
)
def test_what_is_found_is_three_and_nothing_is_zero(roots: dict[str, Path], call: list[str]) -> None:
    assert ct("-C", roots["whole"], *call).code == 0
    assert ct("-C", roots["broken"], *call).code == FOUND


@pytest.mark.parametrize("call", [["why", "nothing/S1"], ["status", "--nothing"], ["nothing"]], ids=" ".join)
def test_a_wrong_call_is_two(roots: dict[str, Path], call: list[str]) -> None:
    assert ct("-C", roots["whole"], *call).code == 2


def test_what_cannot_be_done_is_one(tmp_path: Path) -> None:
    (tmp_path / "ct.toml").write_text("no toml")
    assert ct("-C", tmp_path, "status").code == 1
