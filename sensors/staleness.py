"""The staleness sensor: requests runs of stale nodes in dependency order, in bounded batches, each node once."""

import json
from dataclasses import dataclass

import dagster as dg

from ct_assets.asset_keys import PROJECT_TAG, key_of
from ct_assets.partitions import additions
from ct_assets.runs import END_TAG, ENDED, REQUEST_TAG, START_TAG, end_orphans, going, is_ours
from ct_assets.step_assets import ONLY_STALE
from ctcore.errors import CtError
from ctcore.execution.ledger import unreported_makings
from ctcore.governance.masking import Mask, mask_of
from ctcore.intake.raw_files import look_on
from ctcore.model.node import name_of
from ctcore.model.reasons import Reason
from ctcore.planning.limits import earliest
from ctcore.planning.requests import RangeRequest, RequestRound, decide_requests, state_of_the_world
from ctcore.project import Project
from ctcore.steps.graph import REGISTRY
from ctcore.util.clock import now
from resources import CtProject, closed
from sensors.preview import is_preview

FILES_A_TICK = 5_000  # assays whose raw files one tick checks; the next ticks check the others
_looked_up_to: dict[str, int] = {}
WHY_TAG = "ct/why"


def staleness_sensor(project: Project) -> dg.SensorDefinition:
    """The sensor. Its cursor is the state of the project in which there was nothing to request."""

    @dg.sensor(
        name="staleness",
        description="Requests runs of stale nodes, and of nothing else.",
        minimum_interval_seconds=project.settings.run.look_every_s,
        default_status=dg.DefaultSensorStatus.RUNNING,
        asset_selection=dg.AssetSelection.all(),
    )
    def tick(context: dg.SensorEvaluationContext, ct: CtProject) -> dg.SensorResult:
        try:
            return _tick(context, ct.open())
        except CtError as error:
            context.log.error(str(error))
            return dg.SensorResult(skip_reason=dg.SkipReason(str(error)), cursor=context.cursor)

    return tick


def _tick(context: dg.SensorEvaluationContext, project: Project) -> dg.SensorResult:
    preview = is_preview(context)
    if not preview:
        # Dagster's default launcher does not notice a killed run worker: its run would stay STARTED for ever.
        end_orphans(context.instance, project)
    if why := closed(project):
        return dg.SensorResult(skip_reason=dg.SkipReason(why), cursor=context.cursor)
    if not preview:
        _look(context, project)
    world, cursor = state_of_the_world(project), _Cursor.read(context.cursor)
    # A tick costs an evaluation of the whole cohort otherwise, every 15 seconds.
    if world == cursor.world and (cursor.until is None or now() < cursor.until):
        return dg.SensorResult(skip_reason=dg.SkipReason(cursor.words or "nothing has changed"), cursor=context.cursor)
    found = decide_requests(
        project,
        lambda runs: going(context.instance, runs),
        lambda keys: _states(context.instance, project, keys),
        record=not preview,
    )
    cursor = _next_cursor(found, "" if unreported_makings(project) else world)
    if not found.asked:
        return dg.SensorResult(skip_reason=dg.SkipReason(found.words), cursor=cursor)
    if found.held:
        context.log.info(found.words)
    seen = mask_of(project)
    return dg.SensorResult(
        run_requests=[_run_request(project, one, seen) for one in found.asked],
        # Dagster adds them before it launches this tick's runs; a run for an unknown key would be refused.
        dynamic_partitions_requests=additions(project, context.instance),  # the sheet sensor may not have run yet
        cursor=cursor,
    )


def _look(context: dg.SensorEvaluationContext, project: Project) -> None:
    """Look at the next raw files."""
    looked, _looked_up_to[project.id] = look_on(project, _looked_up_to.get(project.id, 0), FILES_A_TICK)
    for said in looked.problems:
        context.log.error(said)


@dataclass(frozen=True)
class _Cursor:
    """The state of the project in which there is nothing to request before `until`, and the words for the UI."""

    world: str = ""
    until: str | None = None
    words: str = ""

    @classmethod
    def read(cls, text: str | None) -> "_Cursor":
        try:
            return cls(*json.loads(text or "[]"))
        except (ValueError, TypeError):  # of another version
            return cls()


def _next_cursor(found: RequestRound, world: str) -> str:
    """The new cursor; empty while runs are active, because not every end of a run is an event of the catalog."""
    if not found.settled or not world:
        return ""
    return json.dumps([world, earliest(found.held), found.words if found.held else ""])


def _run_request(project: Project, asked: RangeRequest, seen: Mask) -> dg.RunRequest:
    batch = asked.batch
    first, *others = batch.verdicts
    more = f" (and {len(others)} more)" if others else ""
    said = "; ".join(map(_tag_of, seen.verdict(first).reasons)) + more
    # Dagster launches no second run with the same run_key of this sensor. Our own tag tells whose runs belong to a
    # request.
    tags = {REQUEST_TAG: asked.run_key, WHY_TAG: said[:200], ONLY_STALE: "stale", PROJECT_TAG: project.id}
    assets = [key_of(project, name) for name in batch.steps]
    if batch.asset in REGISTRY:
        tags.pop(ONLY_STALE)
    # A range of one would be a run of many: no output, and downstream steps of the same run would be skipped.
    if batch.start == batch.end:
        return dg.RunRequest(
            run_key=asked.run_key,
            partition_key=batch.start,
            asset_selection=assets,
            tags=tags,
        )
    return dg.RunRequest(
        run_key=asked.run_key,
        asset_selection=assets,
        tags={**tags, START_TAG: batch.start, END_TAG: batch.end},
    )


def _tag_of(reason: Reason) -> str:
    """A reason without anybody's role, because tags of runs and ticks stay in Dagster after a purge."""
    return f"{reason.kind}: {name_of(reason.node)}" if reason.kind == "member-role" and reason.node else str(reason)


def _states(instance: dg.DagsterInstance, project: Project, keys: set[str]) -> tuple[set[str], set[str]]:
    """Of these run keys, those whose run is under way and those whose run has ended."""
    found = instance.get_runs(filters=dg.RunsFilter(tags={REQUEST_TAG: sorted(keys)}))
    runs = [run for run in found if is_ours(project, run)]
    ended = {run.tags[REQUEST_TAG] for run in runs if run.status in ENDED}
    return {run.tags[REQUEST_TAG] for run in runs} - ended, ended
