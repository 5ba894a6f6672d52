"""Delimited text and workbooks as Excel, R, pandas and LIMS leave them."""

import datetime
from collections.abc import Mapping
from pathlib import Path

import openpyxl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctcore.errors import SheetError
from ctcore.model.column import Column
from ctcore.model.levels import ENTITY_LEVELS
from ctcore.model.schema import Levels, LevelSchema
from ctcore.sheet.options import Options
from ctcore.sheet.parse import Sheet, read_sheet
from ctcore.sheet.rows import Rows, read_table, with_blanks

COLUMNS = {
    "age": Column("age", "integer"),
    "dose": Column("dose", "real"),
    "born": Column("born", "date"),
    "status": Column("status", required=True, enum=("tumour", "normal")),
}
LEVELS: Levels = {
    **{level: LevelSchema(level) for level in ENTITY_LEVELS},
    "patient": LevelSchema("patient", {name: COLUMNS[name] for name in ("age", "dose", "born")}),
}
STRICT: Levels = {**LEVELS, "patient": LevelSchema("patient", {"status": COLUMNS["status"]})}


def read(folder: Path, data: bytes | str, levels: Levels = LEVELS, blank: tuple[str, ...] = ()) -> Sheet:
    path = folder / "sheet.csv"
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return read_sheet(path, levels, Options(blank=blank))


def refused(folder: Path, data: str, levels: Levels = LEVELS) -> list[str]:
    with pytest.raises(SheetError) as caught:
        read(folder, data, levels)
    return list(caught.value.problems)


def of_patient(sheet: Sheet) -> Mapping[str, object]:
    return sheet.entities["patient"]["P1"].attributes


def test_a_sheet_with_semicolons_has_decimal_commas(tmp_path: Path) -> None:
    sheet = read(tmp_path, "patient_id;age;dose;born\nP1;61,0;1,5;01.02.2024\n")
    assert of_patient(sheet) == {"age": 61, "dose": 1.5, "born": "2024-02-01"}
    (note,) = sheet.notes
    assert note.startswith("the columns are separated by semicolons")
    assert "'1.234,5' is not a number" in refused(tmp_path, "patient_id;dose\nP1;1.234,5\n")[0], (
        "thousands are not guessed"
    )
    assert (
        "'1.500' is a fraction, or has a point between thousands" in refused(tmp_path, "patient_id;dose\nP1;1.500\n")[0]
    )
    assert of_patient(read(tmp_path, "patient_id;dose\nP1;1.5\n")) == {"dose": 1.5}
    assert "'31.02.2024' is not a date" in refused(tmp_path, "patient_id;born\nP1;31.02.2024\n")[0]


@pytest.mark.parametrize("sep", [",", ";", "\t", "|"])
def test_the_line_sep_of_excel_is_no_header(tmp_path: Path, sep: str) -> None:
    sheet = read(tmp_path, f"sep={sep}\npatient_id{sep}age\nP1{sep}61\n")
    assert of_patient(sheet) == {"age": 61} and sheet.entities["patient"]["P1"].row == 3
    assert "the file is empty" in refused(tmp_path, f"sep={sep}\n")[0]


def test_whole_numbers_and_days_are_read_as_programs_write_them(tmp_path: Path) -> None:
    for age, born in (
        ("61.0", "2024-02-01 00:00:00"),
        ("61.00", "2024-02-01T00:00:00.000"),
        ("61", "2024-02-01 00:00"),
    ):
        assert of_patient(read(tmp_path, f"patient_id,age,born\nP1,{age},{born}\n")) == {
            "age": 61,
            "born": "2024-02-01",
        }
    for age, born in (("61.05", "2024-02-01 00:01:00"), ("61.", "1.2.2024")):
        assert len(refused(tmp_path, f"patient_id,age,born\nP1,{age},{born}\n")) == 2


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_text_of_windows_is_read(tmp_path: Path, encoding: str) -> None:
    assert of_patient(read(tmp_path, "patient_id\tage\r\nP1\t61\r\n".replace("\t", ",").encode(encoding))) == {
        "age": 61
    }


def test_blank_cells_at_the_end_are_nothing(tmp_path: Path) -> None:
    for text in ("patient_id,age,,\nP1,61\n", "patient_id,age\nP1,61,,\n,,,\n", "patient_id,age,\nP1,61,\n"):
        assert of_patient(read(tmp_path, text)) == {"age": 61}
    assert "3 cells, but the header has 2" in refused(tmp_path, "patient_id,age\nP1,61,x\n")[0]
    assert "column 3 has no name" in " ".join(refused(tmp_path, "patient_id,age,\nP1,61,x\n"))


