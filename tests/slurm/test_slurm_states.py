"""The verdict on a job: Slurm's state and the result record together. No cluster is needed to be sure of it."""

import signal
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctcore.execution.slurm.cancel import Fail, RunEnd, RunRequest, Stop
from ctcore.execution.slurm.states import GONE, NOT_ASKED, REQUEUES, STATES, Facts, Record, Verdict, is_over, judge

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
def test_an_end_without_a_record_is_judged_after_the_grace(state: str) -> None:
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
def test_only_a_record_makes_a_success_and_it_always_does(seen: Facts) -> None:
    verdict = judge(seen, GRACE).verdict
    assert (verdict == "made") == (seen.record == "made")


@settings(max_examples=400)
@given(facts)
def test_nothing_fails_while_slurm_is_silent_or_running_it(seen: Facts) -> None:
    if not is_over(seen.state) and seen.record is None:
        assert judge(seen, GRACE).verdict == "wait"


@settings(max_examples=400)
@given(facts)
def test_every_verdict_against_a_job_says_why(seen: Facts) -> None:
    judged = judge(seen, GRACE)
    assert judged.verdict in ("wait", "made") or judged.why or seen.record == "error"


@settings(max_examples=400)
@given(facts, st.floats(0, 1000))
def test_time_alone_never_takes_a_verdict_back(seen: Facts, more: float) -> None:
    later = Facts(**{**vars(seen), "since_s": seen.since_s + more})
    first = judge(seen, GRACE)
    assert first.verdict == "wait" or judge(later, GRACE) == first


@pytest.mark.parametrize("code", ["0:9", "137:0", "0:137"])
def test_a_memory_kill_called_failed_gets_more_memory(code: str) -> None:
    assert judge(Facts("FAILED", exit=code, since_s=LATE), GRACE).verdict == "more-memory"
    assert judge(Facts("FAILED", exit="1:0", since_s=LATE), GRACE).verdict == "failed"


def test_an_exit_code_of_nought_is_no_success() -> None:
    assert judge(Facts("COMPLETED", exit="0:0", since_s=LATE), GRACE).verdict == "failed"
    assert judge(Facts("TIMEOUT", exit="0:0", since_s=LATE), GRACE).verdict == "more-time"


def test_a_tool_killed_for_memory_gets_more_despite_an_error() -> None:
    assert judge(Facts("OUT_OF_MEMORY", record="error"), GRACE).verdict == "more-memory"
    assert judge(Facts("RUNNING", record="error", since_s=1), GRACE).verdict == "wait"  # Slurm has not said yet
    assert judge(Facts("FAILED", record="error", since_s=1), GRACE).verdict == "failed"
    assert judge(Facts(NOT_ASKED, record="error", since_s=LATE), GRACE).verdict == "failed"


def test_the_cluster_is_at_fault_only_so_often() -> None:
    assert judge(Facts("NODE_FAIL", since_s=LATE, requeues=REQUEUES - 1), GRACE).verdict == "again"
    judged = judge(Facts("NODE_FAIL", since_s=LATE, requeues=REQUEUES), GRACE)
    assert judged.verdict == "failed" and str(REQUEUES) in judged.why


def test_our_withdrawals_are_no_failures_others_are() -> None:
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
def test_a_runs_end_follows_profile_signals_and_dagster(
    fail: Fail, asked: RunRequest, heard: list[signal.Signals], wish: RunEnd
) -> None:
    stop = Stop(lambda: asked)
    with stop.listening():
        for number in heard:
            signal.raise_signal(number)
    assert stop.requested_end(fail) == wish
