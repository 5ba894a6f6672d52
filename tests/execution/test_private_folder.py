"""A call's own folder, environment and temporary files; where it runs."""

import os
import subprocess
import tempfile
from pathlib import Path

import pytest

from ctcore.errors import Usage
from ctcore.execution.private_folder import (
    adopt,
    leave_project,
    missing_file_names,
    missing_output_hint,
    private_folder,
    project_path_hint,
    remove,
)
from ctcore.execution.runners import VARIABLE, chosen_profile
from tests.helpers.kit import TOML, make_project


def test_everything_is_as_before_after_a_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINE", "1")
    before, here = dict(os.environ), Path.cwd()
    with private_folder(tmp_path) as place:
        assert Path.cwd() == place and not list(place.iterdir())
        temporary = Path(tempfile.mkdtemp())
        assert temporary.parent == Path(os.environ["TMPDIR"]) != Path(before.get("TMPDIR", "/tmp"))
        os.environ["MINE"] = "2"
        os.environ["NEW"] = "3"
        del os.environ["PATH"]
        (place / "left").touch()
    assert dict(os.environ) == before and Path.cwd() == here
    assert not temporary.exists() and not place.exists() and list(tmp_path.iterdir()) == []


def test_where_no_temporary_file_fits_they_lie_in_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "full"))
    with private_folder(tmp_path / "staged"):
        temporary = Path(tempfile.mkdtemp())
        assert temporary.is_relative_to(tmp_path / "staged") and os.environ["TMPDIR"] == str(temporary.parent)
    assert not temporary.exists()


def test_a_call_sees_nothing_that_leads_to_the_project(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CT_PROJECT", "CT_POSTGRES_URL", "DAGSTER_HOME"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("CT_MINE", "x")
    leave_project()
    assert {"CT_PROJECT", "CT_POSTGRES_URL", "DAGSTER_HOME"}.isdisjoint(os.environ) and "CT_MINE" in os.environ


def test_a_read_only_folder_is_removed(tmp_path: Path) -> None:
    (folder := tmp_path / "a" / "b").mkdir(parents=True)
    (folder / "c").touch()
    folder.chmod(0o500)
    (tmp_path / "a").chmod(0o500)
    remove(tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_an_output_in_the_working_directory_is_the_output(tmp_path: Path) -> None:
    (place := tmp_path / "cwd").mkdir()
    (staged := tmp_path / "staged").mkdir()
    (tmp_path / "far").write_text("linked")
    (place / "a").write_text("a")
    (place / "b").symlink_to(tmp_path / "far")
    (place / "c").write_text("from the working directory")
    (staged / "c").write_text("written where it belongs")
    adopt(place, staged, ["a", "b", "c", "sub/d"])
    assert {path.name: path.read_text() for path in staged.iterdir()} == {
        "a": "a",
        "b": "linked",
        "c": "written where it belongs",
    }
    assert not (staged / "b").is_symlink() and (tmp_path / "far").exists()


def test_a_missing_output_is_told_where_it_went(tmp_path: Path) -> None:
    (place := tmp_path / "cwd").mkdir()
    (staged := tmp_path / "staged").mkdir()
    way = 'write it to call.out("bam")'

    def said(*written: str) -> str:
        return missing_output_hint(place, staged, "bam", "a.bam", ["a.bam"], written)

    assert said() == ""
    (staged / "other.bam").touch()
    assert said() == f"; but the step wrote other.bam into call.folder: {way}"
    (elsewhere := tmp_path / "a.bam").touch()
    assert said(str(elsewhere), "/gone/a.bam") == f"; but the step wrote {elsewhere}: {way}"
    (place / "a.bam").touch()
    assert said() == f"; but the step left a.bam in its working directory: {way}"


def test_a_file_of_the_project_is_to_be_declared(tmp_path: Path) -> None:
    (tmp_path / "panel.bed").touch()
    missing = FileNotFoundError(2, "No such file", "panel.bed")
    assert list(missing_file_names(missing)) == ["panel.bed"]
    assert "panel.bed lies in the project" in (project_path_hint(missing_file_names(missing), tmp_path) or "")
    failed = subprocess.CalledProcessError(1, "bedtools intersect -a panel.bed")
    assert project_path_hint(missing_file_names(failed), tmp_path) is not None
    assert project_path_hint(["gone.bed", "/etc/passwd", ""], tmp_path) is None


def test_a_profile_is_chosen_by_name_then_by_the_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = make_project(tmp_path, toml=TOML + "\n[slurm.big]\ncpus = 4\n[slurm.small]\n")
    monkeypatch.delenv(VARIABLE, raising=False)
    assert chosen_profile(project) is None and chosen_profile(project, "local") is None
    monkeypatch.setenv(VARIABLE, "small")
    assert [one.name for one in (chosen_profile(project), chosen_profile(project, "big")) if one] == ["small", "big"]
    with pytest.raises(Usage, match="no profile 'bigg'; did you mean 'big'"):
        chosen_profile(project, "bigg")
