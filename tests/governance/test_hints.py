"""Hints and refusals name nobody whose consent has ended; who types such an ID itself is told what is the matter."""

import re
import shutil
from pathlib import Path

import pytest

from ctcore.governance.consent import Statement, set_consent
from ctcore.project import Project
from tests.helpers.kit import TOML, again, assay, make_all, make_project
from tests.helpers.shell import ct

ROWS = (
    assay("PGONE", "SGONE", "AGONE", sex="F", age="40", site="hidden-site"),
    assay("P2", "S2", "A3", sex="M", age="50", site="blood"),
)
TABLES = """
[analyses.path]
level = "assay"
[analyses.path.columns]
grade = {}
[cohorts.named]
level = "patient"
members = ["PGON"]
[cohorts.same.where]
"patient.id" = "PGON"
[cohorts.seen.where]
"specimen.site" = "hidden-sit"
"""
MISTYPED = [
    "show patient/PGON",
    "why counted/AGON",
    "path counted/AGON",
    "logs counted/AGON",
    "plan counted/AGON",
    "run counted/AGON",
    "accept counted/AGON --reason x",
    "trace PGON",
    "trace specimen/SGON",
    "impact AGON",
    "diff counted/AGON",
    "qc add patient/PGON qc_fail --reason x",
    "qc history assay/AGON",
    "consent set PGON full",
    "consent history PGON",
    "purge PGON",
    "record path AGON grade=G2",
    "register assay AGON --set library=x",
    "register case.csv",
]


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = make_project(tmp_path_factory.mktemp("hints") / "toy", ROWS, toml=TOML + TABLES)
    make_all(project)
    (project.root / "case.csv").write_text("patient_id,sex\npgone,F\n")
    return project.root


@pytest.fixture(scope="module")
def root(before: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same when their consent has ended."""
    copied = tmp_path_factory.mktemp("ended") / "toy"
    shutil.copytree(before, copied, symlinks=True)
    set_consent(Project.find(copied), ["PGONE"], Statement("revoked", dated="2024-01-20", form="form 12"))
    return copied


@pytest.mark.parametrize("command", MISTYPED)
def test_a_hint_names_nobody_whose_consent_has_ended(before: Path, root: Path, command: str) -> None:
    words = command.replace("case.csv", str(root / "case.csv")).split()
    told = ct("-C", before, *words)
    hidden = ct("-C", root, *words)
    assert hidden.code == told.code != 0, hidden.err
    assert not re.search("[PSA]GONE", hidden.out + hidden.err), hidden.err
    if command.startswith(("show", "trace PGON", "impact", "qc add", "consent set", "purge", "register case")):
        assert re.search("[PSA]GONE", told.err), "before, they were what was probably meant"


def test_a_rules_hint_never_names_an_expired_consent(before: Path, root: Path) -> None:
    assert ct("-C", before, "cohort").err.count("did you mean") == 3
    said = ct("-C", root, "cohort")
    assert "nobody has hidden-sit" in said.err
    assert "PGONE" not in said.err and "hidden-site" not in said.err


@pytest.mark.parametrize("command", ["show patient/PGONE", "trace PGONE", "path counted/AGONE"])
def test_who_types_the_very_id_is_told_what_is_the_matter(root: Path, command: str) -> None:
    said = ct("-C", root, *command.split())
    assert said.code == 2
    assert "consent revoked on 2024-01-20 (form 12)" in said.err
    assert "--excluded --reason TEXT" in said.err


@pytest.mark.parametrize("command", ["schema apply", "schema apply --dry-run", "register sheet.csv", "schema check"])
def test_a_schema_refusal_counts_them_and_names_nobody(root: Path, command: str) -> None:
    kept = (root / "ct.toml").read_text()
    (root / "ct.toml").write_text(kept.replace('enum = ["F", "M"]', 'enum = ["X"]'))
    try:
        said = ct("-C", root, *command.replace("sheet.csv", str(_sheet(root))).split())
    finally:
        (root / "ct.toml").write_text(kept)
    assert said.code in (1, 3)
    assert "P2" in said.err and "1 × somebody who may not be used" in said.err
    assert "PGONE" not in said.out + said.err


def _sheet(root: Path) -> Path:
    """Somebody new, in whom nothing is wrong."""
    path = root / "other.csv"
    path.write_text("patient_id,sex\nP7,X\n")
    return path


def test_a_value_is_not_shown_with_an_expired_persons_id(tmp_path: Path) -> None:
    toml = TOML.replace('age = "integer"', 'age = { type = "integer", unique = true }')
    project = make_project(tmp_path / "toy", ROWS, toml=toml)
    set_consent(project, ["PGONE"], Statement("revoked", dated="2024-01-20", form="form 12"))
    said = ct("-C", again(project).root, "register", "patient", "P7", "--set", "sex=F", "--set", "age=40")
    assert said.code == 1
    assert "is that of somebody who may not be used already" in said.err
    assert "PGONE" not in said.err
