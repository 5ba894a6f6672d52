"""From rows to patients, specimens and assays: IDs, parents, attributes and files, checked against each other."""

import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

from ctcore.errors import SheetError
from ctcore.model.column import Column, Value
from ctcore.model.levels import ENTITY_LEVELS, Level
from ctcore.model.schema import ID_PATTERN, Levels, folder_roles
from ctcore.model.values import convert_text, fit_word
from ctcore.sheet.checksum_lists import LENGTHS, add_listed_checksums
from ctcore.sheet.columns import SheetColumns, read_columns
from ctcore.sheet.file_paths import (
    IS_FILE,
    IS_FOLDER,
    FileClaim,
    InspectedFile,
    Place,
    files_in,
    inspect_file,
    inspect_folder,
)
from ctcore.sheet.made_ids import make_ids
from ctcore.sheet.mapped_values import way_to_map, with_values
from ctcore.sheet.options import STEM, Options
from ctcore.sheet.rows import Rows, read_table, rows_named, with_blanks
from ctcore.sheet.split_cells import split_cells
from ctcore.util.gc import without_collecting

# What a .csv has of IDs that Excel took for a day or a number (Ziemann et al. 2016, doi:10.1186/s13059-016-1044-7)
_MONTH = "(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)"
_EXCEL = re.compile(rf"[0-9]{{1,2}}-{_MONTH}(-[0-9]{{2,4}})?|{_MONTH}-[0-9]{{2,4}}|[0-9](\.[0-9]+)?E\+[0-9]{{2,}}")
# What R, pandas, Excel and people write where nothing is known
NOTHING = frozenset({"NA", "N/A", "n/a", "na", "NaN", "nan", "NULL", "null", "None", "-", ".", "?"})
_THOUSANDS = re.compile(r"[+-]?[0-9]{1,3}(\.[0-9]{3})+")

Converted = tuple[Value, str | None]  # a cell's value, and what is wrong with it
Stored = Callable[[Level, str], Mapping[str, Value] | None]  # an entity's values in the catalog, None: not there


@dataclass(slots=True)
class EntityRow:
    """One patient, specimen or assay. `row` is the line where it first stands; a blank cell is no attribute."""

    level: Level
    id: str
    parent: str | None
    attributes: dict[str, Value]
    files: dict[str, FileClaim]
    row: int
    implied: bool = False  # a patient that has only the ID of its specimen, for want of a column


@dataclass(frozen=True, slots=True)
class Sheet:
    """A whole sheet, by level, in its order."""

    path: Path
    entities: Mapping[Level, Mapping[str, EntityRow]]
    notes: tuple[str, ...] = ()  # what the file holds and was not taken
    subject: str = ""  # of whom it is, where it is no file
    is_pedigree: bool = False  # its parents were checked against each other


Beside = Callable[[Sheet], Iterable[str]]
"""What else is wrong with a sheet that is refused, as far as it could be read: all of it is said at once."""


@without_collecting
def read_sheet(
    path: Path,
    levels: Levels,
    options: Options | None = None,
    stored: Stored | None = None,
    beside: Beside = lambda _sheet: (),
) -> Sheet:
    """Read and check a sheet. SheetError carries every problem, with row, column, value and the way out.

    `stored` returns the catalog's values of an entity (None: it is new), so that a sheet need not repeat them.
    """
    options = options or Options()
    # path.resolve() would follow a sheet that is itself a link, and look for its files elsewhere
    table = read_table(path, options)
    options = table.reading.also(options)
    table = with_blanks(with_values(table, options, levels), options.blank)
    table = split_cells(table, options, levels)
    return read_rows(path, make_ids(table, options), levels, options, stored, beside)


def read_rows(
    path: Path,
    table: Rows,
    levels: Levels,
    options: Options,
    stored: Stored | None = None,
    beside: Beside = lambda _sheet: (),
) -> Sheet:
    """The entities of rows of text; `path` is where they are from, and its folder where their files are."""
    width = len(table.header)
    blank = [all(position >= len(cells) or not cells[position] for _, cells in table.rows) for position in range(width)]
    columns, problems = read_columns(table.header, blank, levels, options, table.lenient)
    problems += table.problems
    if not table.rows and not table.problems:
        problems.append(f"row {table.header_row + 1}: no assay; one row an assay is expected below the header")
    reader = _Reader(path.absolute().parent.resolve(), table, columns, levels)
    if columns.ids and not any(said.startswith("row 1: no column") for said in problems):
        reader.read([(line, cells) for line, cells in table.rows if len(cells) == width])
        reader.check_whole(stored or (lambda level, name: None))
    claims = list(_claims(reader.entities, folder_roles(levels))) if options.checksums else []
    wrong, listed = add_listed_checksums(options.checksums, claims, reader.folder)
    problems += [*reader.problems, *wrong]
    notes = (*table.notes, *listed, *_passed_over(table, columns), *_maybe_blank(table, columns))
    sheet = Sheet(path, reader.entities, notes, is_pedigree=table.lenient)
    if problems:
        listed = in_order(_of_header(problem, table.header_row) for problem in (*problems, *beside(sheet)))
        raise SheetError(str(path), [_with_file(table.files, problem) for problem in listed])
    return sheet


