"""Intake: one entity, partial sheets, foreign headers, workbooks, pedigrees, phenopackets, and moving somebody."""

import datetime
import json
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import func, select

from ctcore.catalog.tables import entity, event
from ctcore.cli import cli
from ctcore.config.settings import read_settings
from ctcore.config.starters import SHEET_NAME, STARTERS
from ctcore.errors import ProjectError, SheetError
from ctcore.intake.register import known_sheet, register, register_entity
from ctcore.intake.sheet_diff import AllowedChanges, SheetChanges
from ctcore.project import Project
from ctcore.sheet.options import Options
from ctcore.sheet.rows import read_table
from tests.helpers.kit import TOML, again, make_all, make_project, reasons

COLUMNS = """
[levels.patient.columns]
sex = { enum = ["F", "M"] }
age = "integer"
born = "date"
family = {}
father = {}
mother = {}
affected = "boolean"
"""
WIDE = TOML.replace(TOML[TOML.index("[levels.patient") : TOML.index("[levels.specimen")], COLUMNS)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """P1: S1 with A1 and A2; P2: S2 with A3."""
    return make_project(tmp_path / "toy", toml=WIDE)


def ct(project: Project, *args: str) -> Result:
    return CliRunner().invoke(cli, ["-C", str(project.root), *args])


def sheet(project: Project, text: str, name: str = "more.csv") -> Path:
    path = project.root / name
    path.write_text(text)
    return path


def problems(project: Project, text: str, name: str = "more.csv") -> tuple[str, ...]:
    before = everybody(project), event_count(project)
    with pytest.raises(SheetError) as caught:
        register(project, sheet(project, text, name))
    assert (everybody(project), event_count(project)) == before
    return caught.value.problems


def everybody(project: Project) -> dict[str, tuple[str | None, dict[str, Any]]]:
    """ID → (its parent's ID, attributes)."""
    above = entity.alias()
    found = select(entity.c.id, above.c.id, entity.c.attributes).select_from(
        entity.outerjoin(above, above.c.seq == entity.c.parent)
    )
    with project.catalog.read() as connection:
        return {name: (parent, json.loads(text)) for name, parent, text in connection.execute(found)}


def event_count(project: Project) -> int:
    with project.catalog.read() as connection:
        return connection.execute(select(func.count()).select_from(event)).scalar_one()


# Partial sheets


def test_a_row_may_end_with_the_patient_or_the_specimen(project: Project) -> None:
    changes = register(
        project, sheet(project, "patient_id,sex,specimen_id,site,assay_id\nP8,F,,,\nP9,M,S9,lung,\nP9,,S10,,A10\n")
    )
    assert changes.new == {"patient": ["P8", "P9"], "specimen": ["S9", "S10"], "assay": ["A10"]}
    assert everybody(project)["S9"] == ("P9", {"site": "lung"})


def test_sheets_of_one_level_need_no_other_columns(project: Project) -> None:
    assert register(project, sheet(project, "patient_id,born\nP1,2001-02-03\nP7,\n")).new["patient"] == ["P7"]
    changes = register(project, sheet(project, "sample,site\nS1,lung\nS2,liver\n"))
    assert not any(changes.new.values()), "a specimen that is known stays its patient's, and makes no assay"
    assert everybody(project)["S1"] == ("P1", {"site": "lung"})
    changes = register(project, sheet(project, "assay_id,library\nA1,L1\n"))
    assert changes.changed["assay"] == {"A1": ["library = 'L1'"]}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("assay_id,library\nA99,L1\n", "row 2: assay A99 is new, and needs its specimen; name it (specimen_id)"),
        (
            "patient_id,specimen_id,site\nP1,,lung\n",
            "row 2, column site: a value of the specimen, but the row names none; fill in specimen_id, or remove "
            "the value",
        ),
        (
            "patient_id,specimen_id,assay_id\nP1,,A1\n",
            "row 2, column specimen_id: blank; every row needs the specimen's ID",
        ),
        ("sample,sex\nS1,F\n", "row 2: sex belongs to a patient, and S1 belongs to P1; add patient_id"),
        ("sex\nF\n", "row 1: no column specimen_id (or sample); add it: it names the specimen of each assay"),
    ],
)  # fmt: skip
def test_a_partial_row_that_hangs_in_the_air_is_refused(project: Project, text: str, said: str) -> None:
    assert problems(project, text) == (said,)


