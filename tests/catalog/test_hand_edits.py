"""A catalog or a journal that somebody edited by hand: `ct verify` finds it and says where, whatever was edited."""

import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Column, Connection, Table, delete, insert, select, text, update

import ctcore
from ctcore.catalog.event_log import event_digest
from ctcore.catalog.replay import KINDS as TOLD
from ctcore.catalog.replay import SAYING_ONLY, Replay
from ctcore.catalog.tables import consent, event, metadata, qc_resolution
from ctcore.execution.materialize import StepRun
from ctcore.governance.consent import Record, Statement, restore, set_consent
from ctcore.governance.qc import Choice, resolve
from ctcore.intake.raw_files import look
from ctcore.intake.register import register
from ctcore.integrity.catalog_check import IN_DIGESTS, NOT_TOLD, compare_catalog, disagreements
from ctcore.integrity.verify import verify
from ctcore.project import Project
from ctcore.staleness.accept import KINDS, accept, propose, undo
from ctcore.util.clock import today
from tests.helpers.kit import STEPS, Inline, again, fail, make, make_all, make_project
from tests.helpers.shell import ct

# What is no fact: when something was last looked at, and where it lies on this disk
LOOKED = {
    "file": {"mtime_ns", "inode", "ctime_ns", "checked_at"},
    "reference": {"checked_at"},
    "output": {"mtime_ns", "inode", "ctime_ns"},
    "artifact": {"checked_at"},
    "materialization": {"reported"},
}
TRUTH = sorted(name for name in metadata.tables if name not in NOT_TOLD)
COLUMNS = [
    (name, column.name)
    for name in TRUTH
    for column in metadata.tables[name].columns
    if column.name not in LOOKED.get(name, ())
]


def everything(project: Project, purged: bool = True) -> Project:
    """Everything happens once, so that no table of facts is empty."""
    make_all(project)
    (project.root / "reads/A1.txt").write_text("other reads of A1\n")
    look(project)
    keys, kinds = {"counted": {"A1"}}, frozenset(KINDS)
    accept(project, propose(project, keys, kinds), "the same reads")
    undo(project, keys, kinds, "not the same")
    accept(project, propose(project, keys, kinds), "they are, after all")
    fail(project, "A1")
    resolve(project, Choice(entity=("assay", "A1")), "sequenced again")
    fail(project, "A2")
    set_consent(project, ["P2"], Statement("full", form="form 1"))
    set_consent(project, ["P2"], Statement("revoked", form="form 7"))
    restore(project, "P2", Record("IRB", "protocol 4", today(), ("Ann", "Bob")))
    toml = project.root / "ct.toml"
    toml.write_text(toml.read_text() + '\n[analyses.pathology]\nlevel = "assay"\ncolumns.grade = {}\n')
    for grade, why in (("G1", ()), ("G2", ("--reason", "read again"))):
        said = ct("-C", project.root, "record", "pathology", "A3", f"grade={grade}", *why)
        assert said.code == 0, said
    if purged:
        set_consent(project, ["P1"], Statement("revoked", form="form 8"))
        assert ct("-C", project.root, "purge", "P1", "--confirm", "P1", "--reason", "asked for").code == 0
        make_all(again(project))
    place = project.root / "steps/toy.py"
    place.write_text(STEPS.replace("    lines = [", "    raise OSError('no')\n    lines = ["))
    make(again(project), "merged", "S2")
    place.write_text(STEPS)
    opened = again(project)
    list(StepRun(opened, opened.steps["counted"], ["A3"], again=True, runner=Inline(opened)).outcomes())
    (folder,) = (one for one in (project.store.root / "counted" / "A3").iterdir() if one.is_dir())
    folder.chmod(0o755)
    (folder / "n.txt").unlink()
    verify(project)
    return again(project)


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Such a project. Tests leave it as it is."""
    return everything(make_project(tmp_path_factory.mktemp("lived") / "toy"))


@pytest.fixture
def copy(lived: Project, tmp_path: Path) -> Project:
    """A copy of it, to be changed."""
    with lived.catalog.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    shutil.copytree(lived.root, tmp_path / "toy")
    copied = Project.find(tmp_path / "toy")
    assert copied.catalog  # opened as it is: what is edited afterwards would be refused
    return copied


@contextmanager
def edited(project: Project, *statements: Any) -> Iterator[Connection]:
    """As somebody with the database's password could, whom neither rules nor keys between tables hold up."""
    with project.catalog.engine.connect() as connection:
        connection.rollback()
        driver: Any = connection.connection.driver_connection
        if project.catalog.is_sqlite:
            driver.execute("PRAGMA foreign_keys=OFF")
            driver.execute("PRAGMA ignore_check_constraints=ON")
            triggers = connection.execute(text("SELECT name FROM sqlite_master WHERE type = 'trigger'")).scalars()
            for name in triggers.all():
                connection.exec_driver_sql(f'DROP TRIGGER "{name}"')
        else:
            connection.exec_driver_sql("SET session_replication_role = replica")
        for statement in statements:
            connection.execute(statement)
        yield connection
        connection.rollback()
    project.catalog.engine.dispose()


