"""What a call reads that its step does not declare is seen, and what it declares is not named."""

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ctcore.errors import ProjectError
from ctcore.execution import audit_hook, call, strace
from ctcore.execution.allowed_reads import AllowedReads
from ctcore.execution.audit_hook import MOST
from ctcore.execution.call import StepCall
from ctcore.execution.command_lines import commands
from ctcore.execution.sandbox import refusal
from ctcore.governance.consent import Statement, set_consent
from ctcore.project import Project
from tests.helpers.kit import TOML, Inline, again, assay, make, make_project
from tests.helpers.shell import ct

TWO = [assay("P1", "S1", "A1", sex="F"), assay("P1", "S1", "A2", sex="F")]
STEP = '''\
"""One step."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from ctcore.step import Call, step

HERE = Path(__file__).parent
SCRIPTS = HERE.parent / "scripts"


@step(level="assay", files=["reads"], references=["genome"], outputs={{"n": "n.txt"}})
def counted(call: Call) -> None:
    """What the test wants."""
    {body}
    call.out("n").write_text("1")
'''

Watched = Callable[..., list[dict[str, Any]]]


def sidecar(project: Project, name: str = "A1") -> dict[str, Any]:
    (path,) = project.store.root.glob(f"counted/{name}/*/ct.json")
    return json.loads(path.read_bytes())


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    """What a step with this body reads; other files lie beside its file, or in the project."""

    def run(body: str, toml: str = TOML, **files: str) -> list[dict[str, Any]]:
        project = make_project(tmp_path / "toy", TWO, steps=STEP.format(body=body.strip()), toml=toml)
        for name, text in files.items():
            path = tmp_path / "toy" / name.replace("__", "/").replace("_DOT_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            path.chmod(0o755)
        (one,) = make(project, "counted", "A1", runner=Inline(project))
        assert one.state == "made", one.why
        return sidecar(project)["undeclared"]

    return run


@pytest.fixture
def own_sigterm() -> Iterator[None]:
    """A pool ends its forks by SIGTERM; here, another test may have left a handler that passes over it."""
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGTERM, before)


def what(found: list[dict[str, Any]], kind: str) -> list[str]:
    return [one["what"] for one in found if one["kind"] == kind]


def test_a_table_read_by_path_is_named_with_its_line(watched: Watched) -> None:
    found = watched("(HERE.parent / 'panel.tsv').read_text()", panel_DOT_tsv="x")
    assert found == [{"kind": "file", "what": "panel.tsv", "at": "toy.py:18"}]


def test_declared_and_self_made_files_are_not_named(watched: Watched) -> None:
    found = watched(
        """
    call.file("reads").read_text(), call.reference("genome").read_text()
    Path(f"{call.reference('genome')}.fai").read_text()
    call.reference("genome").with_suffix(".dict").read_text()
    Path("own").write_text("x"), Path("own").read_text()
    call.scratch("s").write_text("x"), call.scratch("s").read_text()
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as file:
        Path(folder, "x").write_text("x"), os.listdir(folder), os.listdir(), Path(folder, "x").read_text()
    made = HERE.parent / "made"
    made.write_text("x"), made.read_text(), made.unlink()
    Path("/dev/null").read_text(), Path("/proc/self/status").read_text(), Path("/etc/hostname").exists()
    call.out("n").write_text("1"), call.out("n").read_text(), list(call.folder.iterdir())
    import sqlite3, xml.dom.minidom, email.mime.text, zoneinfo, numpy, pandas
    zoneinfo.ZoneInfo("Europe/Berlin")
    sqlite3.connect("own.db").close()
    """,
        genome_DOT_txt_DOT_fai="",
        genome_DOT_dict="",
    )
    assert found == []


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ("subprocess.run(['sh', str(SCRIPTS / 'tool.sh')], check=True)", "scripts/tool.sh"),
        ("subprocess.run([sys.executable, SCRIPTS / 'tool.py'], check=True)", "scripts/tool.py"),
        ("import runpy; runpy.run_path(SCRIPTS / 'tool.py')", "scripts/tool.py"),
        ("os.system(f'cat < {SCRIPTS}/table.txt >/dev/null')", "scripts/table.txt"),
        ("subprocess.run(['true', f'--table={SCRIPTS}/table.txt'], check=True)", "scripts/table.txt"),
        ("sorted(SCRIPTS.glob('*.txt'))", "scripts/"),
        ("import sqlite3; sqlite3.connect(SCRIPTS / 'table.txt').close()", "scripts/table.txt"),
        ("(SCRIPTS / 'table.txt').open('r+').close()", "scripts/table.txt"),
        ("os.close(os.open(SCRIPTS / 'table.txt', os.O_RDONLY))", "scripts/table.txt"),
        (
            "import threading; t = threading.Thread(target=(SCRIPTS / 'table.txt').read_text); t.start(); t.join()",
            "scripts/table.txt",
        ),
    ],
)
def test_a_script_and_a_table_used_by_path_are_named(watched: Watched, body: str, named: str) -> None:
    found = watched(body, scripts__tool_DOT_sh="true\n", scripts__tool_DOT_py="", scripts__table_DOT_txt="x")
    assert [one["what"] for one in found if one["kind"] == "file"] == [named]


