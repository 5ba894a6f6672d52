"""Dagster's daemon with SQLite: an engine a file.

It asks some ten times a tick of a sensor, also where there is nothing to do, and makes an engine of SQLAlchemy for each
of these, which compiles the same statements anew: half of what they cost.
"""

from typing import Any

from dagster._core.storage.base_storage import DagsterStorage
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool


def keep_engines(storage: DagsterStorage) -> None:
    """Have the runs and the ticks of this process read and written with one engine each; connections are opened and
    closed as before. Names of Dagster 1.13; where they are others, nothing changes. A test notices."""
    for one in (storage.run_storage, storage.schedule_storage):
        kept: Any = one
        url = getattr(kept, "_conn_string", "")
        if url.startswith("sqlite:") and hasattr(kept, "connect"):
            vars(kept)["connect"] = create_engine(url, poolclass=NullPool).begin
