"""What a run would do and leave."""

from pathlib import Path

from sqlalchemy import select

from ctcore.catalog.tables import entity
from ctcore.config.settings import FILE_NAME
from ctcore.governance.consent import Statement, set_consent
from ctcore.planning.plan import Scope, scope
from ctcore.planning.work_list import WorkList
from ctcore.staleness.verdicts import evaluate
from tests.helpers.kit import MORE, STEPS, Inline, add, again, assay, fail, make, make_all, make_project


def test_what_waits_is_on_the_list_until_it_is_made(tmp_path: Path) -> None:
    project = make_project(tmp_path / "toy")
    work = WorkList(project, scope(project, ["merged/S1"]))
    assert [[one.partition for one in work.of(step.name)] for step in project.steps] == [["A1", "A2"], ["S1"], []]
    assert not WorkList(project, scope(project, [])).is_empty()
    make_all(project)
    assert WorkList(again(project), scope(project, [])).is_empty()


def test_what_a_policy_leaves_and_what_waits_for_it_is_counted(tmp_path: Path) -> None:
    project = make_project(tmp_path / "toy")
    make(project, "counted", runner=Inline(project))
    with (project.root / FILE_NAME).open("a") as stream:
        stream.write('\n[policy]\nmerged = "never"\n')
    project = again(project)
    work = WorkList(project, scope(project, []))
    assert work.is_empty()
    assert list(work.left_lines(is_idle=True, problems=2)) == [
        '3 nodes are left alone: [policy] has "never", see `ct plan`',
        "nothing else to do; 2 problems of raw files or references",
    ]


def test_nothing_to_do_says_whether_all_is_fresh_or_excluded(tmp_path: Path) -> None:
    project = make_project(tmp_path / "toy")
    make_all(project)

    def said(*texts: str, problems: int = 0) -> list[str]:
        work = WorkList(again(project), scope(again(project), texts))
        assert work.is_empty()
        return list(work.left_lines(is_idle=True, problems=problems))

    assert said() == ["everything is fresh: nothing to do"]
    assert said(problems=1) == ["nothing to do; 1 problem of raw files or references"]
    fail(project, "A3")
    first, second = said("counted/A3")
    assert first == "nothing may run: 1 node excluded" and second.startswith("  counted/A3: ")


def test_a_chain_holds_what_waits_for_nothing_else(tmp_path: Path) -> None:
    """`compared` waits for a step of another level as well; with a second partition there is no chain."""
    project = make_project(tmp_path / "toy", [assay("P1", "S1", "A1", sex="F")], STEPS + MORE)

    def chain(*texts: str) -> list[str]:
        now = again(project)
        work = WorkList(now, scope(now, texts))
        first = next(step.name for step in now.steps if work.of(step.name))
        return work.chain(evaluate(now).listed(first)[0])

    assert chain() == ["counted", "doubled", "tripled"] and chain("doubled") == ["counted", "doubled"]
    with (project.root / FILE_NAME).open("a") as stream:
        stream.write('\n[policy]\ndoubled = "never"\n')
    assert chain() == ["counted"] and chain("doubled") == ["counted", "doubled"]
    add(again(project), [assay("P1", "S1", "A2", sex="F")])
    assert chain("doubled") == ["counted"]


def test_all_is_fresh_beside_somebody_excluded(tmp_path: Path) -> None:
    """That nothing may run is said only where nobody else was asked for."""
    project = make_project(tmp_path / "toy")
    make_all(project)
    with project.catalog.read() as connection:
        patient = connection.execute(select(entity.c.id).where(entity.c.level == "patient").limit(1)).scalar_one()
    set_consent(project, [patient], Statement("revoked", form="f"))
    make_all(again(project))
    work = WorkList(again(project), Scope())
    assert work.is_empty() and list(work.left_lines(is_idle=True, problems=0)) == ["everything is fresh: nothing to do"]
