"""⑥ What the catalog says of a person beyond what a tombstone needs: taken out of its tables and events, and found
there again where somebody put it back.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Table, delete, func, or_, select, update

from ctcore.catalog.chain import redact
from ctcore.catalog.declared import applied, enforce, relax
from ctcore.catalog.engine import Writer, in_keys
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
from ctcore.digest import canonical
from ctcore.project import Project
from ctcore.purging.inside import Inside, gathering
from ctcore.purging.retold import GONE, ROLES, Whose, purges, role_less, said_again, told
from ctcore.purging.stones import differing, write_as_told
from ctcore.reasons import Node, name_of
from ctcore.step import ENTITY_LEVELS

SHOWN = 20  # rows of one table that are named
_VALUE = canonical(GONE).decode()


@dataclass(frozen=True)
class Part:
    """Rows of a table that are, or were, a person's: what stands in them since a purge; None: they are gone."""

    table: Table
    mine: ColumnElement[bool]
    values: Mapping[str, Any] | None

    @property
    def left(self) -> ColumnElement[bool]:
        """Those in which something else stands."""
        if self.values is None:
            return self.mine
        return self.mine & or_(*(self.table.c[name].is_distinct_from(now) for name, now in self.values.items()))


def take_out(project: Project, writer: Writer, found: Inside, numbers: Iterable[int], purge: int) -> dict[str, str]:
    """Blank a person's attributes, results, texts and errors, and all values in these makings, also of others: who is
    purged after them is in no tombstone. Returns what was redacted of the events.

    IDs, digests, sizes and times stay: without them a tombstone proves nothing.
    """
    writer.overwrite()
    connection = writer.connection
    whose = whose_of(project, connection, found, numbers)
    write_as_told(writer, differing(connection, whose.makings))
    levels = applied(connection)
    relax(connection)  # a column may be declared as required
    for part in _parts(connection, whose):
        mine = update(part.table).values(**part.values) if part.values is not None else delete(part.table)
        writer.execute(mine.where(part.left))
    writer.execute(update(entity).where(in_keys(entity.c.seq, whose.seqs)).values(purged=purge))
    if levels is not None:
        enforce(connection, levels)
    for words, kept in _roles(connection, whose).items():
        writer.execute(update(waiver).where(waiver.c.words == words).values(words=kept))
    _forget_digests(project, writer, whose)
    before = redact(connection, said_again(connection, purges(connection)))
    return {**before, **redact(connection, told(connection, whose))}


def whose_of(project: Project, connection: Connection, found: Inside, numbers: Iterable[int] = ()) -> Whose:
    """The person, their makings that are purged or about to be, and the steps that have to do with them."""
    patients = [who for level, who in found.own if level == "patient"]
    gone = select(tombstone.c.materialization).join(purge, purge.c.id == tombstone.c.purge)
    before = connection.execute(gone.where(purge.c.patient.in_(patients))).scalars()
    by_level: dict[str, set[str]] = {}
    for level, who in found.own:
        by_level.setdefault(level, set()).add(who)
    steps = {step.name: frozenset(by_level[step.level]) for step in project.steps if step.level in by_level}
    return Whose(
        found.own,
        frozenset(_entities(connection, found.own)),
        frozenset([*numbers, *before]),
        steps,
        frozenset(gathering(project.steps)),
        found.any_id,
    )


def still_said(project: Project, connection: Connection, found: Inside) -> Iterator[tuple[str, str]]:
    """What the catalog says of a person that a purge takes out: place and what is there. Nothing after a purge."""
    whose = whose_of(project, connection, found)
    known = Part(entity, in_keys(entity.c.seq, whose.seqs) & entity.c.purged.is_(None), None)
    yield from ((place, "somebody who was not purged") for place, _ in _named(connection, known))
    for part in _parts(connection, whose):
        yield from _named(connection, part)
    for words in _roles(connection, whose):
        yield "waiver", f"a role of {words.partition(' ')[0]}"
    again = said_again(connection, purges(connection))
    rows = connection.execute(
        select(event.c.seq, event.c.kind, event.c.subject)
        .where(in_keys(event.c.seq, again.keys() | told(connection, whose).keys()))
        .order_by(event.c.seq)
    )
    for seq, kind, subject in rows:
        yield f"event {seq} ({kind} {subject})", "what a purge took out of it" if seq in again else "values or texts"


def _named(connection: Connection, part: Part) -> Iterator[tuple[str, str]]:
    keys = part.table.primary_key.columns
    what = ", ".join(part.values) if part.values is not None else "a row"
    rows = connection.execute(select(*keys).where(part.left).limit(SHOWN)).all()
    for key in rows:
        yield f"{part.table.name} {' '.join(map(str, key))}", what
    if len(rows) == SHOWN:
        count = connection.execute(select(func.count()).select_from(part.table).where(part.left)).scalar() or 0
        if count > SHOWN:
            yield part.table.name, f"{what} of {count - SHOWN} more"


def _parts(connection: Connection, whose: Whose) -> Iterator[Part]:
    """Every place of the tables in which something of a person stands."""
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


def _roles(connection: Connection, whose: Whose) -> dict[str, str]:
    """What was accepted of roles of theirs, with what stands there since a purge."""
    own = set(map(name_of, whose.own))
    said = select(waiver.c.words).where(waiver.c.kind == "member-role").distinct()
    listed: Sequence[str] = connection.execute(said).scalars().all()
    return {words: kept for words in listed if (kept := role_less(words, own)) != words}


def _forget_digests(project: Project, writer: Writer, whose: Whose) -> None:
    """The memory of what was read; also that of other checksums, whose paths have the algorithm in front."""
    paths = set(writer.execute(select(file.c.path).where(in_keys(file.c.entity, whose.seqs))).scalars())
    made = output.join(materialization, materialization.c.id == output.c.materialization)
    columns = select(materialization.c.folder, output.c.file).select_from(made)
    rows = writer.execute(columns.where(in_keys(output.c.materialization, whose.makings)))
    paths |= {project.recorded(f"{project.store.root}/{folder}/{name}") for folder, name in rows}
    every = [*paths, *(f"{kind}:{path}" for kind in ("md5", "sha256") for path in paths)]
    writer.execute(digest_memory.delete().where(in_keys(digest_memory.c.path, every)))
