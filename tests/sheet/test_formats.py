"""Each format of a sheet by itself: the header, delimited text, workbooks, pedigrees, phenopackets, paths of files."""

import gzip
import os
from pathlib import Path

import openpyxl
import pytest

from ctcore.errors import SheetError
from ctcore.model.column import Column
from ctcore.model.levels import ENTITY_LEVELS
from ctcore.model.schema import Levels, LevelSchema
from ctcore.sheet.columns import SheetColumns, known_names, read_columns
from ctcore.sheet.file_paths import inspect_file
from ctcore.sheet.options import Options
from ctcore.sheet.rows import Rows, read_table
from ctcore.sheet.xlsx import read_workbook

LEVELS: Levels = {
    **{level: LevelSchema(level) for level in ENTITY_LEVELS},
    "patient": LevelSchema("patient", {"sex": Column("sex"), "note": Column("note")}),
    "specimen": LevelSchema("specimen", {"note": Column("note")}),
    "assay": LevelSchema("assay", files=("fastq_1",)),
}


def columns(*header: str, options: Options | None = None, lenient: bool = False) -> tuple[SheetColumns, list[str]]:
    return read_columns(header, [False] * len(header), LEVELS, options or Options(), lenient)


def test_columns_are_known_in_any_case_by_alias_and_by_level() -> None:
    found, problems = columns("Patient", "SAMPLE", "assay_id", "Sex", "specimen.note", "fastq_1", "fastq_1_md5")
    assert problems == []
    assert found.ids == {"patient": 0, "specimen": 1, "assay": 2}
    assert [(at, level, column.name) for at, level, column in found.attributes] == [
        (3, "patient", "sex"),
        (4, "specimen", "note"),
    ]
    assert found.files == {"fastq_1": (5, "assay")}
    assert found.checksums == [(6, "assay", "fastq_1", "md5")]


def test_a_name_of_two_levels_needs_its_level() -> None:
    _, problems = columns("patient_id", "note")
    assert problems == ["row 1: column 'note' is declared at several levels; write one of patient.note, specimen.note"]
    assert "note" not in known_names(LEVELS) and "patient.note" in known_names(LEVELS)


def test_two_columns_of_one_meaning_are_refused() -> None:
    assert columns("patient", "patient_id")[1] == [
        "row 1: columns 'patient' and 'patient_id' mean the same; keep one of them"
    ]


def test_what_a_lenient_format_has_more_is_passed_over() -> None:
    found, problems = columns("patient_id", "height", lenient=True)
    assert (problems, found.passed_over) == ([], [1])


def test_options_of_a_call_go_before_those_of_ct_toml() -> None:
    mine = Options({"Sample Name": "specimen_id", "Kit": "sex"}, ("comment",), "Sheet1")
    both = mine.also(Options({"KIT": "note"}, ("Remark",)))
    assert [both.name_of(one) for one in ("sample name", "Kit", "Comment", "remark", "else")] == [
        "specimen_id",
        "note",
        None,
        None,
        "else",
    ]
    assert both.tab == "Sheet1" and mine.also(Options(tab="Two")).tab == "Two"


def test_rows_keep_their_line_numbers(tmp_path: Path) -> None:
    (path := tmp_path / "a.csv").write_bytes(b'\xef\xbb\xbfa,b\n\n1,"two\nlines"\n3,4,5\n')
    table = read_table(path)
    assert table.header == ["a", "b"]
    assert table.rows == [(3, ["1", "two\nlines"]), (5, ["3", "4", "5"])]
    assert table.problems == [
        "row 5: 3 cells, but the header has 2; add or remove cells (a comma inside a cell needs quotes)"
    ]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", b"a\tb\n1\t2\n", "separated by tabs; a .csv sheet has commas"),
        ("a.tsv", b"a,b\n", "separated by commas; a .tsv sheet has tabs"),
        ("a.csv", b"a,b\n1,\xff\n", "row 2: byte 6 is not UTF-8"),
        ("a.csv", b"\n \n", "the file is empty"),
        ("a.doc", b"a", "not .doc; export it as CSV"),
    ],
)
def test_a_file_that_is_no_sheet_says_why(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SheetError, match=said):
        read_table(tmp_path / name)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.csv")
    with pytest.raises(SheetError, match="a pipe or a device"):
        read_table(tmp_path / "a.csv")


def test_a_workbooks_cells_are_what_a_person_sees(tmp_path: Path) -> None:
    import datetime

    book = openpyxl.Workbook()
    sheet = book.worksheets[0]
    sheet.append(["id", "day", "n", "yes"])
    sheet.append([12, datetime.datetime(2026, 5, 3), 5.0, True])
    sheet["A2"].number_format = "0000"
    book.create_sheet("blank")
    book.save(tmp_path / "a.xlsx")
    assert read_workbook(tmp_path / "a.xlsx", Options()) == Rows(
        ["id", "day", "n", "yes"], [(2, ["0012", "2026-05-03", "5", "true"])], [], odd={(2, 1): "a date"}
    )
    with pytest.raises(SheetError, match="no tab 'other'; there is: Sheet, blank"):
        read_workbook(tmp_path / "a.xlsx", Options(tab="other"))


def test_a_workbook_says_what_a_person_does_not_see(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    sheet = book.worksheets[0]
    for row in (["Study LUNG"], [None], ["exported", "2024"], ["sample", "note", "x"], ["S1", "a", 1], ["# see mail"]):
        sheet.append(row)
    for number in (2, 3):
        sheet.append([f"S{number}", "b", 2])
    sheet.row_dimensions[7].hidden = sheet.row_dimensions[2].hidden = True
    sheet.column_dimensions["B"].hidden = True
    book.create_sheet("older").append(["sample"])
    book.create_sheet("blank")
    book.save(tmp_path / "a.xlsx")
    with pytest.raises(SheetError, match="several tabs hold something: Sheet, older; say which with --tab"):
        read_workbook(tmp_path / "a.xlsx", Options())
    table = read_workbook(tmp_path / "a.xlsx", Options(tab="Sheet"))
    assert (table.header, table.header_row, [line for line, _ in table.rows]) == (["sample", "note", "x"], 4, [5, 7, 8])
    assert table.notes == (
        "2 lines above the header (line 4) are passed over: Study LUNG, …",
        "row 6: passed over, a comment begins with #",
        "tab Sheet is read, and not older",
        "row 7 is hidden in the workbook, and read as the others",
        "column note is hidden in the workbook, and read as the others",
    )


def test_a_raw_file_says_why_it_cannot_be_one(tmp_path: Path) -> None:
    (good := tmp_path / "a.gz").write_bytes(gzip.compress(b"reads"))
    (tmp_path / "b.gz").write_text("reads")
    (tmp_path / "empty").touch()
    os.link(good, tmp_path / "other.gz")
    said, place, seen = inspect_file(str(good))
    assert (said, seen.size) == (None, good.stat().st_size)
    assert inspect_file(str(tmp_path / "other.gz"))[1] == place  # one file under two names
    problems = [inspect_file(str(tmp_path / name))[0] or "" for name in ("b.gz", "empty", "gone", ".", "\0")]
    starts = ("is named .gz", "is empty", "is not there", "is a folder", "cannot be read")
    assert [said.startswith(start) for said, start in zip(problems, starts, strict=True)] == [True] * 5
