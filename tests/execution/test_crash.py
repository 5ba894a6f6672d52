"""Killed at any moment: what was published is kept, and the next run makes the rest, nothing twice."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
from sqlalchemy import delete, select, update

from ctcore.catalog.tables import artifact, edge, lease, materialization, member, output
from ctcore.inputs.current import forget
from ctcore.project import Project
from ctcore.store.store import Store
from ctcore.util.processes import started_at
from tests.helpers.kit import STEPS, again, assay, make_all, make_project, reasons
from tests.helpers.shell import environment, quiet_dagster, shell
from tools.slurm.processes import wait

ASSAYS = 12
SLOW = STEPS.replace(
    "    n = len(",
    "    import os, time\n"
    "    with open(os.environ['CT_TEST_CALLS'], 'a') as calls:\n"
    "        calls.write(call.entity + chr(10))\n"
    "    time.sleep(0.2)\n"
    "    n = len(",
    1,
)
RUN = """
import sys
from pathlib import Path
from ctcore.project import Project
from tests.helpers.kit import make_all
make_all(Project.find(Path(sys.argv[1])), inline=False)
"""


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file in which every call of `counted` leaves the ID of its assay."""
    monkeypatch.setenv("CT_TEST_CALLS", str(tmp_path / "calls"))
    return tmp_path / "calls"


def slow_project(root: Path) -> Project:
    return make_project(root, [assay("P1", "S1", f"A{n}", sex="F") for n in range(ASSAYS)], steps=SLOW)


def killed(command: list[str], calls: Path, after: int) -> list[int]:
    """Run a command, and kill -9 it (not its workers) once so many calls began. Gives its workers' process IDs."""
    victim = subprocess.Popen(command, env=environment(), start_new_session=True)
    while _count(calls) < after:
        assert victim.poll() is None, "ended before it could be killed"
        time.sleep(0.01)
    workers = _children(victim.pid)
    victim.kill()
    victim.wait()
    return workers


def _count(calls: Path) -> int:
    return len(calls.read_text().splitlines()) if calls.exists() else 0


def _children(pid: int) -> list[int]:
    """All processes below this one."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            child = int(stat.parent.name)
            found += [child, *_children(child)]
    return found


def _whole(project: Project) -> None:
    """Everything is fresh, nothing is held by anyone, and nothing half-made lies in the store."""
    assert reasons(project) == {}
    with project.catalog.read() as connection:
        assert connection.execute(select(lease)).all() == []
    assert list((project.store.root / ".staging").glob("[!.]*")) == []


def test_the_next_run_finishes_a_killed_one_and_repeats_nothing(tmp_path: Path, calls: Path) -> None:
    """Its workers live on and publish what they are at; the next run waits for those and takes what they publish."""
    project = slow_project(tmp_path / "toy")
    killed([sys.executable, "-c", RUN, str(project.root)], calls, after=3)
    make_all(again(project), inline=False)
    _whole(again(project))
    assert Counter(calls.read_text().split()) == Counter(f"A{n}" for n in range(ASSAYS))


def test_a_run_killed_with_its_workers_keeps_what_was_published(tmp_path: Path, calls: Path) -> None:
    project = slow_project(tmp_path / "toy")
    workers = killed([sys.executable, "-c", RUN, str(project.root)], calls, after=5)
    for worker in workers:
        with suppress(ProcessLookupError):  # what makes the calls ends with the one above it
            os.kill(worker, signal.SIGKILL)
    assert wait(lambda: not any(map(started_at, workers)), 10)
    published = {path.parent.name for path in (project.store.root / "counted").glob("*/*") if path.is_dir()}
    assert published
    make_all(again(project), inline=False)
    _whole(again(project))
    twice = {who for who, n in Counter(calls.read_text().split()).items() if n > 1}
    assert not twice & published and len(twice) <= 2  # the two that were being made


def test_published_but_not_recorded_is_taken_not_made(tmp_path: Path, calls: Path) -> None:
    """Killed between the rename and the record: the next run finds the artifact in the store."""
    project = slow_project(tmp_path / "toy")
    make_all(project)
    _unrecord(project)
    assert set(make_all(again(project)).values()) == {"hit"}
    assert _count(calls) == ASSAYS
    _whole(again(project))


def test_damage_before_recording_is_made_again(tmp_path: Path, calls: Path) -> None:
    project = slow_project(tmp_path / "toy")
    make_all(project)
    _unrecord(project)
    victim = next((project.store.root / "counted/A0").glob("*/n.txt"))
    victim.chmod(0o644)
    victim.write_text("something else\n")
    made = make_all(again(project))
    assert made["counted/A0"] == "made" and made["counted/A1"] == "hit"
    _whole(again(project))


def test_after_a_killed_ct_run_dagster_learns_everything(tmp_path: Path, calls: Path) -> None:
    project = slow_project(quiet_dagster_project(tmp_path / "toy"))
    command = [sys.executable, "-m", "ctcore.cli", "-C", str(project.root), "run"]
    workers = killed(command, calls, after=4)
    for worker in workers:  # the process that Dagster runs in, which may have ended with its front, and the workers
        with suppress(ProcessLookupError):
            os.kill(worker, signal.SIGKILL)
    with again(project).catalog.write() as writer:  # as if it had died between the record and the Dagster event
        writer.execute(update(materialization).values(reported=False))
    done = shell("-C", project.root, "run")
    assert done.code == 0, done.err
    _whole(again(project))
    assert _materialized(project) == {f"counted/A{n}" for n in range(ASSAYS)} | {"merged/S1", "joined/all"}
    assert _unended(project) == []
    assert shell("-C", project.root, "run").err.strip() == "everything is fresh: nothing to do"


def _unrecord(project: Project) -> None:
    """The ledger knows of nothing made, as after a crash before anything was recorded: no event tells of that."""
    forget()
    shutil.rmtree(project.work / "mirror", ignore_errors=True)
    with project.catalog.write() as writer:
        for table in (artifact, output, edge, member, materialization):
            writer.execute(delete(table))


def quiet_dagster_project(root: Path) -> Path:
    assert shell("init", root).code == 0
    return quiet_dagster(root)


def _materialized(project: Project) -> set[str]:
    import dagster as dg

    os.environ["DAGSTER_HOME"] = str(project.root / "dagster_home")
    with dg.DagsterInstance.get() as instance:
        return {
            f"{asset}/{partition}"
            for asset in ("counted", "merged", "joined")
            for partition in instance.get_materialized_partitions(dg.AssetKey(asset))
        }


def _unended(project: Project) -> list[str]:
    import dagster as dg

    with dg.DagsterInstance.get() as instance:
        active = [dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED]
        return [run.run_id for run in instance.get_runs(dg.RunsFilter(statuses=active))]


def test_the_store_alone_says_what_everything_was_made_from(tmp_path: Path, calls: Path) -> None:
    """Sidecars are enough to record an artifact again: node, key, recipe, inputs with their versions, members."""
    project = slow_project(tmp_path / "toy")
    make_all(project)
    folder = next((project.store.root / "merged/S1").iterdir())
    side = Store(project.store.root).sidecar(folder)
    assert side["node"] == ["merged", "S1"] and len(side["members"]) == ASSAYS
    assert {row[0] for row in side["inputs"]} == {"counts", "patient.sex"}
