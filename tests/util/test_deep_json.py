"""JSON that is nested without end, wherever ct reads some: one line, or as if the file were not there."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ctcore.contract import Json
from ctcore.errors import Usage
from ctcore.inputs.current import forget
from ctcore.planning.plan_file import load
from ctcore.store.digest import canonical_json
from ctcore.util import json_text
from tests.helpers.kit import again, make_all, make_project
from tests.helpers.shell import ct

DEEP = "[" * 100_000


def sidecar(root: Path) -> Path:
    (found,) = (root / "store/merged/S1").glob("*/ct.json")
    found.parent.chmod(0o755)
    found.chmod(0o644)
    return found


# The file that holds it, the command that reads it, its exit code, and what it says
WHERE: dict[str, tuple[Callable[[Path], Path], tuple[str, ...], int, str]] = {
    "a line of the journal": (lambda root: root / "provenance.jsonl", ("status",), 1, "is not an event"),
    "the list of projects": (lambda _: Path(os.environ["CT_PROJECTS"]), ("projects",), 1, "is no list of projects"),
    "a phenopacket": (
        lambda root: root / "packet.json",
        ("register", "packet.json"),
        1,
        "it is not JSON: it is nested",
    ),
    "a sidecar": (sidecar, ("verify",), 3, "ct.json\tno longer JSON"),
    "the saved mirror": (lambda root: root / "work/mirror/head.json", ("status",), 0, ""),
    "what was looked at": (lambda root: root / "work/looked.json", ("status",), 0, ""),
}


@pytest.mark.parametrize("name", list(WHERE))
def test_what_is_nested_without_end_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    place, words, code, told = WHERE[name]
    project = make_project(tmp_path / "toy")
    make_all(project)
    ct("-C", project.root, "status")
    project.catalog.engine.dispose()
    forget()
    path = place(project.root)
    path.parent.mkdir(exist_ok=True)
    path.write_text(DEEP + "\n")
    monkeypatch.chdir(project.root)
    said = ct("-C", project.root, *words)
    assert said.code == code and told in said.out + said.err, said
    assert len(said.err.splitlines()) <= 4, said


def test_a_plan_that_is_nested_without_end_is_none(tmp_path: Path) -> None:
    project = make_project(tmp_path / "toy")
    (tmp_path / "plan.json").write_text(DEEP)
    with pytest.raises(Usage, match=r"plan\.json is no saved plan"):
        load(project, tmp_path / "plan.json")


def test_a_contract_refuses_it_and_its_digest_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "out.json").write_text(DEEP)
    assert Json({"a": "text"}).problems(tmp_path / "out.json") == ["not JSON: it is nested too deeply to be read"]
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(ValueError, match="nested too deeply"):
        canonical_json(deep)
    with pytest.raises(ValueError, match="nested too deeply"):
        json_text.loads(DEEP)


def test_the_project_of_a_journal_that_was_deep_goes_on(tmp_path: Path) -> None:
    project = make_project(tmp_path / "toy")
    with (project.root / "provenance.jsonl").open("a") as stream:
        stream.write(DEEP + "\n")
    assert ct("-C", project.root, "recover").code == 0
    assert (project.root / "set-aside/1/provenance.jsonl").read_text() == DEEP + "\n"
    assert ct("-C", project.root, "status").code == 3 and set(make_all(again(project)).values()) == {"made"}
