"""ct.toml: what it declares, and every slip of the hand told at once, with its place and the way out."""

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctcore.config.settings import Reference, RunSettings, Settings, read_settings
from ctcore.errors import ProjectError
from ctcore.inputs.current import current_inputs
from ctcore.intake.register import register
from ctcore.model.cohort_rule import Cohort, Condition
from ctcore.model.column import Column
from ctcore.project import Project
from ctcore.snapshot.hierarchy import in_cohort
from tests.helpers.kit import TOML, make_project

PROJECT = '[project]\nid = "toy"\n'
COLUMN = "[levels.patient.columns]\n"


def read(folder: Path, text: str) -> Settings:
    (folder / "ct.toml").write_text(text, encoding="utf-8")
    return read_settings(folder / "ct.toml")


def problems(folder: Path, text: str) -> list[str]:
    with pytest.raises(ProjectError) as caught:
        read(folder, text)
    first, *lines = str(caught.value).splitlines()
    assert first == f"{folder / 'ct.toml'}: {len(lines)} problem" + "s" * (len(lines) != 1)
    return [line.strip() for line in lines]


def test_the_smallest_project_has_an_id_and_the_defaults(tmp_path: Path) -> None:
    found = read(tmp_path, PROJECT)
    assert (found.project_id, found.name, found.sheet) == ("toy", "toy", None)
    assert found.cohorts == {"all": Cohort("all")}
    assert found.run == RunSettings()
    assert found.step_folders == ("ct_assets/steps", "steps")
    assert all(not level.columns and not level.files for level in found.levels.values())


def test_everything_that_is_declared_is_read(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        """\ufeff
[project]
id = "toy-1"
name = "A toy"
sheet = "sheet.csv"
[levels.patient]
id_pattern = 'P\\d+'
[levels.patient.columns]
age = "integer"
sex = { enum = ["F", "M"], required = true, description = "as registered" }
status = { type = "integer", enum = [0, 1] }
[levels.assay]
files = ["fastq_1", "fastq_2"]
[references.genome]
path = "g.fa"
version = "38"
kind = "genome"
[cohorts.women]
where = { "patient.sex" = "F", "patient.status" = 1 }
[steps]
folders = ["a", "b"]
[params.align]
preset = "sr"
[environment]
lock = "requirements.lock"
[run]
workers = 0
partitions_per_run = 7
""",
    )
    assert (found.project_id, found.name, found.sheet) == ("toy-1", "A toy", "sheet.csv")
    assert found.levels["patient"].columns == {
        "age": Column("age", "integer"),
        "sex": Column("sex", "text", True, ("F", "M"), "as registered"),
        "status": Column("status", "integer", False, ("0", "1")),
    }
    assert found.levels["patient"].id_is_valid("P12")
    assert not found.levels["patient"].id_is_valid("S12")
    assert found.levels["assay"].files == ("fastq_1", "fastq_2")
    assert found.references == {"genome": Reference("genome", "g.fa", "38", "genome")}
    women = {"patient.sex": (Condition("is", ("F",)),), "patient.status": (Condition("is", ("1",)),)}
    assert found.cohorts == {"women": Cohort("women", women)}
    assert (found.step_folders, found.environment_lock) == (("a", "b"), "requirements.lock")
    assert found.params == {"align": {"preset": "sr"}}
    assert found.run == RunSettings(workers=0, partitions_per_run=7)


