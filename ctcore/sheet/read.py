"""① From rows to patients, specimens and assays: IDs, parents, attributes and files, checked against each other."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from stat import S_ISREG

from ctcore.errors import SheetError
from ctcore.schema import ID_PATTERN, Levels, Value
from ctcore.sheet.columns import Columns, read_columns
from ctcore.sheet.table import Rows, read_table
from ctcore.sheet.values import convert
from ctcore.step import ENTITY_LEVELS, Level

SHOWN = 200
_LENGTHS = {"md5": 32, "sha256": 64, "blake3": 64}
_GZIP = b"\x1f\x8b"


@dataclass(slots=True)
class FileClaim:
    """A raw file that the sheet names: an absolute path, and the checksums that the sheet states for it."""

    path: Path
    checksums: dict[str, str] = field(default_factory=dict)


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


def read_sheet(path: Path, levels: Levels) -> Sheet:
    """Read and check a sheet. SheetError carries every problem, with row, column, value and what to do."""
    table = read_table(path)
    blank = [
        all(position >= len(cells) or not cells[position] for _, cells in table.rows)
        for position in range(len(table.header))
    ]
    columns, problems = read_columns(table.header, blank, levels)
    problems += table.problems
    if not table.rows:
        problems.append("row 2: no assay; one row an assay is expected below the header")
    if problems:
        raise SheetError(str(path), problems)
    reader = _Reader(path, table, columns, levels)
    reader.read()
    if reader.problems:
        shown = reader.problems[:SHOWN]
        if len(reader.problems) > SHOWN:
            shown.append(f"… and {len(reader.problems) - SHOWN} more problems of the same kinds")
        raise SheetError(str(path), shown)
    return Sheet(path, reader.entities)


class _Reader:
    """Goes through the rows once; what is wrong is collected, not raised."""

    def __init__(self, path: Path, table: Rows, columns: Columns, levels: Levels) -> None:
        self.folder = path.absolute().parent
        self.table, self.columns, self.levels = table, columns, levels
        self.problems: list[str] = []
        self.entities: dict[Level, dict[str, EntityRow]] = {level: {} for level in ENTITY_LEVELS}
        self.folded: dict[tuple[Level, str], EntityRow] = {}
        self.users: dict[str, tuple[str, str]] = {}
        self.seen_paths: dict[str, str | None] = {}
        self.patterns = {level: re.compile(levels[level].id_pattern) for level in ENTITY_LEVELS}
        self.complaints: set[tuple[str, str]] = set()

    def read(self) -> None:
        ids = self._ids()
        for (line, cells), row_ids in zip(self.table.rows, ids, strict=True):
            if row_ids is not None:
                self._row(line, cells, row_ids)

    def _ids(self) -> list[tuple[str, str, str] | None]:
        """Patient, specimen and assay of each row; the patient is the specimen where a sheet has no patients."""
        at = self.columns.ids
        found: list[tuple[str, str, str] | None] = []
        repeated: dict[str, list[int]] = {}
        for line, cells in self.table.rows:
            specimen = cells[at["specimen"]]
            patient = cells[at["patient"]] if "patient" in at else specimen
            if "assay" in at:
                assay = cells[at["assay"]]
            elif self.columns.lane is not None:
                assay = f"{specimen}-{cells[self.columns.lane]}"
            else:
                assay = specimen
                repeated.setdefault(specimen, []).append(line)
            found.append(self._checked(line, patient, specimen, assay))
        for specimen, lines in repeated.items():
            if len(lines) > 1:
                listed = ", ".join(map(str, lines))
                self.problems.append(
                    f"rows {listed}: sample {specimen!r} stands in several rows, which are not told apart; "
                    "add a column lane or assay_id"
                )
        return found

    def _checked(self, line: int, *ids: str) -> tuple[str, str, str] | None:
        good = True
        for level, entity_id in zip(ENTITY_LEVELS, ids, strict=True):
            if entity_id and self.patterns[level].fullmatch(entity_id):
                continue
            good = False
            if (level, entity_id) not in self.complaints or not entity_id:
                self.complaints.add((level, entity_id))
                self.problems.append(self._bad_id(line, level, entity_id))
        return (ids[0], ids[1], ids[2]) if good else None

    def _bad_id(self, line: int, level: Level, entity_id: str) -> str:
        where = f"row {line}, column {self._name_of(level)}"
        if not entity_id:
            return f"{where}: the {level}'s ID is blank; every row needs one"
        shown = repr(entity_id if len(entity_id) <= 80 else entity_id[:77] + "…")
        pattern = self.levels[level].id_pattern
        if pattern != ID_PATTERN:
            return f"{where}: {shown} does not match the pattern {pattern} of [levels.{level}]; correct the ID"
        safe = re.sub(r"[^A-Za-z0-9_.-]+", "_", entity_id).strip("_.-")[:64]
        hint = f", as in {safe}" if safe else ""
        return (
            f"{where}: {shown} is not an ID: 1 to 64 letters, digits, '_', '.' or '-', "
            f"beginning with a letter or digit{hint}"
        )

    def _name_of(self, level: Level) -> str:
        position = self.columns.ids.get(level, self.columns.ids["specimen"])
        return self.table.header[position]

    def _row(self, line: int, cells: list[str], ids: tuple[str, str, str]) -> None:
        attributes = self._attributes(line, cells)
        files = self._files(line, cells, ids)
        parent: str | None = None
        for level, entity_id in zip(ENTITY_LEVELS, ids, strict=True):
            row = EntityRow(level, entity_id, parent, attributes[level], files[level], line)
            self._add(row)
            parent = entity_id

    def _attributes(self, line: int, cells: list[str]) -> dict[Level, dict[str, Value]]:
        found: dict[Level, dict[str, Value]] = {level: {} for level in ENTITY_LEVELS}
        for position, level, column in self.columns.attributes:
            text = cells[position]
            if not text:
                if column.required:
                    where = f"row {line}, column {column.name}"
                    self.problems.append(f"{where}: blank, but {level}.{column.name} is required; fill it in")
                continue
            value, problem = (text, None) if column.type == "text" and not column.enum else convert(text, column)
            if problem is not None:
                self.problems.append(f"row {line}, column {column.name}: {text!r:.80} {problem}")
            elif value is not None:
                found[level][column.name] = value
        return found

    def _files(self, line: int, cells: list[str], ids: tuple[str, str, str]) -> dict[Level, dict[str, FileClaim]]:
        found: dict[Level, dict[str, FileClaim]] = {level: {} for level in ENTITY_LEVELS}
        owners = dict(zip(ENTITY_LEVELS, ids, strict=True))
        for position, level, role in self.columns.files:
            if text := cells[position]:
                claim = self._file(line, role, text, owners[level])
                if claim is not None:
                    found[level][role] = claim
        for position, level, role, algorithm in self.columns.checksums:
            if not (text := cells[position]):
                continue
            where = f"row {line}, column {role}_{algorithm}"
            if not re.fullmatch(rf"[0-9A-Fa-f]{{{_LENGTHS[algorithm]}}}", text):
                self.problems.append(
                    f"{where}: {text!r:.80} is not a {algorithm} ({_LENGTHS[algorithm]} hexadecimal digits)"
                )
            elif role in found[level]:
                found[level][role].checksums[algorithm] = text.lower()
            elif not cells[next(p for p, _, r in self.columns.files if r == role)]:
                self.problems.append(f"{where}: a checksum without a file; name the file or remove the checksum")
        return found

    def _file(self, line: int, role: str, text: str, owner: str) -> FileClaim | None:
        where = f"row {line}, column {role}: {text!r:.200}"
        path = os.path.normpath(os.path.join(self.folder, os.path.expanduser(text)))
        if path not in self.seen_paths:
            self.seen_paths[path] = _file_problem(path)
        problem = self.seen_paths[path]
        if problem is not None:
            self.problems.append(f"{where} {problem}")
            return None
        before = self.users.setdefault(path, (owner, role))
        if before != (owner, role):
            self.problems.append(f"{where} is already {before[1]} of {before[0]}; each file is given once")
            return None
        return FileClaim(Path(path))

    def _add(self, row: EntityRow) -> None:
        known = self.entities[row.level].get(row.id)
        if known is None:
            other = self.folded.setdefault((row.level, row.id.casefold()), row)
            if other is not row:
                self.problems.append(
                    f"row {row.row}: {row.level} {row.id!r} differs from {other.id!r} (row {other.row}) only in "
                    "case; use one spelling"
                )
            self.entities[row.level][row.id] = row
            return
        if known.parent != row.parent:
            above = ENTITY_LEVELS[ENTITY_LEVELS.index(row.level) - 1]
            self.problems.append(
                f"row {row.row}: {row.level} {row.id} belongs to {above} {row.parent} here and to {known.parent} "
                f"in row {known.row}; correct one of them"
            )
        for name, value in row.attributes.items():
            if known.attributes.setdefault(name, value) != value:
                self._conflict(row, known, name, known.attributes[name], value)
        for role, claim in row.files.items():
            other = known.files.setdefault(role, claim)
            if other.path != claim.path or other.checksums != claim.checksums:
                self._conflict(row, known, role, other.path.name, claim.path.name)

    def _conflict(self, row: EntityRow, known: EntityRow, name: str, old: object, new: object) -> None:
        self.problems.append(
            f"row {row.row}, column {name}: {row.level} {row.id} has {new!r} here and {old!r} in row {known.row}; "
            "correct one of them"
        )


def _file_problem(path: str) -> str | None:
    """Why a file cannot be what the sheet says; None where it can."""
    try:
        stat = os.stat(path)
        if not S_ISREG(stat.st_mode):
            return "is not a file; name the file itself"
        if stat.st_size == 0:
            return "is empty (0 bytes); put the real file there"
        with open(path, "rb") as stream:
            if path.endswith(".gz") and stream.read(2) != _GZIP:
                return "is named .gz, but is not gzip; compress it or rename it"
    except FileNotFoundError:
        return "is not there; correct the path (relative to the sheet) or put the file there"
    except (OSError, ValueError) as error:
        return f"cannot be read: {getattr(error, 'strerror', None) or error}; allow reading it"
    return None
