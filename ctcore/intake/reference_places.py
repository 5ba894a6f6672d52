"""Where a reference may not lie: what it holds of people would go past consent and purge, which know people by their
entities and results; and what ct writes would be another reference at each look."""

import os
from pathlib import Path

from ctcore.config.settings import Reference
from ctcore.intake.raw_places import registered_around, registered_inside
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
    with project.catalog.read() as connection:
        if registered_around(project, connection, path):
            return "is a raw file of the cohort, or lies in one; name a place elsewhere"
        if said.folder and registered_inside(project, connection, path):
            return "contains raw files of the cohort; name a folder of its own"
    return None
