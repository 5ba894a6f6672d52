"""Purging: record it in the catalog, remove the files, record the end. A new call continues after a crash."""

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, delete, select, update

from ctcore.catalog.engine import Writer, in_keys
from ctcore.catalog.group_commit import pause_commits
from ctcore.catalog.purge_numbers import UNRECORDED
from ctcore.catalog.replay import making_digest
from ctcore.catalog.row_numbers import next_number
from ctcore.catalog.tables import artifact, damage, purge, request, tombstone
from ctcore.catalog.tombstones import edge_counts, entries, folders_of, unfinished_purges
from ctcore.deletion.copies import removable_paths, search, unowned_copies
from ctcore.deletion.leftovers import Leftovers, raw_files, raw_rows, write_queues
from ctcore.deletion.purge_plan import PurgePlan, check_consent, check_idle, is_revoked, plan_purge, size_of
from ctcore.deletion.purged_digests import BESIDE
from ctcore.deletion.raw_folders import MEMBERS, files_to_know
from ctcore.deletion.redact import redact_person
from ctcore.deletion.redacted_events import purges
from ctcore.errors import Usage
from ctcore.execution.ledger import recipe_of
from ctcore.intake.unchanged import REGISTERED
from ctcore.lineage.containment import containment_of
from ctcore.model.node import name_of
from ctcore.project import Project
from ctcore.store.digest import canonical_json, try_digests
from ctcore.store.manifest import OWN
from ctcore.util.atomic_file import sync

TELLING = 16  # bytes: what is shorter may be anybody's
ARTIFACT_DEPTH = 3  # step/partition/key
AN_EVENT = 50_000  # makings, with their inputs, of which one event of the chain tells


@dataclass
class PurgeResult:
    """What a purge did: its number, and how many paths and bytes it removed."""

    number: int
    patient: str
    paths: int = 0
    size: int = 0


def remove(
    project: Project,
    patient: str,
    reason: str,
    confirm: str,
    raw: bool = False,
    wipe: Callable[[int], None] | None = None,
) -> list[PurgeResult]:
    """Remove everything that contains a patient, for good, and finish interrupted purges. Empty if nothing is left.

    The record comes first: from then on ct uses none of it, and after a crash the purge is on record as unfinished.
    `wipe(number)` deletes from Dagster's storage what purges after that number purged, before they are marked as ended.
    """
    said = reason.strip()
    if not said or not said.isprintable():
        raise Usage("give the reason in one line: --reason TEXT")
    if confirm != patient:
        raise Usage(f"--confirm {confirm!r} is not the patient {patient!r}; type the ID again: --confirm {patient}")
    project.catalog.refuse_archived()
    begun = pending_purges(project)
    with project.catalog.read() as connection:
        ended = is_revoked(connection, patient)
        if patient not in {row.patient for row in begun}:
            check_consent(project, connection, patient)
    done = [finish(project, row, wipe) for row in begun]
    if not ended:  # the consent is valid again: begun purges are finished, and no new one starts
        return done
    with project.catalog.read() as connection:  # files of begun purges were never removed, so they have not come back
        by = {"purge", *(("raw",) if raw else ())}
        if patient not in {row.patient for row in begun}:  # else `finish` has just wiped it
            by.add("dagster")
        put_back = _has_come_back(project, connection, patient, by)
    number = _begin(project, patient, said, raw, put_back)
    if number is None:
        return done
    row = next(row for row in pending_purges(project) if row.id == number)
    return [*done, finish(project, row, wipe)]


def _has_come_back(project: Project, connection: Connection, patient: str, by: set[str]) -> bool:
    """Whether purged content has come back, in an unknown place or in the journal. `by`: which copies count."""
    found = unowned_copies(project, connection, containment_of(project, connection, patient), patient)
    return bool(project.catalog.journal.differing_lines(connection)) or any(one.by in by for one in found)


