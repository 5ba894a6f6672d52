"""What a run does while Slurm is down or says no: it says again what was not heard, and asks nothing in vain."""

import multiprocessing
import os
import signal
from pathlib import Path

import dagster as dg
import pytest

from ct_assets.partitions import add_missing
from ctcore.execution.slurm import submit
from tests.helpers import in_dagster
from tests.helpers.cluster_runs import QUICK, Cohort
from tests.helpers.fake_slurm import FakeSlurm
from tests.helpers.kit import again
from tests.helpers.shell import ct
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


@pytest.mark.parametrize(("state", "withdrawn"), [("PENDING", ["1_0"]), ("RUNNING", [])])
def test_only_its_own_share_of_a_left_array_is_cancelled(
    fake: FakeSlurm, tmp_path: Path, state: str, withdrawn: list[str]
) -> None:
    """Of an array that a killed run left, the next one took over a part: the others are not its to end."""
    toy = Cohort(tmp_path / "toy", 2, QUICK)
    fake.says("queue", "".join(f"1_{at}|NAME|{state}|None|n1|0:05|0|\n" for at in range(2)))
    dead = forked.Process(target=toy.make)
    dead.start()
    assert wait(lambda: [row["job"] for row in toy.rows()] == ["1", "1"], PATIENCE_S)
    dead.kill()
    dead.join()
    run = forked.Process(target=toy.make, args=("A000",))
    run.start()
    asked = fake.count("asked")
    assert wait(lambda: fake.count("asked") > asked, PATIENCE_S)
    os.kill(run.pid or 0, signal.SIGINT)
    assert wait(lambda: fake.count("cancelled") == len(withdrawn) and fake.count("asked") > asked + 2, PATIENCE_S)
    os.kill(run.pid or 0, signal.SIGINT)
    assert wait(lambda: fake.count("cancelled") == len(withdrawn) + 1, PATIENCE_S)
    fake.says("queue", f"1_0|NAME|CANCELLED|None|n1|0:05|0|\n1_1|NAME|{state}|None|n1|0:05|0|\n")
    run.join(PATIENCE_S)
    assert (fake.folder / "cancelled").read_text().splitlines() == [*withdrawn, "1_0"]
    assert [row["partition"] for row in toy.rows() if row["ended_at"] is None] == ["A001"]


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


def queued(fake: FakeSlurm, batch: str) -> None:
    """Array 7 is that of a batch; array 9 is another's, and newer."""
    fake.says("queue", "".join(f"{at}_0|{name}|RUNNING|None|n1|0:05|0|\n" for at, name in ((7, batch), (9, "other"))))


def written(toy: Cohort) -> tuple[str, Path]:
    """A batch on disk, of which nobody knows whether it was submitted: its name, and what its job would read."""
    batch = submit.new_name(toy.project)
    call = submit.call_of(toy.project, batch, 0)
    call.parent.mkdir(parents=True)
    call.write_text("{}")
    return batch, call


@pytest.mark.parametrize("where", ["output", "queue", "account"])
def test_an_array_is_found_by_name_wherever_it_left_a_trace(fake: FakeSlurm, toy: Cohort, where: str) -> None:
    batch, call = written(toy)
    if where == "output":
        fake.says("down")
        (submit.folder_of(toy.project, batch) / "7_0.out").touch()
    elif where == "queue":
        queued(fake, batch)
    else:
        fake.says("account", f"7_0|{batch}|COMPLETED|0:0|n1|5|00:01|\n")
    assert submit.find(toy.project, batch).job == "7"
    assert call.exists()
    assert where != "account" or f"--name={batch}" in (fake.folder / "accounted").read_text()


@pytest.mark.parametrize("silent", ["down", "no_accounting"])
def test_an_array_is_given_up_only_when_all_have_answered(fake: FakeSlurm, toy: Cohort, silent: str) -> None:
    batch, call = written(toy)
    fake.says(silent, "sacct: error: no connection")
    found = submit.find(toy.project, batch)
    assert (found.job, found.later, call.exists()) == (None, True, True)
    fake.takes_back(silent)
    found = submit.find(toy.project, batch)
    assert (found.job, found.later) == (None, False)
    assert not call.exists(), "should Slurm start it after all, it finds nothing to do"


def test_a_submission_that_outlives_its_run_is_waited_for(fake: FakeSlurm, toy: Cohort) -> None:
    """sbatch goes on when its run is killed: asked too early, nobody would know of its array."""
    batch, _ = written(toy)
    fake.says("lingers")
    first = forked.Process(target=submit.send, args=(toy.project, batch))
    first.start()
    assert wait((fake.folder / "begun").exists, PATIENCE_S)
    first.kill()
    first.join()
    second = forked.Process(target=submit.send, args=(toy.project, batch))
    second.start()
    second.join(1.5)
    assert second.is_alive()
    queued(fake, batch)
    fake.takes_back("lingers")
    second.join(PATIENCE_S)
    assert (second.exitcode, fake.count("submitted")) == (0, 1)


def test_sbatchs_words_stand_wherever_people_look(
    fake: FakeSlurm, toy: Cohort, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run, `ct why`, `ct jobs`, `ct logs`, and the failure in Dagster's page."""
    words = "invalid partition specified: nowhere"
    fake.says("refuse", f"sbatch: error: {words}")
    (one,) = toy.make().values()
    assert one.state == "failed" and f"Slurm refuses the jobs of profile test: {words}; see [slurm.test]" in one.why
    for command in (("why", "counted/A000"), ("jobs", "--all"), ("logs", "counted/A000")):
        said = ct("-C", toy.project.root, *command)
        assert words in said.out + said.err, command
    monkeypatch.setenv("CT_PROFILE", "test")
    add_missing(toy.project, instance)
    ended = in_dagster.run(again(toy.project), instance, "counted", partition_key="A000", raise_on_error=False)
    assert not ended.success
    (failure,) = [event for event in ended.all_events if event.is_step_failure]
    told = failure.step_failure_data.error
    assert told is not None and words in told.message + str(told.cause)
