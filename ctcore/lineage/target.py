"""From a typed name, an ID, a file or a digest to makings and registry nodes."""

import difflib
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, and_, or_, select

from ctcore.catalog.tables import edge, entity, file, materialization, output, reference
from ctcore.cohorts.lookup import find_node
from ctcore.errors import Usage
from ctcore.governance.hints import NEAR, visible_ids
from ctcore.governance.masking import mask_of
from ctcore.lineage.walk import Making, makings
from ctcore.model.levels import ENTITY_LEVELS
from ctcore.model.masked_text import Plain, Words, join_words
from ctcore.model.node import Node, name_of
from ctcore.model.reasons import node_text, short_digest
from ctcore.project import Project
from ctcore.steps.graph import REGISTRY
from ctcore.store.digest import digest_files
from ctcore.store.folder_content import listings_with

SHORTEST = 6  # digits of a digest that are enough to look for it

DIGITS = 8  # as many as are shown of a digest


@dataclass
class Target:
    """The target: makings, registry nodes, or both. `digest`: the content that was looked for; `folders`: digests of
    folders that have it. `notes` explain how it was found."""

    text: str
    made: dict[int, Making] = field(default_factory=dict)
    registered: list[Node] = field(default_factory=list)
    digest: str | None = None
    folders: tuple[str, ...] = ()
    notes: list[Words] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.made or self.registered)

    @property
    def contents(self) -> frozenset[str] | None:
        """The contents that are meant; None: all of the nodes'."""
        return None if self.digest is None else frozenset((self.digest, *self.folders))


def find_target(project: Project, text: str, every: bool = False) -> Target:
    """Find a name first, then a file, then a digest. `every`: all makings of a node, not only the current one.

    Usage error if nothing is found; it lists where ct looked.
    """
    with project.catalog.read() as connection:
        found = _named(project, connection, text, every) or _at(project, connection, text)
        if found:
            return found
        path = Path(text)
        if path.is_file():
            return _of_file(project, connection, path)
        if path.is_dir() and (target := _of_folder(project, connection, path, every)):
            return target
        if re.fullmatch(f"[0-9a-fA-F]{{{SHORTEST},64}}", text):
            return _of_digest(connection, text)
    return _nothing(project, text)


def _named(project: Project, connection: Connection, text: str, every: bool) -> Target | None:
    """A node by its full name, or everything that a bare ID, cohort, reference or one-partition step names."""
    asset, cut, partition = text.strip().partition("/")
    if cut:
        return _node(connection, (asset, partition), every)
    nodes = _registered(connection, text)
    levels = [node[0] for node in nodes]
    cohort = [step.name for step in project.steps if step.level == "cohort"] if text in project.settings.cohorts else []
    if text in project.steps and not nodes:
        return _of_step(project, connection, text, every)
    mine = and_(materialization.c.asset.in_(cohort), materialization.c.partition == text)
    found = Target(text, _of_nodes(connection, mine, every) if cohort else {}, nodes)
    if len(levels) > 1 or (levels and found.made):
        meant = [name_of(node) for node in nodes] + [f"the artifacts of cohort {text}"] * bool(found.made)
        found.notes.append(Words(Plain(f"{text} names several: {', '.join(meant)}; all of them are meant")))
    return found


def _of_step(project: Project, connection: Connection, name: str, every: bool) -> Target:
    """A step is its only node; where all makings are asked for, all of its nodes."""
    made = _of_nodes(connection, materialization.c.asset == name, every)
    nodes = list(dict.fromkeys(one.node for one in made.values()))
    if not nodes:
        way = project.steps[name].way_to("PARTITION") if name in project.steps else f"`ct run {name}` makes it"
        raise Usage(f"{name} was never made; {way}")
    if len(nodes) > 1 and not every:
        some = next(iter(visible_ids(project, name, (key for _, key in nodes))), "PARTITION")
        raise Usage(f"{name} has {len(nodes)} nodes; name one, as in {name}/{some}")
    return Target(name, made)


def _registered(connection: Connection, text: str) -> list[Node]:
    levels = connection.execute(select(entity.c.level).where(entity.c.id == text).order_by(entity.c.seq)).scalars()
    known = connection.execute(select(reference.c.key).where(reference.c.key == text)).scalars()
    declared = [*((level, text) for level in levels), *(("reference", key) for key in known)]
    named = (edge.c.asset.in_(REGISTRY)) & (edge.c.partition == text)
    used = connection.execute(select(edge.c.asset).where(named).distinct()).scalars()
    return list(dict.fromkeys([*declared, *((asset, text) for asset in sorted(used))]))


def _node(connection: Connection, node: Node, every: bool) -> Target | None:
    """A node of the registry or the ledger; its step may be gone."""
    name = name_of(node)
    if node[0] in REGISTRY:
        known = [one for one in _registered(connection, node[1]) if one[0] == node[0]]
        return Target(name, registered=known) if known else None
    mine = and_(materialization.c.asset == node[0], materialization.c.partition == node[1])
    made = _of_nodes(connection, mine, every)
    return Target(name, made) if made else None


