"""A Dagster run whose step is on a real cluster: what it shows, and what becomes of the jobs when it is ended."""

import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from sqlalchemy import select

from ct_assets.runs import end_orphans
from ctcore.catalog.tables import artifact, slurm_job
from ctcore.project import Project
from ctcore.projects.dagster_home import environment as dagster_environment
from tests.helpers.cluster_runs import PROFILE, Cohort
from tests.helpers.kit import again, make_all
from tests.helpers.shell import environment, quiet_dagster, shell
from tests.helpers.slurm import Slurm
from tests.helpers.world import three_people
from tools.slurm.processes import wait

pytestmark = pytest.mark.slow
PATIENCE_S = 60
RUN = """
import dagster as dg
from definitions import defs
with dg.DagsterInstance.get() as instance:
    job = defs.resolve_implicit_global_asset_job_def()
    tags = {"dagster/asset_partition_range_start": "A000", "dagster/asset_partition_range_end": "A003"}
    print("begin", flush=True)
    job.execute_in_process(
        instance=instance, asset_selection=[dg.AssetKey("counted")], raise_on_error=False, tags=tags
    )
"""


@pytest.fixture
def toy(tmp_path: Path, quiet_slurm: Slurm, monkeypatch: pytest.MonkeyPatch) -> Cohort:
    root = tmp_path / "toy"
    assert shell("init", root).code == 0
    built = Cohort(quiet_dagster(root), 4)
    monkeypatch.setenv("CT_PROFILE", "test")
    for name, value in dagster_environment(built.project).items():
        monkeypatch.setenv(name, value)
    return built


@pytest.fixture
def instance(toy: Cohort) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.get() as opened:
        yield opened


def begin(toy: Cohort) -> "subprocess.Popen[str]":
    """A run as the daemon would start one: nobody's shell."""
    variables = environment(CT_PROJECT=str(toy.project.root))
    assert (
        subprocess.run([sys.executable, "-m", "ct_assets.launch", "sync"], env=variables, check=False).returncode == 0
    )
    run = subprocess.Popen([sys.executable, "-c", RUN], env=variables, cwd=toy.project.root)
    assert wait(lambda: len(toy.begun()) == 4, PATIENCE_S)
    return run


def only_run(instance: dg.DagsterInstance) -> dg.DagsterRun:
    (run,) = instance.get_runs()
    return run


def test_a_materialization_shows_its_job_and_usage(toy: Cohort) -> None:
    done = shell("-C", toy.project.root, "run", "counted")
    assert done.code == 0, done.err
    assert "submitted 4 jobs as Slurm array" in done.err
    with dg.DagsterInstance.get() as instance:
        event = instance.get_latest_materialization_event(dg.AssetKey("counted"))
        assert event is not None and event.asset_materialization is not None
        found = {name: value.value for name, value in event.asset_materialization.metadata.items()}
    assert found["job state"] == "COMPLETED" and found["attempts"] == 1 and found["node"] in ("n1", "n2")
    assert "_" in found["job"] and found["CPUs asked"] == 1 and found["memory asked (MiB)"] == 102
    assert 0 < found["memory efficiency"] < 1 and found["CPU efficiency"] >= 0
    assert "begun A00" in found["log tail"] and Path(found["log"]).is_file()


def test_terminating_keeps_running_jobs_forcing_cancels_them(
    toy: Cohort, instance: dg.DagsterInstance, quiet_slurm: Slurm
) -> None:
    for name in toy.names:
        toy.tell(name, "wait")
    run = begin(toy)
    instance.report_run_canceling(only_run(instance))
    run.send_signal(signal.SIGINT)
    assert not wait(lambda: run.poll() is not None, 3)
    assert len(quiet_slurm.command("squeue", "-h", "-r").splitlines()) == 4
    instance.report_run_canceled(only_run(instance))  # "force" in the UI
    assert wait(lambda: run.poll() is not None, PATIENCE_S)
    assert wait(lambda: not quiet_slurm.command("squeue", "-h"), PATIENCE_S)
    assert only_run(instance).status == dg.DagsterRunStatus.CANCELED
    toy.settled()


