"""Results as rows: measurements of steps, by making, and recorded analyses, by run and version."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from sqlalchemy import and_, func, select

from ctcore.catalog.tables import artifact, entity, materialization, result
from ctcore.model.column import Column
from ctcore.model.levels import ENTITY_LEVELS
from ctcore.model.values import fit_value
from ctcore.query.readable import Gate, Names
from ctcore.query.table import Row, View, common_type, distinct_names, kind_of, storable_value

WIDE = "wide_"
NODE = (("step", "text"), ("level", "text"), ("entity", "text"))
RESULTS = (*NODE, ("run", "text"), ("name", "text"), ("type", "text"), ("value", "any"), ("unit", "text"))
RESULTS = (*RESULTS, ("materialization", "integer"), ("version", "integer"), ("data_version", "text"))
RESULTS = (*RESULTS, ("made_at", "text"))
HISTORY = (("current", "boolean"), ("reason", "text"))
_json = json.JSONDecoder().raw_decode  # of canonical JSON; `loads` takes three times as long for a short text
IS_CURRENT = and_(  # by its key: nothing leads from a materialization to the artifact
    artifact.c.asset == materialization.c.asset,
    artifact.c.partition == materialization.c.partition,
    artifact.c.materialization == materialization.c.id,
)


@dataclass(frozen=True)
class ReadableResults:
    """Readable results: of current artifacts by `clean`, of earlier ones by `always_clean` (step → names)."""

    gate: Gate
    clean: Mapping[str, Names]
    always_clean: Mapping[str, Names]

    def rows(self, only_current: bool, only: str | None = None) -> Iterator[Row]:
        """A row a value; of one step or analysis where it is named."""
        yield from self._of_steps(only_current, only)
        yield from self._of_analyses(only_current, only)

    def _of_steps(self, only_current: bool, only: str | None) -> Iterator[Row]:
        made = materialization.c
        fields = (made.asset, made.partition, made.facts, made.id, made.data_version, made.started_at, made.run_id)
        both = select(*fields, made.reason, artifact.c.materialization.label("now"))
        joined = both.outerjoin(artifact, IS_CURRENT).where(made.facts != "{}")
        if only_current:
            joined = joined.where(artifact.c.materialization.is_not(None))
        if only is not None:
            joined = joined.where(made.asset == only)
        levels, mask = self.gate.snapshot.shape.levels, self.gate.mask.text
        rows = self.gate.connection.execute(joined.order_by(made.id))
        for asset, partition, facts, number, version, at, run_id, reason, now in rows:
            current = now is not None
            if partition in (self.clean if current else self.always_clean).get(asset, ()):
                node = (asset, levels.get(asset, ""), partition, run_id)
                ends = (number, None, version, at, *(() if only_current else (current, mask(reason))))
                for value in self._values(asset, facts):
                    yield node + value + ends

    def _of_analyses(self, only_current: bool, only: str | None) -> Iterator[Row]:
        """Results of entities that this analysis may use."""
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
                more = () if only_current else (bool(row.current), row.reason)
                ends = (None, row.version, None, row.at, *more)
                for value in self._values(row.analysis, row.facts):
                    yield node + value + ends

    def _able(self, analysis: str, level: str) -> Names:
        return self.gate.ids_where(level, self.gate.usable_for(analysis, level))

    def _values(self, asset: str, facts: str) -> Iterator[Row]:
        """Name, type, value, unit."""
        declared = self.columns.get(asset, {})
        for name, value in _json(facts)[0].items():
            column = declared.get(name)
            if column is None:
                yield (name, kind_of(value), storable_value(value), None)
            else:
                fits = value is not None and fit_value(value, column)[1] is None
                yield (name, column.type if fits else kind_of(value), storable_value(value), column.unit or None)

    @cached_property
    def columns(self) -> Mapping[str, Mapping[str, Column]]:
        """The declared results, by step or analysis and name."""
        found = {step.name: {column.name: column for column in step.facts} for step in self.gate.project.steps}
        return found | {name: one.columns for name, one in self.gate.project.settings.analyses.items()}


def wide_of(measured: ReadableResults, name: str) -> View:
    """The current results of one step or analysis: a row an entity and run, a column a value."""
    project = measured.gate.project
    level = project.steps[name].level if name in project.steps else project.settings.analyses[name].level
    types: dict[str, set[str]] = {one: {column.type} for one, column in measured.columns[name].items()}
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for _, _, who, run, column, kind, value, *_ in measured.rows(only_current=True, only=name):
        types.setdefault(column, set()).add(table_type(kind, value))
        found.setdefault((who, run), {})[column] = value
    heads = distinct_names([f"{level}_id", "run", *types])
    kinds = ("text", "text", *(common_type(some) for some in types.values()))
    rows = [(*key, *(some.get(column) for column in types)) for key, some in found.items()]
    return View(f"{WIDE}{name}".lower(), tuple(zip(heads, kinds, strict=True)), lambda: iter(rows))


def table_type(kind: str, value: Any) -> str:
    """The type in which a value stands in a table: a large number, a list and such stand as text."""
    return kind if isinstance(value, str) == (kind in ("text", "date")) else "text"
