"""A sensor's tick with nothing to do, in Dagster's daemon, on the cohort of a nation."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.measure import Measured, Row, Target, apart, expect, timed
from benchmarks.nation import fill, steps
from ctcore.cohorts.registry import entries, mark_reported
from ctcore.project import Project
from ctcore.projects.dagster_home import environment
from ctcore.staleness.verdicts import evaluate
from ctcore.steps.graph import REGISTRY
from tests.helpers.kit import TOML, assay, make_project

ASSAYS = 100_000
QUICK = 20
TICK_S = 0.200
LOOK_S = 2
TICKS = 5
PATIENCE_S = 900
IDLE = {"staleness": "nothing has changed", "sheet": "the sheet has not changed"}
ROOT = Path(__file__).parents[1]
_DEFINITIONS = '''"""The project without its integrity sensor: the files of made-up artifacts are not there."""

import os
from pathlib import Path

import dagster as dg

from ct_assets.definitions import build_assets, build_resources
from ctcore.project import Project
from sensors.sheet import sheet_sensor
from sensors.staleness import staleness_sensor

project = Project.find(Path(os.environ["CT_PROJECT"]))
defs = dg.Definitions(
    assets=build_assets(project),
    sensors=[sheet_sensor(project), staleness_sensor(project)],
    resources=build_resources(project),
    executor=dg.in_process_executor,
)
'''


def measure(folder: Path, quick: bool) -> Iterator[Row]:
    assays = QUICK if quick else ASSAYS
    root = folder / "project"
    size = f"{assays} assays"
    yield Row("partitions added to Dagster", size, apart(prepare, root, assays))
    bare, called, what = apart(_called, root)
    yield Row(f"staleness sensor, called, {what}", size, called, "os.stat of each raw file", bare)
    for name, seconds in apart(_ticks, root).items():
        found = Measured(median(seconds), 0.0, called.peak_mib)
        target = Target(TICK_S, "s") if name == "staleness" else None
        yield Row(f"{name} sensor, tick of the daemon, nothing to do", size, found, target=target)


def prepare(root: Path, assays: int) -> Measured:
    """A project in which all is made and Dagster was told of everything; how long it took to add the partitions."""
    toml = TOML.replace("[run]", f"[run]\nlook_every_s = {LOOK_S}")
    project = make_project(root, [assay("P0", "S0", "A0", sex="F")], steps(), toml)
    fill(project, assays, raw=True)
    return tell_dagster(project)


def tell_dagster(project: Project) -> Measured:
    """Definitions and an instance for a filled project, with all partitions, and nothing left to tell."""
    root = project.root
    (root / "definitions.py").write_text(_DEFINITIONS)
    shutil.copy(ROOT / "workspace.yaml", root)
    (root / "dagster_home").mkdir()
    shutil.copy(ROOT / "dagster_home" / "dagster.yaml", root / "dagster_home")
    for asset in REGISTRY:
        mark_reported(project, entries(project, asset))
    os.environ.update(environment(project))
    import dagster as dg

    from ct_assets.partitions import add_missing

    with dg.DagsterInstance.get() as instance:
        return timed(lambda: add_missing(project, instance), times=1)


def _called(root: Path) -> tuple[Measured, Measured, str]:
    """The sensor's function in this process, which can tell the processor's time: twice to settle, then measured."""
    os.environ.update(environment(Project(root)))
    import dagster as dg

    from ct_assets.definitions import build_resources
    from sensors.staleness import staleness_sensor

    project = Project.find(root)
    sensor = staleness_sensor(project)
    with dg.DagsterInstance.get() as instance:
        resources = {"ct": build_resources(project)["ct"]}

        def tick(cursor: str | None) -> Any:
            return sensor(dg.build_sensor_context(instance=instance, cursor=cursor, resources=resources))

        cursor = tick(tick(None).cursor).cursor
        found = timed(lambda: tick(cursor))
    said = found.value.skip_reason.skip_message
    expect("the sensor's words", said, IDLE["staleness"])
    places = [os.path.join(entry.path, one) for entry in os.scandir(root / "reads") for one in _files(entry)]
    bare = timed(lambda: [os.stat(place) for place in places] and None)
    return bare, Measured(found.seconds, found.cpu, found.peak_mib), said


def _files(entry: "os.DirEntry[str]") -> list[str]:
    return os.listdir(entry.path) if entry.is_dir() else []


def _ticks(root: Path) -> dict[str, list[float]]:
    """Seconds of the ticks in which each sensor found nothing to do, from the instance's own history."""
    os.environ.update(environment(Project(root)))
    import dagster as dg

    deadline, found = time.monotonic() + PATIENCE_S, {}
    with serving(root, "-m", "dagster._daemon", "run", "-w", "workspace.yaml") as log:
        while time.monotonic() < deadline:
            with dg.DagsterInstance.get() as instance:
                found = {name: list(_idle(instance, name)) for name in IDLE}
            if all(len(some) >= TICKS for some in found.values()):
                expect("stale nodes after the ticks", len(evaluate(Project.find(root)).stale()), 0)
                return found
            time.sleep(LOOK_S)
    raise RuntimeError(f"only {found} ticks in {PATIENCE_S} s; {log.read_text()[-2000:]}")


def _idle(instance: Any, name: str) -> Iterator[float]:
    for state in instance.all_instigator_state():
        if state.instigator_name == name:
            for tick in instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=100):
                if tick.skip_reason == IDLE[name] and tick.end_timestamp:
                    yield tick.end_timestamp - tick.timestamp


@contextmanager
def serving(root: Path, *arguments: str) -> Iterator[Path]:
    """A Python process of Dagster's beside this one, in a session of its own; gives its log."""
    log = root / "served.log"
    long = {"DAGSTER_SENSOR_GRPC_TIMEOUT_SECONDS": str(PATIENCE_S)}
    variables = {**environment(Project(root)), "PYTHONPATH": str(ROOT), **long}
    with log.open("w") as stream:
        command = [sys.executable, *arguments]
        process = subprocess.Popen(
            command, cwd=root, env=variables, stdout=stream, stderr=stream, start_new_session=True
        )
    try:
        yield log
    finally:
        os.killpg(process.pid, signal.SIGINT)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