def _of_nodes(connection: Connection, mine: Any, every: bool) -> dict[int, Making]:
    """The current makings if there are any, otherwise the last ones; or all."""
    ids = connection.execute(select(materialization.c.id).where(mine)).scalars().all()
    made = makings(connection, ids)
    if every:
        return made
    chosen: dict[Node, Making] = {}
    for one in made.values():
        before = chosen.get(one.node)
        if before is None or one.current or not before.current:
            chosen[one.node] = one
    return {one.id: one for one in chosen.values()}


def _at(project: Project, connection: Connection, text: str) -> Target | None:
    """One making of a node: `node@previous`, `node@12` by its number, `node@3f2a` by its data version or key."""
    name, cut, which = text.strip().rpartition("@")
    asset, slash, partition = name.partition("/")
    if not cut or not which:
        return None
    mine = materialization.c.asset == (asset if slash else name)
    if slash:
        mine = and_(mine, materialization.c.partition == partition)
    made = _of_nodes(connection, mine, every=True)
    if not made:
        return None
    if len({one.node for one in made.values()}) > 1:
        some = next(iter(visible_ids(project, name, (one.partition for one in made.values()))), "PARTITION")
        raise Usage(f"{name} has several partitions; name one, as in {name}/{some}")
    one = choose(list(made.values()), which, name)
    return Target(text, {one.id: one})


def choose(made: Sequence[Making], which: str, name: str) -> Making:
    """One of a node's makings: by number, by a prefix of its data version or key, `current` or `previous`. `name` is
    the typed name of the node."""
    now = next((one for one in made if one.current), made[-1])
    earlier = [one for one in made if one.id < now.id] or [one for one in made if one is not now]
    if which == "current":
        return now
    if which == "previous":
        if not earlier:
            raise Usage(f"{name} was made once, as #{now.id}; there is no previous making")
        return earlier[-1]
    numbered = [one for one in made if which.removeprefix("#") == str(one.id)]
    prefix = which.lower()
    is_number = prefix.isdecimal() and len(prefix) < DIGITS  # a short one is meant as a number, whatever begins so
    of = [one for one in made if not is_number]
    alike = [one for one in of if one.data_version.startswith(prefix) or one.key.startswith(prefix)]
    if numbered or alike:
        return (numbered or alike)[-1]
    listed = ", ".join(f"#{one.id} ({short_digest(one.data_version)}, {one.started_at})" for one in made[-20:])
    raise Usage(f"{name} has no making {which!r}; it has: {listed}")


def _of_file(project: Project, connection: Connection, path: Path) -> Target:
    """A file by its content; a file inside the store also by its folder, because many artifacts may have the same
    bytes."""
    digest = digest_files([path])[path]
    found = _with_content(project, connection, str(path), digest)
    folder = _in_store(project, path)
    mine = {number: one for number, one in found.made.items() if one.folder == folder}
    if mine:
        found.made = mine
    if not found:
        raise Usage(
            f"{path} (BLAKE3 {short_digest(digest)}) is unknown: neither an output of any making, nor a raw file, nor "
            f"a reference of this project has these bytes; was it changed after it was copied? "
            f"`ct verify` reads what is in the store"
        )
    return found


def knows_content(project: Project, digest: str) -> bool:
    """Whether a project has, or had, this content: as an output, a raw file or a reference."""
    with project.catalog.read() as connection:
        return bool(_with_content(project, connection, digest, digest))


def _of_folder(project: Project, connection: Connection, path: Path, every: bool) -> Target | None:
    """A reference or raw files that are this folder."""
    for key, place in project.references():
        if place.is_dir() and os.path.samefile(path, place):
            return _node(connection, ("reference", key), every)
    places = [project.recorded(one) for one in (os.path.abspath(path), os.path.realpath(path))]
    raw = select(entity.c.level, entity.c.id).join(file, file.c.entity == entity.c.seq).where(file.c.path.in_(places))
    nodes = [(row[0], row[1]) for row in connection.execute(raw.distinct())]
    return Target(str(path), registered=nodes) if nodes else None


def _with_content(project: Project, connection: Connection, text: str, digest: str) -> Target:
    """Whatever has, or had, this content, also within a folder."""
    found = _with_digest(connection, text, digest)
    for folder in listings_with(project.store.root, digest):
        more = _with_digest(connection, text, folder)
        found.registered = list(dict.fromkeys([*found.registered, *more.registered]))
        found.notes += [note for note in more.notes if note not in found.notes]
        found.folders += (folder,)
    return found


def _in_store(project: Project, path: Path) -> str | None:
    place = path.resolve()
    root = project.store.root.resolve()
    if not place.is_relative_to(root):
        return None
    return "/".join(place.relative_to(root).parts[:3])


