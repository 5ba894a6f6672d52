"""Whoever has revoked consent is named by no option of any command either. The options are taken from `ct` itself."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import matplotlib.text
import pytest
from PIL import Image

from ctcore.catalog.tables import slurm_batch, slurm_job
from ctcore.cli import cli
from ctcore.governance.consent import Statement, set_consent
from ctcore.intake.register import register
from ctcore.intake.sheet_diff import AllowedChanges
from ctcore.project import Project
from ctcore.projects.listing import add
from ctcore.util.clock import now
from tests.governance import test_gate_everywhere as walk
from tests.helpers.kit import ROWS, make_all, make_project, write_sheet
from tests.helpers.shell import ct, on_a_terminal

FAR = (1, 2, 5)

# What else each command is called with, beside the calls of `test_gate_everywhere`: options that are not in those.
MORE: dict[str, list[list[str]]] = {
    "schema apply": [["--json"], ["--fill"], ["--convert", "patient.age"], ["--drop", "specimen.site", "--json"]],
    "stale": [["--pairing", "both", "--complete-only"], ["--pairing", "both", "--why", "--json"]],
    "plan": [["-s", "joined+", "--json"], ["--pairing", "both", "--complete-only"], ["--pairing", "both", "--json"]],
    "trace": [[f"after{n}/all{at}", "--json"] for n in FAR for at in ("", "@current", "@previous")],
    "show": [[f"after{n}/all@previous"] for n in FAR],
    "diff": [[f"after{n}/all", *more] for n in FAR for more in ([], ["@current"], ["--json", "--all"])],
    "path": [[f"after{n}/all", "--json"] for n in FAR],
    "logs": [[f"after{n}/all{at}"] for n in FAR for at in ("", "@current", "@previous")],
    "cohort": [["--pairing", "both", "--complete-only", "--json"], ["all", "--complete-only"], ["nobody"]],
    "batches": [["nobody", "--by", "assay.library"], ["--by", "specimen.site"], ["L3", "--by", "assay.library"]],
    "query": [["SELECT * FROM verdicts", "--seconds", "30"], ["SELECT * FROM results", "--seconds", "0"]],
    "run": [["-s", "joined", "--cohort", "all", "--complete-only", "--no-cache", "--fail", "fast"]],
    "reference add": [["new", "sheet.csv", "--version", "1", "--kind", "other", "--dry-run"]],
    "reference bump": [["genome", "sheet.csv", "--version", "2", "--reason", "new", "--yes", "--json"]],
    "reference list": [["genome", "--at", "chr1:1-9"]],
}
# The same of commands about people: these name them, and show nothing else of them.
OF_PEOPLE: dict[str, list[list[str]]] = {
    "register": [
        ["assay", "A9", "--parent", "SGONE", "--set", "library=L9", "--set", "reads=reads/A4.txt", "--json"],
        ["theirs.csv", "--map", "who=patient_id", "--ignore", "colour", "--dry-run"],
        ["theirs.csv", "--map", "who=patient_id", "--map", "colour=age", "--blank", "NA", "--tab", "first"],
        ["theirs.csv", "--map", "who=patient_id", "--map", "colour=sex", "--value", "sex:red=F", "--dry-run"],
        ["theirs.csv", "--map", "who=patient_id", "--ignore", "colour", "--checksums", "lists.md5", "--dry-run"],
        ["theirs.csv", "--map", "who=patient_id", "--ignore", "colour", "--split", ";", "--dry-run"],
        [
            "theirs.csv",
            "--map",
            "who=patient_id",
            "--make",
            "specimen_id={patient_id}_T",
            "--ignore",
            "colour",
            "--dry-run",
        ],
        ["moved.csv", "--reparent", "SGONE", "--yes", "--dry-run"],
        ["moved.csv"],
    ],
    "record": [
        ["path", "grades.csv", "--run", "r1", "--reason", "read again", "--json"],
        ["path", "grades.csv", "--map", "result=grade", "--ignore", "comment", "--blank", "NA", "--tab", "first"],
        ["path", "AGONE1", "grade=G3", "--reason", "read again", "--json"],
    ],
    "adopt": [
        ["outside/all", "--output", "table=genome.txt", "--made-by", "us", "--input", "merged/SGONE@1", "--dry-run"],
        ["outside/all", "--output", "table=genome.txt", "--made-by", "us", "--reason", "late", "--param", "depth=4"],
        [
            "outside/all",
            "--output",
            "table=genome.txt",
            "--made-by",
            "us",
            "--reference",
            "genome=1",
            "--folder",
            "reads",
        ],
        ["outside/all", "--output", "table=genome.txt", "--made-by", "us", "--checksum", "table=0"],
        ["outside", "--sheet", "grades.csv", "--made-by", "us"],
    ],
    "qc add": [
        ["--where", "patient.sex=F", "qc_warn", "--reason", "late", "--analysis", "joined", "--source", "x", "--json"],
        ["--where", "assay.library=nobody", "qc_warn", "--reason", "late"],
        ["--from", "qc.csv", "--json"],
    ],
    "qc resolve": [
        ["--where", "patient.sex=F", "--reason", "late", "--analysis", "joined"],
        ["--event", "1", "--reason", "late", "--json"],
        ["--act", "7", "--reason", "late"],
        ["specimen/SGONE", "superseded", "--reason", "late"],
    ],
    "consent set": [
        ["--sheet", "consents.csv"],
        ["P2", "limited", "--use", "x", "--date", "2024-02-03", "--until", "2030-01-01", "--form", "4"],
        ["PGONE", "full", "--reason", "again"],
    ],
    "consent restore": [
        ["PGONE", "--authority", "a", "--reference", "7", "--date", "2024-02-03", "--confirmed-by", "Ada"],
    ],
    "impact": [["PGONE", "--json"], ["joined/all", "--json", "--list"]],
    "purge": [["PGONE", "--reason", "asked", "--confirm", "PGONE", "--raw"], ["--check", "1", "--quick", "--json"]],
}
# Options that these tables need not have, each for a reason.
APART = {
    "--project": "test_a_project_named_by_id_is_behind_the_same_gate",
    "--excluded": "ASKED of test_gate_everywhere: who is asked for by name is shown, for a reason, on record",
    "--reason": "ASKED as well, where it goes with --excluded",
    "why --values": "test_values_that_differ_are_shown_of_nobody_without_consent",
    "run --profile": "the same run on another machine; its own output is that of `ct run`",
    "run --pairing": "what is chosen by it is told by `ct plan --pairing`, in the same words",
    "run --replace": "what is made by it is told by `ct run --again`, in the same words",
}


def _commands() -> Iterator[tuple[str, click.Command]]:
    for name in walk._leaves(cli):
        found: click.Command = cli
        for word in name.split():
            assert isinstance(found, click.Group)
            found = found.get_command(click.Context(found), word) or found
        yield name, found


def _options(command: click.Command) -> Iterator[click.Option]:
    yield from (one for one in command.params if isinstance(one, click.Option))


def test_each_option_of_each_command_is_in_the_walk() -> None:
    lacking, idle = set(), set(APART)
    asked = {call[0] for call in walk.ASKED}
    for name, command in _commands():
        tables = (walk.SHOWN, walk.GOVERNANCE, MORE, OF_PEOPLE)
        words = {word for table in tables for call in table.get(name, ()) for word in call}
        for one in _options(command) if name not in walk.OTHERS else ():
            names = {*one.opts, *one.secondary_opts}
            apart = {*names, *(f"{name} {said}" for said in names)} & APART.keys()
            idle -= apart
            if not names & words and (not apart or (apart <= {"--excluded", "--reason"} and name not in asked)):
                lacking.add(f"{name} {one.opts[-1]}")
    assert lacking == set() and idle == set()


def _prepared(root: Path) -> None:
    """Files that calls read, and jobs of theirs on a cluster."""
    (root / "theirs.csv").write_text("who,colour,specimen_id,assay_id\nPGONE,red,SGONE,AGONE1\n")
    (root / "moved.csv").write_text("patient_id,specimen_id,assay_id\nP2,SGONE,AGONE1\nP2,SGONE,AGONE2\n")
    (root / "grades.csv").write_text("assay_id,grade\nAGONE1,G7\nA3,G1\n")
    (root / "qc.csv").write_text("level,id,kind,reason\nassay,AGONE1,qc_warn,late\n")
    (root / "consents.csv").write_text("patient,status\nPGONE,full\nP3,full\n")
    with Project(root).catalog.write() as writer:
        asked = {"profile": "p", "run_id": "r", "cpus": 1, "memory_mb": 1, "minutes": 1, "job": "7"}
        writer.insert(slurm_batch, [{"id": "b", "asset": "counted", "intended_at": now(), **asked}])
        jobs = (("AGONE1", "killed AGONE1", now()), ("AGONE2", "", None), ("A3", "it waited for AGONE1", now()))
        for at, (who, why, ended) in enumerate(jobs):
            row = {"batch": "b", "key": str(at), "idx": at, "partition": who, "call": "c", "tries": 1, "requeues": 0}
            row |= {"state": "FAILED", "log": f"work/logs/counted/{who}/1.log", "why": why, "ended_at": ended}
            writer.insert(slurm_job, [row])


@pytest.fixture(scope="module", params=["revoked", "made without them"])
def before(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = walk._revoked(tmp_path_factory.mktemp("options") / "toy")
    if request.param == "made without them":
        make_all(project)
    return project.root


@pytest.fixture
def root(before: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it that may be changed."""
    copied = tmp_path / "toy"
    shutil.copytree(before, copied, symlinks=True)
    monkeypatch.chdir(copied)
    return copied


