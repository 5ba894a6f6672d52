"""Files that a project knows already are not adopted under another story: who is inside them is known, and a claim that
says otherwise would let somebody's bytes past consent and purge."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, select

from ctcore.catalog.engine import in_keys
from ctcore.catalog.tables import edge, file, materialization, output, reference, reference_version
from ctcore.inputs.key import Edge
from ctcore.model.levels import ENTITY_LEVELS
from ctcore.model.node import Node
from ctcore.project import Project
from ctcore.store.digest import Read
from ctcore.store.folder_content import files_among, kept_listings


def known_files(
    project: Project,
    connection: Connection,
    entered: Iterable[tuple[Node, Sequence[Edge], Iterable[Path]]],
    reads: Mapping[Path, Read],
) -> list[str]:
    """What is wrong with files whose bytes a project has, or had: as another node's output or one made of other inputs,
    as a raw file or a file in a raw folder, or as a reference. Empty files tell nothing of anybody."""
    digests = {read[0] for read in reads.values() if read[1]}
    foreign = _raw_or_reference(project, connection, digests)
    makings = _makings(connection, digests)
    edges = _edges(connection, {number for some in makings.values() for _, number in some})
    problems: list[str] = []
    for node, mine, paths in entered:
        wanted = {tuple(one) for one in mine}
        for path in paths:
            digest = reads[path][0]
            others = [one for one in makings.get(digest, ()) if one[0] != node or edges[one[1]] != wanted]
            if others or digest in foreign:
                problems.append(
                    f"{path}: the project has these bytes already, as another file or as made from other inputs; "
                    f"`ct trace {path}` says whose they are"
                )
    return problems


def _makings(connection: Connection, digests: Iterable[str]) -> dict[str, list[tuple[Node, int]]]:
    """The makings with these contents among their outputs, also purged ones: node and number."""
    made = materialization.c
    rows = select(output.c.digest, made.asset, made.partition, made.id)
    rows = rows.join(materialization, made.id == output.c.materialization).where(in_keys(output.c.digest, digests))
    found: dict[str, list[tuple[Node, int]]] = defaultdict(list)
    for digest, asset, partition, number in connection.execute(rows):
        found[digest].append(((asset, partition), number))
    return found


def _edges(connection: Connection, makings: Iterable[int]) -> dict[int, set[tuple[str, ...]]]:
    found: dict[int, set[tuple[str, ...]]] = defaultdict(set)
    columns = (edge.c.materialization, edge.c.input, edge.c.asset, edge.c.partition, edge.c.version)
    for number, *said in connection.execute(select(*columns).where(in_keys(edge.c.materialization, makings))):
        found[number].add(tuple(said))
    return found


def _raw_or_reference(project: Project, connection: Connection, digests: set[str]) -> set[str]:
    """Of these, the contents that raw files and references have, or had when something was made from them."""
    columns: tuple[Any, ...] = (file.c.digest, reference.c.digest, reference_version.c.digest)
    asked = [select(column).where(in_keys(column, digests)) for column in columns]
    used = select(edge.c.version).where(edge.c.asset.in_(ENTITY_LEVELS), in_keys(edge.c.version, digests))
    found = {one for query in (*asked, used) for one in connection.execute(query).scalars()}
    return found | files_among(project.store.root, kept_listings(project.store.root), digests)
