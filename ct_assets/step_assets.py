"""The factory that turns a declared step into a Dagster asset.

A run of one partition yields a result, so that steps chain inside a run. A run of many partitions logs one
materialization a partition, each with its own data version: a result would give all of them the same version. Dagster
skips dependents of an asset without a result in that run. So steps of different depth have different backfill policies,
with which a backfill gives each its own runs.
"""

import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

import dagster as dg
from pydantic import create_model

from ct_assets.asset_checks import check_results, check_specs
from ct_assets.asset_keys import group_of, key_of
from ct_assets.compute_logs import failure_text, fenced, may_tell, print_log
from ct_assets.event_log_storage import at_once, commit, kept_open
from ct_assets.metadata import describe
from ct_assets.partitions import definition
from ct_assets.runs import ahead_of, asked_of, partitions_of, sign, wanted
from ct_assets.version_tags import DATA_VERSION, last_event, step_tags
from ctcore.errors import CtError
from ctcore.execution import ledger
from ctcore.execution.materialize import Outcome, StepRun
from ctcore.execution.slurm.cancel import Stop
from ctcore.model.levels import Level
from ctcore.planning.partition_ranges import ASKED_TAG, STEP_TAG, asked_partitions
from ctcore.project import Project
from ctcore.step import Step
from ctcore.util import progress
from resources import CtProject, Jobs

ONLY_STALE = "ct/only"
CACHE = "ct/cache"  # `off`: make existing results again beside the old ones, and compare
BATCH = 50

warnings.filterwarnings("ignore", category=dg.BetaWarning)  # backfill policies are what makes few runs of many nodes


def step_asset(project: Project, step: Step) -> dg.AssetsDefinition:
    """The asset of a step with its checks: partitioned by its level, configured by its parameters."""
    config_class = _config(project, step)

    @dg.multi_asset(
        name=step.name,
        specs=[_spec(project, step)],
        check_specs=check_specs(key_of(project, step.name), step),
        # So that a run can make the asset without its checks, or only the checks.
        can_subset=True,
        backfill_policy=_policy(project, step),
        op_tags={STEP_TAG: step.name},
    )
    def body(
        context: dg.AssetExecutionContext,
        config: config_class,  # type: ignore[valid-type]
        ct: CtProject,
        jobs: Jobs,
    ) -> Iterator[Any]:
        sign(context, project.id)
        made = bool(context.selected_asset_keys)
        checks = sorted(key.name for key in context.selected_asset_check_keys)
        with _refusing():
            opened = ct.to_write() if made else ct.open()
            if made:
                with kept_open(context.instance):
                    yield from _events(context, _making(context, opened, opened.steps[step.name], config, jobs))
            with at_once(context.instance):
                found = list(
                    check_results(opened, opened.steps[step.name], checks, context.run.run_id if made else None)
                )
            yield from found

    return body


@contextmanager
def _refusing() -> Iterator[None]:
    """Turn a refusal of ct into a failed run with its message, which Dagster does not retry."""
    try:
        yield
    except CtError as error:
        # Dagster would run the same refusal again, and the sensor tries again anyway, later and later.
        raise dg.Failure(str(error), allow_retries=False) from error


def _spec(project: Project, step: Step) -> dg.AssetSpec:
    return dg.AssetSpec(
        key_of(project, step.name),
        description=f"{step.description}\n\nMade elsewhere: `ct adopt` takes its results.".strip()
        if step.made_elsewhere
        else step.description,
        partitions_def=definition(project.id, step.level),
        deps=list(_deps(project, step)),
        group_name=group_of(project, step.group),
        kinds=set(step.kinds),
        tags={STEP_TAG: step.name},
        # For the UI's own mark only. Verdicts never use Dagster's staleness: it ignores edges with 100 and more
        # upstream partitions (SKIP_PARTITION_DATA_VERSION_DEPENDENCY_THRESHOLD, Dagster 1.13), and is not transitive.
        code_version=project.recipes[step.name].code[:16],
        # A run of many partitions yields no output, only events. Without this, Dagster fails a step without an output.
        skippable=True,
        metadata={"level": step.level, "source": step.source.name, "cpus": step.resources.cpus or 1},
    )


def _making(context: dg.AssetExecutionContext, project: Project, step: Step, config: dg.Config, jobs: Jobs) -> StepRun:
    keys, stop = _asked_keys(context), Stop(lambda: wanted(context.instance, context.run))
    ahead = ahead_of(context.run, stop, step.name, keys)
    return StepRun(
        project,
        step,
        keys=keys,
        run_id=context.run.run_id,
        params=_given(config),
        stale_only=context.run.tags.get(ONLY_STALE) == "stale",
        tells=True,
        among=asked_of(project, context.run),
        again=context.run.tags.get(CACHE) == "off",
        runner=jobs.runner(project, stop, _notes(context), ahead),
        ahead=ahead,
    )


def _asked_keys(context: dg.AssetExecutionContext) -> Sequence[str]:
    """The partitions of a run without those that it only passes over."""
    said, covered = context.run.tags.get(ASKED_TAG), partitions_of(context)
    if said is None:
        return covered
    asked = asked_partitions(said, covered)
    context.log.info(f"{len(asked):,} of these {len(covered):,} partitions were asked for; the others are passed over")
    return asked


def _notes(context: dg.AssetExecutionContext) -> progress.Reader:
    def tell(text: str) -> None:
        progress.note(text)
        context.log.info(text)

    return tell


