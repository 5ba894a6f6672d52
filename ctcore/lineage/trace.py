"""How something was made: its makings up to the sheet and the raw files, as the ledger has them."""

import json
from collections import Counter
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from sqlalchemy import Connection, select

from ctcore.catalog.engine import in_keys
from ctcore.catalog.tables import entity, event, file, output, recipe, reference
from ctcore.catalog.tombstones import purge_words_by_making
from ctcore.governance.masking import Mask
from ctcore.inputs.key import Edge
from ctcore.lineage.attribution import NOTHING, Attribution, attributions_of
from ctcore.lineage.target import Target
from ctcore.lineage.walk import Lineage, Making, find_cycle, lineage_of
from ctcore.model.levels import ENTITY_LEVELS
from ctcore.model.node import Node, name_of
from ctcore.project import Project
from ctcore.staleness.verdicts import evaluate
from ctcore.store.manifest import LOG
from ctcore.util.gc import without_collecting

Kind = Literal["artifact", "file", "reference", "column", "unknown"]


@dataclass(frozen=True)
class RegisteredFile:
    """A raw file or a reference today: its path and content."""

    path: str
    digest: str
    size: int
    version: str


@dataclass
class Trace:
    """The whole lineage of the roots, as the ledger recorded it, and not as it would be today."""

    target: Target
    lineage: Lineage
    recipes: Mapping[int, Mapping[str, Any]]
    outputs: Mapping[int, list[dict[str, Any]]]
    files: Mapping[tuple[str, str, str], RegisteredFile]
    entities: Mapping[Node, "Entity"]
    states: dict[Node, str] = field(default_factory=dict)
    purged: Mapping[int, str] = field(default_factory=dict)
    attributions: Mapping[int, Attribution] = field(default_factory=dict)
    logged: frozenset[int] = frozenset()  # of the roots those that kept what they printed

    @property
    def roots(self) -> list[int]:
        return list(self.target.made)

    @cached_property
    def depths(self) -> dict[int, int]:
        """Every making of it → how far it is from the roots."""
        return self.lineage.reached(self.roots)

    @property
    def nodes(self) -> set[Node]:
        """All its nodes, including registered ones."""
        found = {self.lineage.makings[number].node for number in self.depths} | set(self.entities)
        return found | {used[1:3] for number in self.depths for used in self.lineage.edges.get(number, ())}

    @cached_property
    def cycle(self) -> list[Node]:
        """In a damaged catalog: nodes that were made from each other."""
        found = find_cycle(self.roots, self.lineage.sources)
        return [self.lineage.makings[number].node for number in found]

    def kind(self, consumer: int, used: Edge) -> Kind:
        """The kind of an edge's source. A source unknown to the catalog is shown as unknown, not left out."""
        if used.asset == "reference":
            return "reference" if (used.asset, used.partition, "") in self.files else "unknown"
        if used.asset in ENTITY_LEVELS:
            if (used.asset, used.partition) not in self.entities:
                return "unknown"
            return "column" if "." in used.input else "file"
        return "unknown" if self.lineage.source(consumer, used) is None else "artifact"

    def today(self, used: Edge) -> RegisteredFile | None:
        """Today's state of the raw file or reference that an edge names."""
        return self.files.get((used.asset, used.partition, "" if used.asset == "reference" else used.input))

    def summary(self) -> Counter[str]:
        """The numbers of everything: step → makings, and leaves by kind."""
        counts: Counter[str] = Counter()
        leaves: dict[Kind, set[tuple[str, ...]]] = {}
        for number in self.depths:
            counts[self.lineage.makings[number].asset] += 1
            for used in self.lineage.edges.get(number, ()):
                kind = self.kind(number, used)
                if kind != "artifact":
                    leaves.setdefault(kind, set()).add(used)
        return counts + Counter({f"{kind}s": len(some) for kind, some in leaves.items()})


@dataclass(frozen=True)
class Entity:
    """A registered patient, specimen or assay: which sheet brought it, when, and by whom."""

    level: str
    id: str
    parent: Node | None
    sheet: str | None = None
    at: str | None = None
    actor: str | None = None


@without_collecting
def trace(project: Project, target: Target, files: bool = False) -> Trace:
    """How these makings came about, and which are stale today. `files`: of all makings, not only of the target."""
    with project.catalog.read() as connection:
        lineage = lineage_of(project, connection, target.made)
        found = Trace(target, lineage, {}, {}, {}, {})
        chosen = list(found.depths)
        used = {lineage.makings[number].recipe for number in chosen}
        found.recipes = recipes_of(connection, used)
        found.purged = purge_words_by_making(connection, chosen)
        found.attributions = attributions_of(connection, chosen)
        found.outputs = outputs_of(connection, chosen if files else found.roots)
        nodes = {(one.asset, one.partition) for number in chosen for one in lineage.edges.get(number, ())}
        _registry(connection, nodes | set(target.registered), found)
    folders = {number: project.store.root / lineage.makings[number].folder for number in found.roots}
    found.logged = frozenset(number for number, folder in folders.items() if (folder / LOG).is_file())
    found.states = _states(project, found)
    return found


