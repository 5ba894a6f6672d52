"""Whoever has revoked consent is in no output of any command: not their results, not what is known of them, and outside
the commands that are about consent not even their IDs. The commands are taken from `ct` itself."""

import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import click
import openpyxl
import pyarrow.parquet
import pytest
from sqlalchemy import select

from ctcore.catalog.tables import event
from ctcore.cli import cli
from ctcore.cohorts.lookup import find_node
from ctcore.governance.consent import Statement, set_consent
from ctcore.governance.qc import QcEntry
from ctcore.governance.qc import add as add_qc
from ctcore.intake.raw_files import look
from ctcore.intake.results import ResultEntry, analysis_of, record
from ctcore.lineage.explain import artifact_path
from ctcore.project import Project
from ctcore.staleness.accept import accept, propose
from tests.helpers.kit import STEPS, TOML, Inline, again, assay, make, make_all, make_project
from tests.helpers.shell import contents, ct, quiet_dagster, shell

ROWS = (
    assay("PGONE", "SGONE", "AGONE1", sex="F", age="9731", site="hidden-site", library="hidden-library"),
    assay("PGONE", "SGONE", "AGONE2", sex="F", age="9731", site="hidden-site", library="other-library"),
    assay("P2", "S2", "A3", sex="M", age="50", site="blood", library="L3"),
    assay("P3", "S3", "A4", sex="F", age="60", site="blood", library="L4"),
)
IDS = re.compile("[PSA]GONE")
# Attributes, results and the content of files of theirs.
KNOWN = re.compile(r"(?<!\w)(9731|hidden-site|hidden-library|hidden-grade|48271)(?!\w)")
FORM = "withdrawal form 12"
CHANGING = ("schema apply", "accept", "reference add", "reference index", "run")
DEEP = 5
# What is made of the join, and of that, and so on: each has in it what the first one has, and prints it.
CHAIN = "".join(
    f'''

@step(level="cohort", inputs={{"before": "{up}"}}, outputs={{"table": "table.tsv"}})
def after{at}(call: Call) -> None:
    """What came before."""
    table = call.one("before")["table"].read_text()
    print(table)
    call.out("table").write_text(table)
'''
    for at, up in enumerate(("joined", *(f"after{at}" for at in range(1, DEEP))), 1)
)
FAILING = '''

@step(level="cohort", inputs={"before": "joined", "specimens": "merged"}, outputs={"table": "table.tsv"})
def failing(call: Call) -> None:
    """Says whom it has inside, and ends."""
    table = call.one("before")["table"].read_text()
    print(table)
    raise ValueError(f"no luck with {table}")
'''
OUTSIDE = """\
made_elsewhere = true
level = "cohort"
inputs = { specimens = "merged" }
references = ["genome"]
outputs = { table = "table.tsv" }
params = { depth = 3 }
"""
ANALYSES = '\n[analyses.path]\nlevel = "assay"\n[analyses.path.columns]\ngrade = {}\n'
PAIRING = '\n[pairings.both]\nby = "specimen.site"\n'

SQL = {
    "patients": "SELECT * FROM patients",
    "artifacts": "SELECT * FROM artifacts",
    "history": "SELECT * FROM results_history",
    "members": "SELECT * FROM members",
    "verdicts": "SELECT * FROM verdicts",
    "files": "SELECT * FROM files",
    "below": "SELECT * FROM specimens JOIN assays USING (specimen_id)",
    "again": "SELECT * FROM reproductions",
    "wide": "SELECT * FROM wide_counted",
}
# Copies of files of theirs and of others, brought from elsewhere: what is in them is known, and not whose it is.
COPIES = ("copy-of-raw.txt", "copy-of-count.txt", "copy-of-join.tsv")

