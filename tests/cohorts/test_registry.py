"""Registry nodes: their version covers what is declared, values of people without consent are hidden."""

from pathlib import Path

import pytest

from ctcore.cohorts.registry import entries, mark_reported, purged_ids, unreported_nodes
from ctcore.intake.raw_files import look
from ctcore.project import Project
from tests.helpers.kit import change, make_all, make_project
from tests.helpers.purging import purge_patient, revoke


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return make_project(tmp_path / "toy")


def versions(project: Project, asset: str) -> dict[str, str]:
    return {one.partition: one.data_version for one in entries(project, asset)}


def test_an_entity_is_what_was_declared_of_it(project: Project) -> None:
    (one,) = entries(project, "assay", ["A1"])
    assert one.parent == "S1" and one.declared["files"]["reads"]["path"] == "reads/A1.txt" and one.excluded is None
    assert [found.partition for found in entries(project, "patient")] == ["P1", "P2"]
    assert entries(project, "patient", []) == []


def test_other_bytes_are_another_version_of_their_assay_only(project: Project) -> None:
    before = versions(project, "assay")
    change(project.root / "reads/A1.txt")
    look(project)
    after = versions(project, "assay")
    assert {name for name in before if before[name] != after[name]} == {"A1"}
    reference = versions(project, "reference")
    change(project.root / "genome.txt")
    look(project)
    assert versions(project, "reference") != reference


def test_values_of_whoever_does_not_consent_are_hidden(project: Project) -> None:
    before = versions(project, "patient")
    revoke(project, "P1")
    hidden, shown = entries(project, "patient")
    assert hidden.declared == {"attributes": {}, "files": {}} and hidden.excluded
    assert shown.declared["attributes"] == {"sex": "M", "age": 50} and shown.excluded is None
    assert versions(project, "patient") == before, "the version stays: nothing was declared anew"
    assert not entries(project, "assay", ["A1"])[0].declared["files"], "files are hidden too"


def test_dagster_hears_of_each_version_once(project: Project) -> None:
    make_all(project)
    found = unreported_nodes(project)
    assert found["assay"] == ["A1", "A2", "A3"] and found["reference"] == ["genome"]
    mark_reported(project, entries(project, "assay", ["A1", "A2"]))
    assert unreported_nodes(project)["assay"] == ["A3"]
    change(project.root / "reads/A1.txt")
    look(project)
    assert unreported_nodes(project)["assay"] == ["A1", "A3"]
    purge_patient(project, "P1")
    assert unreported_nodes(project)["assay"] == ["A3"] and purged_ids(project, "assay") == {"A1", "A2"}
