"""ct.toml on QC and consent: the kinds of QC events, and the use of each step."""

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast, get_args

from ctcore.model.levels import ENTITY_LEVELS, Level
from ctcore.model.schema import COLUMN_NAME

Status = Literal["pass", "warn", "censored", "fail"]
STATUSES: tuple[Status, ...] = get_args(Status)
"""From best to worst; an entity has the worst of its open events."""
BARRING: tuple[Status, ...] = ("censored", "fail")


@dataclass(frozen=True)
class QcKind:
    """A kind of QC event: the levels it applies to, and the status it gives an entity."""

    name: str
    levels: tuple[Level, ...]
    status: Status


def _built_in() -> dict[str, QcKind]:
    anyone: tuple[Level, ...] = ENTITY_LEVELS
    material: tuple[Level, ...] = ("specimen", "assay")
    said: list[tuple[str, tuple[Level, ...], Status]] = [
        ("qc_fail", anyone, "fail"),
        ("library_prep_failed", ("assay",), "fail"),
        ("basecall_accuracy_low", ("assay",), "fail"),
        ("sequencing_run_failed", ("assay",), "fail"),
        ("contamination", material, "fail"),
        ("protocol_deviation", material, "fail"),
        ("superseded", anyone, "censored"),
        ("other", anyone, "censored"),
        ("qc_warn", anyone, "warn"),
        ("batch_effect_flagged", anyone, "warn"),
    ]
    return {name: QcKind(name, levels, status) for name, levels, status in said}


KINDS: Mapping[str, QcKind] = _built_in()
OF_STATUS: Mapping[str, str] = {"warn": "qc_warn", "censored": "other", "fail": "qc_fail"}
"""The kind of what a step itself says of its entity."""


@dataclass(frozen=True)
class Uses:
    """The uses that consent may be limited to (`known`), and the use of each step: its own, or the one for all steps.

    `required`: a patient without a recorded consent may not be used.
    """

    known: tuple[str, ...] = ()
    every: str | None = None
    steps: Mapping[str, str] = field(default_factory=dict)
    required: bool = False

    def of(self, step: str) -> str | None:
        return self.steps.get(step, self.every)


def qc_problem(facts: Mapping[str, Any], level: Level) -> str | None:
    """The problem of the QC that a step returns (`qc`, `qc_reason`); None if it is right."""
    status, reason = facts.get("qc"), facts.get("qc_reason")
    if status is None:
        return None if reason is None else "it returns a qc_reason without qc"
    if level == "cohort":
        return "it returns qc, but a cohort has none: say it of a patient, specimen or assay"
    if status not in STATUSES:
        return f"it returns qc = {status!r:.80}; it is one of {', '.join(STATUSES)}"
    if status != "pass" and not (isinstance(reason, str) and reason.strip() and reason.isprintable()):
        return (
            f'it returns qc = {status!r} without a reason; add qc_reason, one line: {{"qc": "fail", "qc_reason": "…"}}'
        )
    return None


def read_kinds(table: Mapping[str, Any]) -> tuple[dict[str, QcKind], list[str]]:
    """The built-in kinds with those of `[qc.kinds]`, and everything that is wrong with these."""
    found, problems = dict(KINDS), []
    for name, declared in table.items():
        where = f"[qc.kinds.{name}]"
        if not re.fullmatch(COLUMN_NAME, name):
            problems.append(f"{where}: a kind is named with letters, digits and _")
        if not isinstance(declared, dict):
            problems.append(f'{where}: a table is expected, with levels = ["assay"] and status = "fail"')
            continue
        entry = cast(dict[str, Any], declared)
        problems += [f"{where}: {said}" for said in _unknown(entry, ("levels", "status"))]
        levels, status = entry.get("levels", list(ENTITY_LEVELS)), entry.get("status")
        if not isinstance(levels, list) or not levels or not set(map(str, levels)) <= set(ENTITY_LEVELS):
            problems.append(f"{where} levels = {levels!r:.80}: a list of {', '.join(ENTITY_LEVELS)}")
        elif status not in STATUSES[1:]:
            problems.append(f'{where} status = {status!r:.80}: it is "fail", "censored" or "warn"')
        else:
            found[name] = QcKind(name, tuple(cast(list[Level], levels)), status)
    return found, problems


def read_uses(table: Mapping[str, Any]) -> tuple[Uses, list[str]]:
    """`[consent]`, and everything that is wrong with it."""
    problems = [f"[consent]: {said}" for said in _unknown(table, ("uses", "use", "steps", "required"))]
    known, every, steps = table.get("uses", []), table.get("use"), table.get("steps", {})
    required = table.get("required", False)
    if not isinstance(required, bool):
        problems.append(f"[consent] required = {required!r:.80}: true or false")
    if not isinstance(known, list) or not all(isinstance(one, str) and one.strip() and "," not in one for one in known):
        problems.append(f'[consent] uses = {known!r:.80}: a list of texts without commas, as in ["research"]')
        known = []
    if not isinstance(steps, dict):
        problems.append(f'[consent] steps = {steps!r:.80}: a table [consent.steps] is expected, with STEP = "use"')
        steps = {}
    named = {"[consent] use": every, **{f"[consent.steps] {name}": use for name, use in steps.items()}}
    for where, use in named.items():
        if use is not None and use not in known:
            listed = ", ".join(map(repr, known)) or "none; add it to [consent] uses"
            problems.append(f"{where} = {use!r:.80} is not among the uses: {listed}")
    return (Uses() if problems else Uses(tuple(known), every, steps, required)), problems


def _unknown(table: Mapping[str, Any], known: Iterable[str]) -> list[str]:
    found = []
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
            found.append(f"unknown key {key!r}; {hint}")
    return found