def _of_header(problem: str, row: int) -> str:
    """A problem of the header, with its row: there may be lines above it."""
    return re.sub(r"^row 1(?=[:,])", f"row {row}", problem)


def _claims(
    entities: Mapping[Level, Mapping[str, EntityRow]], folders: Collection[str]
) -> Iterator[tuple[int, str, FileClaim]]:
    """Every file that a list may name: of a folder, each that is in it."""
    for rows in entities.values():
        for row in rows.values():
            for role, claim in row.files.items():
                if role in folders:
                    claim.members = files_in(claim.name)
                yield from ((row.row, role, one) for one in ([claim] if claim.members is None else claim.members))


def _with_file(files: Mapping[int, str], problem: str) -> str:
    name = files.get(_row_of(problem))
    return problem if name is None else f"{name}: {problem}"


def _maybe_blank(table: Rows, columns: SheetColumns) -> Iterator[str]:
    """Words for nothing that are taken as texts."""
    for position, _, column in columns.attributes:
        if column.type == "text" and not column.enum and not table.lenient:
            words = Counter(cells[position] for _, cells in table.rows if cells[position : position + 1])
            for word in sorted(NOTHING.intersection(words)):
                many = f"{words[word]} row{'s' * (words[word] != 1)}"
                said = f"{word!r} in {many} is taken as a text; `--blank {word}` reads it as blank"
                yield f"{table.header[position]}: {said}"


def _passed_over(table: Rows, columns: SheetColumns) -> Iterator[str]:
    for position in columns.passed_over:
        values = sum(1 for _, cells in table.rows if any(cells[position : position + 1]))  # a row may be cut
        name = table.header[position]
        yield f"{name}: {values} value{'s' * (values != 1)} not taken; ct.toml declares no such column"


def in_order(problems: Iterable[str]) -> list[str]:
    """By their rows."""
    return sorted(problems, key=_row_of)


def _row_of(problem: str) -> int:
    found = re.match(r"rows? ([0-9]+)", problem)
    return int(found[1]) if found else 0


def _plain(text: str, kind: str, has_decimal_commas: bool) -> str:
    """A number or a day as programs write it: 61.0 and 61,0 are 61, midnight is nothing, 01.02.2024 is 2024-02-01."""
    if kind == "date":
        if found := re.fullmatch(r"([0-9]{4}-[0-9]{2}-[0-9]{2})[ T]00:00(:00(\.0+)?)?", text):
            return found[1]
        found = re.fullmatch(r"([0-9]{1,2})\.([0-9]{1,2})\.([0-9]{4})", text) if has_decimal_commas else None
        return f"{found[3]}-{found[2]:0>2}-{found[1]:0>2}" if found else text
    if kind not in ("integer", "real"):
        return text
    if has_decimal_commas and text.count(",") == 1 and "." not in text:
        text = text.replace(",", ".")
    whole = re.fullmatch(r"([+-]?[0-9]+)\.0+", text) if kind == "integer" else None
    return whole[1] if whole else text


