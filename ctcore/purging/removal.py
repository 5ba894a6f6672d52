"""⑥ Purging: say so in the catalog first, then remove the files, then say that it is done. Goes on after a crash."""

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, delete, func, select, update

from ctcore.catalog.engine import Writer, in_keys
from ctcore.catalog.replay import making_digest
from ctcore.catalog.tables import artifact, damage, materialization, purge, request, tombstone
from ctcore.catalog.together import halted
from ctcore.digest import canonical, try_digests
from ctcore.errors import Usage
from ctcore.ledger import recipe_of
from ctcore.manifest import OWN
from ctcore.project import Project
from ctcore.purging.copies import lying, removed, search
from ctcore.purging.inside import inside
from ctcore.purging.leftovers import Leftovers, meetings, raw_files, raw_rows
from ctcore.purging.planned import Plan, check_consent, check_idle, is_taken_back, planned, size_of
from ctcore.purging.redaction import take_out
from ctcore.purging.wanted import BESIDE
from ctcore.reasons import name_of
from ctcore.tombstones import edge_counts, entries, folders_of, unfinished
from ctcore.whole import sync

TELLING = 16  # bytes: what is shorter may be anybody's
AN_EVENT = 50_000  # makings, with their inputs, of which one event of the chain tells


@dataclass
class Purged:
    """What a purge did: its number, and what it removed."""

    number: int
    patient: str
    paths: int = 0
    size: int = 0


def remove(project: Project, patient: str, reason: str, confirm: str, raw: bool = False) -> list[Purged]:
    """Remove what contains a patient, for good. Also what a purge that was cut off left; empty where there is nothing.

    The record comes first: from then on nothing of it is used, and a crash leaves a purge that says it is not done.
    """
    said = reason.strip()
    if not said or not said.isprintable():
        raise Usage("say in one line why: --reason TEXT")
    if confirm != patient:
        raise Usage(f"--confirm {confirm!r} is not the patient {patient!r}; type the ID again: --confirm {patient}")
    project.catalog.refuse_archived()
    begun = pending(project)
    with project.catalog.read() as connection:
        ended = is_taken_back(connection, patient)
        if patient not in {row.patient for row in begun}:
            check_consent(project, connection, patient)
        put_back = ended and _is_put_back(project, connection, patient, raw)
    done = [finish(project, row) for row in begun]
    if not ended:  # it was restored since; what was begun is finished, and no more is removed
        return done
    number = _begun(project, patient, said, raw, put_back)
    if number is None:
        return done
    row = next(row for row in pending(project) if row.id == number)
    return [*done, finish(project, row)]


def _is_put_back(project: Project, connection: Connection, patient: str, raw: bool) -> bool:
    """Whether something that was purged lies where nobody looks for it, or stands in the journal again."""
    found = lying(project, connection, inside(project, connection, patient), patient)
    mine = {"purge", "dagster"} | ({"raw"} if raw else set())
    return bool(project.catalog.journal.unlike(connection)) or any(one.by in mine for one in found)


def _begun(project: Project, patient: str, reason: str, raw: bool, put_back: bool) -> int | None:
    """The number of the purge that is on record now; None where there is nothing to remove."""
    with halted(meetings(project)):  # else, what a killed process asked for is recorded after all
        with project.catalog.write() as writer:
            found = planned(project, writer.connection, patient)
            check_idle(project, writer.connection, found.found)
            goes = [one for one in found.raw if raw and one["inside"]]
            if not (found or goes or put_back):
                return None
            number = _record(project, writer, found, reason, raw)
        for path in found.leftovers:
            if path.parent.parent == project.work / "together":
                erase(path)
    return number


def pending(project: Project) -> list[Any]:
    """Purges that were begun and not ended."""
    with project.catalog.read() as connection:
        return unfinished(connection)


def _record(project: Project, writer: Writer, found: Plan, reason: str, raw: bool) -> int:
    """Out of use, with a tombstone each; and all that a later check needs, in the chain of events."""
    number = (writer.execute(select(func.max(purge.c.id))).scalar() or 0) + 1
    begun = {"id": number, "patient": found.patient, "at": writer.at, "actor": writer.actor, "reason": reason}
    writer.insert(purge, [{**begun, "raw": raw, "ended_at": None}])
    writer.insert(tombstone, [{"materialization": one, "purge": number} for one in found.makings])
    _out_of_use(writer, found)
    beside = _beside(project, found)
    redacted = take_out(project, writer, found.found, found.makings, number)
    head = {"purge": number, "patient": found.patient, "reason": reason, "raw": raw}
    own = sorted(map(name_of, found.found.own))
    more = {
        "own": own,
        "raw_files": list(found.raw),
        "redacted": redacted,
        "makings": len(found.makings),
        BESIDE: beside,
    }
    for some in _in_events(writer.connection, found.makings):
        rows = entries(writer.connection, some)
        removed = [_told(rows[one], found.files.get(one, {})) for one in some]
        writer.event("purge", f"patient/{found.patient}", {**head, **more, "removed": removed})
        more = {}
    return number


