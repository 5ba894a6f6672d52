"""A value belongs to an entity of a level: where IDs of several levels are equal, a step still gets the right one's."""

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from ctcore.catalog.tables import artifact, edge
from ctcore.errors import StepError
from ctcore.intake.register import register
from ctcore.intake.sheet_diff import AllowedChanges
from ctcore.project import Project
from ctcore.step import Call, Source
from tests.helpers.kit import COLUMNS, TOML, again, assay, make_all, make_project, reasons, write_sheet

STEPS = '''
import json
from ctcore.step import Call, step

COLUMNS = ("patient.sex", "patient.id", "specimen.site", "specimen.id", "assay.library", "assay.id")


def told(call, *names, own=COLUMNS, of=COLUMNS):
    """What the step sees of its own node and of each source."""
    sources = {name: [
        {"entity": one.entity, "level": one.level, "role": one.role, **{c: one.column(c) for c in of if c in seen}}
        for one in call.many(name)
    ] for name, seen in names}
    call.out("told").write_text(json.dumps({"own": {c: call.column(c) for c in own}, **sources}))


@step(level="assay", files=["reads"], columns=COLUMNS, outputs={"told": "told.json"})
def by_assay(call: Call) -> None:
    told(call)


@step(level="specimen", inputs={"assays": "by_assay"}, columns=COLUMNS, role="assay.library",
      outputs={"told": "told.json"})
def by_specimen(call: Call) -> None:
    told(call, ("assays", COLUMNS), own=COLUMNS[:4])


@step(level="patient", inputs={"assays": "by_assay", "specimens": "by_specimen"}, columns=COLUMNS,
      role="specimen.site", outputs={"told": "told.json"})
def by_patient(call: Call) -> None:
    told(call, ("assays", COLUMNS), ("specimens", COLUMNS[:4]), own=COLUMNS[:2])


@step(level="cohort", inputs={"assays": "by_assay", "specimens": "by_specimen", "patients": "by_patient"},
      columns=COLUMNS, role="patient.sex", outputs={"told": "told.json"})
def by_cohort(call: Call) -> None:
    told(call, ("assays", COLUMNS), ("specimens", COLUMNS[:4]), ("patients", COLUMNS[:2]), own=())


@step(level="assay", inputs={"patients": "by_patient", "specimens": "by_specimen"}, columns=COLUMNS,
      outputs={"told": "told.json"})
def back(call: Call) -> None:
    told(call, ("patients", COLUMNS[:2]), ("specimens", COLUMNS[:4]))
'''
NAMES = ("X", "Y", "Z")


@st.composite
def sheets(draw: st.DrawFn) -> list[dict[str, str]]:
    """Assays, specimens and patients whose IDs come from the same three; each entity has its own values."""
    owner = {name: draw(st.sampled_from(NAMES)) for name in NAMES}
    tube = {name: draw(st.sampled_from(NAMES)) for name in draw(st.permutations(NAMES))}
    sex = {name: draw(st.sampled_from(["F", "M", ""])) for name in NAMES}
    return [
        assay(
            owner[tube[name]], tube[name], name, sex=sex[owner[tube[name]]], site=f"s{tube[name]}", library=f"l{name}"
        )
        for name in tube
    ]


def values(row: dict[str, str]) -> dict[str, Any]:
    """What the sheet says of an assay and of all above it, by column."""
    return {
        "patient.sex": row["sex"] or None,
        "patient.id": row["patient_id"],
        "specimen.site": row["site"],
        "specimen.id": row["specimen_id"],
        "assay.library": row["library"],
        "assay.id": row["assay_id"],
    }


def of_entity(rows: list[dict[str, str]], level: str, who: str) -> dict[str, Any]:
    row = next(row for row in rows if row[f"{level}_id"] == who)
    reach = ("patient", "specimen", "assay")[: ("patient", "specimen", "assay").index(level) + 1]
    return {name: value for name, value in values(row).items() if name.split(".")[0] in reach}


