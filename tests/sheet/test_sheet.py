"""Reading a sheet: what is accepted, and everything that is refused, with its place and the way out."""

import csv
import gzip
import hashlib
import io
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctcore.config.settings import read_settings
from ctcore.errors import SheetError
from ctcore.model.column import Column
from ctcore.model.schema import Levels, LevelSchema
from ctcore.sheet.options import Options
from ctcore.sheet.parse import Sheet, read_sheet

LEVELS: Levels = {
    "patient": LevelSchema(
        "patient",
        {
            "sex": Column("sex", enum=("F", "M", "XX", "XY")),
            "age": Column("age", "integer"),
            "born": Column("born", "date"),
            "note": Column("note"),
        },
    ),
    "specimen": LevelSchema(
        "specimen",
        {"status": Column("status", "integer"), "purity": Column("purity", "real"), "note": Column("note")},
    ),
    "assay": LevelSchema(
        "assay", {"pcr_free": Column("pcr_free", "boolean"), "library": Column("library")}, files=("fastq_1", "fastq_2")
    ),
}
IDS = "patient_id,specimen_id,assay_id"


def write(folder: Path, text: str, name: str = "sheet.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode())
    return path


def read(folder: Path, text: str, name: str = "sheet.csv", levels: Levels = LEVELS) -> Sheet:
    return read_sheet(write(folder, text, name), levels)


def problems(folder: Path, text: str, name: str = "sheet.csv", levels: Levels = LEVELS) -> tuple[str, ...]:
    with pytest.raises(SheetError) as caught:
        read(folder, text, name, levels)
    return caught.value.problems


def problem(folder: Path, text: str, name: str = "sheet.csv", levels: Levels = LEVELS) -> str:
    """The only problem of a sheet."""
    found = problems(folder, text, name, levels)
    assert len(found) == 1, found
    return found[0]


def reads(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(gzip.compress(name.encode()) if name.endswith(".gz") else name.encode())


def parents(sheet: Sheet) -> dict[str, str | None]:
    """assay → specimen and specimen → patient, with the level before each ID."""
    return {f"{row.level} {row.id}": row.parent for rows in sheet.entities.values() for row in rows.values()}


# What is read


@pytest.mark.parametrize("start", ["", "\ufeff"], ids=["no BOM", "BOM"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["LF", "CRLF", "CR"])
@pytest.mark.parametrize(("name", "comma"), [("s.csv", ","), ("s.tsv", "\t"), ("s.txt", "\t"), ("s.CSV", ",")])
def test_every_usual_way_of_saving_a_sheet_reads_the_same(
    tmp_path: Path, start: str, end: str, name: str, comma: str
) -> None:
    lines = [f"{IDS},sex", "P1,S1,A1,F", "P1,S1,A2,F", ""]
    sheet = read(tmp_path, start + end.join(lines).replace(",", comma), name)
    assert parents(sheet) == {"patient P1": None, "specimen S1": "P1", "assay A1": "S1", "assay A2": "S1"}
    assert sheet.entities["patient"]["P1"].attributes == {"sex": "F"}


def test_text_stays_text_and_declared_types_become_values(tmp_path: Path) -> None:
    sheet = read(
        tmp_path, f"{IDS},age,born,purity,pcr_free,library\n0012,007,1,041,1970-01-31,5e-1,Yes,0099\n02,03,04,,,,,NA\n"
    )
    assert sheet.entities["patient"]["0012"].attributes == {"age": 41, "born": "1970-01-31"}
    assert sheet.entities["specimen"]["007"].attributes == {"purity": 0.5}
    assert sheet.entities["assay"]["1"].attributes == {"pcr_free": True, "library": "0099"}
    assert sheet.entities["assay"]["04"].attributes == {"library": "NA"}, "a text column keeps NA as it is"


def test_quoted_cells_may_have_commas_quotes_and_lines(tmp_path: Path) -> None:
    sheet = read(tmp_path, f'{IDS},library\nP1,S1,A1,"a, ""b""\n\tand c"\nP1,S1,A2, padded \n')
    assert sheet.entities["assay"]["A1"].attributes["library"] == 'a, "b"\n\tand c'
    assert sheet.entities["assay"]["A2"].attributes["library"] == "padded"
    assert sheet.entities["assay"]["A2"].row == 4, "a row is where its line is, below a cell of two lines"


def test_blank_lines_and_empty_columns_do_not_matter(tmp_path: Path) -> None:
    sheet = read(tmp_path, f"\n{IDS},,comment\n,,,,\n\nP1,S1,A1,,\n")
    assert list(sheet.entities["assay"]) == ["A1"]
    assert sheet.entities["assay"]["A1"].row == 5


def test_an_nf_core_sheet_reads_as_it_is(tmp_path: Path) -> None:
    reads(tmp_path, "a_1.fq.gz", "a_2.fq.gz", "b_1.fq.gz")
    sheet = read(tmp_path, "sample,fastq_1,fastq_2\nC1,a_1.fq.gz,a_2.fq.gz\nC2,b_1.fq.gz,\n")
    assert parents(sheet)["assay C1"] == "C1"
    assert parents(sheet)["specimen C1"] == "C1"
    assert set(sheet.entities["assay"]["C1"].files) == {"fastq_1", "fastq_2"}
    assert set(sheet.entities["assay"]["C2"].files) == {"fastq_1"}, "single-end reads have no second file"


def test_a_sarek_sheet_reads_as_it_is(tmp_path: Path) -> None:
    names = [f"{sample}_{lane}_{mate}.fq.gz" for sample in "TN" for lane in ("L1", "L2") for mate in "12"]
    reads(tmp_path, *names)
    rows = [
        f"P1,XX,{int(sample == 'T')},{sample},{lane},{sample}_{lane}_1.fq.gz,{sample}_{lane}_2.fq.gz"
        for sample in "TN"
        for lane in ("L1", "L2")
    ]
    sheet = read(tmp_path, "\n".join(["patient,sex,status,sample,lane,fastq_1,fastq_2", *rows]))
    assert list(sheet.entities["assay"]) == ["T-L1", "T-L2", "N-L1", "N-L2"]
    assert sheet.entities["specimen"]["T"].attributes == {"status": 1}
    assert sheet.entities["patient"]["P1"].attributes == {"sex": "XX"}
    assert sheet.entities["assay"]["N-L2"].files["fastq_2"].path == tmp_path / "N_L2_2.fq.gz"


def test_a_declared_lane_is_metadata_and_separates_assays(tmp_path: Path) -> None:
    levels = {**LEVELS, "assay": LevelSchema("assay", {"lane": Column("lane")})}
    sheet = read(tmp_path, "sample,lane\nS1,1\nS1,2\n", levels=levels)
    assert {key: row.attributes for key, row in sheet.entities["assay"].items()} == {
        "S1-1": {"lane": "1"},
        "S1-2": {"lane": "2"},
    }


def test_a_lane_column_without_values_is_no_column(tmp_path: Path) -> None:
    assert list(read(tmp_path, "sample,lane\nS1,\nS2,\n").entities["assay"]) == ["S1", "S2"]


def test_column_names_have_any_case_and_their_level(tmp_path: Path) -> None:
    sheet = read(tmp_path, "Patient_ID,SAMPLE,Assay,Sex,specimen.note,patient.note\nP1,S1,A1,F,frozen,kind\n")
    assert sheet.entities["patient"]["P1"].attributes == {"sex": "F", "note": "kind"}
    assert sheet.entities["specimen"]["S1"].attributes == {"note": "frozen"}


def test_paths_are_relative_to_the_sheet_wherever_one_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads(tmp_path, "data/run 1/a.fq", "other/b.fq")
    monkeypatch.chdir("/")
    header = f"{IDS},fastq_1,fastq_2\n"
    sheet = read(tmp_path / "data", f"{header}P1,S1,A1,run 1/a.fq,{tmp_path}/other/b.fq\n")
    files = sheet.entities["assay"]["A1"].files
    assert files["fastq_1"].path == tmp_path / "data/run 1/a.fq"
    assert files["fastq_2"].path == tmp_path / "other/b.fq"


@pytest.mark.parametrize(
    "cell", ["a.fq", "./a.fq", "x/../a.fq", "x//..//a.fq", "../{here}/a.fq", "~/a.fq", "{path}/a.fq"]
)
def test_a_path_is_recorded_the_same_however_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cell: str
) -> None:
    reads(tmp_path, "a.fq")
    monkeypatch.setenv("HOME", str(tmp_path))
    written = cell.format(here=tmp_path.name, path=tmp_path)
    sheet = read(tmp_path, f"{IDS},fastq_1\nP1,S1,A1,{written}\n")
    assert sheet.entities["assay"]["A1"].files["fastq_1"].path == tmp_path / "a.fq"


def test_rows_of_one_entity_add_up_and_equal_rows_are_one(tmp_path: Path) -> None:
    reads(tmp_path, "a.fq")
    sheet = read(tmp_path, f"{IDS},sex,age,fastq_1\nP1,S1,A1,F,,a.fq\nP1,S1,A1,F,,a.fq\nP1,S2,A2,,40,\n")
    assert sheet.entities["patient"]["P1"].attributes == {"sex": "F", "age": 40}
    assert list(sheet.entities["assay"]) == ["A1", "A2"]


def test_checksums_are_kept_with_their_file(tmp_path: Path) -> None:
    reads(tmp_path, "a.fq")
    md5, sha256 = hashlib.md5(b"a.fq").hexdigest(), hashlib.sha256(b"a.fq").hexdigest()
    sheet = read(
        tmp_path, f"{IDS},fastq_1,fastq_1_md5,fastq_1_sha256\nP1,S1,A1,a.fq,{md5.upper()},\nP1,S1,A1,a.fq,,{sha256}\n"
    )
    assert sheet.entities["assay"]["A1"].files["fastq_1"].checksums == {"md5": md5, "sha256": sha256}


# What is refused: the file


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("s.csv", b"", "the file is empty; a header line and one row an assay are expected"),
        ("s.csv", b"\xef\xbb\xbf \r\n\n", "the file is empty; a header line and one row an assay are expected"),
        ("s.csv", IDS.encode(), "row 2: no assay; one row an assay is expected below the header"),
        ("s.csv", f"{IDS}\n,,\n".encode(), "row 2: no assay; one row an assay is expected below the header"),
        (
            "sheet",
            b"PK\3\4",
            "a sheet is a file .csv, .tsv, .xlsx, .ped or .json (phenopackets), not without an ending; "
            "export it as CSV UTF-8",
        ),
        (
            "s.csv",
            f"{IDS}\nP1,S1,M\xfcller\n".encode("latin-1"),
            "row 2: byte 39 is not UTF-8; save the sheet as UTF-8",
        ),
        ("s.csv", f"{IDS}\n".encode("utf-16")[:-1], "row 1: byte 64 is not UTF-16-LE; save the sheet as UTF-8"),
        (
            "s.csv",
            b"patient_id\tspecimen_id\nP1\tS1\n",
            "row 1: the columns are separated by tabs; a .csv sheet has commas: "
            "save it so, or give it the other ending (.csv, .tsv)",
        ),
        (
            "s.tsv",
            b"patient_id,specimen_id\nP1,S1\n",
            "row 1: the columns are separated by commas; a .tsv sheet has tabs: "
            "save it so, or give it the other ending (.csv, .tsv)",
        ),
    ],
)
def test_a_file_that_is_no_sheet_says_why(tmp_path: Path, name: str, data: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(SheetError) as caught:
        read_sheet(tmp_path / name, LEVELS)
    assert caught.value.problems == (said,)


def test_a_missing_sheet_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(SheetError, match="no such file; check the path"):
        read_sheet(tmp_path / "none.csv", LEVELS)
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(SheetError, match="it is a folder; name a sheet in it"):
        read_sheet(tmp_path / "folder.csv", LEVELS)


@pytest.mark.parametrize("odd", ["\0", "\x07", "\x1b[31m", "\x7f", "\x9b"])
def test_control_characters_are_named_with_their_cell(tmp_path: Path, odd: str) -> None:
    said = problem(tmp_path, f"{IDS},library\nP1,S1,A1,fine\nP1,S1,A2,a{odd}b\n")
    assert said.startswith("row 3, column 'library': 'a")
    assert said.endswith("has a control character; remove it")
    assert odd not in said


def test_a_binary_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_bytes(bytes(range(128)) * 50)
    with pytest.raises(SheetError):
        read_sheet(tmp_path / "s.csv", LEVELS)


def test_ragged_rows_are_named_and_do_not_hide_other_problems(tmp_path: Path) -> None:
    found = problems(tmp_path, f"{IDS}\nP1,S1\nP1,S1,A 1\nP1,S1,A2,more\nP1,S1,A3\n")
    assert found == (
        "row 2: 2 cells, but the header has 3; add or remove cells (a comma inside a cell needs quotes)",
        "row 3, column assay_id: 'A 1' is not an ID: 1 to 64 letters, digits, '_', '.' or '-', beginning with a "
        "letter or digit, as in A_1",
        "row 4: 4 cells, but the header has 3; add or remove cells (a comma inside a cell needs quotes)",
    )


@pytest.mark.parametrize("cell", ['"open', '"a"b'])
def test_broken_quotes_are_named_with_their_row(tmp_path: Path, cell: str) -> None:
    said = problem(tmp_path, f"{IDS},library\nP1,S1,A1,fine\nP1,S1,A2,{cell}\nP1,S1,A3,fine\n")
    assert said.startswith("row 3: ")
    assert said.endswith("check the quotes of this row")


def test_a_huge_cell_is_told_in_a_short_message(tmp_path: Path) -> None:
    assert problem(tmp_path, f"{IDS}\nP1,S1,{'x' * 200_000}\n").startswith("row 2: field larger than field limit")
    for text in (f"{IDS}\nP1,S1,{'x' * 100_000}\n", f"{IDS},{'x' * 100_000}\nP1,S1,A1,1\n"):
        assert len(problem(tmp_path, text)) < 300
    said = problem(tmp_path, f"{IDS},fastq_1\nP1,S1,A1,{'x' * 100_000}\n")
    assert len(said) < 400
    assert "File name too long" in said


# What is refused: the header


@pytest.mark.parametrize(
    ("header", "said"),
    [
        (
            "patient_id,assay_id",
            "row 1: no column specimen_id (or sample); add it: it names the specimen of each assay",
        ),
        (f"{IDS},sex,sex", "row 1: columns 'sex' and 'sex' mean the same; keep one of them"),
        (f"{IDS},sex,Sex", "row 1: columns 'sex' and 'Sex' mean the same; keep one of them"),
        (f"{IDS},sex,patient.sex", "row 1: columns 'sex' and 'patient.sex' mean the same; keep one of them"),
        (f"{IDS},sample", "row 1: columns 'specimen_id' and 'sample' mean the same; keep one of them"),
        (f"{IDS},Assay_ID", "row 1: columns 'assay_id' and 'Assay_ID' mean the same; keep one of them"),
        (f"{IDS},lane,Lane", "row 1: columns 'lane' and 'Lane' mean the same; keep one of them"),
        (f"{IDS},", "row 1: column 4 has no name; name it or remove it"),
        (
            f"{IDS},libary",
            "row 1: unknown column 'libary'; did you mean 'library'? Otherwise declare it in ct.toml "
            "([levels.LEVEL.columns] libary = {}, at its level), or pass over it (--ignore COLUMN)",
        ),
        (
            f"{IDS},weight",
            "row 1: unknown column 'weight'; declare it in ct.toml ([levels.LEVEL.columns] weight = {}, at its level), "
            "or pass over it (--ignore COLUMN)",
        ),
        (
            f"{IDS},Weight (kg)",
            "row 1: unknown column 'Weight (kg)'; give it another name (--map THEIRS=OURS), "
            "or pass over it (--ignore COLUMN)",
        ),
        (f"{IDS},note", "row 1: column 'note' is declared at several levels; write one of patient.note, specimen.note"),
        (f"{IDS},fastq_1_md5", "row 1: column fastq_1_md5 without a column fastq_1; add the files or remove it"),
    ],
)
def test_a_wrong_header_says_which_column_and_what_to_do(tmp_path: Path, header: str, said: str) -> None:
    row = ",".join("S1" for _ in header.split(","))
    assert problems(tmp_path, f"{header}\n{row}\n")[0] == said


def test_a_required_column_must_be_there_and_filled(tmp_path: Path) -> None:
    levels = {**LEVELS, "assay": LevelSchema("assay", {"kit": Column("kit", required=True)})}
    assert problem(tmp_path, f"{IDS}\nP1,S1,A1\n", levels=levels) == (
        "row 1: the required column 'kit' of assay is missing; add it"
    )
    assert problem(tmp_path, f"{IDS},kit\nP1,S1,A1,\n", levels=levels) == (
        "row 2, column kit: blank, but assay.kit is required; fill it in"
    )


# What is refused: cells


HOSTILE = [
    "a b", "a/b", "/etc/passwd", "..", ".", "../x", "a\\b", "it's", 'a"b', "<script>alert(1)</script>", "$(rm -rf .)",
    "a;b", "a|b", "a&b", "a*b", "`id`", "-rf", "_x", "é", "a\u200bb", "A" * 65, "x\ny", "%00", "a:b", "{a}", "a'--",
]  # fmt: skip


@pytest.mark.parametrize("level", ["patient", "specimen", "assay"])
@pytest.mark.parametrize("hostile", HOSTILE)
def test_an_unsafe_id_is_refused_at_the_door(tmp_path: Path, level: str, hostile: str) -> None:
    row = {"patient": "P1", "specimen": "S1", "assay": "A1", level: hostile}
    stream = io.StringIO()
    csv.writer(stream).writerows([IDS.split(","), list(row.values())])
    said = problem(tmp_path, stream.getvalue())
    assert said.startswith(f"row 2, column {level}_id: {hostile!r} is not an ID: ")


def test_ids_of_64_characters_and_with_inner_dots_are_fine(tmp_path: Path) -> None:
    long = "A" * 64
    assert parents(read(tmp_path, f"{IDS}\nTCGA-02.1,S_1-,{long}\n"))[f"assay {long}"] == "S_1-"


def test_a_projects_pattern_narrows_ids_and_never_widens(tmp_path: Path) -> None:
    levels = {**LEVELS, "patient": LevelSchema("patient", {}, id_pattern=r"P\d+|\.\.|a/b")}
    found = problems(tmp_path, f"{IDS}\nP1,S1,A1\nX1,S2,A2\n..,S3,A3\na/b,S4,A4\n", levels=levels)
    assert (
        found[0] == r"row 3, column patient_id: 'X1' does not match P\d+|\.\.|a/b of [levels.patient]; correct the ID"
    )
    assert [said.split(":")[0] for said in found[1:]] == ["row 4, column patient_id", "row 5, column patient_id"]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (f"{IDS}\n,S1,A1", "row 2, column patient_id: blank; every row needs the patient's ID"),
        (f"{IDS}\nP1,,A1", "row 2, column specimen_id: blank; every row needs the specimen's ID"),
        (
            f"{IDS},library\nP1,S1,,x\nP1,S1,A2,x",
            "row 2, column library: a value of the assay, but the row names none; fill in assay_id, "
            "or remove the value",
        ),
        ("sample,library\nS1,1\n,2\n,3", "row 3, column sample: blank; every row needs the specimen's ID"),
        ("sample,lane\nS1,L1\nS1,", "row 3, column lane: blank; name the lane, or add assay_id"),
        (
            "sample,lane\nS1,L 1",
            "row 2, column lane: 'S1-L 1' is not an ID: 1 to 64 letters, digits, '_', '.' or '-', "
            "beginning with a letter or digit, as in S1-L_1",
        ),
        (
            "sample,library\nS1,a\nS1,b\nS2,c",
            "rows 2, 3: sample 'S1' stands in several rows that nothing distinguishes; add a column lane or assay_id",
        ),
        (
            f"{IDS}\nP1,S1,A1\np1,S2,A2",
            "row 3: patient 'p1' differs from 'P1' (row 2) only in case; use one spelling",
        ),
        (
            f"{IDS}\nP1,S1,A1\nP2,S1,A2",
            "row 3: specimen S1 belongs to patient P2 here and to P1 in row 2; correct one of them",
        ),
        (
            f"{IDS}\nP1,S1,A1\nP1,S2,A1",
            "row 3: assay A1 belongs to specimen S2 here and to S1 in row 2; correct one of them",
        ),
        (
            f"{IDS},library\nP1,S1,A1,x\nP1,S1,A1,y",
            "row 3, column library: assay A1 has 'y' here and 'x' in row 2; correct one of them",
        ),
        (
            f"{IDS},sex\nP1,S1,A1,\nP1,S1,A2,F\nP1,S1,A3,M",
            "row 4, column sex: patient P1 has 'M' here and 'F' in row 3; correct one of them",
        ),
        (
            f"{IDS},sex\nP1,S1,A1,male",
            "row 2, column sex: 'male' is not one of F, M, XX, XY; correct the cell or extend the enum in ct.toml; "
            "`--value sex:male=ONE_OF_THEM`, or [sheet.values] in ct.toml, says which of them it is",
        ),
    ],
)  # fmt: skip
def test_rows_that_contradict_are_named_on_both_sides(tmp_path: Path, rows: str, said: str) -> None:
    assert problems(tmp_path, rows)[0] == said


