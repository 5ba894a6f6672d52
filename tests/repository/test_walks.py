"""The walks that are counted are those that a reader takes."""

from pathlib import Path

from tools.walks import WALKS, modules, walk

CORE = {
    "a/one.py": "from ctcore.b.two import second\n\n\ndef first():\n    second()\n    own()\n\n\ndef own(): ...\n",
    "b/two.py": "from ctcore.b import three\n\n\ndef second():\n    three.third()\n\n\ndef unread(): ...\n",
    "b/three.py": "from ctcore.c import K\n\n\ndef third():\n    K()\n",
    "c.py": "class K:\n    def __init__(self):\n        self.held()\n\n    def held(self): ...\n",
}


def test_places_and_changes_of_place_are_those_of_the_calls(tmp_path: Path) -> None:
    for name, text in CORE.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert walk(modules(tmp_path), "a.one:first") == (3, 2)  # a → b → c; one room is no change
    assert walk(modules(tmp_path), "b.two:unread") == (1, 0)


def test_the_walks_begin_at_functions_that_there_are() -> None:
    core = Path(__file__).parents[2] / "ctcore"
    known = modules(core)
    for today, _ in WALKS.values():
        module, _, name = today.partition(":")
        assert name in known[module].defined
        assert walk(known, today)[0] > 1
