"""What a registration would make stale. It is written in a transaction, evaluated there, and rolled back.

Meanwhile nobody else can write: on SQLite at all, on PostgreSQL in this project.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy import Connection

from ctcore.catalog.engine import Catalog, Writer
from ctcore.project import Project
from ctcore.staleness.verdicts import Verdicts, evaluate, evaluation


@dataclass(frozen=True)
class Consequence:
    """Of one step: how many nodes are fresh now and would not be, and how many would be there to make for the first
    time."""

    step: str
    stale: int
    new: int


class _Inside(Catalog):
    """A catalog as one open transaction sees it. It can only be read."""

    def __init__(self, catalog: Catalog, connection: Connection) -> None:
        self.__dict__.update(catalog.__dict__)
        self._connection = connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        yield self._connection


def consequences(project: Project, write: Callable[[Writer], object]) -> list[Consequence]:
    """How `write` would change the verdicts, by step. Nothing is kept."""
    with project.catalog.exclusive() as connection:
        # Inside the transaction: nobody else writes until its end, so every difference is of this write.
        before = evaluate(project)
        writer = Writer(connection, project.catalog.actor)
        write(writer)
        writer.flush()
        after = evaluate(_inside(project, connection), evaluation(project).for_rollback())
        found = [_of(step.name, before, after) for step in project.steps]  # what is looked at later is not there
        transaction = connection.get_transaction()
        if transaction is not None:
            transaction.rollback()
    return [one for one in found if one.stale or one.new]


def _inside(project: Project, connection: Connection) -> Project:
    seen = Project(project.root)
    # `catalog` is a cached_property: what lies in __dict__ goes before it.
    seen.__dict__["catalog"] = _Inside(project.catalog, connection)
    return seen


def _of(step: str, before: Verdicts, after: Verdicts) -> Consequence:
    known = {verdict.partition for verdict in before.listed(step)}
    states = Counter(verdict.state for verdict in after.listed(step) if verdict.partition not in known)
    return Consequence(step, states["stale"], states["missing"])
