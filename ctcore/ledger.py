"""⑥ The ledger: what was made from what. Written after the files are published, in one transaction for many nodes."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Table, delete, func, select, update
from sqlalchemy.dialects import postgresql, sqlite

from ctcore import qc
from ctcore.catalog.engine import Writer, in_keys
from ctcore.catalog.replay import making_digest
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
from ctcore.clock import now
from ctcore.digest import Signature, canonical
from ctcore.leases import give_back
from ctcore.memo import Hit
from ctcore.project import Project
from ctcore.reasons import Node, name_of
from ctcore.slurm import jobs
from ctcore.steps import Recipe
from ctcore.store import Published


@dataclass(frozen=True)
class Failed:
    """A call that ended without a result: what it said, and where its whole log is."""

    node: Node
    key: str
    error: str
    log: str | None


def record(project: Project, published: Sequence[Published]) -> dict[Node, int]:
    """Write published artifacts into the ledger and make them current. Recording one twice changes nothing."""
    sidecars = [project.store.sidecar(one.folder) for one in published]
    with project.catalog.write() as writer:
        connection = writer.connection
        recipes = recipe_numbers(writer, [recipe_of(side) for side in sidecars])
        known = _already(connection, [side["key"] for side in sidecars], project.dialect)
        used = {number: digest for digest, number in recipes.items()}
        next_id = (connection.execute(select(func.max(materialization.c.id))).scalar() or 0) + 1
        ids: dict[Node, int] = {}
        fresh: list[tuple[int, Published, dict[str, Any]]] = []
        for one, side in zip(published, sidecars, strict=True):
            node: Node = (side["node"][0], side["node"][1])
            found = known.get((side["key"], side["started_at"], one.data_version))
            if found is None:
                found, next_id = next_id, next_id + 1
                fresh.append((found, one, side))
            ids[node] = found
        written = insert_makings(project, writer, fresh, recipes)
        current = [
            {
                "asset": side["node"][0],
                "partition": side["node"][1],
                "materialization": ids[(side["node"][0], side["node"][1])],
                "recipe": recipes[recipe_of(side).digest],
                "data_version": one.data_version,
                "key": side["key"],
                "checked_at": now(),
            }
            for one, side in zip(published, sidecars, strict=True)
        ]
        moved = _moved(connection, current, project.dialect)
        _make_current(writer, current, project.dialect)
        keys = [side["key"] for side in sidecars]
        give_back(writer, keys, project.dialect)
        jobs.close(writer, keys, project.dialect)
        for row, parts in written:
            writer.event("materialize", name_of((row["asset"], row["partition"])), _said(row, parts, used))
        _say_qc(writer, [(tuple(side["node"]), side["level"], ids[tuple(side["node"])], side) for side in sidecars])
        new = {number for number, _, _ in fresh}
        for row in moved:
            if row["materialization"] not in new:
                _say_reused(writer, row)
    return ids


def reuse(project: Project, found: Mapping[Node, Hit]) -> list[Node]:
    """Make earlier makings current again. Returns the nodes for which that changes something."""
    with project.catalog.write() as writer:
        rows = writer.execute(
            select(materialization).where(
                in_keys(materialization.c.id, [hit.materialization for hit in found.values()], project.dialect)
            )
        ).all()
        pointers = {
            (row.asset, row.partition): row.materialization
            for row in writer.execute(
                select(artifact).where(
                    artifact.c.asset.in_({row.asset for row in rows}),
                    in_keys(artifact.c.partition, {row.partition for row in rows}, project.dialect),
                )
            )
        }
        moved = [row for row in rows if pointers.get((row.asset, row.partition)) != row.id]
        names = ("asset", "partition", "recipe", "data_version", "key")
        _make_current(
            writer,
            [
                {
                    **{name: getattr(row, name) for name in names},
                    "materialization": row.id,
                    "checked_at": None,
                }
                for row in moved
            ],
            project.dialect,
        )
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


def _say_qc(writer: Writer, current: Iterable[tuple[Node, str, int, Mapping[str, Any]]]) -> None:
    """What the steps say of their entities, by the makings that are current now: node, level, number, sidecar."""
    said: dict[tuple[str, str], dict[str, tuple[int, Mapping[str, Any]]]] = {}
    for (asset, partition), level, number, side in current:
        said.setdefault((asset, level), {})[partition] = (number, side["facts"])
    for (asset, level), made in said.items():
        qc.of_makings(writer, asset, level, made)


def _say_reused(writer: Writer, row: Mapping[str, Any]) -> None:
    body = {name: row[name] for name in ("key", "data_version", "materialization")}
    writer.event("reuse", name_of((row["asset"], row["partition"])), body)


def _moved(connection: Connection, rows: Sequence[dict[str, Any]], dialect: str) -> list[dict[str, Any]]:
    """Those of which the node is not what it is about to be: it points elsewhere, or is damaged."""
    assets, partitions = {row["asset"] for row in rows}, {row["partition"] for row in rows}

    def nodes(table: Table, *columns: Any) -> Iterable[Any]:
        mine = table.c.asset.in_(assets) & in_keys(table.c.partition, partitions, dialect)
        return connection.execute(select(table.c.asset, table.c.partition, *columns).where(mine))

    points = {(row[0], row[1]): row[2] for row in nodes(artifact, artifact.c.materialization)}
    harmed = {(row[0], row[1]) for row in nodes(damage)}
    whole = points.items() - {(node, points.get(node)) for node in harmed}
    return [row for row in rows if ((row["asset"], row["partition"]), row["materialization"]) not in whole]


def record_failures(project: Project, failed: Iterable[Failed], run_id: str | None) -> None:
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
        give_back(writer, [one.key for one in listed], project.dialect)
        for one in listed:
            writer.event("fail", name_of(one.node), _failure(one, run_id))


def _failure(one: Failed, run_id: str | None) -> dict[str, Any]:
    return {"key": one.key, "error": one.error, "run_id": run_id, "log": one.log}


def _storable(said: str) -> str:
    """What a tool said, as a text that every database takes: no NUL, no halves of characters."""
    return said.replace("\0", "\ufffd").encode(errors="replace").decode()


def record_run(project: Project, run_id: str, asked: Mapping[str, Any]) -> None:
    """Note that a run began: who asked for what."""
    with project.catalog.write() as writer:
        body = {"id": run_id, "started_at": now(), "actor": writer.actor, "asked": canonical(asked).decode()}
        upsert(writer, run, [body], project.dialect)


def unreported(project: Project) -> list[tuple[Node, str | None]]:
    """Nodes whose current making Dagster was not told of, with the run that made it: it may be about to tell."""
    with project.catalog.read() as connection:
        rows = connection.execute(
            select(artifact.c.asset, artifact.c.partition, materialization.c.run_id)
            .join(materialization, materialization.c.id == artifact.c.materialization)
            .where(~materialization.c.reported)
        )
        return [((row.asset, row.partition), row.run_id) for row in rows]


def mark_reported(project: Project, ids: Iterable[int]) -> None:
    """Dagster has logged the events of these materializations."""
    with project.catalog.write() as writer:
        mine = in_keys(materialization.c.id, ids, project.dialect)
        writer.execute(update(materialization).where(mine).values(reported=True))


def recipe_of(side: Mapping[str, Any]) -> Recipe:
    return Recipe(**side["recipe"])


def recipe_numbers(writer: Writer, used: Iterable[Recipe]) -> dict[str, int]:
    wanted = {one.digest: one for one in used}
    known = {
        row.digest: row.id
        for row in writer.execute(select(recipe.c.id, recipe.c.digest).where(recipe.c.digest.in_(wanted)))
    }
    next_id = (writer.execute(select(func.max(recipe.c.id))).scalar() or 0) + 1
    for digest, one in wanted.items():
        if digest not in known:
            row = {
                "id": next_id,
                "step": one.step,
                "code": one.code,
                "parameters": canonical(dict(one.parameters)).decode(),
                "environment": canonical(dict(one.environment)).decode(),
                "digest": digest,
            }
            writer.insert(recipe, [row])
            known[digest], next_id = next_id, next_id + 1
    return known


def _already(connection: Connection, keys: Iterable[str], dialect: str) -> dict[tuple[str, str, str], int]:
    """By what tells two makings of one call apart: when, and what came of it; a clock may stand still."""
    made = materialization.c
    rows = connection.execute(
        select(made.key, made.started_at, made.data_version, made.id).where(in_keys(made.key, keys, dialect))
    )
    return {(row.key, row.started_at, row.data_version): row.id for row in rows}


_Parts = tuple[list[tuple[Any, ...]], ...]  # a making's outputs, inputs and members


def insert_makings(
    project: Project,
    writer: Writer,
    fresh: Sequence[tuple[int, Published, dict[str, Any]]],
    recipes: Mapping[str, int],
) -> list[tuple[dict[str, Any], _Parts]]:
    """Write the rows of makings. Returns them, each with what belongs to it."""
    outputs = [_outputs(number, one) for number, one, _ in fresh]
    rows = [_row(project, number, one, side, recipes) for number, one, side in fresh]
    writer.insert(materialization, rows)
    writer.insert(output, [row for some in outputs for row in some])
    edges = ("materialization", "input", "asset", "partition", "version")
    writer.insert(
        edge, [dict(zip(edges, (number, *used), strict=True)) for number, _, side in fresh for used in side["inputs"]]
    )
    members = ("materialization", "level", "entity", "role")
    writer.insert(
        member,
        [dict(zip(members, (number, *one), strict=True)) for number, _, side in fresh for one in side["members"]],
    )
    files = [[(one["file"], one["digest"], one["size"]) for one in some] for some in outputs]
    return [
        (row, (mine, side["inputs"], side["members"]))
        for row, mine, (_, _, side) in zip(rows, files, fresh, strict=True)
    ]


def _row(
    project: Project, number: int, one: Published, side: Mapping[str, Any], recipes: Mapping[str, int]
) -> dict[str, Any]:
    return {
        "id": number,
        "asset": side["node"][0],
        "partition": side["node"][1],
        "key": side["key"],
        "recipe": recipes[recipe_of(side).digest],
        "data_version": one.data_version,
        "folder": str(one.folder.relative_to(project.store.root)),
        "size": sum(entry.size for entry in one.manifest.files.values()),
        "facts": canonical(side["facts"]).decode(),
        "reason": side["reason"],
        "run_id": side.get("run_id"),
        "started_at": side["started_at"],
        "seconds": side["seconds"],
        "reported": False,
    }


def _outputs(number: int, one: Published) -> list[dict[str, Any]]:
    found = []
    for name, entry in one.manifest.files.items():
        seen = _seen(one.folder / name)
        row = {"materialization": number, "file": name, "digest": entry.digest, "size": entry.size}
        found.append({**row, "mtime_ns": seen.mtime_ns, "inode": seen.inode})
    return found


def _seen(path: Path) -> Signature:
    """Of a file that is gone by now, none that any file has: it is looked for, and told as damage."""
    try:
        return Signature.of(path)
    except FileNotFoundError:
        return Signature(0, 0, 0)


def _make_current(writer: Writer, rows: list[dict[str, Any]], dialect: str) -> None:
    """Point the nodes to these materializations; what was asked for or damaged is settled by that."""
    if not rows:
        return
    upsert(writer, artifact, rows, dialect)
    for asset in {row["asset"] for row in rows}:
        partitions = [row["partition"] for row in rows if row["asset"] == asset]
        for table in (damage, request):
            writer.execute(delete(table).where(table.c.asset == asset, in_keys(table.c.partition, partitions, dialect)))


def upsert(writer: Writer, table: Table, rows: list[dict[str, Any]], dialect: str) -> None:
    """Insert rows, or replace those with the same primary key."""
    if not rows:
        return
    keys = [column.name for column in table.primary_key]
    statement: Any = (sqlite if dialect == "sqlite" else postgresql).insert(table)
    others = {name: statement.excluded[name] for name in rows[0] if name not in keys}
    writer.execute_many(statement.on_conflict_do_update(index_elements=keys, set_=others), rows)


def _said(row: Mapping[str, Any], parts: _Parts, recipes: Mapping[int, str]) -> dict[str, Any]:
    """`record` ties the other rows of the making to its event: a hand that changes them is found by it."""
    told = {name: row[name] for name in ("key", "data_version", "folder", "reason", "run_id")}
    record = making_digest(row, recipes[row["recipe"]], parts)
    return {**told, "materialization": row["id"], "record": record}
