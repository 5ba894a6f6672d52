"""IDs that are made from other columns of a sheet."""

from pathlib import Path

import pytest

from ctcore.errors import SheetError
from ctcore.model.levels import ENTITY_LEVELS
from ctcore.model.schema import Levels, LevelSchema
from ctcore.sheet.made_ids import make_ids
from ctcore.sheet.options import Options
from ctcore.sheet.parse import read_sheet
from ctcore.sheet.rows import Rows

LEVELS: Levels = {level: LevelSchema(level, files=("reads",) if level == "assay" else ()) for level in ENTITY_LEVELS}


def test_a_sheet_of_two_levels_is_enough(tmp_path: Path) -> None:
    path = tmp_path / "sheet.csv"
    path.write_text("Subject,kit,assay_id\nP1,gDNA,A1\nP1,RNA,A2\nP2,,\n")
    options = Options({"Subject": "patient_id"}, ("kit",), make={"specimen_id": "{patient_id}_{assay_id}"})
    found = read_sheet(path, LEVELS, options).entities
    assert {one.id: one.parent for one in found["specimen"].values()} == {"P1_A1": "P1", "P1_A2": "P1"}
    assert {one.id: one.parent for one in found["assay"].values()} == {"A1": "P1_A1", "A2": "P1_A2"}
    assert list(found["patient"]) == ["P1", "P2"], "where a column is blank, no ID is made"


def test_an_id_that_the_sheet_has_stays() -> None:
    table = Rows(["patient_id", "sample"], [(2, ["P1", "S1"]), (3, ["P2", ""]), (4, ["P3"])], [])
    assert [cells for _, cells in make_ids(table, Options(make={"specimen_id": "{patient_id}_T"})).rows] == [
        ["P1", "S1"],
        ["P2", "P2_T"],
        ["P3"],  # it has too few cells, which is said elsewhere
    ]
    itself = make_ids(table, Options(make={"specimen_id": "{ specimen_id }_T"}))
    assert [cells for _, cells in itself.rows] == [["P1", "S1_T"], ["P2", ""], ["P3"]]


@pytest.mark.parametrize(
    ("name", "template", "said"),
    [
        ("sex", "{patient_id}", "only an ID can be made: patient_id, specimen_id, assay_id"),
        ("specimen_id", "T", "'T' names no column; a template is such as '{patient_id}_gDNA'"),
        ("specimen_id", "{kit}", "the sheet has no column 'kit'; it has patient_id"),
    ],
)
def test_a_template_that_cannot_be_filled_is_refused(tmp_path: Path, name: str, template: str, said: str) -> None:
    path = tmp_path / "sheet.csv"
    path.write_text("patient_id\nP1\n")
    with pytest.raises(SheetError) as refused:
        read_sheet(path, LEVELS, Options(make={name: template}))
    assert f"row 1: --make {name}: {said}" in refused.value.problems
