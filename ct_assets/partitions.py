"""The cohort's IDs as Dagster partitions: one dynamic definition a level, updated from the catalog."""

import dagster as dg
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError

from ctcore.catalog.tables import entity
from ctcore.cohorts.partitions import definition_name, keys_by_definition
from ctcore.model.levels import Level
from ctcore.project import Project
from ctcore.store.digest import digest_value

TRIES = 5


def definition(project_id: str, level: Level | str) -> dg.DynamicPartitionsDefinition:
    """The IDs of a level, or of references, as Dagster has them."""
    return dg.DynamicPartitionsDefinition(name=definition_name(project_id, level))


def partitions_state(project: Project) -> str:
    """A text that changes whenever the keys may have changed."""
    with project.catalog.read() as connection:
        last = connection.execute(select(func.max(entity.c.seq))).scalar() or 0
        many = connection.execute(select(func.count()).select_from(entity)).scalar() or 0
    declared = [*project.settings.cohorts, *project.settings.references]
    return digest_value("ct.partitions.v1", [last, many, declared])[:16]


def missing(project: Project, instance: dg.DagsterInstance) -> dict[str, list[str]]:
    """The keys that Dagster does not know yet."""
    found = {}
    for name, keys in keys_by_definition(project).items():
        known = set(instance.get_dynamic_partitions(name))
        new = [key for key in keys if key not in known]
        if new:
            found[name] = new
    return found


def additions(project: Project, instance: dg.DagsterInstance) -> list[dg.AddDynamicPartitionsRequest]:
    """The missing keys as requests of a sensor. Dagster adds them before it launches the runs of that tick."""
    return [dg.AddDynamicPartitionsRequest(name, keys) for name, keys in missing(project, instance).items()]


def add_missing(project: Project, instance: dg.DagsterInstance) -> int:
    """Add all missing keys in bulk; returns how many. Another process may add the same keys at this moment."""
    for left in reversed(range(TRIES)):
        new = missing(project, instance)
        try:
            for name, keys in new.items():
                # In bulk: each change rebuilds Dagster's status cache of every asset on it, 1 to 2 s at 100,000 keys.
                instance.add_dynamic_partitions(name, keys)
            return sum(len(keys) for keys in new.values())
        except IntegrityError:  # Dagster reads first, then inserts
            if not left:
                raise
    return 0