def test_a_bad_id_that_stands_for_all_levels_is_told_once(tmp_path: Path) -> None:
    assert "row 2, column sample: 'a b'" in problem(tmp_path, "sample,lane\na b,L1\na b,L2\n")
    assert "row 2, column sample: 'a b'" in problem(tmp_path, "sample\na b\n")


@pytest.mark.parametrize(
    ("column", "cell", "kind"),
    [
        *[("age", cell, "a whole number") for cell in ("4.5", "4.05", "four", "1e3", "0x1F", "١", "9" * 19, "NA")],
        *[("purity", cell, "a number") for cell in ("0,5", "nan", "inf", "1e999", "1_0", "-")],
        *[("born", cell, "a date as YYYY-MM-DD") for cell in ("1970-02-30", "31.01.1970", "0000-01-01", "19700131")],
        *[("pcr_free", cell, "true or false") for cell in ("maybe", "2", "ja")],
    ],
)
def test_a_cell_of_the_wrong_type_is_told_with_its_value(tmp_path: Path, column: str, cell: str, kind: str) -> None:
    said, _, _way = problem(tmp_path, f'{IDS},{column}\nP1,S1,A1,"{cell}"\n').partition("; `--blank")
    assert said == (
        f"row 2, column {column}: {cell!r} is not {kind}; correct the cell, or leave it blank where it is not known"
    )


