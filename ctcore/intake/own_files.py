"""Files that a project is made from or kept in: what people have ct write must not take their place."""

import os
from pathlib import Path

from ctcore.config.settings import FILE_NAME
from ctcore.errors import Usage
from ctcore.intake.raw_places import registered_around
from ctcore.intake.register import known_sheet
from ctcore.project import Project

_RECORDS = (FILE_NAME, "provenance.jsonl", "catalog.db", "definitions.py")


def refuse_own_file(project: Project, path: Path) -> None:
    """Usage error where a place is such a file, or lies where only ct writes."""
    real = Path(os.path.realpath(path))
    for folder in project.own_folders:
        if real.is_relative_to(os.path.realpath(folder)):
            raise Usage(f"{path} lies in {folder}, where only ct writes; name a file elsewhere")
    if (name := _name(project, {os.path.abspath(path), str(real)})) is not None:
        raise Usage(f"{path} is {name} of this project, and would be replaced; name another file")


def _name(project: Project, places: set[str]) -> str | None:
    """What one of these places is for the project; None where it is nothing that it needs."""
    known = {name: project.root / name for name in _RECORDS}
    known |= {f"the reference {key}": place for key, place in project.references()}
    if (sheet := known_sheet(project)) is not None:
        known["the sheet"] = sheet
    name = next((name for name, place in known.items() if os.path.realpath(place) in places), None)
    if name is not None:
        return name
    for key, place in project.references():
        if project.settings.references[key].folder and any(
            Path(one).is_relative_to(os.path.realpath(place)) for one in places
        ):
            return f"in the reference {key}"
    if any(str(step.source) in places for step in project.steps):
        return "a step file"
    with project.catalog.read() as connection:
        around = {one for place in places for one in registered_around(project, connection, place)}
    if not around:
        return None
    return "a raw file" if around & {project.recorded(one) for one in places} else "in a raw file that is a folder"
