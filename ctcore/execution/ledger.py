"""The ledger of makings and their inputs. It is written after the files are published, in one transaction for many
nodes."""

import json
from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, bindparam, delete, func, literal, null, select, union_all, update

from ctcore.catalog.engine import Writer, bind_keys, in_bound_keys, in_keys, upsert
from ctcore.catalog.group_commit import Request, commit_in_group
from ctcore.catalog.replay import making_digest, matches_event
from ctcore.catalog.row_numbers import next_number
from ctcore.catalog.tables import (
    artifact,
    attempt,
    damage,
    edge,
    materialization,
    member,
    output,
    recipe,
    request,
    run,
)
from ctcore.catalog.tombstones import is_purged
from ctcore.execution.slurm import jobs
from ctcore.governance import qc
from ctcore.inputs.key import Hit
from ctcore.model.node import Node, name_of
from ctcore.project import Project
from ctcore.projects.leases import give_back
from ctcore.steps.graph import Recipe
from ctcore.store.digest import Signature, canonical_json
from ctcore.store.store import PublishedArtifact
from ctcore.util.clock import now

_RECIPES = select(recipe.c.id, recipe.c.digest).where(in_bound_keys(recipe.c.digest))
_MAKINGS = select(
    *(materialization.c.key, materialization.c.started_at, materialization.c.data_version, materialization.c.id)
).where(in_bound_keys(materialization.c.key), ~is_purged())
_ABOUT = union_all(
    *(
        select(literal(table.name), table.c.asset, table.c.partition, making).where(
            in_bound_keys(table.c.asset, "assets"), in_bound_keys(table.c.partition, "partitions")
        )
        for table, making in ((artifact, artifact.c.materialization), (damage, null()), (request, null()))
    )
)
_SETTLED = {
    table.name: delete(table).where(table.c.asset == bindparam("b_asset"), in_bound_keys(table.c.partition))
    for table in (damage, request)
}


@dataclass(frozen=True)
class FailedCall:
    """A call that ended without a result: its error, and the place of its whole log."""

    node: Node
    key: str
    error: str
    log: str | None


def record(project: Project, published: Sequence[PublishedArtifact]) -> dict[Node, int]:
    """Write published artifacts into the ledger and make them current. Repeating it changes nothing.

    Records of other processes at the same moment share the transaction.
    """
    entries = [entry_of(project, one) for one in published]
    nodes: list[Node] = [tuple(entry["side"]["node"]) for entry in entries]
    mine = Request(project.catalog.actor, [name_of(node) for node in nodes], entries)
    folder = project.work / "together" / f"record-{project.catalog.write_queue}"
    return dict(zip(nodes, commit_in_group(folder, mine, partial(_record, project)), strict=True))


def entry_of(project: Project, one: PublishedArtifact) -> dict[str, Any]:
    """The ledger's entry for an artifact, as JSON."""
    return {
        "side": project.store.sidecar(one.folder),
        "data_version": one.data_version,
        "folder": str(one.folder.relative_to(project.store.root)),
        "size": sum(entry.size for entry in one.manifest.files.values()),
        "outputs": list(_outputs(one)),
    }


def _record(project: Project, requests: Sequence[Request]) -> list[list[int]]:
    """The numbers of the makings of each request."""
    entries = [
        {**entry, "actor": one.actor, "recipe": recipe_of(entry["side"])} for one in requests for entry in one.body
    ]
    with project.catalog.write() as writer:
        connection = writer.connection
        recipes = recipe_numbers(writer, [one["recipe"] for one in entries])
        # A request may come twice: who did it first may have died before it answered (`group_commit`).
        known = _already(connection, [one["side"]["key"] for one in entries])
        next_id = next_number(connection, materialization.c.id)
        fresh: list[dict[str, Any]] = []
        for one in entries:
            found = known.get((one["side"]["key"], one["side"]["started_at"], one["data_version"]))
            one["id"] = next_id + len(fresh) if found is None else found
            if found is None:
                fresh.append(one)
        insert_makings(writer, fresh, recipes)
        _settle(writer, entries, recipes, {one["id"] for one in fresh})
    numbers = iter(one["id"] for one in entries)
    return [[next(numbers) for _ in one.body] for one in requests]


