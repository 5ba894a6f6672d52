"""`ct run --again` repeats only what was made by today's call, and says so of the rest."""

import pytest

from ctcore.cli.run_again import SHOWN, make_again
from ctcore.errors import Usage
from ctcore.project import Project
from tests.helpers.kit import Inline, assay, make, make_project


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Of many assays only A0 is made."""
    rows = [assay(f"P{n}", f"S{n}", f"A{n}", sex="F") for n in range(SHOWN + 4)]
    project = make_project(tmp_path_factory.mktemp("again") / "toy", rows)
    make(project, "counted", "A0", runner=Inline(project))
    return project


def test_without_nodes_there_is_nothing_to_repeat(project: Project) -> None:
    with pytest.raises(Usage, match="ct run --again STEP/PARTITION"):
        make_again(project, [])


def test_a_node_without_a_result_of_todays_call_is_refused(project: Project) -> None:
    with pytest.raises(Usage, match="counted/A1 has no making of today's call; `ct run counted/A1` makes it"):
        make_again(project, ["counted/A0", "counted/A1"])


def test_of_many_refusals_the_first_ones_are_shown(project: Project) -> None:
    with pytest.raises(Usage) as error:
        make_again(project, ["counted"])
    lines = str(error.value).splitlines()
    assert lines[0] == "nothing was made again:" and lines[-1] == "  … and 3 more" and len(lines) == SHOWN + 2


def test_the_same_bytes_are_exit_code_0(project: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert make_again(project, ["counted/A0"]) == 0
    assert capsys.readouterr().out == "counted/A0\tsame\tmade again, the same bytes\n"
