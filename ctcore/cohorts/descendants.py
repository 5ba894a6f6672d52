"""The descendants of a patient or specimen, now or ever: results made before a move contain the moved entity."""

import json
from collections import defaultdict
from collections.abc import Iterable

from sqlalchemy import Connection, select

from ctcore.catalog.engine import in_keys
from ctcore.catalog.tables import entity, event
from ctcore.model.masked_text import Plain, Words
from ctcore.model.node import Node
from ctcore.model.reasons import node_text

Moved = dict[int, list[tuple[int, str]]]  # former parent → its former children, each with when it left


def descendants_of(connection: Connection, nodes: Iterable[Node]) -> tuple[set[Node], dict[Node, Words]]:
    """These entities and all their descendants; then former descendants, and until when they were."""
    wanted = set(nodes)
    rows = connection.execute(
        select(entity.c.seq, entity.c.level, entity.c.id).where(in_keys(entity.c.id, {one[1] for one in wanted}))
    ).all()
    start = {row.seq for row in rows if (row.level, row.id) in wanted}
    now = _closure(connection, start, {})
    moved = _moved(connection)
    ever = _closure(connection, start, moved) if moved else now
    names = _names(connection, ever.keys())
    before = {names[seq]: _past_parent(names, seq, ever) for seq in ever if seq not in now}
    return wanted | {names[seq] for seq in now}, before


def _closure(connection: Connection, start: set[int], moved: Moved) -> dict[int, tuple[int, str | None] | None]:
    """Entity → the one above through which it was reached, and until when it was so; a statement a level."""
    found: dict[int, tuple[int, str | None] | None] = dict.fromkeys(start)
    last = set(start)
    while last:
        rows = connection.execute(select(entity.c.parent, entity.c.seq).where(in_keys(entity.c.parent, last)))
        reached: list[tuple[int, int, str | None]] = [(row[0], row[1], None) for row in rows]
        reached += [(above, child, until) for above in last for child, until in moved.get(above, ())]
        last = set()
        for above, child, until in reached:
            if child not in found:
                found[child] = (above, until)
                last.add(child)
    return found


def _moved(connection: Connection) -> Moved:
    """All moves of entities, from the registration events. One quick query suffices if nothing ever changed."""
    mine = event.c.kind == "register"
    # Bodies are canonical JSON, so they begin with their first key. `ct schema` records `{"before":…,"changed":…}`,
    # which is not read here: it moves nobody.
    changed = mine & event.c.body.startswith('{"changed":')
    if connection.execute(select(event.c.seq).where(changed).limit(1)).first() is None:
        return {}
    both = changed | (mine & event.c.body.startswith('{"new":'))
    parents: dict[int, int | None] = {}
    found: Moved = defaultdict(list)
    for at, body in connection.execute(select(event.c.at, event.c.body).where(both).order_by(event.c.seq)):
        for row in next(iter(json.loads(body).values())):
            # A changed row is recorded with its update's parameters; SQLAlchemy keeps the name `seq` for the column
            # itself ("bindparam() name 'seq' is reserved").
            seq = row["seq"] if "seq" in row else row["b_seq"]
            old = parents.get(seq)
            if old is not None and old != row["parent"]:
                found[old].append((seq, at))
            parents[seq] = row["parent"]
    return found


def _names(connection: Connection, seqs: Iterable[int]) -> dict[int, Node]:
    rows = connection.execute(select(entity.c.seq, entity.c.level, entity.c.id).where(in_keys(entity.c.seq, seqs)))
    return {row.seq: (row.level, row.id) for row in rows}


def _past_parent(names: dict[int, Node], seq: int, ever: dict[int, tuple[int, str | None] | None]) -> Words:
    """The nearest move on the way up."""
    one, above = seq, ever[seq]
    while above is not None and above[1] is None:
        one, above = above[0], ever[above[0]]
    if above is None:
        return Words()
    until = Plain(f" until {above[1]}")
    return Words(node_text(names[one]), " belonged to ", node_text(names[above[0]]), until)
