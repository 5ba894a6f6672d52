"""③ The cohort's IDs as Dagster partitions: one dynamic definition a level, kept as the catalog has them."""

import dagster as dg
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError

from ctcore.batches import partitions
from ctcore.catalog.tables import entity
from ctcore.digest import digest_value
from ctcore.project import Project
from ctcore.step import ENTITY_LEVELS, Level

TRIES = 5
PLURAL = {"patient": "patients", "specimen": "specimens", "assay": "assays", "cohort": "cohorts"}


def definition(project_id: str, level: Level | str) -> dg.DynamicPartitionsDefinition:
    """`<project>.assays` and its siblings; references have one too."""
    return dg.DynamicPartitionsDefinition(name=f"{project_id}.{PLURAL.get(level, 'references')}")


def wanted(project: Project) -> dict[str, list[str]]:
    """The keys that each definition should have, in the order of the cohort."""
    levels: tuple[Level, ...] = (*ENTITY_LEVELS, "cohort")
    keys = {definition(project.id, level).name or "": partitions(project, level) for level in levels}
    return {**keys, definition(project.id, "reference").name or "": list(project.settings.references)}


def partitions_state(project: Project) -> str:
    """Changes whenever the wanted keys may have changed."""
    with project.catalog.read() as connection:
        last = connection.execute(select(func.max(entity.c.seq))).scalar() or 0
        many = connection.execute(select(func.count()).select_from(entity)).scalar() or 0
    declared = [*project.settings.cohorts, *project.settings.references]
    return digest_value("ct.partitions.v1", [last, many, declared])[:16]


def missing(project: Project, instance: dg.DagsterInstance) -> dict[str, list[str]]:
    """The keys that Dagster does not know yet."""
    found = {}
    for name, keys in wanted(project).items():
        known = set(instance.get_dynamic_partitions(name))
        new = [key for key in keys if key not in known]
        if new:
            found[name] = new
    return found


def additions(project: Project, instance: dg.DagsterInstance) -> list[dg.AddDynamicPartitionsRequest]:
    """The same as what a sensor asks of Dagster. It does so before it launches the runs of that tick."""
    return [dg.AddDynamicPartitionsRequest(name, keys) for name, keys in missing(project, instance).items()]


def add_missing(project: Project, instance: dg.DagsterInstance) -> int:
    """Tell Dagster of all new keys, in bulk. Returns how many. Another process may tell it of the same just now."""
    for left in reversed(range(TRIES)):
        new = missing(project, instance)
        try:
            for name, keys in new.items():
                instance.add_dynamic_partitions(name, keys)
            return sum(len(keys) for keys in new.values())
        except IntegrityError:  # Dagster looks first, and then writes
            if not left:
                raise
    return 0