def _settle(
    writer: Writer, entries: Sequence[dict[str, Any]], recipes: Mapping[str, int], fresh: Collection[int]
) -> None:
    """Make them current, close what waited for them, and write the events."""
    current = [_pointer(one, recipes) for one in entries]
    about = _About(writer.connection, [(row["asset"], row["partition"]) for row in current])
    moved = [row for row in current if not about.is_whole(row)]
    _make_current(writer, current, about)
    keys = [one["side"]["key"] for one in entries]
    # In the transaction of the record: whoever has the lease afterwards sees the making, and does not repeat it (0020).
    give_back(writer, keys)
    jobs.close(writer, keys)
    again = {row["materialization"]: row for row in moved if row["materialization"] not in fresh}
    # Requests of several people share the transaction; each event names its own.
    for actor, some in groupby(entries, key=itemgetter("actor")):
        writer.actor, mine = actor, list(some)
        for one in mine:
            if one["id"] in fresh:
                writer.event("materialize", name_of(tuple(one["side"]["node"])), _said(one))
        sides = [(one["side"], one["id"]) for one in mine]
        _say_qc(writer, [(tuple(side["node"]), side["level"], number, side) for side, number in sides], fresh)
        for row in (again[one["id"]] for one in mine if one["id"] in again):
            _say_reused(writer, row)


def _pointer(one: Mapping[str, Any], recipes: Mapping[str, int]) -> dict[str, Any]:
    side = one["side"]
    return {
        "asset": side["node"][0],
        "partition": side["node"][1],
        "materialization": one["id"],
        "recipe": recipes[one["recipe"].digest],
        "data_version": one["data_version"],
        "key": side["key"],
        "checked_at": now(),
    }


def reuse(project: Project, found: Mapping[Node, Hit]) -> list[Node]:
    """Make earlier makings current again. Returns the nodes for which that changes something."""
    with project.catalog.write() as writer:
        wanted = in_keys(materialization.c.id, [hit.materialization for hit in found.values()])
        rows = writer.execute(select(materialization).where(wanted)).all()
        about = _About(writer.connection, [(row.asset, row.partition) for row in rows])
        moved = [row for row in rows if about.points.get((row.asset, row.partition)) != row.id]
        names = ("asset", "partition", "recipe", "data_version", "key")
        current = [
            {**{name: getattr(row, name) for name in names}, "materialization": row.id, "checked_at": None}
            for row in moved
        ]
        _make_current(writer, current, about)
        for row in moved:
            _say_reused(writer, {**row._mapping, "materialization": row.id})
        _say_qc(
            writer,
            [
                ((row.asset, row.partition), project.steps[row.asset].level, row.id, {"facts": json.loads(row.facts)})
                for row in moved
            ],
        )
    return [(row.asset, row.partition) for row in moved]


def _say_qc(
    writer: Writer, current: Iterable[tuple[Node, str, int, Mapping[str, Any]]], fresh: Container[int] = ()
) -> None:
    """Record the QC that steps return for their entities, from the current makings: node, level, number, sidecar.
    The `fresh` ones were made now."""
    said: dict[tuple[str, str], dict[str, tuple[int, Mapping[str, Any]]]] = {}
    for (asset, partition), level, number, side in current:
        said.setdefault((asset, level), {})[partition] = (number, side["facts"])
    for (asset, level), made in said.items():
        qc.qc_of_makings(writer, asset, level, made, fresh)


def _say_reused(writer: Writer, row: Mapping[str, Any]) -> None:
    body = {name: row[name] for name in ("key", "data_version", "materialization")}
    writer.event("reuse", name_of((row["asset"], row["partition"])), body)