@pytest.mark.parametrize(
    "body",
    [
        "os.symlink(SCRIPTS / 'table.txt', 'mine'); open('mine').read()",
        "os.symlink(SCRIPTS / 'table.txt', 'mine'); Path('mine').read_text()",
        "os.symlink(SCRIPTS, 'dir'); Path('dir/table.txt').read_text()",
        "os.symlink(SCRIPTS / 'table.txt', call.scratch('mine')); call.scratch('mine').read_text()",
        "os.link(SCRIPTS / 'table.txt', 'mine'); Path('mine').read_text()",
    ],
)
def test_what_lies_behind_a_link_of_the_calls_own_is_named(watched: Watched, body: str) -> None:
    assert what(watched(body, scripts__table_DOT_txt="x"), "file") == ["scripts/table.txt"]


def test_what_forks_read_is_named_as_if_the_step_had_read_it(watched: Watched, own_sigterm: None) -> None:
    body = """
    import multiprocessing
    with multiprocessing.get_context("fork").Pool(2) as pool:
        pool.map(Path.read_text, [HERE.parent / "panel.tsv", HERE.parent / "sites.tsv"])
        pool.map(os.getenv, ["CT_TEST"])
    """
    found = watched(body, panel_DOT_tsv="x", sites_DOT_tsv="x")
    assert what(found, "file") == ["panel.tsv", "sites.tsv"]


@pytest.mark.parametrize(
    ("body", "what"),
    [
        ("import glob; assert glob.glob('scripts/*') == []", "scripts/"),
        ("assert list(Path('scripts').glob('*')) == []", "scripts/"),
        ("import contextlib\n    with contextlib.suppress(OSError): open('scripts/x.tsv')", "scripts/x.tsv"),
    ],
)
def test_what_is_sought_in_the_old_project_place_is_named(watched: Watched, body: str, what: str) -> None:
    """Nothing fails where a folder is listed that is not there: the step would go on with nothing."""
    found = watched(body, scripts__x_DOT_tsv="x")
    assert [(one["kind"], one["what"]) for one in found] == [("missed", what)]


def test_a_started_program_is_named_a_mere_launcher_is_not(watched: Watched) -> None:
    body = """
    tool = HERE.parent / "bin"
    search = f"{tool}:{os.defpath}"
    subprocess.run(["bcfcount", "x"], env={"PATH": search}, check=True)
    subprocess.run(f"cat {call.file('reads')} | sort > x", shell=True, check=True)
    subprocess.run([sys.executable, "-c", "1"], check=True)
    subprocess.run([SCRIPTS / "own.sh"], check=True)
    """
    found = watched(body, bin__bcfcount="#!/bin/sh\n", scripts__own_DOT_sh="#!/bin/sh\n")
    assert [os.path.basename(one) for one in what(found, "program")] == ["sort", "bcfcount", "own.sh"]
    assert what(found, "program")[1:] == ["bin/bcfcount", "scripts/own.sh"]
    assert what(found, "file") == []


