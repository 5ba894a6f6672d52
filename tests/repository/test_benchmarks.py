"""Every benchmark still runs, checks its own answers, and says what it was measured against."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.measure import Measured, Row, Target, growth, table
from benchmarks.subjects import SUBJECTS
from tools.slurm.cluster import missing

ROOT = Path(__file__).parents[2]


def benchmarks(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def subjects() -> Iterator[Any]:
    """One of them needs Slurm. It runs where the tests of Slurm do, so that no two clusters compete."""
    for name in SUBJECTS:
        marks = [pytest.mark.xdist_group("slurm"), pytest.mark.skipif(bool(missing()), reason=f"Slurm: {missing()}")]
        yield pytest.param(name, marks=marks if name == "slurm" else [])


@pytest.mark.parametrize("name", list(subjects()))
def test_a_benchmark_measures_beside_a_baseline(name: str) -> None:
    ended = benchmarks(name, "--quick", "--json")
    assert ended.returncode == 0, ended.stderr
    rows = json.loads(ended.stdout)["rows"]
    if not rows and "  without " in ended.stderr:
        pytest.skip(ended.stderr.splitlines()[-1].strip())
    assert rows and all(row["seconds"] > 0 and row["peak_mib"] > 0 for row in rows)
    assert any(row["ratio"] for row in rows)
    assert any(row["met"] is not None for row in rows)


def test_an_unknown_benchmark_is_told_with_those_that_there_are() -> None:
    ended = benchmarks("speed")
    assert ended.returncode == 2
    assert "no subject speed; subjects: register, governance" in ended.stderr


def test_a_target_is_met_up_to_its_limit_and_says_by_how_much() -> None:
    twice = Row("a", "1", Measured(2.0, 2.0, 10.0), "b", Measured(1.0, 1.0, 10.0), Target(2.0, "×"))
    thrice = Row("a", "1", Measured(3.0, 3.0, 10.0), "b", Measured(1.0, 1.0, 10.0), Target(2.0, "×"))
    alone = Row("a", "1", Measured(3.0, 3.0, 10.0), "no b", None, Target(2.0, "×"))
    assert [row.met for row in (twice, thrice, alone)] == [True, False, None]
    assert [line.split("|")[-2].strip() for line in table([twice, thrice, alone]).splitlines()[2:]] == ["yes", "NO", ""]


@pytest.mark.parametrize(("times", "exponent"), [(10, 1.0), (100, 2.0), (1, 0.0)])
def test_growth_is_the_exponent_of_the_size(times: int, exponent: float) -> None:
    assert growth((100, 0.5), (1000, 0.5 * times)) == pytest.approx(exponent)
