"""Dagster's storage during a run: its SQLite files are kept open, and events between two calls of ct are one
transaction. On PostgreSQL there is nothing to do.

Dagster opens and closes a database for each event, has SQLAlchemy compile the same statements anew each time, and
commits each event by itself; and it makes the tables of each run's file one by one. That took most of a run's time.
"""

import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.events import ASSET_EVENTS
from sqlalchemy import Connection, create_engine, event
from sqlalchemy.exc import DBAPIError

from ct_assets.event_writer import EventWriter, LastMaterializations, can_write

Connect = Callable[[str], AbstractContextManager[Connection]]
BUSY_S = 30  # as long as Dagster waits for another process to end its writing
MOST_S = 1.0  # others wait no longer for what one process writes together
_KEPT = "_ct_kept_open"
_INDEX = "index"  # of all events that say something of assets
_DISK = ("full", "I/O", "readonly", "unable to open")  # in SQLite's words for a place that cannot be written (any more)


class StorageLost(BaseException):
    """Dagster's storage cannot be written any more, in the driver's words. It is no `Exception`: of those, Dagster
    prints each that an event meets, and goes on without that event."""


@contextmanager
def _or_lost() -> Iterator[None]:
    try:
        yield
    except (DBAPIError, sqlite3.Error, OSError) as error:
        said = str(getattr(error, "orig", None) or error).splitlines()[0]
        if isinstance(error, OSError) or any(sign in said for sign in _DISK):
            raise StorageLost(said) from error
        raise


@contextmanager
def kept_open(instance: dg.DagsterInstance) -> Iterator[None]:
    """Inside of this block, each database is opened once, and events are committed together: at the end, at `commit`,
    around `at_once`, and after a second. What Dagster notes of runs is committed as it comes: two processes that held
    one of the databases each, and waited for the other's, would wait in vain. Blocks may be nested."""
    events: Any = instance.event_log_storage
    # Internals of Dagster 1.13: where they are named otherwise, runs are slower, and right. A test notices.
    names = ("_connect", "conn_string_for_shard", "path_for_shard", "_initialized_dbs", "_db_lock")
    if any(getattr(events, name, None) is None for name in names) or _KEPT in vars(events):
        yield
        return
    with ExitStack() as stack:
        kept = _KeptOpen(events)
        stack.callback(kept.close)
        if can_write(events) and hasattr(events, "fetch_materializations"):
            last = LastMaterializations(events.fetch_materializations)
            kept.writer, kept.last = EventWriter(events), last
            stack.enter_context(_patched(events, store_event=kept.store, fetch_materializations=last.fetch))
        stack.enter_context(
            _patched(
                events,
                **{_KEPT: kept},
                _connect=kept.connect,
                # These are asked at each event, with a connection of their own or by reading the schema.
                has_table=cache(events.has_table),
                _has_asset_key_col_on_connection=_once_a_column(events._has_asset_key_col_on_connection),
            )
        )
        runs: Any = instance.run_storage
        if hasattr(runs, "connect") and (url := getattr(runs, "_conn_string", None)):
            engine = create_engine(url, connect_args={"timeout": BUSY_S})
            stack.callback(engine.dispose)
            note = runs.handle_run_event

            def noted(*arguments: Any) -> None:
                kept.commit()  # a run that has ended has all of its events
                with _or_lost():
                    note(*arguments)

            stack.enter_context(_patched(runs, connect=engine.begin, handle_run_event=noted))
        yield


@contextmanager
def _patched(one: Any, **attributes: Any) -> Iterator[None]:
    vars(one).update(attributes)
    try:
        yield
    finally:
        for name in attributes:
            vars(one).pop(name)


def commit(instance: dg.DagsterInstance) -> None:
    """All events until now are on disk, and others see them."""
    kept: _KeptOpen | None = vars(instance.event_log_storage).get(_KEPT)
    if kept is not None:
        kept.commit()


@contextmanager
def at_once(instance: dg.DagsterInstance) -> Iterator[None]:
    """Inside of this block, each event is committed by itself: ct works, and that may take days."""
    kept: _KeptOpen | None = vars(instance.event_log_storage).get(_KEPT)
    if kept is None or not kept.is_together:
        yield
        return
    kept.commit()
    kept.is_together = False
    try:
        yield
    finally:
        kept.is_together = True


def _once_a_column(has_column: Callable[[Connection, str], bool]) -> Callable[[Connection, str], bool]:
    known: dict[str, bool] = {}

    def asked(connection: Connection, name: str) -> bool:
        if name not in known:
            known[name] = has_column(connection, name)
        return known[name]

    return asked


