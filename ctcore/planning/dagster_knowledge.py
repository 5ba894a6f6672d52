"""Whether Dagster knows all that it is to be told, as its tables say.

What cannot be read counts as not known. Then Dagster is started, as it is where there is something to make.
"""

import re
import sqlite3

from sqlalchemy.exc import DBAPIError

from ctcore.cohorts.partitions import keys_by_definition
from ctcore.planning.requests import nodes_untold, registry_batches
from ctcore.project import Project
from ctcore.projects.dagster_home import SETTINGS
from ctcore.projects.dagster_tables import EVENTS, RUNS, dagster_tables

_OURS = re.compile(r"^storage:[ \t]*\n(?:[ \t]+.*\n)*?[ \t]+class: CtStorage[ \t]*$", re.M)
_OPEN = "('NOT_STARTED', 'STARTING', 'STARTED', 'CANCELING')"


def is_told(project: Project, with_registry: bool) -> bool:
    """Whether Dagster has each partition, each making and, if asked for, the registry as it is now, and no open run:
    the process of one may be gone, and only Dagster can end it."""
    if nodes_untold(project, lambda _runs: set()) or (with_registry and registry_batches(project)):
        return False
    if not _is_storage_ours(project):
        return False
    try:
        return _has_all_partitions(project) and not _has_open_runs(project)
    except (sqlite3.Error, DBAPIError):  # not made yet, of another Dagster, or not for us to read
        return False


def _is_storage_ours(project: Project) -> bool:
    """Whether Dagster's storage is where ct puts it: dagster.yaml may name another."""
    try:
        return _OURS.search((project.dagster_home / SETTINGS).read_text(encoding="utf-8")) is not None
    except (OSError, UnicodeDecodeError):
        return False


def _has_all_partitions(project: Project) -> bool:
    with dagster_tables(project, EVENTS) as tables:
        rows = tables.execute("SELECT partitions_def_name, partition FROM dynamic_partitions")
        known = {(row[0], row[1]) for row in rows}
    return all((name, key) in known for name, keys in keys_by_definition(project).items() for key in keys)


def _has_open_runs(project: Project) -> bool:
    with dagster_tables(project, RUNS) as tables:
        return any(True for _ in tables.execute(f"SELECT run_id FROM runs WHERE status IN {_OPEN} LIMIT 1"))
