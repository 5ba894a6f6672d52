"""From typed names to nodes. An unknown name gets a suggestion."""

import difflib
from collections import defaultdict
from collections.abc import Sequence

from sqlalchemy import select

from ctcore.catalog.engine import in_keys
from ctcore.catalog.tables import entity
from ctcore.cohorts.partitions import partitions
from ctcore.errors import Usage
from ctcore.governance.hints import not_found, visible_ids
from ctcore.model.levels import Level
from ctcore.model.node import Node
from ctcore.project import Project
from ctcore.steps.graph import REGISTRY


def find_node(project: Project, text: str) -> Node:
    """A node by its full name, or by a step that has only one partition."""
    return find_nodes(project, [text])[0]


def find_nodes(project: Project, texts: Sequence[str]) -> list[Node]:
    """Nodes by their names, with one statement per level. Usage error with a suggestion for an unknown name."""
    found = [_parsed(project, text) for text in texts]
    asked: dict[Level, set[str]] = defaultdict(set)
    for asset, partition in found:
        if asset not in REGISTRY:
            asked[project.steps[asset].level].add(partition)
    for level, keys in asked.items():
        unknown = keys - _known(project, level, keys)
        if unknown:
            raise not_found(project, level, min(unknown))
    return found


def _parsed(project: Project, text: str) -> Node:
    name = text.strip()
    if name in project.steps:
        keys = partitions(project, project.steps[name].level)
        if len(keys) == 1 and visible_ids(project, name, keys):  # one that is hidden has to be named
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
    """An example that anybody may see."""
    return next(iter(visible_ids(project, step, keys)), "PARTITION")


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
