"""A project whose store is not there: its disk is not mounted, say, and no result is lost."""

from sqlalchemy import func, select

from ctcore.catalog.tables import artifact
from ctcore.errors import StoreError
from ctcore.project import Project

_GONE = 3  # the exit code of what was found


def refuse_without_store(project: Project) -> None:
    """StoreError where artifacts are on record and there is no store: a disk that is not mounted is no lost result."""
    if project.store.is_there:
        return
    with project.catalog.read() as connection:
        made = connection.execute(select(func.count()).select_from(artifact)).scalar() or 0
    if made:
        many = f"{made} artifact{'s' * (made != 1)}"
        error = StoreError(
            f"the store {project.store.root} is not there, and {many} should be in it; mount its disk or put it back "
            f"(lost for good: `ct init {project.root}` makes an empty one, and `ct run` makes everything again)"
        )
        error.exit_code = _GONE
        raise error
