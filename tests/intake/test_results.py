"""Results as rows: typed, of steps and of analyses, without a ceiling, gated; as columns on demand."""

import csv
import json
from pathlib import Path

import pytest

from ctcore.errors import Usage
from ctcore.intake.results import ResultEntry, analysis_of, record
from ctcore.project import Project
from ctcore.query.readable import Gate
from ctcore.query.sql import Database
from ctcore.query.views import Views
from tests.helpers.kit import TOML, Inline, again, fail, make, make_project
from tests.helpers.shell import ct

STEPS = '''\
from ctcore.model.column import Column
from ctcore.step import Call, step

DEPTH = [Column("depth", "real", unit="×"), Column("day", "date"), Column("never", "boolean")]


@step(level="assay", files=["reads"], outputs={"n": "n.txt"}, facts=DEPTH)
def counted(call: Call) -> dict[str, object]:
    """Count."""
    call.out("n").write_text("1")
    return {"depth": 30, "day": "2026-01-02", "more": "free", "parts": [1, 2]}


@step(level="assay", files=["reads"], outputs={"n": "n.txt"})
def measured(call: Call) -> dict[str, object]:
    """Ten thousand numbers under names of which another step has one, too."""
    call.out("n").write_text("1")
    return {"depth": "deep", **{f"c{at}": at for at in range(10_000)}}
'''
ANALYSIS = """
[analyses.pathology]
level = "assay"
columns = { ki67 = { type = "real", unit = "%" }, read_on = "date" }
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return make_project(tmp_path / "toy", steps=STEPS, toml=TOML + ANALYSIS)


def ask(project: Project, sql: str) -> list[tuple[object, ...]]:
    with project.catalog.read() as connection:
        return list(Database(Views(Gate.of(project, connection)), sql).query(sql)[1])


def enter(project: Project, who: str, run: str = "", reason: str = "", **values: float | str) -> None:
    record(project, analysis_of(project, "pathology"), [ResultEntry(who, values)], run=run, reason=reason)


def test_a_value_has_its_declared_or_its_own_type(project: Project) -> None:
    make(project, "counted", "A1", runner=Inline(project))
    enter(project, "A1", ki67=4.5, read_on="2026-01-03")
    assert ask(project, "SELECT step, level, entity, run, name, type, value, unit, version FROM results") == [
        ("counted", "assay", "A1", None, "day", "date", "2026-01-02", None, None),
        ("counted", "assay", "A1", None, "depth", "real", 30.0, "×", None),
        ("counted", "assay", "A1", None, "more", "text", "free", None, None),
        ("counted", "assay", "A1", None, "parts", "json", "[1, 2]", None, None),
        ("pathology", "assay", "A1", "", "ki67", "real", 4.5, "%", 1),
        ("pathology", "assay", "A1", "", "read_on", "date", "2026-01-03", None, 1),
    ]


def test_ten_thousand_columns_of_a_step_collide_with_none(project: Project) -> None:
    for step in ("counted", "measured"):
        make(project, step, "A1", runner=Inline(project))
    assert ask(project, "SELECT count(*) FROM results WHERE step = 'measured'") == [(10_001,)]
    found = ask(project, "SELECT step, type, value FROM results WHERE name = 'depth' ORDER BY 1")
    assert found == [("counted", "real", 30.0), ("measured", "text", "deep")]
    place = project.root / "wide.csv"
    assert ct("-C", str(project.root), "export", str(place), "--wide", "assay").code == 0
    with place.open(newline="") as stream:
        row = next(csv.DictReader(stream))
    assert len(row) > 10_000 and (row["measured.c9999"], row["counted.depth"]) == ("9999", "30.0")
    with pytest.raises(Usage, match="wide_measured has 10,003 columns, and SQL takes 2,000"):
        ask(project, "SELECT * FROM wide_measured")


def test_results_of_a_named_step_or_analysis_are_a_table(project: Project) -> None:
    make(project, "counted", "A1", "A2", runner=Inline(project))
    enter(project, "A1", ki67=4.5)
    enter(project, "A1", run="second", ki67=5.5)
    assert ask(project, "SELECT assay_id, depth, day, never FROM wide_counted") == [
        ("A1", 30.0, "2026-01-02", None),
        ("A2", 30.0, "2026-01-02", None),
    ]
    sql = "SELECT run, ki67 FROM wide_pathology JOIN assays USING (assay_id) ORDER BY run"
    assert ask(project, sql) == [("", 4.5), ("second", 5.5)]
    listed = ct("-C", str(project.root), "query", "--tables").out
    assert "wide_counted" in listed and "wide_pathology" in listed
    with pytest.raises(Usage, match="no such table"):
        ask(project, "SELECT * FROM wide_nothing")


def test_history_keeps_every_making_and_every_version(project: Project) -> None:
    make(project, "counted", "A1", runner=Inline(project))
    path = project.root / "steps" / "toy.py"
    path.write_text(path.read_text().replace('"depth": 30', '"depth": 40'))
    project = again(project)
    make(project, "counted", "A1", runner=Inline(project))
    enter(project, "A1", ki67=4.5)
    enter(project, "A1", ki67=5.0, reason="counted again")
    sql = "SELECT step, value, version, current, reason FROM results_history WHERE name IN ('depth', 'ki67')"
    found = ask(project, sql)
    assert [row[:4] for row in found] == [
        ("counted", 30.0, None, 0),
        ("counted", 40.0, None, 1),
        ("pathology", 4.5, 1, 0),
        ("pathology", 5.0, 2, 1),
    ]
    assert found[3][4] == "counted again"


def test_a_recorded_result_is_hidden_with_its_entity(project: Project) -> None:
    enter(project, "A1", ki67=4.5)
    enter(project, "A3", ki67=5.5)
    fail(project, "P1")
    for table in ("results", "results_history", "wide_pathology"):
        assert ask(project, f"SELECT count(*) FROM {table}") == [(1,)]


def test_recorded_results_are_on_pages_exports_and_dashboard(project: Project) -> None:
    enter(project, "A1", ki67=4.5)
    enter(project, "A1", run="second", ki67=5.5)
    root = str(project.root)
    assert "pathology\tsecond\t1\tki67\t5.5" in ct("-C", root, "show", "assay/A1").out
    assert json.loads(ct("-C", root, "show", "assay/A1", "--json").out)["results"][0]["values"] == {"ki67": 4.5}
    wide = ct("-C", root, "export", "-", "--wide", "assay", "--columns", "pathology.*", "--format", "csv").out
    assert "pathology.ki67,pathology.second.ki67" in wide.splitlines()[0] and "4.5,5.5" in wide
    said = ct("-C", root, "export", "-", "--wide", "assay", "--columns", "patology.*")
    assert (said.code, said.out) == (2, "") and "--columns patology.*: no step or analysis 'patology'" in said.err
    page = project.root / "page.html"
    assert ct("-C", root, "dashboard", str(page)).code == 0
    assert "Recorded" in page.read_text() and "pathology" in page.read_text()
