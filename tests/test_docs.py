"""What the pages say is what the code says: their examples run, their tables are whole."""

import json
import re
import shlex
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import get_args

import click
import pytest

from ctcore.files import look
from ctcore.project import Project
from ctcore.reasons import Kind, State
from ctcore.register import register
from ctcore.settings import RunSettings
from ctcore.slurm.profiles import KEYS, Profile
from ctcore.slurm.states import STATES, is_over
from ctcore.templates import copy_example
from tests.kit import make_all, reasons

ROOT = Path(__file__).parents[1]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """The example cohort with the two files that the page shows, and no other steps."""
    steps, test = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "steps.md").read_text(), re.DOTALL)
    (tmp_path / "ct.toml").write_text(
        copy_example("three_people", tmp_path).replace("{id}", "docs").replace('"ct_assets/steps", ', "")
    )
    for name, text in (("steps/gc.py", steps), ("tests/test_gc.py", test)):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(text)
    return Project.find(tmp_path)


def test_the_example_steps_run_and_take_a_parameter_from_the_project(project: Project) -> None:
    register(project, project.root / "samplesheet.csv")
    look(project)
    assert set(make_all(project).values()) == {"made"}
    made = project.store.root.glob("gc_table/all/*/gc.tsv")
    assert [line.split("\t")[0] for line in next(made).read_text().splitlines()] == [
        "specimen",
        "HG00100-LCL",
        "HG00101-LCL",
        "HG00102-LCL",
    ]
    with (project.root / "ct.toml").open("a") as toml:
        toml.write("\n[params.gc_counts]\nmin_quality = 30\n")
    found = reasons(Project.find(project.root))
    assert found["gc_counts/HG00100-3815246"] == ["parameters"]
    assert found["gc_table/all"] == ["upstream"]


def test_the_example_test_passes(project: Project) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"]
    said = subprocess.run(command, cwd=project.root, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stdout
    assert "1 passed" in said.stdout


def test_the_map_names_every_module() -> None:
    page = re.sub(r"```.*?```", "", (ROOT / "CONTRIBUTING.md").read_text(), flags=re.DOTALL)
    folders = ("ctcore", "ctcore/catalog", "ctcore/sheet", "ctcore/slurm", "ctcore/reading", "ct_assets", "sensors")
    modules = [path for folder in folders for path in (ROOT / folder).glob("*.py") if not path.stem.startswith("_")]
    named = set(re.findall(r"\w+", " ".join(re.findall(r"`([^`]+)`", page))))
    assert [str(path.relative_to(ROOT)) for path in modules if path.stem not in named] == []


def test_every_reason_and_state_is_explained() -> None:
    page = (ROOT / "docs" / "idea.md").read_text()
    assert [word for word in (*get_args(Kind), *get_args(State)) if f"\n| `{word}` |" not in page] == []


def test_every_run_setting_is_listed_with_its_default() -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    listed = [f"| `[run] {field.name}` | `{json.dumps(field.default)}` |" for field in fields(RunSettings)]
    assert [line for line in listed if line not in page] == []


def test_every_key_of_a_profile_is_listed_and_every_end_of_a_job_explained() -> None:
    page = (ROOT / "docs" / "slurm.md").read_text()
    rows = {line.split("|")[1]: line for line in page.splitlines() if line.startswith("| `")}
    listed = {key: line for cell, line in rows.items() for key in re.findall(r"`(\w+)`", cell)}
    assert [key for key in KEYS if key not in listed] == []
    shown = {field.name: field.default for field in fields(Profile) if isinstance(field.default, int | float)}
    assert [key for key, value in shown.items() if f"`{value}`" not in listed[key]] == []
    assert [state for state in STATES if is_over(state) and state != "GONE" and state not in page] == []


def test_dagsters_own_commands_have_the_options_that_are_shown() -> None:
    from dagster._cli import create_dagster_cli

    lines = [
        line for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")) for line in page.read_text().splitlines()
    ]
    shown = [found[1] for line in lines if (found := re.match(r"(?:[A-Z_]+=\S+ )*dagster (.+)", line))]
    for line in shown:
        words, command = shlex.split(line, comments=True), create_dagster_cli()
        while isinstance(command, click.Group):
            command = command.commands[words.pop(0)]
        known = {option for one in command.params for option in one.opts}
        assert [word for word in words if word.startswith("-") and word not in known] == [], line
    assert len(shown) > 3