def test_a_required_column_may_be_in_the_catalog_already(tmp_path: Path) -> None:
    toml = WIDE.replace('enum = ["F", "M"]', 'enum = ["F", "M"], required = true')
    project = make_project(tmp_path / "toy", toml=toml)
    register(project, sheet(project, "patient_id,age\nP1,40\n"))
    assert problems(project, "patient_id,age\nP1,40\nP7,3\n") == (
        "row 1: the required column 'sex' of patient is missing; add it",
    )
    assert problems(project, "patient_id,sex\nP1,\nP7,\n") == (
        "row 3, column sex: blank, but patient.sex is required; fill it in",
    )


# One entity


def test_one_entity_is_registered_with_its_values_and_files(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project.root)
    (project.root / "reads/A9.txt").write_text("reads")
    register_entity(project, "patient", "P9", values={"sex": "F", "age": "7"})
    register_entity(project, "specimen", "S9", parent="P9")
    said = ct(project, "register", "assay", "A9", "--parent", "S9", "--set", "library=L", "--set", "reads=reads/A9.txt")
    assert said.exit_code == 0, said.output
    found = everybody(project)
    assert (found["P9"], found["S9"], found["A9"]) == (
        (None, {"sex": "F", "age": 7}),
        ("P9", {}),
        ("S9", {"library": "L"}),
    )
    assert known_sheet(project) == project.root / "sheet.csv", "one entity is no sheet to be watched"
    assert ct(project, "register", "patient", "P9", "--set", "age=7").stdout.splitlines()[1] == "patient\t0\t0\t1"


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (("patient", "P1", "--set", "age=41"), 1, "replace it with --update patient.age"),
        (("patient", "p1"), 1, "patient p1 differs from P1 of the catalog only in case"),
        (("patient", "P 9"), 1, "'P 9' is not an ID"),
        (("patient", "P9", "--set", "age=old", "--set", "sex=X"), 1, "2 problems"),
        (("patient", "P9", "--set", "agee=4"), 1, "did you mean 'age'"),
        (("patient", "P9", "--set", "age"), 2, "a name, = and a value are expected"),
        (("patient", "P9", "--set", "age=1", "--set", "age=2"), 2, "is given twice"),
        (("patient", "P9", "--parent", "P1"), 2, "a patient has no parent"),
        (("specimen", "S9"), 1, "it is new, and needs its patient; say --parent ID"),
        (("specimen", "S9", "--parent", "P77"), 2, "no patient 'P77' in the catalog; register it first"),
        (("specimen", "S1", "--parent", "P2"), 1, "or move it with --reparent S1"),
        (("patient",), 2, "which patient?"),
        (("sheet.csv", "P1"), 2, "`ct register SHEET`, or"),
    ],
)
def test_a_wrong_entity_is_refused_with_the_way_out(
    project: Project, monkeypatch: pytest.MonkeyPatch, args: tuple[str, ...], code: int, said: str
) -> None:
    from ctcore.cli import main

    monkeypatch.setattr("sys.argv", ["ct", "-C", str(project.root), "register", *args])
    before = everybody(project)
    errors: list[str] = []
    monkeypatch.setattr("click.echo", lambda text="", **_: errors.append(str(text)))
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == code
    assert said in "\n".join(errors)
    assert "row 1" not in "\n".join(errors)
    assert everybody(project) == before


# Foreign headers