class _Reader:
    """Reads the rows once and collects the problems."""

    def __init__(self, folder: Path, table: Rows, columns: SheetColumns, levels: Levels) -> None:
        self.folder, self.header, self.lenient = folder, table.header, table.lenient
        self.odd, self.has_decimal_commas, self.id_hint = table.odd, table.has_decimal_commas, table.id_hint
        self.is_sheet, self.files = table.is_sheet, table.files
        self.columns, self.levels = columns, levels
        self.has_assays = columns.is_about("assay")
        ids = [columns.ids[level] for level in ENTITY_LEVELS if level in columns.ids]
        self.whole = itemgetter(*ids) if len(ids) == len(ENTITY_LEVELS) else None  # the IDs of a row that has all
        self.problems: list[str] = []
        self.repeated: dict[int, list[str]] = {}  # by row, what keeps assays without IDs from contradicting others
        self.entities: dict[Level, dict[str, EntityRow]] = {level: {} for level in ENTITY_LEVELS}
        self.folded: dict[Level, dict[str, EntityRow]] = {level: {} for level in ENTITY_LEVELS}
        self.users: dict[Place, tuple[str, str]] = {}
        self.folders: dict[str, str] = {}
        self.looked: dict[tuple[str, bool], InspectedFile] = {}
        self.folder_roles = folder_roles(levels)
        self.converted: dict[int, dict[str, Converted]] = {position: {} for position, *_ in columns.attributes}
        self.said_later: dict[tuple[Level, str, str], int] = {}
        self.valid: dict[Level, dict[str, bool]] = {level: {} for level in ENTITY_LEVELS}
        self.complaints: set[tuple[str, str]] = set()
        self.refused: dict[int, set[tuple[Level, str]]] = {}  # by row, columns with a value that is none
        self.refused_words: dict[tuple[int, str, str], list[int]] = {}  # rows, by position, word and file of a folder
        self.unread: set[tuple[Level, str, str]] = set()  # the same by entity

    def read(self, rows: Sequence[tuple[int, list[str]]]) -> None:
        if not ("assay" in self.columns.ids or self.columns.lane is not None or not self.has_assays):
            self._refuse_repeated(rows)
        for line, cells in rows:
            patient, specimen, assay = self._ids(line, cells)
            if patient is not None and specimen is not None and assay is not None:
                self._row(line, cells, (patient, specimen, assay))
            else:
                self._attributes(line, cells)
        self.problems[:0] = [
            f"{rows_named(lines)}, column {self.header[position]}: {self.converted[position][text][1]}"
            for (position, text, _), lines in self.refused_words.items()
        ]

    def _refuse_repeated(self, rows: Sequence[tuple[int, list[str]]]) -> None:
        """A sample in several rows has several assays, and nothing names them. A number by their order would be another
        one's when a row comes or the sheet is sorted."""
        at = self.columns.ids.get("specimen")
        if at is None:
            return
        repeated: dict[str, list[int]] = {}
        for line, cells in rows:
            if cells[at]:
                repeated.setdefault(cells[at], []).append(line)
        file = next(iter(self.columns.files), None)
        way = f", or name assays by their files: --make 'assay_id={{specimen_id}}-{{{file}{STEM}}}'" if file else ""
        for specimen, lines in repeated.items():
            if len(lines) > 1:
                listed = list(dict.fromkeys(lines))
                what = "stands in several rows" if len(listed) > 1 else "has several files"
                said = f"{what} that nothing distinguishes; add a column lane or assay_id{way}"
                self.problems.append(f"{rows_named(listed)}: sample {specimen!r} {said}")
                for number, line in enumerate(lines, 1):
                    self.repeated.setdefault(line, []).append(f"{specimen}-{number}")

    def _ids(self, line: int, cells: list[str]) -> tuple[str | None, str | None, str | None]:
        """Patient, specimen and assay of a row; "" where the row is not about one, None where it is wrong.

        A row may end early: a patient without specimens, a specimen without assays. Without a column of its own,
        the patient or assay is the specimen.
        """
        at = self.columns.ids
        if self.whole is not None:
            patient, specimen, assay = self.whole(cells)
            if patient and specimen and assay:
                return (
                    self._id(line, "patient", at["patient"], patient),
                    self._id(line, "specimen", at["specimen"], specimen),
                    self._id(line, "assay", at["assay"], assay),
                )
        patient = cells[at["patient"]] if "patient" in at else ""
        specimen = cells[at["specimen"]] if "specimen" in at else ""
        assay = self._assay(line, cells, specimen)
        found_patient: str | None = ""
        if "patient" in at:
            found_patient = self._id(line, "patient", at["patient"], patient)
        elif specimen:
            found_patient = self._id(line, "patient", at["specimen"], specimen)
        found_specimen: str | None = ""
        if "specimen" in at and (specimen or assay or "patient" not in at):
            found_specimen = self._id(line, "specimen", at["specimen"], specimen)
        if self.columns.lane is not None and "assay" not in at and specimen and not cells[self.columns.lane]:
            lane = self.header[self.columns.lane]
            self.problems.append(f"row {line}, column {lane}: blank; name the lane, or add assay_id")
            return found_patient, found_specimen, None
        found_assay: str | None = ""
        if assay or list(at) == ["assay"]:
            where = at.get("assay", self.columns.lane if self.columns.lane is not None else at.get("specimen", 0))
            found_assay = None if found_specimen is None else self._id(line, "assay", where, assay)
        return found_patient, found_specimen, found_assay

    def _assay(self, line: int, cells: list[str], specimen: str) -> str:
        """The assay of a row: its ID, or one made from specimen and lane."""
        at, lane = self.columns.ids, self.columns.lane
        if "assay" in at:
            return cells[at["assay"]]
        if lane is not None:
            return f"{specimen}-{cells[lane]}" if cells[lane] else ""
        names = self.repeated.get(line)
        return (names.pop(0) if names else specimen) if self.has_assays else ""

    def _id(self, line: int, level: Level, position: int, entity_id: str) -> str | None:
        """The ID; None if it is invalid, which is reported once for each ID."""
        if self.odd and (shown := self.odd.get((line, position))):
            said = (
                f"{entity_id!r:.80} is {shown} there, and not the ID that was typed (Excel makes dates of 2-3 and MAR2)"
            )
            way = "format the column as text in the workbook, and type the ID anew"
            self.problems.append(f"row {line}, column {self.header[position]}: {said}; {way}")
            return None
        known = self.valid[level]
        if entity_id not in known:
            schema = self.levels[level]
            is_changed = schema.id_pattern == ID_PATTERN and _EXCEL.fullmatch(entity_id)
            known[entity_id] = schema.id_is_valid(entity_id) and not is_changed
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
        if _EXCEL.fullmatch(entity_id):
            way = "correct it in the source"
            if re.fullmatch(ID_PATTERN, entity_id):
                way += f", or allow it by an id_pattern of [levels.{level}]"
            return f"{shown} is what Excel makes of an ID such as MAR2, 2-3 or a long number; {way}"
        if re.fullmatch(ID_PATTERN, entity_id):
            return f"{shown} does not match {self.levels[level].id_pattern} of [levels.{level}]; correct the ID"
        safe = re.sub(r"[^A-Za-z0-9_.-]+", "_", entity_id).strip("_.-")[:64]
        hint = f", as in {safe}" if safe else ""
        hint += self.id_hint if level == "patient" else ""
        return f"{shown} is not an ID: 1 to 64 letters, digits, '_', '.' or '-', beginning with a letter or digit{hint}"

    def _row(self, line: int, cells: list[str], ids: tuple[str, str, str]) -> None:
        attributes = self._attributes(line, cells)
        if line in self.refused:
            self.unread |= {(level, ids[ENTITY_LEVELS.index(level)], name) for level, name in self.refused[line]}
        files = self._files(line, cells, ids)
        parent: str | None = None
        for level, entity_id in zip(ENTITY_LEVELS, ids, strict=True):
            if not entity_id:
                if attributes[level] or files[level]:
                    self._ownerless_value(line, level, [*attributes[level], *files[level]])
                continue
            known = self.entities[level].get(entity_id)
            row = EntityRow(level, entity_id, parent, attributes[level], files[level], line)
            if known is None:
                row.implied = level == "patient" and self.whole is None and "patient" not in self.columns.ids
                self._add(row)
            elif known.parent != parent or known.attributes != row.attributes or row.files:
                self._add_up(row, known)
            parent = entity_id

    def _ownerless_value(self, line: int, level: Level, names: list[str]) -> None:
        listed = ", ".join(names)
        said = f"a value of the {level}, but the row names none; fill in {level}_id, or remove the value"
        self.problems.append(f"row {line}, column {listed}: {said}")

    def _attributes(self, line: int, cells: list[str]) -> dict[Level, dict[str, Value]]:
        found: dict[Level, dict[str, Value]] = {level: {} for level in ENTITY_LEVELS}
        for position, level, column in self.columns.attributes:
            text = cells[position]
            value, problem = self.converted[position].get(text) or self._convert(position, level, column, text)
            if problem is not None:
                self.refused_words.setdefault((position, text, self.files.get(line, "")), []).append(line)
                self.refused.setdefault(line, set()).add((level, column.name))
            elif value is not None:
                found[level][column.name] = value
        return found

    def _convert(self, position: int, level: Level, column: Column, text: str) -> Converted:
        """Each text of a column is converted once; a blank cell has no value."""
        word = fit_word(text, column) if self.lenient else _plain(text, column.type, self.has_decimal_commas)
        value, problem = convert_text(word, column) if word else (None, None)
        if self.has_decimal_commas and column.type in ("integer", "real") and _THOUSANDS.fullmatch(text):
            value, problem = (
                None,
                "is a fraction, or has a point between thousands; write it with a comma, or without one",
            )
        way = way_to_map(text, level, column, self.levels) if column.enum and self.is_sheet else ""
        said = problem and f"{text!r:.80} {problem}{way}{self._blank_hint(text)}"
        return self.converted[position].setdefault(text, (value, said))

    def _blank_hint(self, text: str) -> str:
        is_word = text in NOTHING and self.is_sheet
        return f"; `--blank {text}`, or [sheet] blank in ct.toml, makes such cells blank" if is_word else ""

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
            if not re.fullmatch(rf"[0-9A-Fa-f]{{{LENGTHS[algorithm]}}}", text):
                self.problems.append(
                    f"{where}: {text!r:.80} is no {algorithm}; {LENGTHS[algorithm]} hexadecimal digits are expected"
                )
            elif role in found[level]:
                found[level][role].checksums[algorithm] = text.lower()
            elif not cells[self.columns.files[role][0]]:
                self.problems.append(f"{where}: a checksum without a file; name the file or remove the checksum")
        return found

    def _file(self, line: int, role: str, text: str, owner: str) -> FileClaim | None:
        path = self._absolute(text)
        is_folder = role in self.folder_roles
        looked = self.looked.get((path, is_folder))
        if looked is None:
            looked = self.looked[path, is_folder] = inspect_folder(path) if is_folder else inspect_file(path)
        problem, place, seen = looked
        if problem is None:
            user = (owner, role)
            before = self.users.setdefault(place, user)
            if before == user:
                return FileClaim(path, seen)
            problem = f"is already {before[1]} of {before[0]}; each file is given once"
        elif problem in (IS_FOLDER, IS_FILE):
            level = self.columns.files[role][1]
            what, other = ("folder", "files") if is_folder else ("file", "folders")
            problem = f"{problem}; name the {what} itself, or list {role} in {other} of [levels.{level}]"
        way = self._split_hint(text, role) if looked[0] is not None else ""
        self.problems.append(f"row {line}, column {role}: {text!r:.200} {problem}{self._blank_hint(text)}{way}")
        return None

    def _split_hint(self, text: str, role: str) -> str:
        """How to read several files in a cell, where each of them is there."""
        for separator in ";,| " if self.is_sheet else "":
            parts = [part.strip() for part in text.split(separator)]
            if len(parts) > 1 and all(part and os.path.exists(self._absolute(part)) for part in parts):
                return f"; `--split '{separator}'`, or [sheet] split in ct.toml, reads it as {len(parts)} files"
        return ""

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

    def check_whole(self, stored: Stored) -> None:
        """Checks that need all rows: required columns, here or in the catalog, and unique values."""
        self.stored = stored
        at = {(level, column.name): position for position, level, column in self.columns.attributes}
        for level in ENTITY_LEVELS:
            for column in self.levels[level].columns.values():
                position = at.get((level, column.name))
                if column.required and column.default is None:
                    self._check_required(level, column, position)
                if column.unique and position is not None:
                    self._check_unique(level, column, position)

    def _check_required(self, level: Level, column: Column, position: int | None) -> None:
        lacking = [row for row in self.entities[level].values() if column.name not in row.attributes]
        for row in lacking:
            if (level, row.id, column.name) in self.unread or self._is_stored(row, column):
                continue
            if position is None:
                self.problems.append(f"row 1: the required column {column.name!r} of {level} is missing; add it")
                return
            where = f"row {row.row}, column {self.header[position]}"
            self.problems.append(f"{where}: blank, but {level}.{column.name} is required; fill it in")

    def _is_stored(self, row: EntityRow, column: Column) -> bool:
        """The catalog has the value; a patient named only after its specimen is another one there, with its own."""
        known = self.stored(row.level, row.id)
        if known is None:
            return row.implied and self.stored("specimen", row.id) is not None
        return known.get(column.name) is not None

    def _check_unique(self, level: Level, column: Column, position: int) -> None:
        first: dict[Value, EntityRow] = {}
        for row in self.entities[level].values():
            value = row.attributes.get(column.name)
            other = row if value is None else first.setdefault(value, row)
            if other is not row:
                where = f"row {row.row}, column {self.header[position]}"
                said = f"{value!r:.80} of {row.id} is that of {other.id} (row {other.row}) already; correct one of them"
                self.problems.append(f"{where}: {said}")

    def _add(self, row: EntityRow) -> None:
        other = self.folded[row.level].setdefault(row.id.casefold(), row)
        if other is not row:
            self.problems.append(
                f"row {row.row}: {row.level} {row.id!r} differs from {other.id!r} (row {other.row}) only in "
                "case; use one spelling"
            )
        self.entities[row.level][row.id] = row

    def _add_up(self, row: EntityRow, known: EntityRow) -> None:
        """Add another row of the same entity, or report a contradiction."""
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