def _beside(project: Project, found: Plan) -> dict[str, int]:
    """Digest → size of all that goes beside outputs, so that a copy of it is known again."""
    folders = [project.store.root / one.folder for one in found.makings.values()]
    paths = [folder / name for folder in folders for name in OWN if (folder / name).is_file()]
    for place in found.leftovers:
        if place.name != "mirror":
            paths += [path for path in (place, *place.rglob("*")) if path.is_file()]
    read, _ = try_digests(paths)
    return {digest: size for digest, size, *_ in read.values() if size >= TELLING}


def _in_events(connection: Connection, numbers: Iterable[int]) -> Iterator[list[int]]:
    """So many makings as one event tells of; at least one event."""
    some: list[int] = []
    left = AN_EVENT
    for number, edges in edge_counts(connection, numbers).items():
        left -= 1 + edges
        if some and left < 0:
            yield some
            some, left = [], AN_EVENT - 1 - edges
        some.append(number)
    yield some


def _out_of_use(writer: Writer, found: Plan) -> None:
    writer.execute(delete(artifact).where(in_keys(artifact.c.materialization, found.makings)))
    nodes: dict[str, set[str]] = {}
    for one in found.makings.values():
        if one.current:
            nodes.setdefault(one.asset, set()).add(one.partition)
    for asset, partitions in nodes.items():
        for table in (damage, request):
            mine = (table.c.asset == asset) & in_keys(table.c.partition, partitions)
            writer.execute(delete(table).where(mine))


def _told(entry: Mapping[str, Any], files: Mapping[str, tuple[int, str]]) -> dict[str, Any]:
    """All that the ledger keeps of a making, so that a lost catalog has the same tombstone again."""
    side = entry["side"]
    row = {**side, "size": entry["size"], "facts": canonical(side["facts"]).decode(), "undeclared": None}
    listed = [(name, digest, size) for name, (size, digest) in files.items()]
    record = making_digest(row, recipe_of(side).digest, (listed, side["inputs"], side["members"]))
    said = {name: entry[name] for name in ("data_version", "folder", "size")}
    more = {"node": name_of(side["node"]), "files": {name: list(one) for name, one in files.items()}, "record": record}
    return {"materialization": entry["id"], **said, **side, **more}


def finish(project: Project, row: Any) -> Purged:
    """Remove what a purge that is on record has to remove, as far as it is still there; then say that it is done."""
    done = Purged(row.id, row.patient)
    with project.catalog.read() as connection:
        found = inside(project, connection, row.patient)
        theirs = is_taken_back(connection, row.patient)  # else, it was restored since, and what lies there is in use
        folders = folders_of(connection, purge.c.patient == row.patient if theirs else purge.c.id == row.id)
        left = Leftovers(project, connection, found)
        paths = left.paths() if theirs else []
        copies = search(project, connection, found, row.patient).copies if theirs else []
        raw = raw_files(raw_rows(connection, found), project) if theirs and row.raw else []
    places = [project.store.root / folder for folder in folders]
    places += [project.absolute(one["path"]) for one in raw if one["inside"]]
    others = removed(project, copies, row.raw, [*places, *paths])
    for path in (*others, *places, *paths):
        if os.path.lexists(path):
            done.paths, done.size = done.paths + 1, done.size + size_of(path)
            erase(path)
    _tidy({path.parent for path in (*places, *others) if path.is_relative_to(project.store.root)})
    with project.catalog.read() as connection:
        project.catalog.journal.rewrite(connection)
    with project.catalog.write() as writer:
        open_still = (purge.c.id == row.id) & purge.c.ended_at.is_(None)
        if writer.execute(update(purge).where(open_still).values(ended_at=writer.at)).rowcount:
            body = {"purge": row.id, "paths": done.paths, "size": done.size}
            writer.event("purged", f"patient/{row.patient}", body)
    project.catalog.scrub()
    return done


def erase(path: Path) -> None:
    """Remove a file or a folder, read-only or not, and wait until the disk knows."""
    if path.is_dir() and not path.is_symlink():
        for inside_it, _, _ in os.walk(path):
            os.chmod(inside_it, 0o700)
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    sync(path.parent)


def _tidy(parents: Iterable[Path]) -> None:
    """Folders of nodes that have nothing left."""
    for folder in parents:
        if folder.is_dir() and not any(folder.iterdir()):
            Path(os.path.realpath(folder)).rmdir()
            if folder.is_symlink():
                folder.unlink()
            sync(folder.parent)


def listed(project: Project) -> list[Mapping[str, Any]]:
    """All purges, with how many tombstones and bytes each has."""
    counted = (
        select(purge, func.count(materialization.c.id).label("makings"), func.sum(materialization.c.size).label("size"))
        .select_from(purge.outerjoin(tombstone, tombstone.c.purge == purge.c.id))
        .outerjoin(materialization, materialization.c.id == tombstone.c.materialization)
        .group_by(*purge.c)
        .order_by(purge.c.id)
    )
    with project.catalog.read() as connection:
        return [dict(row) for row in connection.execute(counted).mappings()]
