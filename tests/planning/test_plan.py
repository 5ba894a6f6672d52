"""What would run, why and at what cost; and a saved plan that is run exactly, or not at all."""

import json
import os
from pathlib import Path

import pytest
from sqlalchemy import select, update

from ctcore.catalog.tables import materialization, slurm_batch, slurm_job
from ctcore.errors import ProjectError, Usage
from ctcore.intake.raw_files import look
from ctcore.planning.plan import Plan, StepPlan, plan
from ctcore.planning.plan_file import compare, load, planned_scope, save
from ctcore.planning.plan_text import COLUMNS, REASONS, duration, left_rows, number, reason_rows, rows, summary
from ctcore.project import Project
from tests.helpers.kit import ROWS, STEPS, TOML, Inline, add, again, assay, make, make_all, make_project
from tests.helpers.shell import ct, quiet_dagster, shell

COUNTING = "    n = len("
MORE = COUNTING.replace("n = ", "n = 1 + ")  # other code and other content
SAME = COUNTING.replace("n = ", "unused = 1\n    n = ")  # other code and the same content


def code(project: Project, text: str) -> Project:
    """The project with other code of the step `counted`."""
    (project.root / "steps" / "toy.py").write_text(STEPS.replace(COUNTING, text))
    return again(project)


def toml(project: Project, more: str) -> Project:
    with (project.root / "ct.toml").open("a") as stream:
        stream.write(more)
    return again(project)


def of(found: Plan, step: str) -> StepPlan:
    return next(one for one in found.steps if one.step == step)


def counts(found: Plan) -> dict[str, tuple[int, float, int]]:
    return {one.step: (len(one.run), one.expected, len(one.reuse)) for one in found.steps}


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return make_project(tmp_path / "toy")


def test_a_first_plan_is_everything_in_order_without_costs(project: Project) -> None:
    found = plan(project)
    assert counts(found) == {"counted": (3, 3, 0), "merged": (2, 2, 0), "joined": (1, 1, 0)}
    assert list(counts(found)) == list(project.steps.order)
    assert (found.nodes, len(found.running_steps), found.leaves) == (6, 3, 1)
    assert found.without_history == ["counted", "merged", "joined"] and found.core_hours() == 0
    assert [row[5:] for row in rows(found)] == [("no history", "no history", "0", "no history")] * 3
    assert "there is nothing yet to tell core-hours and time from" in summary(found)
    assert "core-hours in" not in summary(found)


def test_asking_for_a_plan_changes_nothing(project: Project) -> None:
    before = (project.root / "catalog.db").read_bytes(), (project.root / "provenance.jsonl").read_bytes()
    plan(project)
    assert before == ((project.root / "catalog.db").read_bytes(), (project.root / "provenance.jsonl").read_bytes())


def test_a_code_change_reaches_at_most_all_below_and_says_why(project: Project) -> None:
    make_all(project)
    found = plan(code(project, MORE))
    assert counts(found) == {"counted": (3, 3, 0), "merged": (2, 2, 0), "joined": (1, 1, 0)}
    said = {row[0]: row[1:] for row in reason_rows(found)}
    assert said["counted"][0] == "3" and said["counted"][1].startswith("code: counted ")
    assert said["counted"][2] == "counted/A1"
    assert said["merged"][1].startswith("upstream: counts (counted/A1) is stale (code: counted ")


def test_what_was_made_before_is_reused_and_costs_nothing(project: Project) -> None:
    make_all(project)
    other = code(project, MORE)
    make_all(other)
    back = code(project, COUNTING)
    found = plan(back)
    assert counts(found) == {"counted": (0, 0, 3), "merged": (0, 0, 2), "joined": (0, 0, 1)}
    assert set(make_all(back).values()) == {"hit"}


def test_below_a_reuse_only_new_nodes_would_run(project: Project) -> None:
    """The first code again, of one assay with reads that it has never seen: its specimen, and the cohort, run."""
    make_all(project)
    make_all(code(project, MORE))
    back = code(project, COUNTING)
    (back.root / "reads/A3.txt").write_text("quite other reads\n")
    look(back)
    assert counts(plan(back)) == {"counted": (1, 1, 2), "merged": (1, 1, 1), "joined": (1, 1, 0)}
    states = make_all(back)
    assert [one for one, state in states.items() if state == "made"] == ["counted/A3", "merged/S2", "joined/all"]


