"""⑦ What was read and is not declared, in words: a change of it is not seen, and this line would declare it."""

import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from ctcore.catalog.tables import artifact, materialization
from ctcore.project import Project
from ctcore.reasons import Node
from ctcore.veil import Veil, veil

Told = Mapping[str, str]
_VERBS = {
    "file": "read",
    "module": "imported",
    "program": "ran",
    "environment": "read the variable",
    "missed": "looked in vain for",
}
_UNSEEN = "a change of it is not seen"
_WHY = {"missed": "a relative path leads into a call's own folder"}
_SCRIPTS = {".sh", ".py", ".R", ".r", ".pl", ".awk", ".jl", ".sql"}
_SHOWN = 10


@dataclass(frozen=True)
class Beyond:
    """Something that some current results of a step were made with, and that the step does not declare."""

    step: str
    kind: str
    what: str
    nodes: int
    way: str


def listed(recorded: str | None) -> list[dict[str, str]] | None:
    """As the catalog has it; None where nobody watched."""
    return None if recorded is None else json.loads(recorded)


def seen_of(node: Node, recorded: str | None, seen: Veil) -> list[dict[str, str]] | None:
    """The same for people: nothing of a node that is hidden, and nothing that names somebody who is."""
    found = listed(recorded)
    if found is None or seen.hides(node):
        return None
    return [one for one in found if not seen.is_in(one["what"])]


def sentences(project: Project, step: str, found: Iterable[Told]) -> list[str]:
    """One line each, with the way out."""
    lines = []
    told = list(found)
    for one in told[:_SHOWN]:
        if one["kind"] == "more":
            continue
        at = f" ({one['at']})" if one.get("at") else ""
        said = f"it also {_VERBS[one['kind']]} {one['what']}{at}, which the step does not declare"
        lines.append(f"{said}; {_WHY.get(one['kind'], _UNSEEN)}. {way_of(project, step, one)}")
    more = len(told) - _SHOWN + sum(int(one["what"]) - 1 for one in told if one["kind"] == "more")
    return [*lines, f"… and {more} more"] if more > 0 else lines


def way_of(project: Project, step: str, one: Told) -> str:
    """What to write, and where, so that it is declared."""
    kind, what = one["kind"], one["what"]
    if kind == "environment":
        return f"Read it through a parameter: [params.{step}] in ct.toml"
    if kind == "module":
        return "Put it beside the step's file and import it as from .NAME import …; or install it as a package"
    if (beside := _beside(project, step, what)) is not None:
        return f'Add code=("{beside}",)'
    name = os.path.basename(what)
    return f'Add tools={{"{name}": "{name} --version"}}' if kind == "program" else _way_of_file(what)


def _way_of_file(what: str) -> str:
    stem, suffix = os.path.splitext(os.path.basename(what))
    if what.endswith("/"):
        return "Give the step its files by name: as references, as raw files, or as what another step makes"
    if suffix in _SCRIPTS:
        return f'Put it beside the step\'s file, and add code=("{stem}{suffix}",)'
    key = re.sub(r"[^A-Za-z0-9_]+", "_", stem.partition(".")[0]).strip("_") or "KEY"
    return f'Add references=("{key}",), and [references.{key}] path = "{what}" in ct.toml'


def by_step(project: Project) -> list[Beyond]:
    """What current results were made with and is not declared, by step: of how many nodes."""
    seen = veil(project)
    counted: Counter[tuple[str, str, str]] = Counter()
    for asset, recorded, nodes in _recorded(project, seen):
        for one in listed(recorded) or () if asset in project.steps else ():
            if one["kind"] != "more" and not seen.is_in(one["what"]):
                counted[asset, one["kind"], one["what"]] += nodes
    return [
        Beyond(asset, kind, what, nodes, way_of(project, asset, {"kind": kind, "what": what}))
        for (asset, kind, what), nodes in sorted(counted.items())
    ]


def _recorded(project: Project, seen: Veil) -> list[tuple[str, str, int]]:
    """Of each step, what was read by how many. What was read for somebody who is hidden counts for nobody."""
    made, read = materialization, materialization.c.undeclared
    one = select(artifact.c.asset, read, artifact.c.partition).join(made, made.c.id == artifact.c.materialization)
    each = one.where(read.is_not(None), read != "[]")
    with project.catalog.read() as connection:
        if seen:
            found = connection.execute(each).all()
            rows = [(row.asset, row.undeclared, 1) for row in found if not seen.hides((row.asset, row.partition))]
        else:
            grouped = each.with_only_columns(artifact.c.asset, read, func.count()).group_by(artifact.c.asset, read)
            rows = [(asset, recorded, nodes) for asset, recorded, nodes in connection.execute(grouped)]
    return rows


def rows_of(found: Sequence[Beyond]) -> list[tuple[Any, ...]]:
    """For a table."""
    return [(one.step, f"{_VERBS[one.kind]} {one.what}", one.nodes, one.way) for one in found]


def _beside(project: Project, step: str, what: str) -> str | None:
    """The place of a file relative to the step's own file; None where it does not lie beneath that folder."""
    folder = project.steps[step].source.parent
    place = Path(os.path.normpath(project.root / what))
    for one in (place, place.resolve()):
        if one != folder and one.is_relative_to(folder):
            return one.relative_to(folder).as_posix()
    return None
