"""Errors for unknown names: they suggest the nearest name that may be shown."""

import difflib
from collections.abc import Iterable, Sequence

from sqlalchemy import func, select

from ctcore.catalog.tables import entity
from ctcore.errors import Usage
from ctcore.governance.masking import mask_of
from ctcore.model.levels import ENTITY_LEVELS
from ctcore.project import Project

NEAR = 5_000  # so many IDs are compared with a mistyped one
HINTS = 20  # of so many that are not there, it is said what was probably meant


def not_found_texts(project: Project, level: str, keys: Sequence[str]) -> list[str]:
    """The errors for unknown entities. Only the first ones have suggestions."""
    return [
        str(not_found(project, level, key)) if at < HINTS else f"no {level} {key!r} is registered"
        for at, key in enumerate(keys)
    ]


def visible_ids(project: Project, level: str, names: Iterable[str]) -> list[str]:
    """The IDs of a level that anybody may see."""
    hidden = mask_of(project).hidden_partitions(level)
    return [name for name in names if name not in hidden]


def not_found(project: Project, level: str, key: str, way: str = "") -> Usage:
    """There is no such entity, cohort or reference; the nearest one of about that length is named."""
    if level in ENTITY_LEVELS:
        size = func.length(entity.c.id)
        listed = select(entity.c.id).where(entity.c.level == level, size.between(len(key) - 2, len(key) + 2))
        with project.catalog.read() as connection:
            listed_ids = connection.execute(listed.order_by(entity.c.seq).limit(NEAR)).scalars().all()
        known = visible_ids(project, level, listed_ids)
        otherwise = "see `ct status --all`"
    else:
        known = list(project.settings.cohorts if level == "cohort" else project.settings.references)
        otherwise = f"there is: {', '.join(known) or 'none'}"
    folded = {name.casefold(): name for name in known}
    near = difflib.get_close_matches(key.casefold(), folded, 1)
    hint = f"did you mean {folded[near[0]]!r}?" if near else otherwise
    verb = "registered" if level in ENTITY_LEVELS else "declared"
    return Usage(f"no {level} {key!r} is {verb}; {hint}" + (f"; {way}" if way else ""))