def test_no_option_of_a_command_that_reads_names_them(root: Path) -> None:
    calls = [(name, call) for name, some in MORE.items() for call in some if name not in walk.CHANGING]
    found = {f"{name} {' '.join(call)}": walk._told(name, call, root) for name, call in calls}
    assert {call: told for call, told in found.items() if told} == {}


# Where what was made with them says no more than what is known of them, one of the two is enough.
revoked = pytest.mark.parametrize("before", ["revoked"], indirect=True)
CHANGES = [(name, call) for name in MORE for call in MORE[name] if name in walk.CHANGING and name != "schema apply"]


@revoked
@pytest.mark.parametrize(("command", "call"), CHANGES, ids=[name for name, _ in CHANGES])
def test_nor_does_one_of_a_command_that_writes(root: Path, command: str, call: list[str]) -> None:
    assert walk._told(command, call, root) == []


SCHEMAS = {
    "another type": ("site = {}", 'site = "integer"'),
    "other values": ('age = "integer"', 'age = { enum = ["50", "60"] }'),
    "a smaller set": ('enum = ["F", "M"]', 'enum = ["M"]'),
    "unique": ("library = {}", "library = { unique = true }"),
    "a column less": ("site = {}\n", "other = {}\n"),
    "a column that everybody has": ("library = {}", 'library = {}\nlane = { required = true, default = "1" }'),
}


