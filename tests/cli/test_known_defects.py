"""Defects that cohort trackers are known to have, in the order in which they were written down: ct has none of them.

Each test states what is true here instead, through the command line wherever a person would meet it.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError

import ctcore
from ctcore.catalog.tables import edge, qc_event
from ctcore.cli import _COMMANDS
from ctcore.errors import StepError
from ctcore.intake.raw_files import look
from ctcore.project import Project
from ctcore.staleness.verdicts import evaluate
from ctcore.util.clock import today
from tests.helpers.kit import ROWS, STEPS, TOML, again, assay, fail, make, make_all, make_project, reasons, write_sheet
from tests.helpers.shell import Said, ct, environment
from tests.integrity.test_recover import facts, lose
from tests.planning.test_asking import nodes, toy
from tests.query.test_cohort_readiness import COHORT, PAIRS, reason, statuses
from tests.query.test_cohort_readiness import paired as readiness_of

TWO = ("--confirmed-by", "Ann", "--confirmed-by", "Bob")


class Here:
    """A project, and `ct` in it."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.root = project.root

    def ct(self, *arguments: str | Path, code: int = 0) -> Said:
        said = ct("-C", self.root, *arguments)
        assert said.code == code, said
        return said

    def rows(self, sql: str) -> list[dict[str, Any]]:
        return json.loads(self.ct("query", sql, "--json").out)

    def sheet(self, text: str, name: str = "more.csv") -> Path:
        path = self.root / name
        path.write_text(text)
        return path


@pytest.fixture
def here(tmp_path: Path) -> Here:
    """Two patients, three assays, everything made."""
    project = make_project(tmp_path / "toy")
    make_all(project)
    return Here(project)


def rewritten(here: Here, *changes: tuple[str, str]) -> Project:
    code = STEPS
    for old, new in changes:
        assert old in code
        code = code.replace(old, new)
    (here.root / "steps/toy.py").write_text(code)
    return again(here.project)


# What was said is not lost, and nothing is wrong in silence


def test_a_lost_catalog_comes_back_whole(here: Here) -> None:
    before = facts(here.project)
    assert [len(before[name]) for name in ("entity", "reference", "materialization", "member")] == [7, 1, 6, 5]
    Here(lose(here.project)).ct("recover")
    after = facts(again(here.project))
    assert {**after, "event": after["event"][:-1]} == before


def test_every_command_takes_a_recovered_catalog(here: Here) -> None:
    Here(lose(here.project)).ct("recover")
    for words in (("status",), ("verify",), ("stale",), ("why", "counted/A1"), ("export", here.root / "all.xlsx")):
        here.ct(*words)
    here.ct("register", here.sheet("patient_id,age\nP9,9\n"))


def test_a_recovered_catalog_has_the_last_values(here: Here) -> None:
    here.ct("register", here.sheet("patient_id,age\nP1,41\n"), "--update", "patient.age")
    make_all(again(here.project))
    Here(lose(here.project)).ct("recover")
    assert here.rows("SELECT age FROM patients WHERE patient_id = 'P1'") == [{"age": 41}]
    assert reasons(again(here.project)) == {}


def test_the_next_command_completes_the_journal_after_a_kill(here: Here) -> None:
    killing = (
        "import os, signal; from ctcore.catalog.event_log import Journal; from ctcore.cli import main\n"
        "Journal.follow = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\nmain()"
    )
    command = [sys.executable, "-c", killing, "-C", here.root, "qc", "add", "assay/A1", "qc_fail", "--reason", "low"]
    assert subprocess.run(command, env=environment(), check=False).returncode == -signal.SIGKILL
    assert b"qc_fail" not in (here.root / "provenance.jsonl").read_bytes()
    here.ct("status", code=3)
    assert (here.root / "provenance.jsonl").read_bytes().splitlines()[-1].count(b'"qc_fail"') == 1
    here.ct("verify")


