"""The gate in Dagster: what is excluded is refused there too; and what Dagster is told afterwards names nobody."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import dagster as dg
import pytest

from ct_assets.compute_logs import failure_text, print_log
from ct_assets.definitions import build_assets, build_resources
from ct_assets.metadata import describe
from ct_assets.partitions import add_missing
from ct_assets.step_assets import ONLY_STALE
from ctcore.execution.call import StepCall, StepResult
from ctcore.governance.consent import Statement, set_consent
from ctcore.governance.qc import QcEntry
from ctcore.governance.qc import add as add_qc
from ctcore.project import Project
from ctcore.staleness.verdicts import evaluate
from sensors.integrity import integrity_sensor
from sensors.sheet import sheet_sensor
from sensors.staleness import staleness_sensor
from tests.governance.test_gate_everywhere import CHAIN
from tests.helpers.in_dagster import run, span
from tests.helpers.kit import STEPS, Inline, again, make, make_all, make_project, reasons
from tests.helpers.shell import ct

SHOWN = STEPS.replace('outputs={"table": "table.tsv"}', 'outputs={"table": Output("table.tsv", preview=True)}').replace(
    "import Call, step", "import Call, Output, step"
)
REVOKED = Statement("revoked", dated="2024-01-20", form="withdrawal form 12")
CHECKS = ("bytes", "contract", "completeness", "gate", "fresh")
FORM = "withdrawal form 12"
WORDS = "patient P1: consent revoked on 2024-01-20 (withdrawal form 12)"


@pytest.fixture
def project(tmp_path: Path, instance: dg.DagsterInstance) -> Project:
    made = make_project(tmp_path / "toy", steps=SHOWN)
    add_missing(made, instance)
    return made


def failure(ran: dg.ExecuteInProcessResult) -> str:
    failed = next(event for event in ran.all_events if event.is_step_failure)
    return json.dumps(failed.to_dict() if hasattr(failed, "to_dict") else str(failed), default=str)


def checks(ran: dg.ExecuteInProcessResult) -> dict[str, dg.AssetCheckEvaluation]:
    return {found.check_name: found for found in ran.get_asset_check_evaluations()}


def test_a_partition_below_a_revoked_patient_is_refused(project: Project, instance: dg.DagsterInstance) -> None:
    set_consent(project, ["P1"], REVOKED)
    ran = run(project, instance, "counted", partition_key="A1", raise_on_error=False)
    assert not ran.success and f"counted/A1 is excluded: {WORDS}" in failure(ran)
    assert not (project.store.root / "counted").exists()


def test_a_backfill_refuses_the_excluded_and_makes_the_rest(project: Project, instance: dg.DagsterInstance) -> None:
    set_consent(project, ["P1"], REVOKED)
    ran = run(project, instance, "counted", tags=span("A1", "A3"), raise_on_error=False)
    said = failure(ran)
    assert not ran.success and f"counted/A1 is excluded: {WORDS}" in said and f"counted/A2 is excluded: {WORDS}" in said
    made = [event.partition for event in ran.all_events if event.is_step_materialization]
    assert made == ["A3"] and evaluate(project).of("counted", "A3").state == "fresh"
    assert sorted(path.name for path in (project.store.root / "counted").iterdir()) == ["A3"]


class _Meanwhile(Inline):
    """Somebody revokes while the calls run."""

    def run(self, calls: Sequence[StepCall]) -> Iterator[list[StepResult]]:
        set_consent(self.project, ["P1"], REVOKED)
        yield from super().run(calls)


@pytest.mark.parametrize(("step", "node"), (("counted", "A1"), ("joined", "all")))
def test_results_made_during_a_revocation_are_shown_to_nobody(
    project: Project, step: str, node: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if step == "joined":
        make(project, "counted", runner=Inline(project))
        make(project, "merged", runner=Inline(project))
    made = make(project, step, node, runner=_Meanwhile(project))
    assert [one.state for one in made] == ["made"]
    shown = describe(project, project.steps[step], made)[made[0].materialization or 0]
    log = project.work / "logs" / step / node / "1.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("what it said of S1\n")
    told = replace(made[0], log=str(log))
    print_log(project, told, dg.DagsterRun(job_name="x"))
    assert capsys.readouterr().out == "" and "what it said" not in failure_text(project, told)
    assert "excluded" in shown and not {"preview of table", "inputs", "members", "letters"} & shown.keys()
    assert evaluate(project).of(step, node).state == ("excluded" if step == "counted" else "stale")
    told = ct("-C", project.root, "path", f"{step}/{node}")
    assert told.code == 2 and "is excluded" in told.err
    sql = f"SELECT count(folder) FROM artifacts WHERE step = '{step}'"
    assert ct("-C", project.root, "query", sql).out.splitlines()[1] == "0"
    make_all(project)
    assert reasons(project) == {}


def test_checks_count_the_excluded_and_name_nobody(project: Project, instance: dg.DagsterInstance) -> None:
    make_all(project)
    ran = run(project, instance, "joined", partition_key="all", raise_on_error=False)
    assert checks(ran)["gate"].passed and checks(ran)["gate"].metadata["left out"].value == "nobody"
    set_consent(project, ["P1"], REVOKED)
    add_qc(project, [QcEntry("assay", "A3", "contamination", "foreign DNA", step="merged")])
    found = checks(run(project, instance, "specimen", partition_key="S2"))["usable"]
    assert not found.passed and found.metadata["usable"].value == 1
    assert found.metadata["problems"].value == "- 1 consent revoked"
    told = checks(run(project, instance, "assay", partition_key="A3"))["usable"].metadata["problems"].value
    assert told == "- 2 consent revoked\n- for merged only: 1 contamination"
    gate = _alone(project, instance, "joined", "gate")
    assert _alone(project, instance, "patient", "usable").metadata["left out"].value == "1 consent revoked"
    said = str(gate.metadata)
    assert not gate.passed and "1 of 1 contain somebody who may not be used today" in said
    assert "1 patient (1 consent revoked)" in said and "P1" not in said and "S1" not in said


def _alone(project: Project, instance: dg.DagsterInstance, asset: str, name: str) -> dg.AssetCheckEvaluation:
    """A check by itself, as from its page."""
    look = dg.define_asset_job("look", dg.AssetSelection.checks(dg.AssetCheckKey(dg.AssetKey(asset), name)))
    whole = dg.Definitions(assets=build_assets(project), resources=build_resources(project), jobs=[look])
    return checks(whole.resolve_job_def("look").execute_in_process(instance=instance))[name]


def test_what_dagster_is_told_after_a_revocation_names_nobody(project: Project, instance: dg.DagsterInstance) -> None:
    (project.root / "steps" / "toy.py").write_text(SHOWN + CHAIN)
    project = again(project)
    add_missing(project, instance)
    make_all(project)
    before = {found.run_id for found in instance.get_runs()}
    set_consent(project, ["P1"], REVOKED)
    looks = [_alone(project, instance, step, name) for step in ("merged", "after1", "after5") for name in CHECKS]
    assert all(check.check_name in CHECKS for check in looks)
    context = dg.build_sensor_context(instance=instance, resources=build_resources(project))
    tick = staleness_sensor(project)(context)
    assert isinstance(tick, dg.SensorResult)
    asked = [one for one in tick.run_requests or [] if (one.asset_selection or [])[:1] == [dg.AssetKey("joined")]]
    assert [one.tags["ct/why"] for one in asked] == ["member-removed: somebody who may not be used"]
    ticks = [staleness_sensor(project)(context), sheet_sensor(project)(context)]
    (project.root / "reads/A1.txt").unlink()
    ticks.append(integrity_sensor(project)(context))
    assert not {"P1", "S1", "A1", "A2"} & set(_words(str(ticks)))
    assert run(project, instance, "joined", partition_key="all", tags=asked[0].tags).success
    assert run(project, instance, "plan").success and run(project, instance, "readiness").success
    assert run(project, instance, "after1", partition_key="all", tags={ONLY_STALE: "stale"}).success
    registered = run(project, instance, "specimen", partition_key="S1", raise_on_error=False)
    assert "consent" in str(registered.asset_materializations_for_node("specimen")[0].metadata["excluded"].value)
    others = [found for found in instance.get_runs() if found.run_id not in {*before, registered.run_id}]
    said = "".join(str(event) + json.dumps(found.tags) for found in others for event in instance.all_logs(found.run_id))
    assert len(others) == 4 + len(looks) and not {"P1", "S1", "A1", "A2"} & set(_words(said)) and FORM not in said
    assert "P1" not in str([event for event in instance.all_logs(registered.run_id) if event.is_dagster_event])


def _words(text: str) -> list[str]:
    return "".join(sign if sign.isalnum() else " " for sign in text).split()
