"""Pedigrees as PLINK, GATK, peddy, seqr and 1000 Genomes write them. The rows are made up."""

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctcore.errors import SheetError
from ctcore.model.column import Column
from ctcore.model.levels import ENTITY_LEVELS
from ctcore.model.schema import Levels, LevelSchema
from ctcore.sheet.options import Options
from ctcore.sheet.parse import read_sheet
from ctcore.sheet.pedigree import HEADER, NOBODY, read_ped

LEVELS: Levels = {
    **{level: LevelSchema(level) for level in ENTITY_LEVELS},
    "patient": LevelSchema("patient", {name: Column(name) for name in ("father_id", "mother_id")}),
}


def test_a_pedigree_is_read_and_contradictions_are_told() -> None:
    found = read_ped("#comment\nF1\tP1\tP2\tP3\t2\t2\nF1 P2 0 0 1 1\r\nF1 P3 0 0 1 -9\n\nF1 P4 P4 0 0\n")
    rows, problems = found.rows, found.problems
    assert [dict(zip(HEADER, cells, strict=True)) for _, cells in rows][:2] == [
        {
            "family_id": "F1",
            "patient_id": "P1",
            "father_id": "P2",
            "mother_id": "P3",
            "sex": "female",
            "phenotype": "affected",
        },
        {
            "family_id": "F1",
            "patient_id": "P2",
            "father_id": "",
            "mother_id": "",
            "sex": "male",
            "phenotype": "unaffected",
        },
    ]
    assert rows[2][1][4:] == ["male", ""] and rows[3] == (6, ["F1", "P4", "P4", "", "unknown", ""])
    assert problems == [
        "row 2, column mother_id: 'P3' is male in its own row; correct one of them",
        "row 6, column father_id: 'P4' is its own father; correct one of them",
    ]


def read(text: str) -> list[list[str]]:
    found = read_ped(text)
    assert (found.problems, found.notes) == ([], ())
    return [cells for _, cells in found.rows]


FAMILY = [["F1", "K1", "", "M1", "male", "affected"], ["F1", "M1", "", "", "female", "unaffected"]]


@pytest.mark.parametrize("unknown", sorted(NOBODY - {""}))
def test_a_parent_is_unknown_in_all_spellings(unknown: str) -> None:
    for nobody in {unknown, unknown.upper(), unknown.capitalize()}:
        assert read(f"F1\tK1\t{nobody}\tM1\t1\t2\nF1 M1 {nobody} {nobody} 2 1\n") == FAMILY
        assert "means nobody" in read_ped(f"F1 {nobody} 0 0 1 1\n").problems[0]
        assert read(f"{nobody} K1 0 0 {nobody} {nobody}\n") == [["", "K1", "", "", "unknown", ""]]


HEADS = [
    "#Family_ID\tIndividual_ID\tPaternal_ID\tMaternal_ID\tSex\tPhenotype",  # GATK, 1000 Genomes
    "FID IID PAT MAT SEX PHENO1",  # PLINK
    "#fam_id sample_id paternal_id maternal_id sex affected",  # peddy
    "Family ID\tIndividual ID\tPaternal ID\tMaternal ID\tGender\tAffected Status",  # seqr
    "FamilyID SampleID FatherID MotherID Sex Phenotype",
    "# family\tname\tdad\tmom\tsex\taffection",
]


@pytest.mark.parametrize("head", HEADS)
def test_a_line_of_names_is_a_header_in_any_order(head: str) -> None:
    tab = "\t" if "\t" in head else " "
    lines = [head.split(tab), ["F1", "K1", "0", "M1", "1", "2"], ["F1", "M1", "0", "0", "2", "1"]]
    for order in itertools.islice(itertools.permutations(range(6)), 0, 720, 97):
        assert read("\n".join(tab.join(line[at] for at in order) for line in lines)) == FAMILY


def test_tabs_keep_blank_cells_and_blanks_do_not() -> None:
    assert read("\tK1\tK2\tK3\t2\t2\n") == [["", "K1", "K2", "K3", "female", "affected"]]
    assert read("F1\tK1\t\t\t\t\n") == [["F1", "K1", "", "", "unknown", ""]]
    assert read("  F1   K1 0\t0  2 2  \n") == [["F1", "K1", "", "", "female", "affected"]]
    assert read_ped("F1 K1 0 0\n").problems[0].startswith("row 1: 4 columns; family, individual, father, mother")
    assert "the header has more" in read_ped(f"{HEADS[0]}\nF1\tK1\t0\n").problems[0]
    assert read("\t\t\t\n\n# a comment\nF1 K1 0 0 2 2\n#F1 K2 0 0 2 2") == [["F1", "K1", "", "", "female", "affected"]]


