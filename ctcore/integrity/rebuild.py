"""Rebuilds the catalog's tables from a history. Rows of the ledger come from the rows that are right, then from the
sidecars in the store, and for purged materializations from the event of their purge."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, select

from ctcore.catalog import result_triggers
from ctcore.catalog.engine import Writer, in_keys
from ctcore.catalog.merged_history import Row
from ctcore.catalog.ownership import HELD, STATE
from ctcore.catalog.replay import Replay, ReplayedRow
from ctcore.catalog.row_numbers import FREE
from ctcore.catalog.schema_triggers import applied_schema, enforce, relax
from ctcore.catalog.tables import edge, entity, event, materialization, member, metadata, output, recipe, setting
from ctcore.catalog.tombstones import entry_from_event
from ctcore.errors import StoreError
from ctcore.execution.ledger import entry_of, insert_makings, is_record_of, recipe_numbers, recipe_of
from ctcore.integrity.catalog_check import right_makings
from ctcore.model.levels import ENTITY_LEVELS
from ctcore.project import Project

# Insert in this order: foreign keys point to rows of earlier tables
_BEFORE = ("entity", "file", "reference", "reference_version", "result")
_AFTER = (
    *("reproduction", "artifact", "damage", "acceptance", "waiver", "qc_act", "qc_event", "qc_resolution", "consent"),
    *("attempt", "purge", "tombstone", "cohort_rule", "setting"),
)
_UNKNOWN = {"mtime_ns": 0, "inode": 0, "ctime_ns": 0}  # matches no file, so the next look reads it again
_TOLD_SETTINGS = ("schema", "analyses", STATE, HELD, FREE)
_GONE = 3  # exit code for findings

Key = tuple[Any, ...]


@dataclass(frozen=True)
class Makings:
    """What the ledger has to know: makings whose rows are right, by number; others by what the store or their end says;
    those that have no files any more, with the purge that removed them where one did; and those whose files are of a
    later making of the same call."""

    kept: set[int]
    found: list[dict[str, Any]]
    lost: dict[int, ReplayedRow]
    replaced: dict[int, ReplayedRow]
    purges: dict[int, int]

    @property
    def count(self) -> int:
        return len(self.kept) + len(self.found)

    @property
    def without(self) -> list[int]:
        return [*self.lost, *self.replaced]


def makings(project: Project, replay: Replay, connection: Connection | None) -> Makings:
    """Find all materializations of a history. StoreError where a sidecar is needed and the store is missing.

    `connection`: to the old catalog, where it can be read.
    """
    told = {number: one for (number,), one in replay.tables["materialization"].items()}
    kept = right_makings(connection, replay) if connection is not None else set[int]()
    found: list[dict[str, Any]] = []
    lost, replaced = dict[int, ReplayedRow](), dict[int, ReplayedRow]()
    asked = {number for number in told if number not in kept and number not in replay.stones}
    if asked and not project.store.is_there:
        error = StoreError(
            f"the store {project.store.root} is missing, and recovery needs its sidecars; nothing was written. Mount "
            f"its disk or restore it (lost for good: `ct init {project.root}` makes an empty one), then `ct recover`"
        )
        error.exit_code = _GONE
        raise error
    last = {_call(one.row): number for number, one in told.items()}
    for number, one in told.items():
        if number in kept:
            continue
        if number not in asked:
            entry = entry_from_event(replay.stones[number])
            found.append({**entry, "recipe": recipe_of(entry["side"])})
            continue
        row = one.row
        published = project.store.find(row["asset"], row["partition"], row["key"])
        if published is None or published.data_version != row["data_version"]:
            lost[number] = one
            continue
        entry = entry_of(project, published)
        side = {**entry["side"], "reason": row["reason"]}
        made = {**entry, "side": side, "recipe": recipe_of(side), "id": number}
        if last[_call(row)] != number and row.get("record") and not is_record_of(made, row["record"]):
            replaced[number] = one
        else:
            found.append(made)
    ends = {number: replay.removed.get(one.row["folder"], (0, 0)) for number, one in lost.items()}
    purges = {number: purge for number, (purge, seq) in ends.items() if seq > lost[number].event}
    return Makings(kept, found, lost, replaced, purges)


def _call(row: Mapping[str, Any]) -> tuple[str, str, str]:
    """Materializations of one call share a folder, which holds the last of them."""
    return row["asset"], row["partition"], row["key"]


def rewrite(writer: Writer, events: list[Row], replay: Replay, made: Makings) -> None:
    """Rewrite all tables that events describe, in the caller's transaction. Tables of running work stay."""
    connection = writer.connection
    writer.overwrite()
    relax(connection)
    before = {name: _rows(connection, name) for name in (*_BEFORE, *_AFTER) if name != setting.name}
    _empty(connection, made.kept)
    writer.insert(event, events)
    for name in _BEFORE:
        _insert(writer, name, replay.tables[name], before[name])
    numbers = recipe_numbers(writer, [one["recipe"] for one in made.found])
    insert_makings(writer, made.found, numbers)
    there = _there(connection)
    pointers = replay.tables["artifact"].items()
    current = {
        key: ReplayedRow(_pointer(one.row, there), one.event)
        for key, one in pointers
        if one.row["materialization"] in there
    }
    replay.tables["artifact"] = current
    for name in ("tombstone", "reproduction", "waiver"):
        rows = replay.tables[name].items()
        replay.tables[name] = {key: one for key, one in rows if one.row["materialization"] in there}
    for name in _AFTER:
        _insert(writer, name, replay.tables[name], before.get(name, {}))
    if (levels := applied_schema(connection)) is not None:
        enforce(connection, levels)
    if analyses := result_triggers.applied_analyses(connection):
        result_triggers.enforce(connection, analyses)


