"""Code that is made, found or lies elsewhere: loops, factories, decorators, bytecode, scripts, tools, modules."""

import os
import py_compile
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from ctcore.code import Code, code_of
from ctcore.code.archive import diff_lines, differing_names, keep_code, read_code
from ctcore.code.environment import local_files
from ctcore.code.loader import load_file
from ctcore.code.tool_versions import Tools, tool_versions
from ctcore.errors import StepError
from ctcore.step import Call
from ctcore.steps.graph import load_steps
from tests.helpers.kit import make_project
from tests.helpers.shell import shell

HEAD = "from ctcore.step import Call, step\n"
DECLARED = 'level="assay", files=("reads",), outputs={"n": "n.txt"}'


def codes(folder: Path, text: str, **siblings: str) -> dict[str, Code]:
    folder.mkdir(exist_ok=True)
    for name, said in siblings.items():
        (folder / f"{name}.py").write_text(said)
    (folder / "toy.py").write_text(HEAD + text)
    return {step.name: code_of(step) for step in load_file(folder / "toy.py")}


def digests(folder: Path, text: str, **siblings: str) -> dict[str, str]:
    return {name: code.digest for name, code in codes(folder, text, **siblings).items()}


def ran(folder: Path, name: str) -> str:
    step = next(one for one in load_file(folder / "toy.py") if one.name == name)
    out = folder / "out"
    out.mkdir(exist_ok=True)
    step.function(Call("A1", "assay", out, {"n": "n.txt"}))
    return (out / "n.txt").read_text()


LOOP = f"""
for depth in (10, 20):
    def made(call, depth=depth):
        call.out("n").write_text(str(depth + 1))
    step(name=f"at_{{depth}}", {DECLARED})(made)
"""
FACTORY = f"""
def at(depth):
    @step(name=f"at_{{depth}}", {DECLARED})
    def made(call):
        call.out("n").write_text(str(depth + 1))
    return made

shallow, deep = at(10), at(20)
"""


@pytest.mark.parametrize("text", [LOOP, FACTORY], ids=["loop", "factory"])
def test_steps_that_are_made_are_their_code_and_their_values(tmp_path: Path, text: str) -> None:
    before = digests(tmp_path, text)
    assert set(before) == {"at_10", "at_20"} and before["at_10"] != before["at_20"]
    assert ran(tmp_path, "at_10") == "11"
    after = digests(tmp_path, text.replace("depth + 1", "depth + 2"))
    assert ran(tmp_path, "at_10") == "12"
    assert all(before[name] != after[name] for name in before)


def test_a_value_read_at_load_time_is_part_of_the_step(tmp_path: Path) -> None:
    panel = tmp_path / "panel.txt"
    panel.write_text("10")
    read = f"from pathlib import Path\nDEPTH = int(Path({str(panel)!r}).read_text())\n"
    text = read + FACTORY.replace("at(10)", "at(DEPTH)")
    folder = tmp_path / "steps"
    before = digests(folder, text)
    panel.write_text("11")
    assert set(digests(folder, text)) == {"at_11", "at_20"}
    named = text.replace('f"at_{depth}"', '"first" if depth < 20 else "second"')
    one = digests(folder, named)
    panel.write_text("12")
    assert digests(folder, named)["first"] != one["first"]
    assert set(before) == {"at_10", "at_20"}


def test_a_value_without_content_is_named(tmp_path: Path) -> None:
    made = "    def made(call):\n        with lock: call.out('n').write_text('1')\n"
    text = f"def at(lock):\n{made}    return step(name='one', {DECLARED})(made)\n"
    found = codes(tmp_path, f"import threading\n{text}at(threading.Lock())\n")["one"]
    assert any("lock of made is a _thread.lock" in str(note) for note in found.unfollowed)


def test_a_folder_moved_elsewhere_has_the_same_values(tmp_path: Path) -> None:
    text = f"from pathlib import Path\nHERE = Path(__file__).parent\n{FACTORY.replace('at(10)', 'at(10)')}".replace(
        "def at(depth):", "def at(depth, here=HERE):"
    ).replace("str(depth + 1)", "str(here)")
    assert digests(tmp_path / "a", text) == digests(tmp_path / "b", text)


WRAPPER = """
import functools
def again(f):
    @functools.wraps(f)
    def inner(call):
        return f(call)
    return inner

def bare(f):
    def inner(call):
        return f(call)
    inner.__name__ = f.__name__
    return inner
"""


@pytest.mark.parametrize("decorator", ["again", "bare"])
def test_a_step_under_a_foreign_decorator_is_followed(tmp_path: Path, decorator: str) -> None:
    body = "def one(call):\n    call.out('n').write_text('1')\n"
    text = f"from ._deco import {decorator}\n@step({DECLARED})\n@{decorator}\n{body}"
    before = digests(tmp_path, text, _deco=WRAPPER)
    assert set(before) == {"one"}
    assert digests(tmp_path, text.replace("'1'", "'2'"), _deco=WRAPPER) != before
    assert digests(tmp_path, text, _deco=WRAPPER.replace("return f(call)", "return f(call) or {}")) != before


