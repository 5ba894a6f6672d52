"""The memo: the key of a call, and whether its result exists already.

The key covers the step, its recipe (code, parameters, environment), the node, and the data version of every input under
its input's name: two swapped inputs are another call.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sqlalchemy import Connection, Select, and_, func, select

from ctcore.catalog.engine import bind_keys, in_bound_keys, in_keys
from ctcore.catalog.tables import artifact, damage, edge, materialization, output
from ctcore.catalog.tombstones import is_purged
from ctcore.inputs.contributors import OF_LOST, Contributors
from ctcore.inputs.current import current_inputs
from ctcore.inputs.exclusions import why_excluded
from ctcore.inputs.resolve import Inputs, ResolvedInput
from ctcore.model.levels import count_text
from ctcore.model.masked_text import Plain, Words, join_words
from ctcore.model.node import Node
from ctcore.model.reasons import node_text
from ctcore.project import Project
from ctcore.snapshot.snapshot import Snapshot
from ctcore.snapshot.versions import Places, is_known, unpack
from ctcore.step import Step
from ctcore.steps.graph import Recipe
from ctcore.store.digest import Signature, digest_value, try_digests


class Edge(NamedTuple):
    """One used input: the input's name, its source node, and that node's data version."""

    input: str
    asset: str
    partition: str
    version: str


@dataclass(frozen=True)
class PreparedCall:
    """A call that can run: the node, the recipe, and the inputs. `folders` are upstream artifacts by node."""

    node: Node
    recipe: Recipe
    params: Any
    edges: tuple[Edge, ...]
    members: tuple[Node, ...]
    folders: Mapping[Node, str]
    key: str


@dataclass
class Preparation:
    """Calls that can be made, and why the others cannot."""

    ready: dict[str, PreparedCall] = field(default_factory=dict)
    blocked: dict[str, Words] = field(default_factory=dict)


def key_of(recipe: Recipe, node: Node, edges: Iterable[Edge]) -> str:
    """The identity of a call."""
    # Sorted: in which order inputs are found is no part of a call; their names are.
    return digest_value("ct.call.v1", {"recipe": recipe.digest, "node": list(node), "inputs": sorted(map(list, edges))})


def prepare(
    project: Project,
    step: Step,
    keys: Iterable[str],
    params: Mapping[str, Any] | None = None,
    connection: Connection | None = None,
    future: Mapping[Node, str] | None = None,
    members: Mapping[str, Places] | None = None,
) -> Preparation:
    """The calls for these partitions, with one statement per input.

    `future`: data versions that nodes and references will have, or had, instead of today's. `members`: of each level,
    who is taken instead of today's members.
    """
    asked = list(dict.fromkeys(keys))
    given, recipe = project.params(step, params), project.recipe(step, params) if params else None
    recipe = recipe or project.recipes[step.name]
    found = Preparation()
    with ExitStack() as stack:
        # One transaction for versions, folders and exclusions: between two, an input may be made anew, and the key
        # would name another content than the folder has.
        reading = connection if connection is not None else stack.enter_context(project.catalog.read())
        snapshot, inputs = current_inputs(project, reading)
        nodes = inputs.nodes(step)
        places = np.array(snapshot.locate(step.name, asked), np.int64)
        can = (places >= 0) & nodes[places] if len(nodes) else np.zeros(len(asked), np.bool_)
        chosen = [name for name, able in zip(asked, can.tolist(), strict=True) if able]
        taken = _Taken(chosen)
        found.blocked |= _blocked_by_consent(
            Contributors.permitted(lambda: reading, snapshot, inputs, step.name), step, chosen, future or {}
        )
        for want in inputs.wants(step):
            used = want if members is None else _with_members(snapshot, step, want, members)
            _take(taken, found, reading, Today(snapshot, inputs, step, used), places[can], future or {})
        folders = _folders(reading, taken.sources)
        cannot = why_excluded(reading, inputs, step, places[(places >= 0) & ~can].tolist())
    unable = {snapshot.name(step.name, at): join_words(one.words for one in why) for at, why in cannot.items()}
    for partition, able in zip(asked, can.tolist(), strict=True):
        if not able:
            known, none = unable.get(partition), Plain(f" is none: no {step.level} {partition} is registered")
            said = Words(" is excluded: ", known) if known else Words(none)
            found.blocked[partition] = Words(node_text((step.name, partition)), said)
        elif partition not in found.blocked:
            mine = tuple(sorted(taken.edges[partition]))  # as the key has them: what a step sees follows from its key
            node = (step.name, partition)
            found.ready[partition] = PreparedCall(
                node=node,
                recipe=recipe,
                params=given,
                edges=mine,
                members=tuple(sorted(set(taken.members[partition]))),
                # No folder where `future` names the version: that is only for a plan, which asks for keys.
                folders={e[1:3]: folders.get(e[1:3], "") for e in mine if e.input in step.inputs},
                key=key_of(recipe, node, mine),
            )
    return found


def _blocked_by_consent(
    within: Contributors, step: Step, chosen: Sequence[str], future: Mapping[Node, str]
) -> dict[str, Words]:
    """Cohort results whose current input contains somebody without consent. The input counts as it is now, not as it
    would be made today. An input known in advance is checked when it is made."""
    snapshot, inputs = within.snapshot, within.inputs
    found: dict[str, Words] = {}
    for up in inputs.cohort_inputs(step) if chosen and inputs.hierarchy.forbids(step.name) else ():
        clean, made = within.permitted_nodes(up.name), snapshot.made[up.name].materialization
        for name, at in zip(chosen, snapshot.locate(step.name, chosen), strict=True):
            if made[at] and not clean[at] and (up.name, name) not in future:
                many, use = within.patients((up.name, name)), snapshot.shape.uses[step.name]
                who = count_text(many, "patient") if many else "somebody"
                said = f" has {who} inside whose consent does not allow {use or 'it'} today"
                way = f"; `ct run {up.name}/{name}` makes it without them"
                if up.made_elsewhere:
                    way = f"; it is {up.way_to(name)} takes one without them"
                if not many and name in within.of_lost.get(up.name, ()):
                    said, way = OF_LOST, "; `ct run` makes that again"
                found[name] = Words("input ", node_text((up.name, name)), Plain(said + way))
    return found


class _Taken:
    """The inputs found so far for the calls of some partitions."""

    def __init__(self, partitions: list[str]) -> None:
        self.partitions = partitions
        self.edges: dict[str, list[Edge]] = defaultdict(list)
        self.members: dict[str, list[Node]] = defaultdict(list)
        self.sources: dict[str, set[str]] = defaultdict(set)


class Today(NamedTuple):
    """An input of a step, in one state of the catalog."""

    snapshot: Snapshot
    inputs: Inputs
    step: Step
    want: ResolvedInput


def _with_members(snapshot: Snapshot, step: Step, want: ResolvedInput, members: Mapping[str, Places]) -> ResolvedInput:
    """The input of the members of each node, with these as its sources."""
    if want.members is None and not want.downward:
        return want
    level = snapshot.shape.levels.get(want.asset, want.asset)
    return replace(want, members=(members[level],) * snapshot.size(step.name))


def _take(
    taken: _Taken, found: Preparation, connection: Connection, one: Today, places: Places, future: Mapping[Node, str]
) -> None:
    snapshot, want = one.snapshot, one.want
    owner, source = want.pairs(places)
    names = [want.input.partition(":")[2]] * len(source) if want.what == "reference" else _names(snapshot, want, source)
    for at, name, now in zip(owner.tolist(), names, _versions(connection, one, source, names), strict=True):
        partition = taken.partitions[at]
        version = future.get((want.asset, name), now) if future and want.what in ("step", "reference") else now
        if version is None:
            unknown = " was not looked at yet" if want.what == "reference" else " was never made"
            words = Words(Plain(f"input {want.input}: "), node_text((want.asset, name)), unknown)
            found.blocked.setdefault(partition, words)
            continue
        taken.edges[partition].append(Edge(want.input, want.asset, name, version))
        if want.fan_in:
            taken.members[partition].append((snapshot.shape.levels[want.asset], name))  # type: ignore[arg-type]
        if want.what == "step":
            taken.sources[want.asset].add(name)


def _names(snapshot: Snapshot, want: ResolvedInput, source: Places) -> list[str]:
    listed = snapshot.names(want.asset)
    return [listed[int(at)] for at in source]


def _versions(connection: Connection, one: Today, source: Places, names: list[str]) -> list[str | None]:
    """The data versions of these sources as texts."""
    want = one.want
    if want.what == "reference":
        return [one.snapshot.references.get(want.input.partition(":")[2])] * len(source)
    if want.what == "column":
        return one.inputs.texts(connection, want, source)
    versions = one.inputs.versions(want, one.step, source, one.snapshot)
    return [text if known else None for text, known in zip(unpack(versions), is_known(versions), strict=True)]


def _folders(connection: Connection, sources: Mapping[str, set[str]]) -> dict[Node, str]:
    return {
        (row.asset, row.partition): row.folder
        for asset, partitions in sources.items()
        for row in connection.execute(
            select(artifact.c.asset, artifact.c.partition, materialization.c.folder)
            .join(materialization, materialization.c.id == artifact.c.materialization)
            .where(artifact.c.asset == asset, in_keys(artifact.c.partition, partitions))
        )
    }


@dataclass(frozen=True)
class Hit:
    """An earlier making of the same call, whose outputs are still there."""

    materialization: int
    data_version: str
    folder: str
    made_at: str
    run_id: str | None


_OUTPUTS = select(output).where(in_bound_keys(output.c.materialization))


@cache
def _made_before() -> Select[Any]:
    """The last makings of these keys, but those of damaged nodes."""
    last = (
        select(func.max(materialization.c.id))
        .where(in_bound_keys(materialization.c.key), ~is_purged())
        .group_by(materialization.c.key)
    )
    harmed = select(damage.c.asset).where(
        damage.c.asset == materialization.c.asset, damage.c.partition == materialization.c.partition
    )
    return select(materialization).where(materialization.c.id.in_(last), ~harmed.exists())


def cache_hits(project: Project, prepared: Iterable[PreparedCall]) -> dict[str, Hit]:
    """Which of these calls were made before, by key. One whose bytes are damaged, gone or purged is none."""
    keys = {call.key for call in prepared}
    with project.catalog.read() as connection:
        rows = connection.execute(_made_before(), {"keys": bind_keys(keys)}).all()
        if not rows:
            return {}
        files = connection.execute(_OUTPUTS, {"keys": bind_keys(row.id for row in rows)}).all()
    lost = _lost(project, {row.id: row.folder for row in rows}, files)
    return {
        row.key: Hit(row.id, row.data_version, row.folder, row.started_at, row.run_id)
        for row in rows
        if row.id not in lost
    }


def _lost(project: Project, folders: Mapping[int, str], files: Iterable[Any]) -> set[int]:
    """Makings with a missing or changed file. Only touched files are read."""
    lost: set[int] = set()
    touched: dict[Path, Any] = {}
    for file in files:
        path = project.store.root / folders[file.materialization] / file.file
        try:
            seen = Signature.of(path)
        except OSError:
            lost.add(file.materialization)
            continue
        if seen != (file.size, file.mtime_ns, file.inode, file.ctime_ns):
            touched[path] = file
    reads, _ = try_digests(touched)
    return lost | {
        file.materialization for path, file in touched.items() if path not in reads or reads[path][0] != file.digest
    }


def current_edges(project: Project, node: Node) -> list[Edge]:
    """The inputs of a node's current artifact."""
    with project.catalog.read() as connection:
        rows = connection.execute(
            select(edge.c.input, edge.c.asset, edge.c.partition, edge.c.version)
            .join(artifact, artifact.c.materialization == edge.c.materialization)
            .where(and_(artifact.c.asset == node[0], artifact.c.partition == node[1]))
            .order_by(edge.c.input, edge.c.asset, edge.c.partition)
        )
        return [Edge(*row) for row in rows]
