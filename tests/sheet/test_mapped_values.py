"""Words of a sheet that stand for declared values."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctcore.config.settings import read_settings
from ctcore.config.starters import STARTERS
from ctcore.errors import SheetError
from ctcore.model.column import Column
from ctcore.model.levels import ENTITY_LEVELS
from ctcore.model.schema import Levels, LevelSchema
from ctcore.sheet.mapped_values import checked_values, way_to_map, with_values
from ctcore.sheet.options import Options
from ctcore.sheet.parse import Sheet, read_rows, read_sheet
from ctcore.sheet.rows import Rows

SEX = Column("sex", enum=("F", "M", "unknown"))
STATUS = Column("status", "integer", enum=("0", "1"))
LEVELS: Levels = {
    **{level: LevelSchema(level) for level in ENTITY_LEVELS},
    "patient": LevelSchema("patient", {"sex": SEX, "note": Column("note"), "age": Column("age", "integer")}),
    "specimen": LevelSchema("specimen", {"status": STATUS, "note": Column("note")}),
}


def read(folder: Path, text: str, values: Mapping[str, Mapping[str, object]], name: str = "s.csv") -> Sheet:
    checked, problems = checked_values(values, LEVELS)
    assert problems == []
    (folder / name).write_text(text)
    return read_sheet(folder / name, LEVELS, Options(values=checked))


def test_a_declared_word_is_the_value_and_is_counted(tmp_path: Path) -> None:
    text = "patient,gender,sample,status\nP1,XX,S1,tumour\nP1,XX,S2,0\nP2,F,S3,normal\nP3,NA,,\n"
    options = Options(
        {"gender": "sex"},
        blank=("NA",),
        values=checked_values(
            {"patient.sex": {"XX": "F", "NA": "unknown"}, "status": {"tumour": 1, "normal": "0"}}, LEVELS
        )[0],
    )
    (tmp_path / "s.csv").write_text(text)
    sheet = read_sheet(tmp_path / "s.csv", LEVELS, options)
    assert {one.id: one.attributes for one in sheet.entities["patient"].values()} == {
        "P1": {"sex": "F"},
        "P2": {"sex": "F"},
        "P3": {"sex": "unknown"},  # what is declared of a column goes before --blank
    }
    assert [one.attributes["status"] for one in sheet.entities["specimen"].values()] == [1, 0, 0]
    assert sheet.notes == (
        "gender: 'XX' is 'F' in 2 cells, 'NA' is 'unknown' in 1 cell, by declaration",
        "status: 'tumour' is '1' in 1 cell, 'normal' is '0' in 1 cell, by declaration",
    )


def test_other_words_are_refused_once_with_their_rows(tmp_path: Path) -> None:
    rows = "".join(f"P{n},{'X' if n % 2 else 'male'},old\n" for n in range(50))
    with pytest.raises(SheetError) as refused:
        read(tmp_path, f"patient_id,sex,age\n{rows}", {"sex": {"XX": "F"}})
    listed = ", ".join(map(str, range(2, 42, 2)))
    assert refused.value.problems[0] == (
        f"rows {listed}, … (25 rows), column sex: 'male' is not one of F, M, unknown; correct the cell or extend the "
        "enum in ct.toml; `--value sex:male=ONE_OF_THEM`, or [sheet.values] in ct.toml, says which of them it is"
    )
    assert [one.partition(" is ")[0].rpartition(", ")[2] for one in refused.value.problems] == [
        "column sex: 'male'",
        "column age: 'old'",
        "column sex: 'X'",
    ]


def test_one_entity_is_told_no_options_of_sheets() -> None:
    """`ct register patient P1 --set sex=XX` takes neither --value nor --blank."""
    table = Rows(["patient_id", "sex", "age"], [(1, ["P1", "XX", "NA"])], [], is_sheet=False)
    with pytest.raises(SheetError) as refused:
        read_rows(Path("patient P1"), table, LEVELS, Options())
    assert len(refused.value.problems) == 2 and "--" not in "".join(refused.value.problems)


def test_words_of_pedigrees_are_declared_too(tmp_path: Path) -> None:
    sheet = read(tmp_path, "F1 P1 0 0 2 1\nF1 P2 0 0 0 1\n", {"sex": {"female": "M", "unknown": ""}}, "s.ped")
    assert [one.attributes for one in sheet.entities["patient"].values()] == [{"sex": "M"}, {}]
    assert "sex: 'female' is 'M' in 1 cell, 'unknown' is blank in 1 cell, by declaration" in sheet.notes


def test_a_folder_of_packets_names_the_file_of_each_word(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.json").write_text(f'{{"subject": {{"id": "{name}", "sex": "OTHER_SEX"}}}}')
    with pytest.raises(SheetError) as refused:
        read_sheet(tmp_path, LEVELS)
    assert [one.partition(";")[0] for one in refused.value.problems] == [
        f"{name}.json: row {row}, column patient.sex: 'other' is not one of F, M, unknown"
        for row, name in enumerate("ab", 1)
    ]
    values = checked_values({"sex": {"other": "unknown"}}, LEVELS)[0]
    assert len(read_sheet(tmp_path, LEVELS, Options(values=values)).entities["patient"]) == 2


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ({"sx": {"XX": "F"}}, "sx: no such column of a level in ct.toml; did you mean sex?"),
        ({"note": {"a": "b"}}, "note: it is declared at several levels; write one of patient.note, specimen.note"),
        ({"kit": {"a": "b"}}, "kit: no such column of a level in ct.toml; declare it there"),
        ({"sex": {"XX": "Q"}}, "sex: 'XX' = 'Q': the value is not one of F, M, unknown"),
        ({"age": {"old": "old"}}, "age: 'old' = 'old': the value is not a whole number"),
        ({"age": {"old": [1]}}, "age: 'old' = [1]: one value is expected"),
        (
            {"sex": {" ": "F"}},
            "sex: ' ' = 'F': a blank cell has no value; `default` of the column gives new ones a value",
        ),
        ({"sex": {"\x1b": "F"}}, "sex: '\\x1b' = 'F': it has a control character, which no cell may have"),
        (
            {"sex": {"XX": "F"}, "patient.sex": {"XX": "M"}},
            "patient.sex: 'XX' = 'M': the word means 'F' too; keep one of them",
        ),
    ],
)
def test_a_value_that_cannot_be_is_refused(said: Mapping[str, Mapping[str, object]], problem: str) -> None:
    assert checked_values(said, LEVELS)[1] == [problem]


def test_the_way_out_is_one() -> None:
    """What a refusal proposes works, quotes and all."""
    from ctcore.terminal.name_values import word_values

    assert "`--value status:2=ONE" in way_to_map("2", "specimen", STATUS, LEVELS)
    both: Levels = {**LEVELS, "assay": LevelSchema("assay", {"sex": SEX})}
    assert "`--value 'patient.sex:not known='ONE_OF_THEM`" in way_to_map("not known", "patient", SEX, both)
    assert "--value" not in way_to_map("a=b", "patient", SEX, LEVELS), "the command could not say it"
    assert word_values("--value", ["sex:not known=F", "sex:a:b=", "note: x = y "]) == {
        "sex": {"not known": "F", "a:b": ""},
        "note": {"x": "y"},
    }


@given(st.lists(st.sampled_from(["XX", "XY", "F", "", "0"])), st.dictionaries(st.sampled_from("F0"), st.just("M")))
def test_only_declared_words_are_replaced(cells: list[str], words: dict[str, str]) -> None:
    table = Rows(["sex", "x"], [(line, [cell, "F"]) for line, cell in enumerate(cells)], [])
    found = with_values(table, Options(values={"patient.sex": words}), LEVELS)
    assert [one for _, one in found.rows] == [[words.get(cell, cell), "F"] for cell in cells]
    assert len(found.notes) == bool(words.keys() & {*cells})


@pytest.mark.parametrize("template", STARTERS)
def test_the_templates_know_the_words_of_sarek(tmp_path: Path, template: str) -> None:
    (tmp_path / "ct.toml").write_text(STARTERS[template].toml.replace("{id}", "toy"))
    found = read_settings(tmp_path / "ct.toml")
    (tmp_path / "s.csv").write_text("patient,sex\nP1,XX\nP2,XY\nP3,NA\nP4,F\n")
    if template == "trio":
        (tmp_path / "s.csv").write_text("patient,sex,family\nP1,XX,A\nP2,XY,A\nP3,NA,A\nP4,F,A\n")
    sheet = read_sheet(tmp_path / "s.csv", found.levels, found.reading)
    assert [one.attributes["sex"] for one in sheet.entities["patient"].values()] == ["F", "M", "unknown", "F"]


SAREK = [
    "patient,sex,status,sample,lane,fastq_1,fastq_2\nP1,XX,0,N,L1,f,\nP1,XX,1,T,L1,f,",
    "patient,sex,status,sample,lane,bam,bai\nP1,XX,1,T,L1,f,f",
    "patient,sex,status,sample,cram,crai,table\nP1,XY,1,T,f,f,f",
    "patient,sex,status,sample,vcf,variantcaller\nP1,NA,0,N,f,strelka",
]


@pytest.mark.parametrize("text", SAREK)
def test_sheets_of_sarek_read_with_the_template(tmp_path: Path, text: str) -> None:
    (tmp_path / "ct.toml").write_text(STARTERS["tumour-normal"].toml.replace("{id}", "toy"))
    found, rows = read_settings(tmp_path / "ct.toml"), [line.split(",") for line in text.splitlines()]
    for line, cells in enumerate(rows):
        for at, cell in enumerate(cells):
            if cell == "f":
                cells[at] = f"{line}_{at}.bam"
                (tmp_path / cells[at]).write_text(cells[at])
    (tmp_path / "s.csv").write_text("\n".join(map(",".join, rows)))
    assert read_sheet(tmp_path / "s.csv", found.levels, found.reading).entities["assay"]