def test_after_a_bump_only_making_again_makes_fresh(here: Here) -> None:
    def used() -> list[str]:
        with here.project.catalog.read() as connection:
            chosen = select(edge.c.version).where(edge.c.asset == "reference").order_by(edge.c.materialization)
            return list(connection.execute(chosen).scalars())

    before = used()
    (here.root / "ct.toml").write_text(TOML.replace('version = "1"', 'version = "2"'))
    project = again(here.project)
    look(project)
    here.ct("register", write_sheet(here.root, ROWS))
    make(project, "merged")
    assert used() == before and reasons(project)["counted/A1"] == ["reference"]
    make_all(project)
    assert len(used()) == 2 * len(before) and reasons(project) == {}


def test_an_undeclared_reference_is_refused_then_stale(here: Here) -> None:
    table = '[references.genome]\npath = "genome.txt"\nversion = "1"\n'
    (here.root / "ct.toml").write_text(TOML.replace(table, ""))
    assert "reference 'genome' (counted)" in here.ct("stale", code=1).err
    project = rewritten(here, ('references=["genome"], ', ""), (" {call.reference('genome').read_text()}", ""))
    assert "code" in reasons(project)["counted/A1"]


def test_two_steps_that_measure_under_one_name_keep_both_values(here: Here) -> None:
    project = rewritten(
        here,
        ('-> None:\n    """All counts', '-> dict[str, int]:\n    """All counts'),
        ("' '.join(lines)}\\n\")", "' '.join(lines)}\\n\")\n    return {'letters': 77}"),
    )
    make_all(project)
    found = here.rows("SELECT step, value FROM results WHERE name = 'letters' ORDER BY step, entity")
    assert [(row["step"], int(row["value"])) for row in found] == [("counted", 11)] * 3 + [("merged", 77)] * 2


def test_a_specimen_moves_to_another_patient_only_by_name(here: Here) -> None:
    sheet = here.sheet("patient_id,specimen_id\nP2,S1\n")
    said = here.ct("register", sheet, code=1)
    assert "S1" in said.err and "--reparent" in said.err
    assert "--reparent" in here.ct("register", sheet, "--update", "patient.age", code=1).err
    here.ct("register", sheet, "--reparent", "S1", "--yes")
    assert here.rows("SELECT patient_id FROM specimens WHERE specimen_id = 'S1'") == [{"patient_id": "P2"}]


def test_leading_zeros_survive_every_path(tmp_path: Path) -> None:
    here = Here(make_project(tmp_path / "toy", [assay("001", "0012", "007", sex="F", age="40", library="0001")]))
    make_all(here.project)
    here.ct("register", "assay", "008", "--parent", "0012", "--set", "library=0002")
    here.ct("register", here.sheet("assay_id,library\n008,0002\n"))
    here.ct("qc", "add", "assay/007", "qc_warn", "--reason", "0 reads")
    here.ct("consent", "set", "001", "full")
    found = here.rows("SELECT patient_id, specimen_id, assay_id, library FROM assays ORDER BY assay_id")
    assert [list(row.values()) for row in found] == [["001", "0012", "007", "0001"], ["001", "0012", "008", "0002"]]
    assert here.ct("path", "counted/007").out.count("007") == 1
    here.ct("export", here.root / "a.csv", "--table", "assays")
    assert re.search(r"\b007\b.*\b0001\b", (here.root / "a.csv").read_text())
    assert here.ct("stale", "--select", "*/7", code=2).err


def test_a_value_of_another_type_is_refused_twice(here: Here) -> None:
    said = here.ct("register", here.sheet("patient_id,age\nP9,forty\n"), code=1)
    assert "row 2, column age" in said.err and "forty" in said.err
    with pytest.raises(DBAPIError, match="must be an integer"), here.project.catalog.engine.begin() as connection:
        connection.execute(text("""UPDATE entity SET attributes = '{"age":"forty"}' WHERE id = 'P1'"""))


def test_init_leaves_a_ct_toml_that_is_there_alone(tmp_path: Path) -> None:
    (tmp_path / "ct.toml").write_text(TOML)
    said = ct("init", tmp_path)
    assert (tmp_path / "ct.toml").read_text() == TOML and said.code == 0


