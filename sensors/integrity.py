"""Looks at the store again and again: quickly at everything, and at a share of all bytes in each round.

Its cursor is the number of the last purge after which Dagster's event log was cleaned.
"""

import threading
from collections.abc import Sequence

import dagster as dg

from ct_assets.checks import damage_found
from ct_assets.keys import key_of
from ct_assets.wiping import wipe_purged
from ctcore.errors import CtError
from ctcore.looking import refuse_without_store
from ctcore.project import Project
from ctcore.reasons import name_of
from ctcore.scrub import DAY_S, GIB, Scrubbed, share
from ctcore.verify import verify
from resources import CtProject, closed

WAIT_S = 40  # a tick of Dagster's has a minute; a large file is read on behind it
_reading: dict[str, "Share"] = {}


class Share(threading.Thread):
    """The bytes of one round, read beside the ticks: a file of hundreds of gigabytes takes longer than one may."""

    def __init__(self, project: Project, budget: int) -> None:
        super().__init__(daemon=True, name="ct-integrity")
        self.project, self.budget = project, budget
        self.found, self.error = Scrubbed(), ""

    def run(self) -> None:
        try:
            self.found = share(self.project, self.budget)
        except Exception as error:  # the edge: the next tick says it, as nobody waits for this thread
            self.error = f"{type(error).__name__}: {error}"


def integrity_sensor(project: Project) -> dg.SensorDefinition:
    """What it finds is written to the catalog; the staleness sensor has it made again."""
    every = project.settings.run.verify_every_s

    @dg.sensor(
        name="integrity",
        description="Finds files that are gone or changed: of the store, raw files and references.",
        minimum_interval_seconds=every,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def tick(context: dg.SensorEvaluationContext, ct: CtProject) -> dg.SensorResult:
        opened = ct.open()
        last, wiped = wipe_purged(opened, context.instance, int(context.cursor or 0))
        if wiped:
            context.log.info(f"{wiped} events of what is purged were deleted from Dagster's event log")
        if why := closed(opened):
            return _said(why, str(last))
        try:
            refuse_without_store(opened)
            read = _read_share(opened, opened.settings.run.verify_gib_a_day * GIB * every // DAY_S)
            found = verify(opened, deep=False)
        except CtError as error:
            context.log.error(str(error))
            return _said(str(error), str(last))
        said = [f"{name_of(one.node)}: {one.file} {one.problem}" for one in found.findings]
        for one in (*said, *read.found.said, *([read.error] if read.error else [])):
            context.log.error(one)
        if not said:
            return _said(f"{found.artifacts} artifacts are as they were published{_words(read)}", str(last))
        by_asset = {one.node[0]: [] for one in found.findings}
        for one in found.findings:
            by_asset[one.node[0]].append(one)
        failed = [damage_found(key_of(opened, asset), findings) for asset, findings in by_asset.items()]
        return _said(f"{len(said)} files are not as published: {'; '.join(said[:10])}", str(last), failed)

    return tick


def _read_share(project: Project, budget: int) -> Share:
    """The reading that is under way, or another one; it is waited for as long as a tick may take."""
    reading = _reading.get(project.id)
    if reading is None or not reading.is_alive():
        reading = _reading[project.id] = Share(project, budget)
        reading.start()
    reading.join(WAIT_S)
    return reading


def _words(read: Share) -> str:
    if read.is_alive():
        return "; reading goes on"
    other = f"; {len(read.found.said)} inputs changed or cannot be read" if read.found.said else ""
    return f"; {read.found.count} things, {read.found.bytes} bytes read{other}"


def _said(text: str, cursor: str, failed: Sequence[dg.AssetCheckEvaluation] = ()) -> dg.SensorResult:
    return dg.SensorResult(skip_reason=dg.SkipReason(text), asset_events=list(failed), cursor=cursor)
