"""Raw files and references as they are now: compared by signature, and read again only if that differs."""

import errno
import os
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import ColumnElement, bindparam, select, update

from ctcore.catalog.engine import Writer, in_keys, upsert
from ctcore.catalog.tables import digest_memory, entity, file, reference
from ctcore.cohorts.rule_history import record_rules
from ctcore.config.settings import FILE_NAME, Reference, read_settings
from ctcore.errors import InputError
from ctcore.intake.raw_places import InsideProblem, RawKinds, RegisteredPlaces
from ctcore.intake.reference_places import misplaced
from ctcore.intake.references import changes_of, content_of, known_references, record
from ctcore.model import regions
from ctcore.model.node import Node, name_of
from ctcore.model.reasons import members_text, short_digest
from ctcore.project import Project
from ctcore.store.digest import Signature
from ctcore.store.folder_content import differing_members, keep_listing, signature_at, try_contents, try_seen_contents
from ctcore.store.manifest import Allowance
from ctcore.util.clock import now

OnBytes = Callable[[int], None] | None
P = TypeVar("P", str, Path)
_SLOW_S = 50e-6  # a stat that takes longer waits for a network: many wait at once
_TRIED = 256
_AT_ONCE = 32
FEW = {"yield_per": 10_000}  # rows at a time: what is as it was is forgotten at once


def stats(places: Sequence[str]) -> list[os.stat_result | str]:
    """The stat of each file, or the system's error; many at once, because each may take long on a network disk."""
    began = time.perf_counter()
    found = list(map(_stat, places[:_TRIED]))
    rest = places[_TRIED:]
    if not rest:
        return found
    if (time.perf_counter() - began) / _TRIED < _SLOW_S:
        return found + list(map(_stat, rest))
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return found + list(pool.map(_stat, rest, chunksize=1))


def _stat(place: str) -> os.stat_result | str:
    try:
        return os.stat(place)
    except (OSError, ValueError) as error:
        return getattr(error, "strerror", None) or str(error)


class Memory:
    """Known digests, by path and signature: unchanged files are not read twice.

    `kind` separates other checksum algorithms. Without `remember`, nothing is written.
    """

    def __init__(self, project: Project, kind: str = "", remember: bool = True) -> None:
        self.project, self.kind, self.remembers = project, kind, remember

    def _name(self, path: Path | str) -> str:
        return self.kind + self.project.recorded(path)

    def lookup(self, paths: Mapping[P, Signature], /) -> dict[P, str]:
        by_name = {self._name(path): path for path in paths}
        with self.project.catalog.read() as connection:
            rows = connection.execute(select(digest_memory).where(in_keys(digest_memory.c.path, by_name))).all()
        # In an archived project nothing can be recorded: a ctime that nobody kept would have all files read at each
        # look.
        archived = bool(rows) and self.project.catalog.project_state().is_archived
        return {
            by_name[name]: digest
            for name, size, mtime_ns, inode, digest, ctime_ns in rows
            if paths[by_name[name]].is_like((size, mtime_ns, inode, ctime_ns), archived)
        }

    def remember(self, digests: Mapping[P, tuple[Signature, str]], /) -> None:
        if not self.remembers or self.project.catalog.project_state().is_archived:
            return
        rows = [
            {
                "path": self._name(path),
                "size": seen.size,
                "mtime_ns": seen.mtime_ns,
                "inode": seen.inode,
                "ctime_ns": seen.ctime_ns,
                "digest": digest,
            }
            for path, (seen, digest) in digests.items()
        ]
        with self.project.catalog.write() as writer:
            upsert(writer, digest_memory, rows)


@dataclass
class FileChanges:
    """The result of a look: changed contents as text, unreadable files, and the number of touched files that were
    too much to read."""

    changes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    unread: int = 0
    unread_bytes: int = 0
    files: int = 0  # raw files that were looked at

    def masked(self, project: Project) -> "FileChanges":
        """The same without names of people without consent."""
        if not (self.changes or self.problems):
            return self
        from ctcore.governance.masking import mask_of  # what a look needs only where it has something to say

        seen = mask_of(project)
        return replace(self, changes=list(seen.lines(self.changes)), problems=list(seen.lines(self.problems)))

    def leave(self, size: int) -> None:
        self.unread += 1
        self.unread_bytes += size


