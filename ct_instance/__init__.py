"""What dagster.yaml names as Dagster's storage: PostgreSQL where CT_POSTGRES_URL says so, else SQLite in DAGSTER_HOME.

Installed beside ctcore, not in the project: the `dagster` command opens its storage before it looks at a project.
"""

import fcntl
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from dagster import Field, String
from dagster._core.storage.base_storage import DagsterStorage
from dagster._serdes import ConfigurableClass, ConfigurableClassData

from ct_instance.planned_events import write_planned_together
from ct_instance.table_revisions import ask_revisions_once
from ctcore.config.settings import FILE_NAME
from ctcore.errors import CatalogError
from ctcore.project import Project
from ctcore.projects.dagster_home import dagster_schema


class CtStorage(DagsterStorage, ConfigurableClass):
    """Chooses between Dagster's own two storages; one URL serves the catalog and Dagster, each in its own schema."""

    @property
    def inst_data(self) -> ConfigurableClassData | None:
        return None

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        return {"schema": Field(String, is_required=False)}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: dict[str, Any]) -> DagsterStorage:  # pyright: ignore[reportIncompatibleMethodOverride]
        # Called once in each process that opens the instance: webserver, daemon, each run worker.
        storage = CtStorage._opened(inst_data, config_value)
        write_planned_together(storage)
        if "dagster._grpc.server" in sys.modules:
            from ct_instance.forked_runs import fork_runs

            fork_runs()
        if "dagster._daemon" in sys.modules:
            from ct_instance.backfill_ranges import cover_gaps
            from ct_instance.kept_engines import keep_engines

            cover_gaps()
            keep_engines(storage)
        return storage

    @staticmethod
    def _opened(inst_data: ConfigurableClassData | None, config_value: dict[str, Any]) -> DagsterStorage:
        with _alone(Path(os.environ["DAGSTER_HOME"])):
            if os.environ.get("CT_POSTGRES_URL"):
                return _postgres(os.environ["CT_POSTGRES_URL"], config_value.get("schema") or _own_schema(), inst_data)
            from dagster._core.storage.sqlite_storage import DagsterSqliteStorage

            ask_revisions_once()
            return DagsterSqliteStorage(os.environ["DAGSTER_HOME"], inst_data)


@contextmanager
def _alone(home: Path) -> Iterator[None]:
    """Dagster makes its tables when it is first opened, and two processes that do so at once break each other's. Once
    somebody has opened it, nobody waits."""
    place = home / ".opened"
    with ExitStack() as stack:
        with suppress(OSError):  # a home that may only be read, a disk without locks
            lock = stack.enter_context(open(place, "a"))
            # In append mode the position is the file's size: 0 until somebody has made the tables.
            if not lock.tell():
                fcntl.flock(lock, fcntl.LOCK_EX)
            if place.stat().st_size:
                stack.close()
        yield
        with suppress(OSError):
            if not place.stat().st_size:
                place.write_text("Dagster's tables are made\n")


def _own_schema() -> str:
    """That of the project whose instance this is."""
    above = Path(os.environ["DAGSTER_HOME"]).parent
    project = Project.find(above if (above / FILE_NAME).is_file() else Path(os.environ.get("CT_PROJECT") or above))
    return dagster_schema(project.catalog.schema)


def _postgres(given: str, schema: str, inst_data: ConfigurableClassData | None) -> DagsterStorage:
    from dagster_postgres import DagsterPostgresStorage
    from sqlalchemy import create_engine, make_url, text
    from sqlalchemy.exc import DBAPIError

    # SQLAlchemy 2.1 takes postgresql:// for psycopg 3; dagster-postgres installs psycopg2 only.
    url = make_url(given).set(drivername="postgresql+psycopg2")
    try:
        with create_engine(url).begin() as connection:
            connection.execute(text(f'CREATE SCHEMA IF NOT EXISTS "{schema}"'))
    except DBAPIError as error:
        place = url.render_as_string(hide_password=True)
        raise CatalogError(f"{place}: {error.orig}; is the database server running, and the URL right?") from error
    # Dagster has no setting for a schema; its tables go where the search path of its connections leads.
    url = url.update_query_dict({"options": f"-csearch_path={schema}"})
    return DagsterPostgresStorage(url.render_as_string(hide_password=False), inst_data=inst_data)
