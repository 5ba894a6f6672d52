"""A project in which nobody is registered: every command says so in one line, and what to do."""

from pathlib import Path

import pytest

from ctcore.cohorts.partitions import NOBODY
from ctcore.planning.requests import decide_requests
from ctcore.project import Project
from ctcore.terminal.render import NO_STEPS
from tests.helpers.kit import ROWS, STEPS, TOML, add
from tests.helpers.shell import ct


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `ct init` leaves it, with steps of all levels."""
    root = tmp_path_factory.mktemp("empty") / "toy"
    assert ct("init", root).code == 0
    (root / "ct.toml").write_text(TOML)
    (root / "genome.txt").write_text("ACGT\n")
    (root / "steps").mkdir(exist_ok=True)
    (root / "steps" / "toy.py").write_text(STEPS)
    return root


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("run", 0),
        ("run joined", 0),
        ("run joined/all --cohort all", 0),
        ("plan", 0),
        ("plan --json", 0),
        ("stale --why", 3),
        ("status", 3),
        ("export - --table assays", 0),
        ("query --tables", 0),
        ("cohort", 0),
        ("cohort all", 0),
        ("batches --by assay.library", 0),
        ("dashboard d.html", 0),
        ("heatmap h.png", 0),
        ("jobs", 0),
        ("logs counted/A1", 2),
        ("verify", 0),
        ("why joined/all", 3),
        ("why counted", 2),
        ("show patient/P1", 2),
        ("path joined/all", 1),
        ("trace P1", 2),
        ("impact P1", 2),
        ("diff joined/all", 2),
        ("accept joined/all --reason x", 2),
        ("qc list", 0),
        ("qc add assay/A1 qc_fail --reason x", 2),
        ("consent history", 0),
        ("consent set P1 full", 2),
        ("purge --list", 0),
        ("purge P1", 2),
    ],
)
def test_an_empty_registry_says_what_to_do(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, code: int
) -> None:
    monkeypatch.chdir(tmp_path)
    said = ct("-C", root, *command.split())
    assert said.err.splitlines()[0] == NOBODY == "nobody is registered yet: `ct register SHEET`"
    assert said.code == code, said.err
    assert "Traceback" not in said.err
    if code == 2:
        assert len(said.err.splitlines()) == 2, "what is there, and what was wrong with what was asked for"


@pytest.mark.parametrize("command", ["status", "stale", "plan", "run"])
def test_a_project_without_steps_says_what_to_do(tmp_path: Path, command: str) -> None:
    assert ct("init", tmp_path / "new").code == 0
    assert ct("-C", tmp_path / "new", "register", "patient", "P1").code == 0
    said = ct("-C", tmp_path / "new", command)
    assert said.code == 0 and said.err.splitlines()[0] == NO_STEPS


def test_a_step_that_lacks_what_it_uses_names_both_ways_out(tmp_path: Path) -> None:
    assert ct("init", tmp_path / "new").code == 0
    (tmp_path / "new" / "ct.toml").write_text('[project]\nid = "new"\n')
    said = ct("-C", tmp_path / "new", "stale")
    assert said.code == 1 and "add [references.genome]" in said.err
    assert said.err.splitlines()[-1].strip().startswith("or remove these steps: [steps] folders")


@pytest.mark.parametrize("command", ["schema show", "reference list", "projects"])
def test_what_is_not_about_people_does_not_miss_them(root: Path, command: str) -> None:
    said = ct("-C", root, *command.split())
    assert (said.code, NOBODY in said.err) == (0, False)


def test_nothing_is_asked_for_before_somebody_is_registered(root: Path, tmp_path: Path) -> None:
    def nodes() -> list[str]:
        found = decide_requests(Project.find(root), lambda runs: set(), lambda keys: (set(), set()))
        told.append(found.words)
        return [one.batch.asset for one in found.asked if one.batch.asset != "reference"]

    told: list[str] = []
    assert nodes() == []
    assert told == [NOBODY]
    add(Project.find(root), ROWS)
    assert "counted" in nodes()
    assert NOBODY not in ct("-C", root, "status").err