def _begin(project: Project, patient: str, reason: str, raw: bool, put_back: bool) -> int | None:
    """Record a purge and return its number; None where there is nothing to remove."""
    with pause_commits(write_queues(project)):  # else the queue of a killed process would be recorded after the purge
        with project.catalog.write() as writer:
            found = plan_purge(project, writer.connection, patient)
            check_idle(project, writer.connection, found.found)
            goes = [one for one in found.raw if raw and one["inside"]]
            if not (found or goes or put_back):
                return None
            number = _record(project, writer, found, reason, raw)
        for path in found.leftovers:
            if path.parent.parent == project.work / "together":
                erase(path)
    return number


def pending_purges(project: Project) -> list[Any]:
    """Purges that have begun and not ended."""
    with project.catalog.read() as connection:
        return unfinished_purges(connection)


def _record(project: Project, writer: Writer, found: PurgePlan, reason: str, raw: bool) -> int:
    """Take the makings out of use, write their tombstones, and record in the chain all that a later check needs."""
    number = next_number(writer.connection, purge.c.id)
    begun = {"id": number, "patient": found.patient, "at": writer.at, "actor": writer.actor, "reason": reason}
    writer.insert(purge, [{**begun, "raw": raw, "ended_at": None}])
    writer.insert(tombstone, [{"materialization": one, "purge": number} for one in found.makings])
    _deactivate(writer, found)
    beside = _beside(project, found)
    inside = files_to_know(project, writer.connection, found.found, raw_rows(writer.connection, found.found))
    redacted = redact_person(project, writer, found.found, found.makings, number)
    head = {"purge": number, "patient": found.patient, "reason": reason, "raw": raw}
    own = sorted(map(name_of, found.found.own))
    more = {
        "own": own,
        "raw_files": list(found.raw),
        "redacted": redacted,
        "makings": len(found.makings),
        BESIDE: beside,
        MEMBERS: inside,
        UNRECORDED: _unrecorded(project, found),
    }
    for some in _in_events(writer.connection, found.makings):
        rows = entries(writer.connection, some)
        removed = [_removal_entry(rows[one], found.files.get(one, {})) for one in some]
        writer.event("purge", f"patient/{found.patient}", {**head, **more, "removed": removed})
        more = {}
    return number


def _unrecorded(project: Project, found: PurgePlan) -> list[str]:
    """Folders of artifacts of which no making is known; the history that tells of them may turn up later."""
    root = project.store.root
    inside = (path.relative_to(root) for path in found.leftovers if path.is_relative_to(root))
    return sorted(str(one) for one in inside if len(one.parts) == ARTIFACT_DEPTH and not one.parts[0].startswith("."))


def _beside(project: Project, found: PurgePlan) -> dict[str, int]:
    """Digest → size of all that goes beside outputs, so that a copy of it is known again."""
    folders = [project.store.root / one.folder for one in found.makings.values()]
    paths = [folder / name for folder in folders for name in OWN if (folder / name).is_file()]
    for place in found.leftovers:
        if place.name != "mirror":
            paths += [path for path in (place, *place.rglob("*")) if path.is_file()]
    read, _ = try_digests(paths)
    return {digest: size for digest, size, *_ in read.values() if size >= TELLING}


def _in_events(connection: Connection, numbers: Iterable[int]) -> Iterator[list[int]]:
    """Groups of makings, one group an event; at least one group."""
    some: list[int] = []
    left = AN_EVENT
    for number, edges in edge_counts(connection, numbers).items():
        left -= 1 + edges
        if some and left < 0:
            yield some
            some, left = [], AN_EVENT - 1 - edges
        some.append(number)
    yield some


def _deactivate(writer: Writer, found: PurgePlan) -> None:
    writer.execute(delete(artifact).where(in_keys(artifact.c.materialization, found.makings)))
    nodes: dict[str, set[str]] = {}
    for one in found.makings.values():
        if one.current:
            nodes.setdefault(one.asset, set()).add(one.partition)
    for asset, partitions in nodes.items():
        for table in (damage, request):
            mine = (table.c.asset == asset) & in_keys(table.c.partition, partitions)
            writer.execute(delete(table).where(mine))


