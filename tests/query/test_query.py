"""`ct query`: SQL over what the gate lets through; whatever is tried, nothing else is read, and nothing is written."""

import json
from pathlib import Path

import pytest
from sqlalchemy import select

from ctcore.catalog.tables import event
from ctcore.errors import Usage
from ctcore.execution.materialize import StepRun
from ctcore.governance.consent import Statement, set_consent
from ctcore.governance.qc import QcEntry
from ctcore.governance.qc import add as add_qc
from ctcore.project import Project
from ctcore.query.exclusion_counts import ExclusionCounts
from ctcore.query.readable import Gate
from ctcore.query.sql import Database
from ctcore.query.views import Views
from tests.helpers.kit import STEPS, TOML, Inline, again, assay, fail, make, make_all, make_project
from tests.helpers.shell import contents, ct

ROWS = (
    assay("P1", "S1", "A1", sex="F", age="40", site="blood"),
    assay("P1", "S1", "A2", sex="F", age="40", site="blood"),
    assay("P2", "S2", "A3", sex="M", age="50", site="=HYPERLINK(1)"),
)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    made = make_project(tmp_path / "toy", ROWS)
    make_all(made)
    list(StepRun(made, made.steps["counted"], ["A1"], again=True, runner=Inline(made)).outcomes())
    return made


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """For tests that change nothing."""
    found = make_project(tmp_path_factory.mktemp("query") / "toy", ROWS)
    make_all(found)
    return found


def ask(project: Project, sql: str, everybody: bool = False, seconds: float = 60) -> list[tuple[object, ...]]:
    with project.catalog.read() as connection:
        return list(Database(Views(Gate.of(project, connection, everybody)), sql, seconds).query(sql)[1])


def test_declared_columns_are_typed(project: Project) -> None:
    assert ask(project, "SELECT patient_id, age + 1, typeof(age), sex FROM patients") == [
        ("P1", 41, "integer", "F"),
        ("P2", 51, "integer", "M"),
    ]
    assert ask(project, "SELECT assay_id, specimen_id, patient_id FROM assays WHERE usable")[2] == ("A3", "S2", "P2")


def test_every_table_has_rows_and_joins(project: Project) -> None:
    with project.catalog.read() as connection:
        names = list(Views(Gate.of(project, connection)).all)
    empty = [name for name in names if ask(project, f"SELECT count(*) FROM {name}") == [(0,)]]
    assert names[:3] == ["patients", "specimens", "assays"] and empty == []
    sql = """SELECT a.assay_id, r.value, v.state FROM assays a
             JOIN results r ON r.entity = a.assay_id AND r.step = 'counted' AND r.name = 'letters'
             JOIN verdicts v ON (v.step, v.entity) = (r.step, r.entity) ORDER BY 1"""
    assert ask(project, sql) == [("A1", 11, "fresh"), ("A2", 11, "fresh"), ("A3", 11, "fresh")]
    assert ask(project, "SELECT role, size FROM files WHERE entity = 'A1'") == [("reads", 12)]
    assert ask(project, "SELECT member FROM members WHERE step = 'merged' AND entity = 'S1'") == [("A1",), ("A2",)]


def test_two_steps_may_share_a_name_and_none_is_forgotten(project: Project) -> None:
    text = STEPS.replace("def merged(call: Call) -> None:", "def merged(call: Call) -> dict[str, float]:").replace(
        "{' '.join(lines)}\\n\")", "{' '.join(lines)}\\n\")\n    return {'letters': 0.5}"
    )
    (project.root / "steps/toy.py").write_text(text)
    project = again(project)
    make(project, "merged")
    assert ask(project, "SELECT step, type, value FROM results WHERE entity IN ('A1', 'S1')") == [
        ("counted", "integer", 11),
        ("merged", "real", 0.5),
    ]
    (project.root / "steps/toy.py").write_text(text.replace("0.5", "0.75"))
    project = again(project)
    make(project, "merged", "S1")
    sql = "SELECT value, current FROM results_history WHERE step = 'merged' AND entity = 'S1'"
    assert ask(project, sql) == [(0.5, 0), (0.75, 1)]


