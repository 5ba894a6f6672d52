"""A run does not repeat what another run has tried since it began."""

from pathlib import Path

import pytest
from sqlalchemy import insert

from ctcore.catalog.tables import attempt
from ctcore.execution.concurrent_runs import ConcurrentRuns
from ctcore.project import Project
from tests.helpers.kit import Inline, make, make_project


def fail(project: Project, number: int, key: str, error: str, run: str | None) -> None:
    row = {one.name: "t" for one in attempt.columns if not one.nullable and one.name != "id"}
    row |= {"asset": "counted", "partition": "A1", "key": key, "error": error}
    with project.catalog.write() as writer:
        writer.execute(insert(attempt).values(**row, id=number, run_id=run, log="l"))


@pytest.mark.parametrize(("run", "words"), [("r1", "run r1"), (None, "another run")])
def test_only_failures_since_the_beginning_count(tmp_path: Path, run: str | None, words: str) -> None:
    project = make_project(tmp_path / "toy")
    fail(project, 1, "a" * 64, "before", run)
    began = ConcurrentRuns.from_now(project)
    assert not began.failed(project, ["a" * 64])
    fail(project, 2, "a" * 64, "first", run)
    fail(project, 3, "a" * 64, "bad reads", run)
    fail(project, 4, "b" * 64, "of another call", run)
    (one,) = began.failed(project, ["a" * 64]).values()
    assert one.node == ("counted", "A1") and one.log == "l"
    said = f"failed in {words}, which ran the same call at the same time, and was not tried again: bad reads"
    assert one.error == said, "the last failure counts"


def test_the_beginning_knows_the_last_making(tmp_path: Path) -> None:
    project = make_project(tmp_path / "toy")
    assert ConcurrentRuns.from_now(project) == ConcurrentRuns(0, 0)
    make(project, "counted", "A1", "A3", runner=Inline(project))
    assert ConcurrentRuns.from_now(project) == ConcurrentRuns(0, 2)
