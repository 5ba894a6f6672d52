"""⑦ What in a cohort's rule finds nobody: IDs that are not registered, values that nobody has; with what was meant."""

import difflib
import json
from collections.abc import Iterator

import numpy as np
from sqlalchemy import Connection, select

from ctcore.catalog.attributes import attribute
from ctcore.catalog.tables import entity
from ctcore.cohort import Cohort
from ctcore.cohorts import Kin, texts_of
from ctcore.mirror.versions import are_among

SHOWN = 5


def doubts(connection: Connection, kin: Kin, cohort: Cohort) -> Iterator[str]:
    """A sentence each; the rules of other cohorts that it is made from are asked about by themselves."""
    known = kin.entities[cohort.listed]
    unknown = sorted(set(cohort.members or ()) - set(known.ids))
    if unknown:
        usable = [known.ids[at] for at in np.flatnonzero(kin.usable[cohort.listed]).tolist()]
        listed = ", ".join(_meant(one, usable) for one in unknown[:SHOWN]) + ", …" * (len(unknown) > SHOWN)
        many = f"{len(unknown)} listed {cohort.listed}s are" if len(unknown) > 1 else f"a listed {cohort.listed} is"
        yield f"[cohorts.{cohort.name}] {many} not registered: {listed}"
    for column, conditions in cohort.where.items():
        for value in [one for condition in conditions if condition.op in ("is", "not") for one in condition.values]:
            level, _, name = column.partition(".")
            if not are_among(kin.entities[level].columns[name], texts_of(value)).any():
                yield f"[cohorts.{cohort.name}] {column}: nobody has {_meant(value, _values(connection, level, name))}"


def _meant(said: str, known: list[str]) -> str:
    near = difflib.get_close_matches(said, known, 1)
    return f"{said} (did you mean {near[0]}?)" if near else said


def _values(connection: Connection, level: str, name: str) -> list[str]:
    """The texts that a column has."""
    if name == "id":
        return list(connection.execute(select(entity.c.id).where(entity.c.level == level)).scalars())
    asked = select(attribute(entity, name, connection.dialect.name)).where(entity.c.level == level).distinct()
    values = map(json.loads, connection.execute(asked).scalars())
    return [one for one in values if isinstance(one, str)]
