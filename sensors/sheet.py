"""The sheet sensor: registers a changed sheet and adds new partitions to Dagster."""

import dagster as dg

from ct_assets.partitions import additions, partitions_state
from ctcore.errors import CtError, SheetError
from ctcore.intake.register import known_sheet, register, sheet_digest
from ctcore.project import Project
from resources import CtProject, closed
from sensors.preview import is_preview


def sheet_sensor(project: Project) -> dg.SensorDefinition:
    """The sensor. Its cursor holds the digest of the sheet at the last read, valid or not, so that it reports an
    invalid sheet once; and the state of the partitions that Dagster knows."""

    @dg.sensor(
        name="sheet",
        description="Registers the sheet when it has changed, and adds new partitions.",
        minimum_interval_seconds=project.settings.run.look_every_s,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def tick(context: dg.SensorEvaluationContext, ct: CtProject) -> dg.SensorResult:
        opened = ct.open()
        if why := closed(opened):
            return dg.SensorResult(skip_reason=dg.SkipReason(why), cursor=context.cursor)
        digest, _, told = (context.cursor or "").partition(" ")
        digest, said = _read(opened, digest or None, context)
        did = "a tick would register the sheet" if is_preview(context) else "registered"
        state = partitions_state(opened)
        requests = additions(opened, context.instance) if state != told else []
        added = sum(len(request.partition_keys) for request in requests)
        if not added and said is None:
            said = "the sheet has not changed"
        return dg.SensorResult(
            dynamic_partitions_requests=requests,
            skip_reason=dg.SkipReason(said or f"{did}; {added} new partitions"),
            # Dagster adds partitions after the tick, and may fail to: the state counts as told once none is missing.
            cursor=f"{digest or ''} {state if not added else ''}",
        )

    return tick


def _read(project: Project, cursor: str | None, context: dg.SensorEvaluationContext) -> tuple[str | None, str | None]:
    """Register the sheet if its bytes changed. Returns the new cursor, and why nothing was registered, else None."""
    sheet = known_sheet(project)
    if sheet is None:
        return cursor, "no sheet yet: `ct register SHEET`"
    try:
        digest = sheet_digest(sheet)
        if digest == cursor:
            return cursor, None
        register(project, sheet, dry_run=is_preview(context))
    except CtError as error:
        said = error.places if isinstance(error, SheetError) else str(error)
        context.log.error(said)
        return (cursor if not sheet.exists() else sheet_digest(sheet)), f"not registered: {said}"
    return digest, None