@revoked
@pytest.mark.parametrize("declared", SCHEMAS)
def test_a_contradicting_schema_shows_nothing_of_them(root: Path, declared: str) -> None:
    place = root / "ct.toml"
    place.write_text(place.read_text().replace(*SCHEMAS[declared]))
    assert SCHEMAS[declared][1] in place.read_text()
    names = ("schema show", "schema diff", "schema check", "schema apply", "status")
    calls = [(name, call) for name in names for call in (*walk.SHOWN[name], *MORE.get(name, ()))]
    calls += [("schema apply", ["--convert", "specimen.site"]), ("schema apply", ["--fill", "--drop", "specimen.site"])]
    found = {f"{name} {' '.join(call)}": walk._told(name, call, root) for name, call in calls}
    assert {call: told for call, told in found.items() if told} == {}


@revoked
def test_jobs_of_theirs_are_somebodys(root: Path) -> None:
    _prepared(root)
    for call in ([], ["--all"], ["--all", "--json"]):
        assert walk._told("jobs", call, root) == []
    assert ct("-C", root, "jobs", "--all").out.count("somebody who may not be used") >= 3


@revoked
def test_options_show_nothing_of_excluded_people(root: Path) -> None:
    _prepared(root)
    found = {}
    for name, calls in OF_PEOPLE.items():
        for call in calls:
            found[f"{name} {' '.join(call)}"] = walk.KNOWN.findall(walk._out(name, call, root))
    assert {call: told for call, told in found.items() if told} == {}


