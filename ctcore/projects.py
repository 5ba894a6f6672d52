"""⑧ The projects that this user knows: a small file of IDs and folders, by which `--project ID` finds one.

It is an address book, and no record: what a project is, and its state, its own ct.toml and catalog say.
"""

import difflib
import fcntl
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ctcore import jsontext
from ctcore.catalog.engine import HEAD
from ctcore.errors import CtError, ProjectError, Usage
from ctcore.project import Project
from ctcore.settings import FILE_NAME, PROJECT_ID

VARIABLE = "CT_PROJECTS"
_COUNTED: tuple[str, ...] = ("patient", "specimen", "assay")


def book() -> Path:
    """Where the list is: CT_PROJECTS, or in the user's folder of settings."""
    if given := os.environ.get(VARIABLE):
        return Path(given).expanduser()
    settings = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(settings).expanduser() / "ct" / "projects.json"


def known() -> dict[str, Path]:
    """ID → folder, sorted."""
    place = book()
    try:
        found = jsontext.loads(place.read_text(encoding="utf-8"))
        return {name: Path(folder) for name, folder in sorted(found["projects"].items())}
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ProjectError(f"{place} cannot be read: {error.strerror}; {VARIABLE} names another place") from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ProjectError(
            f"{place} is no list of projects; move it away, and name each again: `ct projects add DIR`"
        ) from error


def folder_of(project_id: str) -> Path:
    """Where the project of this ID is now. Usage error with what was probably meant where it is not known."""
    if not re.fullmatch(PROJECT_ID, project_id):
        raise Usage(f"{project_id!r} is no ID of a project (a-z, 0-9 and -); a directory is named with -C DIR")
    listed = known()
    if project_id not in listed:
        near = difflib.get_close_matches(project_id, listed, 3) or list(listed)[:10]
        hint = f"known: {', '.join(near)}" if near else "none is known yet"
        raise Usage(f"no project {project_id!r}; {hint} (`ct projects`; `ct projects add DIR` makes one known)")
    if problem := problem_of(project_id, listed[project_id]):
        raise ProjectError(f"{project_id}: {problem}")
    return listed[project_id]


def problem_of(project_id: str, folder: Path) -> str | None:
    """Why a folder is not the project that it was; None where it is."""
    forget = f"`ct projects remove {project_id}`"
    if not (folder / FILE_NAME).is_file():
        return f"{folder} was moved or deleted: `ct projects add DIR` where it is now, or {forget}"
    found = Project(folder).id
    if found != project_id:
        return f"{folder} is the project {found} now: {forget}, then `ct projects add {folder}`"
    return None


def add(project: Project) -> None:
    """Make a project known, or say where it is now. Usage error where another folder has its ID."""
    with _changing() as listed:
        before = listed.get(project.id)
        if before is not None and _is_another(project, before):
            raise Usage(
                f"two folders have the ID {project.id}: {before} and {project.root}. Give one of them another "
                f"[project] id before it has a catalog, or forget the first: `ct projects remove {project.id}`"
            )
        listed[project.id] = project.root


def _is_another(project: Project, folder: Path) -> bool:
    there = folder / FILE_NAME
    if not there.is_file() or there.samefile(project.root / FILE_NAME):
        return False
    return problem_of(project.id, folder) is None


def beside(project: Project) -> list[Project]:
    """A project and all known ones that share its Dagster instance, by ID. What cannot be read is none of them."""
    found = {project.id: project}
    for project_id, folder in known().items():
        try:
            other = Project(folder)
            if problem_of(project_id, folder) is None and other.dagster_home == project.dagster_home:
                found.setdefault(project_id, other)
        except CtError:
            continue
    return [found[name] for name in sorted(found)]


def remove(project_id: str) -> Path:
    """Forget a project; nothing else is touched. Returns where it was."""
    with _changing() as listed:
        if project_id not in listed:
            raise Usage(f"no project {project_id!r}; known: {', '.join(listed) or 'none'}")
        return listed.pop(project_id)


@contextmanager
def _changing() -> Iterator[dict[str, Path]]:
    """The list, to be changed: one process at a time, written whole."""
    place = book()
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with place.with_name(f".{place.name}.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            listed = known()
            yield listed
            text = {"format": 1, "projects": {name: str(folder) for name, folder in sorted(listed.items())}}
            part = place.with_name(f".{place.name}.part")
            part.write_text(json.dumps(text, indent=1) + "\n", encoding="utf-8")
            part.replace(place)
    except OSError as error:
        raise ProjectError(f"{place} cannot be written: {error.strerror}; {VARIABLE} names another place") from error


@dataclass(frozen=True)
class Listed:
    """One line of `ct projects`. `counts`: registered entities by level, and current artifacts."""

    id: str
    name: str
    state: str
    changed: str
    counts: dict[str, int]
    folder: str
    problem: str = ""


def listed() -> list[Listed]:
    """All known projects, as they are now. None of them is changed, and one that cannot be read stops no other."""
    return [_listed(project_id, folder) for project_id, folder in known().items()]


def _listed(project_id: str, folder: Path) -> Listed:
    try:
        problem = problem_of(project_id, folder)
        if problem is None:
            return _looked_at(Project(folder))
    except CtError as error:
        problem = str(error).splitlines()[0]
    return Listed(project_id, "", "unknown", "", {}, str(folder), problem)


def _looked_at(project: Project) -> Listed:
    from sqlalchemy import func, select

    from ctcore.catalog.life import life_of, settings_of
    from ctcore.catalog.tables import artifact, entity, event

    catalog = project.closed_catalog()
    if (catalog.is_sqlite and not (project.root / "catalog.db").is_file()) or (version := catalog.version()) is None:
        return Listed(project.id, project.settings.name, "active", "", {}, str(project.root), "nothing is registered")
    if version != HEAD:
        said = f"its catalog is of version {version}, and this ct's is {HEAD}"
        return Listed(project.id, project.settings.name, "unknown", "", {}, str(project.root), said)
    with catalog.read() as connection:
        life = life_of(settings_of(connection))
        rows = connection.execute(select(entity.c.level, func.count()).group_by(entity.c.level))
        counts = dict.fromkeys(_COUNTED, 0) | {str(row[0]): int(row[1]) for row in rows}
        counts["artifact"] = connection.execute(select(func.count()).select_from(artifact)).scalar() or 0
        last = connection.execute(select(event.c.at).order_by(event.c.seq.desc()).limit(1)).scalar()
    return Listed(project.id, project.settings.name, life.state, last or "", counts, str(project.root))