SLIPS = [
    # unknown keys, with near names
    ("[projct]\n" + PROJECT, "the top level: unknown key 'projct'; did you mean 'project'?"),
    (PROJECT + "nam = 'x'", "[project]: unknown key 'nam'; did you mean 'name'?"),
    (PROJECT + "colour = 'x'", "[project]: unknown key 'colour'; known: id, name, readable, sheet"),
    (PROJECT + "[levels.pateint]", "[levels]: unknown key 'pateint'; did you mean 'patient'?"),
    (PROJECT + "[levels.cohort]", "[levels]: unknown key 'cohort'; known: assay, patient, specimen"),
    (PROJECT + "[levels.assay]\nfile = []", "[levels.assay]: unknown key 'file'; did you mean 'files'?"),
    (
        PROJECT + COLUMN + "sex = {enums = []}",
        "[levels.patient.columns.sex]: unknown key 'enums'; did you mean 'enum'?",
    ),
    (PROJECT + "[run]\nworker = 1", "[run]: unknown key 'worker'; did you mean 'workers'?"),
    (PROJECT + "[steps]\nfolder = []", "[steps]: unknown key 'folder'; did you mean 'folders'?"),
    (PROJECT + "[environment]\nlocks = 'x'", "[environment]: unknown key 'locks'; did you mean 'lock'?"),
    # wrong types
    ("project = 'toy'\n", "project = 'toy': a table [project] is expected"),
    (PROJECT + "name = 5", """[project] name = 5: a text is expected, as in name = "…\""""),
    (PROJECT + "sheet = ['a.csv']", """[project] sheet = ['a.csv']: a text is expected, as in sheet = "…\""""),
    (PROJECT + "sheet = ''", """[project] sheet = '': a text is expected, as in sheet = "…\""""),
    (PROJECT + "[levels]\npatient = 1", "levels.patient = 1: a table [levels.patient] is expected"),
    (
        PROJECT + "[levels.assay]\nfiles = 'fastq_1'",
        """[levels.assay] files = 'fastq_1': a list of texts is expected, as in files = ["…"]""",
    ),
    (
        PROJECT + "[levels.assay]\nfiles = ['r', 'r']",
        "[levels.assay] files = ['r', 'r']: one of them is listed twice",
    ),
    (
        PROJECT + "[levels.assay]\nid_pattern = 7",
        """[levels.assay] id_pattern = 7: a text is expected, as in id_pattern = "…\"""",
    ),
    (
        PROJECT + "[levels.assay]\nid_pattern = '*'",
        "[levels.assay] id_pattern '*' is not a regular expression: nothing to repeat at position 0",
    ),
    (
        PROJECT + COLUMN + "sex = {enum = 'abc'}",
        """[levels.patient.columns.sex] enum = 'abc': a list of texts is expected, as in enum = ["…"]""",
    ),
    (
        PROJECT + COLUMN + "sex = {enum = [true]}",
        """[levels.patient.columns.sex] enum = [True]: a list of texts is expected, as in enum = ["…"]""",
    ),
    (
        PROJECT + COLUMN + "n = {type = 'integer', enum = ['a']}",
        "[levels.patient.columns.n] enum: 'a' is not a whole number, the column's type",
    ),
    (
        PROJECT + COLUMN + "sex = {required = 'false'}",
        "[levels.patient.columns.sex] required = 'false': true or false is expected, without quotes",
    ),
    (
        PROJECT + COLUMN + "age = 'int'",
        "[levels.patient.columns.age] type 'int' is not one of text, integer, real, boolean, date",
    ),
    (
        PROJECT + COLUMN + "age = ['integer']",
        "[levels.patient.columns.age] type ['integer'] is not one of text, integer, real, boolean, date",
    ),
    (
        PROJECT + "[references]\ngenome = 'g.fa'",
        "references.genome = 'g.fa': a table [references.genome] is expected",
    ),
    (PROJECT + "[references.g]\npath = 'g.fa'\nversion = 38", """[references.g] needs version = "…" (a text)"""),
    (
        PROJECT + "[references.'../g']\npath = 'g'\nversion = '1'",
        "[references.../g]: the key must match [A-Za-z0-9][A-Za-z0-9_.-]{0,63}",
    ),
    (PROJECT + "[cohorts.'a b']", "[cohorts.a b]: the name must match [A-Za-z0-9][A-Za-z0-9_.-]{0,63}"),
    (
        PROJECT + "[steps]\nfolders = 'steps'",
        """[steps] folders = 'steps': a list of texts is expected, as in folders = ["…"]""",
    ),
    (
        PROJECT + "[environment]\nlock = true",
        """[environment] lock = True: a text is expected, as in lock = "…\"""",
    ),
    (PROJECT + "[params]\nalign = 5", "params.align = 5: a table [params.align] is expected"),
    *[
        (PROJECT + f"[run]\nworkers = {value}", f"[run] workers = {said}: a whole number, 0 or more")
        for value, said in (("-1", "-1"), ("true", "True"), ("1.5", "1.5"), ("'2'", "'2'"))
    ],
    (PROJECT + "[run]\npartitions_per_run = 0", "[run] partitions_per_run = 0: a whole number, 1 or more"),
    (PROJECT + "[run]\nretry_after_s = 0", "[run] retry_after_s = 0: a whole number, 1 or more"),
    (PROJECT + "[run]\npause = 'yes'", "[run] pause = 'yes': true or false is expected, without quotes"),
    (
        PROJECT + "[run]\nbudget = 5",
        "[run] budget = 5: write budget = { partitions = 1000, core_hours = 50 }",
    ),
    (
        PROJECT + "[run]\nbudget = {partition = 5}",
        "[run] budget: unknown key 'partition'; did you mean 'partitions'?",
    ),
    (
        PROJECT + "[run]\nbudget = {partitions = 0}",
        "[run] budget partitions = 0: a whole number a day, 1 or more; `pause = true` stops all",
    ),
    (
        PROJECT + "[run]\nbudget = {core_hours = nan}",
        "[run] budget core_hours = nan: a number a day, above 0; `pause = true` stops all",
    ),
    (
        PROJECT + "[policy]\nmerged = 'asks'",
        '[policy] merged = \'asks\': did you mean \'ask\'? it is "automatic", "ask" or "never"',
    ),
    (
        PROJECT + "[policy]\nmerged = true",
        '[policy] merged = True: it is "automatic", "ask" or "never"',
    ),
    # names
    *[
        (f"[project]\nid = {value}", f"[project] id {said}: 3 to 64 of a-z, 0-9 and -, not at an end")
        for value, said in (
            ("'ab'", "'ab'"),
            ("'A-b'", "'A-b'"),
            ("'-ab'", "'-ab'"),
            ("'a/b'", "'a/b'"),
            ("'a\"b'", "'a\"b'"),
            ("'" + "a" * 65 + "'", "'" + "a" * 65 + "'"),
        )
    ],
    (
        PROJECT + COLUMN + "'a b' = {}",
        "[levels.patient] 'a b': a column or file is named with letters, digits and _, and not `id`",
    ),
    (
        PROJECT + COLUMN + "id = {}",
        "[levels.patient] 'id': a column or file is named with letters, digits and _, and not `id`",
    ),
    (
        PROJECT + COLUMN + "Sample = {}",
        "[levels.patient] 'Sample': a sheet has the IDs under this name; choose another",
    ),
    (
        PROJECT + "[levels.assay]\nfiles = ['../x']",
        "[levels.assay] '../x': a column or file is named with letters, digits and _, and not `id`",
    ),
    (
        PROJECT + "[levels.assay]\nfiles = ['r']\n[levels.specimen]\nfiles = ['r']",
        "[levels.assay] files: 'r' is a file of specimen already",
    ),
    (
        PROJECT + "[levels.assay]\nfiles = ['r']\ncolumns = {r = {}}",
        "[levels.assay] 'r': a column and a file have one name; rename one of them",
    ),
    # rules of cohorts
    (
        PROJECT + COLUMN + "sex = {}\n[cohorts.w]\nwhere = {'patient.sexx' = 'F'}",
        "[cohorts.w] where 'patient.sexx': no such level.column; did you mean 'patient.sex'?",
    ),
    (
        PROJECT + "[cohorts.w]\nwhere = {x = 'F'}",
        "[cohorts.w] where 'x': no such level.column; known: assay.id, patient.id, specimen.id",
    ),
    (
        PROJECT + COLUMN + "sex = {enum = ['F', 'M']}\n[cohorts.w]\nwhere = {'patient.sex' = 'f'}",
        "[cohorts.w] where patient.sex = 'f' is not one of F, M",
    ),
    (
        PROJECT + COLUMN + "age = 'integer'\n[cohorts.w]\nwhere = {'patient.age' = 'old'}",
        "[cohorts.w] where patient.age = 'old' is not a whole number",
    ),
    (
        PROJECT + COLUMN + "sex = {}\n[cohorts.w]\nwhere = {'patient.sex' = [['F'], 'M']}",
        "[cohorts.w] where patient.sex = ['F']: one value is expected",
    ),
]


