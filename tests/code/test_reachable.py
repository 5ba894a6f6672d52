"""All code that a step can reach: name by name, or whole files where a name may mean anything."""

from pathlib import Path

import pytest

from ctcore.code.reachable import Walk
from ctcore.code.sources import Sources


def walk(folder: Path, **files: str) -> Walk:
    """Follow `main` of a.py through these files (`pkg__b` is pkg/b.py, `pkg__` is pkg/__init__.py)."""
    for name, text in files.items():
        place = folder / ((name.replace("__", "/") + ".py").replace("/.py", "/__init__.py"))
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    found = Walk(folder, Sources())
    found.follow(folder / "a.py", "main")
    return found


def names(found: Walk) -> set[str]:
    return {f"{file}:{name}" for file, name in found.parts if not name.startswith("import ")}


def test_only_names_that_are_reached_count(tmp_path: Path) -> None:
    found = walk(
        tmp_path,
        a="from .b import used\nLIMIT = 3\ndef main(): return used(LIMIT)\ndef other(): return 1\n",
        b="def used(n): return helper(n)\ndef helper(n): return n\ndef unused(): pass\n",
    )
    assert names(found) == {"a.py:main", "a.py:LIMIT", "b.py:used", "b.py:helper"}
    assert not found.whole and not found.reaches_all and not found.lost


def test_files_that_import_each_other_come_to_an_end(tmp_path: Path) -> None:
    found = walk(
        tmp_path,
        a="from .b import one\ndef main(): return one()\ndef two(): return 2\n",
        b="from .a import two\ndef one(): return two()\n",
    )
    assert names(found) == {"a.py:main", "a.py:two", "b.py:one"}


@pytest.mark.parametrize(
    ("sibling", "why"),
    [
        ("print('loaded')\ndef one(): return 1\n", "b.py:1 `print('loaded')` runs when the file is loaded"),
        ("def one(): return 1\none = wrap(one)\n", "b.py:2 `one = wrap(one)` runs code"),
    ],
)
def test_a_module_with_an_effect_counts_whole(tmp_path: Path, sibling: str, why: str) -> None:
    found = walk(tmp_path, a="from .b import one\ndef main(): return one()\n", b=sibling)
    assert str(found.whole["b.py"]) == why and ("b.py", "") in found.parts


def test_a_module_used_as_a_value_or_by_star_counts_whole(tmp_path: Path) -> None:
    value = walk(tmp_path / "1", a="from . import b\ndef main(): return f(b)\ndef f(m): return m.x\n", b="x = 1\n")
    assert "is used as a value in a.py" in str(value.whole["b.py"])
    star = walk(tmp_path / "2", a="from .b import *\ndef main(): return x\n", b="x = 1\n")
    assert "its names are taken by `*` in a.py" in str(star.whole["b.py"])
    named = walk(tmp_path / "3", a="from . import b\ndef main(): return b.x\n", b="x = 1\ny = 2\n")
    assert not named.whole and names(named) == {"a.py:main", "b.py:x"}


def test_a_package_runs_on_the_way_to_its_module(tmp_path: Path) -> None:
    found = walk(
        tmp_path,
        a="from .pkg.b import one\ndef main(): return one()\n",
        pkg__="import json\nA = json.loads('1')\n",
        pkg__b="def one(): return 1\n",
    )
    assert "pkg/__init__.py" in found.whole and "pkg/b.py:one" in names(found)


def test_a_name_that_leads_nowhere_is_lost(tmp_path: Path) -> None:
    gone = walk(tmp_path / "in" / "1", a="from .gone import x\ndef main(): return x\n")
    assert [str(one) for one in gone.lost] and "`x = .gone:x` leads to no file of Python code" in str(gone.lost[0])
    out = walk(tmp_path / "in" / "2", a="from ..out import x\ndef main(): return x\n")
    assert "a.py:1 `x = ..out:x` leads out of the folder" in map(str, out.lost)


def test_code_by_name_or_place_may_reach_every_file(tmp_path: Path) -> None:
    place = walk(tmp_path / "1", a="def main(): return __file__\n")
    assert place.reaches_all and str(place.places[0]) == "a.py:1 asks where it lies"
    unseen = walk(tmp_path / "2", a="def main(name): return eval(name)\n")
    assert unseen.reaches_all and "every file of the folder counts" in str(unseen.unseen[0])


def test_libraries_are_named_and_not_read(tmp_path: Path) -> None:
    found = walk(
        tmp_path, a="import json\nimport numpy as np\nimport click\ndef main(): return np.mean(json.loads('[1]'))\n"
    )
    assert "numpy" in found.libraries and "json" not in found.libraries, "Python's own are the version of Python"
    assert "click" in found.libraries, "it is imported for what its import does"
