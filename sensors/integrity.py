"""Looks at the store again and again: quickly at everything, and at some of the bytes in each round."""

import dagster as dg

from ctcore.project import Project
from ctcore.reasons import name_of
from ctcore.verify import verify
from resources import CtProject

BYTES_A_TICK = 4 << 30


def integrity_sensor(project: Project) -> dg.SensorDefinition:
    """What it finds is written to the catalog; the staleness sensor has it made again."""

    @dg.sensor(
        name="integrity",
        description="Finds files of the store that are gone or changed.",
        minimum_interval_seconds=project.settings.run.verify_every_s,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def tick(context: dg.SensorEvaluationContext, ct: CtProject) -> dg.SkipReason:
        found = verify(ct.open(), budget=BYTES_A_TICK)
        for one in found.findings:
            context.log.error(f"{name_of(one.node)}: {one.file} {one.problem}")
        if not found.findings:
            return dg.SkipReason(f"{found.artifacts} artifacts are as they were published")
        listed = ", ".join(f"{name_of(one.node)} {one.file} {one.problem}" for one in found.findings[:10])
        return dg.SkipReason(f"{len(found.findings)} files are not as published: {listed}")

    return tick