def test_one_assay_made_of_two_is_half_done(tmp_path: Path) -> None:
    project = make_project(tmp_path / "toy", ROWS[:2])
    make(project, "counted", "A1")
    assert evaluate(project).states("counted") == ["fresh", "missing"]
    found = Here(project).rows("SELECT level, entity FROM results")
    assert found == [{"level": "assay", "entity": "A1"}]


def test_a_partial_row_wipes_nothing(here: Here) -> None:
    here.ct("register", here.sheet("patient_id,age,sex\nP1,,\n"))
    here.ct("register", here.sheet("patient_id,sex\nP1,F\n"))
    assert here.rows("SELECT age, sex FROM patients WHERE patient_id = 'P1'") == [{"age": 40, "sex": "F"}]


def test_releasing_a_batch_releases_nothing_else(
    tmp_path: Path,
) -> None:
    rows = [{**row, "library": "FC7"} for row in ROWS]
    here = Here(make_project(tmp_path / "toy", rows))
    here.ct("qc", "add", "assay/A1", "contamination", "--reason", "foreign DNA")
    here.ct("qc", "add", "--where", "assay.library=FC7", "qc_fail", "--reason", "bad flow cell")
    here.ct("qc", "resolve", "--where", "assay.library=FC7", "--reason", "it was not")
    open_now = json.loads(here.ct("qc", "list", "--json").out)
    assert len(open_now) == 1 and "contamination" in json.dumps(open_now)
    with pytest.raises(StepError, match="circle"):
        _ = rewritten(here, ('files=["reads"]', 'files=["reads"], inputs={"again": "counted"}')).steps


# Safety and consent


def test_no_statement_changes_anything_whatever_it_begins_with(here: Here) -> None:
    for sql in ("WITH x AS (SELECT 1) DELETE FROM assays", "WITH x AS (SELECT 1) UPDATE entity SET id = 'X'"):
        here.ct("query", sql, code=2)
    here.ct("consent", "set", "P2", "revoked", "--form", "form 7")
    assert [row["assay_id"] for row in here.rows("SELECT assay_id FROM assays")] == ["A1", "A2"]


def test_no_result_or_sheet_decides_usability_or_ownership(here: Here) -> None:
    here.ct("consent", "set", "P2", "revoked", "--form", "form 7")
    fail(here.project, "A1")
    said = '{"letters": n, "qc_status": "pass", "consent_status": "full", "specimen_id": "S2"}'
    make_all(rewritten(here, ('{"letters": n}', said)))
    project = again(here.project)
    assert evaluate(project).of("counted", "A1").state == evaluate(project).of("counted", "A3").state == "excluded"
    shown = json.loads(here.ct("query", "SELECT * FROM assays", "--excluded", "--reason", "to see whose", "--json").out)
    assert {row["assay_id"]: row["specimen_id"] for row in shown} == {"A1": "S1", "A2": "S1", "A3": "S2"}
    assert [row["assay_id"] for row in shown if row["usable"]] == ["A2"]
    for column in ("qc_status", "consent_status", "usable"):
        assert column in here.ct("register", here.sheet(f"patient_id,{column}\nP2,full\n"), code=1).err


def test_reversing_a_revocation_takes_a_record_and_two_people(
    tmp_path: Path,
) -> None:
    toml = TOML + '\n[consent]\nuses = ["cancer", "anything"]\n'
    here = Here(make_project(tmp_path / "toy", toml=toml))
    here.ct("consent", "set", "P2", "limited", "--use", "cancer", "--form", "form 1")
    here.ct("consent", "set", "P2", "revoked", "--form", "form 7")
    here.ct("consent", "set", "P2", "full", "--reason", "oops 2026-01-01", code=2)
    here.ct("qc", "resolve", "patient/P2", "--reason", "oops 2026-01-01", code=2)
    restore = ("consent", "restore", "P2", "--authority", "IRB", "--reference", "protocol 4/26", "--date", today())
    here.ct(*restore, code=2)
    here.ct(*restore, "--confirmed-by", "Ann", "--confirmed-by", "ann ", code=2)
    here.ct(*restore, *TWO)
    (found,) = json.loads(here.ct("consent", "list", "--json").out)
    assert (found["status"], found["uses"], found["form"]) == ("limited", ["cancer"], "form 1")


