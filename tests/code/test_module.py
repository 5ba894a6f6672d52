"""A module's definitions: their text does not depend on comments and layout, and their uses are all named."""

import ast

import pytest

from ctcore.code.module import Module, imported_names, module_of
from ctcore.errors import StepError


def module(text: str, docs: bool = False, script: bool = False) -> Module:
    return module_of(text.encode(), "a.py", docs, script)


def test_comments_docstrings_and_layout_are_no_code() -> None:
    plain = module("def f(a):\n    return a + 1\n").definition("f").text
    assert module('# why\ndef f( a ):\n    """Adds."""\n\n    return (a+1)  # one\n').definition("f").text == plain
    assert module("def f(a):\n    return a + 2\n").definition("f").text != plain
    documented = module('def f(a):\n    """Adds."""\n    return a + 1\n', docs=True)
    assert documented.definition("f").text != plain, "where some code reads docstrings, they count"


def test_a_definition_names_all_that_it_uses() -> None:
    found = module("import numpy as np\nfrom .shared import scale\ndef f(a):\n    return np.mean(scale(a)) + LIMIT\n")
    used = found.definition("f")
    assert used.uses("np") and used.attributes["np"] == {"mean"} and {"scale", "LIMIT"} <= used.names
    assert not used.unseen and not used.places
    assert [one.text for one in found.imports("scale")] == ["scale = .shared:scale"]


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("eval('1')", "eval"),
        ("globals()['x']", "globals"),
        ("vars()", "vars()"),
        ("f.__globals__", "__globals__"),
        ("getattr(f, '__globals__')", "__globals__"),
        ("sys.modules['x']", "sys.modules"),
        ("importlib.import_module(name)", "importlib"),
    ],
)
def test_code_by_a_computed_name_cannot_be_followed(line: str, what: str) -> None:
    found = module(f"import sys, importlib\ndef f(name):\n    import sys, importlib\n    return {line}\n")
    assert what in {said for _, said in found.definition("f").unseen}


def test_an_import_by_a_written_name_is_followed() -> None:
    found = module("import importlib\ndef f():\n    return importlib.import_module('scipy.stats')\n").definition("f")
    assert [one.module for one in found.imports] == ["scipy.stats"] and not found.unseen


def test_code_of_a_script_or_of_type_checkers_does_not_count() -> None:
    text = (
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import a\nif __name__ == '__main__':\n    import b\n"
    )
    assert [one.module for one in module(text).executed] == ["typing"]
    assert [one.module for one in module(text, script=True).executed] == ["typing", "b"]
    rebound = module(text + "TYPE_CHECKING = True\n")
    assert "a" in {one.module for one in rebound.executed}, "a name that is bound twice may be true"


def test_a_name_bound_twice_is_an_effect() -> None:
    assert module("A = 1\nA = 2\n").effects == ((2, "A is bound a second time"),)
    assert module("import a.b\nimport a.c\n").effects == ()
    assert module("len = 3\n").effects == ((1, "len hides what Python calls so"),)


def test_the_order_of_imports_is_code_only_for_siblings() -> None:
    one, other = "import b\nimport a\nprint(a, b)\n", "import a\nimport b\nprint(a, b)\n"
    assert module(one).whole.text == module(other).whole.text
    siblings = "from . import b\nfrom . import a\nprint(a, b)\n", "from . import a\nfrom . import b\nprint(a, b)\n"
    assert module(siblings[0]).whole.text != module(siblings[1]).whole.text


def test_defaults_of_parameters_are_no_code_and_their_types_are() -> None:
    fields = frozenset({"n"})

    def text(body: str) -> str:
        return module(f"class P:\n    {body}\n    m: int = 1\n").definition("P", fields).text

    assert text("n: int = 1") == text("n: int = 2") == text("n: int")
    assert text("n: int = 1") != text("n: float = 1")
    assert text("n: int = field(default=1, metadata={})") == text("n: int = field(default=2, metadata={})")


def test_a_syntax_error_names_file_and_line() -> None:
    with pytest.raises(StepError, match=r"a\.py line 2: "):
        module("A = 1\ndef (:\n")


def test_an_import_names_what_it_binds() -> None:
    nodes = list(ast.parse("import a.b\nimport a.b as c\nfrom ..x import y as z\nfrom . import *\n").body)
    found = [named for one in nodes if isinstance(one, ast.Import | ast.ImportFrom) for named in imported_names(one)]
    assert [one.text for one in found] == ["a = a.b", "c = a.b", "z = ..x:y", "* = .:*"]
    assert [one.library for one in found] == ["a", "a", None, None] and [one.origin for one in found][:3] == [
        "a.b",
        "a.b",
        None,
    ]
