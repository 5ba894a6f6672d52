"""What a verdict cannot do without: join every edge with the artifact it came from, compare versions, count.

Each way reads the tables of a filled catalog and returns (edges, that differ). DuckDB is measured where it is installed
(`pip install duckdb`), and on the catalog's own file where its SQLite extension of the same version is too
(`pip install duckdb-extension-sqlite-scanner`).
"""

import importlib.util
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.measure import Measured, timed

_JOIN = "FROM {0}edge e JOIN {0}artifact a ON a.asset = e.asset AND a.partition = e.partition"
_COUNT = f"SELECT count(*), count(*) FILTER (WHERE a.data_version <> e.version) {_JOIN}"
_TABLES = {"artifact": ("asset", "partition", "data_version"), "edge": ("asset", "partition", "version")}
Found = dict[str, Measured]


def of_the_file(catalog: Path) -> Found:
    """Ways that read the SQLite file itself."""
    found = {"SQLite: the same scan and join": _in_sqlite(catalog)}
    if (extension := _extension()) is not None:
        found["DuckDB on the SQLite file"] = _in_duckdb(catalog, extension, attached=True)
    return found


def of_loaded_tables(catalog: Path, folder: Path) -> Found:
    """Ways that have the tables in memory, or in a form of their own, before the clock starts."""
    found = {"numpy: the same gather and compare": _in_numpy(catalog)}
    if importlib.util.find_spec("duckdb") is not None:
        found["DuckDB, tables loaded"] = _in_duckdb(catalog, folder / "scan", attached=False)
    return found


def of_the_server(url: str, schema: str) -> Found:
    import psycopg2

    connection = psycopg2.connect(url, options=f"-csearch_path={schema}")
    try:
        return {"PostgreSQL: the same scan and join": timed(lambda: _fetched(connection.cursor(), _COUNT.format("")))}
    finally:
        connection.close()


def fastest(found: Found) -> tuple[str, Measured]:
    return min(found.items(), key=lambda item: item[1].seconds)


def _fetched(cursor: Any, statement: str) -> tuple[int, ...]:
    cursor.execute(statement)
    return tuple(cursor.fetchall()[0])


def _in_sqlite(catalog: Path) -> Measured:
    connection = sqlite3.connect(catalog)
    try:
        return timed(lambda: connection.execute(_COUNT.format("")).fetchone())
    finally:
        connection.close()


def _in_duckdb(catalog: Path, place: Path, attached: bool) -> Measured:
    """`place`: the extension that reads the catalog, or a folder for the tables on their way."""
    import duckdb

    connection = duckdb.connect(config={"threads": len(os.sched_getaffinity(0))})
    try:
        if attached:
            connection.execute(f"LOAD '{place}'")
            connection.execute(f"ATTACH '{catalog}' AS given (TYPE sqlite, READ_ONLY)")
            return timed(lambda: connection.execute(_COUNT.format("given.")).fetchone())
        place.mkdir()
        for table, columns in _TABLES.items():
            _exported(catalog, table, columns, place / table)
            names = ", ".join(f"'{name}': 'VARCHAR'" for name in columns)
            read = f"read_csv('{place / table}', header=false, delim='\t', quote='', escape='', columns={{{names}}})"
            connection.execute(f"CREATE TABLE {table} AS SELECT * FROM {read}")
            (place / table).unlink()
        return timed(lambda: connection.execute(_COUNT.format("")).fetchone())
    finally:
        connection.close()


def _exported(catalog: Path, table: str, columns: tuple[str, ...], to: Path) -> None:
    connection = sqlite3.connect(catalog)
    with to.open("w") as stream:
        rows = connection.execute(f"SELECT {', '.join(columns)} FROM {table}")
        stream.writelines("\t".join(row) + "\n" for row in rows)
    connection.close()


def _extension() -> Path | None:
    """DuckDB's own file for reading SQLite, of exactly the version of DuckDB that is installed."""
    if importlib.util.find_spec("duckdb") is None:
        return None
    import duckdb

    spec = importlib.util.find_spec("duckdb_extension_sqlite_scanner")
    places = [Path(place) for place in (spec.submodule_search_locations or [])] if spec else []
    name = f"extensions/v{duckdb.__version__}/sqlite_scanner.duckdb_extension"
    return next((place / name for place in places if (place / name).is_file()), None)


def _in_numpy(catalog: Path) -> Measured:
    """Nodes as numbers, versions as their 32 bytes: the join is a gather through a table of where each node is."""
    import numpy as np

    connection = sqlite3.connect(catalog)
    rows = connection.execute("SELECT asset, partition, data_version FROM artifact").fetchall()
    numbers = {(asset, partition): at for at, (asset, partition, _) in enumerate(rows)}
    artifacts = np.random.default_rng(0).permutation(len(rows)).astype(np.int32)
    versions = np.frombuffer(bytes.fromhex("".join(rows[at][2] for at in artifacts)), np.uint64).reshape(-1, 4)
    sources, used = np.empty(0, np.int32), np.empty((0, 4), np.uint64)
    for some in _edges(connection, numbers):
        sources = np.concatenate([sources, np.array([at for at, _ in some], np.int32)])
        bytes_used = bytes.fromhex("".join(version for _, version in some))
        used = np.concatenate([used, np.frombuffer(bytes_used, np.uint64).reshape(-1, 4)])
    connection.close()

    def count() -> tuple[int, int]:
        where = np.empty(len(artifacts), np.int32)
        where[artifacts] = np.arange(len(artifacts), dtype=np.int32)
        differ = (versions[where[sources]] != used).any(axis=1)
        return len(sources), int(differ.sum())

    return timed(count)


def _edges(
    connection: sqlite3.Connection, numbers: dict[tuple[str, str], int], at_once: int = 1 << 20
) -> Iterator[list[tuple[int, str]]]:
    cursor = connection.execute("SELECT asset, partition, version FROM edge")
    while rows := cursor.fetchmany(at_once):
        yield [(numbers[row[:2]], row[2]) for row in rows if row[:2] in numbers]
