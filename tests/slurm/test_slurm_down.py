"""What a run does while Slurm is down or says no: it says again what was not heard, and asks nothing in vain."""

import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from ctcore.execution.slurm import submit
from tests.helpers.cluster_runs import QUICK, Cohort
from tests.helpers.fake_slurm import FakeSlurm
from tools.slurm.processes import wait

PATIENCE_S = 60
forked = multiprocessing.get_context("fork")


@pytest.fixture
def toy(tmp_path: Path) -> Cohort:
    return Cohort(tmp_path / "toy", 1, QUICK)


def test_a_cancellation_that_slurm_missed_is_repeated(fake: FakeSlurm, toy: Cohort) -> None:
    fake.queue("RUNNING")
    run = forked.Process(target=toy.make)
    run.start()
    assert wait(lambda: fake.count("asked") > 0, PATIENCE_S)
    fake.says("down")
    asked = fake.count("asked")
    os.kill(run.pid or 0, signal.SIGINT)
    assert wait(lambda: fake.count("asked") > asked + 1, PATIENCE_S)
    assert fake.count("cancelled") == 0
    fake.takes_back("down")
    assert wait(lambda: fake.count("cancelled") == 1, PATIENCE_S)
    fake.queue("CANCELLED")
    run.join(PATIENCE_S)
    assert fake.count("cancelled") == 1
    toy.settled()


def test_a_run_ended_while_submitting_leaves_no_job(fake: FakeSlurm, toy: Cohort) -> None:
    """Slurm may have taken the array, though its answer was lost."""
    fake.says("refuse", "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation")
    run = forked.Process(target=toy.make)
    run.start()
    assert wait(lambda: bool(list((toy.project.work / "slurm").glob("*/tried"))), PATIENCE_S)
    os.kill(run.pid or 0, signal.SIGINT)
    run.join(PATIENCE_S)
    assert list((toy.project.work / "slurm").glob("*/calls/*")) == []
    assert [row["state"] for row in toy.rows()] == ["NOT_SUBMITTED"]
    toy.settled()


@pytest.mark.parametrize(
    ("said", "searches"),
    [
        ("QOSMaxSubmitJobPerUserLimit", 0),
        ("AssocMaxSubmitJobLimit", 0),
        ("Batch job submission failed: Socket timed out on send/recv operation", 1),
    ],
)
def test_only_possibly_taken_submissions_are_searched_for(
    fake: FakeSlurm, toy: Cohort, said: str, searches: int
) -> None:
    batch = submit.new_name(toy.project)
    folder = submit.folder_of(toy.project, batch)
    folder.mkdir(parents=True)
    fake.says("refuse", f"sbatch: error: {said}")
    assert submit.send(toy.project, batch).later
    assert submit.send(toy.project, batch).later
    assert (fake.count("asked"), fake.count("accounted")) == (searches, searches)
    fake.takes_back("refuse")
    assert submit.send(toy.project, batch).job == "1"
