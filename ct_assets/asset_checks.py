"""Asset checks of a step: bytes, contract, gate, completeness, readiness and freshness.

They are part of the asset's own computation, because Dagster skips a separate check after a run of many partitions. In
a run that makes the asset they check what the run made; run alone, they check every partition.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import dagster as dg
from sqlalchemy import select

from ct_assets.asset_keys import key_of
from ct_assets.compute_logs import listed
from ctcore.catalog.tables import artifact, materialization
from ctcore.cohorts.partitions import partitions
from ctcore.governance.masking import mask_of
from ctcore.inputs.exclusions import by_kind
from ctcore.integrity.verify import Finding, verify_asset
from ctcore.project import Project
from ctcore.query.readable import Gate
from ctcore.query.readiness import members_left_out
from ctcore.staleness.summary import Overview, change_of, is_missing, overview_of
from ctcore.staleness.verdicts import Verdicts, evaluate
from ctcore.staleness.waivers import summaries
from ctcore.step import Step

SHOWN = 50
BYTES = "bytes"
READY = "readiness"
_DESCRIPTIONS = {
    BYTES: "Every file exists with the digest that it was published with.",
    "contract": "Every output keeps the present contract of its step.",
    "completeness": "Every usable entity has a fresh artifact.",
    READY: "Every member that a cohort's rule selects is in its artifact, and complete in the cohort's pairing.",
    "gate": "No artifact contains anybody who may not be used today.",
    "fresh": "Every artifact would be made from the same inputs today; differences are listed as in `ct why`.",
}


def check_specs(key: dg.AssetKey, step: Step) -> list[dg.AssetCheckSpec]:
    """The checks of a step asset."""
    return [
        dg.AssetCheckSpec(check, asset=key, description=said)
        for check, said in _DESCRIPTIONS.items()
        if check != READY or step.level == "cohort"
    ]


def check_results(
    project: Project, step: Step, checks: Sequence[str], run_id: str | None
) -> Iterator[dg.AssetCheckResult]:
    """Results of the named checks; `run_id` limits them to what one run made."""
    look = _Look(project, step, run_id)
    for check in checks:
        yield _CHECKS[check](look)


@dataclass(frozen=True)
class _Look:
    """The subject of one step's checks. The verdicts are evaluated once for all of them."""

    project: Project
    step: Step
    run_id: str | None

    @property
    def key(self) -> dg.AssetKey:
        return key_of(self.project, self.step.name)

    @cached_property
    def verdicts(self) -> Verdicts:
        return evaluate(self.project)


def damage_found(key: dg.AssetKey, findings: Sequence[Finding]) -> dg.AssetCheckEvaluation:
    """Damage that a check of the store found in an asset, as a failed check of bytes."""
    result = _bytes_result(key, findings, len({one.node for one in findings}))
    return dg.AssetCheckEvaluation(
        asset_key=key, check_name=BYTES, passed=False, metadata=result.metadata, severity=result.severity
    )


def _bytes(look: _Look) -> dg.AssetCheckResult:
    found = verify_asset(look.project, look.step.name, look.run_id)
    return _bytes_result(look.key, found.findings, found.artifacts, {"bytes": found.bytes})


def _bytes_result(
    key: dg.AssetKey, findings: Sequence[Finding], looked: int, more: Mapping[str, int] | None = None
) -> dg.AssetCheckResult:
    said = [f"{one.node[1]}: {one.file} {one.problem}" for one in findings]
    return _result(key, BYTES, said, looked, more or {})


def _contract(look: _Look) -> dg.AssetCheckResult:
    project, step = look.project, look.step
    folders, hidden = _folders(project, step.name, look.run_id), mask_of(project).hidden_partitions(step.name)
    said = [
        f"{partition}: {output.file}: {problem}"
        for partition, folder in folders
        if partition not in hidden
        for output in step.outputs.values()
        if output.contract is not None and (project.store.root / folder / output.file).is_file()
        for problem in output.contract.problems(project.store.root / folder / output.file)
    ]
    return _result(look.key, "contract", said, len(folders), {})