def test_a_foreign_header_is_mapped_by_option_and_ct_toml(project: Project) -> None:
    path = sheet(project, "Subject,Sample Name,Lib,Operator\nP9,S9,A9,Joe\n")
    options = Options({"subject": "patient_id", "Sample Name": "sample", "Lib": "assay_id"}, ("operator",))
    assert register(project, path, options=options).new["assay"] == ["A9"]
    more = '[sheet]\nignore = ["Operator"]\n[sheet.map]\nSubject = "patient_id"\n"Sample Name" = "sample"\n'
    more += 'Lib = "assay_id"\n'
    (project.root / "ct.toml").write_text(WIDE + more)
    assert not register(again(project), path)
    said = ct(project, "register", str(sheet(project, "Who,Sample Name,Lib\nP9,S9,A9\n")), "--map", "Who=patient_id")
    assert said.exit_code == 0, said.output


def test_a_map_to_nothing_is_told(project: Project) -> None:
    with pytest.raises(
        SheetError, match=r"column 'Lib' is mapped to 'librry', which ct.toml does not declare; did you mean"
    ):
        register(project, sheet(project, "sample,Lib\nS9,x\n"), options=Options({"lib": "librry"}))
    (project.root / "ct.toml").write_text(WIDE + '[sheet.map]\nLib = "librry"\nx = 3\n')
    with pytest.raises(ProjectError, match="did you mean 'library'"):
        read_settings(project.root / "ct.toml")


# Workbooks


def workbook(project: Project, **tabs: list[list[Any]]) -> Path:
    import openpyxl

    book = openpyxl.Workbook()
    book.remove(book.worksheets[0])
    for name, rows in tabs.items():
        tab = book.create_sheet(name)
        for row in rows:
            tab.append(row)
    path = project.root / "book.xlsx"
    book.save(path)
    return path


@pytest.mark.parametrize("tab", [None, "cohort"])
def test_a_bad_number_in_a_workbook_is_told_with_its_cell(project: Project, tab: str | None) -> None:
    """Programs write such files: the cell says that it is a number."""
    path = workbook(project, cohort=[["patient_id", "age"], ["P1", 40], ["P2", 41]])
    with zipfile.ZipFile(path) as packed:
        parts = {name: packed.read(name) for name in packed.namelist()}
    with zipfile.ZipFile(path, "w") as packed:
        for name, part in parts.items():
            packed.writestr(name, part.replace(b"<v>41</v>", b"<v>4l</v>"))
    with pytest.raises(SheetError) as caught:
        read_table(path, Options(tab=tab))
    assert str(caught.value) == (
        f"{path}: 1 problem; nothing was written\n"
        "  tab cohort, cell B3: '4l' is marked as a number in the workbook and is none; correct it there"
    )


def test_a_workbook_reads_as_a_person_sees_it(project: Project) -> None:
    import openpyxl

    path = workbook(
        project,
        cohort=[
            ["patient_id", "age", "born", "affected", "specimen_id", "assay_id", None],
            ["0012", 40.0, datetime.datetime(2001, 2, 3), True, 7, "007"],
            [None],
            [13, "", datetime.date(2002, 3, 4), False, "S13", "A13"],
        ],
        empty=[],
    )
    book = openpyxl.load_workbook(path)
    book["cohort"]["A4"].number_format = "0000"
    book.save(path)
    register(project, path)
    found = everybody(project)
    assert found["0012"] == (None, {"age": 40, "born": "2001-02-03", "affected": True})
    assert found["0013"] == (None, {"born": "2002-03-04", "affected": False})
    assert (found["7"][0], found["007"][0]) == ("0012", "7")


