"""Removes from tables and events everything about a person that a tombstone does not need, and finds such values where
somebody put them back.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Table, delete, func, or_, select, update

from ctcore.catalog.engine import Writer, in_keys
from ctcore.catalog.event_log import redact
from ctcore.catalog.schema_triggers import applied_schema, enforce, relax
from ctcore.catalog.tables import (
    artifact,
    attempt,
    digest_memory,
    edge,
    entity,
    event,
    file,
    materialization,
    member,
    output,
    purge,
    qc_event,
    qc_resolution,
    result,
    tombstone,
    waiver,
)
from ctcore.deletion.redacted_events import (
    GONE,
    ROLES,
    RedactionScope,
    events_about,
    purges,
    restored_events,
    role_less,
)
from ctcore.deletion.tombstone_check import differing_tombstones, rewrite_from_events
from ctcore.lineage.containment import Containment, cohort_derived_steps
from ctcore.model.levels import ENTITY_LEVELS
from ctcore.model.node import Node, name_of
from ctcore.project import Project
from ctcore.store.digest import canonical_json

SHOWN = 20  # rows of one table that a check lists
_VALUE = canonical_json(GONE).decode()


@dataclass(frozen=True)
class Part:
    """Rows of a table about a person. `values`: what a purge writes into them; None: it deletes them."""

    table: Table
    mine: ColumnElement[bool]
    values: Mapping[str, Any] | None

    @property
    def remaining(self) -> ColumnElement[bool]:
        """Condition for rows that a purge still has to change."""
        if self.values is None:
            return self.mine
        return self.mine & or_(*(self.table.c[name].is_distinct_from(now) for name, now in self.values.items()))


def redact_person(
    project: Project, writer: Writer, found: Containment, numbers: Iterable[int], purge: int
) -> dict[str, str]:
    """Blank a person's attributes, results, texts and errors, and all values in these makings. Values of other people
    in them go too, because a later purge of these people does not see tombstones. Returns event → its digest since.

    IDs, digests, sizes and times stay: without them a tombstone proves nothing.
    """
    writer.overwrite()
    connection = writer.connection
    whose = redaction_scope(project, connection, found, numbers)
    # First: an edit by hand would stay in the row otherwise, and the tombstone would prove nothing.
    rewrite_from_events(writer, differing_tombstones(connection, whose.makings))
    levels = applied_schema(connection)
    relax(connection)  # the schema may require a value in a column that becomes blank
    for part in _parts(connection, whose):
        mine = update(part.table).values(**part.values) if part.values is not None else delete(part.table)
        writer.execute(mine.where(part.remaining))
    writer.execute(update(entity).where(in_keys(entity.c.seq, whose.seqs)).values(purged=purge))
    if levels is not None:
        enforce(connection, levels)
    for words, kept in _roles(connection, whose).items():
        writer.execute(update(waiver).where(waiver.c.words == words).values(words=kept))
    _forget_digests(project, writer, whose)
    # In this order: of an event that both touch, the second digest is the one that it has from now on.
    before = redact(connection, restored_events(connection, purges(connection)))
    return {**before, **redact(connection, events_about(connection, whose))}


def redaction_scope(
    project: Project, connection: Connection, found: Containment, numbers: Iterable[int] = ()
) -> RedactionScope:
    """The scope of a person's redaction: their nodes, their makings that are or will be purged, and the steps."""
    patients = [who for level, who in found.own if level == "patient"]
    gone = select(tombstone.c.materialization).join(purge, purge.c.id == tombstone.c.purge)
    before = connection.execute(gone.where(purge.c.patient.in_(patients))).scalars()
    by_level: dict[str, set[str]] = {}
    for level, who in found.own:
        by_level.setdefault(level, set()).add(who)
    steps = {step.name: frozenset(by_level[step.level]) for step in project.steps if step.level in by_level}
    return RedactionScope(
        found.own,
        frozenset(_entities(connection, found.own)),
        frozenset([*numbers, *before]),
        steps,
        frozenset(cohort_derived_steps(project.steps)),
        found.any_id,
    )


def remaining_values(project: Project, connection: Connection, found: Containment) -> Iterator[tuple[str, str]]:
    """Values of a person that a purge removes: (place, what it holds). Empty after a purge."""
    whose = redaction_scope(project, connection, found)
    known = Part(entity, in_keys(entity.c.seq, whose.seqs) & entity.c.purged.is_(None), None)
    yield from ((place, "somebody who was not purged") for place, _ in _named(connection, known))
    for part in _parts(connection, whose):
        yield from _named(connection, part)
    for words in _roles(connection, whose):
        yield "waiver", f"a role of {words.partition(' ')[0]}"
    again = restored_events(connection, purges(connection))
    rows = connection.execute(
        select(event.c.seq, event.c.kind, event.c.subject)
        .where(in_keys(event.c.seq, again.keys() | events_about(connection, whose).keys()))
        .order_by(event.c.seq)
    )
    for seq, kind, subject in rows:
        yield f"event {seq} ({kind} {subject})", "values that a purge removed" if seq in again else "values or texts"


