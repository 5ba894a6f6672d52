"""③ Asset checks: are the bytes there, do they keep the contract, who is inside, is the asset complete, is it true.

They are part of the asset's own computation, because Dagster skips a separate check behind a run of many partitions.
In a run that makes the asset they look at what it made; run by themselves, at everything.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import dagster as dg
from sqlalchemy import select

from ct_assets.keys import key_of
from ct_assets.logs import listed
from ctcore.batches import partitions
from ctcore.catalog.tables import artifact, materialization
from ctcore.leftout import by_kind
from ctcore.overview import Overview, change_of, is_missing, overview_of
from ctcore.project import Project
from ctcore.reading.gate import Gate
from ctcore.reading.readiness import not_in
from ctcore.staleness import Verdicts, evaluate
from ctcore.step import Step
from ctcore.veil import veil
from ctcore.verify import Finding, verify_asset
from ctcore.waivers import summaries

SHOWN = 50
BYTES = "bytes"
READY = "readiness"
_DESCRIPTIONS = {
    BYTES: "Every file is there with the digest it was published with.",
    "contract": "Every output still keeps the step's contract of today.",
    "completeness": "Every usable entity has a fresh artifact.",
    READY: "Everybody whom a cohort's rule chooses is among what it is made from, and complete in its pairing.",
    "gate": "Nobody is in what was made who may not be used today.",
    "fresh": "What was made would be made today from the same; what differs is named, as `ct why` names it.",
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
    """What the checks of one step look at; the verdicts are taken once."""

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
    """What a look at the store found in an asset, as its failed check of bytes."""
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
    folders, hidden = _folders(project, step.name, look.run_id), veil(project).of(step.name)
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
    """What was made and differs, node by node or in groups, and what of it was accepted by whom."""
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
            lines = [veil(project).told(one) for one in summaries(connection, accepted)]
        more |= {"accepted": len(accepted), "accepted reasons": _lines(lines)}
    return _result(look.key, "fresh", said, count.nodes, more, dg.AssetCheckSeverity.WARN)


def _gate(look: _Look) -> dg.AssetCheckResult:
    """How many results hold somebody who may not be used today; how many are left out and for what. Nobody is named."""
    with look.project.catalog.read() as connection:
        gate = Gate.of(look.project, connection)
        made = gate.mirror.made[look.step.name].materialization != 0
        inside = made & gate.able(look.step.name, look.step.level) & ~gate.is_clean(look.step)
        more: dict[str, Any] = {"left out": gate.why_left_out.words or "nobody"}
    many = int(inside.sum())
    said = [f"{many} of {int(made.sum())} were made with somebody who may not be used today; `ct run` makes them again"]
    looked = int(made.sum())
    return _result(look.key, "gate", said if many else [], looked, more, dg.AssetCheckSeverity.WARN)


def usable_spec(project: Project, level: str) -> dg.AssetCheckSpec:
    """The check of a registry asset."""
    return dg.AssetCheckSpec(
        "usable", asset=key_of(project, level), description="Everybody may be used; how many may not, and for what."
    )


def usable_result(project: Project, level: str) -> dg.AssetCheckResult:
    """Counts only: who it is, `ct qc list` and `ct consent list` say."""
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
    """Who is not in a cohort's artifact although its rule chooses them, and which groups are not complete."""
    with look.project.catalog.read() as connection:
        seen = veil(look.project, connection)
        said = [seen.told(one) for one in not_in(Gate.of(look.project, connection), look.step, SHOWN)]
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
