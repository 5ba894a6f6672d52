"""What a step asks ct for and has not declared is told with the file and line of the step: see `execution.call`."""

from pathlib import Path

import pytest

from ctcore.execution.call import own_line
from ctcore.lineage.explain import why
from tests.helpers.kit import STEPS, Inline, again, make, make_all, make_project

LINE = 'call.out("n").write_text(f"{n} {call.reference(\'genome\').read_text()}")'


def _error(root: Path, body: str, helper: str = "", runner: bool = True) -> str:
    project = make_project(root, steps=STEPS.replace(LINE, body) + helper)
    (done,) = make(project, "counted", "A1", runner=Inline(project) if runner else None)
    assert done.state == "failed"
    failure = why(again(project), ("counted", "A1")).failure
    assert failure is not None
    return str(failure["error"])


def _line(root: Path, text: str) -> int:
    lines = (root / "steps/toy.py").read_text().splitlines()
    return next(at for at, line in enumerate(lines, 1) if text in line)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('call.out(str("x")).touch()', "no output 'x' is declared; declared: n"),
        ('call.file(str("fastq"))', "no file 'fastq' is declared by this step; declared: reads"),
        ('call.one(str("reads"))', "no input 'reads' is declared by this step; declared: none"),
        ('call.column(str("patient.age"))', 'there is no column "patient.age" of assay A1 here'),
    ],
)
def test_a_name_that_is_made_when_it_runs_has_file_and_line(tmp_path: Path, body: str, said: str) -> None:
    error = _error(tmp_path / "toy", body)
    assert error.startswith(f"steps/toy.py, line {_line(tmp_path / 'toy', body)}: {said}")


def test_one_of_many_has_file_and_line(tmp_path: Path) -> None:
    project = make_project(tmp_path / "toy", steps=STEPS.replace('call.many("counts")', '[call.one("counts")]'))
    make_all(project)
    failure = why(again(project), ("merged", "S1")).failure
    at = _line(project.root, 'call.one("counts")')
    assert failure is not None
    assert failure["error"].startswith(f"steps/toy.py, line {at}: input 'counts' has 2 artifacts here; use call.many(")


def test_the_line_is_the_innermost_of_the_steps_own(tmp_path: Path) -> None:
    helper = '\n\ndef _write(call: Call) -> None:\n    call.out("table").touch()\n'
    error = _error(tmp_path / "toy", "_write(call)", helper)
    at = _line(tmp_path / "toy", 'call.out("table").touch()')
    assert error.startswith(f"steps/toy.py, line {at}: no output")


def test_a_worker_says_the_same(tmp_path: Path) -> None:
    body = 'call.out(str("x")).touch()'
    error = _error(tmp_path / "toy", body, runner=False)
    assert error.startswith(f"steps/toy.py, line {_line(tmp_path / 'toy', body)}: no output 'x'")


def test_what_no_step_raised_has_no_line(tmp_path: Path) -> None:
    error = _error(tmp_path / "toy", 'call.scratch("n").touch()')
    assert "line" not in error.splitlines()[0] and own_line(ValueError(), tmp_path) == ""
