"""At which revision Dagster's SQLite tables are: asked once, where Dagster reads 60 migrations for each of its files.

They are read to learn that there is a newest one, and again to write down which it is in a file that was just made.
"""

from importlib import import_module
from typing import Any

_STORAGES = (
    "dagster._core.storage.event_log.sqlite.sqlite_event_log",
    "dagster._core.storage.runs.sqlite.sqlite_run_storage",
    "dagster._core.storage.schedules.sqlite.sqlite_schedule_storage",
)
CHECK = "check_alembic_revision"


def ask_revisions_once() -> None:
    """Have this process look at the migrations only where tables are made, and once. Names of Dagster 1.13 and Alembic
    1.16; where one is missing, opening is slower, and right. A test notices."""
    from alembic.runtime.migration import MigrationContext
    from dagster._core.storage import sql
    from sqlalchemy.exc import DBAPIError

    one: Any = sql
    original, directory = getattr(one, CHECK, None), getattr(one, "ScriptDirectory", None)
    if original is None or directory is None or not hasattr(one, "stamp") or hasattr(original, "asks_once"):
        return

    read: dict[str | None, Any] = {}

    def scripts(config: Any) -> Any:
        place = config.get_main_option("script_location")
        if place not in read:
            read[place] = directory.from_config(config)
        return read[place]

    def check(config: Any, connection: Any) -> tuple[str | None, Any]:
        known = MigrationContext.configure(connection).get_current_revision()
        # Whoever asks wants to know of both only whether there is one.
        return (known, known) if known else (None, scripts(config).as_revision_number("head"))

    def stamp(config: Any, revision: str) -> None:
        try:
            MigrationContext.configure(config.attributes["connection"]).stamp(scripts(config), revision)
        except DBAPIError as error:  # as Dagster has it: another process was first
            if "table alembic_version already exists" not in str(error):
                raise

    check.asks_once = True  # type: ignore[attr-defined]
    one.stamp = stamp
    for name in _STORAGES:
        module = import_module(name)
        if getattr(module, CHECK, None) is original:
            setattr(module, CHECK, check)
    setattr(one, CHECK, check)