def look(
    project: Project,
    on_bytes: OnBytes = None,
    *,
    only_references: bool = False,
    allowance: Allowance | None = None,
) -> FileChanges:
    """Look at every raw file and reference with one stat each, and write changes to the catalog.

    Touched files are read, up to the `allowance`. In an archived project, changes are reported and not written.
    """
    found = FileChanges(record_rules(project))
    _look_at_references(project, found, on_bytes, allowance)
    if not only_references:
        _look_at_files(project, found, on_bytes, allowance=allowance)
    return found.masked(project)


def look_on(project: Project, after: int, most: int) -> tuple[FileChanges, int]:
    """Look at the references and at the raw files of the next `most` entities. Returns where to go on; 0: at the begin.

    Looking at all files of a large cohort takes longer than a sensor should; in turn, each comes up again soon.
    """
    found = FileChanges(record_rules(project))
    _look_at_references(project, found, None)
    with project.catalog.read() as connection:
        entities = select(file.c.entity).where(file.c.entity > after).distinct().order_by(file.c.entity).limit(most)
        numbers = connection.execute(entities).scalars().all()
    if numbers:
        _look_at_files(project, found, None, file.c.entity.between(numbers[0], numbers[-1]))
    return found.masked(project), numbers[-1] if len(numbers) == most else 0


# Of a file whose disk was away, a look sees that it is there again: of its bytes nothing was said
_NOT_THERE = tuple(os.strerror(one) for one in (errno.ENOENT, errno.ENOTDIR, errno.ESTALE, errno.ENOTCONN))


_EMPTY = "is empty (0 bytes)"


class _Row(NamedTuple):
    """A raw file as the catalog has it."""

    entity: int
    role: str
    path: str
    digest: str
    problem: str | None
    size: int
    mtime_ns: int
    inode: int
    ctime_ns: int


_RAW = select(*(file.c[name] for name in _Row._fields)).where(
    file.c.entity.not_in(select(entity.c.seq).where(entity.c.purged.is_not(None)))
)


class _Glance:
    """Raw files beside their rows: touched ones to read, broken ones, and ones that are back."""

    def __init__(self, project: Project, found: FileChanges, allowance: Allowance | None) -> None:
        self.project, self.found, self.allowance = project, found, allowance
        self.archived, self.kinds = project.catalog.project_state().is_archived, RawKinds(project)
        self.touched: dict[str, Signature] = {}
        self.of_path: dict[str, list[_Row]] = {}
        self.problems: list[tuple[_Row, str]] = []
        self.back: list[_Row] = []

    def at(self, rows: Iterable[Any]) -> None:
        listed = list(map(_Row._make, rows))
        self.found.files += len(listed)
        places = [self.project.located(row.path) for row in listed]
        for place, row, stat in zip(places, listed, stats(places), strict=True):
            seen = stat if isinstance(stat, str) else self.kinds.signature(row.role, place, stat)
            if isinstance(seen, str):
                self.problems.append((row, seen))
            elif row.problem is not None or not seen.is_like(row[5:], self.archived):
                self._doubt(place, row, seen)

    def _doubt(self, place: str, row: _Row, seen: Signature) -> None:
        if seen == row[5:] and row.problem is not None and row.problem.endswith(_NOT_THERE):
            self.back.append(row)
        # Several rows may name one file: it is read once, and counts once.
        elif self.allowance is None or place in self.touched or self.allowance.takes(seen.size):
            self.touched[place] = seen
            self.of_path.setdefault(place, []).append(row)
        else:
            self.found.leave(seen.size)

    def leave_misplaced(self) -> None:
        """What became a link to somebody else's folder, or has got such files, is not read."""
        for place, said in _misplaced(self.project, self.kinds, self.touched, self.of_path).items():
            del self.touched[place]
            self.problems += [(row, said) for row in self.of_path.pop(place)]


