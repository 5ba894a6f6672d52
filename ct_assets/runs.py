"""⑧ What Dagster knows of runs: which are under way, and ending those whose process is gone."""

import dagster as dg

from ctcore.leases import is_alive
from ctcore.slurm.stop import Asked

PROCESS_TAG = "ct/process"
ENDED = (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)

_ACTIVE = (
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
)


def going(instance: dg.DagsterInstance, runs: set[str]) -> set[str]:
    """Of these run IDs, those whose run has not ended."""
    found = instance.get_runs(filters=dg.RunsFilter(run_ids=sorted(runs))) if runs else []
    return {run.run_id for run in found if run.status not in ENDED}


def wanted(instance: dg.DagsterInstance, run: dg.DagsterRun) -> Asked:
    """Whether somebody has asked for the end of this run. One of `ct run` is its shell's own."""
    if PROCESS_TAG in run.tags:
        return "shell"
    now = instance.get_run_by_id(run.run_id)
    if now is None or now.status == dg.DagsterRunStatus.CANCELED:
        return "cancelled"
    return "cancelling" if now.status == dg.DagsterRunStatus.CANCELING else "going"


def end_orphans(instance: dg.DagsterInstance) -> None:
    """Runs of shells that were killed: Dagster would show them as running for ever."""
    for run in instance.get_runs(filters=dg.RunsFilter(statuses=list(_ACTIVE))):
        process = run.tags.get(PROCESS_TAG)
        if process is not None and not is_alive(process):
            instance.report_run_failed(run, "the process that ran it is gone")
