"""Registers a changed sheet and tells Dagster of new partitions."""

import dagster as dg

from ct_assets.partitions import additions, partitions_state
from ctcore.errors import CtError, SheetError
from ctcore.project import Project
from ctcore.register import known_sheet, register, sheet_digest
from resources import CtProject, closed


def sheet_sensor(project: Project) -> dg.SensorDefinition:
    """The cursor: the digest of the sheet as it was last read, good or bad, so that a bad sheet is told of once; and
    the state in which Dagster knew all partitions."""

    @dg.sensor(
        name="sheet",
        description="Registers the sheet when it has changed, and adds the partitions of what is new.",
        minimum_interval_seconds=project.settings.run.look_every_s,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def tick(context: dg.SensorEvaluationContext, ct: CtProject) -> dg.SensorResult:
        opened = ct.open()
        if why := closed(opened):
            return dg.SensorResult(skip_reason=dg.SkipReason(why), cursor=context.cursor)
        digest, _, told = (context.cursor or "").partition(" ")
        digest, said = _read(opened, digest or None, context)
        state = partitions_state(opened)
        requests = additions(opened, context.instance) if state != told else []
        added = sum(len(request.partition_keys) for request in requests)
        if not added and said is None:
            said = "the sheet is as it was"
        return dg.SensorResult(
            dynamic_partitions_requests=requests,
            skip_reason=dg.SkipReason(said or f"registered; {added} new partitions"),
            cursor=f"{digest or ''} {state if not added else ''}",
        )

    return tick


def _read(project: Project, cursor: str | None, context: dg.SensorEvaluationContext) -> tuple[str | None, str | None]:
    """Register the sheet if its bytes changed. Returns the new cursor, and what to say if nothing was done."""
    sheet = known_sheet(project)
    if sheet is None:
        return cursor, "no sheet yet: `ct register SHEET`"
    try:
        digest = sheet_digest(sheet)
        if digest == cursor:
            return cursor, None
        register(project, sheet)
    except CtError as error:
        said = error.places if isinstance(error, SheetError) else str(error)
        context.log.error(said)
        return (cursor if not sheet.is_file() else sheet_digest(sheet)), f"not registered: {said}"
    return digest, None
