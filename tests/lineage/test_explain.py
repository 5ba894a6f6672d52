"""A node's state in one sentence, its tombstones, and where its files lie; an error names the way out."""

from pathlib import Path

import pytest

from ctcore.errors import CtError, StoreError, Usage
from ctcore.intake.register import register
from ctcore.intake.sheet_diff import AllowedChanges
from ctcore.lineage.explain import SHOWN, Explanation, artifact_path, column_values, entry, purged_makings, why
from ctcore.model.reasons import Verdict
from ctcore.project import Project
from ctcore.staleness.verdicts import evaluate
from tests.helpers.kit import ROWS, make_all, make_project, write_sheet
from tests.helpers.purging import purge_patient


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """All made; then P1 is purged, and P2 has another sex."""
    project = make_project(tmp_path_factory.mktemp("explained") / "toy")
    make_all(project)
    purge_patient(project, "P1")
    rows = [{**row, "sex": "F"} for row in ROWS if row["patient_id"] == "P2"]
    register(project, write_sheet(project.root, rows), allowed=AllowedChanges(update=frozenset({"patient.sex"})))
    return project


def test_a_fresh_node_says_what_it_was_compared_with(project: Project) -> None:
    found = why(project, ("counted", "A3"))
    assert found.verdict.state == "fresh" and found.text.startswith("counted/A3 is fresh: made ")
    assert "code, parameters, environment and 2 inputs are still the ones it was made from (content " in found.sentence


def test_a_changed_value_is_named_and_shown_only_on_request(project: Project) -> None:
    found = why(project, ("merged", "S2"))
    assert found.sentence == "merged/S2 is stale: metadata: patient.sex of S2 changed"
    assert column_values(project, found.verdict) == ['patient.sex of S2: "M" → "F"']
    assert column_values(project, evaluate(project).of("counted", "A3")) == []


def test_a_purged_node_says_so_and_has_its_digests(project: Project) -> None:
    assert "purged on " in why(project, ("counted", "A1")).sentence
    (stone,) = purged_makings(project, ("counted", "A1"))
    assert [one["file"] for one in stone["files"]] == ["n.txt"] and "(purge 1)" in stone["purged"]
    assert not purged_makings(project, ("counted", "A3"))
    with pytest.raises(StoreError, match=r"counted/A1 was purged on .*; `ct run counted/A1` makes it"):
        artifact_path(project, ("counted", "A1"))


def test_an_artifact_is_found_by_its_outputs_or_its_files_name(project: Project) -> None:
    folder = artifact_path(project, ("counted", "A3"))
    assert folder.lost is None and folder.path.is_dir()
    assert artifact_path(project, ("counted", "A3"), "n").path == folder.path / "n.txt"
    assert artifact_path(project, ("counted", "A3"), "n.txt").path == folder.path / "n.txt"
    with pytest.raises(Usage, match=r"counted/A3 has no output 'm'; it has: n \(n\.txt\)"):
        artifact_path(project, ("counted", "A3"), "m")
    with pytest.raises(Usage, match="assay/A3 has no artifact; `ct show assay/A3` names its files"):
        artifact_path(project, ("assay", "A3"))


def test_a_lost_file_is_named(tmp_path: Path) -> None:
    project = make_project(tmp_path / "toy")
    make_all(project)
    place = artifact_path(project, ("counted", "A3"), "n").path
    place.parent.chmod(0o700)
    place.unlink()
    assert artifact_path(project, ("counted", "A3")).lost == place


def test_a_registered_entity_is_as_it_was_declared(project: Project) -> None:
    found = entry(project, ("assay", "A3"))
    assert (found["parent"], [one["role"] for one in found["files"]]) == ("S2", ["reads"])
    assert entry(project, ("reference", "genome"))["version"] == "1"
    assert why(project, ("patient", "P2")).sentence == "patient/P2 is as the sheet and the disk say"
    with pytest.raises(CtError, match="A9"):
        entry(project, ("assay", "A9"))


def test_a_long_list_of_members_is_counted() -> None:
    many = Explanation(Verdict("joined", "all", "stale"), "s", None, None, members=[f"m{n}" for n in range(SHOWN + 3)])
    assert many.text.splitlines()[-1] == "… and 3 more" and len(many.text.splitlines()) == SHOWN + 2
