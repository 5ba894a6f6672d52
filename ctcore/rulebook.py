"""② The versions of each cohort's rule: when it was seen to be another one, by whom, and who was in the cohort then.

ct.toml is edited behind the catalog's back: a new rule is written down by whoever first meets it and writes.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sqlalchemy import Connection, func, select

from ctcore.catalog.engine import Writer, in_keys
from ctcore.catalog.tables import cohort_rule, materialization
from ctcore.clock import today
from ctcore.cohort import Cohort, change, from_normal
from ctcore.cohorts import Kin, in_cohort
from ctcore.digest import canonical
from ctcore.mirror.entities import Columns, load_entities
from ctcore.policy import gate
from ctcore.project import Project
from ctcore.step import ENTITY_LEVELS

EVENT = "cohort-rule"
GONE = ""
"""The version of a cohort that ct.toml declares no more."""


@dataclass(frozen=True)
class Ruled:
    """One version of a rule. `members`: how many of each level satisfied it when it was first met."""

    cohort: str
    version: str
    words: str
    members: Mapping[str, int]
    at: str
    actor: str


def note(project: Project) -> list[str]:
    """Write down the rules that are not those of the last time. Gives what changed, in words.

    Of an archived project what changed is said, and not written.
    """
    declared = project.settings.cohorts
    with project.catalog.read() as connection:
        before = last(connection)
        news = _news(before, declared)
    if not news or project.catalog.life().is_archived:
        return _said(news, before, declared)
    with project.catalog.write() as writer:
        before = last(writer.connection)
        news = _news(before, declared)
        kin = kin_of(writer.connection, [declared[name] for name in news if name in declared])
        number = (writer.execute(select(func.max(cohort_rule.c.id))).scalar() or 0) + 1
        for at, name in enumerate(news):
            _write(writer, number + at, name, before.get(name), declared.get(name), kin)
    return _said(news, before, declared)


def last(connection: Connection) -> dict[str, Any]:
    """What was written last of each cohort, as rows."""
    return {row.cohort: row for row in connection.execute(select(cohort_rule).order_by(cohort_rule.c.id))}


def history(connection: Connection, cohort: str) -> list[Ruled]:
    """All versions of a rule, the first one first."""
    mine = select(cohort_rule).where(cohort_rule.c.cohort == cohort).order_by(cohort_rule.c.id)
    return [
        Ruled(row.cohort, row.version, row.words, json.loads(row.members), row.at, row.actor)
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
    known = {row.version: rule_in(row) for row in connection.execute(mine.order_by(cohort_rule.c.id))}
    return {at: known[version] for at, version in other.items() if version in known}


def rule_in(row: Any) -> Cohort:
    return from_normal(json.loads(row.rule), row.cohort)


def kin_of(connection: Connection, cohorts: Sequence[Cohort]) -> Kin:
    """Everybody as the catalog has them, with the columns of these rules; needs no steps."""
    used = {column for one in cohorts for column in one.columns()}
    compared = {column for one in cohorts for column in one.columns(compared=True)}
    return Kin(load_entities(connection, Columns.of(used, compared), gate(connection, {}, today())))


def counts(kin: Kin, cohort: Cohort) -> dict[str, int]:
    return {level: int(np.count_nonzero(in_cohort(kin, level, cohort))) for level in ENTITY_LEVELS}


def _news(before: Mapping[str, Any], declared: Mapping[str, Cohort]) -> list[str]:
    """Cohorts whose rule is not the one that was written last."""
    gone = [name for name, row in before.items() if name not in declared and row.version != GONE]
    return [
        *(name for name, one in declared.items() if name not in before or before[name].version != one.version),
        *gone,
    ]


def _write(writer: Writer, number: int, name: str, before: Any, declared: Cohort | None, kin: Kin) -> None:
    said = {
        "version": declared.version if declared else GONE,
        "rule": declared.normal if declared else None,
        "words": declared.words if declared else "not declared any more",
    }
    members = counts(kin, declared) if declared else {}
    texts = {"rule": canonical(said["rule"]).decode(), "members": canonical(members).decode()}
    writer.insert(
        cohort_rule, [{"id": number, "cohort": name, **said, **texts, "at": writer.at, "actor": writer.actor}]
    )
    old = before and {"version": before.version, "rule": json.loads(before.rule), "words": before.words}
    writer.event(EVENT, f"cohort/{name}", {"old": old, "new": said, "members": members})


def _said(news: Sequence[str], before: Mapping[str, Any], declared: Mapping[str, Cohort]) -> list[str]:
    words = (_changed(name, before.get(name), declared.get(name)) for name in news)
    return [said for said in words if said is not None]


def _changed(name: str, before: Any, declared: Cohort | None) -> str | None:
    """In words, where there was another rule."""
    if before is None or before.version == GONE:
        return None
    return f"cohort {name}: " + (change(rule_in(before), declared) if declared else "is not declared any more")
