"""A node that waits names the root cause, the way to it, and how many of its inputs wait."""

import numpy as np
import pytest

from ctcore.intake.raw_files import look
from ctcore.model.reasons import Reason
from ctcore.project import Project
from ctcore.staleness.evaluate import BIT, KINDS
from ctcore.staleness.upstream_reasons import DIRECT
from ctcore.staleness.verdicts import evaluate
from tests.helpers.kit import change, make_all, make_project


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Everything made; then A1 and A2 of one specimen have other bytes."""
    project = make_project(tmp_path_factory.mktemp("waiting") / "toy")
    make_all(project)
    for name in ("A1", "A2"):
        change(project.root / f"reads/{name}.txt")
    look(project)
    return project


def only_reason(project: Project, asset: str, partition: str) -> Reason:
    (only,) = evaluate(project).of(asset, partition).reasons
    return only


def test_the_direct_kinds_are_all_but_waiting() -> None:
    assert {kind for kind in KINDS if BIT[kind] & DIRECT} == set(KINDS) - {"upstream"}


def test_a_waiting_node_counts_the_inputs_that_wait(project: Project) -> None:
    one = only_reason(project, "merged", "S1")
    assert (one.kind, one.node, one.path, one.sources) == ("upstream", ("counted", "A1"), (("counted", "A1"),), 2)
    assert str(one.words).endswith(", and 1 more") and "is stale (input: " in str(one.words)


def test_the_path_leads_to_the_first_node_with_its_own_cause(project: Project) -> None:
    one = only_reason(project, "joined", "all")
    assert one.path == (("merged", "S1"), ("counted", "A1")) and one.node == ("counted", "A1")
    assert one.sources == 1 and "waits for" in str(one.words)


def test_a_node_without_stale_inputs_does_not_wait(project: Project) -> None:
    verdicts = evaluate(project)
    assert verdicts.of("merged", "S2").state == "fresh" and not verdicts.of("merged", "S2").reasons
    assert np.all([one.kinds != ("upstream",) for one in verdicts.listed("counted", ["A1", "A2", "A3"])])