# What each command is called with here. Names of nodes that are given are those of others, or of what they are inside.
SHOWN: dict[str, list[list[str]]] = {
    "schema show": [["--json"]],
    "schema diff": [[], ["--json"]],
    "schema check": [[], ["--json"]],
    "schema apply": [["--dry-run"], []],
    "schema editor": [[]],
    "status": [
        *([], ["--all"], ["--json"], ["--cohort", "all", "--json"], ["--pairing", "both", "--complete-only"]),
        *([one, "--missing", *more] for one in ("counted", "merged", "joined", "failing") for more in ([], ["--json"])),
    ],
    "stale": [[], ["--why"], ["--why", "--json"], ["--why", "--select", "joined+", "--cohort", "all"]],
    "plan": [[], ["--json"], ["--save", "plan.json"], ["after2", "--profile", "local"], ["--cohort", "all", "--json"]],
    "show": [
        *([f"{one}/all", *more] for one in ("joined", "after1", "after5") for more in ([], ["--json"], ["--code"])),
        *(["counted/AGONE1"], ["patient/PGONE", "--json"], ["specimen/S2"], ["merged/S2", "--json"]),
        *(["failing/all"], ["failing/all", "--json"]),
    ],
    "path": [["joined/all"], ["merged/S2"], ["counted/AGONE1"], ["after2/all", "--json"], ["after5/all", "table"]],
    "accept": [
        *(["--list"], ["--list", "--json"], ["joined/all", "--reason", "small", "--dry-run", "--json"]),
        *(["joined/all", "--undo", "--reason", "no", "--dry-run"], ["after5/all", "--reason", "small"]),
        ["--select", "joined+", "--only", "code,member-removed", "--reason", "small"],
    ],
    "trace": [
        [one, *more]
        for one in ("joined/all", "merged/S2", "SGONE", "after2/all", "joined/all@1", "joined/all@current", *COPIES)
        for more in ([], ["--json"], ["--dot"], ["--mermaid", "--all"], ["--code"])
    ],
    "diff": [
        *(["joined/all"], ["joined/all", "--json"], ["merged/SGONE", "merged/S2"], ["after5/all", "--all"]),
        *([one, "merged/S2"] for one in COPIES),
    ],
    "cohort": [
        *([], ["all", "--json"], ["all", "--history"], ["--pairing", "both"], ["--pairing", "both", "--json"]),
        *(["--pairing", "both", "--for", "joined", f"--{one}-only"] for one in ("incomplete", "broken", "singleton")),
    ],
    "query": [[sql, *more] for sql in SQL.values() for more in ([], ["--json"])] + [["--tables"]],
    "export": [
        *(["out.json"], ["out"], ["wide.csv", "--wide", "assay"], ["-", "--table", "results", "--format", "csv"]),
        *(["all.xlsx"], ["out.parquet", "--table", "verdicts"], ["w.tsv", "--wide", "specimen", "--columns", "*.*"]),
        ["q.csv", "--exact", "--query", SQL["verdicts"]],
    ],
    "dashboard": [["page.html"], ["page.html", "--rows", "2"]],
    "heatmap": [["picture.svg"]],
    "verify": [[], ["--quick", "--json"], ["--again"]],
    "run": [[], ["--plan", "old.json"], ["--plan", "old.json", "--partial"], ["--again", "joined/all"], ["after2"]],
    "jobs": [[], ["--all", "--json"]],
    "logs": [
        ["joined/all"],
        ["counted/AGONE1"],
        ["after5/all"],
        ["joined/all@1"],
        ["joined/all", "--path"],
        ["failing/all"],
    ],
    "reference list": [[], ["--json"], ["--history"]],
    "reference index": [["genome"]],
    "reference add": [["other", "sheet.csv", "--version", "1"]],
    "reference bump": [["genome", "sheet.csv", "--version", "hg39", "--reason", "new", "--dry-run", "--json"]],
    "steps check": [[], ["--json"], ["joined"]],
    "batches": [[*more, "--by", "assay.library"] for more in ([], ["--json"], ["--merges"], ["--mermaid"])],
}
# What is nearly an ID of theirs: no hint, and no error, says what was probably meant.
MISTYPED = [
    *(["show", "counted/AGON"], ["path", "merged/SGON"], ["show", "patient/PGON"], ["trace", "AGON"], ["why", "AGON"]),
    *(["trace", "counted/AGON"], ["diff", "merged/SGON"], ["logs", "counted/AGON"], ["run", "counted/AGON"]),
    *(["plan", "merged/SGON"], ["accept", "merged/SGON", "--reason", "x"], ["qc", "add", "patient/PGON", "qc_warn"]),
    *(["consent", "set", "PGON", "full"], ["purge", "PGON"], ["impact", "AGON"], ["why", "x/y"]),
    *(["record", "path", "AGON", "grade=G"], ["trace", "counted@1"], ["diff", "counted"]),
    *(["register", "assay", "A9", "--parent", "SGON"], ["status", "--cohort", "al"], ["show", "counted"]),
    *(["query", "SELECT PGON FROM patients"], ["trace", "sheet.txt"], ["stale", "--select", "counted/AGON"]),
    *(["qc", "add", "patient/PGON", "qc_warn", "--reason", "x"], ["export", "x.csv", "--table", "patint"]),
]
# These are about who may be used, or about what they were given: they name people, and show nothing else of them.
GOVERNANCE = {
    "register": [["new.csv"], ["new.csv", "--dry-run", "--json", "--update", "patient.age"]],  # quotes the sheet
    "record": [["path", "AGONE1", "grade=G2"]],
    "adopt": [
        ["outside/all", "--output", "table=genome.txt", "--made-by", "us", "--tool", "joint=1", "--json"],
        ["outside/all", "--output", "table=genome.txt", "--made-by", "us", "--member", "SGONE", "--member", "S2=x"],
    ],
    "why": [["joined/all"], ["joined/all", "--json"], ["counted/AGONE1", "--json"], ["patient/PGONE"]],
    "qc add": [["patient/P2", "qc_warn", "--reason", "late"]],
    "qc resolve": [["assay/AGONE1", "--reason", "late"]],
    "qc list": [[], ["--json"]],
    "qc history": [[], ["--json"], ["assay/AGONE1"]],
    "consent set": [["P2", "full"]],
    "consent restore": [["PGONE", "--authority", "a", "--reference", "7", "--date", "2024-02-03"]],
    "consent list": [[], ["--json"]],
    "consent history": [[], ["PGONE", "--json"]],
    "impact": [["PGONE"], ["--list", "PGONE"]],
    "purge": [["PGONE"], ["PGONE", "--json"], ["PGONE", "--raw", "--json"], ["--list"]],
}
# These show nobody of a cohort: at most how many there are.
OTHERS = {
    "init",
    "dev",
    "recover",
    *(f"projects {one}" for one in ("list", "add", "remove", "workspace", "set", "open")),
}