def _misplaced(
    project: Project, kinds: RawKinds, seen: Mapping[str, Signature], of_path: Mapping[str, Sequence[_Row]]
) -> dict[str, str]:
    """The folders that may not be read for whom they belong to, and why: such as have files of others by now, and
    empty ones, as where a disk is not mounted."""
    folders = [place for place in seen if kinds.is_folder(of_path[place][0].role, place)]
    if not folders:
        return {}
    registered = RegisteredPlaces(project, kinds)
    found = {place: registered.wrong(place) if seen[place].size else _EMPTY for place in folders}
    return {place: said for place, said in found.items() if said is not None}


def _look_at_files(
    project: Project,
    found: FileChanges,
    on_bytes: OnBytes,
    some: ColumnElement[bool] | None = None,
    allowance: Allowance | None = None,
) -> None:
    glance = _Glance(project, found, allowance)
    with project.catalog.read() as connection:
        chosen = connection.execute(_RAW if some is None else _RAW.where(some), execution_options=FEW)
        for rows in chosen.partitions():
            glance.at(rows)
    glance.leave_misplaced()
    digests, unread = try_seen_contents(glance.touched, Memory(project), on_bytes, partial(keep_members, project))
    problems = glance.problems + _unread(unread, glance.of_path)
    read = {place: (glance.of_path[place], *digest) for place, digest in digests.items()}
    if read or problems or glance.back:
        _write_files(project, found, read, problems, glance.back)


def _unread(problems: Mapping[str, str], of_path: Mapping[str, list[_Row]]) -> list[tuple[_Row, str]]:
    """What could not be read, by its rows."""
    said = {place: InsideProblem(words) if os.path.isdir(place) else words for place, words in problems.items()}
    return [(row, words) for place, words in said.items() for row in of_path[place]]


def _write_files(
    project: Project,
    found: FileChanges,
    read: Mapping[str, tuple[list[_Row], str, Signature]],
    problems: list[tuple[_Row, str]],
    back: Iterable[_Row] = (),
    read_whole: bool = False,
) -> None:
    """Report files that were read, are unreadable, or are back; write what is new."""
    looked = [(row, digest, seen) for rows, digest, seen in read.values() for row in rows]
    changed = [(row, digest, seen) for row, digest, seen in looked if digest != row.digest]
    said = {(row.entity, row.role): f"{row.path}: {getattr(problem, 'kept', problem)}" for row, problem in problems}
    names = _names(project, [row.entity for row, *_ in (*changed, *problems)])
    for row, digest, _ in changed:
        inside = members_text(differing_members(project.store.root, row.digest, digest))
        found.changes.append(
            f"{name_of(names[row.entity])} {row.role} {short_digest(row.digest)} → {short_digest(digest)}{inside}"
        )
    for row, words in problems:
        level, who = names[row.entity]
        found.problems.append(f"{level} {who}: {row.role} {row.path}: {words}; put it back or correct the sheet")
    if project.catalog.project_state().is_archived:
        return
    mine = (file.c.entity == bindparam("b_entity")) & (file.c.role == bindparam("b_role"))
    read_at = {"checked_at": now()} if read_whole else {}
    seen_now = [
        {
            "b_entity": row.entity,
            "b_role": row.role,
            "digest": digest,
            **seen._asdict(),
            "problem": None,
            **read_at,
        }
        for row, digest, seen in looked
    ]
    news = [(row, said[row.entity, row.role]) for row, _ in problems if row.problem != said[row.entity, row.role]]
    over = [row for row, digest, _ in looked if row.problem is not None and digest == row.digest]
    told = [*news, *((row, None) for row in (*over, *back))]
    if not (seen_now or told or read_whole):
        return
    said_now = [{"b_entity": row.entity, "b_role": row.role, "problem": problem} for row, problem in told]
    names |= _names(project, [row.entity for row, _ in told if row.entity not in names])
    with project.catalog.write() as writer:
        if seen_now:
            writer.execute(update(file).where(mine), seen_now)
        for row, digest, seen in changed:
            body = {"role": row.role, "path": row.path, "old": row.digest, "new": digest, "size": seen.size}
            writer.event("file", name_of(names[row.entity]), body)
        if said_now:
            writer.execute(update(file).where(mine), said_now)
        for row, problem in told:
            body = {"role": row.role, "path": row.path, "problem": problem}
            writer.event("file", name_of(names[row.entity]), body)
        if read_whole:
            forget(writer, [row.path for row, *_ in changed])
            failed = [{"b_entity": row.entity, "b_role": row.role, **read_at} for row, _ in problems]
            if failed:  # they had their turn
                writer.execute(update(file).where(mine), failed)