def _rows(connection: Connection, name: str) -> dict[Key, Row]:
    """The rows of a table by key: they hold columns that no event describes."""
    keys = Replay.KEYS[name]
    rows = connection.execute(select(metadata.tables[name])).mappings()
    return {tuple(row[one] for one in keys): dict(row) for row in rows}


def _empty(connection: Connection, kept: set[int]) -> None:
    """Delete all rows that events describe, except the materializations in `kept`."""
    connection.execute(delete(setting).where(setting.c.name.in_(_TOLD_SETTINGS)))
    for name in reversed([name for name in _AFTER if name != setting.name]):
        connection.execute(delete(metadata.tables[name]))
    wrong = set(connection.execute(select(materialization.c.id)).scalars()) - kept
    for table in (output, edge, member):
        made = set(connection.execute(select(table.c.materialization).distinct()).scalars())
        connection.execute(delete(table).where(in_keys(table.c.materialization, made - kept)))
    connection.execute(delete(materialization).where(in_keys(materialization.c.id, wrong)))
    used = set(connection.execute(select(materialization.c.recipe).distinct()).scalars())
    listed = set(connection.execute(select(recipe.c.id)).scalars())
    connection.execute(delete(recipe).where(in_keys(recipe.c.id, listed - used)))
    for name in reversed(_BEFORE[1:]):
        connection.execute(delete(metadata.tables[name]))
    # Children first: RESTRICT looks at once, row by row, and not at the end of the statement
    # (sqlite.org/foreignkeys.html).
    for level in reversed(ENTITY_LEVELS):
        connection.execute(delete(entity).where(entity.c.level == level))
    connection.execute(delete(entity))
    connection.execute(delete(event))


def _there(connection: Connection) -> dict[int, Any]:
    made = materialization.c
    rows = connection.execute(select(made.id, made.recipe, made.data_version, made.key))
    return {row.id: row for row in rows}


def _pointer(row: Mapping[str, Any], there: Mapping[int, Any]) -> dict[str, Any]:
    one = there[row["materialization"]]
    return {**row, "recipe": one.recipe, "data_version": one.data_version, "key": one.key}


def _insert(writer: Writer, name: str, told: Mapping[Key, ReplayedRow], before: Mapping[Key, Row]) -> None:
    """Insert rows. Columns that no event describes keep their old value if all other columns are unchanged."""
    more = _UNKNOWN if name == "file" else {}
    columns = [column.name for column in metadata.tables[name].columns]
    rows: list[Row] = []
    for key, one in told.items():
        was = before.get(key, {})
        same = bool(was) and all(was.get(column) == value for column, value in one.row.items())
        row = {**more, **(was if same else {}), **one.row}
        rows.append({column: row.get(column) for column in columns})
    writer.insert(metadata.tables[name], rows)
