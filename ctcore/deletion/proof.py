"""Checks by the records and the disk that a purge removed everything that contains a person, and nothing else."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, select

from ctcore.catalog.engine import in_keys
from ctcore.catalog.group_commit import queued_requests
from ctcore.catalog.tables import materialization, purge, tombstone
from ctcore.catalog.tombstones import current_folders, is_purged, purge_words, unfinished_purges
from ctcore.deletion.copies import command, named_places, not_below, search
from ctcore.deletion.leftovers import Leftovers, write_queues
from ctcore.deletion.purge_plan import is_revoked
from ctcore.deletion.redact import remaining_values
from ctcore.deletion.redacted_events import purges
from ctcore.deletion.tombstone_check import differing_tombstones
from ctcore.errors import Usage
from ctcore.lineage.containment import Containment, containment_of
from ctcore.model.node import name_of
from ctcore.project import Project
from ctcore.store.manifest import ExpectedArtifact


@dataclass(frozen=True)
class Proof:
    """Result of a check. `gone`: makings with a tombstone of this purge; `kept`: folders that exist; `bytes`: read."""

    purge: int
    patient: str
    gone: int
    kept: int
    bytes: int
    findings: tuple[tuple[str, str], ...]


class PurgeFinding(NamedTuple):
    """Something that a purge should have removed, or an unfinished purge: its number, the place and the problem."""

    purge: int
    where: str
    problem: str


def check(project: Project, number: int, deep: bool = True, on_bytes: Callable[[int], None] | None = None) -> Proof:
    """Check that every making without a tombstone, current or past, exists with its digests, and that no other does."""
    read: list[int] = []  # files are read in several threads

    def count(some: int) -> None:
        read.append(some)
        if on_bytes is not None:
            on_bytes(some)

    with project.catalog.read() as connection:
        row = connection.execute(select(purge).where(purge.c.id == number)).first()
        if row is None:
            raise Usage(f"no purge {number}; `ct purge --list` lists all purges")
        gone, problems = _tombstone_findings(connection, row)
        problems += [_unfinished(row)] if row.ended_at is None else []
        problems += [(one.where, one.problem) for one in _still_there(project, connection, purge.c.id == number)]
        is_due = is_revoked(connection, row.patient) and row.ended_at is not None
        whose = containment_of(project, connection, row.patient) if is_due else None
        problems += _remaining(project, connection, row, whose)
        kept = current_folders(connection)
        problems += _copies(project, connection, row, whose, count)
    found = project.store.check_many(
        [ExpectedArtifact(project.store.root / folder, files) for folder, files in kept.items()],
        deep=deep,
        on_bytes=count,
    )
    named = {where for where, _ in problems}
    for folder, damages in zip(kept, found, strict=True):
        wrong = ((f"store/{folder}/{one.file}", one.problem) for one in damages)
        problems += [(where, f"{said}, and no purge removed it") for where, said in wrong if where not in named]
    return Proof(number, row.patient, len(gone), len(kept), sum(read), tuple(problems))


def purge_findings(project: Project) -> list[PurgeFinding]:
    """Findings of all purges: unfinished purges, and purged files that exist again."""
    with project.catalog.read() as connection:
        found = [PurgeFinding(row.id, *_unfinished(row)) for row in unfinished_purges(connection)]
        found += _still_there(project, connection, purge.c.ended_at.is_not(None))
        for row in (
            connection.execute(select(purge).order_by(purge.c.id))
            if any(map(queued_requests, write_queues(project)))
            else ()
        ):
            found += (PurgeFinding(row.id, *one) for one in _queued_records(project, connection, row))
    return list(dict.fromkeys(found))


def _tombstone_findings(connection: Connection, row: Any) -> tuple[set[int], list[tuple[str, str]]]:
    """Compare tombstones with the purge's events, which hold digests and sizes of what was removed."""
    said = {one["materialization"]: one for body in purges(connection).of(row.id) for one in body["removed"]}
    stones = connection.execute(select(tombstone)).all()
    gone = {one.materialization for one in stones if one.purge == row.id}
    lacking = said.keys() - {one.materialization for one in stones}
    anew = f"; {command(row.patient)} restores it"
    problems = [(f"#{one}", "has a tombstone without an event") for one in sorted(gone - said.keys())]
    for number in sorted(lacking):
        problems.append((said[number]["node"], f"#{number} was purged, but has no tombstone{anew}"))
    for number, stone in sorted(differing_tombstones(connection, gone).items()):
        problems.append((stone["node"], f"#{number}: the ledger and the event differ{anew}"))
    return gone, problems


