"""Undeclared reads of calls. ct does not notice a change of these files; each comes with the line that declares it."""

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
from ctcore.governance.masking import Mask, mask_of
from ctcore.model.node import Node
from ctcore.project import Project

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
class UndeclaredRead:
    """Something that some current results of a step were made with, and that the step does not declare."""

    step: str
    kind: str
    what: str
    nodes: int
    way: str


def parse_reads(recorded: str | None) -> list[dict[str, str]] | None:
    """The recorded reads; None if nobody watched the call."""
    return None if recorded is None else json.loads(recorded)


def masked_reads(node: Node, recorded: str | None, seen: Mask) -> list[dict[str, str]] | None:
    """The same after masking: without hidden nodes and without names of hidden people."""
    found = parse_reads(recorded)
    if found is None or seen.hides(node):
        return None
    return [one for one in found if not seen.names_hidden(one["what"])]


def sentences(project: Project, step: str, found: Iterable[Told]) -> list[str]:
    """One line each, with the way out."""
    lines = []
    told = list(found)
    listed = [one for one in told if one["kind"] != "more"]
    for one in listed[:_SHOWN]:
        at = f" ({one['at']})" if one.get("at") else ""
        said = f"it also {_VERBS[one['kind']]} {one['what']}{at}, which the step does not declare"
        lines.append(f"{said}; {_WHY.get(one['kind'], _UNSEEN)}. {way_of(project, step, one)}")
    unlisted = sum(int(one["what"]) for one in told if one["kind"] == "more")
    more = max(0, len(listed) - _SHOWN) + unlisted  # a mask may leave fewer than are shown
    return [*lines, f"… and {more} more"] if more > 0 else lines


def way_of(project: Project, step: str, one: Told) -> str:
    """The line that would declare it, and its place."""
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
        return "Give the step its files by name: as references, raw files, or outputs of another step"
    if suffix in _SCRIPTS:
        return f'Put it beside the step\'s file, and add code=("{stem}{suffix}",)'
    key = re.sub(r"[^A-Za-z0-9_]+", "_", stem.partition(".")[0]).strip("_") or "KEY"
    return f'Add references=("{key}",), and [references.{key}] path = "{what}" in ct.toml'


def by_step(project: Project) -> list[UndeclaredRead]:
    """Undeclared reads of current results by step, with the number of nodes."""
    seen = mask_of(project)
    counted: Counter[tuple[str, str, str]] = Counter()
    for asset, recorded, nodes in _recorded(project, seen):
        for one in parse_reads(recorded) or () if asset in project.steps else ():
            if one["kind"] != "more" and not seen.names_hidden(one["what"]):
                counted[asset, one["kind"], one["what"]] += nodes
    return [
        UndeclaredRead(asset, kind, what, nodes, way_of(project, asset, {"kind": kind, "what": what}))
        for (asset, kind, what), nodes in sorted(counted.items())
    ]


def _recorded(project: Project, seen: Mask) -> list[tuple[str, str, int]]:
    """Undeclared reads of each step with the number of nodes; hidden nodes do not count."""
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


def rows_of(found: Sequence[UndeclaredRead]) -> list[tuple[Any, ...]]:
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