def test_a_workbook_that_cannot_be_read_says_why(project: Project) -> None:
    def said(path: Path, tab: str | None = None) -> str:
        with pytest.raises(SheetError) as caught:
            register(project, path, options=Options(tab=tab))
        return "\n".join(caught.value.problems)

    header = ["patient_id", "age"]
    assert "several tabs hold something: a, b; say which with --tab" in said(workbook(project, a=[header], b=[header]))
    assert "no tab 'c'; there is: a" in said(workbook(project, a=[header]), "c")
    assert "row 2, column age: a formula that was never calculated" in said(
        workbook(project, a=[header, ["P9", "=1+1"]])
    )
    assert "the workbook is empty" in said(workbook(project, a=[]))
    assert "is no workbook, or is damaged" in said(sheet(project, "not a zip", "x.xlsx"))
    assert "only an .xlsx workbook has tabs" in said(project.root / "sheet.csv", "a")


def test_openpyxls_warnings_are_cell_problems_or_silent(project: Project) -> None:
    import openpyxl

    path = workbook(project, a=[["patient_id", "born"], ["P9", 9_999_999_999]])
    book = openpyxl.load_workbook(path)
    book["a"]["B2"].number_format = "yyyy-mm-dd"
    book.save(path)
    with warnings.catch_warnings(), pytest.raises(SheetError, match="row 2, column born: #VALUE! is an error"):
        warnings.simplefilter("error")
        register(project, path)


@pytest.mark.parametrize("told", ["A1", "A1:A2", "A1:XFD1048576"])
def test_a_workbook_is_read_to_its_end_whatever_its_size_says(project: Project, told: str) -> None:
    path = workbook(project, a=[["patient_id", "age"], ["P8", 8], ["P9", 9]])
    register(project, edited(path, 'ref="A1:B3"', f'ref="{told}"'))
    assert [everybody(project)[name][1] for name in ("P8", "P9")] == [{"age": 8}, {"age": 9}]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('<row r="2"', '<row r="3"', "row 3: cell 'A2' is not in its place"),
        ('<row r="3"', '<row r="2"', "row 2: it is not in its place"),
        ('<row r="3"', '<row r="99999999999"', "row 99999999999: it is not in its place"),
        ('r="B3"', 'r="A3"', "row 3: cell 'A3' is not in its place"),
        ('r="A3"', 'r="A2"', "row 3: cell 'A2' is not in its place"),
    ],
)
def test_a_workbook_of_which_rows_would_be_lost_is_refused(project: Project, old: str, new: str, said: str) -> None:
    path = edited(workbook(project, a=[["patient_id", "age"], ["P8", 8], ["P9", 9]]), old, new)
    with pytest.raises(SheetError, match=re.escape(said)):
        register(project, path)


def edited(path: Path, old: str, new: str) -> Path:
    """A workbook, with another text in its first tab."""
    with zipfile.ZipFile(path) as packed:
        parts = {name: packed.read(name) for name in packed.namelist()}
    text = parts["xl/worksheets/sheet1.xml"].decode()
    assert old in text
    with zipfile.ZipFile(path, "w") as packed:
        for name, data in {**parts, "xl/worksheets/sheet1.xml": text.replace(old, new).encode()}.items():
            packed.writestr(name, data)
    return path