def test_a_step_declared_by_shared_code_is_the_importers(tmp_path: Path) -> None:
    shared = HEAD + f"@step({DECLARED})\ndef one(call):\n    call.out('n').write_text('1')\n"
    before = digests(tmp_path, "from ._made import one\n", _made=shared)
    assert set(before) == {"one"}
    assert digests(tmp_path, "from ._made import one\n", _made=shared.replace("'1'", "'2'")) != before


def test_a_step_of_another_file_of_steps_is_not_declared_twice(tmp_path: Path) -> None:
    codes(tmp_path, f"@step({DECLARED})\ndef one(call): ...\n")
    (tmp_path / "more.py").write_text(
        f"{HEAD}from .toy import one\n@step({DECLARED})\ndef two(call): return one(call)\n"
    )
    assert set(load_steps([tmp_path]).by_name) == {"one", "two"}


def test_a_function_without_a_name_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(StepError, match="say name="):
        codes(tmp_path, f"step({DECLARED})(lambda call: None)\n")


def test_siblings_run_from_their_source_and_never_from_bytecode(tmp_path: Path) -> None:
    text = f"from ._limit import LIMIT\n@step({DECLARED})\ndef one(call):\n    call.out('n').write_text(str(LIMIT))\n"
    digests(tmp_path, text, _limit="LIMIT = 1\n")
    py_compile.compile(str(tmp_path / "_limit.py"))
    seen = (tmp_path / "_limit.py").stat()
    (tmp_path / "_limit.py").write_text("LIMIT = 2\n")
    os.utime(tmp_path / "_limit.py", ns=(seen.st_atime_ns, seen.st_mtime_ns))
    assert ran(tmp_path, "one") == "2"


def test_what_runs_is_what_was_read_although_the_file_changes(tmp_path: Path) -> None:
    text = f"@step({DECLARED})\ndef one(call):\n    from ._late import V\n    call.out('n').write_text(str(V))\n"
    codes(tmp_path, text, _late="V = 1\n")
    step = load_file(tmp_path / "toy.py")[0]
    before = code_of(step).digest
    (tmp_path / "_late.py").write_text("V = 2\n")
    assert code_of(step).digest == before
    out = tmp_path / "out"
    out.mkdir()
    step.function(Call("A1", "assay", out, {"n": "n.txt"}))
    assert (out / "n.txt").read_text() == "1"


def test_a_classvar_of_parameters_is_code_a_default_is_not(tmp_path: Path) -> None:
    text = f"""
from dataclasses import dataclass
from typing import ClassVar
@dataclass(frozen=True)
class Options:
    deep: int = 1
    most: ClassVar[int] = 9
@step({DECLARED}, params=Options)
def one(call):
    call.out("n").write_text(str(call.params.most))
"""
    before = digests(tmp_path, text)
    assert digests(tmp_path, text.replace("deep: int = 1", "deep: int = 2")) == before
    assert digests(tmp_path, text.replace("= 9", "= 10")) != before


SCRIPT = f"""
import subprocess
from pathlib import Path
@step({DECLARED}CODE)
def one(call):
    subprocess.run(["sh", str(Path(__file__).parent / "count.sh")], check=True)
"""


def test_files_beside_a_self_locating_step_are_its_code(tmp_path: Path) -> None:
    (tmp_path / "count.sh").write_text("wc -l")
    text = SCRIPT.replace("CODE", "")
    before = codes(tmp_path, text)["one"]
    assert set(before.content["files"]) == {"count.sh"}
    (tmp_path / "count.sh").write_text("wc -c")
    after = codes(tmp_path, text)["one"]
    assert differing_names(before.content, after.content) == ["count.sh"]


