"""Broken sheets and broken ct.toml by the hundred: each lands whole or not at all, and is refused in words.

CT_EXAMPLES says how many (10000 takes minutes); a failure names its seed.
"""

import copy
import csv
import datetime
import json
import os
import random
import re
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import openpyxl
import pytest
from openpyxl.utils.exceptions import IllegalCharacterError
from sqlalchemy import select

from ctcore.catalog.event_log import check_chain
from ctcore.catalog.schema_triggers import applied_schema, is_enforced
from ctcore.catalog.tables import entity, event, file, setting
from ctcore.errors import CtError, ProjectError, SheetError
from ctcore.intake.register import register, register_entity
from ctcore.intake.schema_changes import apply, contradictions, entities
from ctcore.intake.sheet_diff import AllowedChanges
from ctcore.model.levels import ENTITY_LEVELS, Level
from ctcore.model.schema import as_json
from ctcore.project import Project
from tests.helpers.kit import again

EXAMPLES = int(os.environ.get("CT_EXAMPLES", "300"))
TOML = """\
[project]
id = "toy"

[levels.patient.columns]
sex = { enum = ["F", "M", "it's"], required = true }
age = "integer"
mrn = { unique = true }
born = "date"
note = {}

[levels.specimen.columns]
site = { default = "blood" }
purity = "real"

[levels.assay]
files = ["reads"]

[levels.assay.columns]
library = {}
paired = "boolean"

[sheet.values]
sex = { XX = "F", XY = "M", U = "it's" }
"assay.paired" = { both = true, single = "no" }

[references.genome]
path = "genome.txt"
version = "1"

[cohorts.women.where]
"patient.sex" = "F"

[steps]
folders = ["steps"]
"""
SHEET = """\
patient_id,sex,age,mrn,born,note,specimen_id,site,purity,assay_id,library,paired,reads
P1,F,40,m1,2001-02-03,,S1,lung,0.5,A1,L1,true,reads/A1.txt
P1,F,40,m1,,,S1,lung,,A2,L1,yes,reads/A2.txt
P2,M,50,,,text,S2,,1e-3,A3,,single,reads/A3.txt
P3,it's,,m3,,,,,,,,,
P4,XX,,,,,S4,blood,,,,,
"""
HOSTILE = [
    "'; DROP TABLE entity; --", '"; DELETE FROM entity; --', "' OR '1'='1", "$(touch pwned)", "`id`", "../../passwd",
    "<script>alert(1)</script>", "{{7*7}}", "%s%n", "%(x)s", "\\", "\\'", "=cmd|' /C calc'!A0", "\u202etxt",
    "\ufeff", "é", "NaN", "Infinity", "-0", "1e999", "0x10", "٣", "TRUE", "null", "None", "a" * 5000, "\t", "\x1b[31m",
    "0012", "1_000", "2024-02-30", "0000-01-01", "9" * 30, ":name", "?", "{}", "[]", ";", "NULL", "\x7f", "a\nb",
    "a\"b", "A,B", "😀",
]  # fmt: skip
PIECES = [
    ",",
    "\n",
    '"',
    "\t",
    "=",
    "[",
    "]",
    "{",
    "}",
    "'",
    "#",
    "\0",
    "\r",
    " ",
    ".",
    "é",
    "enum",
    "true",
    "P1",
    "S1",
]
Mutator = Callable[[random.Random, str], str]


def _cells(text: str) -> list[list[str]]:
    return [line.split(",") for line in text.splitlines()] or [[""]]


def _text(rows: list[list[str]]) -> str:
    return "\n".join(",".join(map(_quoted, row)) for row in rows) + "\n"


def _quoted(cell: str) -> str:
    return '"' + cell.replace('"', '""') + '"' if set(cell) & set(',"\n') else cell


def _hostile_cell(random_: random.Random, text: str) -> str:
    rows = _cells(text)
    row = random_.choice(rows[random_.random() > 0.1 :] or rows)
    row[random_.randrange(len(row))] = random_.choice(HOSTILE)
    return _text(rows)


