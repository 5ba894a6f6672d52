"""③ Asset checks: are the bytes there, do they keep the contract, is the asset complete."""

from collections.abc import Sequence
from typing import Any

import dagster as dg
from sqlalchemy import select

from ctcore.catalog.tables import artifact, materialization
from ctcore.project import Project
from ctcore.staleness import evaluate
from ctcore.step import Step
from ctcore.verify import verify_asset
from resources import CtProject

SHOWN = 50


def step_checks(step: Step) -> list[dg.AssetChecksDefinition]:
    """The three checks of a step asset."""
    return [_bytes_check(step.name), _contract_check(step.name), _completeness_check(step.name)]


def _result(
    problems: Sequence[str],
    looked: int,
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR,
    **more: int,
) -> dg.AssetCheckResult:
    metadata: dict[str, Any] = {"looked at": looked, "found": len(problems), **more}
    if problems:
        metadata["problems"] = dg.MetadataValue.md("\n".join(f"- {said}" for said in problems[:SHOWN]))
    return dg.AssetCheckResult(passed=not problems, metadata=metadata, severity=severity)


def _run_of(context: dg.AssetCheckExecutionContext) -> str | None:
    """The run, if it also makes the asset: its check is about what it made. None: about everything there is."""
    return context.run.run_id if context.run.asset_selection else None


def _bytes_check(name: str) -> dg.AssetChecksDefinition:
    @dg.asset_check(asset=name, name="bytes", description="Every file is there with the digest it was published with.")
    def check(context: dg.AssetCheckExecutionContext, ct: CtProject) -> dg.AssetCheckResult:
        found = verify_asset(ct.open(), name, _run_of(context))
        said = [f"{one.node[1]}: {one.file} {one.problem}" for one in found.findings]
        return _result(said, found.artifacts, bytes=found.bytes)

    return check


def _contract_check(name: str) -> dg.AssetChecksDefinition:
    @dg.asset_check(asset=name, name="contract", description="Every output still keeps the step's contract of today.")
    def check(context: dg.AssetCheckExecutionContext, ct: CtProject) -> dg.AssetCheckResult:
        project = ct.open()
        folders = _folders(project, name, _run_of(context))
        said = [
            f"{partition}: {output.file}: {problem}"
            for partition, folder in folders
            for output in project.steps[name].outputs.values()
            if output.contract is not None and (project.store.root / folder / output.file).is_file()
            for problem in output.contract.problems(project.store.root / folder / output.file)
        ]
        return _result(said, len(folders))

    return check


def _completeness_check(name: str) -> dg.AssetChecksDefinition:
    @dg.asset_check(asset=name, name="completeness", description="Every usable entity has a fresh artifact.")
    def check(ct: CtProject) -> dg.AssetCheckResult:
        counts = evaluate(ct.open()).count(name)
        said = [f"{n} {state}" for state, n in counts.items() if state not in ("fresh", "excluded") and n]
        return _result(said, sum(counts.values()), dg.AssetCheckSeverity.WARN, fresh=counts["fresh"])

    return check


def _folders(project: Project, name: str, run_id: str | None) -> list[tuple[str, str]]:
    wanted = artifact.c.asset == name
    if run_id is not None:
        wanted &= materialization.c.run_id == run_id
    with project.catalog.read() as connection:
        rows = connection.execute(
            select(artifact.c.partition, materialization.c.folder)
            .join(materialization, materialization.c.id == artifact.c.materialization)
            .where(wanted)
        )
        return [(row[0], row[1]) for row in rows]
