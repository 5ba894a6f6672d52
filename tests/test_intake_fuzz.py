"""Broken sheets and broken ct.toml by the hundred: each lands whole or not at all, and is refused in words.

CT_EXAMPLES says how many (10000 takes minutes); a failure names its seed.
"""

import json
import os
import random
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import openpyxl
import pytest
from sqlalchemy import select

from ctcore.catalog.chain import check_chain
from ctcore.catalog.declared import applied, is_enforced
from ctcore.catalog.tables import entity, event, file, setting
from ctcore.errors import CtError, ProjectError, SheetError
from ctcore.evolve import contradictions, entities
from ctcore.project import Project
from ctcore.register import Allowed, register, register_entity
from ctcore.schema import as_json
from ctcore.sheet import read_sheet
from ctcore.step import Level
from tests.kit import again

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
P2,M,50,,,text,S2,,1e-3,A3,,no,reads/A3.txt
P3,it's,,m3,,,,,,,,,
P4,F,,,,,S4,blood,,,,,
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
        levels = applied(connection)
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
    for name in ("A1", "A2", "A3"):
        (root / f"reads/{name}.txt").write_text(f"reads of {name}\n")
    (root / "ct.toml").write_text(TOML)
    (root / "genome.txt").write_text("ACGT\n")
    (root / "sheet.csv").write_text(SHEET)
    opened = Project.find(root)
    register(opened, root / "sheet.csv")
    return opened


def test_a_broken_sheet_lands_whole_or_not_at_all(project: Project) -> None:
    landed = 0
    allowed = Allowed(update=frozenset({"patient.age", "patient.mrn", "specimen.site"}))
    for seed in range(EXAMPLES):
        random_ = random.Random(seed)
        path = project.root / random_.choice(["broken.csv", "broken.csv", "broken.tsv"])
        data = mutated(random_, SHEET, SHEET_MUTATORS).encode("utf-8", "surrogatepass")
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


def test_a_damaged_workbook_pedigree_or_phenopacket_is_read_or_refused_in_words(project: Project) -> None:
    book = openpyxl.Workbook()
    for row in (["patient_id", "age", "sex"], ["P1", 40, "F"]):
        book.worksheets[0].append(row)
    book.save(project.root / "whole.xlsx")
    whole = {
        "broken.xlsx": (project.root / "whole.xlsx").read_bytes(),
        "broken.ped": b"F1 C1 D1 M1 1 2\nF1 D1 0 0 1 1\nF1 M1 0 0 2 -9\n",
        "broken.json": b'{"subject": {"id": "P1", "sex": "FEMALE"}, "biosamples": [{"id": "S1"}], "x": [1, null]}',
    }
    for seed in range(EXAMPLES):
        random_ = random.Random(seed)
        name = random_.choice(list(whole))
        data = bytearray(whole[name])
        for _ in range(random_.randint(1, 4)):
            data[random_.randrange(len(data))] = random_.randrange(256)
        (project.root / name).write_bytes(data)
        try:
            read_sheet(project.root / name, project.settings.levels)
        except SheetError as error:
            assert error.problems
        except Exception as error:
            raise AssertionError(f"seed {seed}: {name}") from error


def test_a_broken_declaration_is_told_or_applied_and_the_data_keep_it(project: Project) -> None:
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
                now = applied(connection)
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