# What is refused: files


def test_files_that_cannot_be_are_told_with_their_cells(tmp_path: Path) -> None:
    (tmp_path / "empty.fq").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "plain.fq.gz").write_text("@read")
    os.mkfifo(tmp_path / "pipe")
    rows = ["none.fq", "empty.fq", "folder", "plain.fq.gz", "pipe", "empty.fq/x"]
    text = "\n".join([f"{IDS},fastq_1", *(f"P1,S1,A{n},{name}" for n, name in enumerate(rows))])
    assert problems(tmp_path, text) == (
        "row 2, column fastq_1: 'none.fq' is not there; correct the path (relative to the sheet) or put the file there",
        "row 3, column fastq_1: 'empty.fq' is empty (0 bytes); put the real file there",
        "row 4, column fastq_1: 'folder' is a folder; name the file itself, or list fastq_1 in folders of "
        "[levels.assay]",
        "row 5, column fastq_1: 'plain.fq.gz' is named .gz, but is not gzip; compress it or rename it",
        "row 6, column fastq_1: 'pipe' is not a file; name the file itself",
        "row 7, column fastq_1: 'empty.fq/x' cannot be read: Not a directory; allow reading it",
    )


def test_a_file_is_given_once_however_it_is_called(tmp_path: Path) -> None:
    reads(tmp_path, "a.fq", "b.fq")
    (tmp_path / "link.fq").symlink_to("a.fq")
    os.link(tmp_path / "a.fq", tmp_path / "hard.fq")
    header = f"{IDS},fastq_1,fastq_2"
    rows = ["P1,S1,A1,a.fq,a.fq", "P1,S1,A2,b.fq,./x/../a.fq", "P1,S1,A3,link.fq,hard.fq", "P1,S1,A4,,b.fq"]
    text = "\n".join([header, *rows])
    assert problems(tmp_path, text) == tuple(
        f"row {row}, column {role}: {cell!r} is already {before}; each file is given once"
        for row, role, cell, before in (
            (2, "fastq_2", "a.fq", "fastq_1 of A1"),
            (3, "fastq_2", "./x/../a.fq", "fastq_1 of A1"),
            (4, "fastq_1", "link.fq", "fastq_1 of A1"),
            (4, "fastq_2", "hard.fq", "fastq_1 of A1"),
            (5, "fastq_2", "b.fq", "fastq_1 of A2"),
        )
    )


