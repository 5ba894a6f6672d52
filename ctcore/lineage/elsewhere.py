"""Of which of the known projects a file is: for somebody who has it, and is in no project."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ctcore.errors import CtError, Usage
from ctcore.lineage.target import knows_content
from ctcore.model.reasons import short_digest
from ctcore.project import Project
from ctcore.projects.listing import project_rows
from ctcore.store.digest import digest_files


class Owners(NamedTuple):
    """The known projects that have, or had, the bytes of a file; and a line each on those that cannot be asked."""

    projects: Sequence[Project]
    unread: Sequence[str]


def owners_of(path: Path) -> Owners:
    """Look for a file in all known projects; it is read once, and no catalog is changed. Usage error if it is of
    none."""
    rows = project_rows()
    if not rows:
        raise Usage(f"{path}: here is no project, and none is known; -C DIR names one, `ct projects add DIR` keeps it")
    digest = digest_files([path])[path]
    found: list[Project] = []
    unread: list[str] = []
    for row in rows:
        if row.problem:
            unread.append(f"not looked at: {row.id} ({row.problem})")
            continue
        try:
            project = Project(Path(row.folder))
            if knows_content(project, digest):
                found.append(project)
        except CtError as error:
            unread.append(f"not looked at: {row.id} ({str(error).splitlines()[0]})")
    if not found:
        asked = ", ".join(row.id for row in rows if not row.problem) or "none can be read"
        beside = "".join(f"; {one}" for one in unread)
        raise Usage(
            f"{path} (BLAKE3 {short_digest(digest)}) is of no known project (looked at: {asked}{beside}); "
            "-C DIR names another, `ct projects add DIR` makes it known"
        )
    return Owners(found, unread)