def recipes_of(connection: Connection, ids: Iterable[int]) -> dict[int, dict[str, Any]]:
    """How steps were done, by the recipe's number."""
    rows = connection.execute(select(recipe).where(in_keys(recipe.c.id, ids))).mappings()
    texts = ("parameters", "environment")
    return {row["id"]: {**row, **{name: json.loads(row[name]) for name in texts}} for row in rows}


def outputs_of(connection: Connection, ids: Iterable[int]) -> dict[int, list[dict[str, Any]]]:
    """The files of makings."""
    mine = in_keys(output.c.materialization, ids)
    names = (output.c.materialization, output.c.file, output.c.digest, output.c.size)
    found: dict[int, list[dict[str, Any]]] = {}
    for number, *said in connection.execute(select(*names).where(mine).order_by(output.c.materialization)):
        found.setdefault(number, []).append(dict(zip(("file", "digest", "size"), said, strict=True)))
    return found


def _registry(connection: Connection, nodes: set[Node], found: Trace) -> None:
    """Today's values of the registry nodes among these."""
    files: dict[tuple[str, str, str], RegisteredFile] = {}
    for row in connection.execute(select(reference)):
        version = f"{row.version} {row.digest}"
        files["reference", row.key, ""] = RegisteredFile(row.path, row.digest, row.size, version)
    entities: dict[Node, Entity] = {}
    parent = entity.alias()
    rows: list[Any] = []
    for level in ENTITY_LEVELS:
        keys = [partition for asset, partition in nodes if asset == level]
        mine = (entity.c.level == level) & in_keys(entity.c.id, keys)
        joined = entity.outerjoin(parent, parent.c.seq == entity.c.parent)
        named = (entity.c.seq, entity.c.level, entity.c.id, parent.c.level, parent.c.id)
        rows += connection.execute(select(*named).select_from(joined).where(mine)).all() if keys else []
        held = select(entity.c.id, file).join(file, file.c.entity == entity.c.seq).where(mine)
        for row in connection.execute(held) if keys else ():
            files[level, row.id, row.role] = RegisteredFile(row.path, row.digest, row.size, row.digest)
    sheets = registrations(connection, {row[0] for row in rows})
    for seq, level, key, *above in rows:
        up = (above[0], above[1]) if above[0] else None
        entities[level, key] = Entity(level, key, up, *sheets.get(seq, ()))
    found.files, found.entities = files, entities


def registrations(connection: Connection, seqs: set[int]) -> dict[int, tuple[str, str, str]]:
    """Entities → the sheet that brought each, when, and by whom: from the events of registering."""
    found: dict[int, tuple[str, str, str]] = {}
    if not seqs:
        return found
    mine = (event.c.kind == "register") & event.c.body.startswith('{"new":')
    for row in connection.execute(select(event.c.subject, event.c.at, event.c.actor, event.c.body).where(mine)):
        brought = seqs.intersection(one["seq"] for one in json.loads(row.body)["new"])
        found.update(dict.fromkeys(brought, (row.subject, row.at, row.actor)))
    return found


def _states(project: Project, found: Trace) -> dict[Node, str]:
    """Current nodes of the trace that are not fresh → their state. `ct why` explains them."""
    current = [one for one in found.lineage.makings.values() if one.current]
    only: dict[str, set[str]] = {}
    for one in current:
        if one.asset in project.steps:
            only.setdefault(one.asset, set()).add(one.partition)
    if not only:
        return {}
    verdicts = evaluate(project)
    return {v.node: v.state for step, partitions in only.items() for v in verdicts.listed(step, partitions)}


def as_data(found: Trace, seen: Mask, opened: Container[int]) -> dict[str, Any]:
    """The whole trace for programs: makings by number with their inputs. Nothing is nested, so nothing repeats.

    Only `opened` makings have folders.
    """
    makings = [_making_data(found, number) | ({} if number in opened else {"folder": None}) for number in found.depths]
    return {
        "asked": found.target.text,
        "digest": found.target.digest,
        "notes": list(map(seen.mask_words, found.target.notes)),
        "roots": found.roots,
        "registered": [name_of(node) for node in found.target.registered],
        "makings": makings,
        "recipes": [found.recipes[number] for number in sorted(found.recipes)],
        "entities": [vars(one) | {"parent": one.parent and name_of(one.parent)} for one in found.entities.values()],
        "cycle": [name_of(node) for node in found.cycle],
    }


def _making_data(found: Trace, number: int) -> dict[str, Any]:
    one: Making = found.lineage.makings[number]
    return {
        "materialization": number,
        "node": name_of(one.node),
        "current": one.current,
        "state": found.states.get(one.node, "fresh") if one.current else None,
        "purged": found.purged.get(number),
        **{name: getattr(one, name) for name in ("data_version", "key", "folder", "size", "reason", "run_id")},
        **{name: getattr(one, name) for name in ("started_at", "seconds")},
        "recipe": one.recipe,
        **found.attributions.get(number, NOTHING).data,
        "files": found.outputs.get(number, []),
        "inputs": [_input_data(found, number, used) for used in found.lineage.edges.get(number, ())],
    }


def _input_data(found: Trace, number: int, used: Edge) -> dict[str, Any]:
    now = found.today(used)
    return {
        "input": used.input,
        "from": name_of((used.asset, used.partition)),
        "version": used.version,
        "kind": found.kind(number, used),
        "materialization": found.lineage.source(number, used),
        "path": now and now.path,
        "changed": now is not None and now.version != used.version,
    }
