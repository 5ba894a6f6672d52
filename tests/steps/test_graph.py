"""Declared steps as one graph: order, depth, what is declared wrongly, recipes."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from ctcore.code.loader import load_file
from ctcore.errors import StepError, Usage
from ctcore.step import Output, Step
from ctcore.steps.graph import StepGraph, load_steps, params_of, recipe_of
from tests.helpers.kit import STEPS


@pytest.fixture
def steps(tmp_path: Path) -> dict[str, Step]:
    (path := tmp_path / "toy.py").write_text(STEPS)
    return {step.name: step for step in load_file(path)}


def test_each_step_comes_after_its_inputs(steps: dict[str, Step]) -> None:
    graph = StepGraph(reversed(steps.values()))
    assert graph.order == ("counted", "merged", "joined") and len(graph) == 3
    assert [graph.depth(name) for name in graph.order] == [1, 2, 3]
    assert graph.downstream("counted") == ["merged"] and graph.downstream("joined") == []
    assert graph.upstream(["merged"]) == {"merged", "counted"}
    assert "merged" in graph and graph["merged"] is steps["merged"]
    with pytest.raises(Usage, match=r"no step 'merge'; did you mean 'merged'\?"):
        graph["merge"]


def test_a_circle_and_a_double_name_are_refused(steps: dict[str, Step]) -> None:
    with pytest.raises(StepError, match="is declared twice"):
        StepGraph([*steps.values(), steps["merged"]])
    round_ = [
        replace(steps["merged"], inputs={"counts": "other"}),
        replace(steps["merged"], name="other", inputs={"counts": "merged"}),
    ]
    with pytest.raises(StepError, match=r"the steps form a circle: (merged → other → merged|other → merged → other)"):
        StepGraph(round_)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"level": "family"}, "level 'family' is not one of patient"),
        ({"name": "patient"}, "is the name of a registry asset"),
        ({"inputs": {"counts": "countd"}}, "takes unknown step 'countd'; did you mean 'counted'?"),
        ({"inputs": {"table": "joined"}}, "takes a cohort artifact into a specimen"),
        ({"inputs": {"a b": "counted"}}, "name it with letters, digits and _"),
        ({"columns": ("sex",)}, "column 'sex': write level.column"),
        ({"columns": ("patient.sex", "patient.sex")}, "columns name 'patient.sex' twice"),
        ({"role": "patient.sex"}, "no input has members of that level or below it"),
        ({"outputs": {}}, "declares no outputs"),
        ({"outputs": {"a": Output("x"), "b": Output("x")}}, "two outputs have the same file name"),
        ({"params": int}, "params must be a dataclass with defaults"),
    ],
)
def test_a_wrong_declaration_names_step_and_file(steps: dict[str, Step], changed: dict[str, Any], said: str) -> None:
    with pytest.raises(StepError) as refused:
        StepGraph([steps["counted"], steps["joined"], replace(steps["merged"], **changed)])
    assert "toy.py: step" in str(refused.value) and said in str(refused.value)


def test_files_of_shared_code_declare_no_steps(tmp_path: Path) -> None:
    (tmp_path / "toy.py").write_text(STEPS)
    (tmp_path / "_more.py").write_text(STEPS.replace("def counted", "def recounted"))
    assert load_steps([tmp_path, tmp_path / "not there"]).order == ("counted", "merged", "joined")


def test_parameters_are_defaults_with_what_is_given(steps: dict[str, Step]) -> None:
    assert params_of(steps["counted"], {}).factor == 1 and params_of(steps["counted"], {"factor": 2}).factor == 2
    assert params_of(steps["merged"], {}) is None
    for given, said in (({"faktor": 2}, "factor"), ({"factor": "two"}, "factor")):
        with pytest.raises(StepError, match=said):
            params_of(steps["counted"], given)


@dataclass(frozen=True)
class Other:
    factor: int = 2


def test_a_recipe_has_code_parameters_and_environment(steps: dict[str, Step]) -> None:
    from ctcore.code import code_of

    step, code = steps["counted"], code_of(steps["counted"])
    one = recipe_of(step, code, params_of(step, {}), {"lock": "1"})
    assert recipe_of(step, code, params_of(step, {}), {"lock": "1"}).digest == one.digest
    others = [recipe_of(step, code, Other(), {"lock": "1"}), recipe_of(step, code, params_of(step, {}), {"lock": "2"})]
    assert len({one.digest, *(other.digest for other in others)}) == 3
