"""What Dagster knows of runs: which are under way, what each is for, and ending those whose process is gone."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import dagster as dg

from ct_assets.asset_keys import PROJECT_TAG
from ctcore.execution.slurm.cancel import RunRequest, Stop
from ctcore.planning.ahead import AheadRuns
from ctcore.planning.requests import requested_partitions
from ctcore.project import Project
from ctcore.projects.leases import is_alive
from ctcore.util.processes import process_name

PROCESS_TAG = "ct/process"
SHELL_TAG = "ct/shell"
REQUEST_TAG = "ct/request"
START_TAG = "dagster/asset_partition_range_start"
END_TAG = "dagster/asset_partition_range_end"
ENDED = (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)

_OF_ONE_PROCESS = ("in_process", "execute_in_process_executor")
_ACTIVE = (
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
)


_only: ContextVar[Collection[str] | None] = ContextVar("ct_only", default=None)
_ahead: ContextVar[AheadRuns | None] = ContextVar("ct_ahead", default=None)


@contextmanager
def only(keys: Collection[str]) -> Iterator[None]:
    """Runs inside the block make these partitions and no others, whatever range they cover."""
    token = _only.set(keys)
    try:
        yield
    finally:
        _only.reset(token)


@contextmanager
def making_ahead(runs: AheadRuns | None) -> Iterator[None]:
    """Runs inside the block make what is ready of other steps, too, while they wait; what is at work at its end is left
    to the next run."""
    token = _ahead.set(runs)
    try:
        yield
    finally:
        _ahead.reset(token)
        if runs is not None:
            runs.close()


def partitions_of(context: dg.AssetExecutionContext) -> Sequence[str]:
    """The partitions that a run covers. dg.Failure where it was started without any, as a whole job can be."""
    if context.has_partition_key or context.has_partition_key_range:
        return context.partition_keys
    name = context.asset_key.to_user_string()
    raise dg.Failure(
        f"{name} is made by partition, and this run names none: --partition A or --partition-range A...C does",
        allow_retries=False,
    )


def ahead_of(run: dg.DagsterRun, stop: Stop, step: str, keys: Sequence[str]) -> AheadRuns | None:
    """What is made ahead while this run's step waits, if anything is."""
    runs = _ahead.get()
    if runs is not None:
        runs.follow(stop, run.run_id, step, keys)
    return runs


def asked_of(project: Project, run: dg.DagsterRun) -> Collection[str] | None:
    """The partitions that this run is to make. A range covers others between them, which may be stale and not wanted.

    None: whatever is stale in its range, as for a run that is started again long after it was asked for.
    """
    request = run.tags.get(REQUEST_TAG)
    return requested_partitions(project, request) if request else _only.get()


def going(instance: dg.DagsterInstance, runs: set[str]) -> set[str]:
    """Of these run IDs, those whose run has not ended."""
    found = instance.get_runs(filters=dg.RunsFilter(run_ids=sorted(runs))) if runs else []
    return {run.run_id for run in found if run.status not in ENDED}


def wanted(instance: dg.DagsterInstance, run: dg.DagsterRun) -> RunRequest:
    """Whether somebody has asked for the end of this run. One of `ct run` is its shell's own."""
    if SHELL_TAG in run.tags:
        return "shell"
    now = instance.get_run_by_id(run.run_id)
    if now is None or now.status == dg.DagsterRunStatus.CANCELED:
        return "cancelled"
    return "cancelling" if now.status == dg.DagsterRunStatus.CANCELING else "going"


def sign(context: dg.AssetExecutionContext, project_id: str) -> None:
    """Say which process this run is, and of which project. With an executor that starts more of them, this process is
    not the run."""
    said = {} if PROJECT_TAG in context.run.tags else {PROJECT_TAG: project_id}
    if PROCESS_TAG not in context.run.tags and context.job_def.executor_def.name in _OF_ONE_PROCESS:
        said[PROCESS_TAG] = process_name()
    if said:
        context.instance.add_run_tags(context.run.run_id, said)


def is_ours(project: Project, run: dg.DagsterRun) -> bool:
    """Whether a run is of this project. One that does not say so is, where the instance is its own."""
    return run.tags.get(PROJECT_TAG, None if project.is_shared else project.id) == project.id


def end_orphans(instance: dg.DagsterInstance, project: Project) -> None:
    """Runs whose process was killed. Dagster sees that only of those that the daemon of today has started itself:
    others would be shown as running for ever, and nothing of theirs would be asked for again."""
    # Dagster's default launcher does not look after run workers: such a run would stay STARTED.
    for run in instance.get_runs(filters=dg.RunsFilter(statuses=list(_ACTIVE))):
        process = run.tags.get(PROCESS_TAG)
        if process is not None and is_ours(project, run) and not is_alive(process, project.work):
            instance.report_run_failed(run, "the process that ran it is gone")
