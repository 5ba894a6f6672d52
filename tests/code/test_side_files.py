"""Files of a step folder as they count: read once, in order, by patterns; values that a function carries."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType

import numpy as np
import pytest

from ctcore.code.closures import Closure, is_plain
from ctcore.code.loader import load_file
from ctcore.code.side_files import declared_files, side_file_digests
from ctcore.code.sources import Sources, files_below
from ctcore.errors import StepError
from ctcore.step import Step
from ctcore.store.digest import canonical_json


def test_a_source_is_read_once_and_a_null_byte_has_its_line(tmp_path: Path) -> None:
    (path := tmp_path / "a.py").write_text("one")
    sources = Sources()
    assert sources.read(path) == b"one"
    path.write_text("two")
    assert sources.read(path) == b"one" and Sources().read(path) == b"two"
    (tmp_path / "b.py").write_bytes(b"x = 1\ny = '\0'\n")
    with pytest.raises(StepError, match="line 2: source code cannot contain null bytes"):
        sources.read(tmp_path / "b.py")
    with pytest.raises(StepError, match="cannot be read"):
        sources.read(tmp_path / "c.py")
    assert sources.has(path) and not sources.has(tmp_path / "c.py") and not sources.has(tmp_path / "no" / "c.py")


def test_files_below_come_in_order_and_hidden_ones_do_not(tmp_path: Path) -> None:
    for name in ("b/x", "a/z", "a/y", ".git/config", "__pycache__/a.pyc"):
        (path := tmp_path / name).parent.mkdir(exist_ok=True)
        path.touch()
    (tmp_path / "b" / "up").symlink_to(tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in files_below(tmp_path)] == ["a/y", "a/z", "b/x"]


def step_with(folder: Path, code: str) -> Step:
    text = f'from ctcore.step import Call, step\n\n\n@step(level="assay", outputs={{"n": "n"}}, code={code})\n'
    (path := folder / "toy.py").write_text(text + "def toy(call: Call) -> None: ...\n")
    return load_file(path)[0]


def test_patterns_of_code_lead_to_files_each_once(tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    for name in ("r/a.R", "r/.b.R", "r/c.txt"):
        (tmp_path / name).write_text(name)
    step = step_with(tmp_path, '["r/*.R", "r/a.R"]')
    found = declared_files(step)
    assert {path.relative_to(tmp_path).as_posix() for path in found} == {"r/a.R", "r/.b.R"} and len(found) == 2
    assert list(side_file_digests(step, found)) == ["r/.b.R", "r/a.R"]
    with pytest.raises(StepError, match=r"code 'q/\*' leads to no file"):
        declared_files(step_with(tmp_path, '["q/*"]'))


def carried(function: Callable[..., object]) -> bytes:
    return canonical_json(Closure("/steps").value(function, "f"))


def made(base: object, default: object = 1) -> FunctionType:
    def inner(x: int, y: object = default) -> object:
        return x, y, base

    return inner


@pytest.mark.parametrize(
    ("one", "other"),
    [(1, 2), (1, 1.0), (1, True), ("a", "b"), ([1, 2], (1, 2)), ({1: 2}, {1: 3}), (b"a", "a"), (Path("a"), "a")],
)
def test_another_value_in_a_closure_is_another_step(one: object, other: object) -> None:
    assert carried(made(one)) != carried(made(other)) and carried(made(one)) == carried(made(one))
    assert carried(made(0, one)) != carried(made(0, other))


@dataclass
class Setting:
    level: int


def test_records_and_arrays_count_by_their_content() -> None:
    assert carried(made(Setting(1))) == carried(made(Setting(1))) != carried(made(Setting(2)))
    one, other = np.arange(4), np.arange(4).reshape(2, 2)
    assert carried(made(one)) == carried(made(np.arange(4))) != carried(made(other))
    assert carried(made(one)) != carried(made(one.astype(np.int32)))


def test_a_place_above_the_folder_is_seen_from_it() -> None:
    closure = Closure("/project/steps")
    places = [closure.place(Path(one)) for one in ("/project", "/project/steps", "/project/steps/a", "/other", "b")]
    assert places == ["..", ".", "./a", "/other", "b"]


def test_order_in_sets_and_the_folders_own_place_do_not_count() -> None:
    assert carried(made({"a", "b", "c"})) == carried(made({"c", "b", "a"}))
    assert Closure("/here").value("/here/x.R", "f") == Closure("/there").value("/there/x.R", "f") == "./x.R"


def test_a_value_without_content_is_named_and_a_circle_ends() -> None:
    closure, circle = Closure("/steps"), list[object]()
    circle.append(circle)
    closure.value(circle, "c")
    closure.value(object(), "thing of f")
    assert closure.opaque == ["thing of f is a builtins.object"]


def test_a_plain_function_carries_nothing() -> None:
    assert is_plain(carried) and not is_plain(made(1)) and not is_plain(functools.partial(carried))