def test_without_openpyxl_a_workbook_says_how_to_get_it(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    path = workbook(project, a=[["patient_id"], ["P9"]])
    monkeypatch.setitem(__import__("sys").modules, "openpyxl", None)
    with pytest.raises(SheetError, match=r"pip install 'ct-cohort\[tables\]'"):
        register(project, path)


# Pedigrees

PED = "#FID IID father mother sex phenotype\nF1\tC1\tD1\tM1\t1\t2\nF1 D1 0 0 1 1\nF1 M1 0 0 2 -9\n"


def test_a_pedigree_fills_the_columns_that_are_declared(project: Project) -> None:
    changes = register(project, sheet(project, PED, "trio.ped"))
    found = everybody(project)
    assert found["C1"] == (None, {"family": "F1", "father": "D1", "mother": "M1", "sex": "M", "affected": True})
    assert found["M1"] == (None, {"family": "F1", "sex": "F"})
    assert changes.notes == ()
    assert not register(project, project.root / "trio.ped")


def test_what_of_a_pedigree_nobody_declares_is_counted_and_said(tmp_path: Path) -> None:
    project = make_project(tmp_path / "toy")
    changes = register(project, sheet(project, PED, "trio.ped"))
    assert [said.split(";")[0] for said in changes.notes] == [
        "family_id: 3 values not taken",
        "father_id: 1 value not taken",
        "mother_id: 1 value not taken",
        "phenotype: 2 values not taken",
    ]


def test_a_pedigree_that_contradicts_itself_is_refused_at_once(project: Project) -> None:
    text = "F1 C1 D1 D1 1 2\nF1 D1 0 0 2 1\nF1 C1 C1 0 1 2\nF1 X\nF1 0 0 0 1 1\n"
    assert problems(project, text, "trio.ped") == (
        "row 1, column father_id: 'D1' is female in its own row; correct one of them",
        "row 3: individual 'C1' stands in row 1 too; keep one of them",
        "row 3, column father_id: 'C1' is its own father; correct one of them",
        "row 3, column father: patient C1 has 'C1' here and 'D1' in row 1; correct one of them",
        "row 4: 2 columns; family, individual, father, mother, sex and phenotype are expected",
        "row 5: the individual is '0', which means nobody; write its ID",
    )  # fmt: skip


# Phenopackets

PACKET = {
    "id": "packet-1",
    "subject": {"id": "P5", "sex": "FEMALE", "dateOfBirth": "1999-01-02T00:00:00Z"},
    "phenotypicFeatures": [{"type": {"id": "HP:1"}}, {"type": {"id": "HP:2"}}],
    "biosamples": [
        {"id": "S5", "individualId": "P5", "sampledTissue": {"id": "UBERON:1", "label": "lung"}},
        {"id": "S6", "individualId": "P5"},
    ],
    "metaData": {"created": "2024-01-01T00:00:00Z"},
}


def test_a_phenopacket_gives_entities_and_names_the_rest(project: Project) -> None:
    path = sheet(project, json.dumps([PACKET, {"subject": {"id": "P6", "sex": "UNKNOWN_SEX"}}]), "packets.json")
    options = Options({"sampled_tissue": "specimen.site", "dateOfBirth": "x", "date_of_birth": "patient.born"})
    changes = register(project, path, options=options)
    found = everybody(project)
    assert found["P5"] == (None, {"sex": "F", "born": "1999-01-02"})
    assert (found["S5"], found["S6"], found["P6"]) == (("P5", {"site": "lung"}), ("P5", {}), (None, {}))
    assert changes.notes == ("phenotypicFeatures: 2 not taken; they describe no patient or specimen by a column",)
    assert (
        "specimen.sampled_tissue: 1 value not taken; ct.toml declares no such column" in register(project, path).notes
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "it is not JSON"),
        ("[]", "no phenopacket in it"),
        ("3", "row 1: is no phenopacket"),
        ('{"subject": {}}', "row 1: has neither a subject with an id nor biosamples"),
        ('{"subject": {"id": "P 5"}}', "row 1, column patient_id: 'P 5' is not an ID"),
        ('{"subject": {"id": "P5", "sex": "OTHER_SEX"}}', "'other' is not one of F, M"),
        ('{"subject": {"id": "P5"}, "biosamples": 3}', "biosamples is not a list"),
        ("[" * 100_000, "it is not JSON"),
        ('{"proband": {"subject": {"id": "P5"}}, "relatives": {"x": 1}}', "row 2: has neither a subject"),
        (
            '{"subject": {"id": "P5"}, "biosamples": [{"id": "S5"}, {}]}',
            "biosample 2 has no id that is a text (None)",
        ),
        ('{"subject": {"id": "P5", "id": "P6"}}', "the field 'id' stands twice in one object"),
        ('{"subject": {"id": {"id": "P5"}}}', "row 1: the subject's id, {'id': 'P5'}, is no text"),
        ('{"subject": {"id": 1.50}}', "row 1: the subject's id, 1.5, is no text"),
        ('{"subject": {"id": "P5"}, "biosamples": [{"id": "S5", "individualId": []}]}', "individualId, [], is no text"),
        ('{"subject": {"id": "P5", "sex": "\\ud800"}}', "'\\ud800' has a control character"),
    ],
)
def test_what_is_no_phenopacket_is_refused(project: Project, text: str, said: str) -> None:
    found = "\n".join(problems(project, text, "packets.json"))
    assert said in found and "no column specimen_id" not in found, "a packet has no columns of its own"