def test_a_steps_variables_are_named_a_librarys_are_not(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CT_TEST_ONE", "CT_TEST_TWO", "CT_TEST_THREE"):
        monkeypatch.setenv(name, "1")
    body = """
    os.environ["CT_TEST_ONE"], os.getenv("CT_TEST_TWO"), os.environ.get("CT_TEST_THREE"), os.environ.get("CT_TEST_NONE")
    dict(os.environ), {**os.environ}, os.environ.copy(), tempfile.gettempdir(), Path.home(), os.environ["TMPDIR"]
    {name: value for name, value in os.environ.items()}
    """
    names = ["CT_TEST_NONE", "CT_TEST_ONE", "CT_TEST_THREE", "CT_TEST_TWO"]
    assert watched(body) == [{"kind": "environment", "what": name, "at": "toy.py:18"} for name in names]
    assert type(os.environ).__getitem__.__module__ == "os"


def test_a_module_outside_packages_is_named_for_every_call(tmp_path: Path) -> None:
    body = "sys.path.insert(0, str(HERE.parent)); import ct_test_helper"
    project = make_project(tmp_path / "toy", TWO, steps=STEP.format(body=body))
    (tmp_path / "toy" / "ct_test_helper.py").write_text(
        "from pathlib import Path\nX = (Path(__file__).parent / 'conf.json').read_text()\n"
    )
    (tmp_path / "toy" / "conf.json").write_text("{}")
    try:
        make(project, "counted", runner=Inline(project))
    finally:
        sys.path.remove(str(tmp_path / "toy"))
        del sys.modules["ct_test_helper"]
    for name in ("A1", "A2"):
        found = sidecar(project, name)["undeclared"]
        assert (what(found, "module"), what(found, "file")) == (["ct_test_helper.py"], ["conf.json"])


def test_a_module_that_counts_as_code_is_not_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lib" / "ct_test_local").mkdir(parents=True)
    (tmp_path / "lib" / "ct_test_local" / "__init__.py").write_text("from ct_test_local.more import X\n")
    (tmp_path / "lib" / "ct_test_local" / "more.py").write_text("X = 1\n")
    monkeypatch.syspath_prepend(tmp_path / "lib")
    for sandbox in ("watch", "off") if refusal() else ("watch", "strict"):
        toml = TOML.replace("workers = 2", f'workers = 2\nsandbox = "{sandbox}"')
        steps = STEP.format(body="from ct_test_local import X")
        project = make_project(tmp_path / sandbox, TWO, steps=steps, toml=toml)
        monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'lib'}:{os.environ.get('PYTHONPATH', '')}")
        (one,) = make(project, "counted", "A1", runner=Inline(project))
        assert one.state == "made", one.why
        assert not sidecar(project)["undeclared"]


def test_siblings_that_ct_loads_are_code_and_are_not_named(watched: Watched) -> None:
    found = watched("from ._shared import X; call.out('n').write_text(X)", steps___shared_DOT_py="X = '1'\n")
    assert found == []


def test_declared_files_and_programs_are_not_named(tmp_path: Path) -> None:
    body = """
    (HERE / "data" / "t.txt").read_text(), (HERE / "data" / "u.txt").read_text()
    subprocess.run(["sort", os.devnull], check=True), subprocess.run(["uniq", os.devnull], check=True)
    """
    declared = 'code=["data/t.*"], tools={"sort": "sort --version"}, outputs'
    project = make_project(tmp_path / "toy", TWO, steps=STEP.format(body=body.strip()).replace("outputs", declared, 1))
    (tmp_path / "toy" / "steps" / "data").mkdir()
    for name in ("t.txt", "u.txt"):
        (tmp_path / "toy" / "steps" / "data" / name).write_text("x")
    make(again(project), "counted", "A1", runner=Inline(project))
    found = sidecar(project)["undeclared"]
    assert what(found, "file") == ["steps/data/u.txt"]
    assert [os.path.basename(one) for one in what(found, "program")] == ["uniq"]
    assert 'Add code=("data/u.txt",)' in ct("-C", project.root, "why", "counted/A1").out


def test_files_that_the_digest_covers_are_not_named(watched: Watched) -> None:
    assert watched("(HERE / 't.txt').read_text()", steps__t_DOT_txt="x") == []


