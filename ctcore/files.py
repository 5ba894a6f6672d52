"""② Raw files and references as they are now: looked at by signature, read again only where that differs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, bindparam, select, true, update

from ctcore.catalog.engine import in_keys, upsert
from ctcore.catalog.tables import digest_memory, entity, file, reference
from ctcore.digest import Signature, digest_remembered
from ctcore.errors import InputError
from ctcore.project import Project
from ctcore.reasons import name_of, reference_change, short
from ctcore.settings import Reference

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
            rows = connection.execute(
                select(digest_memory).where(in_keys(digest_memory.c.path, by_name, self.project.dialect))
            ).all()
        return {
            by_name[name]: digest
            for name, size, mtime_ns, inode, digest in rows
            if paths[by_name[name]] == (size, mtime_ns, inode)
        }

    def remember(self, digests: Mapping[P, tuple[Signature, str]], /) -> None:
        if not self.remembers:
            return
        rows = [
            {
                "path": self._name(path),
                "size": seen.size,
                "mtime_ns": seen.mtime_ns,
                "inode": seen.inode,
                "digest": digest,
            }
            for path, (seen, digest) in digests.items()
        ]
        with self.project.catalog.write() as writer:
            upsert(writer, digest_memory, rows, self.project.dialect)


@dataclass
class Looked:
    """What a look found: changes of content in words, and what cannot be read."""

    changes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def look(project: Project, on_bytes: OnBytes = None, *, only_references: bool = False) -> Looked:
    """Look at every raw file and reference, and write to the catalog what changed. One stat a file."""
    found = Looked()
    _look_at_references(project, found, on_bytes)
    if not only_references:
        _look_at_files(project, found, on_bytes)
    return found


def look_on(project: Project, after: int, most: int) -> tuple[Looked, int]:
    """Look at the references and at the raw files of the next `most` entities. Returns where to go on; 0: at the begin.

    Looking at all files of a large cohort takes longer than a sensor should; in turn, each comes up again soon.
    """
    found = Looked()
    _look_at_references(project, found, None)
    with project.catalog.read() as connection:
        entities = select(file.c.entity).where(file.c.entity > after).distinct().order_by(file.c.entity).limit(most)
        numbers = connection.execute(entities).scalars().all()
    if numbers:
        _look_at_files(project, found, None, file.c.entity.between(numbers[0], numbers[-1]))
    return found, numbers[-1] if len(numbers) == most else 0


def _look_at_files(project: Project, found: Looked, on_bytes: OnBytes, some: ColumnElement[bool] | None = None) -> None:
    with project.catalog.read() as connection:
        rows = connection.execute(
            select(file, entity.c.level, entity.c.id)
            .join(entity, entity.c.seq == file.c.entity)
            .where(true() if some is None else some)
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
        if (seen.size, seen.mtime_ns, seen.inode) != (row.size, row.mtime_ns, row.inode):
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
    mine = (file.c.entity == bindparam("b_entity")) & (file.c.role == bindparam("b_role"))
    with project.catalog.write() as writer:
        looked = [(row, *digests[path]) for path, rows in touched.items() for row in rows]
        seen_now = [
            {
                "b_entity": row.entity,
                "b_role": row.role,
                "digest": digest,
                "size": seen.size,
                "mtime_ns": seen.mtime_ns,
                "inode": seen.inode,
                "problem": None,
            }
            for row, digest, seen in looked
        ]
        if seen_now:
            writer.execute(update(file).where(mine), seen_now)
        for row, digest, _ in looked:
            if digest != row.digest:
                node = name_of((row.level, row.id))
                found.changes.append(f"{node} {row.role} {short(row.digest)} → {short(digest)}")
                body = {"role": row.role, "path": row.path, "old": row.digest, "new": digest}
                writer.event("file", node, body)
        if problems:
            said_now = [{"b_entity": row.entity, "b_role": row.role, "problem": said} for row, said in problems]
            writer.execute(update(file).where(mine), said_now)
        for row, said in problems:
            body = {"role": row.role, "path": row.path, "problem": said}
            writer.event("file", name_of((row.level, row.id)), body)


def _look_at_references(project: Project, found: Looked, on_bytes: OnBytes) -> None:
    declared = project.settings.references
    with project.catalog.read() as connection:
        known = {row.key: row for row in connection.execute(select(reference))}
    good: dict[str, Path] = {}
    for key, path in project.references():
        problem = _reference_problem(declared[key], path)
        if problem is None:
            good[key] = path
        else:
            found.problems.append(problem)
    digests = digest_remembered(list(good.values()), Memory(project), on_bytes=on_bytes)
    changed = [
        (declared[key], *digests[path], known.get(key))
        for key, path in good.items()
        if _identity(known.get(key)) != (declared[key].version, digests[path][0])
        or known[key].path != declared[key].path
    ]
    if not changed:
        return
    with project.catalog.write() as writer:
        for said, digest, seen, old in changed:
            row = {
                "key": said.key,
                "version": said.version,
                "kind": said.kind,
                "path": said.path,
                "digest": digest,
                "size": seen.size,
            }
            upsert(writer, reference, [row], project.dialect)
            before = f"{old.version} {old.digest}" if old else None
            if old is not None:
                found.changes.append(f"reference/{reference_change(said.key, before, f'{said.version} {digest}')}")
            writer.event("reference", f"reference/{said.key}", {**row, "old": before})


def _identity(row: Any) -> tuple[str, str] | None:
    return (row.version, row.digest) if row is not None else None


def _reference_problem(said: Reference, path: Path) -> str | None:
    where = f"reference {said.key}: {said.path}"
    if not path.is_file():
        return f"{where} is not there; correct [references.{said.key}] path in ct.toml"
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