def test_below_an_unchanged_reuse_nothing_is_planned(project: Project) -> None:
    make_all(project)
    make_all(code(project, SAME))
    assert counts(plan(code(project, COUNTING))) == {"counted": (0, 0, 3)}
    assert make_all(code(project, COUNTING)) == {f"counted/A{n}": "hit" for n in (1, 2, 3)}


def test_the_past_says_how_likely_a_cut_off_is(project: Project) -> None:
    make_all(project)
    unknown = plan(code(project, SAME))
    assert counts(unknown)["merged"] == (2, 2, 0), "no history: expected is at most"
    assert "so taken to give other content: counted, merged, joined." in summary(unknown)
    make_all(again(project))
    found = plan(code(project, SAME.replace("unused = 1", "unused = 2")))
    assert of(found, "counted").changes.share == 0.0
    assert counts(found) == {"counted": (3, 3, 0), "merged": (2, 0, 0), "joined": (1, 0, 0)}
    assert (found.nodes, found.expected) == (6, 3)


def test_many_sources_make_a_change_more_likely_than_one(project: Project) -> None:
    """One of three re-makings of `counted` gave other content: S1 has two assays, S2 one."""
    make_all(project)
    make_all(code(project, SAME.replace("n = ", "n = (call.entity == 'A1') + ")))
    found = plan(code(project, SAME))
    assert of(found, "counted").changes.share == 1 / 3
    found = plan(code(project, SAME.replace("unused = 1", "unused = 2")))
    assert of(found, "merged").expected == pytest.approx((1 - (2 / 3) ** 2) + 1 / 3)


def test_lost_bytes_made_again_are_another_history(project: Project) -> None:
    make_all(project)
    make_all(code(project, MORE))
    assert of(plan(code(project, SAME)), "counted").changes.share == 1.0
    project = code(project, MORE)
    victim = next(
        one for one in (project.store.root / "counted" / "A3").glob("*/n.txt") if one.read_text().startswith("12 ")
    )
    victim.parent.chmod(0o755)
    victim.unlink()
    from ctcore.integrity.verify import verify

    verify(project, deep=False)
    found = plan(project)
    assert next(row[2] for row in reason_rows(found)) == "bytes: n.txt gone"
    assert of(found, "counted").changes.share_of_same is None and of(found, "merged").expected == 1.0
    make_all(project)
    assert of(plan(code(project, SAME)), "counted").changes.share_of_same == 0.0


def test_costs_are_medians_of_the_past_here_and_on_slurm(project: Project) -> None:
    make_all(project)
    with project.catalog.write() as writer:
        for number, seconds in enumerate((60.0, 120.0, 6000.0), 1):
            writer.execute(update(materialization).where(materialization.c.id == number).values(seconds=seconds))
    one = of(plan(code(project, MORE)), "counted")
    assert (one.cost.runs, one.cost.seconds, one.cost.core_seconds) == (3, 120.0, 120.0)
    assert one.core_hours(3) == 0.1 and one.elapsed_s(3, at_once=2) == 240.0
    with project.catalog.write() as writer:
        keys = writer.execute(select(materialization.c.key).where(materialization.c.asset == "counted")).scalars()
        batch = {"id": "b", "asset": "counted", "profile": "c", "cpus": 4, "memory_mb": 1, "minutes": 1}
        writer.insert(slurm_batch, [{**batch, "intended_at": "2026"}])
        rows_ = [
            {"batch": "b", "key": key, "idx": at, "partition": "A", "call": "c", "tries": 1, "requeues": 0}
            | {"state": "COMPLETED", "elapsed_s": 30.0, "why": "made", "ended_at": "2026"}
            for at, key in enumerate(list(keys))
        ]
        writer.insert(slurm_job, rows_)
    cost = of(plan(again(project)), "counted").cost
    assert (cost.seconds, cost.core_seconds) == (30.0, 120.0), "what was given on the cluster, not what was used"


