"""Each reason, one at a time: what it takes to make a node stale, what it says, and what stays fresh."""

import os
import time
from pathlib import Path

import pytest
from sqlalchemy import delete, select

from ctcore.catalog.tables import artifact, reference
from ctcore.cohorts.lookup import find_node
from ctcore.intake.raw_files import look
from ctcore.intake.register import register
from ctcore.intake.sheet_diff import AllowedChanges
from ctcore.integrity.verify import verify
from ctcore.lineage.explain import why
from ctcore.project import Project
from tests.helpers.kit import ROWS, TOML, Inline, add, again, assay, make, make_all, make_project, reasons, write_sheet

pytestmark = pytest.mark.usefixtures("catalog_url")


@pytest.fixture
def project(tmp_path: Path, catalog_url: str) -> Project:
    """Two patients, three assays, everything made."""
    made = make_project(tmp_path / "toy")
    make_all(made)
    return made


def said(project: Project, node: str) -> str:
    return why(project, find_node(project, node)).sentence


def test_what_was_never_made_is_missing_and_the_rest_waits(tmp_path: Path) -> None:
    found = reasons(make_project(tmp_path / "toy"))
    assert found["counted/A1"] == ["missing"]
    assert found["merged/S1"] == ["missing", "upstream"]
    assert found["joined/all"] == ["missing", "upstream"]


def test_after_making_all_is_fresh_and_repeating_is_idle(project: Project) -> None:
    assert reasons(project) == {}
    assert make_all(project) == {}
    assert reasons(again(project)) == {}


def test_replaced_reads_make_stale_one_chain(project: Project) -> None:
    (project.root / "reads/A1.txt").write_text("other reads of A1\n")
    look(project)
    assert reasons(project) == {
        "counted/A1": ["input"],
        "merged/S1": ["upstream"],
        "joined/all": ["upstream"],
    }
    assert "input: reads (assay/A1)" in said(project, "counted/A1")
    assert "waits for counted/A1" in said(project, "joined/all")
    assert make_all(project) == {"counted/A1": "made", "merged/S1": "made", "joined/all": "made"}


def test_equal_content_stops_the_wave(project: Project) -> None:
    """Other bytes, the same letters: counted is made again, its content is the same, nothing downstream runs."""
    (project.root / "reads/A1.txt").write_text("reads of A1\n\n")
    look(project)
    assert set(reasons(project)) == {"counted/A1", "merged/S1", "joined/all"}
    assert make_all(project) == {"counted/A1": "made"}
    assert reasons(project) == {}


def test_touching_a_file_is_nothing(project: Project) -> None:
    os.utime(project.root / "reads/A1.txt")
    assert look(project).changes == []
    assert reasons(project) == {}


@pytest.mark.parametrize("change", ["version", "content"])
def test_a_reference_is_its_version_and_its_content(project: Project, change: str) -> None:
    if change == "version":
        (project.root / "ct.toml").write_text(TOML.replace('version = "1"', 'version = "2"'))
    else:
        (project.root / "genome.txt").write_text("TTTT\n")
    now = again(project)
    look(now)
    found = reasons(now)
    assert {node for node, kinds in found.items() if kinds == ["reference"]} == {
        "counted/A1",
        "counted/A2",
        "counted/A3",
    }
    assert change in said(now, "counted/A1")
    states = make_all(now)
    assert states["counted/A1"] == "made"
    assert ("merged/S1" in states) == (change == "content")  # a new name for the same bytes changes no output


def test_a_reference_that_was_replaced_a_moment_ago_is_used(project: Project) -> None:
    """What was written in the last two seconds is not remembered by its signature, and what was before still is."""
    genome = project.root / "genome.txt"
    genome.write_text("AAAA\n")
    os.utime(genome, (1, 1))
    look(project)
    make_all(project)
    genome.write_text("TTTT\n")
    look(project)
    assert make_all(project)["counted/A1"] == "made"
    assert reasons(project) == {}