def test_an_unreadable_file_beside_a_step_is_reported(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(StepError, match=r"(?s)toy\.py: a file beside step one is its code: .*pipe.*code=\(…\)"):
        codes(tmp_path, SCRIPT.replace("CODE", ""))


def test_declared_files_are_the_only_ones(tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "a.R").write_text("1")
    (tmp_path / "count.sh").write_text("wc -l")
    text = SCRIPT.replace("CODE", ', code=("scripts/*.R", "count.sh")')
    before = digests(tmp_path, text)
    (tmp_path / "README.md").write_text("words")
    assert digests(tmp_path, text) == before
    (tmp_path / "scripts" / "a.R").write_text("2")
    assert digests(tmp_path, text) != before
    with pytest.raises(StepError, match=r"code 'no/\*\.R' leads to no file"):
        codes(tmp_path, SCRIPT.replace("CODE", ', code="no/*.R"'))


def test_a_module_that_nobody_installed_counts_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    beside = tmp_path / "beside"
    beside.mkdir()
    (beside / "ct_helpers_of_a_test.py").write_text("def f():\n    return 1\n")
    monkeypatch.syspath_prepend(beside)
    text = f"import ct_helpers_of_a_test as h\n@step({DECLARED})\ndef one(call):\n    h.f()\n"
    before = codes(tmp_path / "a", text)["one"]
    assert [note.file for note in before.whole] == ["ct_helpers_of_a_test"]
    (beside / "ct_helpers_of_a_test.py").write_text("def f():\n    return 2\n")
    assert codes(tmp_path / "a", text)["one"].digest != before.digest
    assert local_files("pytest") is None and local_files("json") is None


def test_a_file_on_the_module_path_counts_and_runs_from_source(tmp_path: Path) -> None:
    found = "import sys\nfrom pathlib import Path\nsys.path.insert(0, str(Path(__file__).parent))\nimport ct_found_a\n"
    body = f"@step({DECLARED})\ndef one(call):\n    call.out('n').write_text(str(ct_found_a.V))\n"
    place = tmp_path / "s" / "ct_found_a.py"
    before = digests(tmp_path / "s", found + body, ct_found_a="V = 1\n")
    py_compile.compile(str(place))
    seen = place.stat()
    place.write_text("V = 2\n")
    os.utime(place, ns=(seen.st_atime_ns, seen.st_mtime_ns))
    del sys.modules["ct_found_a"]
    try:
        assert digests(tmp_path / "s", found + body) != before
        assert ran(tmp_path / "s", "one") == "2"
    finally:
        sys.path[:] = [one for one in sys.path if one != str(tmp_path / "s")]


def test_what_cannot_be_followed_is_named_with_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "far.py").write_text("V = 1\n")
    text = f"@step({DECLARED})\ndef one(call):\n    eval('1 + ' + call.entity)\n"
    before = codes(tmp_path, text)["one"]
    assert [(note.file, note.line) for note in before.unfollowed] == [("toy.py", 4)]
    (tmp_path / "far.py").write_text("V = 2\n")  # which it may reach, for all that can be seen
    assert codes(tmp_path, text)["one"].digest != before.digest


def program(place: Path, said: str) -> str:
    place.write_text(f"#!/bin/sh\necho {said}\n")
    place.chmod(place.stat().st_mode | stat.S_IXUSR)
    return str(place)


def test_the_version_of_a_declared_tool_is_environment(tmp_path: Path) -> None:
    tool = program(tmp_path / "counter", "counter 1.0")
    assert tool_versions({"counter": f"{tool} --version"}) == {"tool counter": "counter 1.0"}
    assert tool_versions({"none": "/nowhere/none --version"}) == {"tool none": "not found"}


def test_a_tool_is_asked_again_where_its_file_is_another(tmp_path: Path) -> None:
    tool = program(tmp_path / "counter", "counter 1.0")
    place = tmp_path / "work" / "tools.json"
    assert Tools(place).versions({"counter": tool}) == {"tool counter": "counter 1.0"}
    place.write_text(place.read_text().replace("counter 1.0", "as remembered"))
    assert Tools(place).versions({"counter": tool}) == {"tool counter": "as remembered"}
    other = program(tmp_path / "counter2", "counter 2.0")
    os.replace(other, tool)
    code = f"import pathlib; from ctcore.code.tool_versions import Tools; place = pathlib.Path({str(place)!r})"
    asked = f"{code}; print(Tools(place).versions({{'c': {tool!r}}}))"
    assert (
        "counter 2.0"
        in subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True).stdout
    )


def test_another_version_of_a_tool_makes_stale_and_says_so(tmp_path: Path) -> None:
    tool = program(tmp_path / "counter", "1.0")
    declared = f'@step({DECLARED}, tools={{"counter": "{tool}"}})\n'
    steps = f'{HEAD}{declared}def counted(call):\n    call.out("n").write_text("1")\n'
    make_project(tmp_path / "p", steps=steps)
    assert shell("-C", tmp_path / "p", "run").code == 0
    program(tmp_path / "counter", "2.0")
    said = shell("-C", tmp_path / "p", "why", "counted/A1")
    assert said.code == 3 and "environment: tool counter 1.0 → 2.0" in said.out
    assert shell("-C", tmp_path / "p", "run").code == 0
    assert shell("-C", tmp_path / "p", "why", "counted/A1").code == 0


