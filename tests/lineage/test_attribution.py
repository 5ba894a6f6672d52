"""What is told beside a making: who asked, where it ran, and whether repetitions gave the same bytes."""

from pathlib import Path

from sqlalchemy import insert, select

from ctcore.catalog.tables import materialization, reproduction
from ctcore.lineage.attribution import NOTHING, Attribution, Repetition, attributions_of
from tests.helpers.kit import Inline, make, make_project


def again(number: int, *differs: str) -> Repetition:
    return Repetition(number, "2026-05-03", "ada", "n1", None, "f" * 64, differs)


def test_the_last_repetition_says_whether_it_was_reproduced() -> None:
    assert NOTHING.reproduced is None and NOTHING.lines == [] and NOTHING.origin == ""
    assert Attribution("ada", None, None, (again(1, "n.txt"), again(2))).reproduced == "same"
    other = Attribution(None, "n1", "abc", (again(1), again(2, "a.txt", "b.txt")))
    assert other.reproduced == "other" and other.origin == "ran on n1, code of commit abc"
    assert other.lines[1:] == [
        "made again 2026-05-03 by ada on n1: the same bytes",
        "made again 2026-05-03 by ada on n1: other bytes in a.txt, b.txt",
    ]


def test_repetitions_are_in_their_order_and_of_their_making(tmp_path: Path) -> None:
    project = make_project(tmp_path / "toy")
    make(project, "counted", runner=Inline(project))
    with project.catalog.exclusive() as connection:
        numbers = list(connection.execute(select(materialization.c.id).order_by(materialization.c.id)).scalars())
        row = {"materialization": numbers[0], "at": "t", "actor": "ada", "host": "n1", "data_version": "f" * 64}
        for number, differs in ((2, "[]"), (1, '["n.txt"]')):
            connection.execute(insert(reproduction).values(id=number, differs=differs, **row))
        found = attributions_of(connection, numbers[:2])
        connection.rollback()
    assert found.keys() == set(numbers[:2]) and found[numbers[1]].again == ()
    assert [one.differs for one in found[numbers[0]].again] == [("n.txt",), ()]
    assert found[numbers[0]].data["reproduced"] == "same" and found[numbers[0]].actor
