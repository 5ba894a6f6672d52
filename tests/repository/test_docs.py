"""What the pages say is what the code says: their examples run, their tables are whole."""

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import get_args

import click
import pytest
import tomlkit

from ctcore.cli import cli
from ctcore.config.settings import RunSettings, read_settings
from ctcore.config.slurm_profiles import KEYS, Profile
from ctcore.config.templates import copy_example
from ctcore.execution.slurm.states import STATES, is_over
from ctcore.intake.raw_files import look
from ctcore.intake.register import register
from ctcore.model.reasons import Kind, State
from ctcore.project import Project
from ctcore.step import Call, Source
from ctcore.steps.graph import load_file
from tests.helpers.kit import STEPS, TOML, make_all, make_project, reasons
from tests.helpers.shell import ct
from tools.er import page

ROOT = Path(__file__).parents[2]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """The example cohort with the two files that the page shows, and no other steps."""
    steps, test, whole = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "steps.md").read_text(), re.DOTALL)
    (tmp_path / "ct.toml").write_text(
        copy_example("three_people", tmp_path).replace("{id}", "docs").replace('"ct_assets/steps", ', "")
    )
    for name, text in (("steps/gc.py", steps), ("tests/test_gc.py", test), ("tests/test_assets.py", whole)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return Project.find(tmp_path)


def test_the_example_steps_run_and_take_a_parameter(project: Project) -> None:
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


def test_the_example_tests_pass(project: Project) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"]
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    said = subprocess.run(command, cwd=project.root, env=variables, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stdout
    assert "2 passed" in said.stdout


def test_the_map_names_every_package_and_the_dagster_side() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text()
    packages = {str(path.parent.relative_to(ROOT / "ctcore")) for path in (ROOT / "ctcore").rglob("__init__.py")}
    packages -= {".", "catalog/migrations"}
    assert [name for name in packages if f"\n| `{name}` |" not in page] == []
    words = re.sub(r"```.*?```", "", page, flags=re.DOTALL)
    named = set(re.findall(r"\w+", " ".join(re.findall(r"`([^`]+)`", words))))
    modules = [path for folder in ("ct_assets", "sensors") for path in (ROOT / folder).glob("[!_]*.py")]
    assert [str(path.relative_to(ROOT)) for path in modules if path.stem not in named] == []


def test_the_page_of_the_catalog_is_that_of_its_tables() -> None:
    assert (ROOT / "docs" / "catalog.md").read_text() == page(), "python -m tools.er > docs/catalog.md"


def test_every_reason_and_state_is_explained() -> None:
    page = (ROOT / "docs" / "idea.md").read_text()
    assert [word for word in (*get_args(Kind), *get_args(State)) if f"\n| `{word}` |" not in page] == []


def test_every_run_setting_is_listed_with_its_default() -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    listed = [f"| `[run] {field.name}` | `{json.dumps(field.default)}` |" for field in fields(RunSettings)]
    assert [line for line in listed if line not in page] == []


def test_profile_keys_and_job_ends_are_documented() -> None:
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


PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
HEAD = "from ctcore.model.column import Column\nfrom ctcore.step import Call, Facts, Resources, step\n"
# What the pages' pieces of ct.toml speak of and do not declare themselves.
DECLARED = """
[project]
id = "docs"
[levels.patient]
columns = { age = "integer", sex = {}, family = {}, role = {} }
[levels.specimen]
columns = { site = {}, status = {} }
[levels.assay]
columns = { library = {} }
[references.genome]
path = "genome.fa"
version = "38"
[pairings.tumour_normal]
by = "specimen.status"
"""


def blocks(language: str) -> Iterator[tuple[str, str]]:
    """The fenced blocks of a language, each with its page."""
    for path in PAGES:
        parts = re.split(r"^```(\w*)\n", path.read_text(), flags=re.MULTILINE)
        for opening, text in list(zip(parts[1::2], parts[2::2], strict=True))[::2]:
            if opening == language:
                yield path.name, text


def merged(one: dict[str, object], other: dict[str, object]) -> dict[str, object]:
    both = {**one, **other}
    for key in one.keys() & other.keys():
        mine, theirs = one[key], other[key]
        if isinstance(mine, dict) and isinstance(theirs, dict):
            both[key] = merged(mine, theirs)
    return both


def test_every_piece_of_ct_toml_in_the_pages_is_read(tmp_path: Path) -> None:
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "pilot.txt").write_text("P1\n")
    read = 0
    for name, text in blocks("toml"):
        if text.startswith("# steps/"):  # of a step: below
            continue
        whole = merged(tomllib.loads(DECLARED), tomllib.loads(text))
        (tmp_path / "ct.toml").write_text(f"# {name}\n{tomlkit.dumps(whole)}")
        read_settings(tmp_path / "ct.toml")
        read += 1
    assert read > 8


def test_every_step_of_the_pages_is_one(tmp_path: Path) -> None:
    found = {}
    for name, text in blocks("python"):
        whole = text.replace("@step(...,", '@step(level="assay", outputs={"n": "n.txt"},')
        whole += "def sized(call: Call) -> None: ...\n" if whole.endswith("))\n") and "def " not in whole else ""
        file = tmp_path / f"{name.partition('.')[0]}{len(found)}.py"
        file.write_text(whole if "from ctcore" in whole else HEAD + whole)
        if "def test_" not in whole and "dg.Definitions" not in whole:  # that one: tests/projects/test_code_files.py
            found[name] = [step.name for step in load_file(file)]
    assert found == {
        "README.md": ["merged_reads"],
        "references.md": ["somatic"],
        "results.md": ["counted"],
        "slurm.md": ["sized"],
        "steps.md": ["gc_counts", "specimen_gc", "gc_table"],
    }


def test_the_page_of_adopting_adopts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "docs" / "adopting.md").read_text()
    (declared,) = (text for _, text in blocks("toml") if text.startswith("# steps/joint_vcf.toml"))
    steps = STEPS.replace("counted", "aligned_reads")
    project = make_project(tmp_path / "toy", steps=steps, toml=TOML.replace("site = {}", "site = {}\nstatus = {}"))
    (project.root / "steps" / "joint_vcf.toml").write_text(declared)
    (project.root / "calls").mkdir()
    for name in ("joint.vcf.gz", "joint.vcf.gz.tbi"):
        (project.root / "calls" / name).write_text(name)
    make_all(Project.find(project.root))
    monkeypatch.chdir(project.root)
    called = re.findall(r"^ct (.* joint_vcf/all.*|adopt joint_vcf.*)", page.replace("\\\n", " "), re.MULTILINE)
    said = [ct(*shlex.split(line)) for line in called]
    assert len(said) == 3 and [one.code for one in said] == [0, 0, 0], said
    told = "made elsewhere by GLnexus at the sequencing centre: the freeze of May"
    assert all(told in one.out + one.err for one in said)


