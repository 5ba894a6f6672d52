"""`ct run` on Slurm: what is ready is submitted while a slow sample's job runs, in few arrays."""

from pathlib import Path

import pytest
from sqlalchemy import select

from ctcore.catalog.tables import slurm_batch, slurm_job
from ctcore.project import Project
from tests.helpers.cluster_runs import QUICK
from tests.helpers.kit import reasons
from tests.helpers.meetings import Meetings
from tests.helpers.shell import shell
from tests.helpers.slurm import Slurm

pytestmark = pytest.mark.slow


def test_a_slow_job_holds_up_nobody_else(tmp_path: Path, quiet_slurm: Slurm) -> None:
    toy = Meetings(tmp_path, toml=QUICK)
    toy.tell("first-A1", "third-A2.done", "third-A3.done", "apart-A1.done")
    said = shell("-C", toy.root, "run", "--profile", "test")
    assert said.code == 0 and "13 made, 0 reused, 0 not made" in said.err, said
    assert set(toy.calls().values()) == {1} and len(toy.calls()) == 13
    assert toy.events() == toy.calls()
    project = Project(toy.root)
    assert reasons(project) == {}
    with project.catalog.read() as connection:
        arrays = connection.execute(select(slurm_batch.c.id)).all()
        assert connection.execute(select(slurm_job).where(slurm_job.c.ended_at.is_(None))).all() == []
    assert len(arrays) <= 9
