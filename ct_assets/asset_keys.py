"""A project's names in Dagster: without a prefix in an instance of its own, with its ID as prefix in a shared one."""

import os
from pathlib import Path

import dagster as dg

from ctcore.config.settings import FILE_NAME
from ctcore.errors import ProjectError
from ctcore.project import Project

PROJECT_TAG = "ct/project"
CLAIM = "ct-project"  # file in DAGSTER_HOME: the project that uses keys without a prefix


def key_of(project: Project, name: str) -> dg.AssetKey:
    """The asset of a step, or of a level of the registry."""
    return dg.AssetKey([project.id, name] if project.is_shared else [name])


def group_of(project: Project, name: str) -> str:
    """The group in the UI, which merges groups of one name across code locations."""
    return f"{project.id.replace('-', '_')}_{name}" if project.is_shared else name


def check_home(project: Project) -> None:
    """ProjectError where two projects would use the same keys in one instance."""
    home = Path(os.environ.get("DAGSTER_HOME") or project.dagster_home).resolve()
    if project.is_shared or not home.is_dir() or home == project.dagster_home.resolve():
        return
    owner = (
        home.parent if (home.parent / FILE_NAME).is_file() and home.name == "dagster_home" else _claimed(home, project)
    )
    if owner.resolve() != project.root.resolve() and (owner / FILE_NAME).is_file():
        raise ProjectError(
            f"DAGSTER_HOME={home} has the assets of {owner}, which have the same names as those of {project.id}. To "
            f"share it, set [dagster] home = {str(home)!r} in the {FILE_NAME} of each project; to use {project.id} "
            "alone, unset DAGSTER_HOME"
        )


def _claimed(home: Path, project: Project) -> Path:
    """The folder of the first project that used this instance without a prefix: this project if there was none."""
    place = home / CLAIM
    try:
        # x: of two projects that begin at once, one makes the file (open(2), O_EXCL), and the other one reads it.
        with place.open("x", encoding="utf-8") as file:
            file.write(str(project.root))
    except FileExistsError:
        return Path(place.read_text(encoding="utf-8"))
    return project.root
