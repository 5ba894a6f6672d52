"""After a purge, Dagster's event log has nothing of what was purged, and all of the rest."""

import os
import signal
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from itertools import count, takewhile
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from sqlalchemy import select, text

from ct_assets.asset_keys import PROJECT_TAG
from ct_assets.definitions import build_assets, build_resources
from ct_assets.partitions import add_missing
from ct_assets.purged_events import wipe_purged
from ctcore.catalog.tables import materialization, tombstone
from ctcore.deletion.proof import check
from ctcore.deletion.purge import list_purges, pending_purges, remove
from ctcore.governance.consent import Statement, set_consent
from ctcore.inputs.current import forget
from ctcore.project import Project
from ctcore.projects.dagster_home import dagster_schema
from sensors.integrity import integrity_sensor
from sensors.staleness import staleness_sensor
from tests.deletion.test_purge import STEPS, cohort, word
from tests.helpers.in_dagster import run, span
from tests.helpers.killing import Moments, forked
from tests.helpers.kit import TOML, again, make_project
from tests.helpers.shell import ct, quiet_dagster, shell

PREVIEWED = STEPS.replace('outputs={"words": "words.txt"}', 'outputs={"words": Output("words.tsv", preview=True)}')
PREVIEWED = PREVIEWED.replace("import Call, step", "import Call, Output, step")


