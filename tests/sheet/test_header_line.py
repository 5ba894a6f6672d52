"""Which line is the header: titles above it, comments, and what is no title."""

from pathlib import Path

import pytest

from ctcore.errors import SheetError
from ctcore.model.column import Column
from ctcore.model.levels import ENTITY_LEVELS
from ctcore.model.schema import Levels, LevelSchema
from ctcore.sheet.header_line import find_header, names_ids, without_hash
from ctcore.sheet.options import Options
from ctcore.sheet.parse import Sheet, read_sheet

LEVELS: Levels = {
    **{level: LevelSchema(level) for level in ENTITY_LEVELS},
    "patient": LevelSchema("patient", {"note": Column("note"), "age": Column("age", "integer")}),
}


def read(folder: Path, text: str, options: Options | None = None) -> Sheet:
    (folder / "s.csv").write_bytes(text.encode())
    return read_sheet(folder / "s.csv", LEVELS, options)


def refused(folder: Path, text: str, options: Options | None = None) -> list[str]:
    with pytest.raises(SheetError) as caught:
        read(folder, text, options)
    return list(caught.value.problems)


@pytest.mark.parametrize(
    "titles",
    [
        "Study LUNG,,\n\nexported 2024-05-01 by Anna\n",
        '"Study ""X""" odd\n',
        "# a comment, with, many, commas, in, it\n#another\n",
        "Study;LUNG\n",
    ],
)
def test_titles_above_the_header_are_passed_over(tmp_path: Path, titles: str) -> None:
    sheet = read(tmp_path, f"{titles}patient_id,note,age\nP1,x,61\n")
    assert sheet.entities["patient"]["P1"].attributes == {"note": "x", "age": 61}
    line = titles.count("\n") + 1
    assert sheet.entities["patient"]["P1"].row == line + 1
    many = len([one for one in titles.splitlines() if one.strip()])
    assert sheet.notes[0].startswith(f"{many} line{'s' * (many > 1)} above the header (line {line}) ")
    said = refused(tmp_path, f"{titles}patient_id,colour,age\nP1,x,old\n")
    assert said[0].startswith(f"row {line}: unknown column 'colour'") and f"row {line + 1}, column age" in said[1]


def test_a_row_below_a_misspelled_header_is_no_header(tmp_path: Path) -> None:
    said = refused(tmp_path, "patiant_id,note,age\nP1,sample,61\n")
    assert said[0].startswith("row 1: unknown column 'patiant_id'")


def test_a_header_is_known_by_mapped_and_made_ids(tmp_path: Path) -> None:
    text = "Report\nSubject,age\nP1,61\n"
    assert list(read(tmp_path, text, Options({"Subject": "patient_id"})).entities["patient"]) == ["P1"]
    made = read(tmp_path, text, Options({"Subject": "note"}, make={"patient_id": "{note}_x"}))
    assert list(made.entities["patient"]) == ["P1_x"]
    assert names_ids(["#Sample", "x"], Options()) and not names_ids(["x"], Options())
    assert without_hash(["# a", "#b"]) == ["a", "#b"] and without_hash([]) == []


def test_comments_between_rows_are_said(tmp_path: Path) -> None:
    sheet = read(tmp_path, '#patient_id,note\nP1,x\n# P2 came later, see mail, of "Anna"\n#P3,y\n# see mail\nP4,#4\n')
    assert list(sheet.entities["patient"]) == ["P1", "P4"] and sheet.entities["patient"]["P4"].row == 6
    assert sheet.notes == ("rows 3, 4, 5: passed over, a comment begins with #",)
    sheet = read(tmp_path, "note,patient_id\n#1,P1\n#2\n")
    assert sheet.entities["patient"]["P1"].attributes == {"note": "#1"}, "a text may begin with #"
    assert sheet.notes == ("row 3: passed over, a comment begins with #",)


def test_a_file_without_a_line_has_no_header() -> None:
    assert find_header("", Options()) is None and find_header("\n \n", Options()) is None
    assert find_header("sep=,\n", Options()) is None
    found = find_header("\nsep=|\nTitle\npatient|age\n", Options())
    assert found is not None and (found.start, found.line, found.delimiter, found.above) == (13, 4, "|", ("Title",))
