"""② Registering a sheet: compare with the catalog, refuse what contradicts it, write the rest in one transaction."""

import difflib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import Connection, bindparam, func, select, update

from ctcore.catalog.engine import Writer
from ctcore.catalog.tables import entity, file, setting
from ctcore.checksums import Digests, read_claimed
from ctcore.collecting import without_collecting
from ctcore.digest import canonical, digest_files
from ctcore.errors import SheetError, Usage
from ctcore.ledger import upsert
from ctcore.project import Project
from ctcore.schema import Levels
from ctcore.sheet import EntityRow, Sheet, read_sheet
from ctcore.step import ENTITY_LEVELS, Level

EVENT_ROWS = 1000
Key = tuple[str, str]


class Known(NamedTuple):
    """A row of the table `entity`."""

    seq: int
    level: Level
    id: str
    parent: int | None
    attributes: str


class KnownFile(NamedTuple):
    """A row of the table `file`."""

    entity: int
    role: str
    path: str
    digest: str
    size: int
    mtime_ns: int
    inode: int
    problem: str | None


@dataclass
class Changes:
    """What a sheet would do, by level: IDs that are new, changed (with what), and how many stay as they are."""

    new: dict[Level, list[str]] = field(default_factory=lambda: {level: [] for level in ENTITY_LEVELS})
    changed: dict[Level, dict[str, list[str]]] = field(default_factory=lambda: {level: {} for level in ENTITY_LEVELS})
    unchanged: dict[Level, int] = field(default_factory=lambda: dict.fromkeys(ENTITY_LEVELS, 0))

    def __bool__(self) -> bool:
        return any(self.new.values()) or any(self.changed.values())


@dataclass(frozen=True)
class Allowed:
    """Contradictions that were asked for by name: IDs to move, and level.column values to replace."""

    reparent: frozenset[str] = frozenset()
    update: frozenset[str] = frozenset()


@without_collecting
def register(
    project: Project,
    path: Path,
    allowed: Allowed | None = None,
    *,
    dry_run: bool = False,
    on_bytes: Callable[[int], None] | None = None,
) -> Changes:
    """Bring the catalog to what the sheet says. Either all of it is written or nothing.

    Raises SheetError with every problem: of the sheet itself, of its checksums, and with the catalog.
    """
    allowed = allowed or Allowed()
    sheet = read_sheet(path, project.settings.levels)
    _check_allowed(allowed, sheet, project.settings.levels)

    def refuse_contradictions() -> None:  # before hours of reading files, not after
        with project.catalog.read() as connection:
            _Comparison(project, sheet, None, allowed, connection)

    digests = read_claimed(
        project, sheet, remember=not dry_run, before_reading=refuse_contradictions, on_bytes=on_bytes
    )
    if dry_run:
        with project.catalog.read() as connection:
            return _Comparison(project, sheet, digests, allowed, connection).changes
    with project.catalog.write() as writer:
        comparison = _Comparison(project, sheet, digests, allowed, writer.connection)
        comparison.write(writer)
        remembered = {"name": "sheet", "value": project.recorded(path)}
        upsert(writer, setting, [remembered], project.dialect)
    return comparison.changes


def known_sheet(project: Project) -> Path | None:
    """The sheet of ct.toml, or else the one that was registered last."""
    if project.settings.sheet is not None:
        return project.absolute(project.settings.sheet)
    with project.catalog.read() as connection:
        found = connection.execute(select(setting.c.value).where(setting.c.name == "sheet")).scalar()
    return project.absolute(found) if found else None