def _named(connection: Connection, part: Part) -> Iterator[tuple[str, str]]:
    keys = part.table.primary_key.columns
    what = ", ".join(part.values) if part.values is not None else "a row"
    rows = connection.execute(select(*keys).where(part.remaining).limit(SHOWN)).all()
    for key in rows:
        yield f"{part.table.name} {' '.join(map(str, key))}", what
    if len(rows) == SHOWN:
        count = connection.execute(select(func.count()).select_from(part.table).where(part.remaining)).scalar() or 0
        if count > SHOWN:
            yield part.table.name, f"{what} of {count - SHOWN} more"


def _parts(connection: Connection, whose: RedactionScope) -> Iterator[Part]:
    """All rows of the tables that hold something about a person."""
    yield Part(entity, in_keys(entity.c.seq, whose.seqs), {"attributes": "{}"})
    yield Part(result, in_keys(result.c.entity, whose.seqs), None)
    yield from _of_makings(whose.makings)
    of_them = in_keys(qc_event.c.entity, whose.seqs)
    yield Part(qc_event, of_them, {"reason": GONE})
    yield Part(qc_resolution, qc_resolution.c.event.in_(select(qc_event.c.id).where(of_them)), {"reason": GONE})
    for step, who in whose.steps.items():
        mine = (attempt.c.asset == step) & in_keys(attempt.c.partition, who)
        yield Part(attempt, mine, {"error": GONE, "log": None})
    others = select(attempt.c.id, attempt.c.error).where(attempt.c.asset.in_(whose.many), attempt.c.error != GONE)
    naming = [number for number, error in connection.execute(others) if whose.any_id.search(error)]
    if naming:
        yield Part(attempt, in_keys(attempt.c.id, naming), {"error": GONE})


def _of_makings(numbers: Collection[int]) -> Iterator[Part]:
    mine = in_keys(materialization.c.id, numbers)
    yield Part(materialization, mine, {"facts": "{}", "undeclared": None})  # paths may name people
    yield Part(materialization, mine & materialization.c.reason.contains(ROLES), {"reason": GONE})
    value = edge.c.asset.in_(ENTITY_LEVELS) & edge.c.input.contains(".")
    yield Part(edge, value & in_keys(edge.c.materialization, numbers), {"version": _VALUE})
    yield Part(member, in_keys(member.c.materialization, numbers), {"role": GONE})
    yield Part(artifact, in_keys(artifact.c.materialization, numbers), None)


def _entities(connection: Connection, own: Iterable[Node]) -> set[int]:
    wanted = set(own)
    columns = (entity.c.seq, entity.c.level, entity.c.id)
    rows = connection.execute(select(*columns).where(in_keys(entity.c.id, {who for _, who in wanted})))
    return {seq for seq, level, who in rows if (level, who) in wanted}


def _roles(connection: Connection, whose: RedactionScope) -> dict[str, str]:
    """Texts of waivers about the person's roles → the text that a purge writes instead."""
    own = set(map(name_of, whose.own))
    said = select(waiver.c.words).where(waiver.c.kind == "member-role").distinct()
    listed: Sequence[str] = connection.execute(said).scalars().all()
    return {words: kept for words in listed if (kept := role_less(words, own)) != words}


def _forget_digests(project: Project, writer: Writer, whose: RedactionScope) -> None:
    """Delete remembered digests of the person's files. Paths of other checksums begin with the algorithm."""
    paths = set(writer.execute(select(file.c.path).where(in_keys(file.c.entity, whose.seqs))).scalars())
    made = output.join(materialization, materialization.c.id == output.c.materialization)
    columns = select(materialization.c.folder, output.c.file).select_from(made)
    rows = writer.execute(columns.where(in_keys(output.c.materialization, whose.makings)))
    paths |= {project.recorded(f"{project.store.root}/{folder}/{name}") for folder, name in rows}
    every = [*paths, *(f"{kind}:{path}" for kind in ("md5", "sha256") for path in paths)]
    writer.execute(digest_memory.delete().where(in_keys(digest_memory.c.path, every)))
    declared = [role for level in ENTITY_LEVELS for role in project.settings.levels[level].files]
    folders = select(file.c.path).where(in_keys(file.c.entity, whose.seqs), file.c.role.not_in(declared))
    for path in writer.execute(folders).scalars().all():  # a checksum list may name files in them
        inside = (
            digest_memory.c.path.startswith(f"{kind}{path}/", autoescape=True) for kind in ("", "md5:", "sha256:")
        )
        writer.execute(digest_memory.delete().where(or_(*inside)))
