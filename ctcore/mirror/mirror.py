"""⑦ The mirror of one catalog: loaded once, then following the events, each change with what it touches.

It is a cache. Everything in it can be read again from the catalog, and is, wherever the events do not say enough.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np
from sqlalchemy import Connection, func, select

from ctcore.catalog.engine import in_keys
from ctcore.catalog.tables import attempt, damage, event, reference, waiver
from ctcore.clock import today
from ctcore.mirror.entities import Columns, Entities, load_entities, with_file
from ctcore.mirror.made import Locate, Made, load_made
from ctcore.mirror.versions import Places, Whole, packed
from ctcore.policy import Gate, gate
from ctcore.reasons import Node, name_of
from ctcore.settings import Settings
from ctcore.step import ENTITY_LEVELS
from ctcore.steps import StepGraph

FOLLOWED = 20_000  # after so many events it is quicker to read everything again


_CALLS = ("fail", "materialize", "reuse")
_PEOPLE = {"register", "censor", "release", "consent"}  # events that may change who is used, and what is known of them
_ACCEPTS = {"accept", "accept-undone"}
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
class Shape:
    """What a mirror is of: the steps with their levels, the columns they use, the cohorts, what each step and
    each analysis is for, and whether nobody is used without consent."""

    levels: Mapping[str, str]
    columns: Columns
    cohorts: tuple[str, ...]
    uses: Mapping[str, str | None]
    required: bool = False

    @classmethod
    def of(cls, graph: StepGraph, settings: Settings) -> "Shape":
        used = {column for step in graph for column in step.columns}
        used |= {step.role for step in graph if step.role is not None}
        used |= {column for cohort in settings.cohorts.values() for column in cohort.columns()}
        compared = {column for cohort in settings.cohorts.values() for column in cohort.columns(compared=True)}
        levels = {step.name: step.level for step in graph}
        uses = {name: settings.uses.of(name) for name in (*levels, *settings.analyses)}
        return cls(levels, Columns.of(used, compared), tuple(settings.cohorts), uses, settings.uses.required)

    def gate(self, connection: Connection) -> Gate:
        """Who may not be used today."""
        return gate(connection, self.uses, today(), self.required)


@dataclass
class Touched:
    """What changed between two states. `all` where who is in the cohort may have changed."""

    all: bool = False
    files: dict[tuple[str, str], set[int]] = field(default_factory=dict)
    nodes: dict[str, set[int]] = field(default_factory=dict)
    references: set[str] = field(default_factory=set)

    def node(self, asset: str, places: Iterable[int]) -> None:
        self.nodes.setdefault(asset, set()).update(places)

    def add(self, more: "Touched") -> None:
        """This and what was touched after it."""
        self.all |= more.all
        self.references |= more.references
        for role, places in more.files.items():
            self.files.setdefault(role, set()).update(places)
        for asset, places in more.nodes.items():
            self.node(asset, places)


@dataclass(frozen=True)
class Mirror:
    """One state of the catalog: that after the event `seq`, whose digest is `digest`. Never changed in place.

    `days`: from the first to before the second one, time alone changes nothing of who may be used.

    By step and position: `damaged`, (file, problem) of each harmed file; `failed`, the key of the last call where that
    failed; `waivers`, (materialization, evidence) of what was accepted.
    """

    shape: Shape
    seq: int
    digest: str
    days: tuple[str, str]
    entities: Mapping[str, Entities]
    made: Mapping[str, Made]
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
        """Their positions; -1 for what is not there."""
        level = self.shape.levels.get(asset, asset)
        if level == "cohort":
            known = {name: at for at, name in enumerate(self.shape.cohorts)}
        elif level in self.entities:
            known = self.entities[level].index
        else:
            known = {}
        return [known.get(name, -1) for name in partitions]


def locating(mirror: Mirror) -> Locate:
    """`locate` for lists as texts. Most steps and roles list the same partitions: those are looked up once."""

    @lru_cache(maxsize=len(ENTITY_LEVELS))
    def places(level: str, partitions: str) -> Places:
        return np.array(mirror.locate(level, json.loads(partitions)), np.int64)

    return lambda asset, partitions: places(mirror.shape.levels.get(asset, asset), partitions)


def load(connection: Connection, shape: Shape) -> Mirror:
    """All of the catalog, as it is in this transaction."""
    seq, digest = last_event(connection)
    bars = shape.gate(connection)
    entities = load_entities(connection, shape.columns, bars)
    mirror = Mirror(shape, seq, digest, (bars.day, bars.until), entities, {}, _references(connection), {}, {}, {})
    made, locate = {}, locating(mirror)
    for step in shape.levels:
        made[step], _ = load_made(connection, step, mirror.size(step), locate)
    return replace(
        mirror,
        made=made,
        damaged=_damaged(connection, mirror),
        failed=_failed(connection, mirror),
        waivers=load_waivers(connection, mirror),
    )


def last_event(connection: Connection) -> tuple[int, str]:
    row = connection.execute(select(event.c.seq, event.c.digest).order_by(event.c.seq.desc()).limit(1)).first()
    return (row.seq, row.digest) if row else (0, "")


def follow(connection: Connection, mirror: Mirror) -> tuple[Mirror, Touched]:
    """The mirror after the events that came since, and what they touched."""
    seq, digest = last_event(connection)
    if (seq, digest) == (mirror.seq, mirror.digest) and mirror.is_of_today:
        return mirror, Touched()
    before = connection.execute(select(event.c.digest).where(event.c.seq == mirror.seq)).scalar()
    if (before or "") != mirror.digest or seq - mirror.seq > FOLLOWED:  # another catalog, or far behind
        return load(connection, mirror.shape), Touched(all=True)
    news = connection.execute(
        select(event.c.kind, event.c.subject, event.c.body).where(event.c.seq > mirror.seq).order_by(event.c.seq)
    ).all()
    following = _Following(connection, replace(mirror, seq=seq, digest=digest))
    for row in news:
        following.heard.setdefault(row.kind, []).append((row.subject, row.body))
        if row.kind in _CALLS:
            following.calls.append((row.kind, row.subject, row.body))
    return following.told(), following.touched


class _Following:
    """One catching up: what each kind of event makes it read again."""

    def __init__(self, connection: Connection, mirror: Mirror) -> None:
        self.connection = connection
        self.mirror = mirror
        self.touched = Touched()
        self.heard: dict[str, list[tuple[str, str]]] = {}
        self.calls: list[tuple[str, str, str]] = []

    def told(self) -> Mirror:
        kinds = set(self.heard)
        if kinds - _KNOWN - _PEOPLE:
            self.touched.all = True
            return load(self.connection, self.mirror.shape)
        if kinds & _PEOPLE or not self.mirror.is_of_today:
            self._everybody()
        else:
            self._files(self.heard.get("file", ()))
        made = [subject for kind in ("materialize", "reuse") for subject, _ in self.heard.get(kind, ())]
        self._made(_by_asset(made))
        if kinds & {"materialize", "reuse", "damage", "heal"}:
            self._damaged()
        if "fail" in kinds or (made and self.mirror.failed):
            self._failed()
        if "reference" in kinds:
            self._references()
        if kinds & _ACCEPTS:
            self._waivers()
        return self.mirror

    def _everybody(self) -> None:
        """Positions stay where they are: new entities come last. Where one is gone, or where somebody was unknown who
        may be known now, everything is read again."""
        self.touched.all = True
        if any(used.strangers for made in self.mirror.made.values() for used in made.used.values()):
            self.mirror = load(self.connection, self.mirror.shape)
            return
        bars = self.mirror.shape.gate(self.connection)
        entities = load_entities(self.connection, self.mirror.shape.columns, bars)
        for level in ENTITY_LEVELS:
            old, new = self.mirror.entities[level].seq, entities[level].seq
            if not np.array_equal(old, new[: len(old)]):
                self.mirror = load(self.connection, self.mirror.shape)
                return
        self.mirror = replace(self.mirror, entities=entities, days=(bars.day, bars.until))
        made = {step: made.grown(self.mirror.size(step)) for step, made in self.mirror.made.items()}
        self.mirror = replace(self.mirror, made=made)

    def _files(self, told: Sequence[tuple[str, str]]) -> None:
        entities = dict(self.mirror.entities)
        changed: dict[tuple[str, str], dict[int, str]] = {}
        for subject, body in told:
            said = json.loads(body)
            if "new" in said:
                level, place = self._place(_node(subject))
                changed.setdefault((level, said["role"]), {})[place] = said["new"]
        for (level, role), digests in changed.items():
            places = np.array(list(digests))
            column: Whole = entities[level].files[role].copy()
            column[places] = packed(list(digests.values()))
            entities[level] = with_file(entities[level], role, column)
            self.touched.files[(level, role)] = set(digests)
        self.mirror = replace(self.mirror, entities=entities)

    def _place(self, node: Node) -> tuple[str, int]:
        return node[0], self.mirror.locate(node[0], [node[1]])[0]

    def _made(self, nodes: Mapping[str, set[str]]) -> None:
        made, locate = dict(self.mirror.made), locating(self.mirror)
        for step, partitions in nodes.items():
            if step in made:
                size = self.mirror.size(step)
                made[step], places = load_made(self.connection, step, size, locate, made[step], partitions)
                self.touched.node(step, places.tolist())
        self.mirror = replace(self.mirror, made=made)

    def _damaged(self) -> None:
        new = _damaged(self.connection, self.mirror)
        for step in {*new, *self.mirror.damaged}:
            old, now = self.mirror.damaged.get(step, {}), new.get(step, {})
            self.touched.node(step, (at for at in {*old, *now} if old.get(at) != now.get(at)))
        self.mirror = replace(self.mirror, damaged=new)

    def _failed(self) -> None:
        failed = {step: dict(known) for step, known in self.mirror.failed.items()}
        for kind, subject, body in self.calls:
            step, place = self._place(_node(subject))
            if kind == "fail" and place >= 0:
                failed.setdefault(step, {})[place] = json.loads(body)["key"]
            else:
                failed.get(step, {}).pop(place, None)
        self.mirror = replace(self.mirror, failed=failed)

    def _waivers(self) -> None:
        new = load_waivers(self.connection, self.mirror)
        for step in {*new, *self.mirror.waivers}:
            old, now = self.mirror.waivers.get(step, {}), new.get(step, {})
            self.touched.node(step, (at for at in {*old, *now} if old.get(at) != now.get(at)))
        self.mirror = replace(self.mirror, waivers=new)

    def _references(self) -> None:
        new = _references(self.connection)
        old = self.mirror.references
        self.touched.references = {key for key in {*old, *new} if old.get(key) != new.get(key)}
        self.mirror = replace(self.mirror, references=new)


def _references(connection: Connection) -> dict[str, str]:
    """Data version by key: `version digest`."""
    rows = connection.execute(select(reference.c.key, reference.c.version, reference.c.digest))
    return {row.key: f"{row.version} {row.digest}" for row in rows}


def _damaged(connection: Connection, mirror: Mirror) -> dict[str, dict[int, tuple[tuple[str, str], ...]]]:
    rows = connection.execute(select(damage).order_by(damage.c.asset, damage.c.partition, damage.c.file))
    found: dict[str, dict[int, tuple[tuple[str, str], ...]]] = {}
    for row in rows:
        place = mirror.locate(row.asset, [row.partition])[0]
        if place >= 0:
            some = found.setdefault(row.asset, {})
            some[place] = (*some.get(place, ()), (row.file, row.problem))
    return found


def load_waivers(connection: Connection, mirror: Mirror) -> dict[str, dict[int, tuple[tuple[int, str], ...]]]:
    """What stands as accepted."""
    fields = (waiver.c.asset, waiver.c.partition, waiver.c.materialization, waiver.c.evidence)
    some: dict[str, dict[str, list[tuple[int, str]]]] = {}
    for row in connection.execute(select(*fields).where(waiver.c.undone.is_(None))):
        some.setdefault(row.asset, {}).setdefault(row.partition, []).append((row.materialization, row.evidence))
    found: dict[str, dict[int, tuple[tuple[int, str], ...]]] = {}
    for step, partitions in some.items():
        places = mirror.locate(step, list(partitions))
        named = zip(places, partitions.values(), strict=True)
        found[step] = {at: tuple(sorted(listed)) for at, listed in named if at >= 0}
    return found


def _failed(connection: Connection, mirror: Mirror) -> dict[str, dict[int, str]]:
    """The key of the last call of each node, where it failed: after it, nothing was made or found."""
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
        place = mirror.locate(row.asset, [row.partition])[0]
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
