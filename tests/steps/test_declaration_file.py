"""Steps that are declared in TOML: what they become, and every problem of their file at once."""

from pathlib import Path

import pytest

from ctcore.errors import ProjectError, StepError
from ctcore.model.column import Column
from ctcore.step import Output
from ctcore.steps.declaration_file import STORY, load_declaration
from ctcore.steps.graph import load_steps, parameters_of, params_of
from tests.helpers.adopted import JOINT
from tests.helpers.kit import STEPS, again, make_project


def test_a_file_declares_a_step_like_any_other(tmp_path: Path) -> None:
    (tmp_path / "joint.toml").write_text(JOINT + 'regions = ["a", "b"]\n')
    step = load_declaration(tmp_path / "joint.toml")
    assert (step.name, step.level, step.made_elsewhere) == ("joint", "cohort", True)
    assert step.inputs == {"counts": "counted"} and step.outputs == {"vcf": Output("joint.vcf")}
    assert parameters_of(params_of(step, {})) == {"min_quality": 20, "regions": ["a", "b"]}
    assert [column.name for column in STORY] == ["made_by", "tools"] and isinstance(STORY[0], Column)
    (tmp_path / "toy.py").write_text(STEPS)
    graph = load_steps([tmp_path])
    assert graph.order.index("joint") > graph.order.index("counted")


def test_a_declaration_tells_all_its_problems_at_once(tmp_path: Path) -> None:
    path = tmp_path / "joint.toml"
    path.write_text('made_elsewhere = true\nlevels = "cohort"\nfiles = "x"\n[outputs]\nvcf = { fil = "x" }\n')
    with pytest.raises(StepError) as error:
        load_declaration(path)
    said = str(error.value)
    for part in ("unknown key 'levels'; did you mean 'level'?", "level is missing", "files = 'x'", "'fil'"):
        assert part in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("level = ", "Invalid value"),
        (JOINT.replace("min_quality = 20", "class = 20"), "[params] 'class'"),
        (JOINT.replace("min_quality = 20", "min_quality = nan"), "[params] min_quality = nan"),
        (JOINT.replace('"counted"', "3"), "[inputs] counts = 3"),
        (JOINT.replace("made_elsewhere = true", ""), "made_elsewhere = true is expected"),
        (JOINT.replace('"joint.vcf"', "{ file = 'a.vcf', preview = 1 }"), "preview is true or false"),
        (JOINT.replace("references = [", "references = [1, "), "references = [1, 'genome']"),
    ],
)
def test_a_wrong_declaration_names_the_place(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "joint.toml").write_text(text)
    with pytest.raises(StepError) as error:
        load_declaration(tmp_path / "joint.toml")
    assert said in str(error.value) and "joint.toml" in str(error.value)


def test_what_it_uses_must_be_declared_as_for_any_step(tmp_path: Path) -> None:
    project = make_project(tmp_path / "p")
    place = project.root / "steps" / "joint.toml"
    place.write_text(JOINT.replace('"genome"', '"panel"'))
    with pytest.raises(ProjectError, match="reference 'panel'"):
        again(project).steps.order
    place.write_text(JOINT.replace('"counted"', '"countd"'))
    with pytest.raises(StepError, match="did you mean 'counted'"):
        again(project).steps.order


def test_a_cohort_made_elsewhere_says_who_is_inside(tmp_path: Path) -> None:
    project = make_project(tmp_path / "p")
    place = project.root / "steps" / "joint.toml"
    place.write_text(JOINT.replace('inputs = { counts = "counted" }', "").replace('role = "assay.library"', ""))
    with pytest.raises(StepError, match="joint is made elsewhere, and no input tells who is inside"):
        again(project).steps.order
    place.write_text(JOINT.replace('"counted"', '"joined"').replace('role = "assay.library"', ""))
    assert "joint" in again(project).steps  # a cohort's result tells it


def test_an_edited_file_is_read_again(tmp_path: Path) -> None:
    project = make_project(tmp_path / "p")
    assert "joint" not in project.steps
    (project.root / "steps" / "joint.toml").write_text(JOINT)
    project = project.reopened()
    assert "joint" in project.steps


def test_other_toml_files_beside_steps_are_none(tmp_path: Path) -> None:
    """A step reads its own settings, say."""
    (tmp_path / "config.toml").write_text("threshold = 3\n[levels]\nlow = 1\n")
    assert not load_steps([tmp_path]).order
    (tmp_path / "joint.toml").write_text('level = "cohort"\nmade_elsewere = true\n[outputs]\nvcf = "joint.vcf"\n')
    with pytest.raises(StepError, match="did you mean 'made_elsewhere'"):
        load_steps([tmp_path])