def forget(writer: Writer, paths: Iterable[str]) -> None:
    """Remember no digest of these files: below the file system they became others, and look as they did."""
    names = [f"{kind}{path}" for path in paths for kind in ("", "md5:", "sha256:")]
    if names:
        writer.execute(digest_memory.delete().where(in_keys(digest_memory.c.path, names)))


def _names(project: Project, numbers: Collection[int]) -> dict[int, Node]:
    """Entities by number."""
    if not numbers:
        return {}
    wanted = select(entity.c.seq, entity.c.level, entity.c.id).where(in_keys(entity.c.seq, set(numbers)))
    with project.catalog.read() as connection:
        return {row.seq: (row.level, row.id) for row in connection.execute(wanted)}


def _look_at_references(
    project: Project, found: FileChanges, on_bytes: OnBytes, allowance: Allowance | None = None
) -> None:
    declared = project.settings.references
    with project.catalog.read() as connection:
        known = known_references(connection)
    good: dict[str, Path] = {}
    for key, path in project.references():
        problem = _reference_problem(project, declared[key], path)
        if problem is None:
            good[key] = path
        else:
            found.problems.append(problem)
    memory, seen = Memory(project), dict[Path, Signature]()
    for key, path in good.items():
        try:
            seen[path] = signature_at(path)
        except OSError as error:  # a folder with something inside that is no content
            found.problems.append(f"reference {key}: {declared[key].path}: {error.strerror or error}")
    if allowance is not None:
        for path in seen.keys() - memory.lookup(seen).keys():
            if not allowance.takes(seen[path].size):
                found.leave(seen.pop(path).size)
    digests, unread = try_seen_contents(seen, memory, on_bytes, partial(keep_members, project))
    found.problems += [
        f"reference {key}: {path} {unread[path]}; allow reading it" for key, path in good.items() if path in unread
    ]
    contents = {key: (digests[path][0], digests[path][1].size) for key, path in good.items() if path in digests}
    new = [one for one in content_of(declared, contents, known) if not one.is_known(known.get(one.declared.key))]
    wrong = {one.declared.key: region_problems(project.root, declared, one.declared) for one in new}
    found.problems += [said for some in wrong.values() for said in some]
    new = [one for one in new if not wrong[one.declared.key]]
    if new and project.catalog.project_state().is_archived:
        found.changes += changes_of(new, known, partial(differing_members, project.store.root))
    elif new:
        with project.catalog.write() as writer:
            still = read_settings(project.root / FILE_NAME).references  # it may have been bumped while this one looked
            mine = [one for one in new if still.get(one.declared.key) == one.declared]
            found.changes += record(writer, mine, members=partial(differing_members, project.store.root))