def test_one_assay_with_two_files_of_a_role_is_refused(tmp_path: Path) -> None:
    reads(tmp_path, "x/a.fq", "y/a.fq")
    said = problem(tmp_path, f"{IDS},fastq_1\nP1,S1,A1,x/a.fq\nP1,S1,A1,y/a.fq\n")
    assert said == "row 3, column fastq_1: assay A1 has 'y/a.fq' here and 'x/a.fq' in row 2; correct one of them"


def test_checksums_that_cannot_be_are_told(tmp_path: Path) -> None:
    reads(tmp_path, "a.fq")
    good = "0" * 32
    rows = [f"A1,a.fq,{good[:-1]}", f"A2,,{good}", f"A1,a.fq,{good}", f"A1,a.fq,{'1' * 32}"]
    text = "\n".join(["sample,assay_id,fastq_1,fastq_1_md5", *(f"S1,{row}" for row in rows)])
    assert problems(tmp_path, text) == (
        f"row 2, column fastq_1_md5: '{good[:-1]}' is no md5; 32 hexadecimal digits are expected",
        "row 3, column fastq_1_md5: a checksum without a file; name the file or remove the checksum",
        f"row 5, column fastq_1_md5: assay A1 has '{'1' * 32}' here and '{good}' in row 4; correct one of them",
    )


