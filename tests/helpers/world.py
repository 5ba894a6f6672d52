"""A real project with a real Dagster daemon: change something on disk, and see what was made because of it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import func, select

from ctcore.catalog.tables import materialization
from ctcore.project import Project
from ctcore.projects.dagster_home import environment
from ctcore.staleness.verdicts import evaluate
from tests.helpers.shell import ROOT, shell

LOOK_S = 3
PATIENCE_S = 600


def three_people(root: Path) -> Project:
    """The real cohort in a project of its own, registered; sensors look often."""
    assert shell("init", root, "--example", "three_people").code == 0
    with (root / "ct.toml").open("a") as stream:
        stream.write(f"\n[run]\nlook_every_s = {LOOK_S}\nverify_every_s = {LOOK_S}\n")
    assert shell("-C", root, "register").code == 0
    return Project.find(root)


@dataclass
class World:
    """A project whose daemon is running. `settled` gives what was made since the last time, when all is fresh."""

    root: Path
    log: Path
    _seen: int = field(default=0)

    def settled(self, *expected: str) -> set[str]:
        """Wait until these nodes were made anew, all is fresh, and every sensor looked once more and asked for nothing.
        Everything that was made."""
        deadline, quiet = time.monotonic() + PATIENCE_S, None
        while quiet is None or not self._looked(quiet) or not self._still(expected):
            if quiet is None or self._looked(quiet):
                quiet = time.time() if self._still(expected) else None
            if time.monotonic() > deadline:
                said = f"made {sorted(self._made())}; not fresh {self._stale()}; runs {self._active()}"
                raise AssertionError(f"not settled after {PATIENCE_S} s: {said}\n{self.log.read_text()[-4000:]}")
            time.sleep(0.5)
        made, self._seen = self._made(), self._last()
        return made

    def _still(self, expected: Iterable[str]) -> bool:
        return set(expected) <= self._made() and not self._active() and not self._stale()

    def _looked(self, since: float) -> bool:
        """Has each of the four sensors begun and ended a look since then?"""
        import dagster as dg

        with dg.DagsterInstance.get() as instance:
            known = [(one.instigator_origin_id, one.selector_id) for one in instance.all_instigator_state()]
            looks = [instance.get_ticks(*one, after=since, limit=5) for one in known]
        return sum(any(tick.status.value != "STARTED" for tick in some) for some in looks) == 4

    def _made(self) -> set[str]:
        with Project.find(self.root).catalog.read() as connection:
            rows = connection.execute(
                select(materialization.c.asset, materialization.c.partition).where(materialization.c.id > self._seen)
            )
            return {f"{row.asset}/{row.partition}" for row in rows}

    def _last(self) -> int:
        with Project.find(self.root).catalog.read() as connection:
            return connection.execute(select(func.max(materialization.c.id))).scalar() or 0

    def _stale(self) -> list[str]:
        return ["/".join(one.node) for one in evaluate(Project.find(self.root)).stale()]

    def _active(self) -> int:
        import dagster as dg

        with dg.DagsterInstance.get() as instance:
            active = [dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED]
            return instance.get_runs_count(dg.RunsFilter(statuses=active))

    def runs(self) -> list[list[str]]:
        """The assets of each run, oldest first."""
        import dagster as dg

        with dg.DagsterInstance.get() as instance:
            listed = instance.get_runs(ascending=True)
        return [sorted(key.to_user_string() for key in run.asset_selection or ()) for run in listed]

    def data_versions(self, asset: str) -> dict[str, str]:
        """What Dagster says of an asset's partitions now."""
        import dagster as dg

        found = {}
        with dg.DagsterInstance.get() as instance:
            key = dg.AssetKey(asset)
            for partition in instance.get_materialized_partitions(key):
                records = instance.fetch_materializations(
                    dg.AssetRecordsFilter(asset_key=key, asset_partitions=[partition]), limit=1
                ).records
                tags = records[0].asset_materialization.tags if records[0].asset_materialization else None
                found[partition] = (tags or {}).get("dagster/data_version", "")
        return found


@contextmanager
def daemon(project: Project) -> Iterator[World]:
    """The project's daemon with its sensors, until the end of the block."""
    log = project.root / "daemon.log"
    variables = {**environment(project), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "dagster._daemon", "run", "-w", "workspace.yaml"]
    with log.open("w") as stream:
        process = subprocess.Popen(
            command, cwd=project.root, env=variables, stdout=stream, stderr=stream, start_new_session=True
        )
    before = os.environ.get("DAGSTER_HOME")
    os.environ["DAGSTER_HOME"] = variables["DAGSTER_HOME"]
    try:
        yield World(project.root, log)
    finally:
        os.killpg(process.pid, signal.SIGINT)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        os.environ.pop("DAGSTER_HOME")
        if before is not None:
            os.environ["DAGSTER_HOME"] = before
