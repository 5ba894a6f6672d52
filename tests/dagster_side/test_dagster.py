"""What Dagster shows and does with a project: definitions, runs of one and of many, checks, sensors."""

import json
import logging
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
from sqlalchemy import delete, event
from sqlalchemy.exc import IntegrityError
from sqlalchemy.pool import Pool

from ct_assets.asset_checks import check_results, check_specs
from ct_assets.compute_logs import MOST_BYTES, print_log
from ct_assets.definitions import build_assets, build_resources
from ct_assets.event_log_storage import kept_open
from ct_assets.launch import Launch
from ct_assets.partitions import add_missing
from ct_assets.runs import SHELL_TAG
from ctcore.catalog.tables import request as asked_table
from ctcore.config.settings import FILE_NAME
from ctcore.config.slurm_profiles import Needs
from ctcore.execution.materialize import Outcome
from ctcore.execution.slurm import jobs
from ctcore.governance.masking import UNMASKED
from ctcore.governance.qc import QcEntry
from ctcore.governance.qc import add as add_qc
from ctcore.intake.raw_files import look
from ctcore.intake.register import register, register_entity
from ctcore.intake.sheet_diff import AllowedChanges
from ctcore.integrity.look import look_around
from ctcore.planning.plan import Scope
from ctcore.project import Project
from ctcore.staleness.verdicts import evaluate
from sensors.integrity import integrity_sensor
from sensors.jobs import jobs_sensor
from sensors.sheet import sheet_sensor
from sensors.staleness import staleness_sensor
from tests.helpers.fake_slurm import FakeSlurm
from tests.helpers.in_dagster import RANGE, run, span
from tests.helpers.kit import ROWS, STEPS, TOML, again, assay, make_all, make_project, reasons, rot, write_sheet
from tests.helpers.shell import ct, environment, shell

CHECKED = STEPS.replace(
    'outputs={"table": "table.tsv"}', 'outputs={"table": Output("table.tsv", contract=NotEmpty(), preview=True)}'
).replace("import Call, step", "import Call, Output, step\nfrom ctcore.contract import NotEmpty")


@pytest.fixture
def project(tmp_path: Path, instance: dg.DagsterInstance) -> Project:
    made = make_project(tmp_path / "toy", steps=CHECKED)
    add_missing(made, instance)
    return made


def latest(instance: dg.DagsterInstance, asset: str, partition: str) -> dg.AssetMaterialization:
    wanted = dg.AssetRecordsFilter(asset_key=dg.AssetKey(asset), asset_partitions=[partition])
    found = instance.fetch_materializations(wanted, limit=1).records[0].asset_materialization
    assert found is not None
    return found