def test_all_kinds_of_problems_come_in_the_order_of_rows(tmp_path: Path) -> None:
    found = problems(
        tmp_path,
        f"{IDS},sex,age,colour,fastq_1\n"
        "P1,S1,A/1,F,40,red,\n"
        "P1,S1,A2,male,forty,,none.fq\n"
        "P2,S1,A3,F,,\n"
        "P2,S1,A4,F,,,\n",
    )
    assert [said.split(":")[0].split(", column ") for said in found] == [
        ["row 1"],
        ["row 2", "assay_id"],
        ["row 3", "sex"],
        ["row 3", "age"],
        ["row 3", "fastq_1"],
        ["row 4"],
        ["row 5"],
    ]


def test_a_thousand_problems_are_counted_and_some_shown(tmp_path: Path) -> None:
    rows = "\n".join(f"S{n},x{n}" for n in range(1000))
    with pytest.raises(SheetError) as caught:
        read(tmp_path, f"sample,age\n{rows}\n")
    assert len(caught.value.problems) == 1000
    lines = str(caught.value).splitlines()
    assert lines[0].endswith("sheet.csv: 1000 problems; nothing was written")
    assert (len(lines), lines[-1]) == (202, "  … and 800 more")


# Rules in general

ids = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,12}", fullmatch=True)
texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from("\n\t,;\"'"), max_size=20)
notes = texts.map(str.strip).filter(bool)
Cohort = dict[str, tuple[dict[str, object], dict[str, tuple[dict[str, object], dict[str, dict[str, object]]]]]]


