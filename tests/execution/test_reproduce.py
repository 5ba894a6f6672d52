"""A call is repeated beside its result and compared; the result stays, unless it is to be replaced."""

import os
import time
from pathlib import Path

import pytest
from sqlalchemy import select

from ctcore.catalog.tables import reproduction
from ctcore.execution.materialize import Outcome, StepRun
from ctcore.execution.reproduce import BESIDE, FORGET_S, Reproduction, repeated_calls
from ctcore.project import Project
from tests.helpers.kit import Inline, make, make_project

UNSTEADY = """\
import time
from ctcore.step import Call, step

@step(level="assay", files=["reads"], outputs={"n": "n.txt", "same": "same.txt"})
def counted(call: Call) -> None:
    call.out("n").write_text(str(time.time_ns()))
    call.out("same").write_text("same")
"""


def again(project: Project, replaces: bool = False) -> Outcome:
    run = StepRun(project, project.steps["counted"], ["A1"], again=True, replaces=replaces, runner=Inline(project))
    (only,) = run.outcomes()
    return only


def content(project: Project) -> str:
    (place,) = (project.root / "store/counted/A1").rglob("n.txt")
    return place.read_text()


def recorded(project: Project) -> list[str]:
    with project.catalog.read() as connection:
        return list(connection.execute(select(reproduction.c.differs).order_by(reproduction.c.id)).scalars())


def test_the_same_bytes_are_reproduced_and_on_record(tmp_path: Path) -> None:
    project = make_project(tmp_path / "toy")
    make(project, "counted", "A1", runner=Inline(project))
    one = again(project)
    assert one.same is True and "made again, the same bytes" in one.why and recorded(project) == ["[]"]
    assert not (project.work / BESIDE).exists(), "nothing of the repetition is left"


@pytest.mark.parametrize("replaces", [False, True])
def test_other_bytes_are_named_and_replace_only_where_asked(tmp_path: Path, replaces: bool) -> None:
    project = make_project(tmp_path / "toy", steps=UNSTEADY)
    make(project, "counted", "A1", runner=Inline(project))
    before = content(project)
    one = again(project, replaces)
    assert one.same is False and "other bytes in n.txt; " in one.why and recorded(project) == ['["n.txt"]']
    assert (content(project) != before) is replaces


def test_private_stores_of_killed_runs_go_after_a_week(tmp_path: Path) -> None:
    project = make_project(tmp_path / "toy")
    old, young = project.work / BESIDE / "old", project.work / BESIDE / "young"
    for place in (old, young):
        (place / "counted").mkdir(parents=True)
        (place / "counted").chmod(0o555)
    os.utime(old, (0, time.time() - FORGET_S - 60))
    with repeated_calls(project, []) as (store, calls):
        assert calls == [] and store.is_there and store.root.parent == project.work / BESIDE
        assert not old.exists() and young.exists()
    assert not store.root.exists() and young.exists(), "another run may be at work there"


def test_a_reproduction_says_what_became_of_the_result() -> None:
    one = Reproduction(("counted", "A1"), 1, "f" * 64, "n1", ("a.txt", "b.txt"))
    assert one.words == "made again, other bytes in a.txt, b.txt; what is there was kept"
