"""What a step returns is typed before it is published, and read typed; there is no ceiling, and no collision."""

import datetime
from pathlib import Path
from typing import Any

import pytest

from ctcore.errors import StepError
from ctcore.model.column import Column
from ctcore.project import Project
from ctcore.steps.facts import typed_facts
from tests.helpers.kit import Inline, make, make_project

STEP = '''\
from ctcore.model.column import Column
from ctcore.step import Call, step


@step(level="assay", files=["reads"], outputs={{"n": "n.txt"}}, facts=[{columns}])
def counted(call: Call) -> dict[str, object]:
    """Count."""
    call.out("n").write_text("1")
    return {facts}
'''


def project_of(root: Path, columns: str, facts: str) -> Project:
    return make_project(root / "toy", steps=STEP.format(columns=columns, facts=facts))


def test_an_unfit_fact_publishes_nothing_and_shows_its_value(tmp_path: Path) -> None:
    columns = 'Column("depth", "real", range=(0, 100)), Column("site", enum=("lung", "liver")), Column("day", "date")'
    project = project_of(
        tmp_path, columns, '{"depth": 101.5, "site": "skin", "day": "2026-02-30", "more": float("nan")}'
    )
    outcome = make(project, "counted", "A1", runner=Inline(project))[0]
    assert outcome.state == "failed"
    for said in (
        "depth = 101.5 is not within 0 to 100",
        "site = 'skin' is not one of lung, liver",
        "day = '2026-02-30' is not a date as YYYY-MM-DD",
        "more = nan is not a value that can be kept",
    ):
        assert said in outcome.why
    assert list(project.store.root.glob("counted/A1/*/ct.json")) == []


def test_declaring_facts_makes_nothing_stale(tmp_path: Path) -> None:
    project = project_of(tmp_path, "", '{"depth": 1.5}')
    make(project, "counted", "A1", runner=Inline(project))
    (project.root / "steps" / "toy.py").write_text(
        STEP.format(columns='Column("depth", "real")', facts='{"depth": 1.5}')
    )
    project = Project.find(project.root)
    assert [one.state for one in make(project, "counted", "A1", runner=Inline(project))] == ["hit"]


@pytest.mark.parametrize(
    ("column", "said"),
    [
        ('Column("a", "float")', "type 'float' is not one of"),
        ('Column("a"), Column("a")', "fact 'a' twice"),
        ('Column("a", range=(0, 1))', "only numbers have one"),
        ('Column("a", "real", range=(1, 0))', "the lower end first"),
        ('Column("a", "integer", enum=("x",))', "is not a whole number"),
        ('Column("a", unique=True)', "for metadata"),
    ],
)
def test_a_wrong_declaration_is_told_before_anything_runs(tmp_path: Path, column: str, said: str) -> None:
    with pytest.raises(StepError, match=said):
        _ = make_project(tmp_path / "toy", steps=STEP.format(columns=column, facts="{}")).steps


@pytest.mark.parametrize(
    ("kind", "given", "kept"),
    [
        ("integer", 3, 3),
        ("integer", 3.0, None),
        ("integer", True, None),
        ("integer", "3", None),
        ("real", 3, 3.0),
        ("real", float("inf"), None),
        ("real", True, None),
        ("boolean", True, True),
        ("boolean", 1, None),
        ("text", "012", "012"),
        ("text", 12, None),
        ("date", datetime.date(2026, 2, 28), "2026-02-28"),
        ("date", "2026-02-28", "2026-02-28"),
        ("date", datetime.datetime(2026, 2, 28), None),
    ],
)
def test_a_fact_has_the_type_of_its_column_or_is_refused(kind: Any, given: Any, kept: Any) -> None:
    found, problems = typed_facts({"a": given}, [Column("a", kind)])
    assert bool(problems) == (kept is None)
    if kept is not None:
        assert found == {"a": kept} and type(found["a"]) is type(kept)


def test_numbers_of_numpy_are_numbers() -> None:
    import numpy as np

    columns = [Column("n", "integer"), Column("x", "real")]
    found, problems = typed_facts({"n": np.int64(3), "x": np.float32(0.5)}, columns)
    assert problems == [] and found == {"n": 3, "x": 0.5} and [type(one) for one in found.values()] == [int, float]


def test_a_required_fact_must_be_there_others_may_be_blank() -> None:
    columns = [Column("a", "integer", required=True), Column("b", "integer")]
    assert typed_facts({"b": None}, columns)[1] == ["a = None is blank, but required"]
    assert typed_facts({"a": 1}, columns) == ({"a": 1}, [])