def test_a_step_may_measure_thousands_of_things(tmp_path: Path) -> None:
    steps = STEPS.replace('return {"letters": n}', 'return {f"m{at}": at / 2 for at in range(2500)}')
    project = make_project(tmp_path / "toy", ROWS[:1], steps)
    make_all(project)
    assert ask(project, "SELECT count(*), sum(value) FROM results") == [(2500, sum(range(2500)) / 2)]


def test_numbers_that_sql_cannot_hold_are_kept_as_text(tmp_path: Path) -> None:
    steps = STEPS.replace('return {"letters": n}', 'return {"big": 2**70, "yes": True}')
    project = make_project(tmp_path / "toy", ROWS[:1], steps)
    make_all(project)
    found = ask(project, "SELECT name, type, value FROM results ORDER BY name")
    assert found == [("big", "integer", str(2**70)), ("yes", "boolean", 1)]


def test_columns_that_differ_in_case_only_are_told_apart(tmp_path: Path) -> None:
    toml = TOML.replace('age = "integer"', 'age = "integer"\nAge = "integer"\nusable = {}')
    project = make_project(tmp_path / "toy", ROWS[:1], toml=toml)
    assert ask(project, "SELECT age, Age_2, usable, usable_2 FROM patients") == [(40, None, 1, None)]


