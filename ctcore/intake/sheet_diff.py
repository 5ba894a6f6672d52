"""A sheet against the catalog: what is new, what changes, what contradicts, and the rows to write."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from sqlalchemy import Connection, bindparam, select, update

from ctcore.catalog.engine import Writer, upsert
from ctcore.catalog.registered_again import write_what_waited
from ctcore.catalog.row_numbers import next_number
from ctcore.catalog.schema_triggers import applied_schema, enforce, is_applied, relax
from ctcore.catalog.tables import entity, file
from ctcore.errors import SheetError
from ctcore.governance.masking import WITHHELD, mask_of
from ctcore.intake.checksums import Digests
from ctcore.intake.raw_places import RawFile, RawKinds, RawPlaces
from ctcore.intake.schema_changes import StoredEntity, contradictions, differences, enforce_schema, in_words, refuse
from ctcore.model.column import Value
from ctcore.model.levels import ENTITY_LEVELS, Level
from ctcore.model.reasons import members_text
from ctcore.project import Project
from ctcore.sheet.parse import EntityRow, Sheet
from ctcore.sheet.pedigree import circle_in, circle_in_words
from ctcore.staleness.preview import Consequence
from ctcore.store.digest import canonical_json
from ctcore.store.folder_content import differing_members

# `row_numbers` counts on it: an event that is lost has given at most so many numbers.
EVENT_ROWS = 1000
PARENTS = ("father", "mother", "father_id", "mother_id")
"""Columns of patients that name patients, as a pedigree has them."""
Key = tuple[str, str]


class EntityRecord(NamedTuple):
    """A row of the table `entity`."""

    seq: int
    level: Level
    id: str
    parent: int | None
    attributes: str
    purged: int | None


class KnownFile(NamedTuple):
    """A row of the table `file`."""

    entity: int
    role: str
    path: str
    digest: str
    size: int
    mtime_ns: int
    inode: int
    ctime_ns: int
    problem: str | None


@dataclass
class SheetChanges:
    """What a sheet would do, by level: IDs that are new, changed (with what), and how many stay as they are."""

    new: dict[Level, list[str]] = field(default_factory=lambda: {level: [] for level in ENTITY_LEVELS})
    changed: dict[Level, dict[str, list[str]]] = field(default_factory=lambda: {level: {} for level in ENTITY_LEVELS})
    unchanged: dict[Level, int] = field(default_factory=lambda: dict.fromkeys(ENTITY_LEVELS, 0))
    schema: list[str] = field(default_factory=list)  # what of ct.toml is applied with it
    notes: tuple[str, ...] = ()  # what the file holds and was not taken
    consequences: list[Consequence] = field(default_factory=list)  # what would be stale, where it was asked
    as_before: tuple[str, int] | None = None  # not read: since when nothing has changed, and how many raw files say so

    def __bool__(self) -> bool:
        return any(self.new.values()) or any(self.changed.values())

    @property
    def known(self) -> dict[Level, int]:
        """How many will be unchanged when the same is registered again."""
        return {one: len(self.new[one]) + len(self.changed[one]) + self.unchanged[one] for one in ENTITY_LEVELS}


@dataclass(frozen=True)
class AllowedChanges:
    """Contradictions that were asked for by name: IDs to move, and level.column values to replace."""

    reparent: frozenset[str] = frozenset()
    update: frozenset[str] = frozenset()


class Comparison:
    """The sheet against the catalog, within one view of it; without digests, all but the content of files."""

    def __init__(
        self, project: Project, sheet: Sheet, digests: Digests | None, allowed: AllowedChanges, connection: Connection
    ) -> None:
        self.project, self.sheet, self.digests, self.allowed = project, sheet, digests, allowed
        self.levels = project.settings.levels
        self.unique = {
            level: [column.name for column in self.levels[level].columns.values() if column.unique]
            for level in ENTITY_LEVELS
        }
        self.defaults = {
            level: {one.name: one.default for one in self.levels[level].columns.values() if one.default is not None}
            for level in ENTITY_LEVELS
        }
        self.changes = SheetChanges(notes=sheet.notes)
        self.problems: list[str] = []
        self._load(connection)
        self._compare()
        self._check_places()
        self._check_unique()
        self._check_parents()
        if self.problems:
            raise SheetError(str(sheet.path), self.problems)
        self._check_schema(connection)

    def _load(self, connection: Connection) -> None:
        rows = list(map(EntityRecord._make, connection.execute(select(entity))))
        self.known = {(row.level, row.id): row for row in rows}
        self.next_seq = next_number(connection, entity.c.seq)
        files = map(KnownFile._make, connection.execute(select(*(file.c[name] for name in KnownFile._fields))))
        self.files = {(row.entity, row.role): row for row in files}
        self.parsed: dict[str, dict[str, Value]] = {}
        self.new_rows: list[dict[str, Any]] = []
        self.changed_rows: list[dict[str, Any]] = []
        self.new_files: list[dict[str, Any]] = []
        self.told_files: list[dict[str, Any]] = []

    def _check_schema(self, connection: Connection) -> None:
        """Where ct.toml is not what the database enforces: do the data keep it, these rows included?"""
        self.schema_differs = not is_applied(connection, self.levels)
        if self.schema_differs:
            self.schema = applied_schema(connection)
            refuse(self.project, contradictions(list(self._after()), self.levels))
            self.changes.schema += [] if self.schema is None else in_words(differences(self.schema, self.levels))

    def _after(self) -> Iterator[StoredEntity]:
        """Everybody as they will be."""
        changed = {row["b_seq"]: row for row in self.changed_rows}
        parsed: dict[str, Any] = {}
        for row in self.known.values():
            now = changed.get(row.seq)
            if row.purged is not None and now is None:
                continue
            text, parent = (now["attributes"], now["parent"]) if now else (row.attributes, row.parent)
            if text not in parsed:
                parsed[text] = json.loads(text)
            yield StoredEntity(row.seq, row.level, row.id, parent, parsed[text])
        for new in self.new_rows:
            yield StoredEntity(new["seq"], new["level"], new["id"], new["parent"], json.loads(new["attributes"]))

    def _check_unique(self) -> None:
        if not any(self.unique.values()) or not (self.new_rows or self.changed_rows):
            return
        owners: dict[tuple[Level, str, Any], str] = {}
        for one in self._after():
            for column in self.unique[one.level]:
                value = one.attributes.get(column)
                first = one.id if value is None else owners.setdefault((one.level, column, value), one.id)
                said = self.sheet.entities[one.level]
                row, other = (said[one.id], first) if one.id in said else (said.get(first), one.id)
                if first != one.id and row is not None:
                    hidden = other in self._hidden[one.level] and other not in said
                    whose = WITHHELD if hidden else f"{one.level} {other}"
                    self._problem(row, f"{value!r:.80} of {row.id} is that of {whose} already; correct one", column)

    def _check_parents(self) -> None:
        """Nobody is among their own ancestors, by what the sheet and the catalog say together."""
        columns = [name for name in PARENTS if name in self.levels["patient"].columns]
        said = self.sheet.entities["patient"]
        mine = {name for name, row in said.items() if any(column in row.attributes for column in columns)}
        if not mine or not (self.new_rows or self.changed_rows):
            return
        parents = {
            one.id: {str(one.attributes[column]) for column in columns if one.attributes.get(column)}
            for one in self._after()
            if one.level == "patient"
        }
        while circle := circle_in(parents):
            first = min(circle, key=lambda name: said[name].row if name in said else math.inf)
            at = circle.index(first)
            people = [*circle[at:], *circle[:at]]
            if not mine.isdisjoint(people) and not (self.sheet.is_pedigree and said.keys() >= {*people}):
                hidden = self._hidden["patient"]
                shown = [WITHHELD if name in hidden and name not in said else name for name in people]
                self._problem(said[first], circle_in_words(shown))
            parents = {name: some for name, some in parents.items() if name not in circle}

    @cached_property
    def folded(self) -> dict[Key, str]:
        return {(level, name.casefold()): name for level, name in self.known}

    @cached_property
    def by_seq(self) -> dict[int, EntityRecord]:
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
        return None if said is not None and user.role in said.files else f"{user.role} of {self._named(owner)}"

    def _check_places(self) -> None:
        """Each file is given once: nothing of another raw file lies in a folder, or around it."""
        kinds = RawKinds(self.project)
        folders, former = kinds.folders, any(known.role not in kinds.roles for known in self.files.values())
        rows = [row for level in ENTITY_LEVELS for row in self.sheet.entities[level].values()]
        claims = [(row, role, claim.name) for row in rows for role, claim in row.files.items()]
        if not (folders or former) or not claims:
            return
        said = {((row.level, row.id), role) for row, role, _ in claims}
        files = [RawFile((row.level, row.id), role, path, role in folders) for row, role, path in claims]
        for known in self.files.values():
            owner = self.by_seq[known.entity]
            if ((owner.level, owner.id), known.role) not in said:
                path = self.project.located(known.path)
                files.append(RawFile((owner.level, owner.id), known.role, path, kinds.is_folder(known.role, path)))
        places, told = RawPlaces(self.project, files), set[RawFile]()
        for (row, role, path), mine in zip(claims, files, strict=False):
            if (problem := places.problem(mine)) is not None:
                self._problem(row, f"{self.project.recorded(path)} {problem}", role)
            if (other := places.other(mine)) is not None and other not in told:
                told.add(mine)
                self._problem(row, self._in_common(mine, other), role)

    def _in_common(self, mine: RawFile, other: RawFile) -> str:
        owner = self.known.get(other.owner)
        whose = other.owner[1] if owner is None else self._named(owner)
        where = "" if whose == WITHHELD else f", {self.project.recorded(other.path)}"
        said = f"{self.project.recorded(mine.path)} has files of {other.role} of {whose}{where}"
        return f"{said}; each file is given once: correct the sheet"

    def _compare(self) -> None:
        parents: dict[str | None, int | None] = {None: None}
        for level in ENTITY_LEVELS:
            mine: dict[str | None, int | None] = {}
            for row in self.sheet.entities[level].values():
                known = self.known.get((level, row.id))
                if row.implied and known is None and self._belongs_elsewhere(row):
                    mine[row.id] = None
                elif known is None:
                    mine[row.id] = self._new(level, row, parents.get(row.parent))
                else:
                    mine[row.id] = known.seq
                    stays = row.parent is None or self._is_implied(level, row)
                    self._again(level, row, known, known.parent if stays else parents[row.parent])
            parents = mine

    def _is_implied(self, level: Level, row: EntityRow) -> bool:
        """The sheet has no column for the patients: a specimen that is known stays where it is."""
        return level == "specimen" and self.sheet.entities["patient"][row.parent or ""].implied

    def _belongs_elsewhere(self, row: EntityRow) -> bool:
        """A patient that is named only after its specimen, which has another one."""
        specimen = self.known.get(("specimen", row.id))
        if specimen is not None and row.attributes and specimen.parent is not None:
            owner = self._named(self.by_seq[specimen.parent])
            columns = ", ".join(row.attributes)
            self._problem(row, f"{columns} belongs to a patient, and {row.id} belongs to {owner}; add patient_id")
        return specimen is not None

    def _new(self, level: Level, row: EntityRow, parent: int | None) -> int:
        """Its number: that of its place in the order of registration."""
        other = self.folded.get((level, row.id.casefold()))
        if other is not None:
            hidden = other in self._hidden[level]
            said = WITHHELD if hidden else f"{other} of the catalog"
            way = "choose another ID" if hidden else f"use {other}"
            self._problem(row, f"{level} {row.id} differs from {said} only in case; {way}")
        above = {"specimen": "patient", "assay": "specimen"}.get(level)
        if above is not None and row.parent is None:
            self._problem(row, f"{level} {row.id} is new, and needs its {above}; name it ({above}_id)")
        seq = self.next_seq
        attributes = canonical_json({**self.defaults[level], **row.attributes}).decode()
        self.next_seq += 1
        self.new_rows.append({"seq": seq, "level": level, "id": row.id, "parent": parent, "attributes": attributes})
        self._files_of(level, row, seq)
        self.changes.new[level].append(row.id)
        return seq

    def _again(self, level: Level, row: EntityRow, known: EntityRecord, parent: int | None) -> None:
        if known.purged is not None and (row.attributes or row.files):
            self._problem(row, f"{level} {row.id} was purged (purge {known.purged}); take the row out of the sheet")
            return
        said: list[str] = []
        if parent != known.parent or not self._says_the_same(row.attributes, known.attributes):
            said += [*self._moved(level, row, known, parent), *self._attributes(level, row, known, parent)]
        said += self._files_of(level, row, known.seq)
        if said:
            self.changes.changed[level][row.id] = said
        else:
            self.changes.unchanged[level] += 1

    def _says_the_same(self, attributes: dict[str, Value], text: str) -> bool:
        """Whether a text of the catalog holds these values and no others; each text is parsed once."""
        known = self.parsed.get(text)
        if known is None:
            known = self.parsed[text] = json.loads(text)
        # Types too: in Python 1, 1.0 and True are equal, and in the catalog they are three values.
        return known == attributes and [type(known[name]) for name in attributes] == [*map(type, attributes.values())]

    def _moved(self, level: Level, row: EntityRow, known: EntityRecord, parent: int | None) -> Iterator[str]:
        if parent == known.parent or known.parent is None:
            return
        before = self._named(self.by_seq[known.parent])
        if row.id in self.allowed.reparent:
            yield f"parent {before} → {row.parent}"
        else:
            self._problem(
                row,
                f"{level} {row.id} belongs to {before} in the catalog and to {row.parent} here; "
                f"correct the sheet, or move it with --reparent {row.id}",
            )

    def _attributes(self, level: Level, row: EntityRow, known: EntityRecord, parent: int | None) -> list[str]:
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
                    f"{level} {row.id} has {self._known(level, row.id, old)} in the catalog and {value!r} here; "
                    f"correct the sheet, or replace it with --update {name}",
                    column,
                )
                continue
            before = self._known(level, row.id, old)
            said.append(f"{column} {before} → {value!r}" if old is not None else f"{column} = {value!r}")
            merged[column] = value
        if said or parent != known.parent:
            attributes = canonical_json(merged).decode()
            self.changed_rows.append({"b_seq": known.seq, "parent": parent, "attributes": attributes})
        return said

    def _named(self, one: EntityRecord) -> str:
        """The ID of somebody of the catalog; not of those without consent, unless the sheet has it too."""
        named = one.id not in self._hidden[one.level] or one.id in self.sheet.entities[one.level]
        return one.id if named else WITHHELD

    def _known(self, level: Level, who: str, value: Value) -> str:
        """A value of the catalog; not of those without consent."""
        return "another value" if who in self._hidden[level] else repr(value)

    @cached_property
    def _hidden(self) -> Mapping[str, Set[str]]:
        return mask_of(self.project).ids

    def _files_of(self, level: Level, row: EntityRow, seq: int) -> list[str]:
        said = []
        for role, claim in row.files.items():
            path = self.project.recorded(claim.name)
            old = self.files.get((seq, role))
            if self.digests is not None:
                digest, seen = self.digests[claim.name]
                if old == (seq, role, path, digest, *seen, None):
                    continue
            if (old is None or old.path != path) and (user := self._user(path)) is not None:
                said_user = f"{path} is already {user} in the catalog; each file is given once: correct the sheet"
                self._problem(row, said_user, role)
            if self.digests is None:
                continue
            digest, seen = self.digests[claim.name]
            now = (seq, role, path, digest, *seen, None)
            self.new_files.append(dict(zip(KnownFile._fields, now, strict=True)))
            changed = old is None or (old.digest, old.path) != (digest, path)
            if changed or (old is not None and old.problem is not None):
                self.told_files.append(self.new_files[-1])
            if changed:
                said.append(self._file_change(level, row.id, old, self.new_files[-1]))
        return said

    def _file_change(self, level: Level, who: str, old: KnownFile | None, new: Mapping[str, Any]) -> str:
        """What the sheet changes of a file: without what the catalog has of those without consent."""
        role, path, digest = new["role"], new["path"], new["digest"]
        if old is None:
            return f"{role} none → {path}"
        hidden = who in self._hidden[level]
        inside = [] if hidden else differing_members(self.project.store.root, old.digest, digest)
        moved = [f"{WITHHELD if hidden else old.path} → {path}"] if old.path != path else []
        other = [f"other content{members_text(inside)}"] if old.digest != digest else []
        return f"{role} {', '.join(moved + other)}"

    def _problem(self, row: EntityRow, said: str, column: str | None = None) -> None:
        where = f"row {row.row}" + (f", column {column}" if column else "")
        self.problems.append(f"{where}: {said}")

    def write(self, writer: Writer) -> None:
        """Insert and update everything, and say so in events of bounded size."""
        # values that two entities swap are twice there for a moment
        relaxed = self.schema_differs or bool(self.changed_rows and any(self.unique.values()))
        if relaxed:
            relax(writer.connection)
        writer.insert(entity, self.new_rows)
        if self.changed_rows:
            writer.execute(update(entity).where(entity.c.seq == bindparam("b_seq")), self.changed_rows)
        upsert(writer, file, self.new_files)
        subject = self.sheet.subject or self.project.recorded(self.sheet.path)
        for kind, rows in (("new", self.new_rows), ("changed", self.changed_rows), ("files", self.told_files)):
            for some in _chunks(rows, EVENT_ROWS):
                writer.event("register", subject, {kind: some})
        write_what_waited(writer, {f"{row['level']}/{row['id']}" for row in self.new_rows})
        if self.schema_differs:
            enforce_schema(writer, self.schema, self.levels)
        elif relaxed:
            enforce(writer.connection, self.levels)


def _chunks(rows: Sequence[dict[str, Any]], size: int) -> Iterable[Sequence[dict[str, Any]]]:
    return (rows[at : at + size] for at in range(0, len(rows), size))
