"""Compares the tables with the events, and names each row that somebody changed, deleted or inserted by hand.

Findings contain no values, because these may be a patient's. The check reads all events once and each table once.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import groupby
from typing import Any

from sqlalchemy import Connection, Table, select

from ctcore.catalog.replay import Event, Key, Replay, ReplayedRow, matches_event
from ctcore.catalog.tables import artifact, edge, event, materialization, member, metadata, output, recipe
from ctcore.project import Project
from ctcore.steps.graph import Recipe

# NOT_TOLD: tables of work in progress and caches; no event describes them. IN_DIGESTS: tables that are compared by a
# digest, either the one in the event of their materialization or their own
NOT_TOLD = ("digest_memory", "lease", "slurm_batch", "slurm_job", "request", "reported", "run", "event")
IN_DIGESTS = ("recipe", "output", "edge", "member")
_FEW = {"yield_per": 10_000}  # rows at a time
_MOMENT = 60.0  # earlier versions read the clock for a row and again for its event
_AT = ("at", "ended_at", "found_at")
_PARTS = {output: ("file", "digest", "size"), edge: ("input", "asset", "partition", "version")}
_PARTS[member] = ("level", "entity", "role")


def disagreements(project: Project) -> list[tuple[str, str]]:
    """Every row that differs from the events: (table and row, what is wrong). Empty where all agree."""
    with project.catalog.read() as connection:
        return compare_catalog(connection)


def compare_catalog(connection: Connection) -> list[tuple[str, str]]:
    columns = [event.c[name] for name in Event._fields]
    replay = (
        Replay()
        .take(Event(*row) for row in connection.execute(select(*columns).order_by(event.c.seq)))
        .without_orphans()
    )
    found = [one for name in replay.KEYS for one in _compare(connection, metadata.tables[name], replay)]
    return [*found, *_pointers(connection), *_recipes(connection), *_makings(connection, replay)]


def _compare(connection: Connection, table: Table, replay: Replay) -> Iterator[tuple[str, str]]:
    told, names = replay.tables[table.name], replay.KEYS[table.name]
    rows = connection.execute(select(table)).mappings()
    seen: set[Key] = set()
    for row in rows:
        key = tuple(row[name] for name in names)
        if key not in told:
            if table.name != "setting" or key in (("schema",), ("analyses",), ("state",)):
                yield _place(table.name, key, row, replay), "no event wrote this row: somebody inserted it by hand"
            continue
        seen.add(key)
        if wrong := _differing_columns(row, told[key].row):
            columns = ", ".join(wrong)
            yield _place(table.name, key, row, replay), f"{columns}: differs from event {told[key].event}"
    for key, one in told.items():
        if key not in seen:
            yield _place(table.name, key, one.row, replay), f"is missing; event {one.event} wrote it"


def _differing_columns(row: Mapping[Any, Any], told: Mapping[str, Any]) -> list[str]:
    """The columns that differ; for a person's attributes, the names of the attributes that differ."""
    found = []
    for name, said in told.items():
        if name not in row or row[name] == said:
            continue
        if name in _AT:
            found += [] if _of_one_moment(row[name], said) else [name]
        elif name == "attributes":
            found += _attributes(row[name], said)
        else:
            found.append(name)
    return found


def _of_one_moment(row: str, told: str) -> bool:
    try:
        apart = datetime.fromisoformat(told) - datetime.fromisoformat(row)
    except ValueError:
        return False
    return abs(apart.total_seconds()) <= _MOMENT


def _attributes(row: str, told: str) -> list[str]:
    was = json.loads(told)
    try:
        now = json.loads(row)
        listed = [name for name in {**was, **now} if was.get(name) != now.get(name)]
    except (TypeError, ValueError):
        listed = []
    return listed or ["attributes"]


def _place(table: str, key: Key, row: Mapping[Any, Any], replay: Replay) -> str:
    """The row, and the entity or node that it belongs to."""
    known = replay.tables["entity"]
    if table == "entity":
        return f"entity {key[0]} ({row['level']}/{row['id']})"
    owner: ReplayedRow | None = known.get((row["entity"],)) if "entity" in row else None
    if owner is not None:
        whose = f"{owner.row['level']}/{owner.row['id']}"
    else:
        whose = f"{row['asset']}/{row['partition']}" if "asset" in row else ""
    named = " ".join(str(part) for part in key)
    return f"{table} {named}" + (f" ({whose})" if whose else "")


