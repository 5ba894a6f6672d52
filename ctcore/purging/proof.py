"""⑥ Is it true that a purge removed all that contains a person, and nothing else? From the records and the disk."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, select

from ctcore.catalog.engine import in_keys
from ctcore.catalog.tables import event, materialization, purge, tombstone
from ctcore.catalog.together import lying
from ctcore.errors import Usage
from ctcore.manifest import Expected
from ctcore.project import Project
from ctcore.purging.copies import apart, named_places, search
from ctcore.purging.inside import inside
from ctcore.purging.leftovers import Leftovers, meetings
from ctcore.purging.planned import is_taken_back
from ctcore.purging.redaction import still_said
from ctcore.purging.stones import differing
from ctcore.reasons import name_of
from ctcore.tombstones import is_purged, there, unfinished, words


@dataclass(frozen=True)
class Checked:
    """What was looked at: makings with a tombstone of this purge, folders without one; and every finding."""

    purge: int
    patient: str
    gone: int
    kept: int
    bytes: int
    findings: tuple[tuple[str, str], ...]


def check(project: Project, number: int, deep: bool = True, on_bytes: Callable[[int], None] | None = None) -> Checked:
    """Every making without a tombstone, current or past, is there with its digests; every one with one is not."""
    read: list[int] = []  # files are read in several threads

    def count(some: int) -> None:
        read.append(some)
        if on_bytes is not None:
            on_bytes(some)

    with project.catalog.read() as connection:
        row = connection.execute(select(purge).where(purge.c.id == number)).first()
        if row is None:
            raise Usage(f"no purge {number}; `ct purge --list` has them")
        gone, problems = _told(connection, row)
        problems += [_unfinished(row)] if row.ended_at is None else []
        problems += [*_still_there(project, connection, purge.c.id == number), *_inside(project, connection, row)]
        kept = there(connection)
        problems += _lying(project, connection, row, count)
    found = project.store.check_many(
        [Expected(project.store.root / folder, files) for folder, files in kept.items()], deep=deep, on_bytes=count
    )
    named = {where for where, _ in problems}
    for folder, damages in zip(kept, found, strict=True):
        wrong = ((f"store/{folder}/{one.file}", one.problem) for one in damages)
        problems += [(where, f"{said}, and no purge removed it") for where, said in wrong if where not in named]
    return Checked(number, row.patient, len(gone), len(kept), sum(read), tuple(problems))


def not_so(project: Project) -> list[tuple[str, str]]:
    """Of all purges, what is not as it was said: one that has not ended, files that are there again."""
    with project.catalog.read() as connection:
        found = [_unfinished(row) for row in unfinished(connection)]
        found += _still_there(project, connection, purge.c.ended_at.is_not(None))
        for row in connection.execute(select(purge).order_by(purge.c.id)) if any(map(lying, meetings(project))) else ():
            found += _left_of(project, connection, row)
    return list(dict.fromkeys(found))


def _told(connection: Connection, row: Any) -> tuple[set[int], list[tuple[str, str]]]:
    """Tombstones against the events of the purge: what the chain says was removed, with which digests and sizes."""
    mine = (event.c.kind == "purge") & (event.c.subject == f"patient/{row.patient}")
    bodies = map(json.loads, connection.execute(select(event.c.body).where(mine)).scalars())
    said = {one["materialization"]: one for body in bodies if body["purge"] == row.id for one in body["removed"]}
    stones = connection.execute(select(tombstone)).all()
    gone = {one.materialization for one in stones if one.purge == row.id}
    lacking = said.keys() - {one.materialization for one in stones}
    anew = f"; `ct purge {row.patient}` writes it anew"
    problems = [(f"#{one}", "has a tombstone that no event tells of") for one in sorted(gone - said.keys())]
    for number in sorted(lacking):
        problems.append((said[number]["node"], f"#{number} was purged, and has no tombstone{anew}"))
    for number in sorted(differing(connection, gone)):
        what = f"#{number}: the ledger and the event differ in what was there{anew}"
        problems.append((said[number]["node"], what))
    return gone, problems


def _still_there(project: Project, connection: Connection, purges: ColumnElement[bool]) -> Iterator[tuple[str, str]]:
    """Folders of tombstones that are there, though the same call was not made again since."""
    made = materialization.c
    joined = select(made.folder, made.asset, made.partition, purge.c.id, purge.c.patient)
    joined = joined.join(tombstone, tombstone.c.materialization == made.id)
    mine = joined.join(purge, purge.c.id == tombstone.c.purge).where(purges)
    rows = {row.folder: row for row in connection.execute(mine)}
    live = select(made.folder).where(in_keys(made.folder, rows), ~is_purged())
    for folder in sorted(rows.keys() - set(connection.execute(live).scalars())):
        if (project.store.root / folder).exists():
            row = rows[folder]
            said = f"store/{folder} is there, and was purged (purge {row.id}); `ct purge {row.patient}` removes it"
            yield name_of((row.asset, row.partition)), said


def _inside(project: Project, connection: Connection, row: Any) -> Iterator[tuple[str, str]]:
    """What contains the patient and is there; nothing, unless they have given their consent again."""
    if not is_taken_back(connection, row.patient) or row.ended_at is None:
        return
    found = inside(project, connection, row.patient)
    for place, what in still_said(project, connection, found):
        yield place, f"{what}: of patient {row.patient}, and purged; `ct purge {row.patient}` takes it out"
    for number, one in found.left.items():
        yield name_of(one.node), f"#{number} contains patient {row.patient}; `ct purge {row.patient}` removes it"
    for path in Leftovers(project, connection, found).paths():
        if path.name != "mirror":
            yield project.recorded(path), _is_of(row)


def _lying(
    project: Project, connection: Connection, row: Any, on_bytes: Callable[[int], None] | None
) -> Iterator[tuple[str, str]]:
    """Copies of what was purged that lie somewhere else, what could not be looked at, and lines of the journal that
    are not the catalog's: an older copy says what was taken out since."""
    if wrong := project.catalog.journal.unlike(connection):
        many = f"line {wrong[0]}" + f" and {len(wrong) - 1} more" * (len(wrong) > 1)
        said = f"{many}: not the events of the catalog, from which `ct purge {row.patient}` writes it anew"
        yield project.catalog.journal.path.name, said
    if not is_taken_back(connection, row.patient) or row.ended_at is None:
        return
    found = inside(project, connection, row.patient)
    seen = search(project, connection, found, row.patient, on_bytes=on_bytes)
    for one in apart(project, seen.copies, named_places(project, connection, found, row.patient)):
        yield one.path, one.words(row.patient)
    for path, said in seen.unread:
        yield path, f"{said}: it could not be looked at, and nothing is proved of it"


def _left_of(project: Project, connection: Connection, row: Any) -> Iterator[tuple[str, str]]:
    """What a killed process wanted to have recorded of somebody who was purged."""
    if is_taken_back(connection, row.patient):
        for path in Leftovers(project, connection, inside(project, connection, row.patient)).asked():
            yield project.recorded(path), _is_of(row)


def _unfinished(row: Any) -> tuple[str, str]:
    return f"purge {row.id}", f"{words(row)}: `ct purge {row.patient}` goes on with it"


def _is_of(row: Any) -> str:
    return f"is of patient {row.patient}; `ct purge {row.patient}` removes it"
