"""What a selection means: the same for every command that takes steps and nodes."""

from pathlib import Path

import pytest

from ctcore.cohorts.selection import select_nodes
from ctcore.errors import Usage
from ctcore.project import Project
from tests.helpers.kit import ROWS, STEPS, assay, make_project


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return make_project(tmp_path_factory.mktemp("select") / "toy")


ALL = {"counted": {"A1", "A2", "A3"}, "merged": {"S1", "S2"}, "joined": {"all"}}


@pytest.mark.parametrize(
    ("texts", "nodes"),
    [
        (["counted"], {"counted": ALL["counted"]}),
        (["counted/A1"], {"counted": {"A1"}}),
        (["counted/A1", "merged/S2"], {"counted": {"A1"}, "merged": {"S2"}}),
        (["counted/A1,merged"], {"counted": {"A1"}, "merged": ALL["merged"]}),
        (["counted/A1+"], {"counted": {"A1"}, "merged": {"S1"}, "joined": {"all"}}),
        (["counted+"], ALL),
        (["+merged/S1"], {"counted": {"A1", "A2"}, "merged": {"S1"}}),
        (["+merged/S2+"], {"counted": {"A3"}, "merged": {"S2"}, "joined": {"all"}}),
        (["+joined"], ALL),
        (["counted/A[12]"], {"counted": {"A1", "A2"}}),
        (["*/S1"], {"merged": {"S1"}}),
        (["*ed"], ALL),
        (["*/A3+"], {"counted": {"A3"}, "merged": {"S2"}, "joined": {"all"}}),
    ],
)
def test_a_selection_is_these_nodes(project: Project, texts: list[str], nodes: dict[str, set[str]]) -> None:
    found = select_nodes(project, texts)
    assert found == nodes
    assert found is not None and list(found) == [name for name in project.steps.order if name in nodes]


def test_no_selection_is_everything_an_empty_one_an_error(project: Project) -> None:
    assert select_nodes(project, []) is None
    with pytest.raises(Usage, match="nothing is selected by ', '; write STEP"):
        select_nodes(project, [", "])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("countd", "did you mean 'counted'"),
        ("counted/A9", "no assay 'A9' is registered; see `ct status --all`"),
        ("+", "selects nothing; write STEP or STEP/PARTITION"),
        ("++counted", "selects nothing; write STEP or STEP/PARTITION"),
        ("counted/B*", "nothing matches 'counted/B*'; no counted has such a partition"),
        ("x*", "nothing matches 'x*'; steps: counted, merged, joined"),
        ("assay/A1+", "assay/A1 is registered, not made by a step; */A1 are its own nodes"),
    ],
)
def test_what_names_nothing_is_told_with_what_was_meant(project: Project, text: str, said: str) -> None:
    with pytest.raises(Usage) as caught:
        select_nodes(project, [text])
    assert said in str(caught.value)


def test_below_a_node_is_only_what_is_made_from_it(tmp_path: Path) -> None:
    """A specimen's node has two ancestors a level down, and a patient's node reaches her specimens only."""
    steps = STEPS + (
        '\n\n@step(level="patient", inputs={"parts": "merged"}, outputs={"n": "n.txt"})\n'
        'def summed(call: Call) -> None:\n    call.out("n").write_text("1")\n'
        '\n\n@step(level="assay", inputs={"whole": "summed"}, outputs={"n": "n.txt"})\n'
        'def back(call: Call) -> None:\n    call.out("n").write_text("1")\n'
    )
    rows = [*ROWS, assay("P1", "S3", "A4", sex="F", age="40")]
    project = make_project(tmp_path / "toy", rows, steps=steps)
    found = select_nodes(project, ["merged/S1+"])
    assert found == {"merged": {"S1"}, "summed": {"P1"}, "back": {"A1", "A2", "A4"}, "joined": {"all"}}
