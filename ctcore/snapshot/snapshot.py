"""The snapshot of one catalog: loaded once, then updated by the events. Each update says what it touched.

It is a cache. Everything in it can be read again from the catalog, and is, if the events do not suffice.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np
from sqlalchemy import Connection, func, select

from ctcore.catalog.engine import in_keys
from ctcore.catalog.tables import attempt, damage, event, reference, waiver
from ctcore.config.settings import Settings
from ctcore.governance.access import BarredEntities, barred_entities
from ctcore.model.levels import ENTITY_LEVELS
from ctcore.model.node import Node, name_of
from ctcore.snapshot.artifacts import Locate, StepArtifacts, load_made
from ctcore.snapshot.entities import Columns, Entities, load_entities, with_file
from ctcore.snapshot.versions import Places, Whole, pack
from ctcore.steps.graph import StepGraph
from ctcore.util.clock import today

FOLLOWED = 20_000  # after so many events it is quicker to read everything again


_CALLS = ("fail", "materialize", "reuse")
_PEOPLE = {"register", "censor", "release", "consent"}  # events that may change who is used, and what is known of them
_ACCEPTS = {"accept", "accept-undone"}
# A kind of event that is in none of these sets has everything read again (`updated`): one that is forgotten here costs
# time, and no verdict.
_SILENT = {
    "cohort-rule",
    "warn",
    "warn-resolved",
    "disclose",
    "project",
    "record",
    "reproduce",
    "analyses",
    "purged",
}  # events that change no verdict
_KNOWN = {*_CALLS, *_ACCEPTS, *_SILENT, "damage", "heal", "file", "reference"}


@dataclass(frozen=True)
class SnapshotShape:
    """What a snapshot depends on: the steps with their levels, columns and uses, the cohorts, the uses of analyses,
    and whether consent is required."""

    levels: Mapping[str, str]
    columns: Columns
    cohorts: tuple[str, ...]
    uses: Mapping[str, str | None]
    required: bool = False

    @classmethod
    def of(cls, graph: StepGraph, settings: Settings) -> "SnapshotShape":
        used = {column for step in graph for column in step.columns}
        used |= {step.role for step in graph if step.role is not None}
        used |= {column for cohort in settings.cohorts.values() for column in cohort.columns()}
        compared = {column for cohort in settings.cohorts.values() for column in cohort.columns(compared=True)}
        levels = {step.name: step.level for step in graph}
        uses = {name: settings.uses.of(name) for name in (*levels, *settings.analyses)}
        return cls(levels, Columns.of(used, compared), tuple(settings.cohorts), uses, settings.uses.required)

    def barred_entities(self, connection: Connection) -> BarredEntities:
        """Who may not be used today."""
        return barred_entities(connection, self.uses, today(), self.required)


@dataclass
class CatalogChanges:
    """The differences of two states. `all`: the members of cohorts may have changed."""

    all: bool = False
    files: dict[tuple[str, str], set[int]] = field(default_factory=dict)
    nodes: dict[str, set[int]] = field(default_factory=dict)
    references: set[str] = field(default_factory=set)

    def node(self, asset: str, places: Iterable[int]) -> None:
        self.nodes.setdefault(asset, set()).update(places)

    def add(self, more: "CatalogChanges") -> None:
        """These changes and later ones together."""
        self.all |= more.all
        self.references |= more.references
        for role, places in more.files.items():
            self.files.setdefault(role, set()).update(places)
        for asset, places in more.nodes.items():
            self.node(asset, places)


@dataclass(frozen=True)
class Snapshot:
    """One state of the catalog: after the event `seq`, whose digest is `digest`. It never changes in place.

    `days`: from the first to before the second, time alone changes nobody's usability.

    By step and position: `damaged`, (file, problem) of each harmed file; `failed`, the key of the last call if it
    failed; `waivers`, (materialization, evidence) of acceptances.
    """

    shape: SnapshotShape
    seq: int
    digest: str
    days: tuple[str, str]
    entities: Mapping[str, Entities]
    made: Mapping[str, StepArtifacts]
    references: Mapping[str, str]
    damaged: Mapping[str, Mapping[int, tuple[tuple[str, str], ...]]]
    failed: Mapping[str, Mapping[int, str]]
    waivers: Mapping[str, Mapping[int, tuple[tuple[int, str], ...]]]

    @property
    def is_of_today(self) -> bool:
        return self.days[0] <= today() < self.days[1]

    def size(self, asset: str) -> int:
        """How many partitions an asset could have."""
        return len(self.names(asset))

    def names(self, asset: str) -> Sequence[str]:
        """The partition keys of an asset, in the order of the cohort."""
        level = self.shape.levels.get(asset, asset)
        return self.shape.cohorts if level == "cohort" else self.entities[level].ids

    def name(self, asset: str, place: int) -> str:
        return asset if asset == "reference" else self.names(asset)[place]

    def locate(self, asset: str, partitions: Sequence[str]) -> list[int]:
        """The positions of these; -1 for unknown ones."""
        level = self.shape.levels.get(asset, asset)
        if level == "cohort":
            known = {name: at for at, name in enumerate(self.shape.cohorts)}
        elif level in self.entities:
            known = self.entities[level].index
        else:
            known = {}
        return [known.get(name, -1) for name in partitions]


def make_locator(snapshot: Snapshot) -> Locate:
    """`locate` for lists as texts. Most steps and roles list the same partitions: those are looked up once."""

    @lru_cache(maxsize=len(ENTITY_LEVELS))
    def places(level: str, partitions: str) -> Places:
        return np.array(snapshot.locate(level, json.loads(partitions)), np.int64)

    return lambda asset, partitions: places(snapshot.shape.levels.get(asset, asset), partitions)


def load(connection: Connection, shape: SnapshotShape) -> Snapshot:
    """Read the whole catalog in this transaction."""
    seq, digest = last_event(connection)
    bars = shape.barred_entities(connection)
    entities = load_entities(connection, shape.columns, bars)
    snapshot = Snapshot(shape, seq, digest, (bars.day, bars.until), entities, {}, _references(connection), {}, {}, {})
    made, locate = {}, make_locator(snapshot)
    for step in shape.levels:
        made[step], _ = load_made(connection, step, snapshot.size(step), locate)
    return replace(
        snapshot,
        made=made,
        damaged=_damaged(connection, snapshot),
        failed=_failed(connection, snapshot),
        waivers=load_waivers(connection, snapshot),
    )


_NEWEST = select(event.c.seq, event.c.digest).order_by(event.c.seq.desc()).limit(1)


def last_event(connection: Connection) -> tuple[int, str]:
    row = connection.execute(_NEWEST).first()
    return (row.seq, row.digest) if row else (0, "")


def follow(connection: Connection, snapshot: Snapshot) -> tuple[Snapshot, CatalogChanges]:
    """The snapshot after the latest events, and what they touched."""
    seq, digest = last_event(connection)
    if (seq, digest) == (snapshot.seq, snapshot.digest) and snapshot.is_of_today:
        return snapshot, CatalogChanges()
    # The digest covers all events before (a chain), so an equal one proves that this is the same history, only longer.
    before = connection.execute(select(event.c.digest).where(event.c.seq == snapshot.seq)).scalar()
    if (before or "") != snapshot.digest or seq - snapshot.seq > FOLLOWED:  # another catalog, or far behind
        return load(connection, snapshot.shape), CatalogChanges(all=True)
    news = connection.execute(
        select(event.c.kind, event.c.subject, event.c.body).where(event.c.seq > snapshot.seq).order_by(event.c.seq)
    ).all()
    following = _Following(connection, replace(snapshot, seq=seq, digest=digest))
    for row in news:
        following.heard.setdefault(row.kind, []).append((row.subject, row.body))
        if row.kind in _CALLS:
            following.calls.append((row.kind, row.subject, row.body))
    return following.updated(), following.touched


class _Following:
    """One update: each kind of event decides what is read again."""

    def __init__(self, connection: Connection, snapshot: Snapshot) -> None:
        self.connection = connection
        self.snapshot = snapshot
        self.touched = CatalogChanges()
        self.heard: dict[str, list[tuple[str, str]]] = {}
        self.calls: list[tuple[str, str, str]] = []

    def updated(self) -> Snapshot:
        kinds = set(self.heard)
        # An unknown kind of event may have changed anything: reading all again is slow, and never wrong.
        if kinds - _KNOWN - _PEOPLE:
            self.touched.all = True
            return load(self.connection, self.snapshot.shape)
        if kinds & _PEOPLE or not self.snapshot.is_of_today:
            self._everybody()
        else:
            self._files(self.heard.get("file", ()))
        made = [subject for kind in ("materialize", "reuse") for subject, _ in self.heard.get(kind, ())]
        self._made(_by_asset(made))
        if kinds & {"materialize", "reuse", "damage", "heal"}:
            self._damaged()
        if "fail" in kinds or (made and self.snapshot.failed):
            self._failed()
        if "reference" in kinds:
            self._references()
        if kinds & _ACCEPTS:
            self._waivers()
        return self.snapshot

    def _everybody(self) -> None:
        """Read new entities; positions stay, as new entities come last. If an entity was removed, or an unknown one
        may be known now, everything is read again."""
        self.touched.all = True
        if any(used.unregistered for made in self.snapshot.made.values() for used in made.used.values()):
            self.snapshot = load(self.connection, self.snapshot.shape)
            return
        bars = self.snapshot.shape.barred_entities(self.connection)
        entities = load_entities(self.connection, self.snapshot.shape.columns, bars)
        # Edges name their sources by position. A position may stand for somebody else once an entity is gone.
        for level in ENTITY_LEVELS:
            old, new = self.snapshot.entities[level].seq, entities[level].seq
            if not np.array_equal(old, new[: len(old)]):
                self.snapshot = load(self.connection, self.snapshot.shape)
                return
        self.snapshot = replace(self.snapshot, entities=entities, days=(bars.day, bars.until))
        made = {step: made.with_room(self.snapshot.size(step)) for step, made in self.snapshot.made.items()}
        self.snapshot = replace(self.snapshot, made=made)

    def _files(self, told: Sequence[tuple[str, str]]) -> None:
        entities = dict(self.snapshot.entities)
        changed: dict[tuple[str, str], dict[int, str]] = {}
        for subject, body in told:
            said = json.loads(body)
            if "new" in said:
                level, place = self._place(_node(subject))
                changed.setdefault((level, said["role"]), {})[place] = said["new"]
        for (level, role), digests in changed.items():
            places = np.array(list(digests))
            # A copy: whoever was given the snapshot before keeps one state (0011).
            column: Whole = entities[level].files[role].copy()
            column[places] = pack(list(digests.values()))
            entities[level] = with_file(entities[level], role, column)
            self.touched.files[(level, role)] = set(digests)
        self.snapshot = replace(self.snapshot, entities=entities)

    def _place(self, node: Node) -> tuple[str, int]:
        return node[0], self.snapshot.locate(node[0], [node[1]])[0]

    def _made(self, nodes: Mapping[str, set[str]]) -> None:
        made, locate = dict(self.snapshot.made), make_locator(self.snapshot)
        for step, partitions in nodes.items():
            if step in made:
                size = self.snapshot.size(step)
                made[step], places = load_made(self.connection, step, size, locate, made[step], partitions)
                self.touched.node(step, places.tolist())
        self.snapshot = replace(self.snapshot, made=made)

    def _damaged(self) -> None:
        new = _damaged(self.connection, self.snapshot)
        for step in {*new, *self.snapshot.damaged}:
            old, now = self.snapshot.damaged.get(step, {}), new.get(step, {})
            self.touched.node(step, (at for at in {*old, *now} if old.get(at) != now.get(at)))
        self.snapshot = replace(self.snapshot, damaged=new)

    def _failed(self) -> None:
        failed = {step: dict(known) for step, known in self.snapshot.failed.items()}
        for kind, subject, body in self.calls:
            step, place = self._place(_node(subject))
            # In the order of the events: of a node that failed and was made since, the last word holds.
            if kind == "fail" and place >= 0:
                failed.setdefault(step, {})[place] = json.loads(body)["key"]
            else:
                failed.get(step, {}).pop(place, None)
        self.snapshot = replace(self.snapshot, failed=failed)

    def _waivers(self) -> None:
        new = load_waivers(self.connection, self.snapshot)
        for step in {*new, *self.snapshot.waivers}:
            old, now = self.snapshot.waivers.get(step, {}), new.get(step, {})
            self.touched.node(step, (at for at in {*old, *now} if old.get(at) != now.get(at)))
        self.snapshot = replace(self.snapshot, waivers=new)

    def _references(self) -> None:
        new = _references(self.connection)
        old = self.snapshot.references
        self.touched.references = {key for key in {*old, *new} if old.get(key) != new.get(key)}
        self.snapshot = replace(self.snapshot, references=new)


def _references(connection: Connection) -> dict[str, str]:
    """Data version by key: `version digest`."""
    rows = connection.execute(select(reference.c.key, reference.c.version, reference.c.digest))
    return {row.key: f"{row.version} {row.digest}" for row in rows}


def _damaged(connection: Connection, snapshot: Snapshot) -> dict[str, dict[int, tuple[tuple[str, str], ...]]]:
    rows = connection.execute(select(damage).order_by(damage.c.asset, damage.c.partition, damage.c.file))
    found: dict[str, dict[int, tuple[tuple[str, str], ...]]] = {}
    for row in rows:
        place = snapshot.locate(row.asset, [row.partition])[0]
        if place >= 0:
            some = found.setdefault(row.asset, {})
            some[place] = (*some.get(place, ()), (row.file, row.problem))
    return found


def load_waivers(connection: Connection, snapshot: Snapshot) -> dict[str, dict[int, tuple[tuple[int, str], ...]]]:
    """The acceptances in force."""
    fields = (waiver.c.asset, waiver.c.partition, waiver.c.materialization, waiver.c.evidence)
    some: dict[str, dict[str, list[tuple[int, str]]]] = {}
    for row in connection.execute(select(*fields).where(waiver.c.undone.is_(None))):
        some.setdefault(row.asset, {}).setdefault(row.partition, []).append((row.materialization, row.evidence))
    found: dict[str, dict[int, tuple[tuple[int, str], ...]]] = {}
    for step, partitions in some.items():
        places = snapshot.locate(step, list(partitions))
        named = zip(places, partitions.values(), strict=True)
        found[step] = {at: tuple(sorted(listed)) for at, listed in named if at >= 0}
    return found


def _failed(connection: Connection, snapshot: Snapshot) -> dict[str, dict[int, str]]:
    """The key of each node's last call, if it failed and nothing was made or found since."""
    last = select(func.max(attempt.c.id)).group_by(attempt.c.asset, attempt.c.partition)
    rows = connection.execute(
        select(attempt.c.asset, attempt.c.partition, attempt.c.key).where(attempt.c.id.in_(last))
    ).all()
    if not rows:
        return {}
    names = [name_of((row.asset, row.partition)) for row in rows]
    ended = connection.execute(
        select(event.c.subject, event.c.kind, func.max(event.c.seq).label("seq"))
        .where(event.c.kind.in_(_CALLS), in_keys(event.c.subject, names))
        .group_by(event.c.subject, event.c.kind)
    )
    lasting: dict[str, tuple[int, str]] = {}
    for row in ended:
        lasting[row.subject] = max(lasting.get(row.subject, (0, "")), (row.seq, row.kind))
    found: dict[str, dict[int, str]] = {}
    for row, name in zip(rows, names, strict=True):
        place = snapshot.locate(row.asset, [row.partition])[0]
        if place >= 0 and lasting.get(name, (0, "fail"))[1] == "fail":
            found.setdefault(row.asset, {})[place] = row.key
    return found


def _node(subject: str) -> Node:
    asset, _, partition = subject.partition("/")
    return asset, partition


def _by_asset(subjects: Iterable[str]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for subject in subjects:
        asset, partition = _node(subject)
        found.setdefault(asset, set()).add(partition)
    return found
