"""The database: its URL, an engine for SQLite or PostgreSQL, and its errors in plain words."""

import os
import sqlite3
import time
from functools import lru_cache
from typing import Any
from weakref import WeakSet

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.util import LRUCache

from ctcore.catalog.event_log import WAY
from ctcore.errors import CatalogError
from ctcore.store.digest import digest_value
from ctcore.util.disk_errors import FEW, are_files_short, too_many_files

# SQLite waits this long for a lock, then fails with `database is locked` (sqlite.org/c3ref/busy_timeout.html).
BUSY_MS = 30_000
CACHE_KIB, SCANNED_KIB = 65_536, 4_096  # of SQLite's pages
# NAMEDATALEN - 1 (PostgreSQL manual, 4.1.1): two long project IDs would otherwise share a schema.
_NAME_BYTES = 63  # PostgreSQL silently cuts longer names


def error_hint(error: DBAPIError, free: int | None = None) -> str:
    said = str(error.orig).strip().splitlines()[0] if error.orig else str(error)
    signs = ("full", "I/O", "unable to open")
    if (
        free is not None and free < FEW and any(sign in said for sign in signs)
    ):  # to be read, it needs room too: 32 KiB for its index of the log
        return f"its disk is full ({free:,} bytes are free): make room there; what was committed before is safe"
    if "unable to open" in said and are_files_short():
        return too_many_files()
    ways = {
        "disk is full": "make room on that disk; what was committed before is safe",
        "No space left": "make room on the server's disk; what was committed before is safe",
        "disk I/O": "is the disk full (`df`), or does it fail? What was committed before is safe",
        "readonly": "the file or its folder is read-only: allow writing there",
        "unable to open": "its folder is missing (make it with `ct init`), or cannot be written, as also a reader must",
        "locked": "another process has been writing for a long time: wait, or see what else writes to it",
        "lock timeout": "another process has been writing for a long time: wait, or see what else writes to it",
        "permission denied for database": "ask its owner for CREATE on it, or for a schema of that name",
        "not a database": f"the file is damaged or is something else; {WAY}",
        "malformed": f"the file is damaged; {WAY}",
        "no such ": f"the file is damaged: a part of it is gone; {WAY}",
        'relation "': f"a part of it is gone; {WAY}",
        "declared_": "the declared schema does not allow it (see `ct schema check`); nothing was written",
        "onnection": "is the database server running, and the URL right?",
    }
    way = next((way for sign, way in ways.items() if sign in said), "nothing was written")
    return f"{said}; {way}"


def is_damage(error: DBAPIError) -> bool:
    """Whether ct did not write this: SQLite's bytes or the tables are damaged."""
    # Codes of PostgreSQL: undefined table and column; data and index corrupted (manual, appendix A).
    signs = ("not a database", "malformed", "no such table", "no such column", "Could not decode", "unsupported file")
    code = getattr(error.orig, "pgcode", None)
    return code in ("42P01", "42703", "XX001", "XX002") or any(one in str(error.orig) for one in signs)


class _CompiledStatements(LRUCache[Any, Any]):
    """Statements as a database takes them, of all catalogs of this process.

    A run opens the project anew for each step, and to compile its statements anew took a fifth of a short step.
    SQLAlchemy's key begins with the dialect, an object of each engine; SQLite's are all alike within a process, and so
    are those of one PostgreSQL server.
    """

    def get(self, key: Any, default: Any = None) -> Any:
        return super().get(key[1:], default)

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__(key[1:], value)


@lru_cache
def compiled_statements(server: URL | None) -> _CompiledStatements:
    """Those of one PostgreSQL server, by its URL without a database; None: of SQLite."""
    return _CompiledStatements(1000)


_made = WeakSet[Engine]()


def close_databases() -> bool:
    """Close every connection of this process that nobody uses now; the next use opens one again. Whether all are
    closed."""
    engines: list[Any] = list(_made)
    are_idle = not any(engine.pool.checkedout() for engine in engines)
    for engine in engines:
        engine.dispose()
    return are_idle


def make_engine(url: URL, schema: str) -> Engine:
    engine = _engine(url, schema)
    _made.add(engine)
    return engine


