"""The catalog on both back ends: it is made once, one writer at a time, all or nothing, and readers see one state."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, create_engine, event, inspect, select, text
from sqlalchemy.pool import NullPool

from ctcore.catalog import connection
from ctcore.catalog.engine import HEAD, Catalog, in_keys
from ctcore.catalog.event_log import check_chain
from ctcore.catalog.migrations import BACKENDS, new_file, tables_of_all, upgrade
from ctcore.catalog.tables import entity, file, metadata, setting
from ctcore.catalog.tables import event as event_table
from ctcore.errors import CatalogError
from ctcore.intake.raw_files import FileChanges, look
from ctcore.integrity.verify import verify
from ctcore.project import Project
from ctcore.staleness.verdicts import evaluate
from tests.helpers.kit import ROWS, again, make_all, make_project, reasons
from tests.helpers.processes import together

Open = Callable[..., Catalog]


@pytest.fixture
def open_catalog(catalog_url: str, tmp_path: Path) -> Iterator[Open]:
    """Opens the same catalog as a new process would, or that of another project in the same place."""
    opened: list[Catalog] = []

    def one(project_id: str = "toy", actor: str = "tester") -> Catalog:
        catalog = Catalog(catalog_url, project_id, tmp_path / f"{project_id}.jsonl", actor)
        opened.append(catalog)
        return catalog.open()

    yield one
    for catalog in opened:
        catalog.engine.dispose()


def patient(seq: int, name: str = "") -> dict[str, Any]:
    return {"seq": seq, "level": "patient", "id": name or f"P{seq}", "parent": None, "attributes": "{}"}


def content(catalog: Catalog) -> dict[str, list[Any]]:
    """Every row of every table."""
    with catalog.read() as connection:
        return {
            table.name: sorted(map(tuple, connection.execute(select(table))), key=repr)
            for table in metadata.tables.values()
        }


def chain(catalog: Catalog) -> list[dict[str, Any]]:
    with catalog.read() as connection:
        return [dict(row) for row in connection.execute(select(event_table).order_by(event_table.c.seq)).mappings()]


def shape(connection: Connection) -> dict[str, Any]:
    """All that the database says of its tables."""
    look_at = inspect(connection)
    return {
        name: {
            "columns": [
                (column["name"], str(column["type"]), column["nullable"], column.get("comment"))
                for column in look_at.get_columns(name)
            ],
            "key": look_at.get_pk_constraint(name)["constrained_columns"],
            "foreign": sorted(
                (key["constrained_columns"], key["referred_table"], key["referred_columns"], key["options"])
                for key in look_at.get_foreign_keys(name)
            ),
            "unique": sorted(one["column_names"] for one in look_at.get_unique_constraints(name)),
            "indexes": sorted((one["name"], one["column_names"]) for one in look_at.get_indexes(name)),
            "checks": sorted(one["sqltext"] for one in look_at.get_check_constraints(name)),
            "options": look_at.get_table_options(name),
        }
        for name in look_at.get_table_names()
        if name != "alembic_version"
    }


def test_migrations_make_the_tables_that_the_code_declares(open_catalog: Open, tmp_path: Path) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    catalog = open_catalog()
    with catalog.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
        migrated = shape(connection)
    declared = open_catalog("declared")
    if catalog.is_sqlite:
        declared.engine = create_engine(f"sqlite:///{tmp_path / 'declared.db'}", poolclass=NullPool)
    with declared.engine.begin() as connection:
        metadata.drop_all(connection)
        metadata.create_all(connection)
        assert migrated == shape(connection)
    assert set(migrated) == set(metadata.tables)


def test_the_code_knows_the_last_migration(open_catalog: Open) -> None:
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    folder = Path(connection.__file__).parent / "migrations"
    config = Config()
    config.set_main_option("script_location", str(folder))
    assert ScriptDirectory.from_config(config).get_heads() == [HEAD]
    assert open_catalog().version() == HEAD


# What there is in the one schema, in an order of its own.
_TABLES = {
    "sqlite": ["SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY rowid"],
    "postgresql": [
        "SELECT table_name, ordinal_position, column_name, data_type, is_nullable, column_default, "
        "col_description((quote_ident(table_schema) || '.' || quote_ident(table_name))::regclass, ordinal_position) "
        "FROM information_schema.columns WHERE table_schema = current_schema() ORDER BY 1, 2",
        "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint "
        "WHERE connamespace = current_schema()::regnamespace ORDER BY 1, 2",
        "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = current_schema() ORDER BY 1, 2",
        "SELECT proname, prosrc FROM pg_proc WHERE pronamespace = current_schema()::regnamespace ORDER BY 1",
        "SELECT tgrelid::regclass::text, tgname, pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal "
        "ORDER BY 1, 2",
    ],
}


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_tables_of_all_migrations_are_written_down(backend: str) -> None:
    assert new_file(backend).read_text() == tables_of_all(backend), "run python -m ctcore.catalog.migrations"


def test_a_new_catalog_is_what_all_migrations_make(catalog_url: str, tmp_path: Path) -> None:
    made = {}
    for name, revisions in {"new": ["head"], "migrated": ["0001", "0006", "head"]}.items():
        catalog = Catalog(f"{catalog_url}{name if 'sqlite' in catalog_url else ''}", name, tmp_path / f"{name}.jsonl")
        for revision in revisions:
            upgrade(catalog, revision)
        with catalog.read() as reading:
            listed = [tuple(row) for each in _TABLES[reading.dialect.name] for row in reading.execute(text(each))]
            made[name] = [*listed, catalog.version()]
            schema = reading.scalar(text("SELECT current_schema()")) if reading.dialect.name == "postgresql" else ""
        made[name] = [str(row).replace(str(schema), "") if schema else row for row in made[name]]
        catalog.engine.dispose()
    assert len(made["new"]) > 50 and made["new"] == made["migrated"] and made["new"][-1] == HEAD


def test_opening_twice_changes_nothing(open_catalog: Open) -> None:
    first = open_catalog()
    with first.write() as writer:
        writer.insert(entity, [patient(1)])
        writer.event("register", "sheet", {"new": 1})
    before = content(first)
    assert content(open_catalog()) == before
    upgrade(first)
    assert content(first) == before


def test_two_processes_may_open_a_new_catalog_at_one_moment(catalog_url: str, tmp_path: Path) -> None:
    write = "with catalog.write() as writer: writer.event('hello', who, 1)\n"
    ended = together(catalog_url, tmp_path / "toy.jsonl", [write] * 4)
    assert ended == [(0, "")] * 4
    events = chain(Catalog(catalog_url, "toy", tmp_path / "toy.jsonl").open())
    assert {row["actor"] for row in events} == {f"writer{number}" for number in range(4)}


def test_a_migration_that_fails_halfway_leaves_nothing(catalog_url: str, tmp_path: Path) -> None:
    catalog = Catalog(catalog_url, "toy", tmp_path / "toy.jsonl")

    def fail(_c: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if "CREATE TABLE materialization" in statement:
            raise KeyboardInterrupt

    event.listen(catalog.engine, "before_cursor_execute", fail)
    with pytest.raises(KeyboardInterrupt):
        catalog.open()
    event.remove(catalog.engine, "before_cursor_execute", fail)
    assert catalog.version() is None
    with catalog.read() as connection:
        assert inspect(connection).get_table_names() == []
    assert catalog.open().version() == HEAD


def test_a_catalog_of_a_newer_ct_is_refused_and_stays_as_it_is(open_catalog: Open) -> None:
    catalog = open_catalog()
    with catalog.write() as writer:
        writer.insert(entity, [patient(1)])
        writer.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    before = content(catalog)
    with pytest.raises(CatalogError, match=r"is of version 9999.* knows up to .*newer ct.*nothing was changed"):
        open_catalog()
    assert content(catalog) == before
    assert catalog.version() == "9999"


def test_foreign_keys_hold(open_catalog: Open) -> None:
    catalog = open_catalog()
    row = {"path": "x", "digest": "x", "size": 1, "mtime_ns": 1, "inode": 1, "problem": None}
    with pytest.raises(CatalogError, match=r"(?i)foreign key"), catalog.write() as writer:
        writer.insert(file, [{"entity": 77, "role": "reads", **row}])
    with catalog.write() as writer:
        writer.insert(entity, [patient(1)])
        writer.insert(file, [{"entity": 1, "role": "reads", **row}])
    with pytest.raises(CatalogError, match=r"(?i)foreign key"), catalog.write() as writer:
        writer.execute(entity.delete())


@pytest.mark.parametrize(
    "row",
    [
        {**patient(1), "level": "cohort", "parent": 2},
        {**patient(1), "level": "specimen"},
        {**patient(1), "parent": 2},
        patient(3, "P2"),
    ],
    ids=["no such level", "specimen of nobody", "patient of a patient", "the same ID twice"],
)
def test_an_entity_that_cannot_be_is_refused(open_catalog: Open, row: dict[str, Any]) -> None:
    catalog = open_catalog()
    with catalog.write() as writer:
        writer.insert(entity, [patient(2)])
    with pytest.raises(CatalogError, match=r"(?i)constraint"), catalog.write() as writer:
        writer.insert(entity, [row])


class Broken(Exception):
    pass


def _raise(_writer: Any) -> None:
    raise Broken


@pytest.mark.parametrize(
    ("last", "error"),
    [
        (_raise, Broken),
        (lambda writer: writer.insert(entity, [patient(1)]), CatalogError),
        (lambda writer: writer.event("no JSON", "x", float("nan")), ValueError),
        (lambda writer: writer.event("no text", "x", "\ud800"), ValueError),
    ],
    ids=["an exception", "a refused row", "an event without a JSON text", "an event without a text"],
)
def test_a_transaction_that_fails_at_its_end_changes_nothing(
    open_catalog: Open, last: Callable[[Any], None], error: type[BaseException]
) -> None:
    catalog = open_catalog()
    with catalog.write() as writer:
        writer.insert(entity, [patient(1)])
        writer.event("register", "sheet", 1)
    before, journal = content(catalog), catalog.journal.path.read_bytes()
    with pytest.raises(error), catalog.write() as writer:
        writer.insert(entity, [patient(2)])
        writer.event("register", "sheet", 2)
        last(writer)
    assert content(catalog) == before
    assert catalog.journal.path.read_bytes() == journal
    assert catalog.journal.path.read_bytes().count(b"\n") == 1


def test_a_reader_sees_one_state_while_others_write(open_catalog: Open) -> None:
    reader, other = open_catalog(), open_catalog()
    with reader.read() as connection:
        before = connection.execute(select(entity)).all()
        with other.write() as writer:
            writer.insert(entity, [patient(1)])
        assert connection.execute(select(entity)).all() == before == []
    with reader.read() as connection:
        assert len(connection.execute(select(entity)).all()) == 1


def test_who_waits_too_long_for_another_writer_is_told_so(open_catalog: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "BUSY_MS", 200)
    first, second = open_catalog(), open_catalog()
    with first.write() as writer:
        writer.insert(setting, [{"name": "a", "value": "1"}])
        with pytest.raises(CatalogError, match="another process has been writing"), second.write() as late:
            late.insert(setting, [{"name": "b", "value": "2"}])
    with second.write() as writer:
        writer.insert(setting, [{"name": "b", "value": "2"}])
    assert {row[0] for row in content(first)["setting"]} - {"project", "place"} == {"a", "b"}


def test_many_writers_make_one_whole_chain(catalog_url: str, tmp_path: Path) -> None:
    body = """
