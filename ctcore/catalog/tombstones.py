"""Tombstones: makings whose files were purged. They stay in the ledger with digests and sizes, and are never used."""

import json
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, Connection, bindparam, func, select

from ctcore.catalog.engine import bind_keys, in_bound_keys, in_keys
from ctcore.catalog.tables import artifact, edge, materialization, member, output, purge, recipe, tombstone


def is_purged() -> ColumnElement[bool]:
    """Whether a row of `materialization` has a tombstone."""
    return select(tombstone.c.purge).where(tombstone.c.materialization == materialization.c.id).exists()


def purge_words(row: Any) -> str:
    """What a tombstone says: `row` is of the table `purge`. That files are gone is said only once they are."""
    done = f"purged on {row.ended_at[:10]}" if row.ended_at else f"being purged since {row.at[:10]}"
    return f"{done} (purge {row.id})"


def purge_words_by_making(connection: Connection, ids: Iterable[int]) -> dict[int, str]:
    """Which of these makings were purged, with the words."""
    joined = select(purge, tombstone.c.materialization).join(tombstone, tombstone.c.purge == purge.c.id)
    rows = connection.execute(joined.where(in_keys(tombstone.c.materialization, ids)))
    return {row.materialization: purge_words(row) for row in rows}


def edge_counts(connection: Connection, ids: Iterable[int]) -> dict[int, int]:
    """Making → how many inputs it has."""
    made = materialization.c
    counted = select(made.id, func.count(edge.c.input)).select_from(
        materialization.outerjoin(edge, edge.c.materialization == made.id)
    )
    rows = connection.execute(counted.where(in_keys(made.id, ids)).group_by(made.id))
    return {row[0]: row[1] for row in sorted(rows)}


def entries(connection: Connection, ids: Iterable[int]) -> dict[int, dict[str, Any]]:
    """What the ledger has of makings, but their files: as it was given to it, see `ledger.entry_of`."""
    numbers, found = list(ids), dict[int, dict[str, Any]]()

    def mine(column: Any) -> ColumnElement[bool]:
        return in_keys(column, numbers)

    names = ("step", "code", "parameters", "environment")
    used = [recipe.c[name].label(f"of_{name}") for name in names]
    joined = select(materialization, *used).join(recipe, recipe.c.id == materialization.c.recipe)
    for row in connection.execute(joined.where(mine(materialization.c.id))).mappings():
        side = {name: row[name] for name in ("key", "reason", "run_id", "started_at", "seconds", "rule")}
        side |= {name: row[name] for name in ("actor", "host", "git")}
        texts = {name: json.loads(row[f"of_{name}"]) for name in names[2:]}
        side |= {"node": (row["asset"], row["partition"]), "facts": json.loads(row["facts"])}
        side |= {"recipe": {"step": row["of_step"], "code": row["of_code"], **texts}, "inputs": [], "members": []}
        found[row["id"]] = {name: row[name] for name in ("id", "data_version", "folder", "size")} | {"side": side}
    for table, part in ((edge, "inputs"), (member, "members")):
        rows = connection.execute(select(table).where(mine(table.c.materialization)).order_by(*table.primary_key))
        for number, *columns in rows:
            found[number]["side"][part].append(columns)
    return found


def entry_from_event(said: Mapping[str, Any]) -> dict[str, Any]:
    """The same of one making, from the event that tells of its end; with its files."""
    files = [{"file": name, "size": size, "digest": digest} for name, (size, digest) in said["files"].items()]
    side = {**said, "node": said["node"].partition("/")[::2], "facts": {}}
    unseen = {"mtime_ns": 0, "inode": 0, "ctime_ns": 0}
    return {**said, "id": said["materialization"], "side": side, "outputs": [{**one, **unseen} for one in files]}


def purge_words_by_partition(connection: Connection, asset: str, partitions: Iterable[str]) -> dict[str, str]:
    """Which of these nodes of a step are not there because their last making was purged, with the words."""
    rows = connection.execute(_last_was_purged(), {"of_asset": asset, "keys": bind_keys(partitions)})
    return {row.partition: purge_words(row) for row in rows}


@cache
def _last_was_purged() -> Any:
    made = materialization.c
    last = (
        select(func.max(made.id))
        .where(made.asset == bindparam("of_asset"), in_bound_keys(made.partition))
        .group_by(made.partition)
    )
    there = select(artifact.c.asset).where(artifact.c.asset == made.asset, artifact.c.partition == made.partition)
    joined = select(purge, made.partition).join(tombstone, tombstone.c.purge == purge.c.id)
    joined = joined.join(materialization, made.id == tombstone.c.materialization)
    return joined.where(made.id.in_(last), ~there.exists())


def current_folders(connection: Connection) -> dict[str, dict[str, tuple[int, str]]]:
    """Every folder of a making without a tombstone, with its files as its last such making left them."""
    made = materialization.c
    rows = connection.execute(
        select(made.id, made.folder, output.c.file, output.c.size, output.c.digest)
        .join(output, output.c.materialization == made.id)
        .where(~is_purged())
        .order_by(made.id)
    )
    found: dict[str, tuple[int, dict[str, tuple[int, str]]]] = {}
    for number, folder, name, size, digest in rows:
        if found.get(folder, (0, {}))[0] != number:
            found[folder] = (number, {})
        found[folder][1][name] = (size, digest)
    return {folder: files for folder, (_, files) in found.items()}


def folders_of(connection: Connection, purges: ColumnElement[bool]) -> list[str]:
    """Folders of tombstones, but those in which the same call was made again since."""
    mine = select(materialization.c.folder).join(tombstone, tombstone.c.materialization == materialization.c.id)
    gone = set(connection.execute(mine.join(purge, purge.c.id == tombstone.c.purge).where(purges)).scalars())
    live = select(materialization.c.folder).where(in_keys(materialization.c.folder, gone), ~is_purged())
    return sorted(gone - set(connection.execute(live).scalars()))


def unfinished_purges(connection: Connection) -> list[Any]:
    """Purges of which files may be left, as rows."""
    return list(connection.execute(select(purge).where(purge.c.ended_at.is_(None)).order_by(purge.c.id)))
