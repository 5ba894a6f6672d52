"""The user's list of projects: a small file of IDs and folders, by which `--project ID` finds one.

It is an address book, not a record: a project's ct.toml and catalog hold its facts and its state.
"""

from dataclasses import dataclass
from pathlib import Path

from ctcore.catalog.engine import HEAD
from ctcore.config.address_book import changing_projects, known_projects, problem_of
from ctcore.config.settings import FILE_NAME
from ctcore.errors import CtError, Usage
from ctcore.project import Project

_COUNTED: tuple[str, ...] = ("patient", "specimen", "assay")


def add(project: Project) -> None:
    """Make a project known, or say where it is now. Usage error where another folder has its ID."""
    with changing_projects() as listed:
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


def sharing_projects(project: Project) -> list[Project]:
    """A project and all known ones that share its Dagster instance, by ID. Unreadable projects are left out."""
    found = {project.id: project}
    for project_id, folder in known_projects().items():
        try:
            other = Project(folder)
            if problem_of(project_id, folder) is None and other.dagster_home == project.dagster_home:
                found.setdefault(project_id, other)
        except CtError:
            continue
    return [found[name] for name in sorted(found)]


def remove(project_id: str) -> Path:
    """Remove a project from the list, and touch nothing else. Returns its folder."""
    with changing_projects() as listed:
        if project_id not in listed:
            raise Usage(f"no project {project_id!r}; known: {', '.join(listed) or 'none'}")
        return listed.pop(project_id)


@dataclass(frozen=True)
class ProjectRow:
    """One line of `ct projects`. `counts`: registered entities by level, and current artifacts."""

    id: str
    name: str
    state: str
    changed: str
    counts: dict[str, int]
    folder: str
    problem: str = ""


def project_rows() -> list[ProjectRow]:
    """All known projects in their current state. Read-only; an unreadable one does not stop the others."""
    return [_listed(project_id, folder) for project_id, folder in known_projects().items()]


def _listed(project_id: str, folder: Path) -> ProjectRow:
    try:
        problem = problem_of(project_id, folder)
        if problem is None:
            return _looked_at(Project(folder))
    except CtError as error:
        problem = str(error).splitlines()[0]
    return ProjectRow(project_id, "", "unknown", "", {}, str(folder), problem)


def _looked_at(project: Project) -> ProjectRow:
    from sqlalchemy import func, select

    from ctcore.catalog.ownership import project_state_of, settings_of
    from ctcore.catalog.tables import artifact, entity, event

    catalog = project.closed_catalog()
    if (catalog.is_sqlite and not (project.root / "catalog.db").is_file()) or (version := catalog.version()) is None:
        return ProjectRow(
            project.id, project.settings.name, "active", "", {}, str(project.root), "nothing is registered"
        )
    if version != HEAD:
        said = f"its catalog is of version {version}, and this ct's is {HEAD}"
        return ProjectRow(project.id, project.settings.name, "unknown", "", {}, str(project.root), said)
    with catalog.read() as connection:
        life = project_state_of(settings_of(connection))
        rows = connection.execute(select(entity.c.level, func.count()).group_by(entity.c.level))
        counts = dict.fromkeys(_COUNTED, 0) | {str(row[0]): int(row[1]) for row in rows}
        counts["artifact"] = connection.execute(select(func.count()).select_from(artifact)).scalar() or 0
        last = connection.execute(select(event.c.at).order_by(event.c.seq.desc()).limit(1)).scalar()
    return ProjectRow(project.id, project.settings.name, life.state, last or "", counts, str(project.root))
