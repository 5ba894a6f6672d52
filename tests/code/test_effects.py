"""Which statements of a module only define names. Any other may change anything, so the module counts whole."""

import ast

import pytest

from ctcore.code.effects import Note, Plain, is_own, is_step, origin

ORIGINS = {"re": "re", "dc": "dataclasses", "Path": "pathlib.Path", "step": "ctcore.step.step", "np": "numpy"}
PLAIN = Plain(ORIGINS, frozenset({"Point"}), frozenset({"shared"}))


def effects(text: str) -> list[str]:
    return [what for one in ast.parse(text).body for _, what in PLAIN.effects(one)]


@pytest.mark.parametrize(
    "text",
    [
        "def f(n=1, *, m=(2, 3)): print(n)",
        "A = 1",
        "A, (B, C) = 1, (2, 3)",
        "A: int = 2 ** 10",
        "A: int",
        "import os",
        "from os import path",
        "pass",
        "'a text'",
        "WORDS = frozenset('a b'.split())",
        "PATTERN = re.compile('a+')",
        "HERE = Path('x').parent / 'y'",
        "ONE = Point(1, 2)",
        "BIG = {k: v for k, v in ((1, 2), (3, 4)) if k > 1}",
        "TOP = sorted([3, 1], key=abs)",
        "class A:\n    b: int = 1\n    def c(self): return 2",
        "@dc.dataclass(frozen=True)\nclass A:\n    b: int = dc.field(default=1)",
        "@step(level='assay')\ndef f(call): pass",
        "class A:\n    @property\n    def b(self): ...\n    @b.setter\n    def b(self, v): ...",
        "MEAN = np.mean",
    ],
)
def test_a_plain_definition_has_no_effect(text: str) -> None:
    assert effects(text) == []


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("print('loaded')", "`print('loaded')` runs when the file is loaded"),
        ("for a in (): pass", "`for a in ():` runs when the file is loaded"),
        ("A = open('x')", "`A = open('x')` runs code"),
        ("A.b = 1", "`A.b = 1` changes what is defined already"),
        ("A[0] = 1", "`A[0] = 1` changes what is defined already"),
        ("from x import *", "`from x import *` binds names that do not stand here"),
        ("def f(a=open('x')): pass", "a default of f runs code"),
        ("def f(*, a=now()): pass", "a default of f runs code"),
        ("@register\ndef f(): pass", "`@register` runs code"),
        ("@step(level=open('x'))\ndef f(call): pass", "`@step(level=open('x'))` runs code"),
        ("class A(metaclass=M): pass", "class A is made by code"),
        ("class A(make()): pass", "class A is made of `make()`"),
        ("class A:\n    def __init_subclass__(cls): ...", "class A takes part in the making of others"),
        ("class A(type): pass", "class A takes part in the making of others"),
        ("class A:\n    print(1)", "`print(1)` runs when the file is loaded"),
        ("A = np.zeros(3)", "`A = np.zeros(3)` runs code"),
        ("A = shared + 1", "`A = shared + 1` runs code"),
        ("A = shared.b", "`A = shared.b` runs code"),
        ("A = (n for n in (1, 2))", "`A = (n for n in (1, 2))` runs code"),
        ("A = sorted([1], key=shared)", "`A = sorted([1], key=shared)` runs code"),
        ("A = (lambda: open('x'))()", "`A = (lambda: open('x'))()` runs code"),
    ],
)
def test_anything_else_is_an_effect(text: str, what: str) -> None:
    assert effects(text) == [what]


def test_a_lazy_value_is_plain_only_where_it_is_used_up() -> None:
    """A generator that two steps share is empty for the second one."""
    assert effects("A = tuple(n for n in (1, 2))") == [] and effects("A = list(zip((1,), (2,)))") == []
    assert effects("A = str(n for n in (1, 2))"), "it is not used up by this"
    assert effects("A = zip((1,), (2,))") and effects("A = [zip((1,), (2,))]")


def test_a_name_leads_to_its_library_by_the_imports() -> None:
    def of(text: str) -> str | None:
        return origin(ast.parse(text, mode="eval").body, ORIGINS)

    assert of("dc.field") == "dataclasses.field" and of("Path") == "pathlib.Path" and of("unknown.x") is None
    assert of("f().x") is None
    assert is_step(ast.parse("step(level='assay')", mode="eval").body, ORIGINS)
    assert not is_step(ast.parse("other.step", mode="eval").body, ORIGINS)
    assert is_own("json") and is_own("ctcore") and not is_own("numpy")


def test_a_note_of_a_whole_file_has_no_line() -> None:
    assert str(Note("a.py", 3, "runs code")) == "a.py:3 runs code" and str(Note("a.py", 0, "is read")) == "a.py is read"