def test_the_readmes_step_merges_the_libraries_of_a_specimen(tmp_path: Path) -> None:
    import pysam

    (path := tmp_path / "merged.py").write_text(next(text for name, text in blocks("python") if name == "README.md"))
    (step,) = load_file(path)
    header = {"HD": {"VN": "1.6", "SO": "coordinate"}, "SQ": [{"SN": "chr1", "LN": 100}]}
    sources = []
    for name in ("A1", "A2"):
        with pysam.AlignmentFile(str(tmp_path / f"{name}.bam"), "wb", header=header) as stream:
            read = pysam.AlignedSegment(stream.header)
            read.query_name, read.query_sequence, read.reference_id = name, "ACGT", 0
            read.reference_start, read.cigartuples = 5, [(0, 4)]
            stream.write(read)
        sources.append(Source(name, {"bam": tmp_path / f"{name}.bam"}))
    call = Call("S1", "specimen", tmp_path, {"bam": "merged.bam"}, inputs={"reads": sources})
    step.function(call)
    with pysam.AlignmentFile(str(call.out("bam"))) as stream:
        assert {read.query_name for read in stream.fetch(until_eof=True)} == {"A1", "A2"}


def test_every_ct_line_of_the_pages_is_a_call_that_ct_takes() -> None:
    shown = 0
    for name, text in blocks(""):
        for line in re.findall(r"^(?:\$ )?ct (.*)", text.replace("\\\n", " "), re.MULTILINE):
            words = shlex.split(re.sub(r"[][…]", " ", line.partition("  #")[0].partition(" && ")[0]))
            _parse(name, words)
            shown += 1
    assert shown > 60


def _parse(page: str, words: list[str]) -> None:
    """Options and subcommands are known, and each option has its value."""
    command: click.Command = cli
    context = click.Context(cli, info_name="ct")
    while True:
        _, words, _ = command.make_parser(context).parse_args(words)
        if not isinstance(command, click.Group) or not words:
            return
        found = command.get_command(context, words[0])
        assert found is not None, f"{page}: ct … {' '.join(words)}"
        command, context, words = found, click.Context(found, parent=context), words[1:]