def told(project: Project, step: str, partition: str) -> dict[str, Any]:
    (path,) = (project.store.root / step / partition).glob("*/told.json")
    return json.loads(path.read_text())


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(sheets())
def test_each_step_gets_the_values_of_its_own_entity(rows: list[dict[str, str]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        project = make_project(Path(folder) / "toy", rows, steps=STEPS)
        states = make_all(project)
        assert set(states.values()) == {"made"}
        roles = {"by_specimen": "assay.library", "by_patient": "specimen.site", "by_cohort": "patient.sex"}
        for node in states:
            step, partition = node.split("/")
            seen = told(project, step, partition)
            level = project.steps[step].level
            if level != "cohort":
                own = of_entity(rows, level, partition)
                assert seen["own"] == own
            for name, up in project.steps[step].inputs.items():
                for one in seen[name]:
                    expected = of_entity(rows, project.steps[up].level, one["entity"])
                    assert one["level"] == project.steps[up].level
                    assert {column: one[column] for column in expected} == expected
                    if step in roles:
                        assert one["role"] == expected.get(roles[step])
        assert reasons(again(project)) == {}


def test_an_equal_id_of_another_level_makes_nothing_stale(tmp_path: Path) -> None:
    rows = [assay("X", "Y", "Z", sex="F", site="s"), assay("Y", "Z", "X", sex="M", site="t")]
    one = "\n".join(
        [
            "from ctcore.step import Call, step",
            '@step(level="specimen", inputs={"parts": "each"}, columns=["specimen.site"], outputs={"o": "o.txt"})',
            "def joined(call: Call) -> None:",
            '    call.out("o").write_text(call.column("specimen.site"))',
            '@step(level="assay", files=["reads"], outputs={"o": "o.txt"})',
            "def each(call: Call) -> None:",
            '    call.out("o").write_text(call.entity)',
        ]
    )
    project = make_project(tmp_path / "toy", rows, steps=one)
    make_all(project)
    changed = write_sheet(project.root, [rows[0], rows[1] | {"site": "other"}])
    register(project, changed, AllowedChanges(frozenset(), frozenset({"specimen.site"})))
    assert reasons(again(project)) == {"joined/Z": ["metadata"]}
    with project.catalog.read() as connection:
        used = connection.execute(edge.select().where(edge.c.input == "specimen.site")).all()
    assert {(row.asset, row.partition) for row in used} == {("specimen", "Y"), ("specimen", "Z")}


SOURCE = Source("X", {}, level="specimen", columns={"specimen.site": "s"})
CALL = Call("X", "assay", Path(), {}, inputs={"parts": [SOURCE]}, columns={"patient.sex": "F"})


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda: CALL.column("patient.sex", of="X"), 'source.column("patient.sex")'),
        (lambda: CALL.column("patient.age"), 'no column "patient.age"'),
        (lambda: SOURCE.column("patient.sex"), 'no column "patient.sex"'),
        (lambda: CALL.column("sex"), "patient.sex"),
    ],
)
def test_an_ambiguous_question_is_refused_with_a_way_out(ask: Any, said: str) -> None:
    with pytest.raises(StepError) as told:
        ask()
    assert said in str(told.value)


def test_a_source_says_its_own_values() -> None:
    assert (CALL.column("patient.sex"), SOURCE.column("specimen.site")) == ("F", "s")
    assert CALL.column("specimen.site", of=SOURCE) == "s"


ORDER = """
from ctcore.step import Call, step


@step(level="assay", files=["reads", "index"], references=["genome", "extra"], outputs={"o": "o.txt"})
def seen(call: Call) -> None:
    call.out("o").write_text(f"{call.entity} {list(call.files)} {list(call.references)}")


@step(level="patient", inputs={"parts": "seen"}, columns=["assay.library", "specimen.site"], role="specimen.site",
      outputs={"o": "o.txt"})
def gathered(call: Call) -> None:
    said = [(one.entity, one.role, list(one.columns), one["o"].read_text()) for one in call.many("parts")]
    call.out("o").write_text(f"{said} {[one.entity for one in call.members('parts', 'left')]}")


@step(level="cohort", inputs={"people": "gathered", "parts": "seen"}, columns=["patient.sex"], outputs={"o": "o.txt"})
def joined(call: Call) -> None:
    said = {name: [(one.entity, one["o"].read_text()) for one in call.many(name)] for name in call.inputs}
    call.out("o").write_text(f"{said} {list(call.columns)}")
"""


def test_the_order_of_registration_changes_no_key_and_no_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.helpers.kit.COLUMNS", (*COLUMNS, "index"))
    rows = [
        assay("P2", "S3", "A9", sex="M", site="left", library="a"),
        assay("P1", "S2", "A1", sex="F", site="left", library="b"),
        assay("P1", "S1", "A2", sex="F", site="right", library="c"),
        assay("P1", "S2", "A10", sex="F", site="left", library="a"),
    ]
    toml = TOML.replace('["reads"]', '["reads", "index"]')
    more = ['[references.extra]\npath = "genome.txt"\nversion = "2"\n', ""]
    found = []
    for number, listed in enumerate((rows, rows[::-1], [rows[1], rows[3], rows[0], rows[2]])):
        root = tmp_path / f"toy{number}"
        (root / "reads").mkdir(parents=True)
        for row in rows:
            row["index"] = f"reads/{row['assay_id']}.idx"
            (root / row["index"]).write_text(f"index of {row['assay_id']}")
        there = more[number % 2] + toml.replace("[cohorts.all]", f"{more[(number + 1) % 2]}\n[cohorts.all]")
        project = make_project(root, listed, steps=ORDER, toml=there)
        assert set(make_all(project).values()) == {"made"}
        with project.catalog.read() as connection:
            made = connection.execute(
                select(*(artifact.c[name] for name in ("asset", "partition", "key", "data_version")))
            )
            found.append({tuple(row) for row in made})
    assert len(found[0]) == 7 and found[0] == found[1] == found[2]
