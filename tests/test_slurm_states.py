"""The verdict on a job: Slurm's state and the result record together. No cluster is needed to be sure of it."""

import signal
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctcore.slurm.states import GONE, NOT_ASKED, REQUEUES, STATES, Facts, Record, Verdict, is_over, judge
from ctcore.slurm.stop import Asked, Fail, Stop, Wish

GRACE = 10.0
LATE = GRACE + 1

ENDS: dict[str, Verdict] = {
    "COMPLETED": "failed",
    "FAILED": "failed",
    "CANCELLED": "failed",
    "DEADLINE": "failed",
    "TIMEOUT": "more-time",
    "OUT_OF_MEMORY": "more-memory",
    "NODE_FAIL": "again",
    "BOOT_FAIL": "again",
    "LAUNCH_FAILED": "again",
    "RECONFIG_FAIL": "again",
    "PREEMPTED": "again",
    "REVOKED": "again",
    GONE: "unknown",
}
ACTIVE = (
    "PENDING",
    "RUNNING",
    "SUSPENDED",
    "CONFIGURING",
    "COMPLETING",
    "REQUEUED",
    "REQUEUE_HOLD",
    "REQUEUE_FED",
    "RESIZING",
    "SIGNALING",
    "SPECIAL_EXIT",
    "STAGE_OUT",
    "STOPPED",
    "RESV_DEL_HOLD",
)

facts = st.builds(
    Facts,
    state=st.sampled_from([*STATES, NOT_ASKED, "SOMETHING_NEW"]),
    record=st.sampled_from([None, *get_args(Record)]),
    exit=st.sampled_from([None, "0:0", "1:0", "0:9", "0:15", "0:125", "137:0"]),
    reason=st.sampled_from(["", "None", "by 0"]),
    since_s=st.floats(0, 1000),
    requeues=st.integers(0, REQUEUES + 1),
    withdrawn=st.booleans(),
)


@pytest.mark.parametrize("state", ENDS)
def test_each_end_without_a_record_has_its_verdict_after_the_grace_and_not_before(state: str) -> None:
    assert judge(Facts(state, since_s=GRACE - 1), GRACE).verdict == "wait"
    judged = judge(Facts(state, since_s=LATE), GRACE)
    assert judged.verdict == ENDS[state] and judged.why


@pytest.mark.parametrize("state", [*ACTIVE, NOT_ASKED, "SOMETHING_NEW"])
def test_what_is_no_end_is_waited_for_however_long_it_takes(state: str) -> None:
    assert judge(Facts(state, since_s=1e9), GRACE).verdict == "wait"


def test_every_state_of_the_table_is_one_of_these() -> None:
    assert set(STATES) - {"POWER_UP_NODE", "EXPEDITING", "UPDATE_DB"} == set(ENDS) | set(ACTIVE)
    assert {state for state in STATES if is_over(state)} == set(ENDS)


@settings(max_examples=400)
@given(facts)
def test_nothing_is_made_without_a_record_and_a_record_of_success_is_always_taken(seen: Facts) -> None:
    verdict = judge(seen, GRACE).verdict
    assert (verdict == "made") == (seen.record == "made")


@settings(max_examples=400)
@given(facts)
def test_nothing_fails_while_slurm_says_nothing_or_says_that_it_runs(seen: Facts) -> None:
    if not is_over(seen.state) and seen.record is None:
        assert judge(seen, GRACE).verdict == "wait"


@settings(max_examples=400)
@given(facts)
def test_every_verdict_against_a_job_says_why_or_has_the_steps_own_words(seen: Facts) -> None:
    judged = judge(seen, GRACE)
    assert judged.verdict in ("wait", "made") or judged.why or seen.record == "error"


@settings(max_examples=400)
@given(facts, st.floats(0, 1000))
def test_time_alone_never_takes_a_verdict_back(seen: Facts, more: float) -> None:
    later = Facts(**{**vars(seen), "since_s": seen.since_s + more})
    first = judge(seen, GRACE)
    assert first.verdict == "wait" or judge(later, GRACE) == first


@pytest.mark.parametrize("code", ["0:9", "137:0", "0:137"])
def test_a_memory_kill_that_slurm_calls_failed_is_tried_with_more(code: str) -> None:
    assert judge(Facts("FAILED", exit=code, since_s=LATE), GRACE).verdict == "more-memory"
    assert judge(Facts("FAILED", exit="1:0", since_s=LATE), GRACE).verdict == "failed"


def test_an_exit_code_of_nought_is_no_success() -> None:
    assert judge(Facts("COMPLETED", exit="0:0", since_s=LATE), GRACE).verdict == "failed"
    assert judge(Facts("TIMEOUT", exit="0:0", since_s=LATE), GRACE).verdict == "more-time"


def test_a_step_whose_tool_was_killed_for_memory_is_tried_with_more_though_it_wrote_an_error() -> None:
    assert judge(Facts("OUT_OF_MEMORY", record="error"), GRACE).verdict == "more-memory"
    assert judge(Facts("RUNNING", record="error", since_s=1), GRACE).verdict == "wait"  # Slurm has not said yet
    assert judge(Facts("FAILED", record="error", since_s=1), GRACE).verdict == "failed"
    assert judge(Facts(NOT_ASKED, record="error", since_s=LATE), GRACE).verdict == "failed"


def test_the_cluster_is_at_fault_only_so_often() -> None:
    assert judge(Facts("NODE_FAIL", since_s=LATE, requeues=REQUEUES - 1), GRACE).verdict == "again"
    judged = judge(Facts("NODE_FAIL", since_s=LATE, requeues=REQUEUES), GRACE)
    assert judged.verdict == "failed" and str(REQUEUES) in judged.why


def test_what_we_withdrew_is_no_failure_and_what_others_cancelled_is() -> None:
    assert judge(Facts("CANCELLED", withdrawn=True), GRACE).verdict == "withdrawn"
    judged = judge(Facts("CANCELLED", reason="by 1000", since_s=LATE), GRACE)
    assert judged.verdict == "failed" and "by 1000" in judged.why


@pytest.mark.parametrize(
    ("fail", "asked", "heard", "wish"),
    [
        ("slow", "shell", [], "go"),
        ("slow", "shell", [signal.SIGINT], "slow"),
        ("fast", "shell", [signal.SIGINT], "fast"),
        ("slow", "shell", [signal.SIGINT] * 2, "fast"),
        ("fast", "shell", [signal.SIGINT] * 2, "leave"),
        ("slow", "shell", [signal.SIGINT] * 9, "leave"),
        ("fast", "shell", [signal.SIGTERM], "leave"),
        ("slow", "cancelling", [signal.SIGTERM], "slow"),
        ("fast", "cancelling", [signal.SIGTERM], "fast"),
        ("slow", "cancelled", [signal.SIGTERM], "fast"),
        ("fast", "going", [signal.SIGTERM], "leave"),
    ],
)
def test_how_a_run_ends_is_said_by_its_profile_its_signals_and_dagster(
    fail: Fail, asked: Asked, heard: list[signal.Signals], wish: Wish
) -> None:
    stop = Stop(lambda: asked)
    with stop.listening():
        for number in heard:
            signal.raise_signal(number)
    assert stop.wish(fail) == wish
