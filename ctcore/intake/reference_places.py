"""Where a reference may not lie: what it holds of people would go past consent and purge, which know people by their
entities and results; and what ct writes would be another reference at each look."""

import os
from pathlib import Path

from sqlalchemy import select

from ctcore.catalog.tables import file
from ctcore.config.settings import Reference
from ctcore.model import regions
from ctcore.project import Project


def misplaced(project: Project, said: Reference, path: Path) -> str | None:
    """What is wrong with the place of a reference, or None. Intervals of ct.toml are kept by ct itself."""
    if said.kind == regions.KIND:
        return None
    real = Path(os.path.realpath(path))
    for own in map(os.path.realpath, project.own_folders):
        if real.is_relative_to(own):
            return (
                f"lies in {own}, where only ct writes; name a place elsewhere, or take a result as an input of the step"
            )
        if said.folder and Path(own).is_relative_to(real):
            return f"contains {own}, where ct writes; name a folder of its own"
    if not said.folder:
        return None
    with project.catalog.read() as connection:
        for place in {os.path.abspath(path), str(real)}:
            inside = file.c.path.startswith(project.recorded(os.path.join(place, "")), autoescape=True)
            if connection.execute(select(file.c.role).where(inside).limit(1)).first() is not None:
                return "contains raw files of the cohort; name a folder of its own"
    return None
