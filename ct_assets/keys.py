"""③ A project's names in Dagster: bare where the instance is its own, behind its ID where others share it."""

import os
from pathlib import Path

import dagster as dg

from ctcore.errors import ProjectError
from ctcore.project import Project
from ctcore.settings import FILE_NAME

PROJECT_TAG = "ct/project"
CLAIM = "ct-project"  # in DAGSTER_HOME: whose bare keys it has


def key_of(project: Project, name: str) -> dg.AssetKey:
    """The asset of a step, or of a level of the registry."""
    return dg.AssetKey([project.id, name] if project.is_shared else [name])


def group_of(project: Project, name: str) -> str:
    """The group in the UI, which draws those of one name as one, whatever their code location."""
    return f"{project.id.replace('-', '_')}_{name}" if project.is_shared else name


def check_home(project: Project) -> None:
    """ProjectError where bare keys would be mixed with those of another project in one instance."""
    home = Path(os.environ.get("DAGSTER_HOME") or project.dagster_home).resolve()
    if project.is_shared or not home.is_dir() or home == project.dagster_home.resolve():
        return
    owner = (
        home.parent if (home.parent / FILE_NAME).is_file() and home.name == "dagster_home" else _claimed(home, project)
    )
    if owner.resolve() != project.root.resolve() and (owner / FILE_NAME).is_file():
        raise ProjectError(
            f"DAGSTER_HOME={home} has the assets of {owner}, which have the same names as those of {project.id}. For "
            f"several projects there, say [dagster] home = {str(home)!r} in the {FILE_NAME} of each; for {project.id} "
            "alone, unset DAGSTER_HOME"
        )


def _claimed(home: Path, project: Project) -> Path:
    """The folder of the first project that has used this instance with bare keys: this one, if there was none."""
    place = home / CLAIM
    try:
        with place.open("x", encoding="utf-8") as file:
            file.write(str(project.root))
    except FileExistsError:
        return Path(place.read_text(encoding="utf-8"))
    return project.root