def _events(context: dg.AssetExecutionContext, making: StepRun) -> Iterator[Any]:
    """Materializations as nodes are settled; at the end a failure that names every node that was not made."""
    # One output gives every partition of a run the same data version (Dagster 1.13, execute_step.py,
    # _get_output_asset_events). So a result is yielded for a single partition only; many are logged one by one.
    single = len(making.keys) == 1
    chained = not single and _is_followed(context, making)
    bad: list[Outcome] = []
    waiting: list[Outcome] = []
    dependencies = [dep.asset_key for dep in _deps(making.project, making.step)]
    tags = step_tags(making.project, making.step, dependencies, last_event(context.instance))
    progress.tell(progress.StepBegun(making.step.name))
    for settled in _each_at_once(context.instance, making.settled()):
        for outcome in settled:
            progress.tell(outcome)
            print_log(making.project, outcome, context.run)
            if outcome.state in ("failed", "blocked"):
                context.log.error(failure_text(making.project, outcome))
                bad.append(outcome)
            else:
                waiting.append(outcome)
        if not chained:
            yield from _reported(context.instance, making, waiting, tags, single)
            waiting = []
    if chained and not bad:
        # A step without an output makes Dagster skip its downstream steps in the same run.
        yield dg.MaterializeResult()  # lets the next step of this run begin; the true events follow and count
    yield from _reported(context.instance, making, waiting, tags, single)
    if bad:
        # At the end: a failure before the last event would hide the partitions that were made. A run that only logs
        # failures would count as a success.
        raise _failure(making.project, making.step, bad)


def _each_at_once(instance: dg.DagsterInstance, making: Iterator[list[Outcome]]) -> Iterator[list[Outcome]]:
    """While nodes are made, others see at once what Dagster is told, and wait for nothing."""
    while True:
        with at_once(instance):
            settled = next(making, None)
        if settled is None:
            return
        yield settled


def _is_followed(context: dg.AssetExecutionContext, making: StepRun) -> bool:
    """Whether a dependent step is in the same run, as with a partition range from the shell."""
    chosen = context.job_def.asset_layer.executable_asset_keys
    return any(key_of(making.project, name) in chosen for name in making.project.steps.downstream(making.step.name))


def _reported(
    instance: dg.DagsterInstance, making: StepRun, outcomes: Sequence[Outcome], tags: Mapping[str, str], single: bool
) -> Iterator[Any]:
    # Metadata of 50 nodes are read at once; between batches the first ones are visible in the UI.
    for at in range(0, len(outcomes), BATCH):
        some = outcomes[at : at + BATCH]
        yield from _reported_batch(making, some, tags, single)
        commit(instance)
        ledger.mark_reported(making.project, [one.materialization or 0 for one in some])


def _reported_batch(
    making: StepRun, outcomes: Sequence[Outcome], tags: Mapping[str, str], single: bool
) -> Iterator[Any]:
    described = describe(making.project, making.step, outcomes)
    for one in outcomes:
        metadata = described[one.materialization or 0]
        if single:
            version = dg.DataVersion(one.data_version or "")
            yield dg.MaterializeResult(metadata=metadata, data_version=version, tags=tags)
        else:
            yield dg.AssetMaterialization(
                key_of(making.project, making.step.name),
                partition=one.node[1],
                metadata=metadata,
                tags={DATA_VERSION: one.data_version or "", **tags},
            )


def _failure(project: Project, step: Step, bad: Sequence[Outcome]) -> dg.Failure:
    first, log = bad[0], bad[0].log if may_tell(project, bad[0]) else None
    more = f", and {len(bad) - 1} more" if len(bad) > 1 else ""
    return dg.Failure(
        f"{step.name}: {first.node[1]} {first.state}: {first.why}{more}",
        metadata={
            "not made": dg.MetadataValue.json({one.node[1]: f"{one.state}: {one.why}" for one in bad[:100]}),
            **({"log": dg.MetadataValue.path(log)} if log else {}),
            **({"log tail": dg.MetadataValue.md(fenced(log))} if log else {}),
        },
        allow_retries=False,
    )


def _deps(project: Project, step: Step) -> Iterator[dg.AssetDep]:
    """Dependencies for the UI. The catalog knows the true upstream partitions of a node."""
    seen: dict[str, Level | str] = {up: project.steps[up].level for up in step.inputs.values()}
    if step.files:
        seen[step.level] = step.level
    for column in step.columns:
        seen[column.partition(".")[0]] = column.partition(".")[0]
    if step.references:
        seen["reference"] = "reference"
    for name, level in seen.items():
        # Explicit also across levels: without a mapping Dagster infers identity between any two dynamic definitions,
        # and a backfill fails with `depends on non-existent partitions`. Mappings of our own are unknown to webserver
        # and daemon.
        mapping = dg.IdentityPartitionMapping() if level == step.level else dg.AllPartitionMapping()
        yield dg.AssetDep(key_of(project, name), partition_mapping=mapping)


def _policy(project: Project, step: Step) -> dg.BackfillPolicy:
    if "--partition-range" in sys.argv:  # Dagster's shell makes a range only where this is the policy
        return dg.BackfillPolicy.single_run()
    most = project.settings.run.partitions_per_run or 500
    # Depth makes the policies differ, so that a backfill gives steps of different depth runs of their own (see above).
    return dg.BackfillPolicy.multi_run(max_partitions_per_run=most + project.steps.depth(step.name))


def _config(project: Project, step: Step) -> type[dg.Config]:
    """The parameters as a Dagster config, with the project's values as defaults."""
    today = project.params(step)
    known: dict[str, Any] = {}
    for field in fields(step.params) if step.params else ():
        value = getattr(today, field.name)
        kind = list[str] if isinstance(value, tuple) else type(value)
        known[field.name] = (kind, list(value) if isinstance(value, tuple) else value)
    return create_model(f"{step.name}_parameters", __base__=dg.Config, **known)


def _given(config: dg.Config) -> dict[str, Any]:
    return {name: getattr(config, name) for name in type(config).model_fields}
