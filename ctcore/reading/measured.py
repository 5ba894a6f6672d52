"""⑦ Results as rows: what steps measured, by making, and what was recorded of analyses, by run and version."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sqlalchemy import and_, func, select

from ctcore.catalog.tables import artifact, entity, materialization, result
from ctcore.column import Column
from ctcore.reading.gate import Gate, Names
from ctcore.reading.table import Row, View, common, distinct, kind_of, storable
from ctcore.sheet.values import fit
from ctcore.step import ENTITY_LEVELS

WIDE = "wide_"
NODE = (("step", "text"), ("level", "text"), ("entity", "text"))
RESULTS = (*NODE, ("run", "text"), ("name", "text"), ("type", "text"), ("value", "any"), ("unit", "text"))
RESULTS = (*RESULTS, ("materialization", "integer"), ("version", "integer"), ("data_version", "text"))
RESULTS = (*RESULTS, ("made_at", "text"))
HISTORY = (("current", "boolean"), ("reason", "text"))
IS_CURRENT = and_(  # by its key: nothing leads from a materialization to the artifact
    artifact.c.asset == materialization.c.asset,
    artifact.c.partition == materialization.c.partition,
    artifact.c.materialization == materialization.c.id,
)


@dataclass(frozen=True)
class Measured:
    """What may be read of results: of current artifacts by `clean`, of earlier ones by `never_dirty` (step → names)."""

    gate: Gate
    clean: Mapping[str, Names]
    never_dirty: Mapping[str, Names]

    def rows(self, only_current: bool, only: str | None = None) -> Iterator[Row]:
        """A row a value; of one step or analysis where it is named."""
        width = len(RESULTS) if only_current else None
        for rows in (self._of_steps, self._of_analyses):
            yield from (row[:width] for row in rows(only_current, only))

    def _of_steps(self, only_current: bool, only: str | None) -> Iterator[Row]:
        made = materialization.c
        fields = (made.asset, made.partition, made.facts, made.id, made.data_version, made.started_at, made.run_id)
        both = select(*fields, made.reason, artifact.c.materialization.label("now"))
        joined = both.outerjoin(artifact, IS_CURRENT).where(made.facts != "{}")
        if only_current:
            joined = joined.where(artifact.c.materialization.is_not(None))
        if only is not None:
            joined = joined.where(made.asset == only)
        for row in self.gate.connection.execute(joined.order_by(made.id)):
            current = row.now is not None
            if row.partition in (self.clean if current else self.never_dirty).get(row.asset, ()):
                node = (row.asset, self.gate.mirror.shape.levels.get(row.asset, ""), row.partition, row.run_id)
                ends = (row.id, None, row.data_version, row.started_at, current, self.gate.veil.text(row.reason))
                for value in self._values(row.asset, row.facts):
                    yield (*node, *value, *ends)

    def _of_analyses(self, only_current: bool, only: str | None) -> Iterator[Row]:
        """Those of entities that may be used, and for this analysis."""
        other = result.alias()
        same = (other.c.entity == result.c.entity, other.c.analysis == result.c.analysis, other.c.run == result.c.run)
        last = select(func.max(other.c.version)).where(*same).scalar_subquery()
        chosen = select(result, entity.c.level, entity.c.id.label("who"), (result.c.version == last).label("current"))
        chosen = chosen.join(entity, entity.c.seq == result.c.entity).order_by(result.c.id)
        if only_current:
            chosen = chosen.where(result.c.version == last)
        if only is not None:
            chosen = chosen.where(result.c.analysis == only)
        shown = {name: self._able(name, one.level) for name, one in self.gate.project.settings.analyses.items()}
        everybody = {level: self.gate.names(level) for level in ENTITY_LEVELS}
        for row in self.gate.connection.execute(chosen):
            if row.who in shown.get(row.analysis, everybody[row.level]):
                node = (row.analysis, row.level, row.who, row.run)
                ends = (None, row.version, None, row.at, bool(row.current), row.reason)
                for value in self._values(row.analysis, row.facts):
                    yield (*node, *value, *ends)

    def _able(self, analysis: str, level: str) -> Names:
        return self.gate.among(level, self.gate.able(analysis, level))

    def _values(self, asset: str, facts: str) -> Iterator[Row]:
        """Name, type, value, unit."""
        declared = self.columns.get(asset, {})
        for name, value in json.loads(facts).items():
            column = declared.get(name)
            fits = column is not None and value is not None and fit(value, column)[1] is None
            kind = column.type if column is not None and fits else kind_of(value)
            yield (name, kind, storable(value), column.unit or None if column is not None else None)

    @cached_property
    def columns(self) -> Mapping[str, Mapping[str, Column]]:
        """What is declared of results, by step or analysis and name."""
        found = {step.name: {column.name: column for column in step.facts} for step in self.gate.project.steps}
        return found | {name: one.columns for name, one in self.gate.project.settings.analyses.items()}


def wide_of(measured: Measured, name: str) -> View:
    """The current results of one step or analysis: a row an entity and run, a column a value."""
    project = measured.gate.project
    level = project.steps[name].level if name in project.steps else project.settings.analyses[name].level
    types: dict[str, set[str]] = {one: {column.type} for one, column in measured.columns[name].items()}
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for _, _, who, run, column, kind, value, *_ in measured.rows(only_current=True, only=name):
        types.setdefault(column, set()).add(held(kind, value))
        found.setdefault((who, run), {})[column] = value
    heads = distinct([f"{level}_id", "run", *types])
    kinds = ("text", "text", *(common(some) for some in types.values()))
    rows = [(*key, *(some.get(column) for column in types)) for key, some in found.items()]
    return View(f"{WIDE}{name}".lower(), tuple(zip(heads, kinds, strict=True)), lambda: iter(rows))


def held(kind: str, value: Any) -> str:
    """The type in which a value stands in a table: a large number, a list and such stand as text."""
    return kind if isinstance(value, str) == (kind in ("text", "date")) else "text"