def test_a_selection_plans_what_it_needs_and_nothing_else(project: Project) -> None:
    assert counts(plan(project, ["merged/S1"])) == {"counted": (2, 2, 0), "merged": (1, 1, 0)}
    assert counts(plan(project, ["counted/A3+"])) == {
        "counted": (3, 3, 0),
        "merged": (2, 2, 0),
        "joined": (1, 1, 0),
    }, "below A3 is the cohort, which needs all"


def test_what_lacks_its_files_is_excluded_and_says_so(tmp_path: Path) -> None:
    project = make_project(tmp_path / "toy", [*ROWS, assay("P2", "S2", "A4", sex="M", age="50", reads="")])
    assert left_rows(plan(project)) == [("counted", "1", "excluded: has not what counted needs (reads)", "counted/A4")]


def test_never_leaves_a_step_and_its_waiters_alone(project: Project) -> None:
    project = toml(project, '\n[policy]\nmerged = "never"\n')
    found = plan(project)
    assert counts(found)["counted"] == (3, 3, 0) and found.nodes == 3
    assert [(step, nodes, why) for step, nodes, why, _ in left_rows(found)] == [
        ("merged", "2", 'left alone: [policy] merged = "never": made only where it is named'),
        ("joined", "1", "left alone: waits for merged/S1, which is left alone ([policy])"),
    ]
    assert counts(plan(project, ["merged"]))["merged"] == (2, 2, 0)


def test_ct_plan_says_it_in_tables_and_in_json(project: Project, tmp_path: Path) -> None:
    toml(project, '\n[policy]\ncounted = "ask"\n')
    said = ct("-C", project.root, "plan")
    assert said.code == 3
    first, why, *_ = said.out.split("\n\n")
    assert first.splitlines()[0] == "\t".join(COLUMNS) and why.splitlines()[0] == "\t".join(REASONS)
    assert "counted\t3\tmissing: never made\tcounted/A1" in why
    words = '3 nodes of counted waiting for a person ([policy] "ask"): `ct run counted` makes them'
    assert f"the staleness sensor: {words}" in said.err
    read = json.loads(ct("-C", project.root, "plan", "--json").out)
    assert read["nodes"] == {"at_most": 6, "expected": 6, "reused": 0} and read["leaves"] == 1
    assert read["held_back"] == [words]
    make_all(project)
    fresh = ct("-C", project.root, "plan")
    assert (fresh.code, fresh.out, fresh.err) == (0, "", "Nothing would run.\n")


def test_numbers_and_times_are_as_people_write_them() -> None:
    times = [duration(seconds) for seconds in (0, 0.2, 42, 90, 7500, 200_000)]
    assert times == ["0 s", "<1 s", "42 s", "2 min", "2 h 5 min", "2 d 7 h"]
    assert [number(n) for n in (0, 3.0, 0.00001, 0.12345, 1234.5)] == ["0", "3", "<0.001", "0.123", "1234"]


def saved(project: Project, *texts: str) -> Path:
    path = project.root / "plan.json"
    save(project, plan(project, texts), path)
    return path


def held(project: Project, path: Path) -> tuple[dict[str, set[str]], int, list[str]]:
    found = compare(project, load(project, path))
    return dict(found.holds), found.done, [group.words for group in found.differs]


def test_a_plan_holds_while_it_is_carried_out(project: Project) -> None:
    """What the plan makes itself is other by then: that is no difference."""
    path = saved(project)
    everything = {"counted": {"A1", "A2", "A3"}, "merged": {"S1", "S2"}, "joined": {"all"}}
    assert held(project, path) == (everything, 0, [])
    make(project, "counted", "A1", "A2", runner=Inline(project))
    make(project, "merged", "S1", runner=Inline(project))
    assert held(again(project), path) == ({"counted": {"A3"}, "merged": {"S2"}, "joined": {"all"}}, 3, [])
    make_all(project)
    changed = saved(code(project, MORE))
    make(again(project), "counted", runner=Inline(again(project)))
    assert held(again(project), changed) == ({"merged": {"S1", "S2"}, "joined": {"all"}}, 3, [])