@pytest.mark.parametrize(("text", "said"), SLIPS)
def test_a_slip_of_the_hand_is_told_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    found = problems(tmp_path, text)
    assert said in found
    assert all(one == said or "[project] id ''" in one or "[project] id = " in one for one in found), found


def test_an_id_that_is_a_number_or_missing_is_told(tmp_path: Path) -> None:
    assert problems(tmp_path, "") == ["[project] id '': 3 to 64 of a-z, 0-9 and -, not at an end"]
    assert problems(tmp_path, "[project]\nid = 123")[0] == '[project] id = 123: a text is expected, as in id = "…"'


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    found = problems(
        tmp_path,
        "[project]\nid = 'X'\nnmae = 'x'\n[levels.patient.columns]\nage = 'int'\nsex = {enum = 'FM'}\n"
        "[references.g]\npath = 3\n[cohorts.w]\nwhere = {sex = 'F'}\n[run]\nworkers = -1\n[stpes]\n",
    )
    starts = [
        "the top level",
        "[project]",
        "[project] id",
        "[levels.patient.columns.age]",
        "[levels.patient.columns.sex]",
        "[references.g] needs path",
        "[references.g] needs version",
        "[cohorts.w]",
        "[run]",
    ]
    assert len(found) == len(starts)
    assert all(one.startswith(start) for one, start in zip(found, starts, strict=True)), found