def test_what_a_file_of_steps_reads_while_it_is_loaded_is_named(tmp_path: Path) -> None:
    table = tmp_path / "t.txt"
    table.write_text("x")
    steps = STEP.format(body="pass").replace("HERE =", f"TABLE = Path({str(table)!r}).read_text()\nHERE =")
    project = make_project(tmp_path / "toy", TWO, steps=steps)
    make(project, "counted", "A1", runner=Inline(project))
    assert sidecar(project)["undeclared"] == [{"kind": "file", "what": str(table), "at": "toy.py:11"}]


def test_many_are_counted(watched: Watched) -> None:
    found = watched(f"for n in range({MOST + 7}): os.environ.get(f'CT_TEST_{{n}}')")
    assert len(found) == MOST + 1 and found[-1] == {"kind": "more", "what": "7"}


def test_an_unknown_sandbox_word_is_refused_with_the_list(tmp_path: Path) -> None:
    toml = TOML.replace("workers = 2", 'workers = 2\nsandbox = "loose"')
    with pytest.raises(ProjectError, match=r"\[run\] sandbox = 'loose': one of off, watch, strict"):
        make_project(tmp_path / "toy", toml=toml).settings


def test_nobody_watches_where_the_project_does_not_want_it(watched: Watched) -> None:
    off = TOML.replace("workers = 2", 'workers = 2\nsandbox = "off"')
    assert watched("(HERE.parent / 'panel.tsv').read_text()", off, panel_DOT_tsv="x") is None


def test_a_call_written_by_an_earlier_version_is_watched(tmp_path: Path) -> None:
    old = {name for name in StepCall.__dataclass_fields__ if name != "sandbox"}
    given: dict[str, Any] = dict.fromkeys(old, ())
    assert StepCall(**given).sandbox == "watch"
    assert replace(StepCall(**given), sandbox="off").sandbox == "off"


def test_an_output_written_elsewhere_is_reported_with_its_place(tmp_path: Path) -> None:
    steps = STEP.format(body="(HERE.parent / 'n.txt').write_text('1'); return")
    project = make_project(tmp_path / "toy", TWO, steps=steps)
    (one,) = make(project, "counted", "A1", runner=Inline(project))
    assert f'was not written; but the step wrote {tmp_path}/toy/n.txt: write it to call.out("n")' in one.why


def test_a_name_that_is_no_text_costs_no_result(watched: Watched) -> None:
    odd = "os.path.join(os.fsencode(HERE.parent), b'odd\\xff.tsv')"
    found = watched(f"open({odd}, 'a').close(), open({odd}).close()")
    assert what(found, "file") == ["odd\ufffd.tsv"]


def test_a_declared_file_is_known_by_name_and_real_place(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    known = AllowedReads(tmp_path, [f"{tmp_path}/link/g.fa", f"{tmp_path}/r.bam"], [f"{tmp_path}/store/one"])
    for name in ("link/g.fa", "real/g.fa", "real/g.fa.fai", "real/g.dict", "link/g.fa.bwt.2bit", "r.bai", "r.bam.bai"):
        assert known.has(f"{tmp_path}/{name}"), name
    for name in ("store/one", "store/one/", "store/one/n.txt", "store/one/d/n.txt", "link/g.fa/inside"):
        assert known.has(f"{tmp_path}/{name}"), name
    for name in ("real/g", "real/g.f", "real/g.fasta", "real/g.bed", "store/one2/n.txt", "store/", "real/", "r.bam2"):
        assert not known.has(f"{tmp_path}/{name}"), name


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("a x | b y && X=1 c; d", ["a", "b", "c", "d"]),
        ("(a; b 2>&1) | c > out", ["a", "b", "c"]),
        ("bash -c 'a | b'", ["a", "b"]),
        ("a 'unclosed", []),
    ],
)
def test_a_line_of_shell_is_read_for_its_commands(line: str, found: list[str]) -> None:
    assert [one[0] for one in commands(["sh", "-c", line])] == found


