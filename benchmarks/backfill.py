"""What Dagster adds to a node: one run of many partitions beside the same calls without Dagster, and what it writes
for each partition before a run starts."""

import os
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import delete

from benchmarks.cohort import SETTLED_S
from benchmarks.measure import Measured, Row, Target, expect, timed
from ctcore.catalog.tables import artifact
from ctcore.cohorts.partitions import partitions
from ctcore.execution.materialize import StepRun
from ctcore.intake.raw_files import look
from ctcore.project import Project
from tests.helpers.kit import TOML, assay, make_project

PARTITIONS = 1_000
QUICK = 4
DAGSTER_MS = 30.0
STEP = "counted"
BASELINE = "the same calls without Dagster"
PLANNED = 500
PLANNED_TIMES = 0.2


def measure(folder: Path, quick: bool) -> Iterator[Row]:
    number = QUICK if quick else PARTITIONS
    bare, launched = (_project(folder / name, number) for name in ("bare", "launched"))
    time.sleep(SETTLED_S)
    for project in (bare, launched):
        look(project)
    for what, state in (("one run, all made", "made"), ("one run, all reused", "hit")):
        _forget(bare, launched)
        alone = timed(lambda: _without_dagster(bare), times=1)
        within = timed(lambda launch: launch.run() or launch.counts, times=1, before=lambda: _launch(launched))
        for found in (alone, within):
            expect(what, dict(found.value), {state: number})
        yield _row(f"Dagster, {what}", number, within, alone)
    yield _planned(folder, QUICK if quick else PLANNED)


def _row(what: str, number: int, within: Measured, alone: Measured) -> Row:
    added = (within.seconds - alone.seconds) / number * 1000
    target = Target(DAGSTER_MS, "ms each", added)
    return Row(what, f"{number} partitions", within, BASELINE, alone, target)


def _planned(folder: Path, number: int) -> Row:
    """A run is made, as the daemon makes those of a backfill: it has an event a partition before it starts."""
    settings = {"ours": Path("dagster_home/dagster.yaml"), "stock": None}
    found = {name: _run_made(folder / f"planned-{name}", number, place) for name, place in settings.items()}
    target = Target(PLANNED_TIMES, "×")
    return Row("Dagster, a run is made", f"{number} partitions", found["ours"], "stock Dagster", found["stock"], target)


def _run_made(home: Path, number: int, settings: Path | None) -> Measured:
    import dagster as dg

    home.mkdir()
    if settings is None:
        (home / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
    else:
        shutil.copy(Path(__file__).resolve().parents[1] / settings, home)
    os.environ |= {"DAGSTER_HOME": str(home)}
    keys = [f"A{at:06}" for at in range(number)]
    definition = dg.DynamicPartitionsDefinition(name="planned")

    @dg.asset(partitions_def=definition, backfill_policy=dg.BackfillPolicy.multi_run(number))
    def made() -> None: ...

    job = dg.Definitions(assets=[made]).resolve_implicit_global_asset_job_def()
    tags = {"dagster/asset_partition_range_start": keys[0], "dagster/asset_partition_range_end": keys[-1]}
    with dg.DagsterInstance.get() as instance:
        instance.add_dynamic_partitions("planned", keys)
        timed_run = timed(lambda: instance.create_run_for_job(job, tags=tags, asset_selection={made.key}))
        kind = dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED
        expect("events planned", len(instance.all_logs(timed_run.value.run_id, of_type=kind)), number)
    return timed_run


def _project(root: Path, number: int) -> Project:
    toml = TOML.replace("[run]", f"[run]\npartitions_per_run = {number}")
    return make_project(root, [assay(f"P{at}", f"S{at}", f"A{at}", sex="F") for at in range(number)], toml=toml)


def _without_dagster(project: Project) -> Counter[str]:
    keys = partitions(project, "assay")
    return Counter(one.state for one in StepRun(project, project.steps[STEP], keys, stale_only=True).outcomes())


def _launch(project: Project) -> Any:
    """What `ct run counted` does, up to the run itself: Dagster's stock SQLite storage, its partitions there."""
    home = project.root / "dagster_home"
    home.mkdir(exist_ok=True)
    (home / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
    os.environ |= {"DAGSTER_HOME": str(home), "CT_PROJECT": str(project.root)}
    import dagster as dg

    from ct_assets.launch import Launch
    from ct_assets.partitions import add_missing
    from ctcore.planning.plan import scope

    instance = dg.DagsterInstance.get()
    add_missing(project, instance)
    return Launch(project, instance, scope(project, (STEP,)))


def _forget(*projects: Project) -> None:
    """The ledger keeps what was made, but no node has it: each is found again by its key."""
    for project in projects:
        with project.catalog.write() as writer:
            writer.execute(delete(artifact))
            writer.event("fill", STEP, {"artifacts": 0})