class _KeptOpen:
    """The open databases: one of the index, one a run."""

    def __init__(self, storage: Any) -> None:
        self.is_together = True
        self.writer: EventWriter | None = None
        self.last: LastMaterializations | None = None
        self._storage = storage
        self._original: Connect = storage._connect
        self._connections: dict[str, Connection] = {}
        self._since = 0.0

    @contextmanager
    def connect(self, shard: str) -> Iterator[Connection]:
        with _or_lost(), self._connected(shard) as connection:
            yield connection

    @contextmanager
    def _connected(self, shard: str) -> Iterator[Connection]:
        if shard not in self._storage._initialized_dbs:
            self._make(shard)
        with self._storage._db_lock:  # Dagster takes the same lock around its own connections
            if shard not in self._connections:
                self._connections[shard] = self._open(shard)
            connection = self._connections[shard]
            if not connection.in_transaction():
                self._since = self._since or time.monotonic()
                connection.begin()
            if shard == _INDEX and self.writer is not None and self.writer.is_behind:
                with _savepoint(connection):
                    self.writer.flush(connection)
            with _savepoint(connection):
                yield connection
            if not self.is_together or time.monotonic() - self._since > MOST_S:
                self._commit()

    def store(self, event: dg.EventLogEntry) -> None:
        """In place of the storage's own `store_event`."""
        assert self.writer is not None and self.last is not None
        self.writer.store(event)
        if event.is_dagster_event and event.dagster_event_type in ASSET_EVENTS:
            self.last.forget()

    def commit(self) -> None:
        with _or_lost(), self._storage._db_lock:
            self._commit()

    def close(self) -> None:
        try:
            self.commit()
        finally:
            for connection in self._connections.values():
                connection.close()
                connection.engine.dispose()

    def _commit(self) -> None:
        """The index last: whoever reads there of an event finds it in its run."""
        self._since = 0.0
        if self.last is not None:
            self.last.forget()
        if self.writer is not None and _INDEX in self._connections:
            self.writer.flush(self._connections[_INDEX])
        for shard in sorted(self._connections, key=lambda name: name == _INDEX):
            connection = self._connections[shard]
            if connection.in_transaction():
                try:
                    connection.commit()
                except DBAPIError:
                    connection.rollback()  # else it takes no other transaction
                    raise

    def _open(self, shard: str) -> Connection:
        url = self._storage.conn_string_for_shard(shard)
        # The driver's own transactions begin late, and know no savepoints (SQLAlchemy's manual, "Pysqlite").
        engine = create_engine(url, connect_args={"timeout": BUSY_S, "isolation_level": None})
        event.listen(engine, "begin", self._begin)
        return engine.connect()

    def _begin(self, connection: Connection) -> None:
        # A transaction that reads first cannot write any more once another process has written.
        connection.exec_driver_sql("BEGIN IMMEDIATE" if self.is_together else "BEGIN")

    def _make(self, shard: str) -> None:
        """A file with Dagster's tables: copied from the first one, which Dagster makes."""
        place = Path(self._storage.path_for_shard(shard))
        empty = place.with_name(f".empty-{dg.__version__}")
        is_new = not place.exists()
        if is_new and empty.exists():
            # Dagster makes the tables of each run's file by some sixty migrations, one after the other (0025).
            _copy(empty, place)
            self._storage._initialized_dbs.add(shard)
            return
        with self._original(shard):  # it looks whether there are tables, too
            pass
        if is_new and not place.with_name(f"{place.name}-wal").exists():
            _copy(place, empty)


@contextmanager
def _savepoint(connection: Connection) -> Iterator[None]:
    """What fails is taken back by itself: not what was said before it, and is not committed yet."""
    run: Any = connection.connection.driver_connection  # SQLAlchemy would compile these words each time
    run.execute("SAVEPOINT one")
    try:
        yield
    except BaseException:
        with suppress(sqlite3.Error):  # where the disk is full, SQLite has taken back all of it
            run.execute("ROLLBACK TO one")
            run.execute("RELEASE one")
        raise
    run.execute("RELEASE one")


def _copy(source: Path, target: Path) -> None:
    """Whole or not at all; another process may do the same."""
    part = target.with_name(f".{target.name}.{os.getpid()}")
    with suppress(OSError):  # of the copy of tables: Dagster can make them
        shutil.copyfile(source, part)
    with suppress(FileExistsError):
        # A link and not a rename: where another process was first, its file is open already and stays.
        os.link(part, target)
    part.unlink()
