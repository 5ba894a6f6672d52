"""Compares the ledger rows of purged makings with the events of their purge."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import Connection, delete, select, update

from ctcore.catalog.engine import Writer, in_keys
from ctcore.catalog.replay import matches_event
from ctcore.catalog.tables import edge, event, materialization, member, output, recipe, tombstone

Stone = Mapping[str, Any]  # one making in the body of a purge's event
_PARTS = ((output, ("file", "digest", "size")), (edge, ("input", "asset", "partition", "version")))
_PARTS += ((member, ("level", "entity", "role")),)
_TOLD = ("reason", "run_id", "started_at", "seconds", "rule", "actor", "host", "git", "size", "data_version", "folder")


def tombstones_of(connection: Connection) -> dict[int, Stone]:
    """Making → its description in the event of its purge."""
    rows = connection.execute(select(event.c.body).where(event.c.kind == "purge").order_by(event.c.seq)).scalars()
    return {one["materialization"]: one for body in rows for one in json.loads(body)["removed"]}


def differing_tombstones(connection: Connection, numbers: Iterable[int]) -> dict[int, Stone]:
    """Makings with a tombstone whose rows differ from the purge's event, each with its description there."""
    listed = select(tombstone.c.materialization).where(in_keys(tombstone.c.materialization, numbers))
    gone = set(connection.execute(listed).scalars())
    if not gone:
        return {}
    said = tombstones_of(connection)
    parts: dict[str, dict[int, list[Any]]] = {}
    for table, names in _PARTS:
        of = parts.setdefault(table.name, defaultdict(list))
        columns = (table.c.materialization, *(table.c[name] for name in names))
        for number, *values in connection.execute(select(*columns).where(in_keys(table.c.materialization, gone))):
            of[number].append(values)
    joined = select(materialization, recipe.c.digest.label("used")).join(
        recipe, recipe.c.id == materialization.c.recipe
    )
    found: dict[int, Stone] = {}
    for one in connection.execute(joined.where(in_keys(materialization.c.id, gone))).mappings():
        row: dict[str, Any] = {**one}
        number = row["id"]
        mine = [parts[table.name][number] for table, _ in _PARTS]
        if number in said and not matches_event(said[number]["record"], row, row["used"], mine):
            found[number] = said[number]
    return found


def rewrite_from_events(writer: Writer, found: Mapping[int, Stone]) -> None:
    """Rewrite rows of the ledger from the events of their purge."""
    for number, said in found.items():
        values = {name: said[name] for name in _TOLD} | {"facts": "{}", "undeclared": None}
        writer.execute(update(materialization).where(materialization.c.id == number).values(**values))
        for table, _ in _PARTS:
            writer.execute(delete(table).where(table.c.materialization == number))
        unseen = {"materialization": number, "mtime_ns": 0, "inode": 0, "ctime_ns": 0}
        files = [
            {**unseen, "file": name, "size": size, "digest": digest} for name, (size, digest) in said["files"].items()
        ]
        writer.insert(output, files)
        for (table, names), rows in zip(_PARTS[1:], (said["inputs"], said["members"]), strict=True):
            listed = [dict(zip(names, row, strict=True)) for row in rows]
            writer.insert(table, [{"materialization": number, **row} for row in listed])
