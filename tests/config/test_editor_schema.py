"""The schema of ct.toml for editors: it accepts all that ct accepts, and refuses slips of the hand as ct does."""

import ast
import datetime
import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator

from ctcore.config import editor_schema
from ctcore.config.editor_schema import DIRECTIVE, SCHEMA_FILE
from ctcore.config.settings import read_settings
from ctcore.config.slurm_profiles import KEYS
from ctcore.config.starters import STARTERS
from ctcore.errors import ProjectError
from tests.config.test_settings import PROJECT, SLIPS
from tests.helpers.kit import TOML
from tests.helpers.shell import ct

ROOT = Path(__file__).parents[2]
UNFIT = [
    ("integer", "default = 'x'"),
    ("integer", "default = true"),
    ("integer", "default = 1.5"),
    ("integer", "default = 2020-01-01"),
    ("integer", "default = '1.0'"),
    ("real", "default = 'x'"),
    ("real", "default = true"),
    ("boolean", "default = 'perhaps'"),
    ("boolean", "default = 2"),
    ("date", "default = '2020-13-01'"),
    ("date", "default = '2020-02-30'"),
    ("date", "default = '2020-04-31'"),
    ("date", "default = 20200101"),
    ("text", "default = ''"),
    ("text", "default = []"),
    ("date", "enum = ['2020-13-01']"),
    ("integer", "enum = ['x']"),
    ("boolean", "enum = ['perhaps']"),
]
FIT = [
    ("integer", "default = 30"),
    ("integer", "default = '-30'"),
    ("real", "default = 30"),
    ("real", "default = '3e-1'"),
    ("boolean", "default = true"),
    ("boolean", "default = 'YES'"),
    ("boolean", "default = 1"),
    ("date", "default = 2020-02-29"),
    ("date", "default = '2020-12-31'"),
    ("text", "default = 2020-01-01"),
    ("text", "default = 30"),
    ("date", "enum = ['2020-12-31'], default = '2020-12-31'"),
    ("integer", "enum = [0, 1], default = 1"),
    ("boolean", "enum = ['yes', 'no']"),
]
SCHEMA = editor_schema.schema()
VALIDATOR = Draft7Validator(SCHEMA)


def problems(text: str) -> list[str]:
    """What an editor says of ct.toml; a date is a text there."""
    document = json.loads(json.dumps(tomllib.loads(text.removeprefix("\ufeff")), default=datetime.date.isoformat))
    return [error.message for error in VALIDATOR.iter_errors(document)]


def ct_accepts(folder: Path, text: str) -> bool:
    (folder / "ct.toml").write_text(text, encoding="utf-8")
    try:
        read_settings(folder / "ct.toml")
    except ProjectError:
        return False
    return True


