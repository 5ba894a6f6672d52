"""ct as people install it: from the built wheel alone, without the checkout on the path."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds what pip installs of the wheel, and nothing else."""
    target = tmp_path_factory.mktemp("installed")
    options = ["--no-compile", "--no-deps", "--no-build-isolation", "--no-index"]
    command = [sys.executable, "-m", "pip", "install", *options, "--target", str(target), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return target


@pytest.fixture(scope="module")
def project(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("projects") / "three"
    assert run(installed, root.parent, "-m", "ctcore.cli", "init", str(root), "--example", "three_people") == (0, "")
    return root


def run(installed: Path, place: Path, *arguments: str) -> tuple[int, str]:
    """Python with only the installed wheel added; (exit code, stdout). No traceback."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CT_", "PYTHON", "DAGSTER"))}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=place,
        env={
            **kept,
            "PYTHONPATH": str(installed),
            "DAGSTER_HOME": str(place / "dagster_home"),
            "CT_PROJECTS": os.environ["CT_PROJECTS"],
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout


def test_the_installed_package_is_imported(installed: Path, tmp_path: Path) -> None:
    code, place = run(installed, tmp_path, "-c", "import ctcore; print(ctcore.__file__)")
    assert (code, place.strip()) == (0, str(installed / "ctcore" / "__init__.py"))
    tops = {path.name for path in installed.iterdir() if not path.name.endswith(".dist-info")}
    assert tops == {"bin", "ctcore", "ct_instance"}
    assert not [path for path in installed.rglob("*") if path.name in ("tests", ".git", "benchmarks")]
    assert (installed / "bin" / "ct").exists()


def test_a_project_from_the_wheel_has_all_that_dagster_needs(installed: Path, project: Path) -> None:
    validate = ("-m", "dagster", "definitions", "validate", "-f", "definitions.py")
    assert run(installed, project, *validate)[0] == 0
    code, place = run(installed, project, "-c", "import definitions, resources; print(resources.__file__)")
    assert (code, place.strip()) == (0, str(project / "resources" / "__init__.py"))


def test_a_project_from_the_wheel_registers_and_runs(installed: Path, project: Path) -> None:
    ct = ("-m", "ctcore.cli", "-C", str(project))
    assert run(installed, project.parent, *ct, "register")[0] == 0
    assert run(installed, project.parent, *ct, "run", "reads_qc")[0] == 0
    code, folder = run(installed, project.parent, *ct, "path", "reads_qc/HG00100-3815246")
    assert code == 0 and (Path(folder.strip()) / "reads_qc.tsv").is_file()