def _removal_entry(entry: Mapping[str, Any], files: Mapping[str, tuple[int, str]]) -> dict[str, Any]:
    """Everything that the ledger knows of a making, so that `ct recover` can restore its tombstone."""
    side = entry["side"]
    row = {**side, "size": entry["size"], "facts": canonical_json(side["facts"]).decode(), "undeclared": None}
    listed = [(name, digest, size) for name, (size, digest) in files.items()]
    record = making_digest(row, recipe_of(side).digest, (listed, side["inputs"], side["members"]))
    said = {name: entry[name] for name in ("data_version", "folder", "size")}
    more = {"node": name_of(side["node"]), "files": {name: list(one) for name, one in files.items()}, "record": record}
    return {"materialization": entry["id"], **said, **side, **more}


def finish(project: Project, row: Any, wipe: Callable[[int], None] | None = None) -> PurgeResult:
    """Remove everything that a recorded purge has to remove and that still exists; then record its end."""
    done = PurgeResult(row.id, row.patient)
    with project.catalog.read() as connection:
        found = containment_of(project, connection, row.patient)
        theirs = is_revoked(connection, row.patient)  # else the consent is valid again, and the files are in use
        folders = folders_of(connection, purge.c.patient == row.patient if theirs else purge.c.id == row.id)
        left = Leftovers(project, connection, found)
        paths = left.paths() if theirs else []
        copies = search(project, connection, found, row.patient).copies if theirs else []
        raw = raw_files(raw_rows(connection, found), project) if theirs and row.raw else []
        paths += left.listings.places(left.listings.unused) if theirs else []
        # Its notes may name files in a raw folder; another sheet's are written when it is registered.
        paths += [project.work / REGISTERED] if theirs else []
    places = [project.store.root / folder for folder in folders]
    places += [project.absolute(one["path"]) for one in raw if one["inside"]]
    others = removable_paths(project, copies, row.raw, [*places, *paths])
    for path in (*others, *places, *paths):
        if os.path.lexists(path):
            done.paths, done.size = done.paths + 1, done.size + size_of(path)
            erase(path)
    _tidy({path.parent for path in (*places, *others) if path.is_relative_to(project.store.root)})
    # Lines are only ever appended to the journal: those of before the redaction stay in it until it is written anew.
    with project.catalog.read() as connection:
        project.catalog.journal.rewrite(connection)
    if wipe is not None:
        wipe(row.id - 1)
    with project.catalog.write() as writer:
        open_still = (purge.c.id == row.id) & purge.c.ended_at.is_(None)
        # Of two processes that finish a purge at once, one writes its end.
        if writer.execute(update(purge).where(open_still).values(ended_at=writer.at)).rowcount:
            body = {"purge": row.id, "paths": done.paths, "size": done.size}
            writer.event("purged", f"patient/{row.patient}", body)
    project.catalog.scrub()
    return done


def erase(path: Path) -> None:
    """Remove a file or a folder, even if it is read-only, and wait until the disk has written it."""
    if path.is_dir() and not path.is_symlink():
        for inside_it, _, _ in os.walk(path):
            os.chmod(inside_it, 0o700)
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    sync(path.parent)


def _tidy(parents: Iterable[Path]) -> None:
    """Remove empty folders of nodes."""
    for folder in parents:
        if folder.is_dir() and not any(folder.iterdir()):
            Path(os.path.realpath(folder)).rmdir()
            if folder.is_symlink():
                folder.unlink()
            sync(folder.parent)


def list_purges(project: Project) -> list[Mapping[str, Any]]:
    """All purges, with the number and the bytes of the makings that each removed, by its own events: of a making that
    two removed, which did not know of each other, only one has the tombstone."""
    with project.catalog.read() as connection:
        rows = connection.execute(select(purge).order_by(purge.c.id)).mappings().all()
        told = purges(connection)
    sizes = {row["id"]: [one.get("size", 0) for said in told.of(row["id"]) for one in said["removed"]] for row in rows}
    return [{**row, "makings": len(sizes[row["id"]]), "size": sum(sizes[row["id"]])} for row in rows]