def written() -> Iterator[tuple[str, str]]:
    """Every text in tests, benchmarks and docs that is a whole ct.toml, and those that people begin with."""
    yield from ((f"template {name}", one.toml.replace("{id}", "toy")) for name, one in STARTERS.items())
    for path in (ROOT / "examples").rglob("ct.toml"):
        yield str(path.relative_to(ROOT)), path.read_text().replace("{id}", "toy")
    for path in (*(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and "=" in node.value:
                if "[project]" in node.value:
                    yield f"{path.relative_to(ROOT)}:{node.lineno}", node.value
                elif re.match(r"\s*\[[a-z]+[.\]]", node.value):  # what a test adds to the kit's project
                    yield f"{path.relative_to(ROOT)}:{node.lineno}", TOML + node.value
                    yield f"{path.relative_to(ROOT)}:{node.lineno}", TOML.replace("[cohorts.all]", node.value)
    for path in (ROOT / "docs").glob("*.md"):
        for block in re.findall(r"```toml\n(.*?)```", path.read_text(), re.DOTALL):
            yield str(path.relative_to(ROOT)), block if "[project]" in block else PROJECT + block


def test_the_file_in_docs_is_what_the_code_makes() -> None:
    Draft7Validator.check_schema(SCHEMA)
    assert (ROOT / "docs" / SCHEMA_FILE).read_text() == editor_schema.text(), f"ct schema editor > docs/{SCHEMA_FILE}"


def test_the_command_prints_it_and_init_puts_it_beside_ct_toml(tmp_path: Path) -> None:
    assert ct("schema", "editor").out == editor_schema.text()
    assert ct("init", tmp_path / "new").code == 0
    assert (tmp_path / "new" / "ct.toml").read_text().startswith(DIRECTIVE)
    assert (tmp_path / "new" / SCHEMA_FILE).read_text() == editor_schema.text()


def test_what_ct_accepts_an_editor_accepts(tmp_path: Path) -> None:
    accepted, refused = 0, {}
    for text, place in {text: place for place, text in written()}.items():
        if ct_accepts(tmp_path, text):
            accepted += 1
            if said := problems(text):
                refused[place] = said
    assert refused == {}
    assert accepted > 100


@pytest.mark.parametrize(
    "added",
    [
        "colour = 1",
        "readable = 'nobody'",
        "[levels.assay]\nfiles = 'reads'",
        "[levels.patient.columns]\nage = 'int'",
        "[levels.patient.columns]\nid = {}",
        "[levels.patient.columns]\nage = { range = [0, 1] }",
        "[levels.patient.columns]\nage = { unique = true, default = 3 }",
        "[references.genome]\npath = 'g.fa'",
        "[regions.panel]\nbed = 'p.bed'\nintervals = ['chr1:1-5']",
        "[regions.panel]\nintervals = ['chr1:1']",
        "[cohorts.a]\nlevel = 'person'",
        "[cohorts.a.where]\n'patient.sex' = { like = 'F' }",
        "[cohorts.a]\nhas = { specimen = 0 }",
        "[pairings.a]\nby = 'specimen.site'\nseveral = 'best'",
        "[run]\nworkers = -1",
        "[run]\npause = 'yes'",
        "[run]\nbudget = { hours = 3 }",
        "[run]\nsandbox = 'tight'",
        "[policy]\nstep = 'sometimes'",
        "[slurm.local]\ncpus = 1",
        "[slurm.a]\nmemory_gb = 0",
        "[slurm.a]\ntries = 0",
        "[slurm.a]\nfail = 'now'",
        "[sheet.map]\nA = 1",
        "[qc.kinds.dark]\nstatus = 'pass'",
        "[consent]\nuses = ['a,b']",
        "[analyses.path]\nlevel = 'cohort'",
        "[analyses.path]\nlevel = 'assay'\ncolumns.run = {}",
        "[dagster]\nhome = 3",
        "[environment]\nlock = ''",
        "[regions.panel]\nintervals = ['chr1:10-1']",
        "[regions.panel]\nintervals = 'chr1:1,000-200'",
        "[regions.panel]\nintervals = ['chr1:0-5']",
        *(f"[levels.patient.columns]\na = {{ type = '{kind}', {said} }}" for kind, said in UNFIT),
    ],
)
def test_both_refuse_a_slip_of_the_hand(tmp_path: Path, added: str) -> None:
    assert problems(PROJECT + added) != []
    assert not ct_accepts(tmp_path, PROJECT + added)


@pytest.mark.parametrize(
    "added",
    [
        *(f"[levels.patient.columns]\na = {{ type = '{kind}', {said} }}" for kind, said in FIT),
        "[levels.patient.columns]\na = 'date'\n[cohorts.b]\nwhere = { 'patient.a' = 2020-01-01 }",
        "[levels.patient.columns]\na = 'date'\n[cohorts.b]\nwhere = { 'patient.a' = { '>=' = 2020-01-01 } }",
        "[regions.panel]\nintervals = ['chr1:009-10', 'chr1:1,000-2000', 'HLA:1-2:5-5', ' chr1:99-100,']",
    ],
)
def test_both_take_a_value_as_toml_or_a_sheet_has_it(tmp_path: Path, added: str) -> None:
    """Also where the tool that checks does not turn a date into a text first."""
    assert ct_accepts(tmp_path, PROJECT + added)
    assert problems(PROJECT + added) == []
    assert [error.message for error in VALIDATOR.iter_errors(tomllib.loads(PROJECT + added))] == []


def test_most_slips_that_ct_names_are_marked_in_an_editor() -> None:
    marked = [text for text, _ in SLIPS if problems(text)]
    assert len(marked) >= 0.8 * len(SLIPS)


def test_every_key_is_described_and_read_by_the_code() -> None:
    assert undescribed(SCHEMA) == []
    profile = SCHEMA["properties"]["slurm"]["additionalProperties"]["properties"]
    assert set(profile) == set(KEYS)
    assert SCHEMA["properties"]["project"]["required"] == ["id"]


def undescribed(part: dict[str, Any], place: str = "") -> list[str]:
    """Keys of tables without a description."""
    found = []
    for name, one in part.get("properties", {}).items():
        if not one.get("description") and not re.search(r"\.(where|has)\.", f"{place}.{name}"):
            found.append(f"{place}.{name}")
        found += undescribed(one, f"{place}.{name}")
    inner = part.get("additionalProperties")
    return found + (undescribed(inner, f"{place}.*") if isinstance(inner, dict) else [])
