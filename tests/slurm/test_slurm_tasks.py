"""One job as a watcher sees it: when it counts as lost, what is said of its failure, and what its record says."""

import time
from pathlib import Path

import pytest

from ctcore.config.slurm_profiles import Needs
from ctcore.execution.call import StepResult
from ctcore.execution.slurm.client import TaskStatus
from ctcore.execution.slurm.jobs import Job
from ctcore.execution.slurm.states import GONE, NOT_ASKED, Judgement
from ctcore.execution.slurm.tasks import TAIL_BYTES, TAIL_LINES, Task, failure, job_end, tail
from ctcore.project import Project

NODE = ("counted", "A1")


def task(**more: object) -> Task:
    return Task(Job("b", 0, "k" * 64, NODE, "0.json", Needs(2, 1536, 30), "big", array="7", **more))  # type: ignore[arg-type]


def seen(state: str, **more: object) -> TaskStatus:
    return TaskStatus("7_0", "ct", state, **more)  # type: ignore[arg-type]


def test_a_queue_asked_before_the_job_does_not_miss_it() -> None:
    asked = time.monotonic()
    one = task()
    assert not one.is_missed(asked) and one.missed == 0.0
    later = time.monotonic()
    assert one.is_missed(later) and one.is_missed(later + 5) and one.missed == later, "since the first that missed it"
    one.update_from_queue(seen("RUNNING"))
    assert one.missed == 0.0 and one.state == "RUNNING"


@pytest.mark.parametrize(
    ("accounted", "state"),
    [(None, GONE), (seen("RUNNING"), GONE), (seen("PENDING"), GONE), (seen("OUT_OF_MEMORY"), "OUT_OF_MEMORY")],
)
def test_accounting_counts_only_where_it_knows_an_end(accounted: TaskStatus | None, state: str) -> None:
    """slurmdbd is behind slurmctld, and may still call a job running that is over."""
    one = task()
    one.update_from_queue(seen("RUNNING", node="n1"))
    one.lost_from_queue(accounted)
    assert one.state == state and one.exact is (accounted if state != GONE else None)
    assert one.seen is not None


def test_the_time_in_a_state_begins_with_the_state() -> None:
    one = task()
    one.update_from_queue(seen("PENDING"))
    began = one.since
    one.update_from_queue(seen("PENDING", reason="Priority"))
    assert one.since == began and one.is_waiting
    one.update_from_queue(seen("RUNNING"))
    assert one.since > began and not one.is_waiting


@pytest.mark.parametrize(("error", "record"), [(None, "made"), ("bad", "error")])
def test_a_result_is_the_record_of_its_call(error: str | None, record: str) -> None:
    one = task(requeues=3)
    assert one.facts().record is None and one.facts().requeues == 3 and one.facts().state == NOT_ASKED
    one.read(StepResult("0.json", NODE, "k" * 64, error=error))
    assert one.facts().record == record


def test_what_the_call_measured_goes_before_accounting() -> None:
    one = task()
    one.update_from_queue(seen("RUNNING", node="n1", used_mb=5.0, elapsed_s=3.0))
    one.read(StepResult("0.json", NODE, "k" * 64, used={"used_mb": 9.0, "other": 1.0}))
    end = job_end(one, Judgement("made"))
    assert (end.state, end.used_mb, end.elapsed_s, end.node) == ("COMPLETED", 9.0, 3.0, "n1")
    one.update_from_queue(seen("TIMEOUT"))
    assert job_end(one, Judgement("failed", "it was over its time limit")).state == "TIMEOUT"
    assert job_end(task(), Judgement("failed", "")).why == "failed"


def test_a_failure_says_what_was_asked_for_and_said_last(tmp_path: Path) -> None:
    project = Project(tmp_path)
    log = tmp_path / "log.txt"
    log.write_text("one\ntwo\n")
    one = task(tries=2, log=str(log))
    one.update_from_queue(seen("RUNNING", node="n1"))
    one.lost_from_queue(seen("OUT_OF_MEMORY", used_mb=1400.0))
    said = failure(project, one, Judgement("more-memory", "it needed more memory"))
    begin = "Slurm job 7_0 OUT_OF_MEMORY: it needed more memory (asked for 2 CPU, 1.5 GiB, 30 min, try 2; "
    assert said == f"{begin}it was seen to use 1.4 GiB); it said last: one\ntwo"
    one.read(StepResult("0.json", NODE, "k" * 64, error="the reads are empty"))
    assert failure(project, one, Judgement("failed")) == "the reads are empty", "the step's own words, where it has any"


def test_the_tail_of_a_log_is_short_however_long_the_log(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    log.write_text("é" * TAIL_BYTES + "\n" + "\n".join(map(str, range(100))) + "\n")
    assert tail(log).splitlines() == [str(n) for n in range(100 - TAIL_LINES, 100)]
    log.write_text("é" * 2 * TAIL_BYTES)
    assert len(tail(log)) <= TAIL_BYTES and tail(tmp_path / "none") == ""
