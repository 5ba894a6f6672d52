"""Phenopackets: one, several, a folder, a family with its pedigree; subjects that are named by their packets."""

import json
from pathlib import Path
from typing import Any

import pytest

from ctcore.errors import SheetError
from ctcore.intake.register import sheet_digest
from ctcore.model.column import Column
from ctcore.model.levels import ENTITY_LEVELS
from ctcore.model.schema import Levels, LevelSchema
from ctcore.sheet.options import Options
from ctcore.sheet.parse import Sheet, read_sheet
from ctcore.sheet.phenopacket import read_phenopackets

NAMES = ("sex", "family_id", "father_id", "mother_id", "phenotype")
LEVELS: Levels = {
    **{level: LevelSchema(level) for level in ENTITY_LEVELS},
    "patient": LevelSchema("patient", {name: Column(name) for name in NAMES}),
}


def test_a_phenopacket_gives_rows_and_names_the_rest() -> None:
    packet = {
        "id": "x",
        "subject": {"id": "P1", "sex": "FEMALE", "dateOfBirth": "1960-05-03T00:00:00Z"},
        "biosamples": [{"id": "S1", "sampledTissue": {"id": "UBERON:1", "label": "lung"}}],
        "diseases": [{}, {}],
    }
    found = read_phenopackets([json.dumps(packet)], "p.json")
    assert [dict(zip(found.header, cells, strict=True)) for _, cells in found.rows] == [
        {
            "patient_id": "P1",
            "patient.sex": "female",
            "patient.date_of_birth": "1960-05-03",
            "specimen_id": "",
            "specimen.sampled_tissue": "",
        },
        {
            "patient_id": "P1",
            "patient.sex": "",
            "patient.date_of_birth": "",
            "specimen_id": "S1",
            "specimen.sampled_tissue": "lung",
        },
    ]
    assert found.problems == [] and found.notes[0].startswith("diseases: 2 not taken")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "it is not JSON"),
        ("[]", "no phenopacket in it"),
        ('{"subject": {"id": "P1", "id": "P2"}}', "the field 'id' stands twice"),
        ('{"subject": {}}', "neither a subject with an id nor biosamples"),
    ],
)
def test_what_is_no_phenopacket_says_so(text: str, said: str) -> None:
    with pytest.raises(SheetError, match=said):
        read_phenopackets([text], "p.json")


def packet(number: int, subject: str, **more: Any) -> dict[str, Any]:
    return {"id": f"PK{number}", "subject": {"id": subject, "sex": "MALE"}, **more}


def person(
    name: str, father: str = "0", mother: str = "0", status: str = "UNAFFECTED", sex: str = "MALE"
) -> dict[str, str]:
    names = {"familyId": "F1", "individualId": name, "paternalId": father, "maternalId": mother}
    return {**names, "sex": sex, "affectedStatus": status}


def read(folder: Path, document: Any, **map: str) -> Sheet:
    path = folder / "p.json"
    path.write_text(json.dumps(document))
    return read_sheet(path, LEVELS, Options(map))


FAMILY = {
    "id": "F",
    "proband": packet(1, "C1"),
    "relatives": [packet(2, "D1")],
    "pedigree": {"persons": [person("C1", "D1", "M1", "AFFECTED"), person("D1"), person("M1", sex="FEMALE")]},
}


def test_a_family_brings_its_pedigree(tmp_path: Path) -> None:
    found = {one.id: one.attributes for one in read(tmp_path, FAMILY).entities["patient"].values()}
    own = {"sex": "male", "family_id": "F1"}
    parents = {"father_id": "D1", "mother_id": "M1"}
    assert found == {
        "C1": {**own, **parents, "phenotype": "affected"},
        "D1": {**own, "phenotype": "unaffected"},
        "M1": {**own, "sex": "female", "phenotype": "unaffected"},  # who has no packet
    }
    found = {one.id: one.attributes for one in read(tmp_path, FAMILY, id="patient_id").entities["patient"].values()}
    assert found["PK1"]["father_id"] == "PK2" and found["PK1"]["mother_id"] == "M1", "parents are named as they are"