def test_a_plan_is_refused_when_something_else_would_be_made(project: Project) -> None:
    make_all(project)
    path = saved(code(project, MORE), "counted")
    holds, _, words = held(code(project, MORE.replace("1 +", "2 +")), path)
    assert holds == {} and words == ["its code, parameters or environment are others than planned"]
    (project.root / "reads/A2.txt").write_text("other reads\n")
    look(project)
    holds, _, words = held(code(project, MORE), path)
    assert holds == {"counted": {"A1", "A3"}} and len(words) == 1
    assert "would be made for other reasons: " in words[0] and "reads (assay/A2)" in words[0]
    with pytest.raises(ProjectError) as error:
        planned_scope(again(project), path, partial=False)
    assert f"{path}: 1 planned nodes are not as planned; nothing was run" in str(error.value)
    assert f"`ct run --plan {path} --partial` runs the 2 that are as planned" in str(error.value)
    part = planned_scope(again(project), path, partial=True)
    assert part.only == holds and len(part.notes) == 1
    assert part.notes[0].startswith("left out: counted/A2: would be made")


def test_other_inputs_of_what_was_never_made_are_another_plan(project: Project) -> None:
    path = saved(project, "counted")
    (project.root / "reads/A2.txt").write_text("other reads\n")
    look(project)
    holds, _, words = held(again(project), path)
    assert holds == {"counted": {"A1", "A3"}} and words == ["would be made from other inputs"]


def test_a_new_member_is_not_in_the_plan(project: Project) -> None:
    make_all(project)
    path = saved(code(project, MORE))
    add(again(project), [*ROWS, assay("P3", "S3", "A4", sex="F", age="1")])
    holds, _, words = held(again(project), path)
    assert holds == {"counted": {"A1", "A2", "A3"}, "merged": {"S1", "S2"}}
    assert len(words) == 1 and "member-added: merged/S3 as specimens" in words[0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is no saved plan of this ct; `ct plan --save"),
        ("[1]", "is no saved plan of this ct"),
        ('{"format": "ct.plan.v2"}', "is no saved plan of this ct"),
        (None, "cannot be read: No such file or directory; `ct plan --save"),
    ],
)
def test_a_file_that_is_no_plan_says_so(project: Project, text: str | None, words: str) -> None:
    path = project.root / "plan.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(Usage) as caught:
        load(project, path)
    assert words in str(caught.value)


def test_a_plan_of_another_project_says_so(project: Project, tmp_path: Path) -> None:
    path = saved(project)
    other = make_project(tmp_path / "other", toml=TOML.replace('"toy"', '"other"'))
    with pytest.raises(Usage, match="is a plan of project 'toy', and this one is 'other'"):
        load(other, path)


@pytest.mark.slow
def test_ct_run_makes_exactly_the_plan(tmp_path: Path) -> None:
    """A1 and A3 are planned; A2 lies between them, is stale too, and is left as it is."""
    project = make_project(tmp_path / "toy")
    root = quiet_dagster(project.root)
    assert shell("-C", root, "plan", "counted/A1", "counted/A3", "--save", root / "p.json").code == 3
    done = shell("-C", root, "run", "--plan", "p.json", at=root)
    assert done.code == 0 and "2 made, 0 reused, 0 not made" in done.err, done.err
    made = {path.parent.name for path in (root / "store" / "counted").glob("*/*")}
    assert made == {"A1", "A3"}
    again_ = shell("-C", root, "run", "--plan", root / "p.json")
    assert again_.code == 0 and "2 planned nodes are made already" in again_.err
    wrong = shell("-C", root, "run", "--plan", root / "p.json", "counted")
    assert wrong.code == 2 and "leave out either --plan or the steps" in wrong.err
    code(project, MORE)
    refused = shell("-C", root, "run", "--plan", root / "p.json")
    assert refused.code == 1 and "2 planned nodes are not as planned; nothing was run" in refused.err
    assert os.listdir(root / "store" / "counted" / "A1") and len(os.listdir(root / "store" / "counted" / "A1")) == 1
