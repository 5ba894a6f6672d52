"""③ Dagster's event log during a run: its SQLite files are kept open, on PostgreSQL there is nothing to do.

Dagster opens and closes a database for each event, and has SQLAlchemy compile the same statements anew each time.
Whoever closes one last also folds its log into it, with several syncs to disk. Both took most of a run's time.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import cache
from typing import Any

import dagster as dg
from sqlalchemy import Connection, Engine, create_engine

Connect = Callable[[str], AbstractContextManager[Connection]]
BUSY_S = 30  # as long as Dagster waits for another process to end its writing


@contextmanager
def kept_open(instance: dg.DagsterInstance) -> Iterator[None]:
    """Inside of this block, each database of the event log is opened once. Blocks may be nested."""
    storage: Any = instance.event_log_storage
    connect: Connect | None = getattr(storage, "_connect", None)
    url_of = getattr(storage, "conn_string_for_shard", None)
    if connect is None or url_of is None or "_connect" in vars(storage):
        yield
        return
    with ExitStack() as stack:
        storage._connect = _reusing(storage, connect, url_of, stack)
        stack.callback(vars(storage).pop, "_connect")
        storage.has_table = cache(storage.has_table)  # asked at each event, with a connection of its own
        stack.callback(vars(storage).pop, "has_table")
        yield


def _reusing(storage: Any, connect: Connect, url_of: Callable[[str], str], stack: ExitStack) -> Connect:
    engines: dict[str, Engine] = {}

    @contextmanager
    def reusing(shard: str) -> Iterator[Connection]:
        if shard not in storage._initialized_dbs:  # Dagster makes its tables first
            with connect(shard) as connection:
                yield connection
            return
        with storage._db_lock:
            if shard not in engines:
                engines[shard] = create_engine(url_of(shard), connect_args={"timeout": BUSY_S})
                stack.callback(engines[shard].dispose)
            with engines[shard].begin() as connection:
                yield connection

    return reusing