def _leaves(group: click.Group, before: str = "") -> Iterator[str]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from _leaves(command, f"{before}{name} ")
        else:
            yield f"{before}{name}"


def test_each_command_is_looked_at() -> None:
    assert sorted(_leaves(cli)) == sorted({*SHOWN, *GOVERNANCE, *OTHERS})  # type: ignore[arg-type]


def _revoked(root: Path) -> Project:
    project = make_project(root, ROWS, toml=TOML + PAIRING + ANALYSES, steps=STEPS + CHAIN + FAILING)
    (root / "steps" / "outside.toml").write_text(OUTSIDE)
    project = again(project)
    quiet_dagster(root)
    (root / "reads/AGONE1.txt").write_text("x" * 48271 + "\n")
    look(project)
    make(project, "counted", runner=Inline(project))
    (root / "reads/AGONE2.txt").write_text("otherwise\n")
    look(project)
    make_all(project)
    add_qc(project, [QcEntry("specimen", "SGONE", "superseded", "taken again", step="joined")])
    accept(project, propose(project, {"joined": {"all"}}), "the same tissue")
    record(project, analysis_of(project, "path"), [ResultEntry("AGONE1", {"grade": "hidden-grade"})])
    (root / "genome.txt").write_text("ACGTT\n")
    assert ct("-C", root, "plan", "--save", root / "old.json").code == 3
    (root / "genome.txt").write_text("ACGT\n")
    look(project)
    for name, node, file in (("copy-of-count.txt", "counted/AGONE2", "n"), ("copy-of-join.tsv", "joined/all", "table")):
        shutil.copy(artifact_path(project, find_node(project, node), file).path, root / name)
    shutil.copy(root / "reads/AGONE2.txt", root / "copy-of-raw.txt")
    set_consent(project, ["PGONE"], Statement("revoked", dated="2024-01-20", form=FORM))
    return again(project)