def _engine(url: URL, schema: str) -> Engine:
    # hide_parameters: patients' data stand in no error text and no log
    if url.get_backend_name() == "sqlite":
        engine = create_engine(url, connect_args={"timeout": BUSY_MS / 1000}, hide_parameters=True)
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        engine.update_execution_options(compiled_cache=compiled_statements(None))
        return engine
    return _postgresql(url, schema)


@lru_cache(8)
def _postgresql(url: URL, schema: str) -> Engine:
    """One for all who open this catalog in this process: a connection of PostgreSQL's is a process there, which reads
    what the tables are anew."""
    # As options of the connection, so that every pooled connection has them before its first statement.
    options = [f"-csearch_path={schema}", f"-clock_timeout={BUSY_MS}"]
    if isinstance(own := url.query.get("options"), str):
        options.insert(0, own)
    arguments = {"options": " ".join(options), "connect_timeout": 10}
    engine = create_engine(
        url,
        connect_args=arguments,
        # A server restart closes pooled connections; without a ping, the next statement would fail.
        pool_pre_ping=True,
        hide_parameters=True,
        executemany_mode="values_plus_batch",  # else upserts and updates of many rows are sent one by one
        use_native_hstore=False,  # else each connection asks for a type that no table of ours has
    )
    engine.update_execution_options(compiled_cache=compiled_statements(url.set(database=None)))
    return engine


# A fork has the connections of its parent, who goes on with them (docs.sqlalchemy.org, Using Connection Pools with
# Multiprocessing); psycopg2 leaves them open there.
os.register_at_fork(after_in_child=_postgresql.cache_clear)


def parse_url(given: str) -> URL:
    """The checked URL. Errors do not quote it, because it may contain a password."""
    try:
        url = make_url(given)
    except (ArgumentError, ValueError):
        url = None
    known = url is not None and url.get_backend_name() in ("sqlite", "postgresql", "postgres")
    if url is None or not known or "@" in (url.host or ""):
        raise CatalogError(
            "CT_POSTGRES_URL is no database URL; write postgresql://USER:PASSWORD@HOST:PORT/DATABASE, with %40 for "
            "an @ in the password, and %2F for a /"
        )
    return url if url.get_backend_name() == "sqlite" else url.set(drivername="postgresql+psycopg2")


def schema_of(project_id: str) -> str:
    """The schema of a project: other IDs have other schemas, also where they are too long for a name."""
    name = "ct_" + project_id.replace("-", "_")
    if len(name) <= _NAME_BYTES:
        return name
    return f"{name[:40]}_{digest_value('ct.schema.v1', project_id)[-20:]}"


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    # Python's sqlite3 begins transactions by itself, but only before some statements (a SELECT is outside), and takes
    # `WITH … UPDATE` for a query. With None, only `_begin_sqlite` begins them (docs.python.org, sqlite3,
    # isolation_level).
    connection.isolation_level = None  # transactions are begun below, not by the driver
    for pragma in (
        f"busy_timeout={BUSY_MS}",
        # Off by default, and a setting of the connection, not of the file (sqlite.org/foreignkeys.html).
        "foreign_keys=ON",
        # In WAL mode, NORMAL may lose committed transactions in a power failure
        # (sqlite.org/pragma.html#pragma_synchronous). An acknowledged event must not be lost. The price is 0.2 ms a
        # commit, so many rows go into one transaction.
        "synchronous=FULL",
        # Temporary tables may hold patients' values: they must not reach the disk.
        "temp_store=MEMORY",
        f"cache_size=-{CACHE_KIB}",
    ):
        connection.execute(f"PRAGMA {pragma}")
    _into_wal(connection)


def _into_wal(connection: Any) -> None:
    """Two that open a new catalog at once: SQLite does not wait for the other one to have changed the mode."""
    deadline = time.monotonic() + BUSY_MS / 1000
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("ct_write")
    # A transaction that reads first and then writes fails at once with SQLITE_BUSY if another one wrote in between,
    # whatever the timeout (sqlite.org/lang_transaction.html). IMMEDIATE takes the write lock first, and waits for it.
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
