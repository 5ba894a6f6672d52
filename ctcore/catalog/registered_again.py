"""What the chain tells of an entity whose registration was lost: it counts again once the entity is registered again.

A patient whose revocation is on record is not used because another event is lost.
"""

import json
from collections.abc import Set

from sqlalchemy import Connection, select, update

from ctcore.catalog.engine import Writer
from ctcore.catalog.lost_inputs import was_recovered
from ctcore.catalog.replay import TELLING_OF_ENTITIES, Event, Replay
from ctcore.catalog.tables import entity, event, metadata

_TABLES = ("consent", "qc_act", "qc_event", "qc_resolution", "result")


def write_what_waited(writer: Writer, names: Set[str]) -> None:
    """Write the rows that earlier events tell of these entities (`level/ID`), which were registered just now."""
    if not names or not was_recovered(writer.connection):
        return
    writer.flush()
    connection = writer.connection
    if names.isdisjoint(_told_of(connection)):
        return
    columns = [event.c[name] for name in Event._fields]
    rows = connection.execute(select(*columns).order_by(event.c.seq))
    replay = Replay().take(Event(*row) for row in rows).without_orphans()
    for name in _TABLES:
        table = metadata.tables[name]
        keys = [table.c[key] for key in Replay.KEYS[name]]
        there = set(map(tuple, connection.execute(select(*keys))))
        lacking = [one.row for key, one in replay.tables[name].items() if key not in there]
        writer.insert(table, [{column.name: row.get(column.name) for column in table.columns} for row in lacking])
    purged = [one.row for one in replay.tables["entity"].values() if one.row["purged"] is not None]
    for row in purged:
        if f"{row['level']}/{row['id']}" in names:
            writer.execute(update(entity).where(entity.c.seq == row["seq"]).values(purged=row["purged"]))


def _told_of(connection: Connection) -> set[str]:
    """The entities of which events tell more than their registration."""
    found = set[str]()
    rows = select(event.c.kind, event.c.body).where(event.c.kind.in_((*TELLING_OF_ENTITIES, "purge")))
    for kind, body in connection.execute(rows):
        try:
            if kind == "purge":
                found.update(json.loads(body).get("own", ()))
                continue
            many, entity_of = TELLING_OF_ENTITIES[kind]
            found.update(map(entity_of, json.loads(body)[many]))
        except (AttributeError, KeyError, TypeError, ValueError):  # it was edited; the chain tells
            continue
    return found
