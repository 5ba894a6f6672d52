"""Lanes of one sample that nothing distinguishes: several rows, or several files in a cell."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from ctcore.errors import SheetError
from ctcore.model.levels import ENTITY_LEVELS
from ctcore.model.schema import Levels, LevelSchema
from ctcore.sheet.options import Options
from ctcore.sheet.parse import Sheet, read_sheet
from ctcore.sheet.rows import Rows
from ctcore.sheet.split_cells import split_cells

LEVELS: Levels = {
    level: LevelSchema(level, files=("fastq_1", "fastq_2") if level == "assay" else ()) for level in ENTITY_LEVELS
}
BY_FILES = {"assay_id": "{specimen_id}-{fastq_1.stem}"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "reads").mkdir()
    for name in ("a_1", "a_2", "b_1", "b_2"):
        (tmp_path / f"reads/{name}.fq").write_text(name)
    return tmp_path


def read(folder: Path, text: str, options: Options | None = None) -> Sheet:
    (folder / "s.csv").write_text(text)
    return read_sheet(folder / "s.csv", LEVELS, options)


def refused(folder: Path, text: str, options: Options | None = None) -> list[str]:
    with pytest.raises(SheetError) as caught:
        read(folder, text, options)
    return list(caught.value.problems)


def files(sheet: Sheet) -> Mapping[str, list[str]]:
    return {one.id: [Path(claim.name).stem for claim in one.files.values()] for one in sheet.entities["assay"].values()}


RNASEQ = "sample,fastq_1,fastq_2\nS1,reads/a_1.fq,reads/a_2.fq\nS1,reads/b_1.fq,reads/b_2.fq\n"
CELLS = "sample,fastq_1,fastq_2\nS1,reads/a_1.fq;reads/b_1.fq,reads/a_2.fq; reads/b_2.fq\n"
BOTH = {"S1-a_1": ["a_1", "a_2"], "S1-b_1": ["b_1", "b_2"]}


def test_rows_of_one_sample_are_named_by_their_files(folder: Path) -> None:
    (said,) = refused(folder, RNASEQ)
    assert said.startswith(
        "rows 2, 3: sample 'S1' stands in several rows that nothing distinguishes; add a column lane"
    )
    assert said.endswith("or name assays by their files: --make 'assay_id={specimen_id}-{fastq_1.stem}'")
    assert files(read(folder, RNASEQ, Options(make=BY_FILES))) == BOTH
    header, one, two = RNASEQ.splitlines()
    assert files(read(folder, "\n".join([header, two, one]), Options(make=BY_FILES))) == BOTH, "sorted otherwise"


def test_several_files_in_a_cell_are_as_many_assays(folder: Path) -> None:
    sheet = read(folder, CELLS, Options(make=BY_FILES, split=";"))
    assert files(sheet) == BOTH
    assert sheet.notes == ("1 row with several files in a cell: each file is taken as a row of its own",)
    assert refused(folder, CELLS, Options(split=";")) == [
        "row 2: sample 'S1' has several files that nothing distinguishes; add a column lane or assay_id, or name "
        "assays by their files: --make 'assay_id={specimen_id}-{fastq_1.stem}'"
    ]
    assert "; `--split ';'`, or [sheet] split in ct.toml, reads it as 2 files" in refused(folder, CELLS)[0]


def test_lanes_in_a_cell_are_those_of_its_files(folder: Path) -> None:
    text = "sample,lane,fastq_1\nS1,L1|L2,reads/a_1.fq|reads/b_1.fq\nS2,L1,reads/a_2.fq\n"
    assert files(read(folder, text, Options(split="|"))) == {"S1-L1": ["a_1"], "S1-L2": ["b_1"], "S2-L1": ["a_2"]}
    text = "sample,assay_id,fastq_1\nS1,A1 A2,reads/a_1.fq  reads/b_1.fq\n"
    assert files(read(folder, text, Options(split=" "))) == {"A1": ["a_1"], "A2": ["b_1"]}


def test_unequal_cells_are_refused(folder: Path) -> None:
    text = CELLS.replace("; reads/b_2.fq", "")
    assert refused(folder, text, Options(make=BY_FILES, split=";"))[0] == (
        "row 2: 2 in fastq_1, 1 in fastq_2; as many of each are expected, separated by ';'"
    )
    single = "sample,fastq_1,fastq_2\nS1,reads/a_1.fq;reads/b_1.fq,\n"
    assert files(read(folder, single, Options(make=BY_FILES, split=";"))) == {"S1-a_1": ["a_1"], "S1-b_1": ["b_1"]}
    table = Rows(["sample"], [(2, ["S1;S2"])], [])
    assert split_cells(table, Options(split=";"), LEVELS) is table, "only files are several in a cell"


@pytest.mark.parametrize(
    ("path", "stem"),
    [("x/S1_R1.fastq.gz", "S1_R1"), ("S1.L1.bam", "S1.L1"), ("C:\\x\\S1.fq", "S1"), ("S1", "S1"), ("S1.VCF.GZ", "S1")],
)
def test_a_stem_is_a_file_without_folders_and_endings(path: str, stem: str) -> None:
    from ctcore.sheet.made_ids import filled

    assert filled("{ Reads.stem }", {"reads": path}) == stem and filled("{reads.stem}", {"reads": ""}) == ""
