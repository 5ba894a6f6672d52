"""An archived project: every command and every way of Dagster reads and changes nothing, or refuses and says so."""

import hashlib
import importlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import dagster as dg
import pytest
from sqlalchemy import select, text

from ct_assets.definitions import build_assets, build_resources
from ct_assets.partitions import add_missing
from ctcore.catalog.tables import event
from ctcore.cli import _COMMANDS
from ctcore.errors import CatalogError, ProjectError, StoreError, Usage
from ctcore.project import Project
from ctcore.projects.dagster_home import launch
from ctcore.projects.leases import give_back_ours, take
from ctcore.projects.lifecycle import change_state
from ctcore.store.store import ARCHIVED
from ctcore.util.clock import today
from sensors.integrity import integrity_sensor
from sensors.jobs import jobs_sensor
from sensors.sheet import sheet_sensor
from sensors.staleness import staleness_sensor
from tests.helpers.in_dagster import run
from tests.helpers.kit import ROWS, TOML, again, assay, fail, make_all, make_project, reasons, write_sheet
from tests.helpers.shell import ct, quiet_dagster

WHY = "the paper is out"
SAID = f": {WHY}; nothing was written. To change it: `ct projects open toy --reason TEXT`"
NOT_THE_PROJECT = ("work", "dagster_home", "catalog.db-wal", "catalog.db-shm")  # caches; Dagster's own; emptied below
DECLARED = f'{TOML}\n[analyses.pathology]\nlevel = "assay"\n[analyses.pathology.columns]\nki67 = "real"\n'
READS, REFUSES = "reads", "refuses"
OUTSIDE = 'made_elsewhere = true\nlevel = "assay"\noutputs = { bam = "a.bam" }\n'
ADOPTED = "adopt outside/A1 --output bam={root}/genome.txt --made-by sarek"
# Every command in the form in which it would write if it could. A new one must be put here.
TABLE: dict[str, list[tuple[str, str]]] = {
    "init": [(REFUSES, "init {root}")],
    "register": [
        (REFUSES, "register {root}/sheet.csv"),
        (REFUSES, "register patient P9"),
        (REFUSES, "register {root}/sheet.csv --reparent S2 --yes"),
        (READS, "register {root}/sheet.csv --dry-run"),
    ],
    "purge": [(REFUSES, "purge P3 --reason asked --confirm P3"), (READS, "purge P3"), (READS, "purge --list")],
    "record": [(REFUSES, "record pathology A1 ki67=3")],
    "adopt": [(REFUSES, ADOPTED), (READS, f"{ADOPTED} --dry-run")],
    "recover": [(READS, "recover"), (READS, "recover --dry-run")],
    "schema show": [(READS, "schema show")],
    "schema diff": [(READS, "schema diff")],
    "schema check": [(READS, "schema check")],
    "schema apply": [(REFUSES, "schema apply"), (READS, "schema apply --dry-run")],
    "schema editor": [(READS, "schema editor")],
    "status": [(READS, "status"), (REFUSES, "status --excluded --reason necessary")],
    "steps check": [(READS, "steps check")],
    "batches": [(READS, "batches --by assay.library"), (REFUSES, "batches --excluded --reason necessary")],
    "stale": [(READS, "stale --why")],
    "plan": [(READS, "plan"), (READS, "plan --save {out}/plan.json")],
    "show": [(READS, "show counted/A1"), (REFUSES, "show patient/P3 --excluded --reason necessary")],
    "why": [(READS, "why joined")],
    "path": [(READS, "path counted/A1")],
    "accept": [
        (REFUSES, "accept counted/A3 --reason immaterial"),
        (REFUSES, "accept joined --undo --reason mistaken"),
        (READS, "accept --list"),
    ],
    "trace": [(READS, "trace counted/A1")],
    "impact": [(READS, "impact A1")],
    "diff": [(READS, "diff merged/S1 counted/A1")],
    "cohort": [(READS, "cohort"), (REFUSES, "cohort --excluded --reason necessary")],
    "query": [(READS, "query SELECT|*|FROM|assays"), (REFUSES, "query SELECT|1 --excluded --reason necessary")],
    "export": [(READS, "export {out}/t.csv --table assays"), (REFUSES, "export - --excluded --reason necessary")],
    "dashboard": [(READS, "dashboard {out}/d.html"), (REFUSES, "dashboard {out}/d.html --excluded --reason necessary")],
    "heatmap": [(READS, "heatmap {out}/h.svg")],
    "verify": [(READS, "verify"), (READS, "verify --quick")],
    "run": [(REFUSES, "run"), (REFUSES, "run counted/A1 --profile local")],
    "dev": [],  # a server: what it starts is below
    "jobs": [(READS, "jobs --all")],
    "logs": [(READS, "logs counted/A1")],
    "reference list": [(READS, "reference list --history")],
    "reference add": [(REFUSES, "reference add panel {root}/sheet.csv --version 1")],
    "reference bump": [
        (REFUSES, "reference bump genome {root}/sheet.csv --version 2 --reason newer --yes"),
        (READS, "reference bump genome {root}/sheet.csv --version 2 --dry-run"),
    ],
    "reference index": [(REFUSES, "reference index genome")],
    "qc add": [(REFUSES, "qc add assay/A1 contamination --reason DNA")],
    "qc resolve": [(REFUSES, "qc resolve assay/A4 qc_fail --reason repeated")],
    "qc list": [(READS, "qc list")],
    "qc history": [(READS, "qc history")],
    "consent set": [(REFUSES, "consent set patient/P1 revoked --form 1")],
    "consent restore": [
        (
            REFUSES,
            "consent restore P3 --authority IRB --reference 7 --date {day} --confirmed-by A --confirmed-by B",
        )
    ],
    "consent list": [(READS, "consent list")],
    "consent history": [(READS, "consent history")],
    "projects": [(READS, "projects")],
    "projects list": [(READS, "projects list --json")],
    "projects add": [(READS, "projects add {root}")],
    "projects remove": [(READS, "projects remove toy")],
    "projects workspace": [(READS, "projects workspace")],
    "projects set": [],  # the door: below
    "projects open": [],
}