class _About:
    """The catalog's facts on nodes, from one statement: the making to which each points, and the tables that name
    it."""

    def __init__(self, connection: Connection, nodes: Collection[Node]) -> None:
        self.points: dict[Node, int] = {}
        self.named: dict[str, set[Node]] = {}
        # Assets and partitions apart, because a list of pairs is no one value to bind. It may find more nodes than
        # asked for; they are looked up by pair afterwards.
        mine = {"assets": bind_keys({node[0] for node in nodes}), "partitions": bind_keys({node[1] for node in nodes})}
        for table, asset, partition, making in connection.execute(_ABOUT, mine):
            self.named.setdefault(table, set()).add((asset, partition))
            if making is not None:
                self.points[asset, partition] = making

    def is_whole(self, row: Mapping[str, Any]) -> bool:
        """Whether the node is what it is about to be: it points there, and is not damaged."""
        node = (row["asset"], row["partition"])
        return self.points.get(node) == row["materialization"] and node not in self.named.get(damage.name, ())


def record_failures(project: Project, failed: Iterable[FailedCall], run_id: str | None) -> None:
    """Write down calls that ended without a result, and give their leases back."""
    listed = [replace(one, error=_storable(one.error)) for one in failed]
    with project.catalog.write() as writer:
        next_id = (writer.execute(select(func.max(attempt.c.id))).scalar() or 0) + 1
        writer.insert(
            attempt,
            [
                {
                    "id": next_id + offset,
                    "asset": one.node[0],
                    "partition": one.node[1],
                    "key": one.key,
                    "run_id": run_id,
                    "ended_at": writer.at,
                    "error": one.error,
                    "log": one.log,
                }
                for offset, one in enumerate(listed)
            ],
        )
        give_back(writer, [one.key for one in listed])
        for one in listed:
            writer.event("fail", name_of(one.node), _failure(one, run_id))


def _failure(one: FailedCall, run_id: str | None) -> dict[str, Any]:
    return {"key": one.key, "error": one.error, "run_id": run_id, "log": one.log}


def _storable(said: str) -> str:
    """What a tool said, as a text that every database takes: no NUL, no halves of characters."""
    return said.replace("\0", "\ufffd").encode(errors="replace").decode()


def record_run(project: Project, run_id: str, asked: Mapping[str, Any]) -> None:
    """Record that a run began: who requested what."""
    with project.catalog.write() as writer:
        body = {"id": run_id, "started_at": now(), "actor": writer.actor, "asked": canonical_json(asked).decode()}
        upsert(writer, run, [body])


def unreported_makings(project: Project) -> list[tuple[Node, str | None]]:
    """Nodes whose current making Dagster does not know, with the run that made it, which may be about to report it."""
    with project.catalog.read() as connection:
        rows = connection.execute(
            select(artifact.c.asset, artifact.c.partition, materialization.c.run_id)
            .join(materialization, materialization.c.id == artifact.c.materialization)
            .where(~materialization.c.reported)
        )
        return [((row.asset, row.partition), row.run_id) for row in rows]


def current_makings(project: Project, step: str, keys: Iterable[str]) -> dict[str, tuple[int, str, str]]:
    """The current making of these partitions of a step: its number, data version and reason."""
    made = materialization.c
    asked = select(artifact.c.partition, made.id, made.data_version, made.reason)
    asked = asked.join(materialization, made.id == artifact.c.materialization)
    with project.catalog.read() as connection:
        rows = connection.execute(asked.where(artifact.c.asset == step, in_keys(artifact.c.partition, keys)))
        return {row.partition: (row.id, row.data_version, row.reason) for row in rows}


def mark_reported(project: Project, ids: Iterable[int]) -> None:
    """Dagster has logged the events of these materializations."""
    with project.catalog.write() as writer:
        mine = in_keys(materialization.c.id, ids)
        writer.execute(update(materialization).where(mine).values(reported=True))


def recipe_of(side: Mapping[str, Any]) -> Recipe:
    return Recipe(**side["recipe"])


def recipe_numbers(writer: Writer, used: Iterable[Recipe]) -> dict[str, int]:
    wanted = {one.digest: one for one in used}
    known = {row.digest: row.id for row in writer.execute(_RECIPES, {"keys": bind_keys(wanted)})}
    for digest, one in wanted.items():
        if digest not in known:
            next_id = (writer.execute(select(func.max(recipe.c.id))).scalar() or 0) + 1
            row = {
                "id": next_id,
                "step": one.step,
                "code": one.code,
                "parameters": canonical_json(dict(one.parameters)).decode(),
                "environment": canonical_json(dict(one.environment)).decode(),
                "digest": digest,
            }
            writer.insert(recipe, [row])
            known[digest] = next_id
    return known


