"""The partitions of a level, in the order of the cohort."""

from sqlalchemy import select

from ctcore.catalog.tables import entity
from ctcore.model.levels import ENTITY_LEVELS, Level
from ctcore.project import Project

NOBODY = "nobody is registered yet: `ct register SHEET`"
PLURAL = {"patient": "patients", "specimen": "specimens", "assay": "assays", "cohort": "cohorts"}


def partitions(project: Project, level: Level) -> list[str]:
    """All partition keys of a level, in the order of the cohort."""
    if level == "cohort":
        return list(project.settings.cohorts)
    with project.catalog.read() as connection:
        return list(
            connection.execute(select(entity.c.id).where(entity.c.level == level).order_by(entity.c.seq)).scalars()
        )


def is_empty(project: Project) -> bool:
    """Whether nobody was ever registered. Then there are no cohort results to make either."""
    with project.catalog.read() as connection:
        return connection.execute(select(entity.c.seq).limit(1)).first() is None


def definition_name(project_id: str, level: Level | str) -> str:
    """Under which Dagster has the keys of a level: `<project>.assays`; references have one too."""
    return f"{project_id}.{PLURAL.get(level, 'references')}"


def keys_by_definition(project: Project) -> dict[str, list[str]]:
    """The keys that Dagster should have under each name, in the order of the cohort."""
    levels: tuple[Level, ...] = (*ENTITY_LEVELS, "cohort")
    keys = {definition_name(project.id, level): partitions(project, level) for level in levels}
    return {**keys, definition_name(project.id, "reference"): list(project.settings.references)}
