"""⑥ What every node would be made from today: its inputs with their data versions, as statements over the catalog.

The one definition of a node's inputs. Staleness compares it with the ledger's edges; the memo key is taken from it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, literal, select, union, union_all
from sqlalchemy.sql.selectable import CompoundSelect, Subquery

from ctcore.catalog.engine import in_keys
from ctcore.catalog.tables import artifact, file, reference
from ctcore.cohorts import ancestor_column, at_level, in_cohort, linked, member_of, some
from ctcore.settings import Settings
from ctcore.step import ENTITY_LEVELS, Level, Step
from ctcore.steps import StepGraph

Requirement = frozenset[tuple[Any, ...]]


@dataclass(frozen=True)
class Wanted:
    """One input of a step. `rows` selects (partition, asset, source, version, position), one row an edge;
    version is NULL where the source has not been made. `fan_in`: the rows are members of the node."""

    input: str
    fan_in: bool
    rows: Subquery


class Inputs:
    """Builds the statements for one project; they are few, however many nodes there are."""

    def __init__(self, graph: StepGraph, settings: Settings, dialect: str) -> None:
        self.graph = graph
        self.settings = settings
        self.dialect = dialect

    def nodes(self, step: Step, keys: Iterable[str] | None = None) -> Subquery:
        """The partitions that the step has today: (partition, position), in the order of the cohort."""
        if step.level == "cohort":
            names = list(self.settings.cohorts)
            rows = [
                select(literal(name).label("partition"), literal(position).label("position"))
                for position, name in enumerate(names)
            ]
            chosen = union_all(*rows).subquery()
            found = select(chosen)
            return self._only(found, chosen.c.partition, keys).subquery()
        row = at_level(step.level)
        found = select(row.c.id.label("partition"), row.c.seq.label("position")).where(self._can_have(row, step))
        return self._only(found, row.c.id, keys).subquery()

    def excluded(self, step: Step, keys: Iterable[str] | None = None) -> Select:
        """Usable entities of the step's level that lack what the step needs: (partition)."""
        row = at_level(step.level)
        found = select(row.c.id.label("partition")).where(
            member_of(row, step.level), ~self._has(row, step.level, self._requirement(step))
        )
        return self._only(found, row.c.id, keys)

    def wanted(self, step: Step, keys: Iterable[str] | None = None) -> Iterator[Wanted]:
        """All inputs of a step, of all its nodes or of those named."""
        listed = None if keys is None else list(keys)
        for role in step.files:
            yield Wanted(role, False, self._files(step, role, listed))
        for name, up in step.inputs.items():
            yield self._artifacts(step, name, self.graph[up], listed)
        for key in step.references:
            yield Wanted(f"reference:{key}", False, self._references(step, key, listed))
        for column in step.columns:
            yield Wanted(column, False, self._columns(step, column, listed))

    def _only(self, found: Select, column: Any, keys: Iterable[str] | None) -> Select:
        return found if keys is None else found.where(in_keys(column, keys, self.dialect))

    def _files(self, step: Step, role: str, keys: list[str] | None) -> Subquery:
        row = at_level(step.level)
        found = select(
            row.c.id.label("partition"),
            literal(step.level).label("asset"),
            row.c.id.label("source"),
            file.c.digest.label("version"),
            row.c.seq.label("position"),
        ).where(self._can_have(row, step), file.c.entity == row.c.seq, file.c.role == role)
        return self._only(found, row.c.id, keys).subquery()

    def _references(self, step: Step, key: str, keys: list[str] | None) -> Subquery:
        nodes = self.nodes(step, keys)
        return (
            select(
                nodes.c.partition,
                literal("reference").label("asset"),
                literal(key).label("source"),
                (reference.c.version + literal(" ") + reference.c.digest).label("version"),
                literal(0).label("position"),
            )
            .select_from(nodes.outerjoin(reference, reference.c.key == key))
            .subquery()
        )

    def _artifacts(self, step: Step, name: str, up: Step, keys: list[str] | None) -> Wanted:
        fan_in = step.level != up.level and (step.level == "cohort" or _rank(up.level) > _rank(step.level))
        if step.level == "cohort":
            return Wanted(name, fan_in, self._into_cohort(up, keys))
        row, source = at_level(step.level), at_level(up.level)
        low, high = (source, row) if fan_in else (row, source)
        low_level, high_level = (up.level, step.level) if fan_in else (step.level, up.level)
        found = select(
            row.c.id.label("partition"),
            literal(up.name).label("asset"),
            source.c.id.label("source"),
            artifact.c.data_version.label("version"),
            source.c.seq.label("position"),
        ).select_from(
            row.join(source, linked(low, low_level, high, high_level)).outerjoin(
                artifact, and_(artifact.c.asset == up.name, artifact.c.partition == source.c.id)
            )
        )
        found = found.where(self._can_have(row, step), self._can_have(source, up, reached=True))
        return Wanted(name, fan_in, self._only(found, row.c.id, keys).subquery())

    def _into_cohort(self, up: Step, keys: list[str] | None) -> Subquery:
        parts: list[Select] = []
        for name, cohort in self._cohorts(keys):
            if up.level == "cohort":
                one = select(literal(name).label("partition")).subquery()
                made = and_(artifact.c.asset == up.name, artifact.c.partition == name)
                parts.append(
                    select(
                        one.c.partition,
                        literal(up.name).label("asset"),
                        literal(name).label("source"),
                        artifact.c.data_version.label("version"),
                        literal(0).label("position"),
                    ).select_from(one.outerjoin(artifact, made))
                )
                continue
            row = at_level(up.level)
            made = and_(artifact.c.asset == up.name, artifact.c.partition == row.c.id)
            parts.append(
                select(
                    literal(name).label("partition"),
                    literal(up.name).label("asset"),
                    row.c.id.label("source"),
                    artifact.c.data_version.label("version"),
                    row.c.seq.label("position"),
                )
                .select_from(row.outerjoin(artifact, made))
                .where(self._can_have(row, up), in_cohort(row, up.level, cohort, self.dialect))
            )
        return _all(parts)

    def _columns(self, step: Step, column: str, keys: list[str] | None) -> Subquery:
        """A column of the node's own entity or its ancestors; below its level, of each member."""
        level: Level = column.partition(".")[0]  # type: ignore[assignment]
        if step.level != "cohort" and _rank(level) <= _rank(step.level):
            row = at_level(step.level)
            found = self._column_rows(row, step.level, column, row.c.id).where(self._can_have(row, step))
            return self._only(found, row.c.id, keys).subquery()
        parts = [self._member_columns(step, self.graph[up], column, keys) for up in step.inputs.values()]
        found = [part for some in parts for part in some]
        if not found:
            return _all([_nothing()])
        return union(*found).subquery()

    def _member_columns(self, step: Step, up: Step, column: str, keys: list[str] | None) -> Iterator[Select]:
        if up.level == "cohort" or _rank(column.partition(".")[0]) > _rank(up.level):  # type: ignore[arg-type]
            return
        source = at_level(up.level)
        if step.level == "cohort":
            for name, cohort in self._cohorts(keys):
                found = self._column_rows(source, up.level, column, literal(name))
                yield found.where(self._can_have(source, up), in_cohort(source, up.level, cohort, self.dialect))
        elif _rank(up.level) > _rank(step.level):
            row = at_level(step.level)
            found = self._column_rows(source, up.level, column, row.c.id).where(
                linked(source, up.level, row, step.level),
                self._can_have(row, step),
                self._can_have(source, up, reached=True),
            )
            yield self._only(found, row.c.id, keys)

    def _column_rows(self, row: Any, level: Level, column: str, partition: Any) -> Select:
        return select(
            partition.label("partition"),
            literal(level).label("asset"),
            row.c.id.label("source"),
            ancestor_column(row, level, column, self.dialect).label("version"),
            row.c.seq.label("position"),
        )

    def _cohorts(self, keys: list[str] | None) -> Iterator[tuple[str, Any]]:
        return (item for item in self.settings.cohorts.items() if keys is None or item[0] in keys)

    def _can_have(self, row: Any, step: Step, reached: bool = False) -> ColumnElement[bool]:
        """The entity is usable and has everything that a node of this step is made from."""
        return and_(member_of(row, step.level, reached), self._has(row, step.level, self._requirement(step)))

    def _requirement(self, step: Step) -> Requirement:
        """What an entity must have, through all steps of its own level: raw files, and members below."""
        found: set[tuple[Any, ...]] = {("file", role) for role in step.files}
        for name in step.inputs.values():
            up = self.graph[name]
            if up.level == step.level:
                found |= self._requirement(up)
            else:
                found.add(("linked", up.level, self._requirement(up)))
        return frozenset(found)

    def _has(self, row: Any, level: Level, requirement: Requirement) -> ColumnElement[bool]:
        conditions: list[ColumnElement[bool]] = []
        for kind, *what in sorted(requirement, key=repr):
            if kind == "file":
                conditions.append(some(file, file.c.entity == row.c.seq, file.c.role == what[0]))
                continue
            other_level, needed = what
            other = at_level(other_level)
            low, high = (other, row) if _rank(other_level) > _rank(level) else (row, other)
            low_level, high_level = (other_level, level) if _rank(other_level) > _rank(level) else (level, other_level)
            conditions.append(
                some(
                    other,
                    linked(low, low_level, high, high_level),
                    member_of(other, other_level, reached=True),
                    self._has(other, other_level, needed),
                )
            )
        return and_(literal(1) == 1, *conditions)


def _rank(level: Level) -> int:
    return ENTITY_LEVELS.index(level)


def _all(parts: list[Select]) -> Subquery:
    found: CompoundSelect = union_all(*(parts or [_nothing()]))
    return found.subquery()


def _nothing() -> Select:
    names = ("partition", "asset", "source", "version")
    return select(*(literal("").label(name) for name in names), literal(0).label("position")).where(literal(1) == 0)
