"""The integrity sensor: at each tick a quick check of all files, and a full read of a share of all bytes.

The cursor is the number of the last purge that was deleted from Dagster's event log, and the last recovery before it.
"""

import threading
from collections.abc import Sequence

import dagster as dg

from ct_assets.asset_checks import damage_found
from ct_assets.asset_keys import key_of
from ct_assets.purged_events import last_recovery, wipe_purged
from ctcore.errors import CtError
from ctcore.integrity.scrub import DAY_S, GIB, ScrubResult, scrub_share
from ctcore.integrity.verify import verify
from ctcore.model.node import name_of
from ctcore.project import Project
from ctcore.projects.missing_store import refuse_without_store
from resources import CtProject, closed
from sensors.preview import NOT_LOOKED, is_preview

WAIT_S = 40  # Dagster allows a tick 60 s; a thread reads a large file on after the tick
_reading: dict[str, "Share"] = {}


class Share(threading.Thread):
    """A thread that reads one share: a file of hundreds of gigabytes takes longer than a tick may."""

    def __init__(self, project: Project, budget: int) -> None:
        super().__init__(daemon=True, name="ct-integrity")
        self.project, self.budget = project, budget
        self.found, self.error = ScrubResult(), ""

    def run(self) -> None:
        try:
            self.found = scrub_share(self.project, self.budget)
        except Exception as error:  # the edge of this thread: the next tick reports it
            self.error = f"{type(error).__name__}: {error}"


def integrity_sensor(project: Project) -> dg.SensorDefinition:
    """The sensor. It records damage in the catalog, and the staleness sensor asks for new runs of it."""
    every = project.settings.run.verify_every_s

    @dg.sensor(
        name="integrity",
        description="Finds missing and changed files: of the store, raw files and references.",
        minimum_interval_seconds=every,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def tick(context: dg.SensorEvaluationContext, ct: CtProject) -> dg.SensorResult:
        opened = ct.open()
        if is_preview(context):
            return dg.SensorResult(skip_reason=dg.SkipReason(closed(opened) or NOT_LOOKED), cursor=context.cursor)
        recovered = last_recovery(opened)
        last, wiped = wipe_purged(opened, context.instance, _cleaned(context.cursor, recovered))
        cursor = f"{last}@{recovered}" if recovered else str(last)
        if wiped:
            context.log.info(f"deleted {wiped} events of purged nodes from Dagster's event log")
        if why := closed(opened):
            return _result(why, cursor)
        try:
            refuse_without_store(opened)
            read = _read_share(opened, opened.settings.run.verify_gib_a_day * GIB * every // DAY_S)
            found = verify(opened, deep=False)
        except CtError as error:
            context.log.error(str(error))
            return _result(str(error), cursor)
        said = [f"{name_of(one.node)}: {one.file} {one.problem}" for one in found.findings]
        for one in (*said, *read.found.changed_inputs, *([read.error] if read.error else [])):
            context.log.error(one)
        if not said:
            return _result(f"{found.artifacts} artifacts are unchanged{_words(read)}", cursor)
        by_asset = {one.node[0]: [] for one in found.findings}
        for one in found.findings:
            by_asset[one.node[0]].append(one)
        failed = [damage_found(key_of(opened, asset), findings) for asset, findings in by_asset.items()]
        return _result(f"{len(said)} files are missing or changed: {'; '.join(said[:10])}", cursor, failed)

    return tick


def _cleaned(cursor: str | None, recovered: int) -> int:
    """Number of the last purge in the cursor; 0 after a recovery, which may have restored purges with lower numbers."""
    last, _, before = (cursor or "0").partition("@")
    return int(last) if int(before or 0) == recovered else 0


def _read_share(project: Project, budget: int) -> Share:
    """The running share, or a new one, after waiting for it at most `WAIT_S`."""
    reading = _reading.get(project.id)
    if reading is None or not reading.is_alive():
        reading = _reading[project.id] = Share(project, budget)
        reading.start()
    reading.join(WAIT_S)
    return reading


def _words(read: Share) -> str:
    if read.is_alive():
        return "; still reading"
    other = f"; {len(read.found.changed_inputs)} inputs changed or cannot be read" if read.found.changed_inputs else ""
    return f"; read {read.found.count} files and artifacts, {read.found.bytes} bytes{other}"


def _result(text: str, cursor: str, failed: Sequence[dg.AssetCheckEvaluation] = ()) -> dg.SensorResult:
    return dg.SensorResult(skip_reason=dg.SkipReason(text), asset_events=list(failed), cursor=cursor)