# Moving somebody


def test_moving_a_specimen_asks_first_and_shows_stale_nodes(project: Project) -> None:
    make_all(project)
    path = sheet(project, "patient_id,specimen_id\nP1,S2\n")
    assert problems(project, path.read_text()) == (
        "row 2: specimen S2 belongs to P2 in the catalog and to P1 here; correct the sheet, or move it with "
        "--reparent S2",
    )
    said = ct(project, "register", str(path), "--reparent", "S2")
    assert isinstance(said.exception, Exception)
    assert "add --yes to move it" in str(said.exception)
    assert "merged: 1 would be stale, 0 would be new" in said.stderr
    assert "specimen S2: parent P2 → P1" in said.stderr
    assert everybody(project)["S2"][0] == "P2"
    assert reasons(project) == {}, "foresight leaves nothing behind"
    assert ct(project, "register", str(path), "--reparent", "S2", "--yes").exit_code == 0
    assert everybody(project)["S2"][0] == "P1"
    assert sorted(reasons(again(project))) == ["joined/all", "merged/S2"]


@pytest.mark.parametrize("where", ["sqlite", "postgresql"])
def test_foresight_is_what_happens_then(where: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if where == "postgresql":
        url = request.getfixturevalue("postgres_url")
        request.getfixturevalue("monkeypatch").setenv("CT_POSTGRES_URL", url)
    project = make_project(tmp_path / "toy", toml=WIDE)
    make_all(project)
    path = sheet(project, "patient_id,sex,specimen_id,assay_id\nP1,M,S1,A1\nP3,F,S3,\n")
    allowed = AllowedChanges(update=frozenset({"patient.sex"}))
    before = event_count(project)
    planned = register(project, path, allowed, dry_run=True, foresee=True)
    assert event_count(project) == before
    assert [(one.step, one.stale, one.new) for one in planned.consequences] == [("merged", 1, 0), ("joined", 1, 0)]
    done = register(project, path, allowed)
    assert done == SheetChanges(done.new, planned.changed, planned.unchanged)
    assert sorted(reasons(again(project))) == ["joined/all", "merged/S1"]


# What a project begins with


@pytest.mark.parametrize("template", STARTERS)
def test_a_templates_example_sheet_registers_as_it_is(tmp_path: Path, template: str) -> None:
    root = tmp_path / template
    said = CliRunner().invoke(cli, ["init", str(root), "--template", template])
    assert said.exit_code == 0, said.output
    opened = Project.find(root)
    assert register(opened, root / SHEET_NAME).new["patient"]
    assert ct(opened, "schema", "check").exit_code == 0
    assert len(ct(opened, "schema", "show").stdout.splitlines()) > 2
    again_said = CliRunner().invoke(cli, ["init", str(root), "--template", template])
    assert "--template is for a new project" in str(again_said.exception)


def test_the_trio_template_takes_a_pedigree(tmp_path: Path) -> None:
    root = tmp_path / "trio"
    CliRunner().invoke(cli, ["init", str(root), "--template", "trio"])
    opened = Project.find(root)
    assert register(opened, sheet(opened, PED, "trio.ped")).notes == ()
    assert everybody(opened)["C1"][1]["affected"] is True
