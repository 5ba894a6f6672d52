"""The jobs sensor: records results and failures of Slurm jobs whose run has died."""

import dagster as dg

from ctcore.execution.slurm.reconcile import jobs_without_run, sweep
from ctcore.project import Project
from resources import CtProject, closed
from sensors.preview import is_preview


def jobs_sensor(project: Project) -> dg.SensorDefinition:
    """The sensor. It asks Slurm only if the catalog has jobs without a run."""

    @dg.sensor(
        name="jobs",
        description="Settles Slurm jobs whose run has ended.",
        minimum_interval_seconds=project.settings.run.look_every_s,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def tick(context: dg.SensorEvaluationContext, ct: CtProject) -> dg.SkipReason:
        opened = ct.open()
        if why := closed(opened):
            return dg.SkipReason(why)
        if is_preview(context):
            return dg.SkipReason(f"{len(jobs_without_run(opened))} jobs without a run; a preview does not ask Slurm")
        found = sweep(opened)
        if not found.answered:
            return dg.SkipReason(f"Slurm does not answer; {found.left} jobs without a run are open")
        said = ", ".join(f"{count} {verdict}" for verdict, count in sorted(found.settled.items()))
        if said:
            context.log.info(f"jobs of runs that died: {said}")
        return dg.SkipReason(f"Slurm has {found.left} jobs without a run; settled: {said or 'none'}")

    return tick
