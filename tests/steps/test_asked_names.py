"""A name in a step's code that is not declared is told when the project is loaded: see `steps.asked_names`."""

from pathlib import Path

import pytest

from ctcore.errors import StepError
from ctcore.steps.asked_names import undeclared_names
from ctcore.steps.graph import load_steps
from tests.helpers.kit import STEPS

FIRST = "    n = len(call.file"
MERGED = 'lines = [source["n"].read_text().strip() for source in call.many("counts")]'


def _problems(folder: Path, steps: str) -> str:
    (folder / "toy.py").write_text(steps)
    with pytest.raises(StepError) as refused:
        load_steps([folder])
    return str(refused.value)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('call.out("m").touch()', "asks for output 'm', which is not declared; declared: n"),
        ('call.file("read")', "asks for file 'read', which is not declared; declared: reads; did you mean 'reads'?"),
        (
            'call.reference("genom")',
            "asks for reference 'genom', which is not declared; declared: genome",
        ),
        ('call.intervals("panel")', "asks for reference 'panel', which is not declared"),
        ('call.one("reads")', "asks for input 'reads', which is not declared; declared: none"),
        ('for _ in call.many("a"):\n        pass', "asks for input 'a'"),
        ('with call.out("m").open("w") as _:\n        pass', "asks for output 'm'"),
        ('call.members("a", role="tumour")', "asks for input 'a'"),
        ('call.column("patient.age")', "asks for column 'patient.age', which is not declared; declared: none"),
    ],
)
def test_a_name_in_the_code_is_told_with_its_line(tmp_path: Path, body: str, said: str) -> None:
    steps = STEPS.replace(FIRST, f"    {body}\n{FIRST}", 1)
    line = next(at for at, text in enumerate(steps.splitlines(), 1) if body.splitlines()[0] in text)
    assert f"toy.py: step counted: line {line} {said}" in _problems(tmp_path, steps)


def test_an_output_of_the_step_above_is_told_too(tmp_path: Path) -> None:
    steps = STEPS.replace(MERGED, 'lines = [call.one("counts")["m"].read_text()]')
    assert "step merged: line 26 asks for output of counted 'm'" in _problems(tmp_path, steps)


def test_all_names_are_told_at_once(tmp_path: Path) -> None:
    steps = STEPS.replace(FIRST, f'    call.out("a"); call.out("b")\n{FIRST}', 1).replace(
        'out("table")', 'out("tabel")'
    )
    said = _problems(tmp_path, steps)
    assert all(f"output {name!r}" in said for name in "ab") and "did you mean 'table'?" in said


@pytest.mark.parametrize(
    "body",
    [
        'try:\n        call.out("m")\n    except Exception:\n        pass',  # it may be there to find out
        'other = [call.out("m") for call in ()]',  # not this call
        'name = "m"\n    call.scratch(name)',
        'call.column("patient.age", of=None)',  # told when it runs: it is a source that is asked
        'call.file("more") if call.params.factor > 3 else None',
        'if "more" in call.files:\n        call.file("more")',
        'later = lambda: call.out("m")',
        'if not call.params.factor:\n        return {}\n    call.out("m")',
        'assert call.cpus\n    call.out("m")',
        'for _ in ():\n        call.out("m")',
        'while False:\n        call.out("m")',
        '[call.out("m") for _ in range(0)]',
        'import contextlib\n    with contextlib.suppress(Exception):\n        call.out("m")',
        "call = call",
    ],
)
def test_what_may_be_meant_so_is_left_to_the_run(tmp_path: Path, body: str) -> None:
    (tmp_path / "toy.py").write_text(STEPS.replace(FIRST, f"    {body}\n{FIRST}", 1))
    steps = load_steps([tmp_path])
    assert [said for step in steps for said in undeclared_names(step, steps.by_name)] == [] and len(steps) == 3


def test_a_long_sum_is_no_matter(tmp_path: Path) -> None:
    body = f"text = {' + '.join(['call.entity'] * 1500)}\n    call.out('m')"
    assert "asks for output 'm'" in _problems(tmp_path, STEPS.replace(FIRST, f"    {body}\n{FIRST}", 1))