ATTACKS = (
    "DELETE FROM assays",
    "WITH x AS (SELECT 1) DELETE FROM assays",
    "INSERT INTO assays DEFAULT VALUES",
    "INSERT INTO assays SELECT * FROM assays RETURNING *",
    "REPLACE INTO assays DEFAULT VALUES",
    "UPDATE assays SET usable = 0",
    "WITH x AS (SELECT 1) UPDATE assays SET usable = 0 RETURNING *",
    "DROP TABLE assays",
    "ALTER TABLE assays RENAME TO b",
    "ALTER TABLE assays ADD COLUMN b",
    "CREATE TABLE t (a)",
    "CREATE TEMP TABLE t AS SELECT * FROM assays",
    "CREATE VIEW v AS SELECT 1",
    "CREATE TEMP VIEW v AS SELECT 1",
    "CREATE INDEX i ON assays (assay_id)",
    "CREATE TRIGGER t AFTER INSERT ON assays BEGIN SELECT 1; END",
    "CREATE VIRTUAL TABLE t USING fts5(a)",
    "CREATE VIRTUAL TABLE temp.t USING csv(filename='{root}/catalog.db')",
    "CREATE VIRTUAL TABLE t USING dbstat",
    "ATTACH '{root}/catalog.db' AS c",
    "ATTACH DATABASE 'file:{root}/catalog.db?mode=rw' AS c",
    "ATTACH '{root}/new.db' AS c",
    "ATTACH ':memory:' AS c",
    "DETACH main",
    "VACUUM",
    "VACUUM INTO '{root}/copy.db'",
    "REINDEX",
    "ANALYZE",
    "BEGIN",
    "BEGIN IMMEDIATE",
    "COMMIT",
    "ROLLBACK",
    "SAVEPOINT s",
    "RELEASE s",
    "PRAGMA query_only = OFF",
    "PRAGMA query_only(0)",
    "PRAGMA main.query_only = 0",
    "PRAGMA writable_schema = ON",
    "PRAGMA journal_mode = DELETE",
    "PRAGMA temp_store_directory = '{root}'",
    "PRAGMA database_list",
    "PRAGMA table_info('assays')",
    "PRAGMA wal_checkpoint",
    "SELECT * FROM pragma_database_list",
    "SELECT * FROM pragma_table_info('assays')",
    "SELECT * FROM pragma_function_list",
    "SELECT * FROM pragma_query_only(0)",
    "SELECT * FROM sqlite_master",
    "SELECT * FROM main.sqlite_schema",
    "SELECT * FROM sqlite_temp_master",
    "SELECT * FROM sqlite_dbpage",
    "SELECT * FROM dbstat",
    "SELECT * FROM fsdir('/')",
    "SELECT * FROM csv('{root}/sheet.csv')",
    "SELECT * FROM bytecode('SELECT 1')",
    "SELECT readfile('{root}/sheet.csv')",
    "SELECT writefile('{root}/new.txt', 'x')",
    "SELECT edit('x')",
    "SELECT load_extension('{root}/x.so')",
    "SELECT load_extension('{root}/x.so', 'entry')",
    "SELECT fts3_tokenizer('simple', x'00')",
    "SELECT sqlite_compileoption_get(1)",
    "SELECT sqlite_source_id()",
    "SELECT zeroblob(2000000000)",
    "SELECT randomblob(2000000000)",
    "SELECT * FROM entity",
    "SELECT * FROM main.entity",
    "SELECT * FROM catalog.entity",
    "SELECT * FROM '{root}/sheet.csv'",
    "SELECT * FROM read_csv('{root}/sheet.csv')",
    "SELECT * FROM read_text('{root}/sheet.csv')",
    "SELECT * FROM sqlite_scan('{root}/catalog.db', 'entity')",
    "COPY assays TO '{root}/new.csv'",
    "COPY (SELECT 1) TO '{root}/new.csv'",
    "INSTALL httpfs",
    "LOAD httpfs",
    "EXPORT DATABASE '{root}/new'",
    "SET threads = 1",
    "CALL pragma_version()",
    "SELECT 1 INTO OUTFILE '{root}/new.txt'",
    ".open {root}/catalog.db",
    ".shell touch {root}/new.txt",
    "SELECT 1; DROP TABLE assays",
    "SELECT 1; ATTACH '{root}/new.db' AS c",
    "SELECT 1;;SELECT 2",
    "SELECT replace(hex(zeroblob(100)), '0', 'x')",
    "SELECT '\ud800'",
    "SELECT 1 \0; DROP TABLE assays",
    "",
    ";",
    "-- nothing",
    "SELECT ?",
    "SELECT * FROM (SELECT * FROM sqlite_master)",
    "WITH entity AS (SELECT * FROM sqlite_master) SELECT * FROM entity",
    "SELECT (SELECT sql FROM sqlite_schema LIMIT 1)",
    "SELECT 1 WHERE EXISTS (SELECT 1 FROM pragma_table_list)",
    "EXPLAIN DELETE FROM assays",
    "SELECT json_remove('{{}}', (SELECT sql FROM sqlite_master))",
    "VALUES (load_extension('x'))",
    "SELECT CASE WHEN 1 THEN load_extension('x') END",
)


@pytest.mark.parametrize("attack", ATTACKS)
def test_whatever_is_tried_is_refused_and_changes_nothing(made: Project, attack: str) -> None:
    before = contents(made.root)
    with made.catalog.read() as connection:
        database = Database(Views(Gate.of(made, connection)), "assays")
        with pytest.raises(Usage):
            list(database.query(attack.format(root=made.root))[1])
        assert list(database.query("SELECT count(*), min(usable) FROM assays")[1]) == [(3, 1)]
    assert contents(made.root) == before


def test_a_statement_that_never_ends_is_ended(project: Project) -> None:
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
    with pytest.raises(Usage, match="took over"):
        ask(project, endless, seconds=0.2)


@pytest.mark.parametrize(
    "sql",
    (
        "WITH x AS (SELECT assay_id a FROM assays) SELECT count(*) FROM x",
        "SELECT count(*) FROM (SELECT 1)",
        "SELECT row_number() OVER (ORDER BY assay_id) FROM assays",
        "SELECT value FROM json_each('[1]')",
        "SELECT 1 WHERE 'abc' LIKE 'a%' AND 'abc' GLOB 'a*'",
        "SELECT json_extract('{\"a\": 1}', '$.a'), '{\"a\": 1}' ->> 'a'",
        "VALUES (1)",
        "SELECT 1 UNION SELECT 1",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3) SELECT count(*) FROM n",
        "SELECT group_concat(specimen_id) FROM specimens GROUP BY patient_id LIMIT 1;",
    ),
)
def test_reading_in_all_its_forms_is_allowed(made: Project, sql: str) -> None:
    assert ask(made, sql)