def test_no_way_of_reading_or_making_passes_the_gate(here: Here) -> None:
    here.ct("consent", "set", "P2", "revoked", "--form", "form 7")
    page, table, wide, all_tables = (here.root / name for name in ("p.html", "t.tsv", "w.csv", "a.json"))
    here.ct("dashboard", page)
    here.ct("export", table, "--query", "SELECT * FROM results")
    here.ct("export", wide, "--wide", "assay")
    here.ct("export", all_tables)
    said = [here.ct("query", f"SELECT * FROM {name}").out for name in ("patients", "specimens", "assays", "results")]
    said += [here.ct("cohort", code=0).out, *(path.read_text() for path in (page, table, wide, all_tables))]
    for shown in said:
        assert not re.search(r"\b(P2|S2|A3)\b", shown), shown
    for node in ("counted/A3", "merged/S2"):
        assert "excluded" in here.ct("path", node, code=2).err
        assert "excluded" in here.ct("show", node, code=2).err
    (here.root / "reads/A3.txt").write_text("new reads of A3\n")
    (outcome,) = make(again(here.project), "counted", "A3")
    assert outcome.state == "blocked" and "consent revoked" in str(outcome)


def test_one_flag_shows_the_excluded_and_counts_add_up(here: Here) -> None:
    here.ct("consent", "set", "P2", "revoked", "--form", "form 7")
    fail(here.project, "S1")
    assert here.rows("SELECT * FROM assays WHERE usable") == []
    shown = ("--excluded", "--reason", "the yearly audit", "--json")
    found = json.loads(here.ct("query", "SELECT assay_id FROM assays", *shown).out)
    assert [row["assay_id"] for row in found] == ["A1", "A2", "A3"]
    for step, total in (("counted", 3), ("merged", 2), ("joined", 1)):
        states = evaluate(again(here.project)).states(step)
        assert len(states) == total
    assert set(evaluate(again(here.project)).states("counted")) == {"excluded"}


def test_no_query_touches_a_file_or_a_shell(here: Here) -> None:
    out = here.root / "out.csv"
    for sql in (
        f"COPY (SELECT 1) TO '{out}'",
        f"SELECT * FROM read_text('{here.root}/ct.toml')",
        f"VACUUM INTO '{out}'",
    ):
        here.ct("query", sql, code=2)
    assert not out.exists()
    code = [path.read_text() for path in Path(ctcore.__file__).parent.rglob("*.py")]
    assert code and not any(re.search(r"shell\s*=\s*True|os\.system\(|os\.popen\(", one) for one in code)


def test_a_warning_is_an_event_and_an_unknown_word_fails(here: Here) -> None:
    told = '{"letters": n, "qc": "warn", "qc_reason": "coverage 12x is below 30x"}'
    make_all(rewritten(here, ('{"letters": n}', told)))
    (row,) = [one for one in json.loads(here.ct("qc", "history", "--json").out) if one["id"] == "A1"]
    assert (row["status"], row["reason"]) == ("warn", "coverage 12x is below 30x")
    project = rewritten(here, ('{"letters": n}', '{"letters": n, "qc": "borderline", "qc_reason": "12x"}'))
    (outcome,) = make(project, "counted", "A1")
    assert outcome.state == "failed" and "borderline" in str(outcome)


def test_own_kinds_of_qc_and_new_values_of_an_enum_are_taken(here: Here) -> None:
    more = TOML.replace('["F", "M"]', '["F", "M", "X"]')
    (here.root / "ct.toml").write_text(more + '\n[qc.kinds.low_yield]\nstatus = "fail"\nlevels = ["assay"]\n')
    here.ct("qc", "add", "assay/A1", "low_yield", "--reason", "3 ng")
    here.ct("register", here.sheet("patient_id,sex\nP9,X\n"))
    with here.project.catalog.read() as connection:
        assert connection.execute(select(qc_event.c.kind, qc_event.c.status)).all() == [("low_yield", "fail")]


# Operation