def test_workers_watch_too(tmp_path: Path) -> None:
    project = make_project(tmp_path / "toy", TWO, steps=STEP.format(body="(HERE.parent / 't.txt').read_text()"))
    (tmp_path / "toy" / "t.txt").write_text("x")
    make(project, "counted")
    for name in ("A1", "A2"):
        assert sidecar(project, name)["undeclared"] == [{"kind": "file", "what": "t.txt", "at": "toy.py:18"}]


@pytest.fixture
def read_beyond(tmp_path: Path) -> Project:
    """A project whose step reads a table, a script beside it, a program and a variable that it does not declare."""
    body = """
    (HERE.parent / "panel.tsv").read_text(), (SCRIPTS / "filter.sh").read_text(), os.environ.get("CT_TEST")
    subprocess.run(["sort", os.devnull], check=True)
    """
    project = make_project(tmp_path / "toy", TWO, steps=STEP.format(body=body.strip()))
    (tmp_path / "toy" / "panel.tsv").write_text("x")
    (tmp_path / "toy" / "scripts").mkdir()
    (tmp_path / "toy" / "scripts" / "filter.sh").write_text("x")
    make(project, "counted", runner=Inline(project))
    return again(project)


def test_why_and_show_name_undeclared_reads_and_the_fix(read_beyond: Project) -> None:
    for command in ("why", "show"):
        said = ct("-C", read_beyond.root, command, "counted/A1")
        assert said.code == 0
        for words in (
            "it also read panel.tsv (toy.py:18), which the step does not declare; a change of it is not seen. "
            'Add references=("panel",), and [references.panel] path = "panel.tsv" in ct.toml',
            "it also read scripts/filter.sh (toy.py:18), which the step does not declare; a change of it is not seen. "
            'Put it beside the step\'s file, and add code=("filter.sh",)',
            'Add tools={"sort": "sort --version"}',
            "it also read the variable CT_TEST (toy.py:18), which the step does not declare; "
            "a change of it is not seen. Read it through a parameter: [params.counted] in ct.toml",
        ):
            assert words in said.out
    shown = json.loads(ct("-C", read_beyond.root, "why", "counted/A1", "--json").out)
    assert len(shown["undeclared"]) == 4 and {one["kind"] for one in shown["made"]["undeclared"]} == set(_KINDS)


_KINDS = ("file", "program", "environment")


def test_verify_counts_by_step_what_was_not_declared(read_beyond: Project) -> None:
    said = ct("-C", read_beyond.root, "verify")
    assert said.code == 0 and "0 findings" in said.err
    assert '  counted: read panel.tsv (2 nodes). Add references=("panel",)' in said.err


def test_a_materializations_page_names_undeclared_reads(read_beyond: Project) -> None:
    from ct_assets.metadata import describe

    outcomes = make(read_beyond, "counted", "A1", runner=Inline(read_beyond))
    (shown,) = describe(read_beyond, read_beyond.steps["counted"], outcomes).values()
    assert "it also read panel.tsv" in shown["not declared"].value


def test_nobody_without_consent_is_named_by_what_was_read(tmp_path: Path) -> None:
    body = "Path(call.file('reads').parent, 'A2.txt').read_text()"
    rows = [assay("P1", "S1", "A1", sex="F"), assay("P2", "S2", "A2", sex="F")]
    project = make_project(tmp_path / "toy", rows, steps=STEP.format(body=body))
    make(project, "counted", runner=Inline(project))
    assert "it also read reads/A2.txt" in ct("-C", project.root, "why", "counted/A1").out
    assert "reads/A2.txt (1 node)" in ct("-C", project.root, "verify").err
    set_consent(project, ["P2"], Statement("revoked", dated="2024-01-20", form="form 12"))
    for words in (
        ("why", "counted/A1"),
        ("why", "counted/A1", "--json"),
        ("show", "counted/A1", "--json"),
        ("verify",),
    ):
        said = ct("-C", project.root, *words)
        assert "A2" not in said.out + said.err


def test_the_files_that_end_the_frame_search_exist() -> None:
    """They are known by their paths: a file that moved would let ct's own reads pass for those of a step."""
    assert Path(audit_hook._EXECUTE) == Path(call.__file__) and Path(audit_hook._TRACER) == Path(strace.__file__)
