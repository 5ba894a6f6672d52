"""What commands share: text that is safe to print, tables, sizes, graphs, bars, options, examples."""

import json
import sys
from collections import Counter
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from ctcore.cohorts.partitions import NOBODY
from ctcore.errors import CtError
from ctcore.inputs.key import Edge
from ctcore.lineage.target import find_target
from ctcore.lineage.trace import Trace, trace
from ctcore.project import Project
from ctcore.terminal.cohort_options import filter_selected, narrowing_options
from ctcore.terminal.examples import EXAMPLES
from ctcore.terminal.look_first import look_first
from ctcore.terminal.mermaid_dot import Arrow, Box, _dot_lines, boxes, escape_text
from ctcore.terminal.progress_bars import Bars
from ctcore.terminal.render import NO_STEPS, ByteCounter, echo_json, is_terminal, open_project, size, table
from ctcore.terminal.safe_text import escape_controls
from ctcore.terminal.tree import FEW, Tree, by_input, escape_unprintable, first_sources
from tests.helpers.kit import TOML, make_all, make_project


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    made = make_project(tmp_path_factory.mktemp("traced"))
    make_all(made)
    return made


@pytest.fixture(scope="module")
def traced(project: Project) -> Trace:
    return trace(project, find_target(project, "joined/all"))


NASTY = "a\x1b[2Jb\u202ec\td\ne\r"


def test_text_that_moves_the_cursor_is_shown_as_its_code() -> None:
    assert escape_controls(NASTY) == "a\\x1b[2Jb\\u202ec\td\ne\\r"
    assert escape_unprintable(NASTY) == "a\\x1b[2Jb\\u202ec\\td\\ne\\r"
    assert escape_controls("Ärztin 患者") == escape_unprintable("Ärztin 患者") == "Ärztin 患者"


def test_a_table_in_a_pipe_is_a_line_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    table(("id", "said"), [("P1", "two\nlines\tand a tab"), ("P2", None)])
    assert capsys.readouterr().out == "id\tsaid\nP1\ttwo lines and a tab\nP2\t\n"


def test_json_has_no_character_that_moves_the_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    echo_json({"said": NASTY, "at": Path("ä")})
    out = capsys.readouterr().out
    assert "\x1b" not in out and "ä" in out
    assert json.loads(out) == {"said": NASTY, "at": "ä"}


def test_sizes_are_in_thousands() -> None:
    assert [size(n) for n in (0, 999, 1000, 1_234_567, 5e9, 3e15)] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "1.2 MB",
        "5.0 GB",
        "3000.0 TB",
    ]


def test_a_closed_stream_is_no_terminal() -> None:
    assert not is_terminal(None) and not is_terminal(sys.stdout)


def test_a_bar_in_a_pipe_is_a_line_once_it_is_full(capsys: pytest.CaptureFixture[str]) -> None:
    with Bars() as bars:
        bars.start("merged", 3)
        bars.start("nothing", 0)
        bars.advance("merged", 2)
        assert capsys.readouterr().err == ""
        bars.advance("merged")
        bars.say("one failed")
    line, said = capsys.readouterr().err.splitlines()
    assert line.split()[:2] == ["merged", "3/3"] and said == "one failed"


