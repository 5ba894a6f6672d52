"""What the staleness sensor asks for: policies, waits after failures, budgets, and few runs at a time."""

import time
from pathlib import Path

import pytest
from sqlalchemy import func, select, update

from ctcore.catalog.tables import attempt, event, materialization, request
from ctcore.errors import ProjectError
from ctcore.planning.limits import Failures, next_try
from ctcore.planning.requests import RequestRound, decide_requests, requested_partitions
from ctcore.project import Project
from ctcore.steps.graph import REGISTRY
from ctcore.util.clock import utc
from tests.helpers.kit import MORE, STEPS, TOML, Inline, again, assay, make, make_all, make_project

FAILING = STEPS.replace("    n = len(", "    raise ValueError('no')\n    n = len(")
AT_FIRST = {"A0", "A1", "A2"}
GONE = "2026-01-01T00:00:00.000Z"


class Runs:
    """What Dagster would say of the runs that were asked for: all of them go until they are ended."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.going: set[str] = set()
        self.ended: set[str] = set()

    def look(self) -> RequestRound:
        self.project = again(self.project)
        with self.project.catalog.write() as writer:  # what these tests make, Dagster was told of
            writer.execute(update(materialization).values(reported=True))
        found = decide_requests(self.project, lambda runs: set(), lambda keys: (self.going & keys, self.ended & keys))
        self.going |= {one.run_key for one in found.asked}
        return found

    def end(self) -> None:
        self.ended |= self.going
        self.going = set()


def nodes(found: RequestRound) -> dict[str, set[str]]:
    """What was asked for, without the registry."""
    return {one.batch.asset: {v.partition for v in one.batch.verdicts} for one in _steps(found)}


def _steps(found: RequestRound) -> list:
    return [one for one in found.asked if one.batch.asset in ("counted", "merged", "joined")]


def toy(root: Path, more: str = "", assays: int = 3, steps: str = STEPS) -> Runs:
    """A project of so many assays, one a specimen; `more` is for ct.toml, and replaces its [run]."""
    rows = [assay(f"P{at}", f"S{at}", f"A{at}", sex="F") for at in range(assays)]
    return Runs(make_project(root / "toy", rows, steps, TOML.replace("[run]\nworkers = 2\n", more)))


def since(runs: Runs, seconds: float) -> None:
    """All that was asked and tried happened so long ago."""
    with runs.project.catalog.write() as writer:
        writer.execute(update(request).values(asked_at=utc(time.time() - seconds)))
        writer.execute(update(attempt).values(ended_at=utc(time.time() - seconds)))


def test_steps_are_requested_in_order_once_not_while_running(tmp_path: Path) -> None:
    runs = toy(tmp_path)
    assert nodes(runs.look()) == {"counted": {"A0", "A1", "A2"}}
    second = runs.look()
    assert second.asked == () and second.words == "3 nodes asked for already" and not second.settled
    make(runs.project, "counted", runner=Inline(runs.project))
    runs.end()
    assert nodes(runs.look()) == {"merged": {"S0", "S1", "S2"}}
    make_all(runs.project)
    runs.end()
    done = runs.look()
    assert nodes(done) == {}


def test_a_policy_keeps_a_step_for_a_person_or_leaves_it_alone(tmp_path: Path) -> None:
    runs = toy(tmp_path, '[policy]\ndefault = "automatic"\nmerged = "ask"\njoined = "never"\n')
    assert nodes(runs.look()) == {"counted": {"A0", "A1", "A2"}}
    make(runs.project, "counted", runner=Inline(runs.project))
    runs.end()
    found = runs.look()
    assert nodes(found) == {}
    assert found.words == '3 nodes of merged waiting for a person ([policy] "ask"): `ct run merged` makes them'
    make(runs.project, "merged", runner=Inline(runs.project))
    left = runs.look()
    assert left.words == '1 node of joined left alone ([policy] "never")' and nodes(left) == {}


def test_a_default_policy_is_for_all_steps_that_have_none(tmp_path: Path) -> None:
    runs = toy(tmp_path, '[policy]\ndefault = "ask"\nmerged = "automatic"\n')
    assert nodes(runs.look()) == {}
    make(runs.project, "counted", runner=Inline(runs.project))
    assert nodes(runs.look()) == {"merged": {"S0", "S1", "S2"}}


def test_a_pause_asks_for_nothing_and_says_so(tmp_path: Path) -> None:
    found = toy(tmp_path, "[run]\npause = true\n").look()
    assert (found.asked, found.words, found.settled) == ((), "paused: [run] pause = true in ct.toml", True)


def test_a_wave_of_stale_nodes_is_few_runs_at_a_time(tmp_path: Path) -> None:
    limits = "partitions_per_run = 3\nrequests_per_tick = 3\nrequests_in_flight = 4\n"
    runs = toy(tmp_path, f"[run]\n{limits}", assays=30)
    first, second, third = runs.look(), runs.look(), runs.look()
    assert [len(one.asked) for one in (first, second, third)] == [3, 1, 0]
    assert sum(map(len, nodes(first).values())) <= 9
    assert "18 nodes" in third.words and "waiting for 4 runs under way" in third.words
    runs.end()
    with runs.project.catalog.write() as writer:
        writer.execute(update(request).values(asked_at=GONE))
    assert len(runs.look().asked) == 3


def test_a_run_makes_the_requested_nodes_and_none_between(tmp_path: Path) -> None:
    runs = toy(tmp_path)
    make(runs.project, "counted", "A1", runner=Inline(runs.project))
    (one,) = _steps(runs.look())[:1]
    assert (one.batch.start, one.batch.end) == ("A0", "A2")
    assert requested_partitions(runs.project, one.run_key) == {"A0", "A2"}
    make(runs.project, "counted", "A0", runner=Inline(runs.project))
    assert requested_partitions(runs.project, one.run_key) == {"A2"}
    assert requested_partitions(runs.project, "of old") is None


def test_after_a_failure_the_wait_grows_and_is_said(tmp_path: Path) -> None:
    runs = toy(tmp_path, steps=FAILING, assays=1)
    asked = []
    for hours in (0, 0.2, 0.2, 1.5, 6, 30, 30):
        since(runs, hours * 3600)
        runs.end()
        found = runs.look()
        asked.append(bool(nodes(found)))
        if nodes(found):
            make(runs.project, "counted", "A0", runner=Inline(runs.project))
        else:
            assert "counted/A0 (tried " in found.words and " at 20" in found.words
    assert asked == [True, True, False, True, True, True, True]
    runs.end()
    held = runs.look()
    last = next(one for one in held.held if one.until)
    assert held.words.startswith("1 node tried in vain; the next try is counted/A0 (tried 6 times) at ")
    assert last.until is not None and last.until > utc(time.time() + 23 * 3600), "a day is the longest"


@pytest.mark.parametrize(("tries", "wait"), [(1, "00:05:00"), (2, "00:20:00"), (3, "01:20:00"), (4, "05:20:00")])
def test_each_try_waits_four_times_as_long_as_the_one_before(tries: int, wait: str) -> None:
    assert next_try(Failures(tries, "2026-01-01T00:00:00.000Z"), 300) == f"2026-01-01T{wait}.000Z"


def test_what_fails_for_another_reason_is_tried_at_once(tmp_path: Path) -> None:
    runs = toy(tmp_path, steps=FAILING, assays=1)
    runs.look()
    make(runs.project, "counted", "A0", runner=Inline(runs.project))
    runs.end()
    assert nodes(runs.look()) == {}
    (runs.project.root / "steps" / "toy.py").write_text(STEPS)
    assert nodes(runs.look()) == {"counted": {"A0"}}


def test_a_lost_run_is_requested_again_at_once_then_later(tmp_path: Path) -> None:
    runs = toy(tmp_path, assays=1)
    runs.look()
    runs.end()
    assert nodes(runs.look()) == {"counted": {"A0"}}
    runs.end()
    waits = runs.look()
    assert nodes(waits) == {} and "tried in vain" in waits.words and waits.settled is False
    since(runs, 400)
    assert nodes(runs.look()) == {"counted": {"A0"}}
    since(runs, 400)
    runs.end()
    assert nodes(runs.look()) == {}, "the second wait is longer"


def test_a_budget_of_partitions_is_counted_from_the_ledger(tmp_path: Path) -> None:
    runs = toy(tmp_path, "[run]\nbudget = { partitions = 4 }\n", assays=6)
    make(runs.project, "counted", "A0", runner=Inline(runs.project))
    first = runs.look()
    assert nodes(first) == {"counted": {"A1", "A2", "A3"}}
    assert "3 nodes beyond today's budget: 1 of 4 partitions are spent; goes on at " in first.words
    assert nodes(runs.look()) == {}, "what is under way is reckoned"
    make(runs.project, "counted", "A1", "A2", "A3", runner=Inline(runs.project))
    runs.end()
    spent = runs.look()
    assert nodes(spent) == {} and "4 of 4 partitions are spent" in spent.words
    with runs.project.catalog.write() as writer:
        writer.execute(update(materialization).values(started_at=GONE))
    assert nodes(runs.look()) == {"counted": {"A4", "A5"}, "merged": {"S0", "S1"}}, "another day"


def test_a_core_hour_budget_starts_small_without_history(tmp_path: Path) -> None:
    runs = toy(tmp_path, "[run]\nbudget = { core_hours = 10 }\n", assays=14)
    first = runs.look()
    assert len(nodes(first)["counted"]) == 10
    assert "4 nodes of counted wait until 10 have shown what one costs ([run] budget)" in first.words
    make(runs.project, "counted", *[f"A{at}" for at in range(10)], runner=Inline(runs.project))
    runs.end()
    with runs.project.catalog.write() as writer:
        writer.execute(update(materialization).values(seconds=0.9 * 3600))
    then = runs.look()
    assert nodes(then) == {"counted": {"A10", "A11"}}, "9 are spent; one that begins within the budget may end over it"
    assert "9 of 10 core-hours are spent" in then.words


def test_nothing_that_is_asked_is_an_event(tmp_path: Path) -> None:
    """Asking changes no verdict."""
    runs = toy(tmp_path)

    def last() -> int:
        with runs.project.catalog.read() as connection:
            return connection.execute(select(func.max(event.c.seq))).scalar_one()

    before = last()
    assert nodes(runs.look())
    assert last() == before


def test_a_policy_of_no_step_is_told_with_all_the_others(tmp_path: Path) -> None:
    more = '[policy]\nmergd = "ask"\nnothing = "never"\n[params.conted]\nfactor = 2\n'
    with pytest.raises(ProjectError) as caught:
        toy(tmp_path, more).project.steps
    for words in (
        "[policy] mergd: no such step; did you mean 'merged'?",
        "[policy] nothing: no such step; known: counted, merged, joined, default",
        "[params.conted]: no such step; known: counted",
    ):
        assert words in str(caught.value)


def steps_of(found: RequestRound) -> list[list[str]]:
    return sorted(one.batch.steps for one in found.asked if one.batch.asset not in REGISTRY)


def test_steps_of_a_level_that_wait_for_a_run_follow_in_it(tmp_path: Path) -> None:
    runs = toy(tmp_path, steps=STEPS + MORE)
    first = runs.look()
    assert steps_of(first) == [["counted", "doubled", "tripled"]]
    (one,) = [one for one in first.asked if one.batch.asset == "counted"]
    assert {verdict.node for verdict in one.batch.below} == {(s, a) for s in ("doubled", "tripled") for a in AT_FIRST}
    assert runs.look().asked == (), "what follows is under way, too"
    make(runs.project, "counted", runner=Inline(runs.project))
    assert steps_of(runs.look()) == [["merged"]]
    assert requested_partitions(runs.project, one.run_key) == AT_FIRST
    runs.end()
    assert steps_of(runs.look()) == [["doubled", "tripled"], ["merged"]], "the run ended early: the rest is asked for"
    make_all(runs.project)
    runs.end()
    assert steps_of(runs.look()) == [] and requested_partitions(runs.project, one.run_key) is None


def test_what_a_policy_or_a_budget_keeps_follows_in_no_run(tmp_path: Path) -> None:
    asked = toy(tmp_path / "policy", '[policy]\ndoubled = "ask"\n', steps=STEPS + MORE)
    assert steps_of(asked.look()) == [["counted"]]
    spent = toy(tmp_path / "budget", "[run]\nbudget = { partitions = 8 }\n", steps=STEPS + MORE)
    assert steps_of(spent.look()) == [["counted", "doubled"]]
