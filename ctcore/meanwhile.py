"""④ What other runs have done since this one began: what failed there is not tried here, what was made is not anew."""

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import func, select

from ctcore.catalog.engine import in_keys
from ctcore.catalog.tables import attempt, materialization
from ctcore.ledger import Failed
from ctcore.project import Project


@dataclass(frozen=True)
class Meanwhile:
    """The time since a run began, told by the last failure and the last making that were in the catalog then."""

    last: int
    made: int

    @classmethod
    def from_now(cls, project: Project) -> "Meanwhile":
        with project.catalog.read() as connection:
            last = connection.execute(select(func.max(attempt.c.id))).scalar()
            made = connection.execute(select(func.max(materialization.c.id))).scalar()
        return cls(last or 0, made or 0)

    def failed(self, project: Project, keys: Iterable[str]) -> dict[str, Failed]:
        """Of these keys those that failed since, with what the other run said."""
        mine = in_keys(attempt.c.key, keys) & (attempt.c.id > self.last)
        with project.catalog.read() as connection:
            rows = connection.execute(select(attempt).where(mine).order_by(attempt.c.id)).all()
        return {
            row.key: Failed((row.asset, row.partition), row.key, _said(row.error, row.run_id), row.log) for row in rows
        }


def _said(error: str, run_id: str | None) -> str:
    where = f"run {run_id}" if run_id else "another run"
    return f"failed in {where}, which worked on the same call meanwhile, and was not tried again: {error}"
