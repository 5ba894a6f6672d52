"""Entities in columns, their ancestors and descendants, and members of cohorts."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import Connection

from ctcore.inputs.current import current_inputs
from ctcore.model.cohort_rule import Cohort, Condition
from ctcore.project import Project
from ctcore.snapshot import disk_cache
from ctcore.snapshot.entities import locate_numbers, number_of
from ctcore.snapshot.hierarchy import Hierarchy, in_cohort
from ctcore.snapshot.snapshot import load
from tests.helpers.kit import TOML, assay, fail, make_project

ROWS = (
    assay("P1", "S1", "A1", sex="F", age="40", site="lung"),
    assay("P1", "S2", "A2", sex="F", age="40", site="blood"),
    assay("P2", "S3", "A3", sex="M", age="50"),
    assay("P2", "S3", "A4", sex="M", age="50", library="x"),
    assay("P3", "S4", "A5", sex="F"),
)
RULE = """\
[cohorts.a.where]
"patient.age" = { ">=" = 0 }
"patient.sex" = "F"
"specimen.site" = "lung"
"assay.library" = "x"
"""
RULED = TOML.replace("[cohorts.all]\n", RULE)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    made = make_project(tmp_path_factory.mktemp("toy"), ROWS, toml=RULED)
    fail(made, "A3")
    return made


@pytest.fixture
def connection(project: Project) -> Iterator[Connection]:
    with project.catalog.read() as opened:
        yield opened


@pytest.fixture
def hierarchy(project: Project, connection: Connection) -> Hierarchy:
    return Hierarchy(current_inputs(project, connection)[0].entities)


def ids(hierarchy: Hierarchy, level: str, flags: np.ndarray) -> list[str]:
    return [hierarchy.entities[level].ids[at] for at in np.flatnonzero(flags)]


def test_ancestors_and_descendants_are_by_position(hierarchy: Hierarchy) -> None:
    assert hierarchy.ancestors("assay", "patient").tolist() == [0, 0, 1, 1, 2]
    assert hierarchy.ancestors("patient", "patient").tolist() == [0, 1, 2]
    owner, members = hierarchy.descendants("patient", "assay").pairs(np.array([1, 0]))
    assert (owner.tolist(), members.tolist()) == ([0, 0, 1, 1], [2, 3, 0, 1])


def test_who_is_barred_bars_those_below(project: Project, hierarchy: Hierarchy) -> None:
    assert ids(hierarchy, "assay", ~hierarchy.usable["assay"]) == ["A3"]
    assert (
        hierarchy.usable["specimen"].all()
        and not hierarchy.withheld["patient"].any()
        and not hierarchy.forbids("counted")
    )


@pytest.mark.parametrize(
    ("cohort", "patients", "assays"),
    [
        (Cohort("a"), "P1 P2 P3", "A1 A2 A4 A5"),
        (Cohort("a", {"patient.sex": (Condition("is", ("F",)),)}), "P1 P3", "A1 A2 A5"),
        (Cohort("a", {"patient.age": (Condition(">=", ("50",)),)}), "P2", "A4"),
        (Cohort("a", {"patient.age": (Condition("known", ("false",)),)}), "P3", "A5"),
        (Cohort("a", {"patient.sex": (Condition("not", ("F",)),)}), "P2", "A4"),
        (Cohort("a", {"specimen.site": (Condition("not", ("lung",)),)}), "P1", "A2"),
        (Cohort("a", {"specimen.site": (Condition("is", ("lung",)),)}), "P1", "A1"),
        (Cohort("a", {"specimen.site": (Condition("is", ("lung",)),)}, level="patient"), "P1", "A1 A2"),
        (Cohort("a", has={"specimen": 2}), "P1", "A1 A2"),
        (Cohort("a", has={"assay": 2}), "P1", "A1 A2"),
        (Cohort("a", members=("P3", "P9")), "P3", "A5"),
        (Cohort("a", members=("A4",), listed="assay"), "P2", "A4"),
        (Cohort("a", none_of=(Cohort("b", {"patient.sex": (Condition("is", ("F",)),)}),)), "P2", "A4"),
    ],
)
def test_members_satisfy_the_rule_with_their_ancestors(
    hierarchy: Hierarchy, cohort: Cohort, patients: str, assays: str
) -> None:
    assert ids(hierarchy, "patient", in_cohort(hierarchy, "patient", cohort)) == patients.split()
    assert ids(hierarchy, "assay", in_cohort(hierarchy, "assay", cohort)) == assays.split()


def test_numbers_of_texts_compare_and_blanks_do_not() -> None:
    assert number_of("30") == 30.0 and number_of("1.5") == 1.5
    assert number_of("2026-01-02") - number_of("2026-01-01") == 1
    places, known = locate_numbers(np.array([3, 5, 9]), np.array([5, 4, 9, 10]))
    assert known.tolist() == [True, False, True, False] and places[known].tolist() == [1, 2]


def test_a_snapshot_on_disk_is_the_same_for_the_same_steps(project: Project, connection: Connection) -> None:
    shape = current_inputs(project, connection)[0].shape
    fresh = load(connection, shape)
    disk_cache.write(project, fresh)
    kept = disk_cache.read(project, shape)
    assert kept is not None and (kept.seq, kept.digest) == (fresh.seq, fresh.digest)
    for level, some in fresh.entities.items():
        assert list(kept.entities[level].ids) == list(some.ids)
        assert np.array_equal(kept.entities[level].parents, some.parents)
    assert disk_cache.read(project, replace(shape, levels={**shape.levels, "other": "assay"})) is None


def test_without_failures_everybody_is_usable(tmp_path: Path) -> None:
    project = make_project(tmp_path, ROWS, toml=RULED)
    with project.catalog.read() as opened:
        hierarchy = Hierarchy(current_inputs(project, opened)[0].entities)
        assert all(flags.all() for flags in hierarchy.usable.values())
        assert hierarchy.usable_for("counted", "assay").all() and hierarchy.permits("counted", "assay").all()