def unique(strategy: st.SearchStrategy[str], size: int) -> st.SearchStrategy[list[str]]:
    return st.lists(strategy, min_size=size, max_size=size, unique_by=str.casefold)


def some(**columns: st.SearchStrategy[object]) -> st.SearchStrategy[dict[str, object]]:
    return st.fixed_dictionaries({}, optional=columns)


@st.composite
def cohorts(draw: st.DrawFn) -> list[tuple[str, str, str, dict[str, object]]]:
    """Assays with their ancestors, and `level.column` → value as (patient, specimen, assay, attributes)."""
    n = draw(st.integers(1, 6))
    assays, specimens, patients = draw(unique(ids, n)), draw(unique(ids, n)), draw(unique(ids, n))
    of_patient = [draw(some(sex=st.sampled_from(["F", "M"]), age=st.integers(-(10**17), 10**17))) for _ in range(n)]
    of_specimen = [draw(some(purity=st.floats(allow_nan=False, allow_infinity=False), note=notes)) for _ in range(n)]
    of_assay = [draw(some(pcr_free=st.booleans(), library=notes)) for _ in range(n)]
    owner = [draw(st.integers(0, n - 1)) for _ in range(n)]
    rows = []
    for number, assay in enumerate(assays):
        specimen = draw(st.integers(0, n - 1))
        patient = owner[specimen]
        levels = (("patient", of_patient[patient]), ("specimen", of_specimen[specimen]), ("assay", of_assay[number]))
        attributes = {f"{level}.{name}": value for level, values in levels for name, value in values.items()}
        rows.append((patients[patient], specimens[specimen], assay, attributes))
    return rows


