"""Parts of a cohort's rule that match nobody: unregistered IDs and unused values, with suggestions."""

import difflib
import json
from collections.abc import Iterator

import numpy as np
from sqlalchemy import Connection, select

from ctcore.catalog.attribute_sql import attribute
from ctcore.catalog.tables import entity
from ctcore.model.cohort_rule import Cohort
from ctcore.model.spellings import texts_of
from ctcore.snapshot.hierarchy import Hierarchy
from ctcore.snapshot.versions import are_among

SHOWN = 5


def rule_warnings(connection: Connection, hierarchy: Hierarchy, cohort: Cohort) -> Iterator[str]:
    """A sentence each; the rules of other cohorts that it is made from are asked about by themselves."""
    known = hierarchy.entities[cohort.listed]
    unknown = sorted(set(cohort.members or ()) - set(known.ids))
    if unknown:
        usable = _usable(hierarchy, cohort.listed)
        listed = ", ".join(_meant(one, usable) for one in unknown[:SHOWN]) + ", …" * (len(unknown) > SHOWN)
        many = f"{len(unknown)} listed {cohort.listed}s are" if len(unknown) > 1 else f"a listed {cohort.listed} is"
        yield f"[cohorts.{cohort.name}] {many} not registered: {listed}"
    for column, conditions in cohort.where.items():
        for value in [one for condition in conditions if condition.op in ("is", "not") for one in condition.values]:
            level, _, name = column.partition(".")
            if not are_among(hierarchy.entities[level].columns[name], texts_of(value)).any():
                known = _values(connection, hierarchy, level, name)
                yield f"[cohorts.{cohort.name}] {column}: nobody has {_meant(value, known)}"


def _meant(said: str, known: list[str]) -> str:
    near = difflib.get_close_matches(said, known, 1)
    return f"{said} (did you mean {near[0]}?)" if near else said


def _usable(hierarchy: Hierarchy, level: str) -> list[str]:
    return [hierarchy.entities[level].ids[at] for at in np.flatnonzero(hierarchy.usable[level]).tolist()]


def _values(connection: Connection, hierarchy: Hierarchy, level: str, name: str) -> list[str]:
    """The values of a column among usable entities. Values that only excluded people have are left out."""
    usable = _usable(hierarchy, level)
    if name == "id":
        return usable
    known = set(usable)
    asked = select(entity.c.id, attribute(entity, name, connection.dialect.name)).where(entity.c.level == level)
    texts = {text for who, text in connection.execute(asked) if text is not None and who in known}
    return [one for one in map(json.loads, sorted(texts)) if isinstance(one, str)]
