"""③ Dagster's event log during a run: its SQLite files are kept open, on PostgreSQL there is nothing to do.

Dagster opens and closes a database for each event. Whoever closes one last folds its log into it, with several
syncs to disk; while somebody else has it open, that is left to be done once in a while.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import dagster as dg

INDEX = "index"


@contextmanager
def kept_open(instance: dg.DagsterInstance, run_id: str | None = None) -> Iterator[None]:
    """Keep open the index of all runs and, where it is named, the log of one run."""
    path_of = getattr(instance.event_log_storage, "path_for_shard", None)
    shards = [INDEX, run_id] if run_id else [INDEX]
    with ExitStack() as stack:
        for path in [Path(path_of(shard)) for shard in shards] if path_of else ():
            if path.is_file():
                connection = stack.enter_context(closing(sqlite3.connect(path, check_same_thread=False)))
                connection.execute("SELECT name FROM sqlite_master").fetchone()  # only now is the file really open
        yield