def test_two_processes_may_report_the_same_keys_to_dagster(
    tmp_path: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = make_project(tmp_path / "toy")
    add, others = instance.add_dynamic_partitions, ["A1"]

    def raced(name: str, keys: list[str]) -> None:
        while others and name.endswith(".assays"):  # between Dagster's own look and its writing
            add(name, [others.pop()])
            raise IntegrityError("INSERT INTO dynamic_partitions", {}, Exception("UNIQUE constraint failed"))
        add(name, keys)

    monkeypatch.setattr(instance, "add_dynamic_partitions", raced)
    add_missing(project, instance)
    assert set(instance.get_dynamic_partitions("toy.assays")) == {"A1", "A2", "A3"}
    assert add_missing(project, instance) == 0


def test_a_node_shows_what_it_is_and_what_it_was_made_from(project: Project, instance: dg.DagsterInstance) -> None:
    for name, partition in (("counted", "A1"), ("counted", "A2"), ("merged", "S1")):
        assert run(project, instance, name, partition_key=partition).success
    shown = latest(instance, "merged", "S1").metadata
    assert {
        "digest",
        "size (bytes)",
        "path",
        "inputs",
        "members",
        "memo",
        "code",
        "parameters",
        "seconds",
    } <= shown.keys()
    assert shown["memo"].value == "made (missing: never made)"
    assert (shown["asked for by"].value, shown["host"].value) == (project.catalog.actor, os.uname().nodename)
    made_from = [record.data for record in shown["inputs"].records]
    assert {row["from"] for row in made_from if row["input"] == "counts"} == {"counted/A1", "counted/A2"}
    assert [record.data["member"] for record in shown["members"].records] == ["A1", "A2"]
    assert (project.root / shown["path"].value / "n.txt").is_file()


def test_opening_the_event_log_does_not_grow_with_partitions(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    many = make_project(tmp_path / "many", [assay("P1", "S1", f"A{n:02}", sex="F") for n in range(20)])
    add_missing(many, instance)

    def opened(last: str) -> int:
        found: list[str] = []

        def note(connection: sqlite3.Connection, _record: object) -> None:
            found.extend(row[2] for row in connection.execute("PRAGMA database_list"))

        event.listen(Pool, "connect", note)
        try:
            with kept_open(instance):
                assert run(many, instance, "counted", tags=span("A00", last)).success
        finally:
            event.remove(Pool, "connect", note)
        return sum("/history/runs/" in path for path in found)

    with kept_open(instance):  # the first run makes the tables of the others
        assert run(many, instance, "counted", partition_key="A00").success
    assert 0 < opened("A01") == opened("A19")
    assert len(instance.get_materialized_partitions(dg.AssetKey("counted"))) == 20


def test_a_range_gives_each_partition_its_own_data_version(project: Project, instance: dg.DagsterInstance) -> None:
    assert run(project, instance, "counted", tags=span("A1", "A3")).success
    tags = {key: latest(instance, "counted", key).tags or {} for key in ("A1", "A2", "A3")}
    digests = {key: latest(instance, "counted", key).metadata["digest"].value for key in tags}
    assert {key: tag["dagster/data_version"] for key, tag in tags.items()} == digests
    assert reasons(again(project)).keys() == {"merged/S1", "merged/S2", "joined/all"}


def badges(project: Project, instance: dg.DagsterInstance) -> dict[str, str]:
    """What Dagster itself shows as out of step, by its own comparison."""
    from dagster._core.definitions.data_version import CachingStaleStatusResolver
    from dagster._core.loader import LoadingContextForTest

    graph = dg.Definitions(assets=build_assets(project), resources=build_resources(project)).resolve_asset_graph()
    resolver = CachingStaleStatusResolver(instance, graph, LoadingContextForTest(instance))
    return {
        f"{name}/{key}": cause.reason
        for name in ("assay", "specimen", "counted", "sized", "merged", "joined")
        for key in instance.get_materialized_partitions(dg.AssetKey(name))
        for cause in resolver.get_stale_causes(dg.AssetKey(name), key)
    }


def test_dagsters_badges_do_not_contradict_the_verdicts(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    second = """

@step(level="assay", inputs={"count": "counted"}, outputs={"n": "n.txt"})
def sized(call: Call) -> None:
    call.out("n").write_text(call.one("count")["n"].read_text())
"""
    project = make_project(tmp_path / "toy", steps=CHECKED + second)
    add_missing(project, instance)
    ranges = {"patient": ("P1", "P2"), "specimen": ("S1", "S2"), "assay": ("A1", "A3"), "counted": ("A1", "A3")}
    for name, keys in {**ranges, "sized": ("A1", "A3"), "merged": ("S1", "S2")}.items():
        assert run(project, instance, name, tags=span(*keys)).success
    run(project, instance, "joined", partition_key="all")
    run(project, instance, "assay", partition_key="A1")  # told again, the same
    run(project, instance, "specimen", partition_key="S1")
    assert badges(project, instance) == {} and reasons(again(project)) == {}
    (project.root / "reads/A1.txt").write_text("other reads of A1\n")
    look(project)
    run(again(project), instance, "assay", partition_key="A1")
    run(again(project), instance, "counted", partition_key="A1")
    assert badges(again(project), instance) == {"sized/A1": "has a new dependency data version"}
    for name, key in (("sized", "A1"), ("merged", "S1"), ("joined", "all")):
        run(again(project), instance, name, partition_key=key)
    assert badges(again(project), instance) == {} and reasons(again(project)) == {}


def test_made_again_is_a_memo_hit_that_says_so(project: Project, instance: dg.DagsterInstance) -> None:
    run(project, instance, "counted", partition_key="A1")
    first = latest(instance, "counted", "A1")
    run(project, instance, "counted", partition_key="A1")
    second = latest(instance, "counted", "A1")
    assert str(second.metadata["memo"].value).startswith("reused (same call as in ")
    assert first.metadata["digest"] == second.metadata["digest"]


def test_a_parameter_in_the_launchpad_is_another_call(project: Project, instance: dg.DagsterInstance) -> None:
    run(project, instance, "counted", partition_key="A1")
    config = {"ops": {"counted": {"config": {"factor": 7}}}}
    assert run(project, instance, "counted", partition_key="A1", run_config=config).success
    assert latest(instance, "counted", "A1").metadata["parameters"].value == "factor = 7"
    assert reasons(again(project))["counted/A1"] == ["parameters"]  # ct.toml says otherwise


def test_what_cannot_be_made_fails_the_run_and_names_the_node(project: Project, instance: dg.DagsterInstance) -> None:
    (project.root / "reads/A2.txt").unlink()
    result = run(project, instance, "counted", tags=span("A1", "A3"), raise_on_error=False)
    assert not result.success
    failure = next(event for event in result.all_events if event.is_step_failure)
    assert "A2" in str(failure.event_specific_data) and "reads/A2.txt" in str(failure.event_specific_data)
    assert set(instance.get_materialized_partitions(dg.AssetKey("counted"))) == {"A1", "A3"}


def test_a_broken_contract_publishes_nothing(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    steps = CHECKED.replace('call.out("table").write_text("".join(rows))', 'call.out("table").write_text("")')
    project = make_project(tmp_path / "toy", steps=steps)
    add_missing(project, instance)
    assert "joined/all" not in make_all(project) or make_all(project)["joined/all"] == "failed"
    assert not run(again(project), instance, "joined", partition_key="all", raise_on_error=False).success
    assert not list((project.store.root / "joined").glob("*/*")) if (project.store.root / "joined").exists() else True
    assert instance.get_materialized_partitions(dg.AssetKey("joined")) == set()


def results(result: dg.ExecuteInProcessResult) -> dict[str, bool]:
    return {found.check_name: found.passed for found in result.get_asset_check_evaluations()}


def test_checks_run_with_their_asset_and_alone(project: Project, instance: dg.DagsterInstance) -> None:
    ran = run(project, instance, "counted", tags=span("A1", "A2"))
    fine = dict.fromkeys(("bytes", "contract", "gate", "fresh"), True)
    assert results(ran) == {**fine, "completeness": False}  # A3 is missing
    run(project, instance, "counted", partition_key="A3")
    victim = next((project.store.root / "counted/A1").glob("*/n.txt"))
    victim.chmod(0o644)
    victim.write_text("something else")
    alone = _check(project, instance, "bytes")
    assert results(alone) == {"bytes": False}
    said = alone.get_asset_check_evaluations()[0].metadata
    assert "A1: n.txt" in str(said["problems"].value) and said["looked at"].value == 3


def _check(
    project: Project, instance: dg.DagsterInstance, name: str, asset: str = "counted"
) -> dg.ExecuteInProcessResult:
    defs = dg.Definitions(assets=build_assets(project), resources=build_resources(project))
    wanted = dg.AssetSelection.checks(dg.AssetCheckKey(dg.AssetKey(asset), name))
    job = dg.define_asset_job("look", selection=wanted)
    whole = dg.Definitions(assets=defs.assets, resources=defs.resources, jobs=[job])
    return whole.resolve_job_def("look").execute_in_process(instance=instance)


def test_the_values_of_metadata_stay_in_the_catalog(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    """IDs are all that Dagster's runs, tags and events say of a person."""
    rows = [{**row, "sex": "M", "age": "-987654321", "site": "SECRETSITE"} for row in ROWS]
    project = make_project(tmp_path / "toy", rows, toml=TOML.replace('"F", "M"', '"SECRETSEX", "M"'))
    add_missing(project, instance)
    make_all(project)
    changed = [{**row, "sex": "SECRETSEX"} for row in rows]
    register(project, write_sheet(project.root, changed), AllowedChanges(update=frozenset({"patient.sex"})))
    for name, key in (("patient", "P1"), ("specimen", "S1"), ("assay", "A1")):
        run(project, instance, name, partition_key=key)
    tick = staleness_sensor(project)(_context(project, instance))
    assert isinstance(tick, dg.SensorResult) and tick.run_requests
    run(project, instance, "counted", tags=span("A1", "A3"))
    run(project, instance, "merged", tags={**tick.run_requests[0].tags, **span("S1", "S2")})
    said = json.dumps([request.tags for request in tick.run_requests])
    for found in instance.get_runs():
        said += json.dumps(found.tags) + "".join(str(event) for event in instance.all_logs(found.run_id))
    assert "SECRET" not in said and "987654321" not in said
    assert "P1" in said


def _context(project: Project, instance: dg.DagsterInstance, cursor: str | None = None) -> dg.SensorEvaluationContext:
    return dg.build_sensor_context(instance=instance, cursor=cursor, resources=build_resources(project))


def _tick(sensor: dg.SensorDefinition, context: dg.SensorEvaluationContext) -> dg.SensorResult:
    found = sensor(context)
    assert isinstance(found, dg.SensorResult)
    return found


def names(request: dg.RunRequest) -> list[str]:
    return [key.to_user_string() for key in request.asset_selection or []]


def follow(project: Project, instance: dg.DagsterInstance, request: dg.RunRequest) -> dg.ExecuteInProcessResult:
    """Do what a sensor asked for."""
    one = {"partition_key": request.partition_key} if request.partition_key else {}
    return run(again(project), instance, *names(request), tags=request.tags, raise_on_error=False, **one)


def test_the_staleness_sensor_asks_for_each_node_once(project: Project, instance: dg.DagsterInstance) -> None:
    sensor = staleness_sensor(project)
    first = _tick(sensor, _context(project, instance))
    asked = [(names(one), one.tags) for one in first.run_requests or []]
    assert [assets for assets, _ in asked] == [["counted"], ["patient"], ["specimen"], ["assay"], ["reference"]]
    assert {RANGE[0]: "A1", RANGE[1]: "A3", "ct/only": "stale"}.items() <= asked[0][1].items()
    assert asked[0][1]["ct/why"] == "missing: never made (and 2 more)"
    second = _tick(sensor, _context(project, instance, first.cursor))
    assert not second.run_requests and "asked for already" in str(second.skip_reason)


def test_hand_registered_nodes_need_no_sheet_sensor(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    """Otherwise the tick fails, and what it noted as asked for is waited for in vain."""
    project = make_project(tmp_path / "toy")
    sensor = staleness_sensor(project)
    defs = dg.Definitions(assets=build_assets(project), resources=build_resources(project), sensors=[sensor])
    repository, resources = defs.get_repository_def(), build_resources(project)
    context = dg.SensorEvaluationContext(
        instance.get_ref(), None, None, None, None, None, repository, resources=resources
    )
    with context:
        tick = sensor.evaluate_tick(context)
    assert len(tick.run_requests or []) == 5
    added = {one.partitions_def_name: list(one.partition_keys) for one in tick.dynamic_partitions_requests or []}
    assert added.pop("toy.references") == ["genome"] and added.pop("toy.cohorts") == ["all"]
    assert added == {"toy.patients": ["P1", "P2"], "toy.specimens": ["S1", "S2"], "toy.assays": ["A1", "A2", "A3"]}


def test_a_tick_that_sees_nothing_new_does_nothing(project: Project, instance: dg.DagsterInstance) -> None:
    """Once all is fresh and Dagster was told, the cursor holds until something changes."""
    sensor = staleness_sensor(project)
    cursor: str | None = None
    for _ in range(12):
        tick = _tick(sensor, _context(project, instance, cursor))
        cursor = tick.cursor
        if not tick.run_requests and tick.cursor:
            break
        for request in tick.run_requests or []:
            assert follow(project, instance, request).success
    assert reasons(again(project)) == {}
    quiet = _tick(sensor, _context(project, instance, cursor))
    assert quiet.skip_reason and quiet.skip_reason.skip_message == "nothing has changed"
    (project.root / "reads/A3.txt").write_text("other reads\n")
    woken = _tick(sensor, _context(project, instance, quiet.cursor))
    assert [one.partition_key for one in woken.run_requests or []] == ["A3", "A3"]  # the step, and the assay itself
    assert "input: reads (assay/A3)" in (woken.run_requests or [])[0].tags["ct/why"]


def test_a_failing_node_is_not_asked_for_for_ever(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    project = make_project(
        tmp_path / "toy", steps=STEPS.replace("    n = len(", "    raise ValueError('no')\n    n = len(")
    )
    add_missing(project, instance)
    sensor = staleness_sensor(project)
    asked = 0
    cursor: str | None = None
    for _ in range(8):
        tick = _tick(sensor, _context(project, instance, cursor))
        cursor = tick.cursor
        for request in tick.run_requests or []:
            asked += names(request) == ["counted"]
            follow(project, instance, request)
    assert asked == 1


def test_the_plan_is_an_asset_that_shows_what_would_run(project: Project, instance: dg.DagsterInstance) -> None:
    with (project.root / FILE_NAME).open("a") as stream:
        stream.write('\n[policy]\ncounted = "ask"\n')
    config = {"ops": {"plan": {"config": {"select": ["merged/S1"]}}}}
    assert run(project, instance, "plan", run_config=config).success
    event = instance.get_latest_materialization_event(dg.AssetKey("plan"))
    shown = event.asset_materialization.metadata if event and event.asset_materialization else {}
    assert (shown["at most"].value, shown["expected"].value) == (3, 3)
    text = str(shown["plan"].value)
    assert "| counted | assay | 2 | 2 | 0 | no history | no history | 0 | no history |" in text
    assert "The staleness sensor: 2 nodes of counted waiting for a person" in text
    assert len(reasons(again(project))) == 6, "nothing was made"


def test_readiness_is_an_asset_that_shows_who_has_all_of_it(project: Project, instance: dg.DagsterInstance) -> None:
    (project.root / FILE_NAME).write_text(
        TOML.replace("[cohorts.all]\n", '[cohorts.all]\npairing = "sites"\n')
        + '[pairings.sites]\nby = "specimen.site"\norder = ["blood", "skin"]\n'
    )
    other = again(project)
    register_entity(
        other, "specimen", "S1", values={"site": "blood"}, allowed=AllowedChanges(update=frozenset(["specimen.site"]))
    )
    assert run(other, instance, "readiness").success
    event = instance.get_latest_materialization_event(dg.AssetKey("readiness"))
    shown = event.asset_materialization.metadata if event and event.asset_materialization else {}
    text = str(shown["readiness"].value)
    assert "| P1 | S1 |  | singleton | no assay of skin |" in text
    assert "0 complete, 0 incomplete, 0 broken, 1 singleton, 1 without any of it" in text
    assert (shown["sites: complete"].value, shown["sites: all"].value) == (0, 1)
    assert len(reasons(again(project))) == 6, "nothing was made"


def test_a_cohort_artifact_is_checked_for_who_is_not_in_it(project: Project, instance: dg.DagsterInstance) -> None:
    add_qc(project, [QcEntry("specimen", "S1", "qc_fail", "not for joining", step="joined")])
    make_all(project)
    step = project.steps["joined"]
    (found,) = check_results(project, step, ["readiness"], None)
    assert not found.passed and found.severity == dg.AssetCheckSeverity.WARN
    said = str(found.metadata["problems"].value)
    assert "all: 1 of 2 specimens are not among its specimens" in said
    assert "all: specimen S1: specimen S1: qc_fail for joined only" in said
    assert [spec.name for spec in check_specs(dg.AssetKey("merged"), project.steps["merged"])] == [
        "bytes",
        "contract",
        "completeness",
        "gate",
        "fresh",
    ]


def test_a_run_passes_over_what_was_not_asked_for(project: Project, instance: dg.DagsterInstance) -> None:
    """A range covers A2, which the request has not."""
    sensor = staleness_sensor(project)
    tick = _tick(sensor, _context(project, instance))
    asked = (tick.run_requests or [])[0]
    with project.catalog.write() as writer:
        writer.execute(delete(asked_table).where(asked_table.c.partition == "A2"))
    assert follow(project, instance, asked).success
    left = reasons(again(project))
    assert "counted/A2" in left and "counted/A1" not in left and "counted/A3" not in left


def test_the_sheet_sensor_registers_and_adds_partitions(project: Project, instance: dg.DagsterInstance) -> None:
    with (project.root / FILE_NAME).open("r+") as stream:
        text = stream.read().replace('id = "toy"', 'id = "toy"\nsheet = "sheet.csv"')
        stream.seek(0)
        stream.write(text)
    sensor = sheet_sensor(again(project))
    first = _tick(sensor, _context(project, instance))
    write_sheet(project.root, [*ROWS, assay("P3", "S3", "A4", sex="F", age="1")])
    second = _tick(sensor, _context(project, instance, first.cursor))
    added = {one.partitions_def_name: list(one.partition_keys) for one in second.dynamic_partitions_requests or []}
    assert added == {"toy.patients": ["P3"], "toy.specimens": ["S3"], "toy.assays": ["A4"]}
    (project.root / "sheet.csv").write_text("patient_id,specimen_id,assay_id\nP1,S 1,A1\n")
    third = _tick(sensor, _context(project, instance, second.cursor))
    assert third.skip_reason and "row 2, column specimen_id" in (third.skip_reason.skip_message or "")
    assert reasons(again(project)).keys() >= {"counted/A4"}


def test_the_integrity_sensor_fails_the_check_of_damage(project: Project, instance: dg.DagsterInstance) -> None:
    make_all(project)
    victim = next((project.store.root / "merged/S1").glob("*/n.txt"))
    victim.parent.chmod(0o755)
    victim.unlink()
    tick = _tick(integrity_sensor(project), _context(project, instance))
    failed = [event for event in tick.asset_events if isinstance(event, dg.AssetCheckEvaluation)]
    assert [(one.asset_key.to_user_string(), one.check_name, one.passed) for one in failed] == [
        ("merged", "bytes", False)
    ]
    assert reasons(again(project))["merged/S1"] == ["bytes"]


def test_the_integrity_sensor_reads_a_share_of_raw_files_too(project: Project, instance: dg.DagsterInstance) -> None:
    make_all(project)
    rot(project, project.root / "reads/A1.txt")
    tick = _tick(integrity_sensor(project), _context(project, instance))
    said = tick.skip_reason.skip_message if tick.skip_reason else ""
    assert "read 10 files and artifacts" in (said or "") and "1 inputs changed or cannot be read" in (said or "")
    assert reasons(again(project))["counted/A1"] == ["input"]


@pytest.mark.slow
def test_dagsters_own_commands_work_on_a_project(tmp_path: Path) -> None:
    root = tmp_path / "toy"
    assert shell("init", root).code == 0
    for name, text in (("ct.toml", TOML), ("genome.txt", "ACGT\n"), ("steps/toy.py", STEPS)):
        (root / name).write_text(text)
    assert shell("-C", root, "register", write_sheet(root, ROWS)).code == 0
    home = environment(DAGSTER_HOME=str(root / "dagster_home"), CT_PROJECT=str(root))

    def dagster(*arguments: str) -> str:
        command = [sys.executable, "-m", "dagster", *arguments, "-f", "definitions.py"]
        done = subprocess.run(command, cwd=root, env=home, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    assert "Validation successful" in dagster("definitions", "validate")
    dagster("asset", "materialize", "--select", "counted", "--partition", "A3")
    assert "counted/A3" not in reasons(Project.find(root))
    dagster("asset", "materialize", "--select", "counted", "--partition-range", "A1...A2")
    dagster("asset", "materialize", "--select", "merged", "--partition-range", "S1...S2")
    assert reasons(Project.find(root)).keys() == {"joined/all"}
    assert look(Project.find(root)).problems == []
    assert "DAGSTER_HOME" not in os.environ or os.environ["DAGSTER_HOME"] != home["DAGSTER_HOME"]


def test_the_same_words_everywhere(project: Project, instance: dg.DagsterInstance) -> None:
    """`ct why`, `ct stale`, the sensor's tag, the asset check and the materialization: word for word."""
    run(project, instance, "counted", tags=span("A1", "A3"))
    run(project, instance, "merged", tags=span("S1", "S2"))
    (project.root / "reads/A3.txt").write_text("other reads\n")
    (project.root / "ct.toml").write_text(TOML.replace('version = "1"', 'version = "2"'))
    now = again(project)
    look(now)
    verdicts = evaluate(now)
    changed, waiting = map(UNMASKED.verdict, (verdicts.of("counted", "A3"), verdicts.of("merged", "S2")))
    assert [r.kind for r in changed.reasons] == ["input", "reference"] and waiting.only_waits

    for verdict in (changed, waiting):
        name = "/".join(verdict.node)
        assert ct("-C", now.root, "why", name).out.splitlines()[0] == f"{name} is stale: {verdict.why}"
        row = next(line for line in ct("-C", now.root, "stale", "--why").out.splitlines() if line.startswith(name))
        assert row.split("\t")[1:] == ["stale", "changed" if verdict is changed else "about to change", verdict.why]
        listed = json.loads(ct("-C", now.root, "stale", "--why", "--json").out)["nodes"]
        reasons_said = next(one["reasons"] for one in listed if one["node"] == name)
        assert [f"{one['kind']}: {one['words']}" for one in reasons_said] == [str(r) for r in verdict.reasons]
    for asset, partition, said in (("counted", "A3", "changed"), ("merged", "S2", "about to change")):
        problems = _problems(_check(now, instance, "fresh", asset))
        assert f"- {partition} ({said}): {UNMASKED.verdict(verdicts.of(asset, partition)).why}" in problems

    tick = _tick(staleness_sensor(now), _context(now, instance))
    asked = next(one for one in tick.run_requests or [] if names(one) == ["counted"])
    assert asked.tags["ct/why"] == f"{UNMASKED.verdict(verdicts.of('counted', 'A1')).why} (and 2 more)"
    assert follow(now, instance, asked).success
    assert latest(instance, "counted", "A3").metadata["memo"].value == f"made ({changed.why})"


def _problems(ran: dg.ExecuteInProcessResult) -> list[str]:
    return str(ran.get_asset_check_evaluations()[0].metadata["problems"].value).splitlines()


def test_what_was_accepted_is_said_in_dagster_too(project: Project, instance: dg.DagsterInstance) -> None:
    run(project, instance, "counted", tags=span("A1", "A3"))
    (project.root / "steps/toy.py").write_text(CHECKED.replace("strip()) *", "strip()) * 1 *"))
    now = again(project)
    assert results(_check(now, instance, "fresh")) == {"fresh": False}
    words = evaluate(now).of("counted", "A1").why
    assert ct("-C", now.root, "accept", "--select", "counted", "--reason", "only the layout").code == 0
    looked = _check(now, instance, "fresh")
    shown = looked.get_asset_check_evaluations()[0].metadata
    assert results(looked) == {"fresh": True} and shown["accepted"].value == 3
    assert f"3 nodes of counted (counted/A1 first): {words} was accepted by" in str(shown["accepted reasons"].value)
    run(now, instance, "merged", partition_key="S1")
    said = str(latest(instance, "merged", "S1").metadata["accepted"].value)
    assert f"built from 2 nodes of counted (counted/A1 first), whose {words} was accepted by" in said
    assert said.endswith(": only the layout")


def test_prints_of_calls_are_in_their_runs_stdout_and_failure(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    speaks = """    print("counting", call.entity)
    if call.entity == "A2":
        raise ValueError("it does not count")
    n = len("""
    project = make_project(tmp_path / "toy", steps=CHECKED.replace("    n = len(", speaks, 1))
    add_missing(project, instance)
    done = run(project, instance, "counted", tags=span("A1", "A3"), raise_on_error=False)
    captured = next(event for event in done.all_events if event.event_type_value == "LOGS_CAPTURED")
    said = instance.compute_log_manager.get_log_data(
        [done.run_id, "compute_logs", captured.logs_captured_data.file_key]
    )
    printed = (said.stdout or b"").decode()
    assert "==> counted/A1: made <==\ncounting A1\n" in printed
    assert "==> counted/A2: failed <==\ncounting A2\nTraceback" in printed
    errors = [entry.user_message for entry in instance.all_logs(done.run_id) if entry.level == logging.ERROR]
    assert any(text.startswith("A2: failed: ValueError") and "counting A2" in text for text in errors)
    assert "ctcore/execution/call.py" not in printed


def test_a_long_log_is_shown_from_its_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "a.log"
    log.write_bytes(b"x" * MOST_BYTES + b"the end\n")
    failed = Outcome(("counted", "A1"), "failed", "why", log=str(log))
    project = make_project(tmp_path / "toy")
    print_log(project, failed, dg.DagsterRun(job_name="x"))
    said = capsys.readouterr().out
    assert f"8 bytes are left out; all of it: {log}" in said and said.endswith("xthe end\n\n")
    print_log(project, failed, dg.DagsterRun(job_name="x", tags={SHELL_TAG: "a shell's own"}))
    assert capsys.readouterr().out == ""


def test_the_launchpad_shows_the_profile_and_its_alternatives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = make_project(tmp_path / "toy", toml=f"{TOML}\n[slurm.big]\n[slurm.night]\n")
    for set_to, shown in ((None, "local"), ("night", "night")):
        monkeypatch.delenv("CT_PROFILE", raising=False)
        if set_to:
            monkeypatch.setenv("CT_PROFILE", set_to)
        fields = build_resources(project)["jobs"].get_resource_definition().config_schema.as_field().config_type.fields
        assert fields["profile"].default_value == shown
        assert "local, big, night" in str(fields["profile"].description)
        assert fields["memory_gb"].description


def test_the_jobs_sensor_settles_leftovers_in_two_ticks(
    project: Project, instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeSlurm(tmp_path / "fake")
    monkeypatch.setenv("PATH", str(fake.programs), prepend=":")
    sensor = jobs_sensor(project)
    assert "0 jobs without a run" in _skipped(sensor, project, instance) and fake.count("asked") == 0
    job = jobs.Job("ct-toy-1", 0, "ab" * 32, ("counted", "A1"), "call", Needs(1, 100, 5), "main")
    jobs.record_batch(project, [job], "a run that died")
    jobs.mark_submitted(project, "ct-toy-1", "1")
    fake.says("down")
    assert "Slurm does not answer" in _skipped(sensor, project, instance)
    fake.takes_back("down")
    fake.says("queue", "1_0|ct-toy-1|NODE_FAIL|None|n1|0:05|0|\n")
    assert "1 jobs without a run" in _skipped(sensor, project, instance)
    assert "settled: 1 again" in _skipped(sensor, project, instance)
    assert jobs.open_jobs(project) == []


def _skipped(sensor: dg.SensorDefinition, project: Project, instance: dg.DagsterInstance) -> str:
    said = sensor(_context(project, instance))
    assert isinstance(said, dg.SkipReason)
    return said.skip_message or ""


# What `ct run` does with it


def test_ct_run_names_each_node_of_a_run_that_broke_off(
    tmp_path: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also of a second step, and each with the cause."""
    beside = '\n\n@step(level="assay", outputs={"n": "n.txt"})\ndef beside(call: Call) -> None:\n    pass\n'
    made = make_project(tmp_path / "toy", steps=STEPS + beside)
    made.work.mkdir(exist_ok=True)
    (made.work / "jobs").write_text("no folder")
    add_missing(made, instance)
    monkeypatch.setenv("CT_PROJECT", str(made.root))
    monkeypatch.delitem(sys.modules, "definitions", raising=False)
    launch = Launch(made, instance, Scope())
    launch.run()
    launch.report(look_around(made, most=None))
    said = capsys.readouterr().err
    for node in ("counted/A1", "counted/A2", "counted/A3", "beside/A1", "beside/A2", "beside/A3"):
        (line,) = [line for line in said.splitlines() if line.startswith(f"  {node} failed: ")]
        assert "work/jobs" in line
    assert " 9 not made" in said and "0 jobs" not in said


@pytest.mark.parametrize("harm", ["gone", "changed"])
def test_a_lost_upstream_is_named_with_its_way_back(
    tmp_path: Path, instance: dg.DagsterInstance, harm: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """One partition started in the UI, before anything has looked at what it is made from."""
    project = make_project(tmp_path / "toy")
    add_missing(project, instance)
    make_all(project)
    (project.root / "steps/toy.py").write_text(STEPS.replace("' '.join(lines)", "'_'.join(lines)"))
    (lost,) = project.store.root.glob("counted/A1/*/n.txt")
    lost.parent.chmod(0o755)
    lost.chmod(0o644)
    lost.unlink() if harm == "gone" else lost.write_text("other")
    assert not run(again(project), instance, "merged", partition_key="S1", raise_on_error=False).success
    assert "it belongs to counted/A1, which `ct run counted/A1` makes again" in capfd.readouterr().out
    assert ct("-C", project.root, "run", "counted/A1").code == 0
    assert run(again(project), instance, "merged", partition_key="S1").success
