"""When to ask Slurm again, without a cluster."""

import pytest

from ctcore.execution.slurm.polling import AT_MOST, SLOWER, UNANSWERED_S, Polling


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    found = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: found[0])
    return found


def test_it_asks_more_rarely_while_nothing_changes(now: list[float]) -> None:
    polling = Polling(3.0)
    waits = []
    for changed in (True, False, False, *[False] * 20, True):
        polling.mark_answered(now[0], changed)
        waits.append(polling.wait_s)
    assert waits[:3] == [3.0, 3.0 * SLOWER, 3.0 * SLOWER**2]
    assert max(waits) == 3.0 * AT_MOST and waits[-1] == 3.0


def test_it_is_due_when_the_wait_is_over(now: list[float]) -> None:
    polling = Polling(3.0)
    assert polling.is_due()
    polling.mark_answered(now[0], changed=True)
    assert not polling.is_due()
    now[0] += 3.0
    assert polling.is_due()


def test_a_submission_shortens_a_long_wait_and_lengthens_none(now: list[float]) -> None:
    polling = Polling(3.0)
    for _ in range(9):
        polling.mark_answered(now[0], changed=False)
    polling.expect_change()
    now[0] += 3.0
    assert polling.is_due()
    polling.mark_answered(now[0], changed=True)
    now[0] += 2.0
    polling.expect_change()
    now[0] += 1.0
    assert polling.is_due()


def test_a_silent_scheduler_is_asked_ever_later(now: list[float]) -> None:
    polling = Polling(3.0)
    waits = []
    for _ in range(9):
        polling.mark_unanswered(now[0])
        waits.append(polling.wait_s)
    assert waits[:2] == [6.0, 12.0] and waits[-1] == UNANSWERED_S and polling.failures == 9
    polling.mark_answered(now[0], changed=True)
    assert (polling.failures, polling.wait_s) == (0, 3.0)
