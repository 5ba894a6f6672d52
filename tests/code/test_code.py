"""What counts as a step's code, and what does not."""

from pathlib import Path

import pytest

from ctcore.code import code_of
from ctcore.code.loader import load_file
from ctcore.errors import StepError
from ctcore.steps.graph import load_steps

PLAIN = '''
"""A file of steps."""
from dataclasses import dataclass
from ctcore.step import step
from ._shared import scale
LIMIT = 3

@dataclass(frozen=True)
class Options:
    """Options."""
    deep: int = 1

def helper(n):
    """Help."""
    return n + LIMIT

def unused():
    return 1

@step(level="assay", files=["reads"], params=Options, outputs={"n": "n.txt"})
def one(call):
    """Does one thing."""
    # a comment
    call.out("n").write_text(str(scale(helper(call.params.deep))))

@step(level="assay", files=["reads"], outputs={"n": "n.txt"})
def other(call):
    call.out("n").write_text("2")
'''
SHARED = """
def scale(n):
    return n * inner()

def inner():
    return 2

def elsewhere():
    return 0
"""


def digests(folder: Path, text: str = PLAIN, shared: str = SHARED) -> dict[str, str]:
    folder.mkdir(exist_ok=True)
    (folder / "_shared.py").write_text(shared)
    (folder / "plain.py").write_text(text)
    return {step.name: code_of(step).digest for step in load_file(folder / "plain.py")}


@pytest.mark.parametrize(
    "old, new",
    [
        ("# a comment", "# another comment\n    # and more"),
        ('"""Does one thing."""', '"""Does it, said otherwise."""'),
        ('"""Help."""\n', ""),
        ("def unused():\n    return 1", "def unused():\n    return 2"),
        ("n + LIMIT", "(n   +\n        LIMIT)"),
        ("deep: int = 1", "deep: int = 5"),
    ],
    ids=["comment", "docstring", "helper-docstring", "unused", "layout", "default-is-a-parameter"],
)
def test_what_is_not_code_leaves_the_digest(tmp_path: Path, old: str, new: str) -> None:
    assert old in PLAIN
    assert digests(tmp_path / "a") == digests(tmp_path / "a", PLAIN.replace(old, new))


@pytest.mark.parametrize(
    "old, new",
    [
        ("str(scale", "repr(scale"),
        ("n + LIMIT", "n - LIMIT"),
        ("LIMIT = 3", "LIMIT = 4"),
        (
            '@step(level="assay", files=["reads"], params',
            '@step(level="assay", files=["reads"], columns=["patient.sex"], params',
        ),
    ],
    ids=["function", "helper", "constant", "declaration"],
)
def test_a_change_of_code_changes_only_the_step_that_reaches_it(tmp_path: Path, old: str, new: str) -> None:
    assert old in PLAIN
    before, after = digests(tmp_path / "a"), digests(tmp_path / "a", PLAIN.replace(old, new, 1))
    assert before["one"] != after["one"]
    assert before["other"] == after["other"]


def test_code_is_followed_into_sibling_files(tmp_path: Path) -> None:
    before = digests(tmp_path / "a")
    assert digests(tmp_path / "a", shared=SHARED.replace("return 2", "return 3"))["one"] != before["one"]
    assert digests(tmp_path / "a", shared=SHARED.replace("return 0", "return 9")) == before


def test_resources_and_group_are_not_code(tmp_path: Path) -> None:
    said = PLAIN.replace("params=Options,", 'params=Options, group="x", kinds=["bam"],')
    assert digests(tmp_path / "a", said) == digests(tmp_path / "a")


def test_the_environment_is_what_the_step_imports(tmp_path: Path) -> None:
    digests(
        tmp_path / "a",
        PLAIN.replace('    call.out("n").write_text("2")', "    import blake3, json\n    return None"),
    )
    steps = {step.name: code_of(step) for step in load_file(tmp_path / "a" / "plain.py")}
    assert set(steps["other"].environment) == {"python", "blake3"}
    assert set(steps["one"].environment) == {"python"}


def test_the_same_code_elsewhere_is_the_same_code(tmp_path: Path) -> None:
    assert digests(tmp_path / "a") == digests(tmp_path / "b")


def test_a_syntax_error_names_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("def broken(:\n    pass\n")
    with pytest.raises(StepError, match=r"bad\.py line 1"):
        load_steps([tmp_path])


STEP = "from ctcore.step import step\n"


def declare(folder: Path, *lines: str) -> Path:
    (folder / "s.py").write_text(
        STEP + "\n".join(f"@step({line})\ndef s{n}(call): ...\n" for n, line in enumerate(lines))
    )
    return folder


def test_a_circle_of_steps_is_refused_with_the_circle(tmp_path: Path) -> None:
    declare(
        tmp_path,
        'level="assay", inputs={"x": "s1"}, outputs={"o": "o"}',
        'level="assay", inputs={"x": "s0"}, outputs={"o": "o"}',
    )
    with pytest.raises(StepError, match=r"s0 → s1 → s0|s1 → s0 → s1"):
        load_steps([tmp_path])


def test_every_wrong_declaration_is_said_at_once(tmp_path: Path) -> None:
    declare(
        tmp_path,
        'level="assai", outputs={"o": "o"}',
        'level="assay", inputs={"x": "s00"}, outputs={"o": "o"}',
        'level="assay", outputs={}',
        'level="assay", columns=["sex"], outputs={"a": "o", "b": "o"}',
    )
    with pytest.raises(StepError) as raised:
        load_steps([tmp_path])
    said = str(raised.value)
    for part in (
        "'assai' is not one of",
        "did you mean 's0'",
        "declares no outputs",
        "write level.column",
        "same file name",
    ):
        assert part in said


def test_two_folders_may_have_files_of_the_same_name(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "s.py").write_text(
            f'{STEP}@step(level="assay", outputs={{"o": "o"}})\ndef {name}(call): ...\n'
        )
    assert {step.name for step in load_steps([tmp_path / "a", tmp_path / "b"])} == {"a", "b"}
