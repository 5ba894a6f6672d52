"""⑧ What Dagster knows of runs: which are under way, and ending those whose process is gone."""

from pathlib import Path

import dagster as dg

from ctcore.slurm.stop import Asked

PID_TAG = "ct/pid"
ENDED = (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)


def going(instance: dg.DagsterInstance, runs: set[str]) -> set[str]:
    """Of these run IDs, those whose run has not ended."""
    found = instance.get_runs(filters=dg.RunsFilter(run_ids=sorted(runs))) if runs else []
    return {run.run_id for run in found if run.status not in ENDED}


def wanted(instance: dg.DagsterInstance, run: dg.DagsterRun) -> Asked:
    """Whether somebody has asked for the end of this run. One of `ct run` is its shell's own."""
    if PID_TAG in run.tags:
        return "shell"
    now = instance.get_run_by_id(run.run_id)
    if now is None or now.status == dg.DagsterRunStatus.CANCELED:
        return "cancelled"
    return "cancelling" if now.status == dg.DagsterRunStatus.CANCELING else "going"


def end_orphans(instance: dg.DagsterInstance) -> None:
    """Runs of shells that were killed: Dagster would show them as running for ever."""
    active = dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.STARTING])
    for run in instance.get_runs(filters=active):
        pid = run.tags.get(PID_TAG)
        if pid is not None and not Path(f"/proc/{pid}").exists():
            instance.report_run_failed(run, "the process that ran it is gone")