@pytest.fixture(params=["sqlite", "postgresql"])
def instance(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """Dagster with its storage in either database."""
    overrides: dict[str, Any] = {}
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres_url").replace("://", "+psycopg2://", 1)
        overrides["storage"] = {"postgres": {"postgres_url": url}}
    with dg.instance_for_test(temp_dir=str(tmp_path), overrides=overrides) as made:
        yield made


def made(project: Project, instance: dg.DagsterInstance, asset: str, *keys: str) -> None:
    more = {"partition_key": keys[0]} if len(keys) == 1 else {"tags": span(*keys)}
    assert run(project, instance, asset, **more).success


def holders(folder: Path, instance: dg.DagsterInstance, patient: str) -> list[str]:
    """Files and tables of Dagster that have the person's word in them."""
    found = [path for path in folder.rglob("*") if path.is_file() and "toy" not in path.parts]
    names = [str(path.relative_to(folder)) for path in found if word(patient).encode() in path.read_bytes()]
    storage: Any = instance.event_log_storage
    with storage.index_connection() as connection:
        if connection.dialect.name == "postgresql":
            tables = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'"
            for name in connection.execute(text(tables)).scalars().all():
                rows = text(f'SELECT count(*) FROM "{name}" AS t WHERE t::text LIKE :word')
                names += [name] if connection.execute(rows, {"word": f"%{word(patient)}%"}).scalar() else []
    return names


def told(instance: dg.DagsterInstance, asset: str) -> set[str]:
    return set(instance.get_materialized_partitions(dg.AssetKey(asset)))


def test_dagster_forgets_what_was_purged_and_nothing_else(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    fails = '    raise ValueError("P1: " + call.one("all")["words"].read_text())\n'
    steps = PREVIEWED.replace(line := "few(call: Call) -> None:\n", line + fails)
    project = make_project(tmp_path / "toy", cohort(tmp_path / "toy", [[1], [2]]), steps=steps)
    add_missing(project, instance)
    made(project, instance, "heard", "A000", "A101")
    made(project, instance, "merged", "S10")
    made(project, instance, "merged", "S00")
    made(project, instance, "joined", "all")
    made(project, instance, "assay", "A000", "A101")
    assert not run(project, instance, "few", partition_key="all", raise_on_error=False).success
    assert holders(tmp_path, instance, "P1") and holders(tmp_path, instance, "P0")
    set_consent(project, ["P1"], Statement("revoked", form="letter"))
    remove(project, "P1", "asked", "P1")
    tick = integrity_sensor(project)
    with dg.build_sensor_context(instance=instance, resources=build_resources(project)) as context:
        result = tick(context)
    assert isinstance(result, dg.SensorResult) and result.cursor == "1"
    assert told(instance, "heard") == {"A000"} and told(instance, "merged") == {"S00"}
    assert told(instance, "joined") == set() and told(instance, "assay") == {"A000"}
    assert wipe_purged(project, instance, 1) == (1, 0)
    made(project, instance, "joined", "all")
    assert told(instance, "joined") == {"all"}
    assert wipe_purged(project, instance, 0) == (1, 0), "what was told later stays"
    assert holders(tmp_path, instance, "P1") == []
    assert holders(tmp_path, instance, "P0")


def test_after_a_recovery_dagster_is_cleaned_of_all_purges(
    tmp_path: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that turned up may have a lower number than the last."""
    project = make_project(tmp_path / "toy", cohort(tmp_path / "toy", [[1], [2]]), steps=STEPS)
    set_consent(project, ["P1"], Statement("revoked", form="letter"))
    remove(project, "P1", "asked", "P1")
    after: list[int] = []

    def wiped(project: Project, instance: dg.DagsterInstance, number: int) -> tuple[int, int]:
        after.append(number)
        return wipe_purged(project, instance, number)

    monkeypatch.setattr("sensors.integrity.wipe_purged", wiped)
    cursor = None
    for is_lost in (False, False, True, False):
        if is_lost:
            (project.root / "provenance.jsonl").write_text("")
            assert ct("-C", project.root, "recover").code == 0
        resources = build_resources(project)
        with dg.build_sensor_context(instance=instance, resources=resources, cursor=cursor) as context:
            result = integrity_sensor(project)(context)
        assert isinstance(result, dg.SensorResult)
        cursor = result.cursor
    assert after == [0, 1, 0, 1]


@pytest.mark.parametrize("level", ["patient", "specimen", "assay"])
def test_a_range_run_says_nothing_of_a_person_purged_meanwhile(tmp_path: Path, level: str) -> None:
    project = make_project(tmp_path / "toy", cohort(tmp_path / "toy", [[1], [1], [1]]), steps=STEPS)
    set_consent(project, ["P1"], Statement("revoked", form="letter"))
    remove(project, "P1", "asked", "P1")
    ids = {"patient": ["P0", "P1", "P2"], "specimen": ["S00", "S10", "S20"], "assay": ["A000", "A100", "A200"]}[level]
    with dg.instance_for_test(temp_dir=str(tmp_path)) as instance:
        add_missing(project, instance)
        made(project, instance, level, ids[0], ids[2])
        made(project, instance, level, ids[1])
        assert told(instance, level) == {ids[0], ids[2]}


def checked_alone(project: Project, instance: dg.DagsterInstance) -> str:
    """What the check says of made files to which a stricter contract has come."""
    path = project.root / "steps" / "toy.py"
    strict = PREVIEWED.replace("preview=True", 'contract=Table({"x": "text"})', 1)
    path.write_text(strict.replace("from ctcore.step", "from ctcore.contract import Table\nfrom ctcore.step"))
    look = dg.define_asset_job("look", dg.AssetSelection.checks(dg.AssetCheckKey(dg.AssetKey("heard"), "contract")))
    now = again(project)
    defs = dg.Definitions(assets=build_assets(now), jobs=[look], resources=build_resources(now))
    (said,) = defs.resolve_job_def("look").execute_in_process(instance=instance).get_asset_check_evaluations()
    return str(said.metadata)


def test_dagster_forgets_all_despite_repeated_kills(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    project = make_project(tmp_path / "toy", cohort(tmp_path / "toy", [[1], [1]]), steps=PREVIEWED)
    add_missing(project, instance)
    for who in ("A000", "A100"):
        made(project, instance, "heard", who)
    assert word("P1") in checked_alone(project, instance)
    set_consent(project, ["P1"], Statement("revoked", form="letter"))
    remove(project, "P1", "asked", "P1")
    project.catalog.engine.dispose()

    def wiped(at: int) -> int:
        def work() -> int:
            Moments(tmp_path / "moments", at).watch()
            wipe_purged(Project.find(project.root), instance)
            return 0

        return forked(work, tmp_path / "log")

    assert holders(tmp_path, instance, "P1")
    ends = list(takewhile(lambda code: code == -9, map(wiped, count(0, 2))))
    assert len(ends) > 10 and wiped(1_000_000) == 0, (tmp_path / "log").read_text()
    assert holders(tmp_path, instance, "P1") == [] and holders(tmp_path, instance, "P0")
    assert told(instance, "heard") == {"A000"}


def rows_in(home: Path) -> dict[tuple[Path, str, int], dict[str, Any]]:
    """Every row of Dagster's databases: file, table and number → its columns."""
    found: dict[tuple[Path, str, int], dict[str, Any]] = {}
    for place in sorted(home.rglob("*.db")):
        with closing(sqlite3.connect(place)) as connection:
            for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
                names = [row[1] for row in connection.execute(f'PRAGMA table_info("{table}")')]
                for number, *values in connection.execute(f'SELECT rowid, * FROM "{table}"'):
                    found[place, table, number] = dict(zip(names, values, strict=True))
    return found


def put_back(at: tuple[Path, str, int], row: dict[str, Any]) -> None:
    place, table, number = at
    names, marks = ", ".join(f'"{name}"' for name in row), ", ".join("?" * (len(row) + 1))
    with closing(sqlite3.connect(place)) as connection:
        statement = f'INSERT OR REPLACE INTO "{table}" (rowid, {names}) VALUES ({marks})'
        connection.execute(statement, (number, *row.values()))
        connection.commit()


def taken(at: tuple[Path, str, int]) -> None:
    place, table, number = at
    with closing(sqlite3.connect(place)) as connection:
        connection.execute(f'DELETE FROM "{table}" WHERE rowid = ?', (number,))
        connection.commit()


UNTOLD = (
    "ASSET_CHECK_EVALUATION",
    "ASSET_MATERIALIZATION_PLANNED",
    "STEP_OUTPUT",
)  # in a run of others, they name nobody


def test_every_row_put_back_into_dagster_is_found(tmp_path: Path) -> None:
    project = make_project(tmp_path / "toy", cohort(tmp_path / "toy", [[1], [2]]), steps=PREVIEWED)
    home = project.dagster_home
    home.mkdir()
    with dg.instance_for_test(temp_dir=str(home)) as instance:
        add_missing(project, instance)
        for asset, *keys in (("heard", "A000", "A101"), ("heard", "A100"), ("merged", "S10"), ("merged", "S00")):
            made(project, instance, asset, *keys)
        made(project, instance, "joined", "all")
        made(project, instance, "assay", "A000", "A101")
        before = rows_in(home)
        set_consent(project, ["P1"], Statement("revoked", form="letter"))
        remove(project, "P1", "asked", "P1")
        assert {where for where, _ in check(project, 1).findings} >= {"dagster_home/history/runs/index.db"}
        assert wipe_purged(project, instance)[0] == 1 and check(project, 1).findings == ()
        now = rows_in(home)
        gone = {at: row for at, row in before.items() if now.get(at) != row and at[1] != "sqlite_sequence"}
        with project.catalog.read() as connection:
            theirs = set(connection.execute(select(materialization.c.run_id).join(tombstone)).scalars())
        rows: dict[tuple[Any, ...], Any] = {}
        for at, row in gone.items():
            if row.get("dagster_event_type") not in UNTOLD or row["run_id"] in theirs:
                kind = (at[0].name == "index.db", at[1], row.get("dagster_event_type"), row.get("step_key"))
                rows.setdefault(kind, (at, row))
        assert len(rows) > 20
        for kind, (at, row) in rows.items():
            put_back(at, row)
            found = check(project, 1).findings
            assert [where for where, _ in found] == [str(at[0].relative_to(project.root))], (kind, found)
            assert "`ct purge P1 --reason TEXT --confirm P1` removes it from Dagster's storage" in found[0][1]
            put_back(at, now[at]) if at in now else taken(at)
        assert check(project, 1).findings == ()
        for at, row in rows.values():
            put_back(at, row)
        remove(project, "P1", "asked again", "P1")
        assert wipe_purged(project, instance, 1)[0] == 2 and check(project, 1).findings == ()
        assert {at: row for at, row in rows_in(home).items() if at in now} == now, "of others nothing went"


@pytest.mark.parametrize("where", ["on the way", "while Dagster forgets it"])
def test_a_purge_killed_before_dagster_forgot_is_one_purge(tmp_path: Path, where: str) -> None:
    project = make_project(tmp_path / "toy", cohort(tmp_path / "toy", [[1], [1]]), steps=STEPS)
    project.dagster_home.mkdir()
    with dg.instance_for_test(temp_dir=str(project.dagster_home)) as instance:
        add_missing(project, instance)
        made(project, instance, "heard", "A000", "A100")
    set_consent(project, ["P1"], Statement("revoked", form="letter"))
    project.catalog.engine.dispose()

    def wipe(after: int) -> None:
        with dg.instance_for_test(temp_dir=str(project.dagster_home)) as instance:
            wipe_purged(again(project), instance, after)

    def die(_: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def killed() -> int:
        forget()
        if where == "on the way":
            sys.addaudithook(lambda name, _: die(name) if name == "os.remove" else None)
        remove(Project.find(project.root), "P1", "asked", "P1", wipe=die)
        return 0

    assert forked(killed, tmp_path / "log") == -9
    assert pending_purges(again(project)) and check(again(project), 1).findings
    assert [one.number for one in remove(again(project), "P1", "asked", "P1", wipe=wipe)] == [1]
    assert len(list_purges(again(project))) == 1 and check(again(project), 1).findings == ()
    assert remove(again(project), "P1", "asked", "P1", wipe=wipe) == []


def test_the_command_itself_takes_it_out_of_dagsters_storage(tmp_path: Path) -> None:
    project = make_project(tmp_path / "toy", cohort(tmp_path / "toy", [[1], [1]]), steps=PREVIEWED)
    root = quiet_dagster(project.root)
    assert shell("-C", root, "run").code == 0
    assert shell("-C", root, "consent", "set", "P1", "revoked", "--form", "letter").code == 0

    def told() -> list[str]:
        found = [path for path in (root / "dagster_home").rglob("*") if path.is_file()]
        return [path.name for path in found if word("P1").encode() in path.read_bytes()]

    assert told()
    done = shell("-C", root, "purge", "P1", "--reason", "letter", "--confirm", "P1")
    assert done.code == 0 and told() == []
    proof = shell("-C", root, "purge", "--check", "1")
    assert (proof.code, proof.out) == (0, "")


def test_on_postgresql_rows_put_back_or_set_aside_are_found(
    tmp_path: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CT_POSTGRES_URL", postgres_url)
    project = make_project(tmp_path / "toy", cohort(tmp_path / "toy", [[1], [1]]), steps=PREVIEWED)
    root, env, own = quiet_dagster(project.root), {"CT_POSTGRES_URL": postgres_url}, project.catalog.schema
    assert shell("-C", root, "run", env=env).code == 0
    set_consent(project, ["P1"], Statement("revoked", form="letter"))
    aside = f"{own[:50]}_aside_1"
    with project.catalog.exclusive() as connection:
        connection.execute(text(f'CREATE SCHEMA "{aside}"'))
        for name in ("event", "entity"):
            connection.execute(text(f'CREATE TABLE "{aside}".{name} AS TABLE "{own}".{name}'))
    remove(project, "P1", "asked", "P1")
    found = dict(check(again(project), 1).findings)
    dagsters = f"schema {dagster_schema(own)}"
    assert found.keys() == {f"schema {aside}", dagsters}, found
    assert found[f"schema {aside}"].endswith(f'of patient P1; yours to remove: DROP SCHEMA "{aside}" CASCADE')
    assert "`ct purge P1 --reason TEXT --confirm P1` removes it from Dagster's storage" in found[dagsters]
    done = shell("-C", root, "purge", "P1", "--reason", "again", "--confirm", "P1", env=env)
    assert done.code == 0 and [where for where, _ in check(again(project), 1).findings] == [f"schema {aside}"]
    with project.catalog.exclusive() as connection:
        connection.execute(text(f'DROP SCHEMA "{aside}" CASCADE'))
    assert check(again(project), 1).findings == ()


# Several projects in one instance


def sharing(root: Path, project_id: str) -> Project:
    """A project with the same people and steps as the other one, and a word of its own in all that contains them."""
    rows = cohort(root, [[1], [2]])
    for path in (root / "reads").iterdir():
        path.write_text(f"{project_id} {path.read_text()}")
    toml = TOML.replace('id = "toy"', f'id = "{project_id}"') + '\n[dagster]\nhome = "../dagster"\n'
    return make_project(root, rows, steps=PREVIEWED, toml=toml)


def asked(project: Project, instance: dg.DagsterInstance) -> set[tuple[str, str]]:
    """What the sensor asks for: each run with its asset and its key."""
    with dg.build_sensor_context(instance=instance, resources=build_resources(project)) as context:
        result = staleness_sensor(project)(context)
    assert isinstance(result, dg.SensorResult)
    return {(one.asset_selection[0].to_user_string(), one.run_key) for one in result.run_requests or ()}  # type: ignore[index]


def rows_of(instance: dg.DagsterInstance, project_id: str) -> dict[str, list[str]]:
    """Everything in Dagster's tables that names the project or is of a run of it, and what its runs printed."""
    runs = [run.run_id for run in instance.get_runs(filters=dg.RunsFilter(tags={PROJECT_TAG: project_id}))]
    found: dict[str, list[str]] = {}
    storage: Any = instance.event_log_storage
    with storage.index_connection() as connection:
        tables = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'"
        for name in connection.execute(text(tables)).scalars().all():
            rows = text(f'SELECT t::text FROM "{name}" AS t WHERE t::text LIKE ANY (:words)')
            words = [f"%{one}%" for one in (project_id, *runs)]
            found[name] = sorted(connection.execute(rows, {"words": words}).scalars())
    printed = [path for run in runs for path in (Path(instance.storage_directory()) / run).rglob("*.out")]
    return {**found, "printed": sorted(path.read_text() for path in printed)}


def test_purge_and_sensors_touch_no_other_project(
    tmp_path: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CT_POSTGRES_URL", postgres_url)
    storage = {"postgres": {"postgres_url": postgres_url.replace("://", "+psycopg2://", 1)}}
    with dg.instance_for_test(temp_dir=str(tmp_path), overrides={"storage": storage}) as instance:
        lung, colon = both = [sharing(tmp_path / name, name) for name in ("lung", "colon")]
        for project in both:
            add_missing(project, instance)
            made(project, instance, "heard", "A000", "A101")
            made(project, instance, "merged", "S10")
        first, others = asked(lung, instance), asked(colon, instance)
        assert {name for name, _ in first} == {name.replace("colon", "lung") for name, _ in others}
        assert {name.split("/")[0] for name, _ in first} == {"lung"}
        (colon.root / "reads" / "A101.txt").write_text("colon, anew\n")
        assert (asked(lung, instance), [name for name, _ in asked(colon, instance)]) == (set(), ["colon/heard"])

        set_consent(lung, ["P1"], Statement("revoked", form="letter"))
        remove(lung, "P1", "asked", "P1")
        before = rows_of(instance, "colon")
        assert len(before["event_logs"]) > 50 and len(before["printed"]) == 2
        assert wipe_purged(colon, instance) == (0, 0) and wipe_purged(lung, instance)[1] > 0
        assert rows_of(instance, "colon") == before
        keys = {name: instance.get_materialized_partitions(dg.AssetKey([name, "heard"])) for name in ("lung", "colon")}
        assert keys == {"lung": {"A000"}, "colon": {"A000", "A100", "A101"}}
        assert f"lung {word('P1')}" not in str(rows_of(instance, "lung"))