def write_cohort(
    folder: Path, rows: Sequence[tuple[str, str, str, Mapping[str, object]]], comma: str, order: Sequence[int]
) -> Path:
    columns = sorted({name for *_, attributes in rows for name in attributes})
    header = [*IDS.split(","), *columns]
    path = folder / ("sheet.tsv" if comma == "\t" else "sheet.csv")
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, delimiter=comma)
        places = [place for place in order if place < len(header)]
        writer.writerow([header[place] for place in places])
        for *row_ids, attributes in rows:
            cells = [*row_ids, *(str(attributes.get(column, "")) for column in columns)]
            writer.writerow([cells[place] for place in places])
    return path


@settings(max_examples=120, deadline=None)
@given(rows=cohorts(), comma=st.sampled_from(",\t"), order=st.permutations(range(9)))
def test_a_written_cohort_reads_back_as_exactly_that_cohort(
    rows: list[tuple[str, str, str, dict[str, object]]], comma: str, order: list[int]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        sheet = read_sheet(write_cohort(Path(folder), rows, comma, order), LEVELS)
    expected: dict[str, dict[str, tuple[str | None, dict[str, object]]]] = {"patient": {}, "specimen": {}, "assay": {}}
    for patient, specimen, assay, attributes in rows:
        for level, entity, parent in (
            ("patient", patient, None),
            ("specimen", specimen, patient),
            ("assay", assay, specimen),
        ):
            mine = {name.partition(".")[2]: value for name, value in attributes.items() if name.startswith(level)}
            expected[level][entity] = (parent, mine)
    found = {
        level: {key: (row.parent, row.attributes) for key, row in entities.items()}
        for level, entities in sheet.entities.items()
    }
    assert found == expected
    assert [list(found[level]) for level in found] == [list(expected[level]) for level in expected]


pieces = st.sampled_from(
    ["sample", "patient_id", "assay_id", "lane", "sex", "age", "born", "purity", "pcr_free", "fastq_1", "fastq_1_md5",
     "note", "S1", "S2", "a.fq", "..", "40", "", " ", ",", ",", ",", "\t", "\n", "\n", "\r\n", '"', '""', "\0", "é",
     "\ufeff"]
)  # fmt: skip
bytes_of_sheets = st.binary(max_size=200) | st.lists(pieces, max_size=60).map(lambda found: "".join(found).encode())


@settings(max_examples=400, deadline=None)
@given(
    data=bytes_of_sheets | bytes_of_sheets.map(lambda tail: f"{IDS},age\nP1,S1,A1,4\n".encode() + tail),
    name=st.sampled_from(["sheet.csv", "sheet.tsv", "sheet.txt"]),
)
def test_any_bytes_give_rows_or_named_problems(data: bytes, name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(data)
        (Path(folder) / "a.fq").write_text("reads")
        try:
            sheet = read_sheet(path, LEVELS)
        except SheetError as error:
            assert error.problems
            assert all(error.problems)
        else:
            assert any(sheet.entities.values())
            for row in sheet.entities["assay"].values():
                assert row.parent in sheet.entities["specimen"] or not sheet.entities["specimen"]


def test_the_examples_of_the_documentation_read_as_it_says(tmp_path: Path) -> None:
    document = (Path(__file__).parents[2] / "docs" / "sheet.md").read_text(encoding="utf-8")
    blocks = [block.partition("\n")[::2] for block in document.split("```")[1::2]]
    write(tmp_path, next(body for kind, body in blocks if kind == "toml"), "ct.toml")
    reads(tmp_path, *(f"reads/{name}_{mate}.fastq.gz" for name in ("T_L1", "T_L2", "N_L1") for mate in ("R1", "R2")))
    declared = read_settings(tmp_path / "ct.toml")
    sheets = [
        write(tmp_path, body, f"{at}.csv") for at, (kind, body) in enumerate(blocks) if kind in ("csv", "illumina")
    ]
    found = [list(read_sheet(path, declared.levels, declared.reading).entities["assay"]) for path in sheets]
    (cells,) = (write(tmp_path, body, "cells.csv") for kind, body in blocks if kind == "cells")
    by_files = declared.reading.also(Options(make={"assay_id": "{specimen_id}-{fastq_1.stem}"}, split=";"))
    assert list(read_sheet(cells, declared.levels, by_files).entities["assay"]) == ["C1-T_L1_R1", "C1-T_L2_R1"]
    (folders,) = (write(tmp_path, body, "folders.csv") for kind, body in blocks if kind == "folders")
    reads(tmp_path, "runs/0014/pod5/batch_0.pod5")
    declares = next(body for kind, body in blocks if kind == "toml" and "folders =" in body)
    declared = read_settings(write(tmp_path, f'[project]\nid = "lung"\n{declares}', "ct.toml"))
    (one,) = read_sheet(folders, declared.levels).entities["assay"].values()
    assert one.files["pod5"].path == tmp_path / "runs/0014/pod5"
    assert found == [
        ["0012-T-L1", "0012-T-L2", "0013-N-L1"],
        ["C1", "C2"],
        ["P1-T-L1", "P1-T-L2"],
        ["P1-T-1", "P1-T-2"],
    ]


def test_a_sample_in_several_rows_is_refused_once(tmp_path: Path) -> None:
    """nf-core's rnaseq, and others, name a sample once for each time that it was sequenced. An ID by the order of rows
    would change hands when the sheet is sorted."""
    reads(tmp_path, "1.fq.gz", "2.fq.gz", "3.fq.gz")
    said = "rows 2, 4: sample 'S1' stands in several rows that nothing distinguishes; add a column lane or assay_id"
    said += ", or name assays by their files: --make 'assay_id={specimen_id}-{fastq_1.stem}'"
    assert problem(tmp_path, "sample,fastq_1\nS1,1.fq.gz\nS2,2.fq.gz\nS1,3.fq.gz\n") == said
    sheet = read(tmp_path, "sample,lane,fastq_1\nS1,1,1.fq.gz\nS2,1,2.fq.gz\nS1,2,3.fq.gz\n")
    assert set(sheet.entities["assay"]) == {"S1-1", "S2-1", "S1-2"}
