"""Looks at the store again and again: quickly at everything, and at some of the bytes in each round.

Its cursor is the number of the last purge after which Dagster's event log was cleaned.
"""

from collections.abc import Sequence

import dagster as dg

from ct_assets.checks import damage_found
from ct_assets.keys import key_of
from ct_assets.wiping import wipe_purged
from ctcore.project import Project
from ctcore.reasons import name_of
from ctcore.verify import verify
from resources import CtProject, closed

BYTES_A_TICK = 4 << 30


def integrity_sensor(project: Project) -> dg.SensorDefinition:
    """What it finds is written to the catalog; the staleness sensor has it made again."""

    @dg.sensor(
        name="integrity",
        description="Finds files of the store that are gone or changed.",
        minimum_interval_seconds=project.settings.run.verify_every_s,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def tick(context: dg.SensorEvaluationContext, ct: CtProject) -> dg.SensorResult:
        opened = ct.open()
        if why := closed(opened):
            return _said(why, context.cursor or "0")
        last, wiped = wipe_purged(opened, context.instance, int(context.cursor or 0))
        if wiped:
            context.log.info(f"{wiped} events of what is purged were deleted from Dagster's event log")
        found = verify(opened, budget=BYTES_A_TICK)
        said = [f"{name_of(one.node)}: {one.file} {one.problem}" for one in found.findings]
        for one in said:
            context.log.error(one)
        if not said:
            return _said(f"{found.artifacts} artifacts are as they were published", str(last))
        by_asset = {one.node[0]: [] for one in found.findings}
        for one in found.findings:
            by_asset[one.node[0]].append(one)
        failed = [damage_found(key_of(opened, asset), findings) for asset, findings in by_asset.items()]
        return _said(f"{len(said)} files are not as published: {'; '.join(said[:10])}", str(last), failed)

    return tick


def _said(text: str, cursor: str, failed: Sequence[dg.AssetCheckEvaluation] = ()) -> dg.SensorResult:
    return dg.SensorResult(skip_reason=dg.SkipReason(text), asset_events=list(failed), cursor=cursor)
