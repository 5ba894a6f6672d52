"""Three causes of a cohort artifact that is made from another one: a member, a reference, an ancestor that is not
fresh. Each of the eight combinations is told exactly, and in the same words on every surface."""

import html
import json
import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import dagster as dg
import pytest

from ct_assets.definitions import build_assets, build_resources
from ctcore.governance.masking import UNMASKED
from ctcore.governance.qc import Choice, QcEntry, add, resolve
from ctcore.intake.raw_files import look
from ctcore.project import Project
from ctcore.staleness.verdicts import evaluate
from tests.helpers.kit import STEPS, TOML, again, make_all, make_project, reasons
from tests.helpers.shell import Said, ct

REFERENCES = """
[references.panel]
path = "genome.txt"
version = "1"

[references.known]
path = "genome.txt"
version = "1"
"""
STEP = '''

@step(
    level="cohort", inputs={"joint": "joined", "specimens": "merged"}, references=["known"], outputs={"n": "n.txt"}
)
def report(call: Call) -> None:
    """The joint table, and who is in it."""
    call.out("n").write_text(call.one("joint")["table"].read_text() + str(len(call.many("specimens"))))
'''
WORDS = {
    "member": "member-removed: merged/S2 as specimens",
    "reference": "reference: known version 1 → 2",
    "derived": "upstream: joint (joined/all) is stale (reference: panel version 1 → 2)",
}
ALL = [frozenset(name for name, has in zip(WORDS, some, strict=True) if has) for some in product((0, 1), repeat=3)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Made once: what each test changes, it takes back, and that is all it takes to be fresh again."""
    steps = STEPS.replace('inputs={"specimens": "merged"},', 'inputs={"specimens": "merged"}, references=["panel"],')
    project = make_project(tmp_path_factory.mktemp("causes") / "toy", steps=steps + STEP, toml=TOML + REFERENCES)
    make_all(project)
    assert reasons(project) == {}
    return project


@pytest.fixture
def caused(made: Project, request: pytest.FixtureRequest) -> Iterator[Project]:
    """The project with these causes, and afterwards without them."""
    events = _cause(made, request.param)
    yield again(made)
    if events:
        resolve(made, Choice(event=events[0]), "it was nothing")
    (made.root / "ct.toml").write_text(TOML + REFERENCES)
    look(again(made))
    assert reasons(again(made)) == {}, "what was true before is true again"


def _cause(project: Project, causes: frozenset[str]) -> list[int]:
    toml = REFERENCES
    for cause, key in (("reference", "known"), ("derived", "panel")):
        if cause in causes:
            table = f'[references.{key}]\npath = "genome.txt"\nversion = '
            toml = toml.replace(f'{table}"1"', f'{table}"2"')
    (project.root / "ct.toml").write_text(TOML + toml)
    look(again(project))
    if "member" not in causes:
        return []
    found = add(project, [QcEntry("specimen", "S2", "qc_fail", "too few cells for it", "report")])
    return [number for number, *_ in found.events]


@pytest.mark.parametrize("caused", ALL, indirect=True, ids=["+".join(sorted(causes)) or "none" for causes in ALL])
def test_exactly_the_true_causes_are_told_everywhere_alike(
    caused: Project, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    causes: frozenset[str] = request.node.callspec.params["caused"]
    expected = [words for cause, words in WORDS.items() if cause in causes]
    verdict = UNMASKED.verdict(evaluate(caused).of("report", "all"))
    assert sorted(map(str, verdict.reasons)) == sorted(expected)
    said = [str(reason) for reason in verdict.reasons]
    why = "; ".join(said)

    def asked(*arguments: str | Path) -> Said:
        return ct("-C", caused.root, *arguments)

    line = asked("why", "report").out.splitlines()[0]
    assert line == f"report/all is stale: {why}" if causes else line.startswith("report/all is fresh: ")
    told = json.loads(asked("why", "report", "--json").out)["reasons"]
    assert [f"{one['kind']}: {one['words']}" for one in told] == said
    change = "about to change" if causes == {"derived"} else "changed"
    rows = [row for row in asked("stale", "--why").out.splitlines() if row.startswith("report/all\t")]
    assert rows == ([f"report/all\tstale\t{change}\t{why}"] if causes else [])
    status = json.loads(asked("status", "--json").out)["cohort"]
    assert status["entities"]["all"]["report"] == ("stale" if causes else "fresh")
    assert status["causes"]["report"].get("all", []) == said
    plan = json.loads(asked("plan", "--json").out)["in_order"]
    planned = [group for one in plan if one["step"] == "report" for group in one["why"]]
    assert sorted(f"{one['kind']}: {one['words']}" for one in planned) == sorted(said)
    asked_sql = asked("query", "SELECT kinds, why, state FROM verdicts WHERE step = 'report'", "--json").out
    row = json.loads(asked_sql)
    row = (row["rows"] if isinstance(row, dict) else row)[0]
    assert row == {"kinds": " ".join(verdict.kinds), "why": why, "state": "stale" if causes else "fresh"}
    assert asked("dashboard", tmp_path / "page.html").code == 0
    assert sorted(_on_the_page((tmp_path / "page.html").read_text())) == sorted(said)
    assert _problems(caused) == ([f"- all ({change}): {why}"] if causes else [])


def _on_the_page(page: str) -> list[str]:
    """The reasons of `report`, row by row."""
    found = []
    for row in re.findall(r"<tr>.*?</tr>", page, re.DOTALL):
        cells = [
            html.unescape(re.sub(r"<[^>]*>", "", cell)).strip()
            for cell in re.findall(r"<t[hd].*?</t[hd]>", row, re.DOTALL)
        ]
        if cells[0] == "report" and len(cells) == 4 and cells[2] in ("member-removed", "reference", "upstream"):
            found.append(f"{cells[2]}: {cells[3]}")
    return found


def _problems(project: Project) -> list[str]:
    """What Dagster's asset check `fresh` says."""
    defs = dg.Definitions(assets=build_assets(project), resources=build_resources(project))
    wanted = dg.AssetSelection.checks(dg.AssetCheckKey(dg.AssetKey("report"), "fresh"))
    whole = dg.Definitions(
        assets=defs.assets, resources=defs.resources, jobs=[dg.define_asset_job("look", selection=wanted)]
    )
    with dg.instance_for_test() as instance:
        ran = whole.resolve_job_def("look").execute_in_process(instance=instance)
    metadata = ran.get_asset_check_evaluations()[0].metadata
    return str(metadata["problems"].value).splitlines() if "problems" in metadata else []
