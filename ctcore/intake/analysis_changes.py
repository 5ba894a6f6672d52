"""The declared analyses over time: the declaration in force, its differences from ct.toml, and recorded results that
contradict it.

It works as `schema_changes` does for levels. Values of a column that is no longer declared stay readable.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from sqlalchemy import Connection, func, select

from ctcore.catalog.engine import Writer, upsert
from ctcore.catalog.result_triggers import SETTING, applied_analyses, enforce, is_applied
from ctcore.catalog.tables import entity, result, setting
from ctcore.intake.schema_changes import Contradiction, column_differs, refuse
from ctcore.model.analysis import Analyses, Analysis, as_json
from ctcore.model.column import Column, Value
from ctcore.model.values import fit_value
from ctcore.project import Project
from ctcore.store.digest import canonical_json

_DECLARE = "correct ct.toml, or record it again with a value that fits, and a reason"


def differences(old: Analyses, new: Analyses) -> list[tuple[str, str, str]]:
    """Every difference: (analysis, column or other key, text)."""
    found: list[tuple[str, str, str]] = []
    for name in dict.fromkeys((*old, *new)):
        before, after = old.get(name), new.get(name)
        where = f"analyses.{name}"
        if before is None or after is None:
            found.append((where, "level", "is not declared any more" if after is None else f"is new ({after.level})"))
        if after is None:
            continue
        if before is not None and before.level != after.level:
            found.append((where, "level", f"{before.level} → {after.level}"))
        known: Mapping[str, Column] = before.columns if before else {}
        for column in dict.fromkeys((*known, *after.columns)):
            said = column_differs(known.get(column), after.columns.get(column))
            found += [(where, column, one) for one in said]
    return found


def current(connection: Connection) -> Iterator[Any]:
    """The results that hold, of every entity, analysis and run, in the order in which they were recorded."""
    other = result.alias()
    same = (other.c.entity == result.c.entity, other.c.analysis == result.c.analysis, other.c.run == result.c.run)
    last = select(func.max(other.c.version)).where(*same).scalar_subquery()
    found = select(result, entity.c.level, entity.c.id.label("who")).join(entity, entity.c.seq == result.c.entity)
    yield from connection.execute(found.where(result.c.version == last).order_by(result.c.id))


def contradictions(connection: Connection, analyses: Analyses) -> list[Contradiction]:
    """All results that hold and are not as declared, by column."""
    found: dict[tuple[str, str, str, str], list[tuple[str, Value]]] = {}
    for row in current(connection) if analyses else ():
        analysis = analyses.get(row.analysis)
        for column, asked, way, value in _wrong(row, analysis) if analysis else ():
            found.setdefault((row.analysis, column, asked, way), []).append((row.who, value))
    return [
        Contradiction(
            f"analyses.{name}",
            *others,
            ids=tuple(who for who, _ in some),
            values=tuple(value for _, value in some),
            noun=analyses[name].level,
        )
        for (name, *others), some in found.items()
    ]


def _wrong(row: Any, analysis: Analysis) -> Iterator[tuple[str, str, str, Value]]:
    """(column, problem, way out, value)."""
    if row.level != analysis.level:
        yield "level", f"have results as a {row.level}", f'say level = "{row.level}"', None
        return
    values = json.loads(row.facts)
    for name, column in analysis.columns.items():
        value = values.get(name)
        problem = fit_value(value, column)[1]
        if value is None and problem is not None:
            yield name, "have no value, but it is required", "leave out required, record it, then require it", None
        elif problem is not None:
            yield name, f"have a value that {problem}", _DECLARE, value


def enforce_analyses(writer: Writer, project: Project) -> None:
    """Enforce the declaration from now on, and say so. ProjectError where results contradict it."""
    new = project.settings.analyses
    if is_applied(writer.connection, new):
        return
    refuse(project, contradictions(writer.connection, new))
    old = applied_analyses(writer.connection)
    enforce(writer.connection, new)
    upsert(writer, setting, [{"name": SETTING, "value": canonical_json(as_json(new)).decode()}])
    said = [f"{where}.{column} {what}" for where, column, what in differences(old, new)]
    writer.event("analyses", "ct.toml", {"old": as_json(old), "new": as_json(new), "said": said})


def apply(project: Project, *, dry_run: bool = False) -> list[tuple[str, str]]:
    """Make the catalog follow ct.toml's analyses. Returns the changes."""
    with project.catalog.read() as connection:
        refuse(project, contradictions(connection, project.settings.analyses))
        said = differences(applied_analyses(connection), project.settings.analyses)
    if not dry_run and said:
        with project.catalog.write() as writer:
            enforce_analyses(writer, project)
    return [(f"{where}.{column}", what) for where, column, what in said]
