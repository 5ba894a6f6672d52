"""Raw files that several entities share, or once shared, by the events of registering.

The ledger's edge names the entity whose result it is, and the content. All who ever had this content under one path are
inside, also those who came to share it later; edges to each of them would be as many as they are, squared.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, select

from ctcore.catalog.engine import in_keys
from ctcore.catalog.tables import edge, entity, event, file
from ctcore.model.node import Node


@dataclass(frozen=True)
class SharedFile:
    """One content of a path, in one role: all who ever had it there, who are of one level."""

    level: str
    role: str
    version: str
    owners: frozenset[str]


def ever_shared(connection: Connection) -> list[SharedFile]:
    """All contents that several entities had under one path at any time."""
    # Asked first: without a declaration nothing was shared, and the look through all events would be for nothing.
    declared = select(event.c.seq).where(event.c.kind == "schema", event.c.body.contains('"shared":')).limit(1)
    if connection.execute(declared).first() is None:
        return []
    names = {number: (level, who) for number, level, who in connection.execute(select(entity.c.seq, *_NODE))}
    owners: dict[tuple[str, str, str, str], set[str]] = defaultdict(set)
    for node, *content in _contents(connection, names):
        level, who = node
        owners[level, content[0], content[1], content[2]].add(who)
    return [
        SharedFile(level, role, version, frozenset(some))
        for (level, role, _, version), some in owners.items()
        if len(some) > 1
    ]


_NODE = (entity.c.level, entity.c.id)


def _contents(connection: Connection, names: Mapping[int, Node]) -> Iterator[tuple[Node, str, str, str]]:
    """Who had which content at which time: role, path and digest."""
    columns = (file.c.entity, file.c.role, file.c.path, file.c.digest)
    for number, role, path, digest in connection.execute(select(*columns)):
        yield names[number], role, path, digest
    told = select(event.c.kind, event.c.subject, event.c.body).where(event.c.kind.in_(("register", "file")))
    for kind, subject, body in connection.execute(told.where(event.c.body.contains('"path":'))):
        said = json.loads(body)
        if kind == "file" and "new" in said:
            level, _, who = subject.partition("/")
            yield (level, who), said["role"], said["path"], said["new"]
        for row in said.get("files", ()) if kind == "register" else ():
            if row["entity"] in names:
                yield names[row["entity"]], row["role"], row["path"], row["digest"]


def makings_of_shared(connection: Connection, files: Iterable[SharedFile]) -> set[int]:
    """Makings that one of these files is an input of."""
    found: set[int] = set()
    for one in files:
        mine = (edge.c.asset == one.level) & in_keys(edge.c.partition, one.owners)
        used = select(edge.c.materialization).where(mine, edge.c.input == one.role)
        found |= set(connection.execute(used.where(edge.c.version == one.version)).scalars())
    return found