def read_raw(project: Project, names: Iterable[str], on_bytes: OnBytes = None) -> FileChanges:
    """Read these raw files whole, by their recorded paths, and record their digests."""
    found, of_path = FileChanges(), dict[str, list[_Row]]()
    with project.catalog.read() as connection:
        for row in connection.execute(_RAW.where(in_keys(file.c.path, names))):
            of_path.setdefault(project.located(row.path), []).append(_Row(*row))
    # Before the first look at a file: what is written from here on shows in `proven`.
    began, places = time.time_ns(), list(of_path)
    kinds, odd, looked = RawKinds(project), dict[str, str](), dict[str, Signature]()
    for place, stat in zip(places, stats(places), strict=True):
        seen = stat if isinstance(stat, str) else kinds.signature(of_path[place][0].role, place, stat)
        if isinstance(seen, str):
            odd[place] = seen
        else:
            looked[place] = seen
    odd |= _misplaced(project, kinds, looked, of_path)
    there = [place for place in places if place not in odd]
    reads, problems = try_contents(there, on_bytes, partial(keep_members, project))
    read = {place: (of_path[place], one[0], Signature(*one[1:]).proven(began)) for place, one in reads.items()}
    said = _unread(problems, of_path) + [(row, words) for place, words in odd.items() for row in of_path[place]]
    _write_files(project, found, read, said, read_whole=True)
    return found.masked(project)


def read_references(project: Project, keys: Collection[str], on_bytes: OnBytes = None) -> FileChanges:
    """Read these references whole; one of other bytes is recorded as a look does it."""
    found = FileChanges()
    places = {key: path for key, path in project.references() if key in keys}
    with project.catalog.read() as connection:
        known = known_references(connection)
    declared = project.settings.references
    there = [path for key, path in places.items() if is_there(declared[key], path)]
    reads, _ = try_contents(there, on_bytes, partial(keep_members, project))
    read = {key: reads[path][0] for key, path in places.items() if path in reads}
    if not project.catalog.project_state().is_archived:
        with project.catalog.write() as writer:
            other = [key for key, digest in read.items() if key in known and known[key].digest != digest]
            # First: the look below would believe the signature, which is the same as before.
            forget(writer, [project.recorded(places[key]) for key in other])
            mine = in_keys(reference.c.key, keys)
            writer.execute(update(reference).where(mine).values(checked_at=now()))
    _look_at_references(project, found, on_bytes)
    return found.masked(project)


def keep_members(project: Project, digest: str, listed: bytes) -> None:
    """Keep what is in a folder, so that a change of it can be told by its files."""
    if not project.catalog.project_state().is_archived:
        with suppress(OSError):  # whoever may not write there is told of a change without its files
            keep_listing(project.store.root, digest, listed)


def region_problems(root: Path, declared: Mapping[str, Reference], one: Reference) -> list[str]:
    """Regions that are no BED files, or do not lie on their genome."""
    if one.kind != regions.KIND:
        return []
    below = declared.get(one.on or "")
    index = root / f"{below.path}.fai" if below is not None and below.kind == "genome" else None
    return [f"region {one.key}: {one.path} {text}" for text in regions.bed_problems(root / one.path, index)]


def is_there(said: Reference, path: Path) -> bool:
    """Whether a reference's file is there, or its folder."""
    return path.is_dir() if said.folder else path.is_file()


def _reference_problem(project: Project, said: Reference, path: Path) -> str | None:
    where = f"{'region' if said.kind == regions.KIND else 'reference'} {said.key}: {said.path}"
    if path.is_dir() != said.folder and path.exists():
        way = "say folder = true" if path.is_dir() else "take out folder = true, or name the folder"
        return f"{where} is a {'folder' if path.is_dir() else 'file'}; {way} in [references.{said.key}] of ct.toml"
    if not is_there(said, path):
        place = f"[regions.{said.key}] bed" if said.kind == regions.KIND else f"[references.{said.key}] path"
        return f"{where} is not there; correct {place} in ct.toml"
    if not (any(path.iterdir()) if said.folder else path.stat().st_size):
        return f"{where} is {'an empty folder' if said.folder else 'empty'}; put the real files there"
    if (problem := misplaced(project, said, path)) is not None:
        return f"{where} {problem}"
    if said.kind == "genome" and not path.with_name(path.name + ".fai").is_file():
        return f"{where} has no index ({path.name}.fai); make it with `ct reference index {said.key}`"
    return None


def check_references(project: Project) -> None:
    """InputError with everything that is wrong with the declared references."""
    declared = project.settings.references
    problems = [_reference_problem(project, declared[key], path) for key, path in project.references()]
    said = [problem for problem in problems if problem is not None]
    if said:
        raise InputError("\n".join(said))