def commands() -> Iterator[str]:
    """All that `ct` has, from its own list."""
    for name in _COMMANDS:
        command = getattr(importlib.import_module(f"ctcore.cli.{name}"), name)
        if not isinstance(command, click.Group) or command.invoke_without_command:
            yield name
        if isinstance(command, click.Group):
            yield from (f"{name} {one}" for one in command.commands)


PARTITIONS = {"counted": "assays", "merged": "specimens", "joined": "cohorts"} | {
    "assay": "assays",
    "patient": "patients",
    "reference": "references",
}


def seen(root: Path) -> dict[str, object]:
    """Every byte and every time of writing in the project; the catalog as the file that it is."""
    project = Project(root)
    with project.catalog.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("PRAGMA wal_checkpoint(TRUNCATE)"))
    project.catalog.engine.dispose()
    return {
        str(path.relative_to(root)): (
            path.stat().st_mode,
            hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "",
        )
        for path in sorted(root.rglob("*"))
        if path.relative_to(root).parts[0] not in NOT_THE_PROJECT
    }


@pytest.fixture(scope="module")
def archived(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Archived in the midst of change: raw files, the sheet, the reference, ct.toml and the store are all different."""
    rows = [*ROWS, assay("P3", "S3", "A4")]
    project = make_project(tmp_path_factory.mktemp("archive") / "toy", rows, toml=DECLARED)
    (project.root / "steps/outside.toml").write_text(OUTSIDE)
    project = again(project)
    quiet_dagster(project.root)
    make_all(project)
    fail(project, "A4")
    assert ct("-C", project.root, "consent", "set", "patient/P3", "revoked", "--form", "2").code == 0
    (project.root / "reads/A3.txt").write_text("others\n")
    assert ct("-C", project.root, "plan").code == 3
    change_state(project, "archived", WHY)
    (project.root / "ct.toml").write_text(DECLARED.replace("site = {}", "site = {}\nday = {}"))
    (project.root / "reads/A1.txt").write_text("quite other reads\n")
    (project.root / "reads/A2.txt").unlink()
    (project.root / "genome.txt").write_text("TTTT\n")
    write_sheet(project.root, [row for row in (*rows, assay("P4", "S4", "A5")) if row["assay_id"] != "A2"])
    damaged = next(project.store.root.glob("merged/S1/*/n.txt"))
    damaged.chmod(0o644)
    damaged.write_text("gone wrong\n")
    return project.root


def test_every_command_is_in_the_table() -> None:
    assert sorted(commands()) == sorted(TABLE)


@pytest.mark.parametrize(("kind", "line"), [one for some in TABLE.values() for one in some], ids=str)
def test_a_command_reads_and_changes_nothing_or_refuses(archived: Path, tmp_path: Path, kind: str, line: str) -> None:
    if line.startswith("projects remove"):
        assert ct("projects", "add", archived).code == 0
    before = seen(archived)
    words = [word.format(root=archived, out=tmp_path, day=today()).replace("|", " ") for word in line.split()]
    said = ct("-C", archived, *words)
    assert seen(archived) == before
    if kind == READS:
        assert said.code in (0, 3) and "nothing was written. To" not in said.err, said.err
    else:
        assert said.code == 1 and "toy is archived since 20" in said.err and SAID in said.err, said.err
        assert not said.out and not list(tmp_path.iterdir())


def test_what_a_server_starts_changes_nothing_but_dagsters_own(archived: Path) -> None:
    """`ct dev` first tells Dagster of the partitions."""
    before = seen(archived)
    assert launch(Project(archived), "sync") == 0
    assert seen(archived) == before


def test_the_way_around_the_command_line_is_refused_as_well(archived: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = seen(archived)
    assert launch(Project(archived), "run") == 1
    assert SAID in capfd.readouterr().err
    store = Project(archived).store
    staged = archived / "store" / ".staging" / "x"
    for refused in (
        store.ensure,
        lambda: store.stage("counted", "A1", "0" * 64),
        lambda: store.publish(staged, "counted", "A1", "0" * 64, {}, ["n.txt"]),
        lambda: store.remove(next(store.root.glob("counted/A1/*"))),
        lambda: store.sweep(0),
        lambda: store.drop_staged([("counted", "A1", "0" * 64)]),
    ):
        with pytest.raises(StoreError, match=WHY):
            refused()
    with pytest.raises(CatalogError, match=WHY), Project(archived).catalog.write() as writer:
        writer.event("register", "nobody", {})
    assert seen(archived) == before


# Dagster


@pytest.mark.parametrize("asset", ["counted", "merged", "joined", "assay", "patient", "reference"])
def test_what_is_materialized_in_dagster_fails_with_the_words(archived: Path, asset: str) -> None:
    before = seen(archived)
    with dg.instance_for_test() as instance:
        project = again(Project(archived))
        add_missing(project, instance)
        key = instance.get_dynamic_partitions(f"toy.{PARTITIONS[asset]}")[0]
        done = run(project, instance, asset, partition_key=key, raise_on_error=False)
        failed = [event for event in done.all_events if event.is_step_failure]
        assert not done.success and not done.asset_materializations_for_node(asset)
        assert SAID in str(failed[0].step_failure_data.error)
    assert seen(archived) == before


def test_the_plan_and_the_checks_are_read_in_dagster(archived: Path) -> None:
    before = seen(archived)
    with dg.instance_for_test() as instance:
        project = again(Project(archived))
        assert run(project, instance, "plan").success
        keys = {dg.AssetCheckKey(dg.AssetKey("merged"), name) for name in ("bytes", "fresh", "completeness")}
        checks = dg.AssetSelection.checks(*keys)
        one = dg.define_asset_job("checks", checks)
        defs = dg.Definitions(assets=build_assets(project), resources=build_resources(project), jobs=[one])
        done = defs.resolve_job_def("checks").execute_in_process(instance=instance, raise_on_error=False)
        found = {one.check_name: one.passed for one in done.get_asset_check_evaluations()}
        assert found == {"bytes": False, "fresh": False, "completeness": False}
    assert seen(archived) == before


@pytest.mark.parametrize("make", [sheet_sensor, staleness_sensor, integrity_sensor, jobs_sensor])
def test_every_sensor_skips_and_says_why(archived: Path, make: Callable[[Project], dg.SensorDefinition]) -> None:
    before = seen(archived)
    project = again(Project(archived))
    with dg.instance_for_test() as instance:
        sensor = make(project)
        defs = dg.Definitions(assets=build_assets(project), resources=build_resources(project), sensors=[sensor])
        context = dg.build_sensor_context(instance=instance, definitions=defs, resources=build_resources(project))
        tick = sensor.evaluate_tick(context)
    assert SAID in (tick.skip_message or "") and not tick.run_requests and not tick.dynamic_partitions_requests
    assert seen(archived) == before


# The door


def test_reopening_takes_a_reason_and_is_on_record(tmp_path: Path) -> None:
    project = make_project(tmp_path / "toy")
    at = ("-C", project.root)
    assert ct(*at, "projects", "set", "toy", "archived").code == 2
    assert ct(*at, "projects", "set", "toy", "archived", "--reason", " ").code == 2
    assert ct(*at, "projects", "set", "toy", "archived", "--reason", WHY).code == 0
    assert "nothing to change" in ct(*at, "projects", "set", "toy", "archived", "--reason", WHY).err
    assert ct(*at, "register", "patient", "P7").code == 1
    assert ct(*at, "projects", "open", "toy", "--reason", "P2 has withdrawn").code == 0
    assert ct(*at, "register", "patient", "P7").code == 0
    assert set(make_all(again(project)).values()) == {"made"}
    with project.catalog.read() as connection:
        rows = connection.execute(select(event.c.body, event.c.actor).where(event.c.kind == "project")).all()
    said = [json.loads(row.body) for row in rows]
    assert [(one["from"], one["state"], one["reason"]) for one in said] == [
        ("active", "archived", WHY),
        ("archived", "active", "P2 has withdrawn"),
    ]
    assert all(row.actor == one["by"] for row, one in zip(rows, said, strict=True))


def test_a_state_is_shown_and_complete_only_says_it_grows(tmp_path: Path) -> None:
    project = make_project(tmp_path / "toy")
    at = ("-C", project.root)
    assert "complete" not in ct(*at, "status").err
    assert ct(*at, "projects", "set", "toy", "complete", "--reason", "the last is in").code == 0
    assert "toy is complete since 20" in ct(*at, "status").err
    grown = ct(*at, "register", "patient", "P7")
    assert grown.code == 0 and "the last is in; it was written nevertheless" in grown.err
    assert "nevertheless" not in ct(*at, "register", project.root / "sheet.csv").err
    assert ct(*at, "projects", "set", "toy", "archived", "--reason", "<b>out</b>").code == 0
    assert ct(*at, "dashboard", tmp_path / "page.html").code == 0
    page = (tmp_path / "page.html").read_text()
    assert "The project is archived since 20" in page and "&lt;b&gt;out&lt;/b&gt;" in page


def test_what_is_being_made_keeps_a_project_from_being_archived(tmp_path: Path) -> None:
    project = make_project(tmp_path / "toy")
    mine = take(project, [("k" * 64, ("counted", "A1"))], None)
    with pytest.raises(ProjectError, match="1 nodes are being made and 0 jobs"):
        change_state(project, "archived", WHY)
    assert not project.catalog.project_state().is_archived and not (project.store.root / ARCHIVED).exists()
    give_back_ours(project, mine)
    change_state(project, "archived", WHY)
    assert reasons(again(project))


def test_a_crash_between_catalog_and_store_is_repaired(tmp_path: Path) -> None:
    project = make_project(tmp_path / "toy")
    change_state(project, "archived", WHY)
    (project.store.root / ARCHIVED).unlink()
    with pytest.raises(Usage, match="nothing to change"):
        change_state(project, "archived", WHY)
    with pytest.raises(StoreError, match=WHY):
        project.store.ensure()


def test_a_state_holds_on_both_databases(tmp_path: Path, catalog_url: str) -> None:
    project = make_project(tmp_path / "toy")
    change_state(project, "archived", WHY)
    with pytest.raises(CatalogError, match=WHY), again(project).catalog.write():
        pass
    change_state(project, "complete", "all are in")
    with again(project).catalog.write() as writer:
        writer.event("warn", "P1", {})
    assert again(project).catalog.project_state().state == "complete"