def test_who_may_not_be_used_is_in_no_table(project: Project) -> None:
    fail(project, "P2")
    with project.catalog.read() as connection:
        views = Views(Gate.of(project, connection))
        said = json.dumps([[name, list(view.rows())] for name, view in views.all.items()])
    assert [name for name in ("P2", "S2", "A3", "HYPERLINK") if name in said] == []
    assert '"A1"' in said


def test_a_result_with_somebody_who_may_not_be_used_is_not_read(tmp_path: Path, project: Project) -> None:
    text = (
        STEPS
        + """

@step(level="cohort", inputs={"table": "joined"}, outputs={"n": "n.txt"})
def summed(call: Call) -> dict[str, int]:
    call.out("n").write_text("n")
    return {"lines": len(call.one("table")["table"].read_text().splitlines())}
"""
    )
    (project.root / "steps/toy.py").write_text(text)
    project = again(project)
    make(project, "summed")
    lines = "SELECT value FROM results WHERE step = 'summed'"
    history = "SELECT value, current FROM results_history WHERE step = 'summed'"
    assert ask(project, lines) == [(2,)]
    fail(project, "P2")
    assert ask(project, lines) == [] and ask(project, history) == []
    assert ask(project, "SELECT state, why FROM verdicts WHERE step = 'joined'") == [
        ("stale", "member-removed: somebody who may not be used")
    ]
    make(project, "joined")
    assert ask(project, lines) == []
    make(project, "summed")
    assert ask(project, lines) == [(1,)] and ask(project, history) == [(1, 1)]
    assert ask(project, lines, everybody=True) == [(1,)] and len(ask(project, history, everybody=True)) == 2


@pytest.mark.parametrize("who", ["S2", "A3"])
def test_an_old_result_of_former_inputs_is_not_read_either(tmp_path: Path, who: str) -> None:
    """Somebody in an earlier result is in it by the ledger, whatever steps and inputs are declared today."""
    head, joined = STEPS.split('@step(level="cohort"')
    tail = f'@step(level="cohort"{joined}'.replace("-> None", "-> dict[str, int]") + '    return {"rows": len(rows)}\n'
    project = make_project(tmp_path / "toy", ROWS, steps=head + tail)
    make_all(project)
    counted = head.split('@step(level="specimen"')[0] + tail.replace('"specimens": "merged"', '"specimens": "counted"')
    (project.root / "steps/toy.py").write_text(counted)
    fail(project, who)
    project = again(project)
    make_all(project)
    history = "SELECT value, current FROM results_history WHERE step = 'joined'"
    assert ask(project, history) == [(2, 1)]
    assert ask(project, history, everybody=True) == [(2, 0), (2, 1)]


def test_the_excluded_are_shown_by_name_and_on_record(project: Project) -> None:
    fail(project, "P2", "A2")
    said = ct("-C", project.root, "query", "SELECT assay_id FROM assays")
    assert said.out.splitlines() == ["assay_id", "A1"]
    assert (
        "left out: 1 patient (1 qc_fail), 1 specimen (1 qc_fail), 2 assays (2 qc_fail); with their descendants"
        in said.err
    )
    sql = "SELECT assay_id, usable FROM assays"
    said = ct("-C", project.root, "query", sql, "--excluded", "--reason", "audit of the ethics board")
    assert said.out.splitlines()[1:] == ["A1\t1", "A2\t0", "A3\t0"]
    assert "INCLUDED" in said.err
    with project.catalog.read() as connection:
        row = connection.execute(select(event).order_by(event.c.seq.desc()).limit(1)).one()
    assert (row.kind, row.subject) == ("disclose", "query") and "ethics board" in row.body and "FROM assays" in row.body
    assert ct("-C", project.root, "query", sql, "--excluded", "--reason", " ").code == 2


