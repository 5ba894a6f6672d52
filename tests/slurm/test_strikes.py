"""What makes a round of a fault drill: somebody was hit, who is dead now, while something was at stake."""

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ctcore.execution.slurm.submit import call_of
from tests.helpers import strikes
from tests.helpers.cluster_runs import Cohort
from tests.helpers.fake_slurm import FakeSlurm
from tests.helpers.slurm import Slurm
from tests.helpers.strikes import Hit, hit

BATCH = "ct-toy-1"


@pytest.fixture
def victim() -> Iterator["subprocess.Popen[bytes]"]:
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


@pytest.fixture
def toy(tmp_path: Path, fake: FakeSlurm) -> Cohort:
    """Two jobs: one runs, one waits."""
    found = Cohort(tmp_path / "toy", 2)
    fake.says("queue", f"{BATCH}|0|RUNNING\n{BATCH}|1|PENDING\nct-toy-other|0|RUNNING\nanother|0|RUNNING\n")
    for index, name in enumerate(found.names):
        call = call_of(found.project, BATCH, index)
        call.parent.mkdir(parents=True, exist_ok=True)
        call.write_text(json.dumps({"node": ["counted", name]}))
    return found


Strike = Callable[..., Hit | None]


@pytest.fixture
def strike(toy: Cohort, tmp_path: Path, victim: "subprocess.Popen[bytes]", monkeypatch: pytest.MonkeyPatch) -> Strike:
    monkeypatch.setattr(strikes, "DEAD_S", 0.3)
    return lambda end=victim.kill: hit("it", [victim.pid], Slurm(tmp_path), toy.project, end)


def test_a_round_says_who_died_and_what_was_in_slurm(strike: Strike, victim: "subprocess.Popen[bytes]") -> None:
    found = strike()
    assert found == Hit("it", (victim.pid,), 1, 1, queued=1, running=1, at_stake=2)
    assert found is not None and found.counts


def test_who_survives_is_no_round(strike: Strike) -> None:
    with pytest.raises(AssertionError, match="it"):
        strike(lambda: None)


def test_who_is_not_there_is_no_round_and_nothing_is_done(strike: Strike, victim: "subprocess.Popen[bytes]") -> None:
    victim.kill()
    victim.wait()
    assert strike(lambda: pytest.fail("something was done")) is None


def test_a_strike_on_an_empty_slurm_is_no_round(strike: Strike, fake: FakeSlurm) -> None:
    fake.says("queue", "ct-toy-other|0|RUNNING\n")
    assert strike(lambda: pytest.fail("something was done")) is None


def test_a_strike_after_which_all_was_made_is_no_round(
    strike: Strike, toy: Cohort, victim: "subprocess.Popen[bytes]"
) -> None:
    def too_late() -> None:
        victim.kill()
        for name in toy.names:
            (toy.project.store.root / "counted" / name / "key").mkdir(parents=True)

    found = strike(too_late)
    assert found is not None and not found.counts
