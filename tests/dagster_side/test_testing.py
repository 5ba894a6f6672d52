"""The helper for a group's own tests: its assets on a copy, and the real project as it was."""

import subprocess
import sys
from pathlib import Path

import pytest

from ct_assets.testing import project_copy
from ctcore.errors import Usage
from ctcore.project import Project
from tests.helpers.kit import ROWS, STEPS, TOML, again, assay, make_all, make_project, write_sheet
from tests.helpers.shell import ROOT, contents, environment

TEST = """\
from ct_assets.testing import project_copy


def test_a_specimen_has_all_counts(tmp_path):
    with project_copy(tmp_path) as cohort:
        assert cohort.materialize("counted").success
        assert cohort.materialize("merged", partition="S1").success
        assert cohort.path("merged/S1", "n").read_text() == "F 11 ACGT 11 ACGT\\n"
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    project = make_project(tmp_path / "real", toml=TOML.replace('id = "toy"', 'id = "toy"\nsheet = "sheet.csv"'))
    make_all(project)
    return project


def test_a_groups_test_is_three_lines(project: Project, tmp_path: Path) -> None:
    """Run as the group runs it, in its project's folder."""
    (project.root / "tests").mkdir()
    (project.root / "tests/test_counts.py").write_text(TEST)
    before = contents(project.root)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"]
    said = subprocess.run(
        command, cwd=project.root, env=environment(PYTHONPATH=str(ROOT)), capture_output=True, text=True, check=False
    )
    assert said.returncode == 0 and "1 passed" in said.stdout, said.stdout
    assert contents(project.root) == before and not (project.root / "dagster_home").exists()


def test_a_copy_has_nothing_of_the_real_results(project: Project, tmp_path: Path) -> None:
    rows = [*ROWS, assay("P3", "S3", "A4", sex="F")]
    with project_copy(tmp_path / "copy", project.root, write_sheet(project.root, rows)) as cohort:
        assert not list(cohort.project.store.root.glob("counted/*"))
        (cohort.project.root / "steps/toy.py").write_text(STEPS.replace("strip()) *", "strip()) * 2 *"))
        found = again(cohort.project)
        assert cohort.materialize("counted", partition="A4").success
        assert found.store.root == tmp_path / "copy/store"
    assert (project.root / "steps/toy.py").read_text() == STEPS


def test_what_fails_is_in_the_result(project: Project, tmp_path: Path) -> None:
    with project_copy(tmp_path / "copy", project.root) as cohort:
        assert not cohort.materialize("joined", raise_on_error=False).success, "nothing is made that it needs"


def test_a_catalog_on_postgresql_is_left_alone(
    tmp_path: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CT_POSTGRES_URL", postgres_url)
    project = make_project(tmp_path / "real")
    with project_copy(tmp_path / "copy", project.root) as cohort:
        assert cohort.materialize("counted", partition="A1").success
        assert (tmp_path / "copy/catalog.db").is_file()
    with Project.find(project.root).catalog.read() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM artifact").scalar() == 0


def test_a_folder_with_a_project_is_refused(project: Project, tmp_path: Path) -> None:
    with pytest.raises(Usage, match="is a project already"), project_copy(project.root, project.root):
        pass