def _other_cell(random_: random.Random, text: str) -> str:
    rows = _cells(text)
    row, other = random_.choice(rows), random_.choice(rows)
    row[random_.randrange(len(row))] = random_.choice(other)
    return _text(rows)


def _rows(random_: random.Random, text: str) -> str:
    rows = _cells(text)
    at = random_.randrange(len(rows))
    change = random_.choice(["twice", "gone", "cut", "longer", "shuffled", "case"])
    if change == "twice":
        rows.insert(at, list(rows[at]))
    elif change == "gone":
        del rows[at]
    elif change == "cut":
        rows[at] = rows[at][: random_.randrange(len(rows[at]))]
    elif change == "longer":
        rows[at].append("x")
    elif change == "case":
        rows[at] = [cell.swapcase() for cell in rows[at]]
    else:
        random_.shuffle(rows)
    return _text(rows)


def _columns(random_: random.Random, text: str) -> str:
    rows = _cells(text)
    gone = random_.sample(range(len(rows[0])), random_.randint(1, max(1, len(rows[0]) - 1)))
    return _text([[cell for at, cell in enumerate(row) if at not in gone] for row in rows])


def _characters(random_: random.Random, text: str) -> str:
    for _ in range(random_.randint(1, 4)):
        at = random_.randrange(len(text) + 1)
        text = text[:at] + random_.choice([*PIECES, ""]) + text[at + random_.randint(0, 3) :]
    return text


def _lines(random_: random.Random, text: str) -> str:
    lines = text.splitlines() or [""]
    at = random_.randrange(len(lines))
    lines[at : at + random_.randint(0, 2)] = [random_.choice(lines)] * random_.randint(0, 2)
    return "\n".join(lines)


def _hostile_word(random_: random.Random, text: str) -> str:
    words = text.split('"')
    words[random_.randrange(len(words))] = random_.choice(HOSTILE).replace('"', '\\"').replace("\\'", "\\\\'")
    return '"'.join(words)


SHEET_MUTATORS: list[Mutator] = [_hostile_cell, _hostile_cell, _other_cell, _rows, _columns, _characters]
TOML_MUTATORS: list[Mutator] = [_characters, _lines, _lines, _hostile_word]


def mutated(random_: random.Random, text: str, mutators: list[Mutator]) -> str:
    for _ in range(random_.choice([1, 1, 1, 2, 3])):
        text = random_.choice(mutators)(random_, text) or "x"
    return text


def state(project: Project) -> dict[str, list[Any]]:
    """All that registering may write, apart from remembered digests."""
    with project.catalog.read() as connection:
        found = {table.name: connection.execute(select(table)).all() for table in (entity, file, event, setting)}
    return {name: sorted(map(tuple, rows), key=repr) for name, rows in found.items()}


