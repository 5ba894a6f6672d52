"""② Raw files and references as they are now: looked at by signature, read again only where that differs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, bindparam, select, true, update

from ctcore import regions
from ctcore.catalog.engine import in_keys, upsert
from ctcore.catalog.tables import digest_memory, entity, file
from ctcore.digest import Signature, digest_remembered
from ctcore.errors import InputError
from ctcore.project import Project
from ctcore.reasons import name_of, short
from ctcore.references import changes_of, record, seen_of
from ctcore.references import known as known_references
from ctcore.rulebook import note
from ctcore.settings import FILE_NAME, Reference, read_settings

OnBytes = Callable[[int], None] | None
P = TypeVar("P", str, Path)


class Memory:
    """Digests that were computed before, by path and signature: what did not change is not read twice.

    `kind` keeps checksums of other algorithms apart; without `remember` nothing is written.
    """

    def __init__(self, project: Project, kind: str = "", remember: bool = True) -> None:
        self.project, self.kind, self.remembers = project, kind, remember

    def _name(self, path: Path | str) -> str:
        return self.kind + self.project.recorded(path)

    def lookup(self, paths: Mapping[P, Signature], /) -> dict[P, str]:
        by_name = {self._name(path): path for path in paths}
        with self.project.catalog.read() as connection:
            rows = connection.execute(select(digest_memory).where(in_keys(digest_memory.c.path, by_name))).all()
        return {
            by_name[name]: digest
            for name, size, mtime_ns, inode, digest, ctime_ns in rows
            if paths[by_name[name]] == (size, mtime_ns, inode, ctime_ns)
        }

    def remember(self, digests: Mapping[P, tuple[Signature, str]], /) -> None:
        if not self.remembers or self.project.catalog.life().is_archived:
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
class Looked:
    """What a look found: changes of content in words, and what cannot be read."""

    changes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def veiled(self, project: Project) -> "Looked":
        """The same, with nobody named who is without consent."""
        if not (self.changes or self.problems):
            return self
        from ctcore.veil import veil  # what a look needs only where it has something to say

        seen = veil(project)
        return Looked(list(seen.lines(self.changes)), list(seen.lines(self.problems)))


def look(project: Project, on_bytes: OnBytes = None, *, only_references: bool = False) -> Looked:
    """Look at every raw file and reference, and write to the catalog what changed. One stat a file.

    Of an archived project what changed is said, and not written.
    """
    found = Looked(note(project))
    _look_at_references(project, found, on_bytes)
    if not only_references:
        _look_at_files(project, found, on_bytes)
    return found.veiled(project)


def look_on(project: Project, after: int, most: int) -> tuple[Looked, int]:
    """Look at the references and at the raw files of the next `most` entities. Returns where to go on; 0: at the begin.

    Looking at all files of a large cohort takes longer than a sensor should; in turn, each comes up again soon.
    """
    found = Looked(note(project))
    _look_at_references(project, found, None)
    with project.catalog.read() as connection:
        entities = select(file.c.entity).where(file.c.entity > after).distinct().order_by(file.c.entity).limit(most)
        numbers = connection.execute(entities).scalars().all()
    if numbers:
        _look_at_files(project, found, None, file.c.entity.between(numbers[0], numbers[-1]))
    return found.veiled(project), numbers[-1] if len(numbers) == most else 0


def _look_at_files(project: Project, found: Looked, on_bytes: OnBytes, some: ColumnElement[bool] | None = None) -> None:
    with project.catalog.read() as connection:
        rows = connection.execute(
            select(file, entity.c.level, entity.c.id)
            .join(entity, entity.c.seq == file.c.entity)
            .where(true() if some is None else some, entity.c.purged.is_(None))
        ).all()
    touched: dict[str, list[Any]] = {}
    problems: list[tuple[Any, str | None]] = []
    for row in rows:
        path = project.located(row.path)
        try:
            seen = Signature.of(path)
        except OSError as error:
            said = f"{row.path}: {error.strerror}"
            found.problems.append(f"{row.level} {row.id}: {row.role} {said}; put it back or correct the sheet")
            if row.problem != said:
                problems.append((row, said))
            continue
        if row.problem is not None:
            problems.append((row, None))
        if seen != (row.size, row.mtime_ns, row.inode, row.ctime_ns):
            touched.setdefault(path, []).append(row)
    digests = digest_remembered(list(touched), Memory(project), on_bytes=on_bytes) if touched else {}
    if digests or problems:
        _write_files(project, found, touched, digests, problems)


def _write_files(
    project: Project,
    found: Looked,
    touched: Mapping[str, list[Any]],
    digests: Mapping[str, tuple[str, Signature]],
    problems: list[tuple[Any, str | None]],
) -> None:
    looked = [(row, *digests[path]) for path, rows in touched.items() for row in rows]
    changed = [(row, digest, seen) for row, digest, seen in looked if digest != row.digest]
    for row, digest, _ in changed:
        node = name_of((row.level, row.id))
        found.changes.append(f"{node} {row.role} {short(row.digest)} → {short(digest)}")
    if project.catalog.life().is_archived:
        return
    mine = (file.c.entity == bindparam("b_entity")) & (file.c.role == bindparam("b_role"))
    seen_now = [
        {
            "b_entity": row.entity,
            "b_role": row.role,
            "digest": digest,
            "size": seen.size,
            "mtime_ns": seen.mtime_ns,
            "inode": seen.inode,
            "ctime_ns": seen.ctime_ns,
            "problem": None,
        }
        for row, digest, seen in looked
    ]
    said_now = [{"b_entity": row.entity, "b_role": row.role, "problem": said} for row, said in problems]
    with project.catalog.write() as writer:
        if seen_now:
            writer.execute(update(file).where(mine), seen_now)
        for row, digest, seen in changed:
            body = {"role": row.role, "path": row.path, "old": row.digest, "new": digest, "size": seen.size}
            writer.event("file", name_of((row.level, row.id)), body)
        if said_now:
            writer.execute(update(file).where(mine), said_now)
        for row, said in problems:
            body = {"role": row.role, "path": row.path, "problem": said}
            writer.event("file", name_of((row.level, row.id)), body)


def _look_at_references(project: Project, found: Looked, on_bytes: OnBytes) -> None:
    declared = project.settings.references
    with project.catalog.read() as connection:
        known = known_references(connection)
    good: dict[str, Path] = {}
    for key, path in project.references():
        problem = _reference_problem(declared[key], path)
        if problem is None:
            good[key] = path
        else:
            found.problems.append(problem)
    digests = digest_remembered(list(good.values()), Memory(project), on_bytes=on_bytes)
    contents = {key: (digests[path][0], digests[path][1].size) for key, path in good.items()}
    new = [one for one in seen_of(declared, contents, known) if not one.is_known(known.get(one.declared.key))]
    wrong = {one.declared.key: region_problems(project.root, declared, one.declared) for one in new}
    found.problems += [said for some in wrong.values() for said in some]
    new = [one for one in new if not wrong[one.declared.key]]
    if new and project.catalog.life().is_archived:
        found.changes += changes_of(new, known)
    elif new:
        with project.catalog.write() as writer:
            still = read_settings(project.root / FILE_NAME).references  # it may have been bumped while this one looked
            found.changes += record(writer, [one for one in new if still.get(one.declared.key) == one.declared])


def region_problems(root: Path, declared: Mapping[str, Reference], one: Reference) -> list[str]:
    """A region that is no BED file, or does not lie on its genome, is not what it was meant to be."""
    if one.kind != regions.KIND:
        return []
    below = declared.get(one.on or "")
    index = root / f"{below.path}.fai" if below is not None and below.kind == "genome" else None
    return [f"region {one.key}: {one.path} {text}" for text in regions.problems(root / one.path, index)]


def _reference_problem(said: Reference, path: Path) -> str | None:
    where = f"{'region' if said.kind == regions.KIND else 'reference'} {said.key}: {said.path}"
    if not path.is_file():
        place = f"[regions.{said.key}] bed" if said.kind == regions.KIND else f"[references.{said.key}] path"
        return f"{where} is not there; correct {place} in ct.toml"
    if path.stat().st_size == 0:
        return f"{where} is empty; put the real file there"
    if said.kind == "genome" and not path.with_name(path.name + ".fai").is_file():
        return f"{where} has no index ({path.name}.fai); make it with `ct reference index {said.key}`"
    return None


def check_references(project: Project) -> None:
    """InputError with everything that is wrong with the declared references."""
    declared = project.settings.references
    problems = [_reference_problem(declared[key], path) for key, path in project.references()]
    said = [problem for problem in problems if problem is not None]
    if said:
        raise InputError("\n".join(said))