def test_a_pedigree_that_cannot_be_is_refused(tmp_path: Path) -> None:
    persons = [person("C1", "D1"), person("D1", "C1")]
    with pytest.raises(SheetError) as refused:
        read(tmp_path, {**FAMILY, "pedigree": {"persons": persons}})
    (problem,) = refused.value.problems
    assert problem.startswith("pedigree: person 1: a circle of parents: ")
    with pytest.raises(SheetError, match="C1 has 'female' here and 'male'"):
        read(tmp_path, {**FAMILY, "pedigree": {"persons": [person("C1", sex="FEMALE")]}})


def test_a_subject_may_be_named_by_its_packet(tmp_path: Path) -> None:
    sample = {"biosamples": [{"id": "S1", "individualId": "proband A"}]}
    packets = [packet(1, "proband A", **sample), packet(2, "proband A")]
    with pytest.raises(SheetError) as refused:
        read(tmp_path, packets)
    assert "as in proband_A, or take the packets' own IDs: --map id=patient_id" in refused.value.problems[0]
    sheet = read(tmp_path, packets, id="patient_id")
    assert list(sheet.entities["patient"]) == ["PK1", "PK2"] and sheet.notes == ()
    assert sheet.entities["specimen"]["S1"].parent == "PK1"
    with pytest.raises(SheetError, match="the packet has no id"):
        read(tmp_path, [{"subject": {"id": "P1"}}], id="patient_id")


def test_subjects_of_one_name_are_not_merged_silently(tmp_path: Path) -> None:
    sheet = read(tmp_path, [packet(1, "A"), packet(2, "A"), packet(3, "B")])
    assert list(sheet.entities["patient"]) == ["A", "B"]
    assert sheet.notes == ("subject 'A' of 2 packets is taken as one patient; --map id=patient_id keeps them apart",)


def test_a_folder_is_one_sheet_and_problems_name_their_file(tmp_path: Path) -> None:
    folder = tmp_path / "packets"
    folder.mkdir()
    (folder / "notes.txt").write_text("not a packet")
    with pytest.raises(SheetError, match="it is a folder; name a sheet in it"):
        read_sheet(folder, LEVELS)
    for name, document in {
        "b": packet(1, "P1"),
        "a": [packet(2, "P2"), packet(3, "P 3")],
        "c": packet(4, "P4"),
    }.items():
        (folder / f"{name}.json").write_text(json.dumps(document))
    with pytest.raises(SheetError) as refused:
        read_sheet(folder, LEVELS)
    assert [said.partition(" is not")[0] for said in refused.value.problems] == [
        "a.json: row 2, column patient_id: 'P 3'"
    ]
    before = sheet_digest(folder)
    (folder / "a.json").write_text("{")
    (folder / "c.json").write_text("[]")
    with pytest.raises(SheetError) as refused:
        read_sheet(folder, LEVELS)
    assert [said[:18] for said in refused.value.problems] == ["a.json: it is not ", "c.json: no phenopa"]
    (folder / "a.json").write_text(json.dumps(packet(2, "P2")))
    (folder / "c.json").unlink()
    assert list(read_sheet(folder, LEVELS).entities["patient"]) == ["P2", "P1"] and sheet_digest(folder) != before


def test_a_time_with_an_offset_is_its_day(tmp_path: Path) -> None:
    for time in ("1960-05-03T00:00:00Z", "1960-05-03T23:00:00.5+02:00", "1960-05-03T10:00:00-0500"):
        document = {"subject": {"id": "P1", "dateOfBirth": time}}
        found = read_phenopackets([json.dumps(document)], "p.json")
        assert found.rows[0][1][found.header.index("patient.date_of_birth")] == "1960-05-03"