def check_whole(project: Project) -> None:
    """Everybody is as declared, the database sees to it, and the chain and the journal tell of all."""
    with project.catalog.read() as connection:
        levels = applied_schema(connection)
        assert levels is not None
        assert contradictions(entities(connection), levels) == []
        assert is_enforced(connection, levels)
        rows = [dict(row) for row in connection.execute(select(event).order_by(event.c.seq)).mappings()]
    assert check_chain(iter(rows)) == []
    assert list(project.catalog.journal.read()) == rows


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Patients with and without specimens, assays with files, every kind of column."""
    root = tmp_path / "toy"
    (root / "reads").mkdir(parents=True)
    (root / "steps").mkdir()
    for name in ("A1", "A2", "A3", "B1", "B2", "B3"):
        (root / f"reads/{name}.txt").write_text(f"reads of {name}\n")
    (root / "ct.toml").write_text(TOML)
    (root / "genome.txt").write_text("ACGT\n")
    (root / "sheet.csv").write_text(SHEET)
    opened = Project.find(root)
    register(opened, root / "sheet.csv")
    return opened


def test_a_broken_sheet_lands_whole_or_not_at_all(project: Project) -> None:
    landed = 0
    allowed = AllowedChanges(update=frozenset({"patient.age", "patient.mrn", "specimen.site"}))
    for seed in range(EXAMPLES):
        random_ = random.Random(seed)
        path = project.root / random_.choice(["broken.csv", "broken.csv", "broken.tsv"])
        above = random_.choice(["", "", "", "Study LUNG,,\n# a note\n\n"])
        below = random_.choice(["", "", "# end of the report\n"])
        data = mutated(random_, above + SHEET + below, SHEET_MUTATORS).encode("utf-8", "surrogatepass")
        path.write_bytes(data if random_.random() > 0.05 else data[: random_.randrange(len(data))] + b"\xff")
        before = state(project)
        try:
            register(project, path, allowed if random_.random() > 0.5 else None)
            landed += 1
        except SheetError as error:
            assert all(problem and "\n" not in problem for problem in error.problems), f"seed {seed}: {error}"
            assert state(project) == before, f"seed {seed}: half of it was written"
        except Exception as error:
            raise AssertionError(f"seed {seed}: {data!r}") from error
    check_whole(project)
    assert 0 < landed < EXAMPLES
    assert not (project.root / "pwned").exists()


FOREIGN = (
    TOML.replace("note = {}", 'note = {}\nfamily = {}\naffected = "boolean"')
    .replace("required = true", "required = false")
    .replace('site = { default = "blood" }', 'site = { default = "blood" }\nsampled_tissue = {}')
    .replace("[sheet.values]", '[sheet]\nsplit = ";"\n\n[sheet.values]')
)
PED = """\
#FID IID F M SEX PHENOTYPE
F1 P1 0 0 2 1
F1 P2 0 0 1 -9
F1 C1 P2 P1 1 2
F2 C2 0 0 0 0
"""
PACKETS: list[dict[str, Any]] = [
    {
        "subject": {"id": "P1", "sex": "FEMALE", "note": "seen"},
        "biosamples": [
            {"id": "S1", "sampledTissue": {"id": "UBERON:1", "label": "lung"}, "purity": 0.5},
            {"id": "S7", "individualId": "P1"},
        ],
        "diseases": [{"term": {"id": "x"}}],
    },
    {"proband": {"subject": {"id": "C1", "sex": "MALE"}}, "relatives": [{"subject": {"id": "P2"}}]},
    {"members": [{"subject": {"id": "C3", "age": 12}, "biosamples": []}]},
]
ODD = [None, True, 0, -1, 1e22, 12.5, float("nan"), float("inf"), [], {}, {"id": "x"}, [[]], "\ud800", "P1", "S1"]
SAMPLES = """\
[Header],,,
Date,6/24/2020,,
[Reads],,,
151,,,
[Data],,,
Lane,Sample_ID,library,Index
1,S1,L1,ACGT
2,S1,L1,ACGT
1,S8,L8,TTGT
[Cloud_Data],,,
Sample_ID,Project,,
"""
CELLS = """\
sample,lane,reads
S7,L1;L2,reads/B1.txt;reads/B2.txt
S8,L1,reads/B3.txt
"""
Whole = list[tuple[Level, str, str | None]]  # level, ID and parent of all that a file names


def _named(random_: random.Random, text: str) -> str:
    """The same of people of whom nobody has heard, every other time."""
    return re.sub(r"\b([PCSAm][0-9])\b", rf"\1x{random_.randrange(10**6)}", text) if random_.random() < 0.5 else text


def _workbook(random_: random.Random, path: Path) -> None:
    """The sheet as a workbook: a cell is something else, or its XML is damaged, or its bytes are."""
    book = openpyxl.Workbook()
    tab, rows = (
        book.worksheets[0],
        [row[:-1] for row in _cells(_named(random_, SHEET))],
    )  # without files: each is given once
    for row in rows:
        tab.append([int(cell) if cell.isdigit() else cell or None for cell in row])
    for _ in range(random_.randint(0, 3)):
        cell = tab.cell(random_.randint(1, len(rows)), random_.randint(1, len(rows[0])))
        try:
            cell.value = random_.choice([*HOSTILE, *ODD, datetime.date(2001, 2, 3), datetime.time(4), "P9", "S9"])
            cell.number_format = random_.choice(["General", "0000", "yyyy-mm-dd", "0%"])
        except (ValueError, IllegalCharacterError):
            cell.value = None  # its type is the refused value's already
    book.save(path)
    if random_.random() < 0.5:
        _damage_xml(random_, path)
    if random_.random() < 0.2:
        path.write_bytes(_damaged(random_, path.read_bytes()))


def _damage_xml(random_: random.Random, path: Path) -> None:
    """The number of a row, column or text, or a few characters, in one part of a workbook."""
    with zipfile.ZipFile(path) as packed:
        parts = {name: packed.read(name) for name in packed.namelist()}
    name = random_.choice(["xl/worksheets/sheet1.xml"] * 4 + sorted(parts))
    text = parts[name].decode()
    if random_.random() < 0.7:
        numbers = [found.span() for found in re.finditer(r"[A-Z]?[0-9]+(?=[\"<:])", text)]
        at = random_.choice(numbers or [(0, 0)])
        text = text[: at[0]] + random_.choice(["A1", "1", "2", "9", "99999999999", "ZZZ1", "-1", ""]) + text[at[1] :]
    else:
        text = _characters(random_, text)
    with zipfile.ZipFile(path, "w") as packed:
        for part, data in {**parts, name: text.encode("utf-8", "replace")}.items():
            packed.writestr(part, data)


def _in_workbook(path: Path) -> Whole:
    """As openpyxl reads a whole workbook into memory, where ct reads it row by row."""
    header, *rows = openpyxl.load_workbook(path, data_only=True).worksheets[0].iter_rows()
    names = [str(cell.value).strip() for cell in header]
    found: Whole = []
    for row in rows:
        said = {name: _shown(cell) for name, cell in zip(names, row, strict=True)}
        found += _chain(*(said.get(f"{level}_id", "") for level in ("patient", "specimen", "assay")))
    return found


def _shown(cell: Any) -> str:
    value = cell.value
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    zeros = len(cell.number_format) if set(cell.number_format) == {"0"} and type(value) is int else 0
    return "" if value is None else str(value).strip().zfill(zeros)


def _chain(patient: str, specimen: str, assay: str) -> Whole:
    levels: Whole = [("patient", patient, None), ("specimen", specimen, patient or None), ("assay", assay, specimen)]
    return [one for one in levels if one[1]]


def _pedigree(random_: random.Random, path: Path) -> None:
    comma = mutated(random_, _named(random_, PED).replace(" ", ","), SHEET_MUTATORS)
    path.write_bytes(comma.replace(",", random_.choice(" \t")).encode("utf-8", "surrogatepass"))


def _in_pedigree(path: Path) -> Whole:
    """Individuals, in the column that a header gives them."""
    lines = [line.split() for line in re.split("[\r\n]+", path.read_text("utf-8-sig")) if line.split()]
    names = [name.lstrip("#").lower() for name in lines[0]]
    at, rows = (names.index("iid"), lines[1:]) if "iid" in names else (1, lines)
    return [("patient", cells[at], None) for cells in rows if cells[0][0] != "#" and cells[0].lower() != "fid"]


def _samples(random_: random.Random, path: Path) -> None:
    text = mutated(random_, _named(random_, SAMPLES), SHEET_MUTATORS)
    path.write_bytes(text.encode("utf-8", "surrogatepass"))


def _in_samples(path: Path) -> Whole:
    """Samples with their lanes, below [Data]."""
    rows = [[cell.strip() for cell in row] for row in csv.reader(path.read_text("utf-8-sig").splitlines()) if any(row)]
    begin = next(at for at, row in enumerate(rows) if row[0].lower() == "[data]") + 1
    end = next((at for at, row in enumerate(rows) if at > begin and row[0][:1] == "["), len(rows))
    header = [name.lower() for name in rows[begin]]
    if not {"lane", "sample_id"} <= {*header}:
        return []
    cells = [dict(zip(header, row, strict=False)) for row in rows[begin + 1 : end] if row[0][:1] != "#"]
    named = [(one.get("sample_id", ""), one.get("lane", "")) for one in cells]
    return [("assay", f"{sample}-{lane}", sample) for sample, lane in named if sample]


def _cells_of_files(random_: random.Random, path: Path) -> None:
    path.write_bytes(mutated(random_, CELLS, SHEET_MUTATORS).encode("utf-8", "surrogatepass"))


def _in_cells(path: Path) -> Whole:
    """Each file of a cell has the lane of its place."""
    rows = list(csv.reader(path.read_text("utf-8-sig").splitlines()))
    header, found = [name.lower().strip() for name in rows[0]], Whole()
    if header != ["sample", "lane", "reads"]:
        return []
    for sample, lane, reads in (
        map(str.strip, row) for row in rows[1:] if len(row) == 3 and row[0][:1] not in ("", "#")
    ):
        lanes = [one.strip() for one in lane.split(";")] if ";" in reads else [lane]
        found += [("assay", f"{sample}-{one}", sample) for one in lanes]
    return found


def _packet(random_: random.Random, path: Path) -> None:
    document: Any = copy.deepcopy(random_.choice([PACKETS, *PACKETS]))
    for _ in range(random_.randint(0, 3)):
        _change_tree(random_, document)
    text = _named(random_, json.dumps(document, indent=random_.choice([None, 1])))
    if random_.random() < 0.3:
        text = _characters(random_, text)
    path.write_bytes(text.encode("utf-8", "surrogatepass"))


def _change_tree(random_: random.Random, document: Any) -> None:
    """One place of a tree is something else, gone, twice, or has another name."""
    places: list[tuple[Any, Any]] = []
    todo = [document]
    while todo:
        one = todo.pop()
        inside = list(one.items()) if isinstance(one, dict) else list(enumerate(one)) if isinstance(one, list) else []
        places += [(one, key) for key, _ in inside]
        todo += [value for _, value in inside]
    if not places:
        return
    owner, key = random_.choice(places)
    change = random_.choice(["other", "other", "gone", "named"])
    if change == "other":
        owner[key] = copy.deepcopy(random_.choice([*ODD, *HOSTILE, *PACKETS]))
    elif change == "named" and isinstance(owner, dict):
        owner[random_.choice(["id", "sex", "x", "individualId", "biosamples", *HOSTILE])] = owner.pop(key)
    else:
        del owner[key]


def _in_packets(path: Path) -> Whole:
    """Subjects and biosamples, wherever they stand."""
    found: Whole = []
    todo = [json.loads(path.read_text("utf-8-sig"))]
    while todo:
        one = todo.pop()
        if isinstance(one, list):
            todo += one
        elif isinstance(one, dict) and ("subject" in one or "biosamples" in one):
            subject = one.get("subject", {})
            found += [("patient", str(subject["id"]), None)] if "id" in subject else []
            for sample in one.get("biosamples", []):
                found.append(("specimen", str(sample["id"]), str(sample.get("individualId") or subject["id"])))
        elif isinstance(one, dict):
            todo += [one[key] for key in ("members", "proband", "relatives") if key in one]
    return found


def _damaged(random_: random.Random, data: bytes) -> bytes:
    damaged = bytearray(data)
    for _ in range(random_.randint(1, 4)):
        damaged[random_.randrange(len(damaged))] = random_.randrange(256)
    return bytes(damaged)


@pytest.mark.parametrize(
    ("name", "write", "inside"),
    [
        ("broken.xlsx", _workbook, _in_workbook),
        ("broken.ped", _pedigree, _in_pedigree),
        ("broken.json", _packet, _in_packets),
        ("SampleSheet.csv", _samples, _in_samples),
        ("cells.csv", _cells_of_files, _in_cells),
    ],
)
def test_a_foreign_sheet_lands_whole_or_not_at_all(
    project: Project, name: str, write: Callable[[random.Random, Path], None], inside: Callable[[Path], Whole]
) -> None:
    (project.root / "ct.toml").write_text(FOREIGN)
    project, path, landed = again(project), project.root / name, 0
    apply(project)
    columns = [f"{level}.{one}" for level in ENTITY_LEVELS for one in project.settings.levels[level].columns]
    allowed = AllowedChanges(update=frozenset(columns))
    before = state(project)
    for seed in range(EXAMPLES // 3):
        random_ = random.Random(seed)
        write(random_, path)
        try:
            register(project, path, allowed if random_.random() > 0.5 else None)
        except SheetError as error:
            assert all(problem and "\n" not in problem for problem in error.problems), f"seed {seed}: {error}"
            assert state(project) == before, f"seed {seed}: half of it was written"
            continue
        except Exception as error:
            raise AssertionError(f"seed {seed}: {path.read_bytes()!r}") from error
        landed += 1
        before = state(project)
        assert missing(before, inside(path)) == [], f"seed {seed}: {path.read_bytes()!r}"
    check_whole(project)
    assert 0 < landed < EXAMPLES // 3


def missing(state: dict[str, list[Any]], named: Whole) -> Whole:
    """Who of a file is not in the catalog, or belongs to somebody else there."""
    ids = {row[0]: row[2] for row in state["entity"]}
    there = {(row[1], row[2], ids.get(row[3])) for row in state["entity"]}
    return [one for one in named if one not in there]


def test_a_broken_declaration_is_told_and_the_data_keep_it(project: Project) -> None:
    for seed in range(EXAMPLES):
        random_ = random.Random(seed)
        text = mutated(random_, TOML, TOML_MUTATORS)
        (project.root / "ct.toml").write_bytes(text.encode("utf-8", "surrogatepass"))
        changed = again(project)
        before = state(project)
        try:
            if changed.id != project.id:
                continue
            register(changed, project.root / "sheet.csv")
        except (ProjectError, SheetError) as error:
            assert str(error)
            assert state(project) == before, f"seed {seed}: half of it was written"
        except Exception as error:
            raise AssertionError(f"seed {seed}: {text}") from error
        else:
            with changed.catalog.read() as connection:
                now = applied_schema(connection)
                assert now is not None
                assert as_json(now) == as_json(changed.settings.levels), f"seed {seed}"
                assert is_enforced(connection, now), f"seed {seed}"
        finally:
            changed.__dict__.get("catalog", project.catalog).engine.dispose()
    (project.root / "ct.toml").write_text(TOML)
    check_whole(project)


def test_a_hostile_text_stays_a_text_or_is_refused(project: Project) -> None:
    owners: list[tuple[Level, str, str | None, str]] = [
        ("patient", "P", None, "note"),
        ("specimen", "S", "P3", "site"),
        ("assay", "A", "S4", "library"),
    ]
    for number, hostile in enumerate(text for text in HOSTILE if text.strip()):
        for level, prefix, parent, column in owners:
            name, before = f"{prefix}x{number}", state(project)
            values = {column: hostile} | ({"sex": "F"} if level == "patient" else {})
            try:
                register_entity(project, level, name, parent=parent, values=values)
            except SheetError as error:
                assert "control character" in str(error), "only control characters have no place in a text"
                assert state(project) == before
            else:
                assert attributes(project, name)[column] == hostile.strip()
        with suppress(CtError):
            register_entity(project, "patient", hostile, values={"sex": "F"})
        with suppress(CtError):
            register_entity(project, "patient", f"P{number}y", values={hostile: "F", "sex": "F"})
    check_whole(project)
    with project.catalog.read() as connection:
        names = connection.execute(select(entity.c.id)).scalars().all()
    assert [name for name in names if not re.fullmatch("[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", name)] == []


def attributes(project: Project, name: str) -> dict[str, Any]:
    with project.catalog.read() as connection:
        return json.loads(connection.execute(select(entity.c.attributes).where(entity.c.id == name)).scalar_one())