def test_a_reference_replaced_after_the_look_makes_nothing(project: Project) -> None:
    """Also where it had been written just before: what is made from it would be filed under the former content."""
    genome = project.root / "genome.txt"
    genome.write_text("AAAA\n")
    look(project)
    genome.write_text("TTTT\n")
    assert make_all(project)["counted/A1"] == "failed"
    look(project)
    assert make_all(project)["counted/A1"] == "made"
    assert "TTTT" in next((project.store.root / "counted" / "A1").glob(f"{_key(project)}*/n.txt")).read_text()


def _key(project: Project) -> str:
    with project.catalog.read() as connection:
        made = select(artifact.c.key).where(artifact.c.asset == "counted", artifact.c.partition == "A1")
        return connection.execute(made).scalar_one()[:8]


def test_a_reverted_reference_is_true_again_without_a_run(project: Project) -> None:
    (project.root / "ct.toml").write_text(TOML.replace('version = "1"', 'version = "2"'))
    look(again(project))
    assert reasons(again(project))
    (project.root / "ct.toml").write_text(TOML)
    look(again(project))
    assert reasons(again(project)) == {}


def test_going_back_to_old_reads_reuses_the_old_making(project: Project) -> None:
    reads = project.root / "reads/A1.txt"
    old = reads.read_text()
    reads.write_text("quite other reads\n")
    look(project)
    make_all(project)
    reads.write_text(old)
    look(project)
    assert reasons(project)["counted/A1"] == ["input"]
    assert make_all(project) == {"counted/A1": "hit", "merged/S1": "hit", "joined/all": "hit"}
    assert reasons(project) == {}


def test_a_new_patient_is_a_new_member(project: Project) -> None:
    add(project, [*ROWS, assay("P3", "S3", "A4", sex="F")])
    found = reasons(project)
    assert found == {
        "counted/A4": ["missing"],
        "merged/S3": ["missing", "upstream"],
        "joined/all": ["member-added", "upstream"],
    }
    assert "member-added: merged/S3 as specimens" in said(project, "joined/all")


def test_a_moved_assay_leaves_one_specimen_and_joins_another(project: Project) -> None:
    moved = [ROWS[0], {**ROWS[1], "patient_id": "P2", "specimen_id": "S2", "sex": "M", "age": "50"}, ROWS[2]]
    register(project, write_sheet(project.root, moved), AllowedChanges(reparent=frozenset({"A2"})))
    found = reasons(project)
    assert found["merged/S1"] == ["member-removed"]
    assert found["merged/S2"] == ["member-added"]
    assert "counted/A2" not in found


def test_only_what_reads_a_column_is_stale_by_it(project: Project) -> None:
    rows = [{**row, "age": "41"} if row["patient_id"] == "P1" else row for row in ROWS]
    register(project, write_sheet(project.root, rows), AllowedChanges(update=frozenset({"patient.age"})))
    assert reasons(project) == {}
    rows = [{**row, "sex": "M"} if row["patient_id"] == "P1" else row for row in rows]
    register(project, write_sheet(project.root, rows), AllowedChanges(update=frozenset({"patient.sex"})))
    assert reasons(project) == {"merged/S1": ["metadata"], "joined/all": ["upstream"]}
    assert said(project, "merged/S1").endswith("metadata: patient.sex of S1 changed")


def test_changed_parameters_are_named(project: Project) -> None:
    (project.root / "ct.toml").write_text(TOML + "\n[params.counted]\nfactor = 3\n")
    assert reasons(again(project))["counted/A1"] == ["parameters"]
    assert "factor 1 → 3" in said(again(project), "counted/A1")


def test_changed_code_is_only_that_step(project: Project) -> None:
    path = project.root / "steps/toy.py"
    path.write_text(path.read_text().replace("' '.join(lines)", "'+'.join(lines)"))
    found = reasons(again(project))
    assert found == {"merged/S1": ["code"], "merged/S2": ["code"], "joined/all": ["upstream"]}
    # S2 has one count only, so that joining it otherwise gives the same content
    assert make_all(again(project)) == {"merged/S1": "made", "merged/S2": "made", "joined/all": "made"}