def _of_digest(connection: Connection, text: str) -> Target:
    prefix = text.lower()
    found = {digest for column in _digests() for digest in _beginning(connection, column, prefix)}
    if len(found) > 1:
        listed = ", ".join(
            sorted(short_digest(one) if len(prefix) < 8 else one[: len(prefix) + 4] for one in found)[:5]
        )
        raise Usage(f"{len(found)} contents begin with {text} ({listed}, …); give more digits")
    if not found:
        raise Usage(
            f"no content of this project begins with {text}: outputs, data versions, raw files and references "
            "were looked at; `b3sum FILE` gives a file's digest"
        )
    return _with_digest(connection, text, found.pop())


def _digests() -> Iterable[Any]:
    yield from (output.c.digest, materialization.c.data_version, file.c.digest, reference.c.digest)


def _beginning(connection: Connection, column: Any, prefix: str) -> Iterable[str]:
    exact = column == prefix if len(prefix) == 64 else column.startswith(prefix)
    found = connection.execute(select(column).where(exact).distinct().limit(100)).scalars().all()
    if found or column is not file.c.digest:
        return found
    raw = and_(edge.c.asset.in_(ENTITY_LEVELS), edge.c.version.startswith(prefix))
    return connection.execute(select(edge.c.version).where(raw).distinct().limit(100)).scalars().all()


def _with_digest(connection: Connection, text: str, digest: str) -> Target:
    """Whatever has, or had, this content."""
    inside = select(output.c.materialization).where(output.c.digest == digest)
    mine = or_(materialization.c.data_version == digest, materialization.c.id.in_(inside))
    ids = connection.execute(select(materialization.c.id).where(mine)).scalars().all()
    found = Target(text, makings(connection, ids), digest=digest)
    raw = select(entity.c.level, entity.c.id).join(file, file.c.entity == entity.c.seq).where(file.c.digest == digest)
    now = [(row[0], row[1]) for row in connection.execute(raw.distinct())]
    used = select(edge.c.asset, edge.c.partition).where(edge.c.asset.in_(ENTITY_LEVELS), edge.c.version == digest)
    before = [(row[0], row[1]) for row in connection.execute(used.distinct())]
    now += [("reference", key) for key in _references(connection, reference.c.key, reference.c.digest == digest)]
    older = and_(edge.c.asset == "reference", edge.c.version.endswith(f" {digest}"))
    before += [("reference", key) for key in _references(connection, edge.c.partition, older)]
    found.registered = list(dict.fromkeys([*now, *before]))
    for node in sorted(set(before) - set(now)):
        former = Plain(f"{short_digest(digest)} is former content of ")
        found.notes.append(Words(former, node_text(node), ", which has another one now"))
    found.notes += _said(found)
    return found


def _references(connection: Connection, key: Any, mine: Any) -> Iterable[str]:
    return connection.execute(select(key).where(mine).distinct()).scalars()


def _said(found: Target) -> Iterable[Words]:
    """A note if the same bytes exist in several places, or only in makings that are no longer current."""
    nodes = dict.fromkeys(one.node for one in found.made.values())
    current = {one.node for one in found.made.values() if one.current}
    if len(nodes) > 1:
        first = join_words((Words(node_text(node)) for node in list(nodes)[:3]), ", ")
        more = Plain(", …" * (len(nodes) > 3))
        yield Words(Plain(f"{found.text} has the content of files of {len(nodes)} nodes: "), first, more)
    for node in [node for node in nodes if node not in current][:3]:
        last = max(one.id for one in found.made.values() if one.node == node)
        one, way = Plain(f"@{last}"), Plain(f"@{last}, which is no longer current: `ct diff ")
        yield Words(
            Plain(f"{found.text} is of "), node_text(node), way, node_text(node), one, " ", node_text(node), "`"
        )


def _nothing(project: Project, text: str) -> Target:
    """The error that lists where ct looked."""
    asset, cut, _ = text.strip().partition("/")
    if cut and (asset in REGISTRY or asset in project.steps):
        node = find_node(project, text)
        if asset in project.steps:
            way = project.steps[asset].way_to(node[1])
            raise Usage(f"{name_of(node)} was never made; {way}, `ct why` says why")
    looked = "no step/partition, ID, cohort, reference or file of this name, and no digest's first digits"
    if text.strip() and Path(text).is_dir():
        raise Usage(f"{text} is a folder; name one of its files, or the node")
    near = _near(project, text)
    raise Usage(f"{text!r} is unknown: {looked}; {near}")


def _near(project: Project, text: str) -> str:
    with project.catalog.read() as connection:
        listed = connection.execute(select(entity.c.level, entity.c.id).order_by(entity.c.seq).limit(NEAR)).all()
    seen = mask_of(project)
    known = [name for level, name in listed if not seen.hides((level, name))]
    names = [*project.steps.order, *project.settings.cohorts, *project.settings.references, *known]
    folded = {name.casefold(): name for name in names}
    near = difflib.get_close_matches(text.partition("/")[0].casefold(), folded, 1)
    return f"did you mean {folded[near[0]]!r}?" if near else "`ct status --all` lists what there is"