def _pointers(connection: Connection) -> Iterator[tuple[str, str]]:
    """Rows of `artifact` that differ from the materialization that they point to."""
    names = ("recipe", "data_version", "key", "asset", "partition")
    differs = artifact.c[names[0]] != materialization.c[names[0]]
    for name in names[1:]:
        differs = differs | (artifact.c[name] != materialization.c[name])
    joined = artifact.join(materialization, materialization.c.id == artifact.c.materialization)
    for row in connection.execute(select(artifact).select_from(joined).where(differs)):
        place = f"artifact {row.asset} {row.partition}"
        yield place, f"differs from its materialization {row.materialization}"


def _recipes(connection: Connection) -> Iterator[tuple[str, str]]:
    for row in _other_recipes(connection):
        yield f"recipe {row.id} ({row.step})", "its content does not match its digest"


def _other_recipes(connection: Connection) -> Iterator[Any]:
    for row in connection.execute(select(recipe)):
        try:
            same = Recipe(row.step, row.code, json.loads(row.parameters), json.loads(row.environment)).digest
        except (TypeError, ValueError):
            same = None
        if same != row.digest:
            yield row


def _makings(connection: Connection, replay: Replay) -> Iterator[tuple[str, str]]:
    """Materializations whose rows in the ledger do not match the digest in their event."""
    parts = _all_parts(connection)
    for row, said, is_so in _checked_makings(connection, replay, parts):
        if said is not None and not is_so:
            place = f"materialization {row['id']} ({row['asset']}/{row['partition']})"
            yield place, f"its row, outputs, inputs or members differ from event {said.event}"
    for part in parts:
        for number in part.strays():
            yield f"{part.name} of materialization {number}", "no such materialization exists"


def right_makings(connection: Connection, replay: Replay) -> set[int]:
    """IDs of the materializations whose rows in the ledger match their events exactly."""
    broken = {row.id for row in _other_recipes(connection)}
    return {
        row["id"]
        for row, said, is_so in _checked_makings(connection, replay, _all_parts(connection))
        if said is not None and is_so and not _differing_columns(row, said.row) and row["recipe"] not in broken
    }


def _checked_makings(
    connection: Connection, replay: Replay, parts: Sequence["_Parts"]
) -> Iterator[tuple[dict[str, Any], ReplayedRow | None, bool]]:
    """Every materialization, the row that its event describes, and whether the digest in the event matches."""
    recipes = {row.id: row.digest for row in connection.execute(select(recipe.c.id, recipe.c.digest))}
    told = replay.tables["materialization"]
    found = connection.execute(select(materialization).order_by(materialization.c.id), execution_options=_FEW)
    for one in found.mappings():
        row = dict(one)
        mine = [part.of(row["id"]) for part in parts]
        said = told.get((row["id"],))
        record = None if said is None else said.row.get("record")
        yield row, said, record is None or matches_event(record, row, recipes.get(row["recipe"], ""), mine)


def _all_parts(connection: Connection) -> list["_Parts"]:
    return [_Parts(connection, table, names) for table, names in _PARTS.items()]


class _Parts:
    """A table of parts of materializations, read in the order of their IDs, in step with the materializations."""

    def __init__(self, connection: Connection, table: Table, names: Iterable[str]) -> None:
        columns = [table.c[name] for name in names]
        ordered = select(table.c.materialization, *columns).order_by(table.c.materialization)
        rows = connection.execute(ordered, execution_options=_FEW)
        self.name = table.name
        self._stray: list[int] = []
        self._groups = groupby(rows, key=lambda row: row[0])
        self._number, self._rows = self._next()

    def of(self, number: int) -> list[tuple[Any, ...]]:
        while self._number is not None and self._number < number:
            self._skip(self._number)
        if self._number != number:
            return []
        mine = self._rows
        self._number, self._rows = self._next()
        return mine

    def strays(self) -> list[int]:
        """IDs that occur in this table but are no materialization. Call it last."""
        while self._number is not None:
            self._skip(self._number)
        return self._stray

    def _skip(self, number: int) -> None:
        self._stray.append(number)
        self._number, self._rows = self._next()

    def _next(self) -> tuple[int | None, list[tuple[Any, ...]]]:
        for number, rows in self._groups:
            return number, [tuple(row)[1:] for row in rows]
        return None, []
