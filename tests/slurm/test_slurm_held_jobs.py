"""Jobs that the catalog knows as ended and that Slurm would still start are cancelled, and no others."""

from pathlib import Path

import pytest

from ctcore.config.slurm_profiles import Needs
from ctcore.execution.slurm.client import TaskStatus
from ctcore.execution.slurm.held_jobs import cancel_leftovers
from ctcore.execution.slurm.jobs import Job, JobEnd, mark_submitted, record_batch, settle
from ctcore.execution.slurm.states import WAITING
from ctcore.project import Project
from tests.helpers.fake_slurm import FakeSlurm
from tests.helpers.kit import make_project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Array 1 has two jobs: of the first, the catalog knows the end."""
    project = make_project(tmp_path / "toy")
    jobs = [
        Job("batch", at, f"{at}" * 64, ("counted", f"A{at + 1}"), f"{at}.json", Needs(1, 100, 10), "big", array="1")
        for at in range(2)
    ]
    record_batch(project, jobs, None, [])
    mark_submitted(project, "batch", "1")
    settle(project, [JobEnd(jobs[0], "FAILED", "the job ended without a result")])
    return project


def listed(*states: str, batch: str = "batch") -> dict[tuple[str, str], TaskStatus]:
    rows = [TaskStatus(f"1_{at}", batch, state) for at, state in enumerate(states)]
    return {one.named: one for one in rows}


@pytest.mark.parametrize("state", sorted(WAITING))
def test_a_waiting_job_that_has_ended_is_cancelled(project: Project, fake: FakeSlurm, state: str) -> None:
    assert cancel_leftovers(project, listed(state, state)) == 1
    assert (fake.folder / "cancelled").read_text() == "1_0\n", "the other one is still awaited"


def test_other_jobs_are_left_alone(project: Project, fake: FakeSlurm) -> None:
    assert cancel_leftovers(project, listed("RUNNING", "RUNNING")) == 0, "a running job is judged by its record"
    assert cancel_leftovers(project, listed("PENDING", batch="another project's")) == 0
    assert cancel_leftovers(project, {}) == 0 and fake.count("cancelled") == 0


def test_a_cancellation_that_slurm_did_not_hear_does_not_count(project: Project, fake: FakeSlurm) -> None:
    fake.says("down")
    assert cancel_leftovers(project, listed("PENDING")) == 0
    fake.takes_back("down")
    assert cancel_leftovers(project, listed("PENDING")) == 1