@pytest.mark.parametrize("text", [b"[project", b"id = 1\nid = 2", b"a = " + b"[" * 5000])
def test_what_is_not_toml_says_so(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "ct.toml").write_bytes(text)
    with pytest.raises(ProjectError, match=r"ct.toml is not valid TOML"):
        read_settings(tmp_path / "ct.toml")


def test_a_missing_and_an_unreadable_file_say_so(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match=r"no ct.toml in .*`ct init .*` makes a project"):
        read_settings(tmp_path / "ct.toml")
    (tmp_path / "ct.toml").write_bytes(b"# \xff")
    with pytest.raises(ProjectError, match=r"ct.toml cannot be read: .*utf-8"):
        read_settings(tmp_path / "ct.toml")


def test_a_rule_finds_values_of_every_type(tmp_path: Path) -> None:
    """5 and 5.0, true and yes, a date and its text: a rule that silently finds nobody would be the worst of rules."""
    rules = {
        "real": '"assay.pure" = 5',
        "boolean": '"assay.paired" = true',
        "date": '"assay.day" = 2020-01-31',
        "text": '"assay.library" = 12',
        "number": '"assay.lanes" = 2',
        "id": '"assay.id" = "A1"',
        "other": '"assay.paired" = false',
    }
    cohorts = "".join(f"[cohorts.{name}]\nwhere = {{{rule}}}\n" for name, rule in rules.items())
    columns = 'library = {}\npure = "real"\npaired = "boolean"\nday = "date"\nlanes = "integer"'
    toml = TOML.replace("[cohorts.all]\n", cohorts).replace("library = {}", columns)
    project = make_project(tmp_path / "toy", toml=toml)
    path = project.root / "more.csv"
    path.write_text("specimen_id,patient_id,assay_id,pure,paired,day,library,lanes\nS1,P1,A1,5,yes,2020-01-31,12,2\n")
    register(project, path)
    found = {name: members(project, name) for name in rules}
    assert found == {name: ["A1"] if name != "other" else [] for name in rules}


def members(project: Project, cohort: str) -> list[str]:
    with project.catalog.read() as connection:
        snapshot, inputs = current_inputs(project, connection)
    rule = in_cohort(inputs.hierarchy, "assay", project.settings.cohorts[cohort])
    return [snapshot.entities["assay"].ids[at] for at in np.flatnonzero(rule)]


KEYS = ["project", "id", "levels", "patient", "columns", "enum", "files", "run", "workers", "where", "cohorts", "x"]
values = st.recursive(
    st.booleans() | st.integers(-5, 5) | st.floats() | st.text("aZ0_-. /é", max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=12,
)


def toml_of(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {toml_of(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml_of, value)) + "]"
    return str(value) if isinstance(value, float) else json.dumps(value)


TABLES = ("project", "levels", "references", "cohorts", "steps", "params", "environment", "run", "policy", "x")


@settings(max_examples=300, deadline=None)
@given(
    st.fixed_dictionaries(
        {},
        optional=dict.fromkeys(TABLES, values),
    )
)
def test_any_document_gives_settings_or_problems(document: dict[str, object]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ct.toml"
        path.write_text("\n".join(f"{key} = {toml_of(value)}" for key, value in document.items()), encoding="utf-8")
        try:
            read_settings(path)
        except ProjectError as error:
            assert " problem" in str(error)