def test_the_command_says_what_there_is_and_what_is_wrong(project: Project) -> None:
    said = ct("-C", project.root, "query", "--tables")
    assert "patients\tage\tinteger" in said.out.splitlines()
    assert json.loads(ct("-C", project.root, "query", "SELECT age FROM patients", "--json").out) == [
        {"age": 40},
        {"age": 50},
    ]
    said = ct("-C", project.root, "query", "SELECT size FROM assay")
    assert said.code == 2 and "no such table: assay; `ct query --tables`" in said.err
    assert ct("-C", project.root, "query", "DELETE FROM assays").code == 2
    assert ct("-C", project.root, "query").code == 2


def test_results_of_a_step_obey_what_holds_for_that_step_only(project: Project) -> None:
    add_qc(project, [QcEntry("specimen", "S2", "superseded", "taken again", step="joined")])
    whole = "SELECT count(folder) FROM artifacts WHERE step = 'joined'"
    assert ask(project, whole) == [(0,)], "made with somebody who may not be used for it"
    assert ask(project, "SELECT member FROM members WHERE step = 'joined'") == [("S1",)]
    assert ask(project, "SELECT usable FROM specimens WHERE specimen_id = 'S2'") == [(1,)]
    assert ask(project, "SELECT count(folder) FROM artifacts WHERE step = 'merged'") == [(2,)]
    said = ct("-C", project.root, "query", "SELECT 1").err
    assert said.startswith("left out: for joined only: 1 specimen (1 superseded); with their descendants")
    assert ask(project, whole, everybody=True) == [(1,)]
    make_all(project)
    assert ask(project, whole) == [(1,)]


def test_an_assay_excluded_from_its_step_has_no_result_of_it(project: Project) -> None:
    add_qc(project, [QcEntry("assay", "A2", "qc_fail", "low", step="counted")])
    found = ask(project, "SELECT entity FROM results WHERE step = 'counted' ORDER BY 1")
    assert found == [("A1",), ("A3",)] == ask(project, "SELECT entity FROM results_history ORDER BY 1")
    assert ask(project, "SELECT state FROM verdicts WHERE entity = 'A2'") == [("excluded",)]
    assert ask(project, "SELECT count(*) FROM assays") == [(3,)]


def test_counts_of_who_is_left_out_add_up(project: Project) -> None:
    fail(project, "P2", "A3", "A2")
    add_qc(project, [QcEntry("assay", "A2", "contamination", "foreign DNA"), QcEntry("assay", "A1", "qc_warn", "late")])
    set_consent(project, ["P2"], Statement("revoked", form="form 12"))
    words = "1 patient (1 consent revoked), 1 specimen (1 consent revoked), 2 assays (1 consent revoked, 1 qc_fail)"
    assert ct("-C", project.root, "query", "SELECT 1").err.startswith(f"left out: {words}; with their descendants")


def test_a_lost_result_stops_nobody_from_reading(project: Project) -> None:
    steps = (project.root / "steps/toy.py").read_text()
    (project.root / "steps/toy.py").write_text(
        steps.replace("def counted", "def tallied").replace('"counted"', '"tallied"')
    )
    project = again(project)
    assert ask(project, "SELECT count(folder) FROM artifacts WHERE step = 'merged'") == [(2,)]
    fail(project, "A3")
    assert ask(project, "SELECT count(folder) FROM artifacts WHERE step = 'merged'") == [(0,)]


def test_steps_with_the_same_exclusions_are_told_together() -> None:
    limited, qc = {"patient": {"consent limited to other uses": 1}}, {"assay": {"qc_fail": 2}}
    steps = {**{f"s{n}": limited for n in range(7)}, "last": qc}
    said = "for s0, s1, s2, s3, s4 and 2 more steps only: 1 patient (1 consent limited to other uses)"
    assert ExclusionCounts(steps=steps).words == f"{said}; for last only: 2 assays (2 qc_fail)"