def test_stale_nodes_are_requested_once(tmp_path: Path) -> None:
    runs = toy(tmp_path)
    make_all(runs.project)
    (runs.project.root / "genome.txt").write_text("ACGTACGT\n")
    assert "counted" in Here(runs.project).ct("plan", code=3).out
    assert nodes(runs.look()) == {"counted": {"A0", "A1", "A2"}}
    assert [nodes(runs.look()) for _ in range(3)] == [{}, {}, {}]


def test_results_with_2500_names_are_stored_and_exported(tmp_path: Path) -> None:
    many = STEPS.replace('{"letters": n}', '{f"m{at}": at for at in range(2500)}')
    here = Here(make_project(tmp_path / "toy", ROWS[:1], steps=many))
    make_all(here.project)
    assert here.rows("SELECT count(*) AS n FROM results") == [{"n": 2500}]
    here.ct("export", here.root / "w.csv", "--wide", "assay")
    header, row = (here.root / "w.csv").read_text().splitlines()
    values = dict(zip(header.split(","), row.split(","), strict=True))
    assert len(values) >= 2500 and values["counted.m2499"] == "2499"


def test_questions_exports_and_pages_need_no_network(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*_: object, **__: object) -> socket.socket:
        raise OSError("no network here")

    monkeypatch.setattr(socket, "socket", no_network)
    monkeypatch.setattr(socket, "create_connection", no_network)
    assert here.rows("SELECT count(*) AS n FROM assays") == [{"n": 3}]
    here.ct("export", here.root / "all.xlsx")
    here.ct("export", here.root / "w.csv", "--wide", "assay")
    here.ct("dashboard", here.root / "p.html")


def test_sources_and_parameters_count_by_their_content(here: Here) -> None:
    (here.root / "genome.txt").write_text("TGCA\n")
    look(here.project)
    assert "reference" in reasons(again(here.project))["counted/A1"]
    (here.root / "genome.txt").write_text("ACGT\n")
    look(here.project)
    assert reasons(again(here.project)) == {}
    (here.root / "ct.toml").write_text(TOML + "\n[params.counted]\nfactor = 2\n")
    assert reasons(again(here.project))["counted/A1"] == ["parameters"]
    (here.root / "ct.toml").write_text(TOML)
    assert reasons(rewritten(here, ("* call.params.factor", "* 1 * call.params.factor")))["counted/A1"] == ["code"]
    rewritten(here)
    (file,) = (here.root / "store/counted/A1").glob("*/n.txt")
    kept, content = file.stat(), file.read_bytes()
    file.chmod(0o644)
    file.write_bytes(content.swapcase() if content.swapcase() != content else content[::-1])
    os.utime(file, ns=(kept.st_atime_ns, kept.st_mtime_ns))
    assert "counted/A1" in here.ct("verify", code=3).out, "of the same size and time"


def test_every_command_takes_a_fresh_project_without_drift(here: Here, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in _COMMANDS:
        said = ct("-C", elsewhere, name, "--help")
        assert said.code == 0, said
    asked: dict[str, tuple[str, ...]] = {"status": (), "stale": (), "plan": (), "cohort": (), "verify": (), "jobs": ()}
    asked |= {
        "why": ("counted/A1",),
        "show": ("assay/A1",),
        "path": ("counted/A1",),
        "query": ("SELECT 1",),
        "trace": ("joined/all",),
    }
    asked |= {"qc": ("history", "assay/A1"), "consent": ("list",), "schema": ("check",), "reference": ("list",)}
    for name, more in asked.items():
        here.ct(name, *more)
        assert "elsewhere" in ct("-C", elsewhere, name, *more).err, f"{name} looked at another project"


def test_pairs_hide_nobody_and_call_things_what_they_are(tmp_path: Path) -> None:
    project = make_project(tmp_path / "toy", COHORT, toml=TOML + PAIRS)
    fail(project, "T3a")
    assert statuses(readiness_of(project))["P3"] == "broken", "a second tumour hides no failed one"
    fail(project, "T1-0", "T1-1")
    found = readiness_of(again(project))
    assert found and statuses(found)["P1"] == "broken" and "consent" not in reason(found, "P1").lower()
    Here(project).ct("consent", "set", "P2", "revoked", "--form", "form 7")
    assert "P2" not in statuses(readiness_of(again(project)))
