"""Illumina's sample sheets, version 1 and 2: the table of samples, with lanes."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from ctcore.errors import SheetError
from ctcore.model.column import Column
from ctcore.model.levels import ENTITY_LEVELS
from ctcore.model.schema import Levels, LevelSchema
from ctcore.sheet.illumina import SampleTable, find_samples
from ctcore.sheet.options import Options
from ctcore.sheet.parse import Sheet, read_sheet

LEVELS: Levels = {
    **{level: LevelSchema(level) for level in ENTITY_LEVELS},
    "specimen": LevelSchema("specimen", {"sample_project": Column("sample_project")}),
    "assay": LevelSchema("assay", {"index": Column("index")}, files=("reads",)),
}
V1 = """\
[Header],,,,,
IEMFileVersion,4,,,,
Date,6/24/2020,,,,
,,,,,
[Reads],,,,,
151,,,,,
[Settings],,,,,
[Data],,,,,
Lane,Sample_ID,Sample_Name,index,index2,Sample_Project
1,S1,One,TATG,ATGA,Proj
2,S1,One,TATG,ATGA,Proj
1,S2,Two,CATG,CTGA,Proj
"""
V2 = """\
[Header]
FileFormatVersion,2

[BCLConvert_Settings]
SoftwareVersion,3.8.4

[BCLConvert_Data]
Sample_ID,Lane,Index,Index2
S1,1,TATG,ATGA
S1,2,TATG,ATGA

[Cloud_Data]
Sample_ID,ProjectName,LibraryName
S1,Proj,L1
"""


def read(folder: Path, text: str, options: Options | None = None) -> Sheet:
    (folder / "SampleSheet.csv").write_bytes(text.encode())
    return read_sheet(folder / "SampleSheet.csv", LEVELS, options)


def refused(folder: Path, text: str, options: Options | None = None) -> list[str]:
    with pytest.raises(SheetError) as caught:
        read(folder, text, options)
    return list(caught.value.problems)


def parents(sheet: Sheet) -> Mapping[str, str | None]:
    return {one.id: one.parent for level in ("specimen", "assay") for one in sheet.entities[level].values()}


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("comma", [",", ";"])
def test_version_1_is_read_with_its_lanes(tmp_path: Path, end: str, comma: str) -> None:
    sheet = read(tmp_path, "\ufeff" + V1.replace("\n", end).replace(",", comma))
    assert parents(sheet) == {"S1": "S1", "S2": "S2", "S1-1": "S1", "S1-2": "S1", "S2-1": "S2"}
    assert sheet.entities["assay"]["S2-1"].attributes == {"index": "CATG"}
    assert sheet.entities["specimen"]["S1"].attributes == {"sample_project": "Proj"}
    assert sheet.entities["assay"]["S2-1"].row == 12, "the row is the line of the file"
    assert sheet.notes[0] == (
        "an Illumina sample sheet: the table of [Data] is read, and not [Header], [Reads], [Settings]"
    )
    assert "Sample_Name: 3 values not taken; ct.toml declares no such column" in sheet.notes


def test_version_2_ends_where_the_next_section_begins(tmp_path: Path) -> None:
    sheet = read(tmp_path, V2)
    assert parents(sheet) == {"S1": "S1", "S1-1": "S1", "S1-2": "S1"}
    assert sheet.notes[0].endswith("[BCLConvert_Data] is read, and not [Header], [BCLConvert_Settings], [Cloud_Data]")


def test_without_lanes_it_names_specimens_alone(tmp_path: Path) -> None:
    assert parents(read(tmp_path, "[Data]\nSample_ID,Sample_Name\nS1,One\nS1,One\n")) == {"S1": "S1"}


def test_other_names_and_made_ids_go_before_illuminas(tmp_path: Path) -> None:
    sheet = read(tmp_path, V1, Options({"Sample_Name": "specimen_id", "Sample_Project": "patient_id"}))
    assert parents(sheet)["One"] == "Proj" and "S1" not in parents(sheet)
    sheet = read(
        tmp_path, V1, Options({"sample_id": "assay_id", "Sample_Name": "specimen_id", "Lane": "index2"}, ("index2",))
    )
    assert parents(sheet) == {"One": "One", "Two": "Two", "S1": "One", "S2": "Two"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (V1.replace("[Data]", "[Datum]"), "without a section [Data] or [BCLConvert_Data]; it has [Header], [Reads]"),
        (V1 + V1, "an Illumina sample sheet with several sections [Data]; keep one of them"),
        (V1[: V1.index("Lane")], "the section [Data] is empty"),
        (V1.replace("1,S2,", "1,S 2,"), "row 12, column Sample_ID: 'S 2' is not an ID"),
        (V1.replace("1,S2,", ",S2,"), "row 12, column Lane: blank; name the lane, or add assay_id"),
        (V1.replace("Sample_ID", "ID"), "row 9: no column specimen_id (or sample); add it"),
    ],
)
def test_a_sample_sheet_that_cannot_be_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (problem,) = refused(tmp_path, text)
    assert said in problem


def test_a_sheet_of_other_columns_is_none(tmp_path: Path) -> None:
    assert find_samples("sample,[Data]\nS1,x\n[Data]\n") is None
    assert find_samples("\n[Data]\nSample_ID\n") == SampleTable(8, 18, 3, "Data", ())
    assert list(read(tmp_path, "sample,lane\nS1,1\n").entities["specimen"]) == ["S1"]
