"""What somebody types in Dagster's launchpad for one run reaches the jobs of that run, and no other."""

import re
from pathlib import Path

import dagster as dg
import pytest

from ct_assets.partitions import add_missing
from tests.helpers.cluster_runs import QUICK, Cohort
from tests.helpers.fake_slurm import FakeSlurm
from tests.helpers.in_dagster import run


def launched(toy: Cohort, who: str, **config: object) -> dg.ExecuteInProcessResult:
    typed = {"resources": {"jobs": {"config": {"profile": "test", **config}}}}
    with dg.DagsterInstance.ephemeral() as instance:
        add_missing(toy.project, instance)
        return run(toy.project, instance, "counted", partition_key=who, run_config=typed)


def test_cpus_memory_and_time_of_a_run_are_those_of_its_jobs(tmp_path: Path, fake: FakeSlurm) -> None:
    toy = Cohort(tmp_path / "toy", 2, QUICK)
    fake.runs(1, 2)
    assert launched(toy, "A000", cpus=3, memory_gb=0.5, minutes=7).success
    assert launched(toy, "A001").success
    asked = [[row[name] for name in ("cpus", "memory_mb", "minutes")] for row in toy.rows()]
    assert asked[0] == [3, 512, 7] != asked[1]


WRONG = [
    ({"cpus": -1}, r"(?s)Jobs.*cpus.*greater than or equal to 0"),
    ({"profile": "tset"}, "no profile 'tset'; did you mean 'test'"),
]


@pytest.mark.parametrize(("typed", "said"), WRONG)
def test_what_cannot_be_is_said_and_nothing_is_submitted(
    tmp_path: Path, fake: FakeSlurm, typed: dict[str, object], said: str
) -> None:
    toy = Cohort(tmp_path / "toy", 1, QUICK)
    with pytest.raises((dg.Failure, dg.DagsterResourceFunctionError)) as found:
        launched(toy, "A000", **typed)
    assert re.search(said, f"{found.value} {found.value.__cause__}")
    assert fake.count("submitted") == 0
