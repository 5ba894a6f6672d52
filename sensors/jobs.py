"""Resolves jobs in Slurm whose run has died: what they made is recorded, what they could not is known."""

import dagster as dg

from ctcore.project import Project
from ctcore.slurm.sweep import sweep
from resources import CtProject, closed


def jobs_sensor(project: Project) -> dg.SensorDefinition:
    """It asks Slurm only where the catalog has jobs that nobody waits for."""

    @dg.sensor(
        name="jobs",
        description="Settles Slurm jobs that no run waits for any more.",
        minimum_interval_seconds=project.settings.run.look_every_s,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def tick(context: dg.SensorEvaluationContext, ct: CtProject) -> dg.SkipReason:
        opened = ct.open()
        if why := closed(opened):
            return dg.SkipReason(why)
        found = sweep(opened)
        if not found.answered:
            return dg.SkipReason(f"Slurm does not answer; {found.left} jobs are waited for")
        said = ", ".join(f"{count} {verdict}" for verdict, count in sorted(found.settled.items()))
        if said:
            context.log.info(f"jobs of runs that died: {said}")
        return dg.SkipReason(f"{found.left} jobs without a run are in Slurm; settled: {said or 'none'}")

    return tick