def test_reading_for_long_is_told_in_a_pipe(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    counter = ByteCounter("reading")
    with counter as count:
        counter.of(4000)
        now[0] += 30
        count(500)
        now[0] += 31
        count(500)
    assert capsys.readouterr().err == "reading: 1.0 kB of 4.0 kB, 3 min left\n"


def test_many_sources_are_shown_in_part_and_counted() -> None:
    edges = [Edge("reads", "aligned", f"A{n}", "v") for n in range(FEW + 2)]
    assert first_sources(edges[: FEW + 1], everything=False) == (edges[: FEW + 1], 0)
    assert first_sources(edges, everything=False) == (edges[:FEW], 2)
    assert first_sources(edges, everything=True) == (edges, 0)
    mixed = [edges[0], Edge("genome", "reference", "g", "v"), edges[1]]
    assert by_input(mixed) == {"reads": edges[:2], "genome": [mixed[1]]}


def test_labels_of_graphs_end_no_text_and_no_tag() -> None:
    assert escape_text('a"]<b>') == "a#34;#93;#60;b#62;"
    lines = list(_dot_lines([Box("m1", ('a"b', "c\\"), "file")], [Arrow("m1", "m2", "r")]))
    assert lines[2] == '  m1 [shape=note, label="a\\"b\\nc\\\\"];' and lines[3] == '  m1 -> m2 [label="r"];'


def test_the_options_that_narrow_are_on_the_command() -> None:
    @click.command()
    @narrowing_options
    def command(**given: object) -> None:
        click.echo(json.dumps(given, sort_keys=True))

    said = CliRunner().invoke(command, ["--cohort", "women", "--complete-only"])
    assert json.loads(said.output) == {"cohort": "women", "complete_only": True, "pairing": None}


def test_nodes_are_narrowed_only_where_an_option_asks(tmp_path: Path) -> None:
    toml_cohort = '[cohorts.women.where]\n"patient.sex" = "F"\n'
    project = make_project(tmp_path)
    (project.root / "ct.toml").write_text((project.root / "ct.toml").read_text() + toml_cohort)
    keys = {"counted": {"A1", "A3"}}
    assert filter_selected(project, keys, None, None, False) is keys
    again = type(project).find(project.root)
    assert filter_selected(again, keys, "women", None, False) == {"counted": {"A1"}}
    with pytest.raises(CtError, match="nobody"):
        filter_selected(again, keys, "nobody", None, False)


def test_a_look_says_what_is_gone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = make_project(tmp_path)
    make_all(project)
    look_first(project)
    assert capsys.readouterr().err == ""
    (project.root / "reads" / "A1.txt").unlink()
    look_first(project)
    assert "A1" in capsys.readouterr().err


def test_a_trace_is_a_tree_in_which_nothing_is_shown_twice(traced: Trace) -> None:
    lines = list(Tree(traced).lines())
    texts = [line.text for line in lines]
    assert lines[0].depth == 0 and texts[0].startswith("joined/all  #")
    depth = {name: next(one.depth for one in lines if f"{name}  #" in one.text) for name in ("merged/S1", "counted/A1")}
    assert depth == {"merged/S1": 1, "counted/A1": 2}
    assert any(text.startswith("code counted") for text in texts) and "recipe as of merged/S1" in texts
    assert not any("shown above" in text or "--all" in text for text in texts)


def test_a_target_that_is_an_entity_shows_its_sheet_and_parent(project: Project) -> None:
    lines = [line.text for line in Tree(trace(project, find_target(project, "assay/A1"))).lines()]
    assert lines[0] == "assay/A1" and "belongs to specimen/S1" in lines
    assert any(line.startswith("sheet ") for line in lines) and any(line.startswith("reads ") for line in lines)


def test_a_trace_is_a_graph_with_a_box_a_content(traced: Trace) -> None:
    found, arrows = boxes(traced)
    kinds = Counter(box.kind for box in found)
    assert kinds == {"artifact": 6, "file": 3, "reference": 1, "column": 2}
    by_name = {box.name: box for box in found}
    genome = next(box for box in found if box.kind == "reference")
    assert genome.lines[-1] == "genome.txt" and sum(one.source == genome.name for one in arrows) == 3
    assert all("F" not in box.lines and "M" not in box.lines for box in found)  # values of people
    assert {by_name[one.into].lines[0] for one in arrows if one.label == "counts"} == {"merged/S1", "merged/S2"}


def test_a_command_says_first_that_nobody_is_registered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "ct.toml").write_text(TOML)
    for command, said in (("status", [NO_STEPS, NOBODY]), ("show", [NOBODY]), ("register", [])):
        root = click.Context(click.Group("ct"), obj=str(tmp_path))
        root.invoked_subcommand = command
        open_project(root)
        assert capsys.readouterr().err.splitlines() == said


def test_every_example_is_a_line_of_its_command() -> None:
    assert [line for name, lines in EXAMPLES.items() for line in lines if not line.startswith(f"ct {name}")] == []
