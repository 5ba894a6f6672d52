"""What is told beside a making: who asked for it, where it ran, its commit, and repetitions."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select

from ctcore.catalog.engine import in_keys
from ctcore.catalog.tables import materialization, reproduction


@dataclass(frozen=True)
class Repetition:
    """A making that was made again beside what is there. `differs`: the files with other bytes; none: reproduced."""

    id: int
    at: str
    actor: str
    host: str
    run_id: str | None
    data_version: str
    differs: tuple[str, ...]

    @property
    def words(self) -> str:
        said = f"other bytes in {', '.join(self.differs)}" if self.differs else "the same bytes"
        return f"made again {self.at} by {self.actor} on {self.host}: {said}"


@dataclass(frozen=True)
class Attribution:
    """What the ledger keeps of one making that is no part of its identity. None: it was not told."""

    actor: str | None
    host: str | None
    git: str | None
    again: tuple[Repetition, ...]

    @property
    def origin(self) -> str:
        """Who asked, where it ran, and from which commit; empty where nothing was told."""
        said = [("asked for by", self.actor), ("ran on", self.host), ("code of commit", self.git)]
        return ", ".join(f"{words} {value}" for words, value in said if value)

    @property
    def reproduced(self) -> str | None:
        """By the last repetition: `same` or `other`."""
        return ("other" if self.again[-1].differs else "same") if self.again else None

    @property
    def lines(self) -> list[str]:
        """All that people read."""
        return [*([self.origin] if self.origin else []), *(one.words for one in self.again)]

    @property
    def data(self) -> dict[str, Any]:
        told = {name: getattr(self, name) for name in ("actor", "host", "git")}
        return {**told, "reproduced": self.reproduced, "again": [vars(one) for one in self.again]}


NOTHING = Attribution(None, None, None, ())


def attributions_of(connection: Connection, numbers: Iterable[int]) -> dict[int, Attribution]:
    """The stories of these makings, in two statements."""
    listed = list(numbers)
    again: dict[int, list[Repetition]] = {}
    mine = in_keys(reproduction.c.materialization, listed)
    for row in connection.execute(select(reproduction).where(mine).order_by(reproduction.c.id)):
        again.setdefault(row.materialization, []).append(repetition(row))
    made = materialization.c
    fields = (made.id, made.actor, made.host, made.git)
    return {
        row.id: Attribution(row.actor, row.host, row.git, tuple(again.get(row.id, ())))
        for row in connection.execute(select(*fields).where(in_keys(made.id, listed)))
    }


def repetition(row: Any) -> Repetition:
    """A row of the table `reproduction`."""
    differs = tuple(json.loads(row.differs))
    return Repetition(row.id, row.at, row.actor, row.host, row.run_id, row.data_version, differs)
