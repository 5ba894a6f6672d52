"""Other runs since this one began: their failures are not retried here, and their results are reused."""

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import func, select

from ctcore.catalog.engine import in_keys
from ctcore.catalog.tables import attempt, materialization
from ctcore.execution.ledger import FailedCall
from ctcore.project import Project


@dataclass(frozen=True)
class ConcurrentRuns:
    """The beginning of a run, marked by the last failure and the last making in the catalog at that time."""

    last: int
    made: int

    @classmethod
    def from_now(cls, project: Project) -> "ConcurrentRuns":
        with project.catalog.read() as connection:
            # By number and not by time: clocks of hosts differ, and are set back.
            last = connection.execute(select(func.max(attempt.c.id))).scalar()
            made = connection.execute(select(func.max(materialization.c.id))).scalar()
        return cls(last or 0, made or 0)

    def failed(self, project: Project, keys: Iterable[str]) -> dict[str, FailedCall]:
        """Which of these keys failed since then, with the other run's error."""
        mine = in_keys(attempt.c.key, keys) & (attempt.c.id > self.last)
        with project.catalog.read() as connection:
            rows = connection.execute(select(attempt).where(mine).order_by(attempt.c.id)).all()
        return {
            row.key: FailedCall((row.asset, row.partition), row.key, _said(row.error, row.run_id), row.log)
            for row in rows
        }


def _said(error: str, run_id: str | None) -> str:
    where = f"run {run_id}" if run_id else "another run"
    return f"failed in {where}, which ran the same call at the same time, and was not tried again: {error}"