def test_words_for_nothing_are_blank_where_they_are_declared(tmp_path: Path) -> None:
    text = "patient_id,specimen_id,age,dose\nP1,NA,NA,-\n"
    problems = refused(tmp_path, text)
    assert ["`--blank NA`" in problems[0], "`--blank -`" in problems[1], len(problems)] == [True, True, 2]
    levels: Levels = {**LEVELS, "patient": LevelSchema("patient", {"kit": Column("kit")})}
    sheet = read(tmp_path, "patient_id,kit\nP1,NA\nP2,NA\nP3,x\n", levels)
    assert sheet.notes == ("kit: 'NA' in 2 rows is taken as a text; `--blank NA` reads it as blank",)
    sheet = read(tmp_path, text, blank=("NA", "-"))
    assert of_patient(sheet) == {} and not sheet.entities["specimen"]
    table = Rows(["a"], [(2, ["NA"]), (3, ["na"])], [])
    assert with_blanks(table, ()) is table and with_blanks(table, ("NA",)).rows == [(2, [""]), (3, ["na"])]


def test_a_refused_value_is_not_called_blank_too(tmp_path: Path) -> None:
    (problem,) = refused(tmp_path, "patient_id,status\nP1,0\n", STRICT)
    assert problem.startswith("row 2, column status: '0' is not one of tumour, normal")
    assert "blank, but patient.status is required" in refused(tmp_path, "patient_id,status\nP1,\n", STRICT)[0]


@pytest.mark.parametrize("name", ["2-Mar", "02-Mar-26", "Mar-02", "Sep-1998", "1.20E+05", "3E+11"])
def test_an_id_that_excel_changed_is_refused(tmp_path: Path, name: str) -> None:
    (problem,) = refused(tmp_path, f"patient_id,specimen_id\nP1,{name}\n")
    assert "is what Excel makes of an ID" in problem
    assert ("id_pattern of [levels.specimen]" in problem) == ("+" not in name), "no way out that does not work"
    for other in ("MAR2", "2-3", "Mar-A", "1E5", "Marc-02"):
        assert list(read(tmp_path, f"patient_id,specimen_id\nP1,{other}\n").entities["specimen"]) == [other]


def test_the_way_out_for_an_id_like_a_day_works(tmp_path: Path) -> None:
    declared: Levels = {**LEVELS, "specimen": LevelSchema("specimen", id_pattern="[0-9]+-[A-Z][a-z]+")}
    assert list(read(tmp_path, "patient_id,specimen_id\nP1,2-Mar\n", declared).entities["specimen"]) == ["2-Mar"]


def test_a_workbooks_date_or_formatted_number_is_no_id(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    sheet = book.worksheets[0]
    sheet.append(["patient_id", "specimen_id", "born"])
    sheet.append(["P1", datetime.datetime(2026, 3, 2), datetime.date(1970, 1, 1)])
    sheet.append(["P1", 120000, None])
    sheet.append(["P1", 12, None])
    sheet["B3"].number_format, sheet["B4"].number_format = "0.00E+00", "0000"
    book.save(tmp_path / "s.xlsx")
    assert read_table(tmp_path / "s.xlsx").odd == {
        (2, 1): "a date",
        (2, 2): "a date",
        (3, 1): "a number in the format 0.00E+00",
    }
    with pytest.raises(SheetError) as caught:
        read_sheet(tmp_path / "s.xlsx", LEVELS)
    first, second = caught.value.problems
    assert first.startswith("row 2, column specimen_id: '2026-03-02' is a date there, and not the ID that was typed")
    assert second.startswith("row 3, column specimen_id: '120000' is a number in the format 0.00E+00 there")


@given(
    st.lists(st.lists(st.sampled_from(["", "a", "b c", 'd"e', "1,5"]), min_size=3, max_size=3), min_size=1, max_size=4)
)
def test_every_separator_gives_the_same_cells(tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]]) -> None:
    import csv

    folder, found = tmp_path_factory.mktemp("sep"), []
    for sep in ",;\t":
        with (folder / "s.csv").open("w", newline="") as stream:
            stream.write(f"sep={sep}\n")
            csv.writer(stream, delimiter=sep).writerows([["x", "y", "z"], *rows])
        found.append(read_table(folder / "s.csv"))
    assert found[0].rows == found[1].rows == found[2].rows
    assert [cells for _, cells in found[0].rows] == [row for row in rows if any(row)]


def test_every_other_column_can_be_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    path.write_text("patient_id,age,kit,run\nP1,61,a,\nP2,62,b,c\n")
    sheet = read_sheet(path, LEVELS, Options(ignore=("*",)))
    assert sheet.entities["patient"]["P2"].attributes == {"age": 62}
    assert [note.partition(" not taken")[0] for note in sheet.notes] == ["kit: 2 values", "run: 1 value"]


def test_a_row_that_is_cut_is_told_also_where_columns_are_not(tmp_path: Path) -> None:
    (path := tmp_path / "s.csv").write_text("patient_id,age,kit\nP1,61,a\nP2,62\n")
    with pytest.raises(SheetError) as refused:
        read_sheet(path, LEVELS, Options(ignore=("*",)))
    assert [one.partition(";")[0] for one in refused.value.problems] == ["row 3: 2 cells, but the header has 3"]
