"""⑥ Tombstones: makings whose files were purged. They stay in the ledger with digests and sizes, and are never used."""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import ColumnElement, Connection, func, select

from ctcore.catalog.engine import in_keys
from ctcore.catalog.tables import artifact, materialization, purge, tombstone


def is_purged() -> ColumnElement[bool]:
    """Whether a row of `materialization` has a tombstone."""
    return select(tombstone.c.purge).where(tombstone.c.materialization == materialization.c.id).exists()


def words(row: Any) -> str:
    """What a tombstone says: `row` is of the table `purge`. That files are gone is said only once they are."""
    done = f"purged on {row.ended_at[:10]}" if row.ended_at else f"being purged since {row.at[:10]}"
    return f"{done} (purge {row.id})"


def of_makings(connection: Connection, ids: Iterable[int], dialect: str) -> dict[int, str]:
    """Which of these makings were purged, with the words."""
    joined = select(purge, tombstone.c.materialization).join(tombstone, tombstone.c.purge == purge.c.id)
    rows = connection.execute(joined.where(in_keys(tombstone.c.materialization, ids, dialect)))
    return {row.materialization: words(row) for row in rows}


def of_nodes(connection: Connection, asset: str, partitions: Iterable[str], dialect: str) -> dict[str, str]:
    """Which of these nodes of a step are not there because their last making was purged, with the words."""
    made = materialization.c
    last = (
        select(func.max(made.id))
        .where(made.asset == asset, in_keys(made.partition, partitions, dialect))
        .group_by(made.partition)
    )
    there = select(artifact.c.asset).where(artifact.c.asset == made.asset, artifact.c.partition == made.partition)
    joined = select(purge, made.partition).join(tombstone, tombstone.c.purge == purge.c.id)
    joined = joined.join(materialization, made.id == tombstone.c.materialization)
    rows = connection.execute(joined.where(made.id.in_(last), ~there.exists()))
    return {row.partition: words(row) for row in rows}


def unfinished(connection: Connection) -> list[Any]:
    """Purges of which files may be left, as rows."""
    return list(connection.execute(select(purge).where(purge.c.ended_at.is_(None)).order_by(purge.c.id)))
