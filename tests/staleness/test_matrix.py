"""The matrix, the summary and the preview of one small cohort."""

from pathlib import Path

import pytest

from ctcore.governance.masking import UNMASKED
from ctcore.governance.qc import QcEntry
from ctcore.governance.qc import add as add_qc
from ctcore.model.masked_text import Words
from ctcore.model.reasons import Reason, Verdict
from ctcore.project import Project
from ctcore.staleness.matrix import cohorts_in_full, matrix
from ctcore.staleness.preview import consequences
from ctcore.staleness.summary import change_of, overview
from ctcore.staleness.verdicts import evaluate
from tests.helpers.kit import again, fail, make_all, make_project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    made = make_project(tmp_path)
    make_all(made)
    return made


def test_the_matrix_has_a_row_an_entity_and_counts_the_rest(project: Project) -> None:
    (project.root / "reads" / "A1.txt").write_text("other reads")
    (assays, specimens, cohorts) = matrix(again(project))
    assert (assays.level, assays.steps, cohorts.level) == ("assay", ("counted",), "cohort")
    assert [row[:2] for row in assays.rows] == [("S1", "A1"), ("S1", "A2"), ("S2", "A3")]
    assert [row[1] for row in specimens.rows] == ["S1", "S2"] and assays.hidden == 0
    few = matrix(again(project), limit=1)[0]
    assert (len(few.rows), few.hidden) == (1, 2)
    mine = matrix(again(project), keys={"counted": {"A3"}})
    assert [one.level for one in mine] == ["assay"] and [row[1] for row in mine[0].rows] == ["A3"]


def test_a_failed_assay_changes_its_own_and_lets_others_wait(project: Project) -> None:
    fail(project, "A1")
    found = overview(project)
    by = {count.step: (count.nodes, count.fresh, count.missing, count.changed, count.waiting) for count in found.counts}
    assert by == {"counted": (2, 2, 0, 0, 0), "merged": (2, 1, 0, 1, 0), "joined": (1, 0, 0, 0, 1)}
    assert [(group.step, group.kind, group.nodes) for group in found.groups()] == [
        ("merged", "member-removed", 1),
        ("joined", "upstream", 1),
    ]
    assert list(cohorts_in_full(project, UNMASKED)["causes"]["joined"]) == ["all"]
    one = overview(project, {"merged": {"S2"}})
    assert [(count.step, count.nodes, count.open) for count in one.counts] == [("merged", 1, 0)]


def test_a_verdict_is_new_changed_or_waiting() -> None:
    def verdict(*kinds: str) -> Verdict:
        some = tuple(Reason(kind, Words()) for kind in kinds)  # type: ignore[arg-type]
        return Verdict("merged", "S1", "stale", some)  # type: ignore[arg-type]

    assert [change_of(verdict(*kinds)) for kinds in (("missing",), ("code", "upstream"), ("upstream",))] == [
        "never made",
        "changed",
        "about to change",
    ]


def test_a_preview_writes_nothing(project: Project) -> None:
    from sqlalchemy import update

    from ctcore.catalog.tables import entity

    seen: list[str] = []

    def move(writer) -> None:  # type: ignore[no-untyped-def]
        writer.execute(update(entity).where(entity.c.id == "A2").values(parent=4))
        writer.event("register", "sheet", {"changed": [{"seq": 3, "parent": 4}]})
        seen.append("written")

    before = evaluate(project).count("merged")
    found = consequences(project, move)
    assert seen == ["written"] and all(one.stale + one.new > 0 for one in found)
    assert evaluate(again(project)).count("merged") == before
    add_qc(project, [QcEntry("assay", "A2", "qc_fail", "dark")])
    assert evaluate(project).of("merged", "S1").state == "stale"
