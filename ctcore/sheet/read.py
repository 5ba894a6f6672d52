"""① From rows to patients, specimens and assays: IDs, parents, attributes and files, checked against each other."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from stat import S_ISREG
from typing import Any

from ctcore.collecting import without_collecting
from ctcore.digest import Signature
from ctcore.errors import SheetError
from ctcore.schema import ID_PATTERN, Column, Levels, Value
from ctcore.sheet.columns import Columns, read_columns
from ctcore.sheet.table import read_table
from ctcore.sheet.values import convert
from ctcore.step import ENTITY_LEVELS, Level

_LENGTHS = {"md5": 32, "sha256": 64, "blake3": 64}
_GZIP = b"\x1f\x8b"

Place = tuple[int, int]  # device and inode: one file, however it is called
Converted = tuple[Value, str | None]  # a cell's value, and what is wrong with it
Looked = tuple[str | None, Place, Signature]  # what is wrong with a file (None: nothing), where and how it is


@dataclass(slots=True)
class FileClaim:
    """A raw file that the sheet names: its absolute path, how it was found, and the checksums that are stated for it.

    The path is kept as text: of 100,000 files, as `Path` objects, it would cost as much as all other checks.
    """

    name: str
    seen: Signature
    checksums: dict[str, str] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        return Path(self.name)


@dataclass(slots=True)
class EntityRow:
    """One patient, specimen or assay. `row` is the line where it first stands; a blank cell is no attribute."""

    level: Level
    id: str
    parent: str | None
    attributes: dict[str, Value]
    files: dict[str, FileClaim]
    row: int


@dataclass(frozen=True, slots=True)
class Sheet:
    """A whole sheet, by level, in its order."""

    path: Path
    entities: Mapping[Level, Mapping[str, EntityRow]]


@without_collecting
def read_sheet(path: Path, levels: Levels) -> Sheet:
    """Read and check a sheet. SheetError carries every problem, with row, column, value and what to do."""
    table = read_table(path)
    width = len(table.header)
    blank = [all(position >= len(cells) or not cells[position] for _, cells in table.rows) for position in range(width)]
    columns, problems = read_columns(table.header, blank, levels)
    problems += table.problems
    if not table.rows and not table.problems:
        problems.append("row 2: no assay; one row an assay is expected below the header")
    # path.resolve() would follow a sheet that is itself a link, and look for its files elsewhere
    reader = _Reader(path.absolute().parent.resolve(), table.header, columns, levels)
    if "specimen" in columns.ids:
        reader.read([(line, cells) for line, cells in table.rows if len(cells) == width])
    problems = sorted([*problems, *reader.problems], key=_row_of)
    if problems:
        raise SheetError(str(path), problems)
    return Sheet(path, reader.entities)


def _row_of(problem: str) -> int:
    found = re.match(r"rows? ([0-9]+)", problem)
    return int(found[1]) if found else 0


class _Reader:
    """Goes through the rows once; what is wrong is collected, not raised."""

    def __init__(self, folder: Path, header: list[str], columns: Columns, levels: Levels) -> None:
        self.folder, self.header, self.columns, self.levels = folder, header, columns, levels
        self.problems: list[str] = []
        self.entities: dict[Level, dict[str, EntityRow]] = {level: {} for level in ENTITY_LEVELS}
        self.folded: dict[Level, dict[str, EntityRow]] = {level: {} for level in ENTITY_LEVELS}
        self.users: dict[Place, tuple[str, str]] = {}
        self.folders: dict[str, str] = {}
        self.looked: dict[str, Looked] = {}
        self.converted: dict[int, dict[str, Converted]] = {position: {} for position, *_ in columns.attributes}
        self.said_later: dict[tuple[Level, str, str], int] = {}
        self.valid: dict[Level, dict[str, bool]] = {level: {} for level in ENTITY_LEVELS}
        self.complaints: set[tuple[str, str]] = set()

    def read(self, rows: Sequence[tuple[int, list[str]]]) -> None:
        repeated: dict[str, list[int]] = {}
        for line, cells in rows:
            patient, specimen, assay = self._ids(line, cells)
            if specimen is not None and "assay" not in self.columns.ids and self.columns.lane is None:
                repeated.setdefault(specimen, []).append(line)
            if patient is not None and specimen is not None and assay is not None:
                self._row(line, cells, (patient, specimen, assay))
            else:
                self._attributes(line, cells)
        for specimen, lines in repeated.items():
            if len(lines) > 1:
                listed = ", ".join(map(str, lines[:20])) + ", …" * (len(lines) > 20)
                self.problems.append(
                    f"rows {listed}: sample {specimen!r} stands in several rows, which are not told apart; "
                    "add a column lane or assay_id"
                )

    def _ids(self, line: int, cells: list[str]) -> tuple[str | None, str | None, str | None]:
        """Patient, specimen and assay of a row; without a column of its own, the patient or assay is the specimen."""
        at, lane = self.columns.ids, self.columns.lane
        specimen = self._id(line, "specimen", at["specimen"], cells[at["specimen"]])
        if "patient" in at:
            patient = self._id(line, "patient", at["patient"], cells[at["patient"]])
        else:
            patient = specimen and self._id(line, "patient", at["specimen"], specimen)
        if "assay" in at:
            return patient, specimen, self._id(line, "assay", at["assay"], cells[at["assay"]])
        if lane is None:
            return patient, specimen, specimen and self._id(line, "assay", at["specimen"], specimen)
        if not cells[lane]:
            self.problems.append(f"row {line}, column {self.header[lane]}: blank; name the lane, or add assay_id")
            return patient, specimen, None
        return patient, specimen, specimen and self._id(line, "assay", lane, f"{specimen}-{cells[lane]}")

    def _id(self, line: int, level: Level, position: int, entity_id: str) -> str | None:
        """The ID, or None where it is not one, which is said once for each ID."""
        known = self.valid[level]
        if entity_id not in known:
            known[entity_id] = self.levels[level].id_is_valid(entity_id)
        if known[entity_id]:
            return entity_id
        column = self.header[position]
        if (column, entity_id) not in self.complaints or not entity_id:
            self.complaints.add((column, entity_id))
            self.problems.append(f"row {line}, column {column}: {self._bad_id(level, entity_id)}")
        return None

    def _bad_id(self, level: Level, entity_id: str) -> str:
        if not entity_id:
            return f"blank; every row needs the {level}'s ID"
        shown = repr(entity_id if len(entity_id) <= 80 else entity_id[:77] + "…")
        if re.fullmatch(ID_PATTERN, entity_id):
            return f"{shown} does not match {self.levels[level].id_pattern} of [levels.{level}]; correct the ID"
        safe = re.sub(r"[^A-Za-z0-9_.-]+", "_", entity_id).strip("_.-")[:64]
        hint = f", as in {safe}" if safe else ""
        return f"{shown} is not an ID: 1 to 64 letters, digits, '_', '.' or '-', beginning with a letter or digit{hint}"

    def _row(self, line: int, cells: list[str], ids: tuple[str, str, str]) -> None:
        attributes = self._attributes(line, cells)
        files = self._files(line, cells, ids)
        parent: str | None = None
        for level, entity_id in zip(ENTITY_LEVELS, ids, strict=True):
            known = self.entities[level].get(entity_id)
            row = EntityRow(level, entity_id, parent, attributes[level], files[level], line)
            if known is None:
                self._add(row)
            elif known.parent != parent or known.attributes != row.attributes or row.files:
                self._add_up(row, known)
            parent = entity_id

    def _attributes(self, line: int, cells: list[str]) -> dict[Level, dict[str, Value]]:
        found: dict[Level, dict[str, Value]] = {level: {} for level in ENTITY_LEVELS}
        for position, level, column in self.columns.attributes:
            text = cells[position]
            value, problem = self.converted[position].get(text) or self._convert(position, level, column, text)
            if problem is not None:
                self.problems.append(f"row {line}, column {self.header[position]}: {problem}")
            elif value is not None:
                found[level][column.name] = value
        return found

    def _convert(self, position: int, level: Level, column: Column, text: str) -> Converted:
        """Each text of a column is converted once; a blank cell has no value."""
        if text:
            value, problem = convert(text, column)
            said = problem and f"{text!r:.80} {problem}"
        else:
            value = None
            said = f"blank, but {level}.{column.name} is required; fill it in" if column.required else None
        return self.converted[position].setdefault(text, (value, said))

    def _files(self, line: int, cells: list[str], ids: tuple[str, str, str]) -> dict[Level, dict[str, FileClaim]]:
        found: dict[Level, dict[str, FileClaim]] = {level: {} for level in ENTITY_LEVELS}
        for role, (position, level) in self.columns.files.items():
            if text := cells[position]:
                claim = self._file(line, role, text, ids[ENTITY_LEVELS.index(level)])
                if claim is not None:
                    found[level][role] = claim
        for position, level, role, algorithm in self.columns.checksums:
            if not (text := cells[position]):
                continue
            where = f"row {line}, column {role}_{algorithm}"
            if not re.fullmatch(rf"[0-9A-Fa-f]{{{_LENGTHS[algorithm]}}}", text):
                self.problems.append(
                    f"{where}: {text!r:.80} is not a {algorithm}; {_LENGTHS[algorithm]} hexadecimal digits are expected"
                )
            elif role in found[level]:
                found[level][role].checksums[algorithm] = text.lower()
            elif not cells[self.columns.files[role][0]]:
                self.problems.append(f"{where}: a checksum without a file; name the file or remove the checksum")
        return found

    def _file(self, line: int, role: str, text: str, owner: str) -> FileClaim | None:
        path = self._absolute(text)
        looked = self.looked.get(path)
        if looked is None:
            looked = self.looked[path] = _looked_at(path)
        problem, place, seen = looked
        if problem is None:
            user = (owner, role)
            before = self.users.setdefault(place, user)
            if before == user:
                return FileClaim(path, seen)
            problem = f"is already {before[1]} of {before[0]}; each file is given once"
        self.problems.append(f"row {line}, column {role}: {text!r:.200} {problem}")
        return None

    def _absolute(self, text: str) -> str:
        """The path of a cell. Many files lie in few folders, so each folder is made out once."""
        folder, slash, name = text.rpartition("/")
        if not slash or name in ("", ".", ".."):
            return os.path.normpath(os.path.join(self.folder, os.path.expanduser(text)))
        known = self.folders.get(folder)
        if known is None:
            whole = os.path.normpath(os.path.join(self.folder, os.path.expanduser(folder + slash)))
            known = self.folders[folder] = os.path.join(whole, "")
        return known + name

    def _add(self, row: EntityRow) -> None:
        other = self.folded[row.level].setdefault(row.id.casefold(), row)
        if other is not row:
            self.problems.append(
                f"row {row.row}: {row.level} {row.id!r} differs from {other.id!r} (row {other.row}) only in "
                "case; use one spelling"
            )
        self.entities[row.level][row.id] = row

    def _add_up(self, row: EntityRow, known: EntityRow) -> None:
        """Another row of the same entity says more, or something else."""
        if known.parent != row.parent:
            above = ENTITY_LEVELS[ENTITY_LEVELS.index(row.level) - 1]
            self.problems.append(
                f"row {row.row}: {row.level} {row.id} belongs to {above} {row.parent} here and to {known.parent} "
                f"in row {known.row}; correct one of them"
            )
        for name, value in row.attributes.items():
            self._same(row, known, known.attributes, name, value)
        for role, claim in row.files.items():
            if role not in known.files:
                self.said_later[(row.level, row.id, role)] = row.row
            other = known.files.setdefault(role, FileClaim(claim.name, claim.seen))
            if other.name != claim.name:
                paths = {role: os.path.relpath(other.name, self.folder)}
                self._same(row, known, paths, role, os.path.relpath(claim.name, self.folder))
            for algorithm, text in claim.checksums.items():
                self._same(row, known, other.checksums, algorithm, text, f"{role}_{algorithm}")

    def _same(
        self, row: EntityRow, known: EntityRow, values: dict[str, Any], name: str, value: Value, column: str = ""
    ) -> None:
        """A value that an earlier row states must be equal; one that none states is taken."""
        key = (row.level, row.id, column or name)
        if name not in values:
            values[name] = value
            self.said_later[key] = row.row
        elif values[name] != value:
            line = self.said_later.get(key, known.row)
            self.problems.append(
                f"row {row.row}, column {column or name}: {row.level} {row.id} has {value!r:.80} here and "
                f"{values[name]!r:.80} in row {line}; correct one of them"
            )


def _looked_at(path: str) -> Looked:
    """Whether a file can be what the sheet says, and its place on disk, however it is called."""
    place, seen = (0, 0), Signature(0, 0, 0)
    try:
        stat = os.stat(path)
        place, seen = (stat.st_dev, stat.st_ino), Signature.seen(stat)
        if not S_ISREG(stat.st_mode):
            return "is not a file; name the file itself", place, seen
        if stat.st_size == 0:
            return "is empty (0 bytes); put the real file there", place, seen
        if not _opens_as_named(path):
            return "is named .gz, but is not gzip; compress it or rename it", place, seen
    except FileNotFoundError:
        return "is not there; correct the path (relative to the sheet) or put the file there", place, seen
    except (OSError, ValueError) as error:
        said = getattr(error, "strerror", None) or error
        return f"cannot be read: {said}; allow reading it", place, seen
    return None, place, seen


def _opens_as_named(path: str) -> bool:
    """Whether a file that is named .gz is gzip; OSError where it may not be read."""
    fd = os.open(path, os.O_RDONLY)
    try:
        return not path.endswith(".gz") or os.read(fd, 2) == _GZIP
    finally:
        os.close(fd)
