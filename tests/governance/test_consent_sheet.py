"""A sheet of consents, read whole."""

from pathlib import Path

import pytest

from ctcore.errors import SheetError
from ctcore.governance.consent_sheet import read_consents


def test_rows_are_statements_by_any_known_name_of_a_column(tmp_path: Path) -> None:
    (path := tmp_path / "c.csv").write_text(
        'Patient_ID,status,use,dated,form\npatient/P1,Limited,"research; teaching",2026-05-03,form 1\nP2,full,,,\n'
    )
    one, other = read_consents(path)
    assert (one.row, one.patient, other.patient) == (2, "P1", "P2")
    said = one.statement
    assert (said.status, said.uses, said.dated, said.form) == (
        "limited",
        ("research", "teaching"),
        "2026-05-03",
        "form 1",
    )
    assert (other.statement.uses, other.statement.dated) == ((), None)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("patient,state\nP1,full\n", "no column status"),
        ("patient,state\nP1,full\n", "no column 'state' is known; did you mean 'status'?"),
        ("patient,status,id\nP1,full,P1\n", "column patient is there twice"),
        ("patient,status\n", "row 2: there are no rows"),
        ("patient,status\nP1,full,x\n", "row 2: 3 cells, but the header has 2"),
    ],
)
def test_a_sheet_that_cannot_be_meant_says_why(tmp_path: Path, text: str, said: str) -> None:
    (path := tmp_path / "c.csv").write_text(text)
    with pytest.raises(SheetError) as refused:
        read_consents(path)
    assert said in str(refused.value)
