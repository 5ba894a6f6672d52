"""Selections such as `aligned_reads`, `merged_reads/S1+`, `+cohort_report` or `*/HG00100-LCL`.

They mean the same in all commands that take steps and nodes.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

from ctcore.cohorts.lookup import find_nodes
from ctcore.cohorts.partitions import partitions
from ctcore.errors import Usage
from ctcore.inputs.reach import with_ancestors, with_descendants
from ctcore.model.levels import Level
from ctcore.model.node import Node
from ctcore.project import Project
from ctcore.steps.graph import REGISTRY

HELP = (
    "STEP or STEP/PARTITION, where * matches any letters; +X: X and its inputs; X+: X and what is made from it; "
    "cohort:NAME or STEP/cohort:NAME: members of a cohort; pairing:NAME: complete cases"
)
_WORD = re.compile(r"(?:(.*)/)?(cohort|pairing):(.*)")  # no ID has a colon in it
_GLOB = re.compile(r"[*?\[]")


def select_nodes(project: Project, texts: Sequence[str]) -> dict[str, set[str]] | None:
    """The selected nodes as step → partitions, in the order of the steps. None without any selection: all nodes.

    Several texts, or one with commas, form a union. Usage error with a suggestion if one matches nothing.
    """
    tokens = [token for text in texts for token in map(str.strip, text.split(",")) if token]
    if not tokens:
        if texts:
            raise Usage(f"nothing is selected by {', '.join(map(repr, texts))}; write {HELP}")
        return None
    plain: list[str] = []
    found: dict[str, set[str]] = defaultdict(set)
    for token in tokens:
        up, name, down = _parts(token)
        if not (up or down or name in project.steps or _WORD.fullmatch(name) or _GLOB.search(name)):
            plain.append(name)  # all of them in one statement a level
            continue
        mine = _named(project, name)
        _add(found, with_ancestors(project, mine) if up else mine)
        if down:
            _add(found, with_descendants(project, mine))
    _add(found, _listed(project, plain))
    words = [token for token in tokens if _WORD.fullmatch(_parts(token)[1])]
    if words and not any(found.values()):
        raise Usage(
            f"{', '.join(map(repr, words))} selects nothing: nobody of it is there and may be used;"
            " `ct status --all` lists who is excluded"
        )
    return {name: found[name] for name in project.steps.order if found.get(name)}


def named_nodes(project: Project, texts: Sequence[str]) -> list[Node]:
    """The parts of a selection that name one node, in full or by a step with one partition."""
    tokens = [token.strip() for text in texts for token in text.split(",")]
    plain = [
        one
        for one in tokens
        if "/" in one and not (_GLOB.search(one) or _WORD.fullmatch(one) or one.startswith("+") or one.endswith("+"))
    ]
    if len(project.settings.cohorts) == 1:
        plain += [one for one in tokens if one in project.steps and project.steps[one].level == "cohort"]
    return find_nodes(project, plain) if plain else []


def _add(found: dict[str, set[str]], more: Mapping[str, Iterable[str]]) -> None:
    for name, some in more.items():
        found[name].update(some)


def _parts(token: str) -> tuple[bool, str, bool]:
    """`+name+` → whether ancestors and descendants are selected."""
    name = token.removeprefix("+").removesuffix("+")
    if not name or name.startswith("+") or name.endswith("+") or "\0" in name:
        raise Usage(f"{token!r} selects nothing; write {HELP}")
    return token.startswith("+"), name, token.endswith("+")


def _named(project: Project, name: str) -> dict[str, set[str]]:
    """The nodes of one part: a step's, a single one, matching ones, a cohort's, or complete cases."""
    if (word := _WORD.fullmatch(name)) is not None:
        return _group(project, *word.groups())
    if name in project.steps:
        return {name: set(partitions(project, project.steps[name].level))}
    if not _GLOB.search(name):
        return _listed(project, [name])
    step, cut, partition = name.partition("/")
    steps = [one for one in project.steps.order if fnmatchcase(one, step)]
    pattern = partition if cut else "*"
    matching: dict[Level, set[str]] = {}
    levels: set[Level] = {project.steps[one].level for one in steps}
    for level in levels:
        matching[level] = {key for key in partitions(project, level) if fnmatchcase(key, pattern)}
    found = {one: matching[project.steps[one].level] for one in steps if matching[project.steps[one].level]}
    if not found:
        known = f"steps: {', '.join(project.steps.order) or 'none'}"
        raise Usage(f"nothing matches {name!r}; " + (f"no {steps[0]} has such a partition" if steps else known))
    return found


def _group(project: Project, step: str | None, what: str, name: str) -> dict[str, set[str]]:
    """The nodes of a cohort's members, or of complete cases, for one step or all."""
    from ctcore.cohorts.filters import members_of
    from ctcore.cohorts.pairings import complete_entities

    found = members_of(project, name) if what == "cohort" else complete_entities(project, name)
    listed = project.steps.order if step is None else [project.steps[step].name]
    return {one: set(found[project.steps[one].level]) for one in listed if project.steps[one].level in found}


def _listed(project: Project, names: Sequence[str]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for asset, partition in find_nodes(project, names) if names else ():
        if asset in REGISTRY:
            raise Usage(f"{asset}/{partition} is registered, not made by a step; */{partition} are its own nodes")
        found[asset].add(partition)
    return found