def _fresh(look: _Look) -> dg.AssetCheckResult:
    """Nodes that are made but not fresh, one by one or in groups, and which differences were accepted by whom."""
    step, project = look.step, look.project
    found = overview_of(project, look.verdicts, {step.name: set(partitions(project, step.level))})
    made = Overview(found.counts, [verdict for verdict in found.verdicts if not is_missing(verdict)])
    if len(made.verdicts) <= SHOWN:
        said = [f"{verdict.partition} ({change_of(verdict)}): {verdict.why}" for verdict in made.verdicts]
    else:
        said = [f"{group.nodes} nodes: {group.kind}: {group.text}" for group in made.groups()]
    count = found.counts[0]
    more: dict[str, Any] = {"fresh": count.fresh, "changed": count.changed, "about to change": count.waiting}
    accepted = look.verdicts.accepted[step.name].values()
    if accepted:
        with project.catalog.read() as connection:
            lines = [mask_of(project).mask_words(one) for one in summaries(connection, accepted)]
        more |= {"accepted": len(accepted), "accepted reasons": _lines(lines)}
    return _result(look.key, "fresh", said, count.nodes, more, dg.AssetCheckSeverity.WARN)


def _gate(look: _Look) -> dg.AssetCheckResult:
    """Number of results that contain somebody who may not be used today, and counts of exclusions. It names nobody."""
    with look.project.catalog.read() as connection:
        gate = Gate.of(look.project, connection)
        made = gate.snapshot.made[look.step.name].materialization != 0
        inside = made & gate.usable_for(look.step.name, look.step.level) & ~gate.is_clean(look.step)
        more: dict[str, Any] = {"left out": gate.why_left_out.words or "nobody"}
    many = int(inside.sum())
    said = [f"{many} of {int(made.sum())} contain somebody who may not be used today; `ct run` makes them again"]
    looked = int(made.sum())
    return _result(look.key, "gate", said if many else [], looked, more, dg.AssetCheckSeverity.WARN)


def usable_spec(project: Project, level: str) -> dg.AssetCheckSpec:
    """The check of a registry asset."""
    return dg.AssetCheckSpec(
        "usable",
        asset=key_of(project, level),
        description="Everybody may be used; else counts of exclusions by reason.",
    )


def usable_result(project: Project, level: str) -> dg.AssetCheckResult:
    """Counts only; `ct qc list` and `ct consent list` name the people."""
    with project.catalog.read() as connection:
        gate = Gate.of(project, connection)
        kinds, flags = gate.why_left_out.levels.get(level, {}), gate.usable(level)
        steps = {name: by_kind(some[level]) for name, some in gate.why_left_out.steps.items() if level in some}
    may = int(flags.sum())
    said = [f"{n} {kind}" for kind, n in kinds.items()] + [f"for {name} only: {what}" for name, what in steps.items()]
    more = {"usable": may, "left out": ", ".join(said) or "nobody"}
    return _result(key_of(project, level), "usable", said, len(flags), more, dg.AssetCheckSeverity.WARN)


def _completeness(look: _Look) -> dg.AssetCheckResult:
    counts = look.verdicts.count(look.step.name)
    said = [f"{n} {state}" for state, n in counts.items() if state not in ("fresh", "excluded") and n]
    warn = dg.AssetCheckSeverity.WARN
    return _result(look.key, "completeness", said, sum(counts.values()), {"fresh": counts["fresh"]}, warn)


def _readiness(look: _Look) -> dg.AssetCheckResult:
    """Members that a cohort's rule selects and its artifact lacks, and groups that are not complete."""
    with look.project.catalog.read() as connection:
        seen = mask_of(look.project, connection)
        said = [seen.mask_words(one) for one in members_left_out(Gate.of(look.project, connection), look.step, SHOWN)]
    warn = dg.AssetCheckSeverity.WARN
    return _result(look.key, READY, said, len(look.project.settings.cohorts), {}, warn)


_CHECKS: dict[str, Callable[[_Look], dg.AssetCheckResult]] = {
    BYTES: _bytes,
    "contract": _contract,
    "completeness": _completeness,
    "gate": _gate,
    "fresh": _fresh,
    READY: _readiness,
}


def _result(
    key: dg.AssetKey,
    check: str,
    problems: Sequence[str],
    looked: int,
    more: Mapping[str, Any],
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR,
) -> dg.AssetCheckResult:
    metadata: dict[str, Any] = {"looked at": looked, "found": len(problems), **more}
    if problems:
        metadata["problems"] = _lines(problems)
    return dg.AssetCheckResult(
        asset_key=key, check_name=check, passed=not problems, metadata=metadata, severity=severity
    )


def _lines(said: Sequence[str]) -> dg.MetadataValue:
    return dg.MetadataValue.md(listed(said[:SHOWN]))


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