def _still_there(project: Project, connection: Connection, purges: ColumnElement[bool]) -> Iterator[PurgeFinding]:
    """Folders of tombstones that exist, although nobody made the same call again."""
    made = materialization.c
    joined = select(made.folder, made.asset, made.partition, purge.c.id, purge.c.patient)
    joined = joined.join(tombstone, tombstone.c.materialization == made.id)
    mine = joined.join(purge, purge.c.id == tombstone.c.purge).where(purges)
    rows = {row.folder: row for row in connection.execute(mine)}
    live = select(made.folder).where(in_keys(made.folder, rows), ~is_purged())
    for folder in sorted(rows.keys() - set(connection.execute(live).scalars())):
        if (project.store.root / folder).exists():
            row = rows[folder]
            said = f"store/{folder} exists, but purge {row.id} removed it; {command(row.patient)} removes it again"
            yield PurgeFinding(row.id, name_of((row.asset, row.partition)), said)


def _remaining(
    project: Project, connection: Connection, row: Any, found: Containment | None
) -> Iterator[tuple[str, str]]:
    """What still contains the patient; nothing if they have consented again."""
    if found is None:
        return
    for place, what in remaining_values(project, connection, found):
        yield place, f"{what}: purged data of patient {row.patient}; {command(row.patient)} removes it"
    for number, one in found.left.items():
        yield name_of(one.node), f"#{number} contains patient {row.patient}; {command(row.patient)} removes it"
    for path in Leftovers(project, connection, found).paths():
        if path.name != "mirror":
            yield project.recorded(path), _belongs_to(row)


def _copies(
    project: Project,
    connection: Connection,
    row: Any,
    found: Containment | None,
    on_bytes: Callable[[int], None] | None,
) -> Iterator[tuple[str, str]]:
    """Copies of purged content in other places, files that could not be read, and lines of the journal that differ from
    the catalog: an older copy holds values that were purged since."""
    if wrong := project.catalog.journal.differing_lines(connection):
        many = f"line {wrong[0]}" + f" and {len(wrong) - 1} more" * (len(wrong) > 1)
        said = f"{many}: not the events of the catalog; {command(row.patient)} rewrites it from there"
        yield project.catalog.journal.path.name, said
    if found is None:
        return
    seen = search(project, connection, found, row.patient, on_bytes=on_bytes)
    for one in not_below(project, seen.copies, named_places(project, connection, found, row.patient)):
        yield one.path, one.words(row.patient)
    for path, said in seen.unread:
        yield path, f"{said}: ct could not read it, so nothing is proved about it; make it readable, or remove it"


def _queued_records(project: Project, connection: Connection, row: Any) -> Iterator[tuple[str, str]]:
    """Records of a purged person that a killed process left in a write queue."""
    if is_revoked(connection, row.patient):
        for path in Leftovers(project, connection, containment_of(project, connection, row.patient)).asked():
            yield project.recorded(path), _belongs_to(row)


def _unfinished(row: Any) -> tuple[str, str]:
    return f"purge {row.id}", f"{purge_words(row)}: {command(row.patient)} continues it"


def _belongs_to(row: Any) -> str:
    return f"belongs to patient {row.patient}; {command(row.patient)} removes it"