for number in range(15):
    with catalog.write() as writer:
        writer.insert(setting, [{"name": f"{who}-{number}", "value": "x"}])
        for part in range(number % 3):
            writer.event("count", who, [number, part])
"""
    journal = tmp_path / "toy.jsonl"
    ended = together(catalog_url, journal, ["from ctcore.catalog.tables import setting\n" + body] * 4)
    assert ended == [(0, "")] * 4
    catalog = Catalog(catalog_url, "toy", journal).open()
    events = chain(catalog)
    assert len(events) == 4 * 15
    assert check_chain(iter(events)) == []
    assert list(catalog.journal.read()) == events
    for number in range(4):
        mine = [json.loads(row["body"]) for row in events if row["actor"] == f"writer{number}"]
        assert mine == sorted(mine)


@pytest.mark.parametrize(
    "names", [("first", "second"), ("a-b", "ab"), ("x" * 61 + "one", "x" * 61 + "two")], ids=["plain", "-", "long"]
)
def test_two_projects_in_one_database_are_apart(postgres_url: str, tmp_path: Path, names: tuple[str, str]) -> None:
    one, other = (Catalog(postgres_url, name, tmp_path / f"{name}.jsonl").open() for name in names)
    with one.write() as writer:
        writer.insert(entity, [patient(1, "only-here")])
        writer.event("register", "sheet", "only here")
    assert not any(content(other).values())
    with other.write() as writer:
        writer.insert(entity, [patient(1, "only-there")])
        writer.event("register", "sheet", "only there")
    assert [row["seq"] for row in chain(other)] == [row["seq"] for row in chain(one)] == [1]
    assert one.open().version() == other.open().version() == HEAD


def test_a_schema_that_somebody_else_made_is_enough(postgres_url: str, tmp_path: Path) -> None:
    """Who may not make schemas can be given one."""
    admin = Catalog(postgres_url, "admin", tmp_path / "admin.jsonl").engine
    with admin.begin() as connection:
        connection.execute(text("CREATE ROLE analyst LOGIN"))
    try:
        url = postgres_url.replace("//ct@", "//analyst@")
        with pytest.raises(CatalogError, match=r"permission denied .*CREATE"):
            Catalog(url, "toy", tmp_path / "toy.jsonl").open()
        with admin.begin() as connection:
            connection.execute(text("CREATE SCHEMA ct_toy AUTHORIZATION analyst"))
        assert Catalog(url, "toy", tmp_path / "toy.jsonl").open().version() == HEAD
    finally:
        with admin.begin() as connection:
            connection.execute(text("DROP OWNED BY analyst"))
            connection.execute(text("DROP ROLE analyst"))


@pytest.mark.parametrize("how", ["renamed", "copied"])
def test_a_project_that_was_moved_goes_on(catalog_url: str, tmp_path: Path, how: str) -> None:
    """A copy has other inodes: `ct verify` reads it and knows it again. On PostgreSQL both would have one catalog."""
    project = make_project(tmp_path / "here")
    make_all(project)
    before = content(project.catalog)
    project.catalog.engine.dispose()
    (tmp_path / "elsewhere").mkdir()
    if how == "renamed":
        project.root.rename(tmp_path / "elsewhere" / "there")
    else:
        shutil.copytree(project.root, tmp_path / "elsewhere" / "there")
    if how == "copied" and not catalog_url.startswith("sqlite"):
        with pytest.raises(CatalogError, match="two folders have the ID toy in one database"):
            reasons(Project.find(tmp_path / "elsewhere" / "there"))
        (project.root / "ct.toml").unlink()
    moved = Project.find(tmp_path / "elsewhere" / "there")
    assert reasons(moved) == {}
    assert look(moved) == FileChanges(files=3)
    if how == "copied":
        assert verify(moved, deep=False).findings == ()
    assert make_all(moved) == {}
    unmoved = {
        name: rows for name, rows in before.items() if name not in ("digest_memory", "file", "output", "setting")
    }
    assert {name: content(moved.catalog)[name] for name in unmoved} == unmoved
    (moved.root / "reads/A1.txt").write_text("others\n")
    look(moved)
    assert make_all(moved) == {"counted/A1": "made", "merged/S1": "made", "joined/all": "made"}
    assert check_chain(moved.catalog.journal.read()) == []


def test_keys_are_looked_up_in_the_index(tmp_path: Path) -> None:
    """SQLAlchemy writes `... = 1` behind what it takes for a boolean, and SQLite then reads the whole table."""
    catalog = Catalog(f"sqlite:///{tmp_path / 'catalog.db'}", "toy", tmp_path / "toy.jsonl").open()
    wanted = select(entity.c.seq).where(entity.c.level == "assay", in_keys(entity.c.id, ["A1"]))
    with catalog.read() as connection:
        written = str(wanted.compile(connection.engine, compile_kwargs={"literal_binds": True}))
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {written}").all()
    assert "(level=? AND id=?)" in str(plan)


def _locks(path: Path) -> list[str]:
    """Of /proc/locks; without each lock's number, which counts the locks of the whole machine."""
    mine = f":{path.stat().st_ino} "
    return [line.split(":", 1)[1] for line in Path("/proc/locks").read_text().splitlines() if mine in line]


def test_rebuilding_the_file_locks_no_open_connection(tmp_path: Path) -> None:
    """POSIX locks go when the process closes the file, by whatever way it was opened."""
    project = make_project(tmp_path / "toy")
    path = tmp_path / "toy" / "catalog.db"
    with project.catalog.read() as connection:
        connection.exec_driver_sql("SELECT count(*) FROM event").scalar()
        before = _locks(path)
        project.catalog.make_file()
        assert before == _locks(path) != []


def test_another_catalog_of_the_process_compiles_nothing_anew(tmp_path: Path) -> None:
    """And its answers are its own."""
    first = make_project(tmp_path / "first")
    make_all(first)
    assert reasons(again(first)) == {}
    second = make_project(tmp_path / "second", ROWS[:1])  # its migrations are statements of their own
    compiled = len(connection.compiled_statements(None))
    make_all(second)
    assert 0 < compiled == len(connection.compiled_statements(None))
    assert [len(evaluate(one).states("counted")) for one in (again(first), again(second))] == [3, 1]
