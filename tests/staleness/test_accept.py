"""Accepting a reason: whose name, what exactly, how long it holds, what it never covers, and taking it back."""

import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import select

from ctcore.catalog.event_log import check_chain
from ctcore.catalog.tables import acceptance, artifact, event, waiver
from ctcore.cohorts.lookup import find_node
from ctcore.errors import Usage
from ctcore.intake.raw_files import look
from ctcore.intake.register import register
from ctcore.intake.sheet_diff import AllowedChanges
from ctcore.integrity.verify import verify
from ctcore.lineage.explain import why
from ctcore.project import Project
from ctcore.staleness.accept import KINDS, NEVER, accept, propose, undo
from ctcore.staleness.verdicts import evaluate
from tests.helpers.kit import ROWS, STEPS, TOML, add, again, assay, make, make_all, make_project, reasons, write_sheet

pytestmark = pytest.mark.usefixtures("catalog_url")
ALL = frozenset(KINDS)
OTHER = ("strip()) *", "strip()) * 1 *")  # other code, the same result
THIRD = ("strip()) *", "strip()) * 1 * 1 *")
TEN_TIMES = ("strip()) *", "strip()) * 10 *")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Two patients, three assays, everything made."""
    made = make_project(tmp_path / "toy")
    make_all(made)
    return made


def rewritten(project: Project, *changes: tuple[str, str]) -> Project:
    """With other step files, as the next process sees it."""
    text = STEPS
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (project.root / "steps/toy.py").write_text(text)
    return again(project)


def replace_reads(project: Project, text: str = "other reads of A1\n") -> None:
    (project.root / "reads/A1.txt").write_text(text)
    look(project)


def accepted(project: Project, *nodes: str, only: frozenset[str] = ALL, reason: str = "only the layout") -> int:
    keys: dict[str, set[str]] = {}
    for node in nodes:
        asset, _, partition = node.partition("/")
        keys.setdefault(asset, set()).add(partition)
    return len(accept(project, propose(project, keys, only), reason).reasons)


def said(project: Project, node: str) -> str:
    return why(project, find_node(project, node)).text


def versions(project: Project) -> dict[str, str]:
    with project.catalog.read() as connection:
        return {f"{row.asset}/{row.partition}": row.data_version for row in connection.execute(select(artifact))}


COUNTED = ("counted/A1", "counted/A2", "counted/A3")


def test_accepted_nodes_and_their_products_are_fresh(project: Project) -> None:
    now = rewritten(project, OTHER)
    before = versions(now)
    assert set(reasons(now)) == {*COUNTED, "merged/S1", "merged/S2", "joined/all"}
    assert accepted(now, *COUNTED) == 3
    assert reasons(again(now)) == {}
    assert make_all(again(now)) == {}
    assert versions(now) == before


def test_an_acceptance_shows_name_day_and_text(project: Project) -> None:
    now = rewritten(project, OTHER)
    now.catalog.actor = "grace"
    words = next(str(r.words) for r in evaluate(now).of("counted", "A1").reasons)
    accepted(now, *COUNTED, reason="only the layout")
    with now.catalog.read() as connection:
        day = connection.execute(select(acceptance.c.at)).scalar_one()[:10]
    sentence = f"code: {words} was accepted by grace on {day}: only the layout"
    assert sentence in said(now, "counted/A1")
    assert f"built from 2 nodes of counted (counted/A1 first), whose {sentence}" in said(now, "merged/S1")
    assert f"built from counted/A3, whose {sentence}" in said(now, "merged/S2")
    assert f"built from 3 nodes of counted (counted/A1 first), whose {sentence}" in said(now, "joined/all")
    assert "built from" not in said(now, "counted/A1")


def test_products_of_other_content_are_not_built_from_it(project: Project) -> None:
    replace_reads(project)
    make_all(project)
    (project.root / "reads/A1.txt").write_text("reads of A1\n")
    look(project)
    assert accepted(project, "counted/A1") == 1
    assert "built from counted/A1, whose input" in said(project, "merged/S1")
    assert "built from" not in said(project, "merged/S2")


def test_another_change_is_another_reason(project: Project) -> None:
    accepted(rewritten(project, OTHER), *COUNTED)
    third = rewritten(project, THIRD)
    assert reasons(third)["counted/A1"] == ["code"]
    assert "was accepted" not in said(third, "counted/A1")
    assert reasons(rewritten(project, OTHER)) == {}, "the same change is the one that was accepted"


def test_going_back_and_changing_otherwise_is_another_reason(project: Project) -> None:
    accepted(rewritten(project, OTHER), *COUNTED)
    original = rewritten(project)
    assert reasons(original) == {} and "was accepted" not in said(original, "counted/A1")
    assert reasons(rewritten(project, THIRD))["counted/A1"] == ["code"]


def test_a_new_making_has_nothing_accepted(project: Project) -> None:
    """Made by the accepted code, it differs from the former code, of which nobody said anything."""
    now = rewritten(project, OTHER)
    accepted(now, *COUNTED)
    replace_reads(now)
    assert reasons(now)["counted/A1"] == ["input"]
    assert make_all(now)["counted/A1"] == "made"
    assert "was accepted" not in said(now, "counted/A1")
    assert reasons(rewritten(project))["counted/A1"] == ["code"]


def test_the_same_change_of_another_making_is_not_accepted(project: Project) -> None:
    """The code goes there, back, and there again: between, the node was made anew, which nobody has looked at."""
    accepted(rewritten(project, OTHER), *COUNTED)
    original = rewritten(project)
    replace_reads(original)
    assert make_all(original)["counted/A1"] == "made"
    assert [node for node, kinds in reasons(rewritten(project, OTHER)).items() if "code" in kinds] == ["counted/A1"]


def test_made_again_it_uses_the_code_of_that_day(project: Project) -> None:
    now = rewritten(project, TEN_TIMES)
    accepted(now, *COUNTED)
    replace_reads(now, "0123456789\n")
    make_all(now)
    made = why(now, find_node(now, "counted/A1")).made
    assert made is not None and made["facts"]["letters"] == 100


def test_undone_it_is_made_by_the_code_of_today(project: Project) -> None:
    now = rewritten(project, TEN_TIMES)
    accepted(now, *COUNTED)
    assert make_all(now) == {}
    undo(now, {"counted": {"A1"}}, ALL, "it does matter")
    assert make_all(now)["counted/A1"] == "made"


def test_another_input_content_can_be_accepted_until_changed(project: Project) -> None:
    replace_reads(project)
    accepted(project, "counted/A1")
    assert reasons(project) == {}
    replace_reads(project, "and now something else\n")
    assert reasons(project)["counted/A1"] == ["input"]


def test_a_reason_is_accepted_for_the_nodes_that_were_named(project: Project) -> None:
    now = rewritten(project, OTHER)
    accepted(now, "counted/A1")
    assert [node for node, kinds in reasons(now).items() if kinds == ["code"]] == ["counted/A2", "counted/A3"]


def test_of_several_reasons_one_kind_can_be_accepted(project: Project) -> None:
    replace_reads(project)
    now = rewritten(project, OTHER)
    assert sorted(reasons(now)["counted/A1"]) == ["code", "input"]
    accepted(now, *COUNTED, only=frozenset(["code"]))
    assert reasons(now)["counted/A1"] == ["input"]
    assert "accepted: code: " in said(now, "counted/A1")


def test_parameters_columns_and_members_can_be_accepted(project: Project) -> None:
    """Each by itself, one after another, and each is settled by its own acceptance."""
    toml = TOML.replace('version = "1"', 'version = "2"') + "\n[params.counted]\nfactor = 2\n"
    (project.root / "ct.toml").write_text(toml)
    now = again(project)
    look(now)
    register(
        now,
        write_sheet(now.root, [{**row, "sex": "F"} for row in ROWS]),
        AllowedChanges(update=frozenset(["patient.sex"])),
    )
    add(now, [*({**row, "sex": "F"} for row in ROWS), assay("P1", "S1", "A4", sex="F", age="40")])
    assert reasons(now)["merged/S2"] == ["metadata", "upstream"]
    make(now, "counted", "A4")
    for kind in ("parameters", "reference", "metadata", "member-added"):
        nodes = [node for node, kinds in reasons(now).items() if kind in kinds]
        assert nodes and accepted(now, *nodes, only=frozenset([kind])) == len(nodes)
        assert all(kind not in kinds for kinds in reasons(now).values())
    assert reasons(now) == {}


def test_a_member_that_went_can_be_accepted(project: Project) -> None:
    moved = [*ROWS[:1], assay("P1", "S1b", "A2", sex="F", age="40"), ROWS[2]]
    register(project, write_sheet(project.root, moved), AllowedChanges(frozenset(["A2"])))
    assert "member-removed" in reasons(project)["merged/S1"]
    accepted(project, "merged/S1")
    assert "merged/S1" not in reasons(project)


@pytest.mark.parametrize(
    ("kind", "node"), [("missing", "counted/A4"), ("upstream", "merged/S1"), ("bytes", "joined/all")]
)
def test_what_cannot_be_accepted_says_why(project: Project, kind: str, node: str) -> None:
    if kind == "bytes":
        folder = next((project.store.root / "joined/all").iterdir())
        folder.chmod(0o755)
        (folder / "table.tsv").unlink()
        verify(project)
    else:
        replace_reads(project)
        add(project, [*ROWS, assay("P3", "S3", "A4", sex="F")])
    assert kind in reasons(project)[node]
    with pytest.raises(Usage, match=re.escape(NEVER[kind])):
        accepted(project, node)
    assert kind in reasons(project)[node]


def test_an_excluded_node_has_nothing_to_accept(project: Project) -> None:
    add(project, [*ROWS, assay("P3", "S3", "A4", sex="F", reads="")])
    assert evaluate(project).of("counted", "A4").state == "excluded"
    with pytest.raises(Usage, match="counted/A4 is excluded"):
        accepted(project, "counted/A4")


def test_undoing_brings_the_reason_back_and_both_are_events(project: Project) -> None:
    now = rewritten(project, OTHER)
    accepted(now, *COUNTED)
    with pytest.raises(Usage, match=r"fresh.*accepted already"):
        accepted(now, "counted/A1")
    undo(now, {"counted": {"A1"}}, ALL, "it was not only the layout")
    assert [node for node, kinds in reasons(now).items() if "code" in kinds] == ["counted/A1"]
    with pytest.raises(Usage, match="nothing to undo"):
        undo(now, {"counted": {"A1"}}, ALL, "again")
    accepted(now, "counted/A1", reason="it was, after all")
    assert reasons(now) == {} and "it was, after all" in said(now, "counted/A1")
    with now.catalog.read() as connection:
        rows = connection.execute(select(event).where(event.c.kind.like("accept%")).order_by(event.c.seq)).all()
        bodies = [(row.kind, row.subject, json.loads(row.body)) for row in rows]
        assert (
            check_chain(dict(row) for row in connection.execute(select(event).order_by(event.c.seq)).mappings()) == []
        )
    assert [(kind, subject) for kind, subject, _ in bodies] == [
        ("accept", "counted"),
        ("accept-undone", "counted/A1"),
        ("accept", "counted/A1"),
    ]
    first = bodies[0][2]
    assert first["kind"] == "code" and first["reason"] == "only the layout" and len(first["evidence"]) == 64
    assert set(first["partitions"]) == {"A1", "A2", "A3"}
    assert bodies[1][2]["partitions"] == ["A1"]


def test_sixteen_at_once_are_all_kept(tmp_path: Path) -> None:
    project = make_project(tmp_path / "many", [assay("P1", "S1", f"A{at:02}", sex="F") for at in range(16)])
    make_all(project)
    rewritten(project, OTHER)
    with ThreadPoolExecutor(16) as pool:
        done = [pool.submit(accepted, again(project), f"counted/A{at:02}", reason=f"by {at}") for at in range(16)]
        assert [one.result() for one in done] == [1] * 16
    assert reasons(again(project)) == {}
    with project.catalog.read() as connection:
        assert sorted(connection.execute(select(acceptance.c.id)).scalars()) == list(range(1, 17))
        rows = [dict(row) for row in connection.execute(select(event).order_by(event.c.seq)).mappings()]
    assert check_chain(iter(rows)) == []
    assert [row["digest"] for row in project.catalog.journal.read()] == [row["digest"] for row in rows]


def test_the_same_accepted_twice_at_once_is_accepted_once(project: Project) -> None:
    now = rewritten(project, OTHER)
    first, second = (propose(now, {"counted": {"A1"}}) for _ in range(2))
    accept(now, first, "mine")
    with pytest.raises(Usage, match="somebody else"):
        accept(now, second, "mine too")
    with now.catalog.read() as connection:
        assert len(connection.execute(select(waiver)).all()) == 1


def test_makings_between_look_and_word_are_not_accepted(project: Project) -> None:
    now = rewritten(project, OTHER)
    proposal = propose(now, {"counted": {"A1"}})
    replace_reads(now)
    make_all(now)
    accept(now, proposal, "of what was there before")
    assert reasons(rewritten(project))["counted/A1"] == ["code"]
    assert "was accepted" not in said(again(project), "counted/A1")
