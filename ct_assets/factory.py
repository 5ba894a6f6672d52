"""③ The one factory: a declared step becomes a Dagster asset.

A run of one partition yields a result, so that steps chain inside a run. A run of many logs one materialization a
partition, each with its own data version, as they end; Dagster gives every partition of a run the same one
otherwise, and what depends on an asset that yielded no result is skipped in that run. So steps of different depth
have different backfill policies, by which a backfill gives each its own runs.
"""

import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

import dagster as dg
from pydantic import create_model

from ct_assets.checks import check_results, check_specs
from ct_assets.eventlog import kept_open
from ct_assets.keys import group_of, key_of
from ct_assets.logs import failure_text, fenced, may_tell, print_log
from ct_assets.metadata import describe
from ct_assets.partitions import definition
from ct_assets.runs import asked_of, sign, wanted
from ct_assets.versions import DATA_VERSION, last_event, step_tags
from ctcore import ledger, progress
from ctcore.errors import CtError
from ctcore.making import Making, Outcome
from ctcore.project import Project
from ctcore.slurm.stop import Stop
from ctcore.step import Level, Step
from resources import CtProject, Jobs

ONLY_STALE = "ct/only"
CACHE = "ct/cache"  # `off`: what was made before is made again beside it, and compared
BATCH = 50

warnings.filterwarnings("ignore", category=dg.BetaWarning)  # backfill policies are what makes few runs of many nodes


def step_asset(project: Project, step: Step) -> dg.AssetsDefinition:
    """The asset of a step with its checks: partitioned by its level, configured by its parameters."""
    config_class = _config(project, step)

    @dg.multi_asset(
        name=step.name,
        specs=[_spec(project, step)],
        check_specs=check_specs(key_of(project, step.name), step),
        can_subset=True,
        backfill_policy=_policy(project, step),
        op_tags={"ct/step": step.name},
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
            yield from check_results(opened, opened.steps[step.name], checks, context.run.run_id if made else None)

    return body


@contextmanager
def _refusing() -> Iterator[None]:
    """What ct refuses is a failed run that says why, and is not tried again."""
    try:
        yield
    except CtError as error:
        raise dg.Failure(str(error), allow_retries=False) from error


def _spec(project: Project, step: Step) -> dg.AssetSpec:
    return dg.AssetSpec(
        key_of(project, step.name),
        description=step.description,
        partitions_def=definition(project.id, step.level),
        deps=list(_deps(project, step)),
        group_name=group_of(project, step.group),
        kinds=set(step.kinds),
        code_version=project.recipes[step.name].code[:16],
        skippable=True,
        metadata={"level": step.level, "source": step.source.name, "cpus": step.resources.cpus or 1},
    )


def _making(context: dg.AssetExecutionContext, project: Project, step: Step, config: dg.Config, jobs: Jobs) -> Making:
    return Making(
        project,
        step,
        keys=context.partition_keys,
        run_id=context.run.run_id,
        params=_given(config),
        stale_only=context.run.tags.get(ONLY_STALE) == "stale",
        tells=True,
        among=asked_of(project, context.run),
        again=context.run.tags.get(CACHE) == "off",
        runner=jobs.runner(project, Stop(lambda: wanted(context.instance, context.run)), _notes(context)),
    )


def _notes(context: dg.AssetExecutionContext) -> progress.Reader:
    def tell(text: str) -> None:
        progress.note(text)
        context.log.info(text)

    return tell


def _events(context: dg.AssetExecutionContext, making: Making) -> Iterator[Any]:
    """Materializations as nodes are settled; at the end a failure that names all that could not be made."""
    single = len(making.keys) == 1
    chained = not single and _is_followed(context, making)
    bad: list[Outcome] = []
    waiting: list[Outcome] = []
    dependencies = [dep.asset_key for dep in _deps(making.project, making.step)]
    tags = step_tags(making.project, making.step, dependencies, last_event(context.instance))
    for settled in making.settled():
        for outcome in settled:
            progress.tell(outcome)
            print_log(making.project, outcome, context.run)
            if outcome.state in ("failed", "blocked"):
                context.log.error(failure_text(making.project, outcome))
                bad.append(outcome)
            else:
                waiting.append(outcome)
        if not chained:
            yield from _reported(making, waiting, tags, single)
            waiting = []
    if chained and not bad:
        yield dg.MaterializeResult()  # lets the next step of this run begin; the true events follow and count
    yield from _reported(making, waiting, tags, single)
    if bad:
        raise _failure(making.project, making.step, bad)


def _is_followed(context: dg.AssetExecutionContext, making: Making) -> bool:
    """A step that depends on this one is in the same run (a partition range from the shell)."""
    chosen = context.job_def.asset_layer.executable_asset_keys
    return any(key_of(making.project, name) in chosen for name in making.project.steps.downstream(making.step.name))


def _reported(making: Making, outcomes: Sequence[Outcome], tags: Mapping[str, str], single: bool) -> Iterator[Any]:
    for at in range(0, len(outcomes), BATCH):
        yield from _reported_batch(making, outcomes[at : at + BATCH], tags, single)


def _reported_batch(
    making: Making, outcomes: Sequence[Outcome], tags: Mapping[str, str], single: bool
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
    ledger.mark_reported(making.project, [one.materialization or 0 for one in outcomes])


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
    """The picture in the UI; which upstream partitions a node really has, the catalog knows."""
    seen: dict[str, Level | str] = {up: project.steps[up].level for up in step.inputs.values()}
    if step.files:
        seen[step.level] = step.level
    for column in step.columns:
        seen[column.partition(".")[0]] = column.partition(".")[0]
    if step.references:
        seen["reference"] = "reference"
    for name, level in seen.items():
        mapping = dg.IdentityPartitionMapping() if level == step.level else dg.AllPartitionMapping()
        yield dg.AssetDep(key_of(project, name), partition_mapping=mapping)


def _policy(project: Project, step: Step) -> dg.BackfillPolicy:
    if "--partition-range" in sys.argv:  # Dagster's shell makes a range only where this is the policy
        return dg.BackfillPolicy.single_run()
    most = project.settings.run.partitions_per_run or 500
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
