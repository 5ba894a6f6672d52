"""The process in the sandbox leaves an outcome, however the call ends."""

import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from ctcore.execution.call import StepCall, StepResult
from ctcore.execution.private_folder import private_folder
from ctcore.execution.sandbox import CALL, OUTCOME
from ctcore.execution.sandbox_worker import main
from ctcore.project import Project
from tests.helpers.kit import STEPS, make, make_project


class Sandboxed:
    """Runs each call as the sandbox's process does, here; `change` is made to the call before."""

    def __init__(self, project: Project, **change: Any) -> None:
        self.project, self.change = project, change
        self.outcomes: list[dict[str, Any]] = []
        self.written: list[str] = []

    def run(self, calls: Sequence[StepCall]) -> Iterator[list[StepResult]]:
        for call in calls:
            staged = self.project.store.stage(*call.node, call.key)
            with private_folder(staged) as place:
                (place.parent / CALL).write_text(json.dumps(asdict(replace(call, **self.change))))
                main([str(staged), str(place), str(self.project.root)])
                self.outcomes.append(json.loads((place.parent / OUTCOME).read_bytes()))
                self.written += [one.read_text() for one in staged.glob("*.txt")]
        return iter(())


@pytest.fixture(autouse=True)
def _as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the process changes of itself is put back."""
    monkeypatch.setattr(sys, "dont_write_bytecode", sys.dont_write_bytecode)
    monkeypatch.setattr(tempfile, "tempdir", tempfile.tempdir)


def outcome(root: Path, steps: str = STEPS, **change: Any) -> tuple[dict[str, Any], list[str]]:
    project = make_project(root, steps=steps)
    ran = Sandboxed(project, **change)
    make(project, "counted", "A1", runner=ran)
    (only,) = ran.outcomes
    return only, ran.written


def test_a_call_leaves_its_facts_and_its_outputs(tmp_path: Path) -> None:
    found, written = outcome(tmp_path / "toy")
    assert found["error"] is None and found["facts"] == {"letters": 11} and written == ["11 ACGT\n"]


def test_what_a_step_raises_is_an_error_and_names_missing_files(tmp_path: Path) -> None:
    found, _ = outcome(tmp_path / "toy", STEPS.replace("    n = len(", "    open('/none.txt')\n    n = len(", 1))
    assert found["error"].startswith("FileNotFoundError: ") and found["looked_for"] == ["/none.txt"]


@pytest.mark.parametrize("code", ["raise SystemExit(3)", "import sys; sys.exit('enough')"])
def test_a_step_that_exits_leaves_an_outcome_too(tmp_path: Path, code: str) -> None:
    found, _ = outcome(tmp_path / "toy", STEPS.replace("    n = len(", f"    {code}\n    n = len(", 1))
    assert found["error"].startswith("SystemExit: ")


def test_a_call_of_other_code_is_refused(tmp_path: Path) -> None:
    recipe = {"step": "counted", "code": "f" * 64, "parameters": {}, "environment": {}}
    found, written = outcome(tmp_path / "toy", recipe=recipe)
    assert "the code of counted changed after this call was made; run it again" in found["error"] and not written
