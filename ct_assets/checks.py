"""③ Asset checks: are the bytes there, do they keep the contract, is the asset complete.

They are part of the asset's own computation, because Dagster skips a separate check behind a run of many partitions.
In a run that makes the asset they look at what it made; run by themselves, at everything.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import dagster as dg
from sqlalchemy import select

from ctcore.catalog.tables import artifact, materialization
from ctcore.project import Project
from ctcore.staleness import evaluate
from ctcore.step import Step
from ctcore.verify import Finding, verify_asset

SHOWN = 50
BYTES = "bytes"
_DESCRIPTIONS = {
    BYTES: "Every file is there with the digest it was published with.",
    "contract": "Every output still keeps the step's contract of today.",
    "completeness": "Every usable entity has a fresh artifact.",
}


def check_specs(name: str) -> list[dg.AssetCheckSpec]:
    """The three checks of a step asset."""
    return [dg.AssetCheckSpec(check, asset=name, description=said) for check, said in _DESCRIPTIONS.items()]


def check_results(
    project: Project, step: Step, checks: Sequence[str], run_id: str | None
) -> Iterator[dg.AssetCheckResult]:
    """Results of the named checks; `run_id` limits them to what one run made."""
    for check in checks:
        yield _CHECKS[check](project, step, run_id)


def damage_found(asset: str, findings: Sequence[Finding]) -> dg.AssetCheckEvaluation:
    """What a look at the store found in an asset, as its failed check of bytes."""
    result = _bytes_result(asset, findings, len({one.node for one in findings}))
    return dg.AssetCheckEvaluation(
        asset_key=dg.AssetKey(asset), check_name=BYTES, passed=False, metadata=result.metadata, severity=result.severity
    )


def _bytes(project: Project, step: Step, run_id: str | None) -> dg.AssetCheckResult:
    found = verify_asset(project, step.name, run_id)
    return _bytes_result(step.name, found.findings, found.artifacts, {"bytes": found.bytes})


def _bytes_result(
    asset: str, findings: Sequence[Finding], looked: int, more: Mapping[str, int] | None = None
) -> dg.AssetCheckResult:
    said = [f"{one.node[1]}: {one.file} {one.problem}" for one in findings]
    return _result(asset, BYTES, said, looked, more or {})


def _contract(project: Project, step: Step, run_id: str | None) -> dg.AssetCheckResult:
    folders = _folders(project, step.name, run_id)
    said = [
        f"{partition}: {output.file}: {problem}"
        for partition, folder in folders
        for output in step.outputs.values()
        if output.contract is not None and (project.store.root / folder / output.file).is_file()
        for problem in output.contract.problems(project.store.root / folder / output.file)
    ]
    return _result(step.name, "contract", said, len(folders), {})


def _completeness(project: Project, step: Step, run_id: str | None) -> dg.AssetCheckResult:
    counts = evaluate(project).count(step.name)
    said = [f"{n} {state}" for state, n in counts.items() if state not in ("fresh", "excluded") and n]
    warn = dg.AssetCheckSeverity.WARN
    return _result(step.name, "completeness", said, sum(counts.values()), {"fresh": counts["fresh"]}, warn)


_CHECKS: dict[str, Callable[[Project, Step, str | None], dg.AssetCheckResult]] = {
    BYTES: _bytes,
    "contract": _contract,
    "completeness": _completeness,
}


def _result(
    asset: str,
    check: str,
    problems: Sequence[str],
    looked: int,
    more: Mapping[str, int],
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR,
) -> dg.AssetCheckResult:
    metadata: dict[str, Any] = {"looked at": looked, "found": len(problems), **more}
    if problems:
        metadata["problems"] = dg.MetadataValue.md("\n".join(f"- {said}" for said in problems[:SHOWN]))
    return dg.AssetCheckResult(
        asset_key=dg.AssetKey(asset), check_name=check, passed=not problems, metadata=metadata, severity=severity
    )


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