def test_code_is_kept_and_its_lines_are_told(tmp_path: Path) -> None:
    text = f"def help_it(n):\n    return n + 1\n@step({DECLARED})\ndef one(call):\n    help_it(1)\n"
    before = codes(tmp_path / "s", text)["one"]
    after = codes(tmp_path / "s", text.replace("n + 1", "n + 2"))["one"]
    for code in (before, after):
        keep_code(tmp_path / "store", code)
        assert read_code(tmp_path / "store", code.digest) == code.content
    assert differing_names(before.content, after.content) == ["help_it"]
    assert [line for line in diff_lines(before.content, after.content) if line[0] in "+-"] == [
        "-    return n + 1",
        "+    return n + 2",
    ]
    place = tmp_path / "store" / ".code" / f"{after.digest}.json"
    place.chmod(0o644)
    place.write_text(place.read_text().replace("n + 2", "n + 3"))
    assert read_code(tmp_path / "store", after.digest) is None


def test_the_commands_show_the_code_and_what_of_it_is_seen(tmp_path: Path) -> None:
    project = make_project(tmp_path / "p")
    toy = project.root / "steps" / "toy.py"
    root = project.root
    assert shell("-C", root, "run").code == 0
    assert "def counted(call: Call)" in shell("-C", root, "show", "counted/A1", "--code").out
    assert "== counted" in shell("-C", root, "trace", "merged/S1", "--code").out
    assert shell("-C", root, "steps", "check").code == 0
    toy.write_text(toy.read_text().replace("* call.params.factor", "* call.params.factor * eval('1')"))
    checked = shell("-C", root, "steps", "check", "counted")
    assert checked.code == 3 and "cannot be followed: toy.py:" in checked.err
    assert "code: counted" in shell("-C", root, "stale", "--why").out
    assert shell("-C", root, "run").code == 0
    said = shell("-C", root, "diff", "counted/A1").out
    assert "eval('1')" in said
    assert "not seen: toy.py:" in shell("-C", root, "why", "counted/A1").out


METADATA = f"""
from dataclasses import dataclass, field, fields
@dataclass(frozen=True)
class Options:
    deep: int = field(default=3, metadata={{"k": 10}})
@step({DECLARED}, params=Options)
def one(call):
    call.out("n").write_text(str(fields(call.params)[0].metadata["k"]))
"""


def test_what_a_parameter_says_beside_its_default_is_code(tmp_path: Path) -> None:
    before = digests(tmp_path, METADATA)
    assert digests(tmp_path, METADATA.replace("default=3", "default=4")) == before
    assert digests(tmp_path, METADATA.replace("10", "11")) != before


def test_files_behind_links_and_hidden_ones_count(tmp_path: Path) -> None:
    other, folder = tmp_path / "elsewhere", tmp_path / "s"
    other.mkdir()
    folder.mkdir()
    (other / "x.tsv").write_text("1")
    (folder / "panels").symlink_to(other)
    (folder / ".hidden.tsv").write_text("1")
    (other / "round").symlink_to(folder)
    text = SCRIPT.replace("CODE", "")
    found = codes(folder, text)["one"].content["files"]
    assert set(found) == {"panels/x.tsv", ".hidden.tsv"}
    (other / "x.tsv").write_text("2")
    assert codes(folder, text)["one"].content["files"] != found
    assert set(codes(folder, SCRIPT.replace("CODE", ', code="panels/*.tsv"'))["one"].content["files"]) == {
        "panels/x.tsv"
    }


def test_a_declared_script_brings_what_it_imports(tmp_path: Path) -> None:
    text = SCRIPT.replace("CODE", ', code="tool.py"')
    before = digests(tmp_path, text, tool="from helper_of_a_tool import V\nprint(V)\n", helper_of_a_tool="V = 1\n")
    after = digests(tmp_path, text, tool="from helper_of_a_tool import V\nprint(V)\n", helper_of_a_tool="V = 2\n")
    assert before != after


def test_packages_that_import_each_other_come_to_an_end(tmp_path: Path) -> None:
    (tmp_path / "_p").mkdir()
    (tmp_path / "_p" / "__init__.py").write_text("from . import m\n")
    (tmp_path / "_p" / "m.py").write_text("def f():\n    return 1\n")
    text = f"from ._p import m\n@step({DECLARED})\ndef one(call):\n    call.out('n').write_text(str(m.f()))\n"
    before = digests(tmp_path, text)
    assert ran(tmp_path, "one") == "1"
    (tmp_path / "_p" / "m.py").write_text("def f():\n    return 2\n")
    assert digests(tmp_path, text) != before
    circle = {"_c1": "from ._c2 import x\n", "_c2": "from ._c1 import x\n"}
    digests(tmp_path, f"@step({DECLARED})\ndef one(call):\n    from ._c1 import x\n", **circle)


def test_code_that_is_nested_too_deeply_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(StepError, match=r"toy\.py"):
        digests(tmp_path, f"X = {'+'.join('1' * 5000)}\n@step({DECLARED})\ndef one(call):\n    return X\n")