@revoked
def test_a_project_named_by_id_is_behind_the_same_gate(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CT_PROJECTS", str(tmp_path / "projects.json"))
    add(Project(root))
    monkeypatch.chdir(tmp_path)
    found = {}
    for name, calls in walk.SHOWN.items():
        if name in ("run", "reference add", "reference index", "verify"):
            continue
        call = [str(root / word) if (root / word).exists() else word for word in calls[0]]
        said = ct(*name.split(), *call, "--project", "toy")
        found[name] = [*walk.IDS.findall(said.out + said.err), *walk.KNOWN.findall(said.out + said.err)]
    assert {call: told for call, told in found.items() if told} == {}


def test_values_that_differ_are_shown_of_nobody_without_consent(tmp_path: Path) -> None:
    project = make_project(tmp_path / "toy")
    make_all(project)
    others = [{**row, "sex": "M"} if row["patient_id"] == "P1" else row for row in ROWS]
    register(project, write_sheet(project.root, others), AllowedChanges(update=frozenset({"patient.sex"})))
    call = ("-C", str(project.root), "why", "merged/S1", "--values")
    assert '"F" → "M"' in on_a_terminal(*call)[1]
    set_consent(project, ["P1"], Statement("revoked", dated="2024-01-20", form="form 4"))
    assert "→" not in on_a_terminal(*call)[1]


@revoked
def test_no_way_out_names_what_is_masked(root: Path) -> None:
    (root / "one.txt").write_bytes((root / "reads/AGONE1.txt").read_bytes())
    for call in (["diff", "one.txt"], ["diff", "copy-of-raw.txt"], ["diff", "copy-of-raw.txt", "merged/S2"]):
        said = ct("-C", root, *call)
        assert said.code == 2 and "`ct" not in said.err and "…" not in said.err, said.err


@revoked
def test_pictures_show_nobody_even_outside_the_frame(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every text that is drawn, and what a file says of itself."""
    drawn: list[str] = []
    draw = matplotlib.text.Text.set_text

    def kept(self: matplotlib.text.Text, said: Any) -> None:
        drawn.append(str(said))
        draw(self, said)

    monkeypatch.setattr(matplotlib.text.Text, "set_text", kept)
    for name in ("map.png", "map.svg", "map.pdf"):
        assert ct("-C", root, "heatmap", root / name).code == 0
    assert "A3" in drawn and not walk.IDS.findall("\n".join(drawn))
    with Image.open(root / "map.png") as picture:
        assert picture.info and not walk.IDS.findall(str(picture.info))
    for name in ("map.png", "map.svg", "map.pdf"):
        assert not walk.IDS.findall((root / name).read_text(errors="replace"))
    drawn.clear()
    assert ct("-C", root, "heatmap", root / "all.png", "--excluded", "--reason", "audit").code == 0
    assert walk.IDS.findall("\n".join(drawn)), "or else nobody is looked for where they would be"
