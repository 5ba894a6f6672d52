"""What people of a core facility do in a week, through the command line: whole stories, each of several commands."""

import json
from pathlib import Path

import pytest

from ctcore.intake.raw_files import look
from ctcore.project import Project
from tests.helpers.kit import STEPS, TOML, again, assay, make_all, make_project
from tests.helpers.shell import Said, ct

CHAIN = """

@step(level="cohort", inputs={"table": "joined"}, outputs={"n": "n.txt"})
def filtered(call: Call) -> None:
    call.out("n").write_text(call.one("table")["table"].read_text().upper())


@step(level="cohort", inputs={"calls": "filtered"}, references=["panel"], outputs={"n": "n.txt"})
def annotated(call: Call) -> None:
    call.out("n").write_text(call.one("calls")["n"].read_text() + str(call.intervals("panel")))
"""
PANEL = """
[regions.panel]
reference = "genome"
intervals = ["17:7,661,779-7,687,538"]
"""
FOUR = [assay("P1", "S1", "A1", sex="F"), assay("P1", "S1", "A2", sex="F")]
FOUR += [assay("P2", "S2", "A3", sex="M"), assay("P2", "S2", "A4", sex="M")]


class Here:
    """A project of four assays with chains of cohort artifacts, all made; and `ct` in it."""

    def __init__(self, root: Path) -> None:
        self.root = make_project(root, FOUR, STEPS + CHAIN, TOML + PANEL).root
        self.make()

    def make(self) -> dict[str, str]:
        return make_all(again(Project(self.root)))

    def ct(self, *words: str) -> Said:
        return ct("-C", self.root, *words)

    def look(self) -> None:
        """As the sensors do, again and again."""
        look(again(Project(self.root)))

    def why(self, node: str) -> str:
        return self.ct("why", node).out

    def edit(self, old: str, new: str) -> None:
        path = self.root / "ct.toml"
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))


@pytest.fixture
def here(tmp_path: Path) -> Here:
    return Here(tmp_path / "toy")


def test_foreign_sheets_register_through_maps_and_repeat(tmp_path: Path) -> None:
    root = make_project(tmp_path / "toy").root
    (tmp_path / "x.txt").write_text("reads")
    body = "Sample,Individual,Run,Gender,File\n0012,0007,L001,F,{}\n".format(tmp_path / "x.txt")
    (tmp_path / "theirs.csv").write_bytes(b"\xef\xbb\xbf" + body.encode().replace(b"\n", b"\r\n"))
    pairs = {"Sample": "specimen_id", "Individual": "patient_id", "Run": "assay_id", "Gender": "sex", "File": "reads"}
    mapped = [word for theirs, ours in pairs.items() for word in ("--map", f"{theirs}={ours}")]
    first = ct("-C", root, "register", tmp_path / "theirs.csv", *mapped, "--json")
    assert first.code == 0, first.err
    shown = json.loads(ct("-C", root, "show", "specimen/0012", "--json").out)
    assert shown["parent"] == "patient/0007" or "0007" in json.dumps(shown)
    events = (root / "provenance.jsonl").read_text()
    assert ct("-C", root, "register", tmp_path / "theirs.csv", *mapped).code == 0
    assert (root / "provenance.jsonl").read_text() == events


def test_failing_then_clearing_an_assay_needs_no_run(here: Here) -> None:
    assert here.ct("status").code == 0
    assert here.ct("qc", "add", "assay/A2", "contamination", "--reason", "foreign DNA").code == 0
    said = here.why("merged/S1")
    assert "merged/S1 is stale" in said and "counted/A2" in said and "foreign DNA" in said
    assert "joined/all is stale" in here.why("joined")
    assert here.ct("qc", "resolve", "assay/A2", "--reason", "sequenced again, clean").code == 0
    assert here.ct("status").code == 0
    before = here.ct("path", "joined").out
    here.edit("[cohorts.all]", "[params.counted]\nfactor = 2\n\n[cohorts.all]")
    assert here.make()["joined/all"] == "made"
    assert Path(before.strip()).is_dir() and here.ct("path", "joined").out != before, "both makings are there"


def test_a_chain_names_its_root_and_circles_are_refused(here: Here) -> None:
    (here.root / "reads/A3.txt").write_text("other reads\n")
    here.look()
    assert here.ct("stale").code == 3
    for node in ("filtered", "annotated"):
        said = here.why(node)
        assert "reads" in said and "A3" in said, said
    steps = here.root / "steps/toy.py"
    good = steps.read_text()
    steps.write_text(good.replace('inputs={"specimens": "merged"}', 'inputs={"specimens": "merged", "x": "annotated"}'))
    circle = here.ct("status")
    assert circle.code in (1, 2)
    assert "annotated" in circle.err and "joined" in circle.err
    steps.write_text(good.replace('inputs={"calls": "filtered"}', 'inputs={"calls": "filterd"}'))
    dangling = here.ct("status")
    assert dangling.code in (1, 2) and "filterd" in dangling.err and "did you mean" in dangling.err


def test_a_panel_follows_its_genome_and_is_found_by_a_place(here: Here) -> None:
    said = here.ct("reference", "list", "--at", "17:7,680,000-7,680,001")
    assert "panel" in said.out
    assert "panel" not in here.ct("reference", "list", "--at", "17:100-200").out
    here.edit('version = "1"', 'version = "2"')
    here.look()
    assert "panel on genome version 1 → 2" in here.why("annotated")
    here.edit('version = "2"', 'version = "1"')
    here.look()
    assert here.ct("status").code == 0


def test_a_new_reference_reaches_its_users_and_can_go_back(here: Here) -> None:
    (here.root / "genome2.txt").write_text("ACGTT\n")
    bump = (
        "reference",
        "bump",
        "genome",
        str(here.root / "genome2.txt"),
        "--version",
        "2",
        "--reason",
        "new release",
        "--yes",
    )
    assert here.ct(*bump).code == 0
    assert "genome version 1 → 2" in here.why("counted/A1")
    assert here.ct("status").code == 3
    back = (
        "reference",
        "bump",
        "genome",
        str(here.root / "genome.txt"),
        "--version",
        "1",
        "--reason",
        "too early",
        "--yes",
    )
    assert here.ct(*back).code == 0
    assert here.ct("status").code == 0
    history = here.ct("reference", "list", "genome", "--history").out
    assert "new release" in history and "too early" in history