def test_what_ran_when_its_run_was_terminated_is_kept(toy: Cohort, instance: dg.DagsterInstance) -> None:
    for name in toy.names:
        toy.tell(name, "wait")
    run = begin(toy)
    instance.report_run_canceling(only_run(instance))
    run.send_signal(signal.SIGINT)
    toy.go()
    assert wait(lambda: run.poll() is not None, PATIENCE_S)
    assert only_run(instance).status == dg.DagsterRunStatus.CANCELED
    toy.settled()
    assert Counter(one.state for one in toy.make().values()) == {"hit": 4}


def test_ctrl_c_on_ct_run_waits_for_what_runs_and_says_so(toy: Cohort) -> None:
    for name in toy.names:
        toy.tell(name, "wait")
    words = [sys.executable, "-m", "ctcore.cli", "-C", str(toy.project.root), "run", "counted"]
    run = subprocess.Popen(words, env=environment(), stderr=subprocess.PIPE, text=True)
    assert wait(lambda: len(toy.begun()) == 4, PATIENCE_S)
    run.send_signal(signal.SIGINT)
    assert not wait(lambda: run.poll() is not None, 2)
    toy.go()
    _, err = run.communicate(timeout=PATIENCE_S)
    assert run.returncode == 130
    assert "withdrawing queued jobs; running ones may finish" in err
    assert "what was made is kept" in err and "Traceback" not in err
    toy.settled()
    assert Counter(one.state for one in toy.make().values()) == {"hit": 4}


def test_a_deploy_leaves_the_jobs_to_the_next_run(
    toy: Cohort, instance: dg.DagsterInstance, quiet_slurm: Slurm
) -> None:
    for name in toy.names:
        toy.tell(name, "wait")
    run = begin(toy)
    run.send_signal(signal.SIGTERM)
    assert wait(lambda: run.poll() is not None, PATIENCE_S)
    assert len(quiet_slurm.command("squeue", "-h", "-r").splitlines()) == 4
    toy.go()
    assert shell("-C", toy.project.root, "run", "counted", env={"CT_PROFILE": "local"}).code == 0
    assert toy.begun() == Counter(toy.names)
    toy.settled()


def contents(project: Project) -> dict[tuple[str, str], str]:
    """What every node has: its data version."""
    with again(project).catalog.read() as connection:
        rows = connection.execute(select(artifact.c.asset, artifact.c.partition, artifact.c.data_version))
        return {(row.asset, row.partition): row.data_version for row in rows}


def test_the_three_people_made_in_slurm_are_those_made_here(tmp_path: Path, quiet_slurm: Slurm) -> None:
    there, here = three_people(tmp_path / "there"), three_people(tmp_path / "here")
    with (there.root / "ct.toml").open("a") as stream:
        stream.write(PROFILE.replace("memory_gb = 0.1", "memory_gb = 0.5"))
    done = shell("-C", there.root, "run", "--profile", "test")
    assert done.code == 0 and "22 made, 0 reused, 0 not made" in done.err, done.err
    assert set(make_all(here).values()) == {"made"}
    assert contents(there) == contents(here) and len(contents(here)) == 22
    with again(there).catalog.read() as connection:
        states = Counter(connection.execute(select(slurm_job.c.state)).scalars())
    assert states == {"COMPLETED": 22}


def test_a_run_of_the_daemon_whose_process_was_killed_is_ended(toy: Cohort, instance: dg.DagsterInstance) -> None:
    for name in toy.names:
        toy.tell(name, "wait")
    run = begin(toy)
    end_orphans(instance, toy.project)
    assert only_run(instance).status == dg.DagsterRunStatus.STARTED
    run.kill()
    run.wait()
    end_orphans(instance, toy.project)
    assert only_run(instance).status == dg.DagsterRunStatus.FAILURE
    toy.go()
    assert shell("-C", toy.project.root, "run", "counted").code == 0
    assert toy.begun() == Counter(toy.names)
    toy.settled()
