"""The versions of each cohort's rule: when it changed, who noticed, and the members at that time.

ct.toml is edited without the catalog's knowledge: the first writing command that meets a new rule records it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sqlalchemy import Connection, func, select

from ctcore.catalog.engine import Writer, in_keys
from ctcore.catalog.tables import cohort_rule, materialization
from ctcore.governance.access import barred_entities
from ctcore.model.cohort_rule import Cohort, from_normal, rule_change_text
from ctcore.model.levels import ENTITY_LEVELS
from ctcore.project import Project
from ctcore.snapshot.entities import Columns, load_entities
from ctcore.snapshot.hierarchy import Hierarchy, in_cohort
from ctcore.store.digest import canonical_json
from ctcore.util.clock import today

EVENT = "cohort-rule"
GONE = ""
"""The version of a cohort that ct.toml declares no more."""


@dataclass(frozen=True)
class RuleVersion:
    """One version of a rule. `members`: how many of each level satisfied it when it was first met."""

    cohort: str
    version: str
    words: str
    members: Mapping[str, int]
    at: str
    actor: str


def record_rules(project: Project) -> list[str]:
    """Record rules that changed since the last record. Returns the changes as text.

    In an archived project, changes are reported and not recorded.
    """
    declared = project.settings.cohorts
    with project.catalog.read() as connection:
        before = last_rules(connection)
        news = _news(before, declared)
    if not news or project.catalog.project_state().is_archived:
        return _said(news, before, declared)
    with project.catalog.write() as writer:
        # Again, under the lock: since the look above, another command may have recorded the same change.
        before = last_rules(writer.connection)
        news = _news(before, declared)
        hierarchy = hierarchy_of(writer.connection, [declared[name] for name in news if name in declared])
        number = (writer.execute(select(func.max(cohort_rule.c.id))).scalar() or 0) + 1
        for at, name in enumerate(news):
            _write(writer, number + at, name, before.get(name), declared.get(name), hierarchy)
    return _said(news, before, declared)


def last_rules(connection: Connection) -> dict[str, Any]:
    """The last recorded rule of each cohort, as rows."""
    return {row.cohort: row for row in connection.execute(select(cohort_rule).order_by(cohort_rule.c.id))}


def rule_versions(connection: Connection, cohort: str) -> list[RuleVersion]:
    """All versions of a rule, the first one first."""
    mine = select(cohort_rule).where(cohort_rule.c.cohort == cohort).order_by(cohort_rule.c.id)
    return [
        RuleVersion(row.cohort, row.version, row.words, json.loads(row.members), row.at, row.actor)
        for row in connection.execute(mine)
    ]


def other_rules(connection: Connection, made: Sequence[int], cohorts: Sequence[Cohort]) -> dict[int, Cohort]:
    """By place of the cohort: the rule by which its artifact was made, where that is not today's.

    `made` has the number of the materialization of each cohort; 0 where there is none.
    """
    places = {number: at for at, number in enumerate(made) if number}
    mine = in_keys(materialization.c.id, places)
    rows = connection.execute(select(materialization.c.id, materialization.c.rule).where(mine)).all() if places else []
    other = {places[row.id]: row.rule for row in rows if row.rule not in (None, cohorts[places[row.id]].version)}
    if not other:
        return {}
    mine = select(cohort_rule).where(cohort_rule.c.version.in_(set(other.values())))
    known = {row.version: rule_of_row(row) for row in connection.execute(mine.order_by(cohort_rule.c.id))}
    return {at: known[version] for at, version in other.items() if version in known}


def rule_of_row(row: Any) -> Cohort:
    return from_normal(json.loads(row.rule), row.cohort)


def hierarchy_of(connection: Connection, cohorts: Sequence[Cohort]) -> Hierarchy:
    """Everybody as the catalog has them, with the columns of these rules; needs no steps."""
    used = {column for one in cohorts for column in one.columns()}
    compared = {column for one in cohorts for column in one.columns(compared=True)}
    return Hierarchy(load_entities(connection, Columns.of(used, compared), barred_entities(connection, {}, today())))


def member_counts(hierarchy: Hierarchy, cohort: Cohort) -> dict[str, int]:
    return {level: int(np.count_nonzero(in_cohort(hierarchy, level, cohort))) for level in ENTITY_LEVELS}


def _news(before: Mapping[str, Any], declared: Mapping[str, Cohort]) -> list[str]:
    """Cohorts whose rule is not the one that was written last."""
    gone = [name for name, row in before.items() if name not in declared and row.version != GONE]
    return [
        *(name for name, one in declared.items() if name not in before or before[name].version != one.version),
        *gone,
    ]


def _write(writer: Writer, number: int, name: str, before: Any, declared: Cohort | None, hierarchy: Hierarchy) -> None:
    said = {
        "version": declared.version if declared else GONE,
        "rule": declared.normal if declared else None,
        "words": declared.words if declared else "not declared any more",
    }
    members = member_counts(hierarchy, declared) if declared else {}
    texts = {"rule": canonical_json(said["rule"]).decode(), "members": canonical_json(members).decode()}
    writer.insert(
        cohort_rule, [{"id": number, "cohort": name, **said, **texts, "at": writer.at, "actor": writer.actor}]
    )
    old = before and {"version": before.version, "rule": json.loads(before.rule), "words": before.words}
    writer.event(EVENT, f"cohort/{name}", {"old": old, "new": said, "members": members})


def _said(news: Sequence[str], before: Mapping[str, Any], declared: Mapping[str, Cohort]) -> list[str]:
    words = (_changed(name, before.get(name), declared.get(name)) for name in news)
    return [said for said in words if said is not None]


def _changed(name: str, before: Any, declared: Cohort | None) -> str | None:
    """The change as text, if there was another rule before."""
    if before is None or before.version == GONE:
        return None
    return f"cohort {name}: " + (
        rule_change_text(rule_of_row(before), declared) if declared else "is not declared any more"
    )
