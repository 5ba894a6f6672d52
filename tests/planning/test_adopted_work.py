"""What is made elsewhere is no work: not of a run, not of a sensor, not in a budget."""

from pathlib import Path

from ctcore.execution.adopt import Story
from ctcore.execution.named_inputs import NamedInputs
from ctcore.planning.limits import split_by_policy
from ctcore.planning.past_costs import spending_since
from ctcore.planning.plan import Scope, scope
from ctcore.planning.requests import decide_requests, nodes_untold, state_of_the_world
from ctcore.planning.work_list import WorkList
from ctcore.staleness.verdicts import evaluate
from tests.helpers.adopted import JOINT, NODE, project_with, take, vcf
from tests.helpers.kit import again

WAY = "made elsewhere: `ct adopt joint/all …`"


def test_a_run_leaves_it_and_what_waits_for_it_alone(tmp_path: Path) -> None:
    project = project_with(tmp_path)
    for asked in (Scope(), scope(project, ["joint/all"]), scope(project, ["report"])):
        work = WorkList(project, asked)
        assert work.is_empty() and work.ready() == []
        assert f"1 node of joint left, {WAY}" in list(work.left_lines(is_idle=True, problems=0))
    lines = list(work.left_lines(is_idle=True, problems=0))
    assert lines[1:] == ["1 node waiting for what is made elsewhere, see `ct plan`", "nothing else to do"]


def test_what_was_adopted_is_only_told_of(tmp_path: Path) -> None:
    project = project_with(tmp_path)
    take(project, vcf(tmp_path))
    told = [one for one in nodes_untold(project, lambda _: set()) if one.asset == "joint"]
    work = WorkList(project, Scope(), told)
    assert [one.node for one in work.of("joint")] == [NODE]
    assert [one.node for one in work.of("report")] == [("report", "all")]


def test_what_waits_for_a_stale_one_is_left_alone_too(tmp_path: Path) -> None:
    project = project_with(tmp_path)
    take(project, vcf(tmp_path), Story("us", named=NamedInputs(members=["A1"])))
    work = WorkList(project, Scope(), nodes_untold(project, lambda _: set()))
    assert [one.node for one in work.of("joint")] == [NODE]
    assert work.chain(work.of("joint")[0]) == ["joint"]
    assert work.of("report") == []
    found = decide_requests(project, lambda _: set(), lambda _: (set(), set()))
    (batch,) = (one.batch for one in found.asked if one.batch.asset == "joint")
    assert [one.node for one in batch.verdicts] == [NODE] and batch.below == ()


def test_the_sensor_holds_it_back_with_the_way_out(tmp_path: Path) -> None:
    project = project_with(tmp_path)
    free, held = split_by_policy(project, evaluate(project).unblocked())
    assert free == []
    assert [one.words for one in held] == [f"1 node of joint {WAY}"]


def test_adopting_takes_nothing_of_the_days_budget(tmp_path: Path) -> None:
    project = project_with(tmp_path)
    before = spending_since(project, "2000")
    take(project, vcf(tmp_path))
    assert spending_since(project, "2000") == before


def test_the_sensor_sees_an_edited_declaration(tmp_path: Path) -> None:
    project = project_with(tmp_path)
    before = state_of_the_world(project)
    (project.root / "steps" / "joint.toml").write_text(JOINT + "# longer\n")
    assert state_of_the_world(again(project)) != before