def _check_allowed(allowed: Allowed, sheet: Sheet, levels: Levels) -> None:
    """An allowance that names nothing is a slip of the hand, and what it was meant for would be refused."""
    columns = [f"{level}.{name}" for level in ENTITY_LEVELS for name in levels[level].columns]
    ids = [*sheet.entities["specimen"], *sheet.entities["assay"]]
    for option, names, known in (("--update", allowed.update, columns), ("--reparent", allowed.reparent, ids)):
        for name in sorted(names - set(known)):
            near = difflib.get_close_matches(name, known, 1)
            what = "column of ct.toml" if option == "--update" else "specimen or assay of the sheet"
            hint = f"did you mean {near[0]}?" if near else "see `ct register --help`"
            raise Usage(f"{option} {name}: no such {what}; {hint}")


class _Comparison:
    """The sheet against the catalog, within one view of it; without digests, all but the content of files."""

    def __init__(
        self, project: Project, sheet: Sheet, digests: Digests | None, allowed: Allowed, connection: Connection
    ) -> None:
        self.project, self.sheet, self.digests, self.allowed = project, sheet, digests, allowed
        self.changes = Changes()
        self.problems: list[str] = []
        self._load(connection)
        self._compare()
        if self.problems:
            raise SheetError(str(sheet.path), self.problems)

    def _load(self, connection: Connection) -> None:
        rows = list(map(Known._make, connection.execute(select(entity))))
        self.known = {(row.level, row.id): row for row in rows}
        self.next_seq = max((row.seq for row in rows), default=0) + 1
        files = map(KnownFile._make, connection.execute(select(file)))
        self.files = {(row.entity, row.role): row for row in files}
        self.new_rows: list[dict[str, Any]] = []
        self.changed_rows: list[dict[str, Any]] = []
        self.new_files: list[dict[str, Any]] = []
        self.told_files: list[dict[str, Any]] = []

    @cached_property
    def folded(self) -> dict[Key, str]:
        return {(level, name.casefold()): name for level, name in self.known}

    @cached_property
    def by_seq(self) -> dict[int, Known]:
        return {row.seq: row for row in self.known.values()}

    @cached_property
    def users(self) -> dict[str, KnownFile]:
        return {row.path: row for row in self.files.values()}

    def _user(self, path: str) -> str | None:
        """Whose a file is and stays: what the sheet gives a new file for is free, so that files can be swapped."""
        user = self.users.get(path)
        if user is None:
            return None
        owner = self.by_seq[user.entity]
        said = self.sheet.entities[owner.level].get(owner.id)
        return None if said is not None and user.role in said.files else f"{user.role} of {owner.id}"

    def _compare(self) -> None:
        parents: dict[str | None, int | None] = {None: None}
        for level in ENTITY_LEVELS:
            mine: dict[str | None, int | None] = {}
            for row in self.sheet.entities[level].values():
                known, parent = self.known.get((level, row.id)), parents[row.parent]
                if known is None:
                    mine[row.id] = self._new(level, row, parent)
                else:
                    mine[row.id] = known.seq
                    self._again(level, row, known, parent)
            parents = mine

    def _new(self, level: Level, row: EntityRow, parent: int | None) -> int:
        """Its number: that of its place in the order of registration."""
        other = self.folded.get((level, row.id.casefold()))
        if other is not None:
            self._problem(row, f"{level} {row.id} differs from {other} of the catalog only in case; use {other}")
        seq, attributes = self.next_seq, canonical(row.attributes).decode()
        self.next_seq += 1
        self.new_rows.append({"seq": seq, "level": level, "id": row.id, "parent": parent, "attributes": attributes})
        self._files_of(row, seq)
        self.changes.new[level].append(row.id)
        return seq

    def _again(self, level: Level, row: EntityRow, known: Known, parent: int | None) -> None:
        text, said = canonical(row.attributes).decode(), list[str]()
        if text != known.attributes or parent != known.parent:
            said += [*self._moved(level, row, known, parent), *self._attributes(level, row, known, parent)]
        said += self._files_of(row, known.seq)
        if said:
            self.changes.changed[level][row.id] = said
        else:
            self.changes.unchanged[level] += 1

    def _moved(self, level: Level, row: EntityRow, known: Known, parent: int | None) -> Iterator[str]:
        if parent == known.parent or known.parent is None:
            return
        before = self.by_seq[known.parent].id
        if row.id in self.allowed.reparent:
            yield f"parent {before} → {row.parent}"
        else:
            self._problem(
                row,
                f"{level} {row.id} belongs to {before} in the catalog and to {row.parent} here; "
                f"correct the sheet, or move it with --reparent {row.id}",
            )

    def _attributes(self, level: Level, row: EntityRow, known: Known, parent: int | None) -> list[str]:
        """Blank cells keep what is known, known blanks are filled, a contradiction must be asked for."""
        merged, said = json.loads(known.attributes), []
        for column, value in row.attributes.items():
            old = merged.get(column)
            if old == value and type(old) is type(value):
                continue
            name = f"{level}.{column}"
            if old is not None and name not in self.allowed.update:
                self._problem(
                    row,
                    f"{level} {row.id} has {old!r} in the catalog and {value!r} here; "
                    f"correct the sheet, or replace it with --update {name}",
                    column,
                )
                continue
            said.append(f"{column} {old!r} → {value!r}" if old is not None else f"{column} = {value!r}")
            merged[column] = value
        if said or parent != known.parent:
            attributes = canonical(merged).decode()
            self.changed_rows.append({"b_seq": known.seq, "parent": parent, "attributes": attributes})
        return said

    def _files_of(self, row: EntityRow, seq: int) -> list[str]:
        said = []
        for role, claim in row.files.items():
            path = self.project.recorded(claim.name)
            old = self.files.get((seq, role))
            if (old is None or old.path != path) and (user := self._user(path)) is not None:
                said_user = f"{path} is already {user} in the catalog; each file is given once: correct the sheet"
                self._problem(row, said_user, role)
            if self.digests is None:
                continue
            digest, seen = self.digests[claim.name]
            now = (seq, role, path, digest, *seen, None)
            if old == now:
                continue
            self.new_files.append(dict(zip(KnownFile._fields, now, strict=True)))
            if old is None or (old.digest, old.path) != (digest, path):
                self.told_files.append(self.new_files[-1])
                said.append(_file_change(role, old, path, digest))
        return said

    def _problem(self, row: EntityRow, said: str, column: str | None = None) -> None:
        where = f"row {row.row}" + (f", column {column}" if column else "")
        self.problems.append(f"{where}: {said}")

    def write(self, writer: Writer) -> None:
        """Insert and update everything, and say so in events of bounded size."""
        writer.insert(entity, self.new_rows)
        if self.changed_rows:
            writer.execute(update(entity).where(entity.c.seq == bindparam("b_seq")), self.changed_rows)
        upsert(writer, file, self.new_files, self.project.dialect)
        subject = self.project.recorded(self.sheet.path)
        for kind, rows in (("new", self.new_rows), ("changed", self.changed_rows), ("files", self.told_files)):
            for some in _chunks(rows, EVENT_ROWS):
                writer.event("register", subject, {kind: some})


def _chunks(rows: Sequence[dict[str, Any]], size: int) -> Iterable[Sequence[dict[str, Any]]]:
    return (rows[at : at + size] for at in range(0, len(rows), size))


def sheet_digest(path: Path) -> str:
    """What the sheet sensor compares: the digest of the sheet's bytes."""
    return digest_files([path])[path]


def count_entities(connection: Connection) -> dict[str, int]:
    rows = connection.execute(select(entity.c.level, func.count()).group_by(entity.c.level))
    return {row[0]: row[1] for row in rows}


def _file_change(role: str, old: KnownFile | None, path: str, digest: str) -> str:
    if old is None:
        return f"{role} none → {path}"
    moved = [f"{old.path} → {path}"] if old.path != path else []
    other = ["other content"] if old.digest != digest else []
    return f"{role} {', '.join(moved + other)}"