def _already(connection: Connection, keys: Iterable[str]) -> dict[tuple[str, str, str], int]:
    """Match makings of one call by time and result, because a clock may stand still."""
    rows = connection.execute(_MAKINGS, {"keys": bind_keys(keys)})
    return {(row.key, row.started_at, row.data_version): row.id for row in rows}


def insert_makings(writer: Writer, fresh: Sequence[Mapping[str, Any]], recipes: Mapping[str, int]) -> None:
    writer.insert(materialization, [_making(one, recipes[one["recipe"].digest]) for one in fresh])
    writer.insert(output, [{"materialization": one["id"], **row} for one in fresh for row in one["outputs"]])
    names = ("materialization", "input", "asset", "partition", "version")
    edges = [(one["id"], *used) for one in fresh for used in one["side"]["inputs"]]
    writer.insert(edge, [dict(zip(names, row, strict=True)) for row in edges])
    writer.insert(
        member,
        [
            {"materialization": one["id"], "level": level, "entity": who, "role": role}
            for one in fresh
            for level, who, role in one["side"]["members"]
        ],
    )


def _making(one: Mapping[str, Any], recipe_number: int) -> dict[str, Any]:
    side = one["side"]
    return {
        "id": one["id"],
        "asset": side["node"][0],
        "partition": side["node"][1],
        "key": side["key"],
        "recipe": recipe_number,
        "data_version": one["data_version"],
        "folder": one["folder"],
        "size": one["size"],
        "facts": canonical_json(side["facts"]).decode(),
        "reason": side["reason"],
        "run_id": side.get("run_id"),
        "started_at": side["started_at"],
        "seconds": side["seconds"],
        "reported": False,
        "rule": side.get("rule"),
        **{name: side.get(name) for name in ("actor", "host", "git")},
        "undeclared": None if side.get("undeclared") is None else canonical_json(side["undeclared"]).decode(),
    }


def _outputs(one: PublishedArtifact) -> Iterable[dict[str, Any]]:
    for name, entry in one.manifest.files.items():
        seen = _seen(one.folder / name)
        yield {
            "file": name,
            "digest": entry.digest,
            "size": entry.size,
            "mtime_ns": seen.mtime_ns,
            "inode": seen.inode,
            "ctime_ns": seen.ctime_ns,
        }


def _seen(path: Path) -> Signature:
    """The signature of a file; for a missing one, a signature that no file has, so that it is found as damage."""
    try:
        return Signature.of(path)
    except FileNotFoundError:
        return Signature(0, 0, 0, 0)


def _make_current(writer: Writer, rows: list[dict[str, Any]], about: _About) -> None:
    """Point the nodes to these materializations, which settles their requests and damage."""
    upsert(writer, artifact, rows)
    current = {(row["asset"], row["partition"]) for row in rows}
    for table, settle in _SETTLED.items():
        by_asset: dict[str, set[str]] = {}
        for asset, partition in current & about.named.get(table, set()):
            by_asset.setdefault(asset, set()).add(partition)
        for asset, partitions in by_asset.items():
            writer.execute(settle, {"b_asset": asset, "keys": bind_keys(partitions)})


def record_of(one: Mapping[str, Any]) -> str:
    """Ties the other rows of the making to its event: a hand that changes them is found by it."""
    return making_digest(*_parts_of(one))


def is_record_of(one: Mapping[str, Any], record: str) -> bool:
    """Whether an event holds this of the making, be it one of before."""
    return matches_event(record, *_parts_of(one))


def _parts_of(one: Mapping[str, Any]) -> tuple[dict[str, Any], str, tuple[Iterable[Iterable[Any]], ...]]:
    side = one["side"]
    files = [(file["file"], file["digest"], file["size"]) for file in one["outputs"]]
    return _making(one, 0), one["recipe"].digest, (files, side["inputs"], side["members"])


def _said(one: Mapping[str, Any]) -> dict[str, Any]:
    row, record = _making(one, 0), record_of(one)
    told = {name: row[name] for name in ("key", "data_version", "folder", "reason", "run_id")}
    return {**told, "materialization": one["id"], "record": record}
