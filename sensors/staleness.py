"""Sees what is stale, and asks for just that: in dependency order, in bounded batches, each stale node once."""

import json
from dataclasses import dataclass

import dagster as dg

from ct_assets.factory import ONLY_STALE
from ct_assets.keys import PROJECT_TAG, key_of
from ct_assets.partitions import additions
from ct_assets.runs import ENDED, REQUEST_TAG, end_orphans, going, is_ours
from ctcore.asking import Asked, Asking, look, state_of_the_world
from ctcore.clock import now
from ctcore.errors import CtError
from ctcore.files import look_on
from ctcore.holding import earliest
from ctcore.ledger import unreported
from ctcore.project import Project
from ctcore.reasons import Reason, name_of
from ctcore.steps import REGISTRY
from ctcore.veil import Veil, veil
from resources import CtProject, closed

FILES_A_TICK = 5_000  # assays whose raw files are looked at; the others have their turn in the next ticks
_looked_up_to: dict[str, int] = {}
WHY_TAG = "ct/why"
START_TAG = "dagster/asset_partition_range_start"
END_TAG = "dagster/asset_partition_range_end"


def staleness_sensor(project: Project) -> dg.SensorDefinition:
    """The cursor is the state of the world in which nothing was left to ask for."""

    @dg.sensor(
        name="staleness",
        description="Asks for runs of what is stale, and of nothing else.",
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
    end_orphans(context.instance, project)
    if why := closed(project):
        return dg.SensorResult(skip_reason=dg.SkipReason(why), cursor=context.cursor)
    looked, _looked_up_to[project.id] = look_on(project, _looked_up_to.get(project.id, 0), FILES_A_TICK)
    for said in looked.problems:
        context.log.error(said)
    world, cursor = state_of_the_world(project), _Cursor.read(context.cursor)
    if world == cursor.world and (cursor.until is None or now() < cursor.until):
        return dg.SensorResult(skip_reason=dg.SkipReason(cursor.words or "nothing has changed"), cursor=context.cursor)
    found = look(
        project, lambda runs: going(context.instance, runs), lambda keys: _states(context.instance, project, keys)
    )
    cursor = _next_cursor(found, "" if unreported(project) else world)
    if not found.asked:
        return dg.SensorResult(skip_reason=dg.SkipReason(found.words), cursor=cursor)
    if found.held:
        context.log.info(found.words)
    seen = veil(project)
    return dg.SensorResult(
        run_requests=[_run_request(project, one, seen) for one in found.asked],
        dynamic_partitions_requests=additions(project, context.instance),  # the sheet's sensor may not have looked yet
        cursor=cursor,
    )


@dataclass(frozen=True)
class _Cursor:
    """The state of the world in which nothing was left to ask for before `until`, and what was said of it."""

    world: str = ""
    until: str | None = None
    words: str = ""

    @classmethod
    def read(cls, text: str | None) -> "_Cursor":
        try:
            return cls(*json.loads(text or "[]"))
        except (ValueError, TypeError):  # of another version
            return cls()


def _next_cursor(found: Asking, world: str) -> str:
    """Empty as long as runs are under way: their ends are not all events of the catalog."""
    if not found.settled or not world:
        return ""
    return json.dumps([world, earliest(found.held), found.words if found.held else ""])


def _run_request(project: Project, asked: Asked, seen: Veil) -> dg.RunRequest:
    batch = asked.batch
    first, *others = batch.verdicts
    more = f" (and {len(others)} more)" if others else ""
    said = "; ".join(map(_tag_of, seen.verdict(first).reasons)) + more
    tags = {REQUEST_TAG: asked.run_key, WHY_TAG: said[:200], ONLY_STALE: "stale", PROJECT_TAG: project.id}
    assets = [key_of(project, batch.asset)]
    if batch.asset in REGISTRY:
        tags.pop(ONLY_STALE)
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
    """A reason without anybody's role: tags of runs, and the ticks that ask for them, are kept whoever is purged."""
    return f"{reason.kind}: {name_of(reason.node)}" if reason.kind == "member-role" and reason.node else str(reason)


def _states(instance: dg.DagsterInstance, project: Project, keys: set[str]) -> tuple[set[str], set[str]]:
    """Of these run keys, those whose run is under way and those whose run has ended."""
    found = instance.get_runs(filters=dg.RunsFilter(tags={REQUEST_TAG: sorted(keys)}))
    runs = [run for run in found if is_ours(project, run)]
    ended = {run.tags[REQUEST_TAG] for run in runs if run.status in ENDED}
    return {run.tags[REQUEST_TAG] for run in runs} - ended, ended