def edit(project: Project, *statements: Any) -> Project:
    """The same, to stay."""
    with edited(project, *statements) as connection:
        connection.commit()
    return again(project)


def rows(project: Project, table: Table) -> list[dict[str, Any]]:
    """Those of which an event tells, in the order of their keys."""
    chosen = select(table).order_by(*table.primary_key)
    if table.name == "setting":
        chosen = chosen.where(table.c.name.in_(("schema", "analyses")))
    with project.catalog.read() as connection:
        return [dict(row) for row in connection.execute(chosen).mappings()]


def this(table: Table, row: dict[str, Any]) -> Any:
    columns = [column == row[column.name] for column in table.primary_key]
    chosen = columns[0]
    for one in columns[1:]:
        chosen = chosen & one
    return chosen


def another(column: Column[Any], value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 77
    if value is None:
        return 1 if column.type.python_type is int else "x"
    return '{"sex":"X"}' if column.name == "attributes" else f"{value}x"


@pytest.mark.parametrize(("name", "column"), COLUMNS, ids=str)
def test_a_changed_value_is_found_in_any_column_of_any_table(lived: Project, name: str, column: str) -> None:
    table = metadata.tables[name]
    row = rows(lived, table)[-1]
    change = update(table).where(this(table, row)).values({column: another(table.c[column], row[column])})
    with edited(lived, change) as connection:
        found = compare_catalog(connection)
    owners = (name, "materialization") if name in IN_DIGESTS else (name,)
    assert any(place.split()[0] in owners for place, _ in found), found


@pytest.mark.parametrize("name", TRUTH)
def test_a_row_that_was_taken_out_is_found_in_any_table(lived: Project, name: str) -> None:
    table = metadata.tables[name]
    row = rows(lived, table)[-1]
    with edited(lived, delete(table).where(this(table, row))) as connection:
        found = compare_catalog(connection)
    assert found and (name in IN_DIGESTS or any(said.startswith("is missing; event ") for _, said in found)), found


@pytest.mark.parametrize("name", [name for name in TRUTH if name != "setting"])
def test_a_row_that_was_put_in_is_found_in_any_table(lived: Project, name: str) -> None:
    table = metadata.tables[name]
    row = rows(lived, table)[-1]
    key = list(table.primary_key)[-1]
    more = {key.name: another(key, row[key.name])}
    more |= {one.name: another(one, row[one.name]) for one in table.columns if one.unique}
    more |= {"entity": {"id": "another"}, "result": {"version": 77}}.get(name, {})
    with edited(lived, insert(table).values({**row, **more})) as connection:
        assert compare_catalog(connection)


def test_what_nobody_edited_agrees_with_its_events(lived: Project) -> None:
    assert all(rows(lived, metadata.tables[name]) for name in TRUTH), "a table of facts is empty: nothing is shown"
    assert disagreements(lived) == []


def test_a_file_that_a_checksum_found_again_has_an_event(tmp_path: Path) -> None:
    project = make_project(tmp_path / "toy")
    reads = tmp_path / "toy/reads/A1.txt"
    kept = reads.read_bytes()
    reads.unlink()
    look(project)
    reads.write_bytes(kept)
    digest = hashlib.md5(kept).hexdigest()
    sheet = tmp_path / "toy/checked.csv"
    sheet.write_text(f"patient_id,specimen_id,assay_id,reads,reads_md5\nP1,S1,A1,reads/A1.txt,{digest}\n")
    register(project, sheet)
    assert disagreements(project) == []


def test_an_unedited_postgresql_catalog_agrees(
    tmp_path: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CT_POSTGRES_URL", postgres_url)
    project = everything(make_project(tmp_path / "toy"))
    assert disagreements(project) == []
    found = disagreements(edit(project, update(consent).where(consent.c.id == 2).values(status="full")))
    assert found == [("consent 2 (patient/P2)", "status: differs from event 20")]


def test_every_kind_of_event_in_the_code_is_understood() -> None:
    code = "".join(path.read_text() for path in Path(ctcore.__file__).parent.rglob("*.py"))
    said = set(re.findall(r'\.event\(\s*"([a-z-]+)"', code))
    assert said and said <= {*TOLD, *SAYING_ONLY}, "a new kind: say in catalog/replay.py what it changes"


def test_every_table_is_a_projection_or_no_truth() -> None:
    assert set(metadata.tables) == {*Replay.KEYS, *IN_DIGESTS, *NOT_TOLD}


def verified(project: Project) -> dict[str, str]:
    """What `ct verify` finds by itself in the records: where → what. It ends with 3 if anything."""
    project.catalog.engine.dispose()
    said = ct("-C", project.root, "verify", "--quick", "--json")
    found = json.loads(said.out)
    assert said.code == (3 if found else 0), said
    return {f"{one['where']} {one['file']}".strip(): one["problem"] for one in found if one["where"] != "counted/A3"}


def test_verify_names_row_column_event_and_no_value(copy: Project) -> None:
    assert verified(copy) == {}
    entity, qc_event = metadata.tables["entity"], metadata.tables["qc_event"]
    edit(
        copy,
        update(consent).where(consent.c.id == 2).values(status="full"),
        update(qc_event).where(qc_event.c.id == 2).values(status="warn"),
        update(entity).where(entity.c.id == "P2").values(attributes='{"age":77,"sex":"M"}'),
        delete(qc_resolution),
    )
    found = verified(copy)
    assert {place: said.partition(" says")[0].rstrip("0123456789") for place, said in found.items()} == {
        "catalog entity 2 (patient/P2)": "age: differs from event ",
        "catalog qc_event 2 (somebody who may not be used)": "status: differs from event ",
        "catalog qc_resolution 1": "is missing; event 17 wrote it",
        "catalog consent 2 (patient/P2)": "status: differs from event ",
    }
    assert "77" not in "".join(found.values())


def test_a_row_cut_off_with_its_event_disagrees(copy: Project) -> None:
    """The last event is taken out of the database with what it wrote: the journal still has it."""
    last = rows(copy, event)[-1]
    edit(copy, delete(event).where(event.c.seq == last["seq"]), delete(metadata.tables["damage"]))
    said = ct("-C", copy.root, "verify", "--quick")
    assert said.code == 3 and f"the catalog lacks event {last['seq']}, which " in said.out


def test_an_event_cut_off_in_both_is_found_by_its_writes(copy: Project) -> None:
    last = rows(copy, event)[-1]["seq"]
    journal = copy.root / "provenance.jsonl"
    journal.write_bytes(b"".join(journal.read_bytes().splitlines(keepends=True)[:-1]))
    edit(copy, delete(event).where(event.c.seq == last))
    found = verified(copy)
    inserted = "no event wrote this row: somebody inserted it by hand"
    assert found.pop("catalog damage counted A3 n.txt (counted/A3)") == inserted
    assert f"the store has seen event {last}: event {last} is lost" in found.pop("events") and not found


def test_a_rewritten_tail_of_events_disagrees_with_its_row(copy: Project) -> None:
    """Somebody who knows how the digests are made: the chain is whole, yet the tables are those of the old story."""
    changed, previous = [], "0" * 64
    for row in rows(copy, event):
        if row["kind"] == "consent":
            row["body"] = row["body"].replace('"revoked"', '"withdrawn"')
        row["previous"] = previous
        previous = row["digest"] = event_digest(row)
        changed.append(row)
    (copy.root / "provenance.jsonl").unlink()
    edit(copy, delete(event), insert(event).values(changed))
    assert "catalog consent 2 (patient/P2)" in verified(copy)


def lines(project: Project) -> list[bytes]:
    return (project.root / "provenance.jsonl").read_bytes().splitlines(keepends=True)


@pytest.mark.parametrize("at", [0, 4, -1])
def test_an_edited_line_of_the_journal_is_found_with_its_number(copy: Project, at: int) -> None:
    listed = lines(copy)
    listed[at] = re.sub(rb'"actor":"[^"]*"', b'"actor":"nobody"', listed[at])
    (copy.root / "provenance.jsonl").write_bytes(b"".join(listed))
    number = range(len(listed))[at] + 1
    (problem,) = verified(copy).values()
    assert problem.startswith(f"provenance.jsonl line {number}: event {number} ") and problem.endswith(
        "was changed after it was written"
    )


def test_removed_swapped_and_added_lines_are_found(copy: Project) -> None:
    whole, journal = lines(copy), copy.root / "provenance.jsonl"
    for changed, at in (
        (whole[:3] + whole[4:], 4),
        ([*whole[:2], whole[3], whole[2], *whole[4:]], 3),
        ([*whole[:5], whole[4], *whole[5:]], 6),
    ):
        journal.write_bytes(b"".join(changed))
        said = ct("-C", copy.root, "verify", "--quick")
        assert said.code == 3 and f"provenance.jsonl line {at}: " in said.out, said


def test_a_line_that_is_no_event_is_a_finding_beside_all_others(copy: Project) -> None:
    whole = lines(copy)
    (copy.root / "provenance.jsonl").write_bytes(b"".join([*whole[:3], b"{}\n", *whole[3:]]))
    edit(copy, delete(qc_resolution))
    said = ct("-C", copy.root, "verify", "--quick")
    assert said.code == 3 and "line 4 is not an event" in said.out and "qc_resolution 1" in said.out


def test_breaks_in_the_chain_name_nobody_without_consent(copy: Project) -> None:
    """The number of an event, and what is wrong with it, stay."""
    set_consent(copy, ["P1"], Statement("revoked", form="form 9"))
    copy.catalog.engine.dispose()
    whole = lines(copy)
    at = next(at for at, line in enumerate(whole) if b'"subject":"counted/A1"' in line)
    for changed, problem in (
        ([*whole[:at], whole[at].replace(b'"at":"2', b'"at":"3'), *whole[at + 1 :]], "was changed after it"),
        ([*whole[: at - 1], *whole[at:]], f"event {at} is missing before it"),
        ([*whole[:at], whole[at][-60:], *whole[at + 1 :]], f"line {at + 1} is not an event"),
    ):
        (copy.root / "provenance.jsonl").write_bytes(b"".join(changed))
        for options in ((), ("--json",), ("--quick",)):
            said = ct("-C", copy.root, "verify", *options)
            assert said.code == 3 and problem in said.out, said
            assert not re.search(r"\b(P1|S1|A1)\b", said.out + said.err), said
        assert f"event {at + 1} (" in said.out or "not an event" in problem
