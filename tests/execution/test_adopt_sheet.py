"""Many results that were made elsewhere, by one sheet: all of them, or none."""

from pathlib import Path

import pytest

from ctcore.errors import SheetError
from ctcore.execution.adopt_sheet import read_adopted
from ctcore.project import Project
from ctcore.sheet.options import Options
from ctcore.staleness.verdicts import evaluate
from tests.helpers.kit import again, make_project
from tests.helpers.shell import ct

BAMS = 'made_elsewhere = true\nlevel = "assay"\nfiles = ["reads"]\noutputs = { bam = "a.bam", bai = "a.bam.bai" }\n'


def project_of(tmp_path: Path) -> Project:
    project = make_project(tmp_path / "p")
    (project.root / "steps" / "recalibrated.toml").write_text(BAMS)
    for name in ("A1", "A2", "A3"):
        (tmp_path / f"{name}.bam").write_text(f"bam of {name}")
        (tmp_path / f"{name}.bai").write_text(f"bai of {name}")
    return again(project)


def sheet(tmp_path: Path, *rows: str, header: str = "assay_id,bam,bai") -> Path:
    path = tmp_path / "bams.csv"
    path.write_text("\n".join((header, *rows)) + "\n")
    return path


def test_a_sheet_adopts_a_result_for_each_row(tmp_path: Path) -> None:
    project = project_of(tmp_path)
    path = sheet(tmp_path, *(f"{name},{name}.bam,{name}.bai" for name in ("A1", "A2", "A3")))
    before = ct("-C", project.root, "adopt", "recalibrated", "--sheet", path, "--made-by", "sarek 3.4", "--dry-run")
    assert before.code == 0 and "3 would be adopted, made elsewhere by sarek 3.4" in before.err
    said = ct("-C", project.root, "adopt", "recalibrated", "--sheet", path, "--made-by", "sarek 3.4")
    assert (said.code, said.err) == (0, "3 adopted, made elsewhere by sarek 3.4\n")
    assert {evaluate(again(project)).of("recalibrated", name).state for name in ("A1", "A2", "A3")} == {"fresh"}
    assert Path(ct("-C", project.root, "path", "recalibrated/A2", "bai").out.strip()).read_text() == "bai of A2"


def test_one_wrong_row_keeps_all_of_them_out(tmp_path: Path) -> None:
    project = project_of(tmp_path)
    path = sheet(tmp_path, "A1,A1.bam,A1.bai", "A2,none.bam,A2.bai", "A9,A3.bam,A3.bai", "A3,nil.bam,")
    said = ct("-C", project.root, "adopt", "recalibrated", "--sheet", path, "--made-by", "sarek 3.4")
    assert said.code == 2
    for part in ("none.bam", "nil.bam", "row 4: recalibrated/A9 is none", "row 5: A3: output bai is not given"):
        assert part in said.err
    assert {evaluate(again(project)).of("recalibrated", name).state for name in ("A1", "A2", "A3")} == {"missing"}


def test_a_sheet_of_another_form_tells_all_its_problems(tmp_path: Path) -> None:
    project = project_of(tmp_path)
    path = sheet(tmp_path, "A1,x,y", header="assay_id,bamm,bam")
    with pytest.raises(SheetError) as error:
        read_adopted(project.steps["recalibrated"], path, Options())
    assert "column 'bamm' is unknown; did you mean 'bam'?" in str(error.value)
    assert "no column bai" in str(error.value)


def test_checksums_of_a_sheet_are_compared(tmp_path: Path) -> None:
    project = project_of(tmp_path)
    path = sheet(tmp_path, f"A1,A1.bam,A1.bai,{'0' * 32}", header="partition,bam,bai,bam_checksum")
    said = ct("-C", project.root, "adopt", "recalibrated", "--sheet", path, "--made-by", "sarek 3.4")
    assert said.code == 2 and "row 2: " in said.err and "md5 is" in said.err
