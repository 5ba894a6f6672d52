"""⑦ From what a person types to nodes; what is not there is named beside what was probably meant."""

import difflib
from collections import defaultdict
from collections.abc import Iterable, Sequence

from sqlalchemy import func, select

from ctcore.batches import partitions
from ctcore.catalog.engine import in_keys
from ctcore.catalog.tables import entity
from ctcore.errors import Usage
from ctcore.project import Project
from ctcore.reasons import Node
from ctcore.step import ENTITY_LEVELS, Level
from ctcore.steps import REGISTRY

NEAR = 5_000  # so many IDs are compared with a mistyped one


def find_node(project: Project, text: str) -> Node:
    """A node by its full name, or by a step that has only one partition."""
    return find_nodes(project, [text])[0]


def find_nodes(project: Project, texts: Sequence[str]) -> list[Node]:
    """Nodes by their names: one statement a level. Usage error, with what was probably meant, where one is none."""
    found = [_parsed(project, text) for text in texts]
    asked: dict[Level, set[str]] = defaultdict(set)
    for asset, partition in found:
        if asset not in REGISTRY:
            asked[project.steps[asset].level].add(partition)
    for level, keys in asked.items():
        unknown = keys - _known(project, level, keys)
        if unknown:
            raise no_such(project, level, min(unknown))
    return found


def _parsed(project: Project, text: str) -> Node:
    name = text.strip()
    if name in project.steps:
        keys = partitions(project, project.steps[name].level)
        if len(keys) == 1 and shown(project, name, keys):  # one that is hidden has to be named
            return (name, keys[0])
        some = f"{name}/{_first(project, name, keys)}" if keys else f"{name}/PARTITION, once a sheet is registered"
        raise Usage(f"{name} has {len(keys)} partitions; name one, as in {some}")
    asset, cut, partition = name.partition("/")
    if not (asset and partition and name.isprintable()):
        steps = f"steps: {', '.join(project.steps.order) or 'none'}"
        entities = _entities(project, name) if name.isprintable() and not cut else []
        near = entities or difflib.get_close_matches(name.strip("/"), project.steps.order, 1)
        hint = f"did you mean {near[0]!r}?" if near and not cut else steps
        raise Usage(f"{text!r} is not a node (step/partition); {hint}")
    if asset not in REGISTRY:
        project.steps[asset]
    return (asset, partition)


def _first(project: Project, step: str, keys: Sequence[str]) -> str:
    """An example that may be shown to anybody."""
    return next(iter(shown(project, step, keys)), "PARTITION")


def _entities(project: Project, key: str) -> list[str]:
    """The registry nodes of this ID."""
    with project.catalog.read() as connection:
        levels = connection.execute(select(entity.c.level).where(entity.c.id == key).order_by(entity.c.seq)).scalars()
        return [f"{level}/{key}" for level in levels]


def _known(project: Project, level: Level, keys: set[str]) -> set[str]:
    if level == "cohort":
        return keys & set(project.settings.cohorts)
    with project.catalog.read() as connection:
        mine = (entity.c.level == level) & in_keys(entity.c.id, keys)
        return set(connection.execute(select(entity.c.id).where(mine)).scalars())


HINTS = 20  # of so many that are not there, it is said what was probably meant


def none_such(project: Project, level: str, keys: Sequence[str]) -> list[str]:
    """There are no such entities: words for each, with hints for the first ones only."""
    return [
        str(no_such(project, level, key)) if at < HINTS else f"no {level} {key!r} is registered"
        for at, key in enumerate(keys)
    ]


def shown(project: Project, level: str, names: Iterable[str]) -> list[str]:
    """Those of these IDs of a level that may be named to anybody."""
    from ctcore.veil import veil

    hidden = veil(project).of(level)
    return [name for name in names if name not in hidden]


def no_such(project: Project, level: str, key: str, way: str = "") -> Usage:
    """There is no such entity, cohort or reference; the nearest one of about that length is named."""
    if level in ENTITY_LEVELS:
        size = func.length(entity.c.id)
        listed = select(entity.c.id).where(entity.c.level == level, size.between(len(key) - 2, len(key) + 2))
        with project.catalog.read() as connection:
            listed_ids = connection.execute(listed.order_by(entity.c.seq).limit(NEAR)).scalars().all()
        known = shown(project, level, listed_ids)
        otherwise = "see `ct status --all`"
    else:
        known = list(project.settings.cohorts if level == "cohort" else project.settings.references)
        otherwise = f"there is: {', '.join(known) or 'none'}"
    folded = {name.casefold(): name for name in known}
    near = difflib.get_close_matches(key.casefold(), folded, 1)
    hint = f"did you mean {folded[near[0]]!r}?" if near else otherwise
    verb = "registered" if level in ENTITY_LEVELS else "declared"
    return Usage(f"no {level} {key!r} is {verb}; {hint}" + (f"; {way}" if way else ""))