def test_a_comment_is_not_a_change_of_code(project: Project) -> None:
    path = project.root / "steps/toy.py"
    path.write_text(path.read_text().replace('"""One line a specimen."""', '"""Said otherwise."""  # and noted'))
    assert reasons(again(project)) == {}


def test_deleted_or_changed_bytes_are_made_again(project: Project) -> None:
    folder = project.store.root / "counted"
    gone = next((folder / "A1").glob("*/n.txt"))
    os.chmod(gone.parent, 0o755)
    gone.unlink()
    other = next((folder / "A2").glob("*/n.txt"))
    os.chmod(other, 0o644)
    other.write_bytes(b"X" + other.read_bytes()[1:])
    found = {("/".join(one.node), one.file): one.problem for one in verify(project, deep=False).findings}
    assert set(found) == {("counted/A1", "n.txt"), ("counted/A2", "n.txt")}
    assert reasons(project)["counted/A1"] == ["bytes"]
    assert "is lost: bytes: n.txt" in said(project, "counted/A2")
    assert make_all(project) == {"counted/A1": "made", "counted/A2": "made"}
    assert reasons(project) == {}
    assert verify(project).findings == ()


def test_waiters_for_harmed_bytes_run_when_these_are_whole(tmp_path: Path) -> None:
    """The same call made twice lies in one folder; what it looked like the first time is past."""
    project = make_project(tmp_path / "toy")
    make(project, "counted", runner=Inline(project))
    path = next((project.store.root / "counted" / "A3").glob("*/n.txt"))
    os.chmod(path, 0o644)
    path.write_bytes(b"X" + path.read_bytes())
    verify(project, deep=False)
    assert [one.state for one in make(project, "merged", "S2", runner=Inline(project))] == ["failed"]
    assert make_all(project) == dict.fromkeys(("counted/A3", "merged/S1", "merged/S2", "joined/all"), "made")
    assert reasons(project) == {}


def test_several_reasons_are_all_said(project: Project) -> None:
    (project.root / "reads/A1.txt").write_text("x\n")
    (project.root / "genome.txt").write_text("TTTT\n")
    (project.root / "ct.toml").write_text(TOML + "\n[params.counted]\nfactor = 3\n")
    now = again(project)
    look(now)
    assert sorted(reasons(now)["counted/A1"]) == ["input", "parameters", "reference"]


def test_an_assay_without_reads_is_excluded_and_holds_up_nobody(project: Project) -> None:
    add(project, [*ROWS, assay("P1", "S1", "A9", reads="", sex="F")])
    assert reasons(project) == {}
    assert "A9 is excluded" in said(project, "counted/A9")


def test_a_cohort_rule_that_is_changed_changes_its_members(project: Project) -> None:
    (project.root / "ct.toml").write_text(
        TOML.replace("[cohorts.all]", '[cohorts.all]\nwhere = { "patient.sex" = "F" }')
    )
    assert reasons(again(project)) == {"joined/all": ["member-removed"]}


def test_an_unseen_reference_blocks_its_readers(tmp_path: Path) -> None:
    project = make_project(tmp_path / "toy")
    with project.catalog.write() as writer:
        writer.execute(delete(reference))
    found = {one.node[1]: (one.state, one.why) for one in make(project, "counted")}
    assert set(found.values()) == {("blocked", "input reference:genome: reference/genome was not looked at yet")}


def test_a_quick_look_reads_what_was_touched_and_says_so(project: Project) -> None:
    assert verify(project, deep=False).bytes == 0
    touched = next((project.store.root / "counted/A1").glob("*/n.txt"))
    os.utime(touched, (1, 1))
    time.sleep(0.03)
    quick = verify(project, deep=False)
    assert (quick.bytes, quick.findings) == (touched.stat().st_size, ())
    assert verify(project, deep=False).bytes == 0  # its new time is known now
