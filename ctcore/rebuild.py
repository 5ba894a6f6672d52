"""② The catalog's tables as a history says they are. What the ledger holds comes from the rows that are right, then
from the sidecars in the store, and of what was purged from the event that tells of its end."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, select

from ctcore.agreement import right_makings
from ctcore.catalog import measured
from ctcore.catalog.declared import applied, enforce, relax
from ctcore.catalog.engine import Writer, in_keys
from ctcore.catalog.life import HELD, STATE
from ctcore.catalog.pieces import Row
from ctcore.catalog.replay import Replay, Told
from ctcore.catalog.tables import edge, entity, event, materialization, member, metadata, output, recipe, setting
from ctcore.errors import StoreError
from ctcore.ledger import entry_of, insert_makings, is_record_of, recipe_numbers, recipe_of
from ctcore.project import Project
from ctcore.step import ENTITY_LEVELS
from ctcore.tombstones import entry_told

# In this order: what others point to comes first
_BEFORE = ("entity", "file", "reference", "reference_version", "result")
_AFTER = (
    *("reproduction", "artifact", "damage", "acceptance", "waiver", "qc_act", "qc_event", "qc_resolution", "consent"),
    *("attempt", "purge", "tombstone", "cohort_rule", "setting"),
)
_UNKNOWN = {"mtime_ns": 0, "inode": 0, "ctime_ns": 0}  # so each raw file is read again when it is looked at
_TOLD_SETTINGS = ("schema", "analyses", STATE, HELD)
_GONE = 3  # the exit code of what was found

Key = tuple[Any, ...]


@dataclass(frozen=True)
class Makings:
    """What the ledger has to know: makings whose rows are right, by number; others by what the store or their end says;
    those that have no files any more, and those whose files are of a later making of the same call."""

    kept: set[int]
    found: list[dict[str, Any]]
    lost: dict[int, Told]
    replaced: dict[int, Told]

    @property
    def count(self) -> int:
        return len(self.kept) + len(self.found)

    @property
    def without(self) -> list[int]:
        return [*self.lost, *self.replaced]


def makings(project: Project, replay: Replay, connection: Connection | None) -> Makings:
    """Look for all makings of a history. StoreError where the store would have to be asked, and is not there.

    `connection`: to the catalog of before, where it can be read.
    """
    told = {number: one for (number,), one in replay.tables["materialization"].items()}
    kept = right_makings(connection, replay) if connection is not None else set[int]()
    found: list[dict[str, Any]] = []
    lost, replaced = dict[int, Told](), dict[int, Told]()
    asked = {number for number in told if number not in kept and number not in replay.stones}
    if asked and not project.store.is_there:
        error = StoreError(
            f"the store {project.store.root} is not there, and what was made is told by it; nothing was written. Mount "
            f"its disk or put it back (lost for good: `ct init {project.root}` makes an empty one), then `ct recover`"
        )
        error.exit_code = _GONE
        raise error
    last = {_call(one.row): number for number, one in told.items()}
    for number, one in told.items():
        if number in kept:
            continue
        if number not in asked:
            entry = entry_told(replay.stones[number])
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
    return Makings(kept, found, lost, replaced)


def _call(row: Mapping[str, Any]) -> tuple[str, str, str]:
    """Makings of one call have one folder: the last one is in it."""
    return row["asset"], row["partition"], row["key"]


def rewrite(writer: Writer, events: list[Row], replay: Replay, made: Makings) -> None:
    """Bring all tables of truth to what the history says, in the caller's transaction. What is under way stays."""
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
        key: Told(_pointer(one.row, there), one.event) for key, one in pointers if one.row["materialization"] in there
    }
    replay.tables["artifact"] = current
    for name in ("tombstone", "reproduction", "waiver"):
        rows = replay.tables[name].items()
        replay.tables[name] = {key: one for key, one in rows if one.row["materialization"] in there}
    for name in _AFTER:
        _insert(writer, name, replay.tables[name], before.get(name, {}))
    if (levels := applied(connection)) is not None:
        enforce(connection, levels)
    if analyses := measured.applied(connection):
        measured.enforce(connection, analyses)


def _rows(connection: Connection, name: str) -> dict[Key, Row]:
    """The rows of a table by their key, for what no event tells of them."""
    keys = Replay.KEYS[name]
    rows = connection.execute(select(metadata.tables[name])).mappings()
    return {tuple(row[one] for one in keys): dict(row) for row in rows}


def _empty(connection: Connection, kept: set[int]) -> None:
    """Take out all that events tell of, but makings that are right."""
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


def _insert(writer: Writer, name: str, told: Mapping[Key, Told], before: Mapping[Key, Row]) -> None:
    """The rows; what no event tells of them is as it was where all the rest is."""
    more = _UNKNOWN if name == "file" else {}
    columns = [column.name for column in metadata.tables[name].columns]
    rows: list[Row] = []
    for key, one in told.items():
        was = before.get(key, {})
        same = bool(was) and all(was.get(column) == value for column, value in one.row.items())
        row = {**more, **(was if same else {}), **one.row}
        rows.append({column: row.get(column) for column in columns})
    writer.insert(metadata.tables[name], rows)