@pytest.fixture(scope="module", params=["revoked", "made without them"])
def before(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which somebody has revoked: as it is then, with files of theirs gone; and after it was made anew."""
    project = _revoked(tmp_path_factory.mktemp("gate") / "toy")
    sheet = (project.root / "sheet.csv").read_text()
    (project.root / "new.csv").write_text(sheet.replace("9731", "30"))
    if request.param == "revoked":
        (project.root / "reads/AGONE2.txt").unlink()
    else:
        make_all(project)
    return project.root


@pytest.fixture
def root(before: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it that may be changed."""
    copied = tmp_path / "toy"
    shutil.copytree(before, copied, symlinks=True)
    monkeypatch.chdir(copied)
    return copied


def _out(command: str, arguments: list[str], root: Path) -> str:
    """Everything that it says and writes."""
    there = {path: path.stat().st_mtime_ns for path in _readable(root)}
    url = {name: os.environ[name] for name in ("CT_POSTGRES_URL",) if name in os.environ}
    words = ("-C", root, *command.split(), *arguments)
    said = shell(*words, env=url) if command == "run" else ct(*words)
    files = [readable(path) for path in _readable(root) if there.get(path) != path.stat().st_mtime_ns]
    return "\n".join([said.out, said.err, *files])


def readable(path: Path) -> str:
    """What a file tells whoever opens it with what it is for."""
    if path.suffix == ".parquet":
        return str(pyarrow.parquet.read_table(path).to_pylist())
    if path.suffix == ".xlsx":
        sheets = openpyxl.load_workbook(path).worksheets
        return str([[sheet.title, *sheet.iter_rows(values_only=True)] for sheet in sheets])
    return path.read_text(errors="replace")


def _readable(root: Path) -> list[Path]:
    """What commands write for people: not the catalog, the journal, the store and what is scratch."""
    kept = (
        "catalog",
        "provenance",
        "store",
        "work",
        "reads",
        "dagster_home",
        "steps",
        "sheet.csv",
        "ct.toml",
        "genome",
        "old.json",
        "copy-of",
    )
    listed = [path for path in root.iterdir() if not path.name.startswith((*kept, "."))]
    return [file for path in listed for file in (path.rglob("*") if path.is_dir() else [path]) if file.is_file()]


CASES = [(name, call) for name, calls in SHOWN.items() for call in calls]


@pytest.mark.parametrize(("command", "call"), CASES, ids=[" ".join((name, *call))[:60] for name, call in CASES])
def test_whoever_revoked_is_in_no_output(root: Path, command: str, call: list[str]) -> None:
    assert _told(command, call, root) == []


@pytest.mark.parametrize("remade", [False, True], ids=["revoked", "made without them"])
def test_nor_on_postgresql(remade: bool, postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same calls, one after the other: those that change something last."""
    monkeypatch.setenv("CT_POSTGRES_URL", postgres_url)
    project = _revoked(tmp_path / "toy")
    if remade:
        make_all(project)
    monkeypatch.chdir(project.root)
    reading = [one for one in CASES if one[0] not in CHANGING] + [(one[0], one[1:]) for one in MISTYPED]
    changing = [one for one in CASES if one[0] in CHANGING and (one[0] != "run" or not one[1])]
    found = {f"{name} {' '.join(call)}": _told(name, call, project.root) for name, call in (*reading, *changing)}
    assert {call: told for call, told in found.items() if told} == {}


def _told(command: str, call: list[str], root: Path) -> list[str]:
    """What a call tells that it must not."""
    named = [one for one in call if IDS.search(one)]
    text = _out(command, call, root)
    for one in named:  # what was typed may be said again, with the reason why it is not shown
        assert "is excluded" in text and "consent revoked" in text
        text = text.replace(one, "")
    text = text.replace("patient PGONE: consent revoked on 2024-01-20", "") if named else text.replace(FORM, "AGONE")
    return [*IDS.findall(text), *KNOWN.findall(text), *re.findall("Traceback", text)]


@pytest.mark.parametrize("call", MISTYPED, ids=" ".join)
def test_no_hint_says_who_was_probably_meant(root: Path, call: list[str]) -> None:
    assert _told(call[0], call[1:], root) == []


GOVERNED = [(name, call) for name, calls in GOVERNANCE.items() for call in calls]


@pytest.mark.parametrize(("command", "call"), GOVERNED, ids=[" ".join((name, *call))[:60] for name, call in GOVERNED])
def test_governance_commands_show_nothing_else_of_them(root: Path, command: str, call: list[str]) -> None:
    assert not KNOWN.findall(_out(command, call, root))


def test_others_are_shown_as_before(root: Path) -> None:
    assert (
        "A3" in ct("-C", root, "status").out
        and "not shown, because without consent: 1 patient" in ct("-C", root, "status").err
    )
    assert "P2" in ct("-C", root, "query", "SELECT patient_id FROM patients").out
    assert ct("-C", root, "path", "merged/S2").code == 0


ASKED = (
    ["status", "--json"],
    ["status", "merged", "--missing"],
    ["show", "counted/AGONE1"],
    ["path", "counted/AGONE1"],
    ["logs", "counted/AGONE1"],
    ["trace", "SGONE"],
    ["diff", "counted/AGONE1", "counted/AGONE2"],
    ["cohort", "--pairing", "both"],
    ["query", "SELECT patient_id FROM patients"],
    ["export", "-", "--table", "patients"],
    ["impact", "--list", "PGONE"],
    ["batches", "--by", "assay.library", "--merges"],
    ["dashboard", "page.html"],
    ["heatmap", "picture.svg"],
)


@pytest.mark.parametrize("call", ASKED, ids=[" ".join(call[:3]) for call in ASKED])
def test_naming_a_person_for_a_reason_shows_them_on_record(root: Path, call: list[str]) -> None:
    (root / "work/logs/counted/AGONE1").mkdir(parents=True, exist_ok=True)
    (root / "work/logs/counted/AGONE1/1.log").write_text("AGONE1 was counted\n")
    before = len(_disclosed(root))
    refused = ct("-C", root, *call, "--excluded")
    assert refused.code == 2 and "--reason TEXT" in refused.err and len(_disclosed(root)) == before
    said = ct("-C", root, *call, "--excluded", "--reason", "audit 7")
    written = "".join((root / name).read_text() for name in call if name in ("page.html", "picture.svg"))
    assert said.code in (0, 3) and IDS.search(said.out + written)
    assert len(_disclosed(root)) == before + 1 and _disclosed(root)[-1]["reason"] == "audit 7"


def test_looking_without_being_asked_records_nothing(root: Path) -> None:
    time.sleep(0.03)
    ct("-C", root, "status")  # what is otherwise on disk is on record by now
    before = contents(root)
    for call in (["status"], ["query", "SELECT 1"], ["trace", "merged/S2"], ["path", "counted/AGONE1"]):
        ct("-C", root, *call)
    assert contents(root) == before
    assert ct("-C", root, "query", "SELECT 1", "--reason", "audit").code == 2


def _disclosed(root: Path) -> list[dict[str, str]]:
    with Project(root).catalog.read() as connection:
        rows = connection.execute(select(event.c.body).where(event.c.kind == "disclose").order_by(event.c.seq))
        return [json.loads(row.body) for row in rows]


def test_a_step_of_one_node_is_not_short_for_somebody_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = make_project(tmp_path / "toy", ROWS[:1])
    make_all(project)
    set_consent(project, ["PGONE"], Statement("revoked", dated="2024-01-20", form=FORM))
    quiet_dagster(project.root)
    monkeypatch.chdir(project.root)
    calls = [
        [command, "counted"] for command in ("show", "path", "logs", "trace", "why", "run", "plan", "stale --select")
    ]
    calls += [["diff", "counted"], ["diff", "counted@1"], ["trace", "counted@7"], ["diff", "counted", "@previous"]]
    calls += [["accept", "counted", "--reason", "x"], ["logs", "counted@1"], ["diff", "counted", "counted@7"]]
    found = {" ".join(call): _told(call[0], call[1:], project.root) for call in calls}
    assert {call: told for call, told in found.items() if told} == {}


@pytest.mark.parametrize("call", [("verify",), ("verify", "--json"), ("recover", "--dry-run"), ("recover",)])
def test_nor_where_a_row_of_theirs_was_edited_by_hand(root: Path, call: tuple[str, ...]) -> None:
    project = Project.find(root)
    with project.catalog.engine.connect() as connection, connection.begin():
        connection.exec_driver_sql("UPDATE entity SET attributes = '{}' WHERE level = 'patient'")
    project.catalog.engine.dispose()
    said = ct("-C", root, *call)
    assert said.code == (0 if call[0] == "recover" else 3), said
    text = said.out + said.err
    assert "patient/P2" in text and "somebody who may not be used" in text and not IDS.search(text), said


def test_nor_by_a_recovery_of_a_catalog_that_is_not_there(root: Path) -> None:
    for folder in (root / "store/counted/AGONE1").iterdir():
        folder.chmod(0o755)
        shutil.rmtree(folder)
    for path in root.glob("catalog.db*"):
        path.unlink()
    for call in (["--dry-run"], ["--dry-run", "--json"], [], ["--json"]):
        said = ct("-C", root, "recover", *call)
        assert not IDS.search(said.out + said.err), said