def test_columns_after_the_sixth_have_the_names_of_the_header() -> None:
    found = read_ped("#FID IID PAT MAT Sex Population Superpopulation\nF1 K1 0 0 1 GBR EUR\nF1 K2 0 0 2 GBR\n")
    assert found.header == [*HEADER, "Population", "Superpopulation"] and not found.problems
    assert [cells[5:] for _, cells in found.rows] == [["", "GBR", "EUR"], ["", "GBR", ""]]
    found = read_ped("F1 K1 0 0 1 1 A A G G\nF1 K2 0 0 2 2 A C\n")
    assert found.header == HEADER and found.notes[0].startswith("columns 7 to 10: 6 values not taken")


def test_sex_is_read_in_numbers_letters_and_words() -> None:
    said = {"male": "1 M m Male MALE XY", "female": "2 F f female XX", "unknown": "0 3 -9 . NA other unknown U"}
    for word, texts in said.items():
        for text in texts.split():
            assert read(f"F1 K1 0 0 {text} 0\n")[0][4] == word, text
    found = read_ped("F1 K1 0 0 7 0\nF1 K2 0 0 7 0\nF1 K3 0 0 hen 0\n")
    assert [cells[4] for _, cells in found.rows] == ["unknown"] * 3
    assert [note.split(" is not")[0] for note in found.notes] == ["sex: '7' in 2 rows", "sex: 'hen' in 1 row"]
    assert [read(f"F K 0 0 1 {text}\n")[0][5] for text in ("case", "Control", "61.5")] == [
        "affected",
        "unaffected",
        "61.5",
    ]


@given(st.permutations(range(6)), st.integers(2, 6))
def test_a_circle_of_ancestors_is_refused_with_the_circle(order: list[int], size: int) -> None:
    """P0 is a parent of P1, and so on, and the last one of P0; in any order of rows, the others are nobody's."""
    parents = {at: f"P{(at - 1) % size}" if at < size else "0" for at in range(6)}
    found = read_ped("".join(f"F P{at} {parents[at]} 0 0 0\n" for at in order))
    (problem,) = found.problems
    assert "a circle of parents: " in problem
    assert all(f"'{parents[at]}' of 'P{at}'" in problem for at in range(size))
    assert not read_ped("".join(f"F P{at} {parents[at] if at else 0} 0 0 0\n" for at in order)).problems


def test_one_person_is_not_father_and_mother() -> None:
    assert read_ped("F K1 X X 1 1\n").problems == ["row 1, column mother_id: 'X' is a mother too; correct one of them"]
    assert read_ped("F K1 X 0 1 1\nF K2 0 X 1 1\n").problems == [
        "row 2, column mother_id: 'X' is a mother and a father in row 1; correct one of them"
    ]
    told = read_ped("F K1 X 0 1 1\nF K2 0 X 1 1\nF X 0 0 2 1\n").problems
    assert told == ["row 1, column father_id: 'X' is female in its own row; correct one of them"], "once"
    assert not read_ped("F K1 X Y 1 1\nF K2 X Y 1 1\n").problems


NUMBERED = "F1 1 3 2 1 2\nF1 2 0 0 2 1\nF1 3 0 0 1 1\nF2 1 0 2 2 2\nF2 2 0 0 2 1\n"


def test_individuals_may_be_numbered_within_families(tmp_path: Path) -> None:
    path = tmp_path / "family.ped"
    path.write_text(NUMBERED)
    with pytest.raises(SheetError) as refused:
        read_sheet(path, LEVELS)
    assert list(refused.value.problems) == [
        f"row {row}: individual '{who}' of family 'F2' is one of family 'F1' in row {before} too; individuals that are "
        "numbered within families get IDs by --make 'patient_id={family_id}_{patient_id}'"
        for row, who, before in ((4, 1, 1), (5, 2, 2))
    ]
    sheet = read_sheet(path, LEVELS, Options(make={"patient_id": "{family_id}_{patient_id}"}))
    assert {who: one.attributes for who, one in sheet.entities["patient"].items()} == {
        "F1_1": {"father_id": "F1_3", "mother_id": "F1_2"},
        "F1_2": {},
        "F1_3": {},
        "F2_1": {"mother_id": "F2_2"},
        "F2_2": {},
    }
    for template, said in (
        ("{kindred}", "the sheet has no column 'kindred'; it has family_id"),
        ("x", "names no column"),
    ):
        with pytest.raises(SheetError) as refused:
            read_sheet(path, LEVELS, Options(make={"patient_id": template}))
        assert any(said in one for one in refused.value.problems)
