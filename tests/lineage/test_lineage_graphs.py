"""A trace as a graph is valid, whatever files are called, and has every edge of the ledger."""

import html
import re
from pathlib import Path

import pytest
from sqlalchemy import func, select, update

from ctcore.catalog.tables import edge, file, reference
from ctcore.project import Project
from tests.helpers.kit import again, make_all, make_project
from tests.helpers.shell import ct

HOSTILE = 'a "b" \\" <script>x</script> ]; x --> y | %% # &amp; {}()[] \\N ;\n\x1b[31m end\r\tü 𝔘 \u202e.txt'
TEXT = r'"(?:[^"\\\n]|\\.)*"'
DOT_BOX = re.compile(rf"  (\w+) \[shape=\w+, label=({TEXT})\];")
DOT_ARROW = re.compile(rf"  (\w+) -> (\w+) \[label=({TEXT})\];")
MERMAID_BOX = re.compile(r'  (\w+)(?:\["([^"\n]*)"\]|\("([^"\n]*)"\))')
MERMAID_ARROW = re.compile(r'  (\w+) -->\|"([^"\n]*)"\| (\w+)')


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """All is made; then its files are called what no sheet would let through."""
    project = make_project(tmp_path_factory.mktemp("hostile"))
    make_all(project)
    with project.catalog.write() as writer:
        writer.execute(update(file).values(path=HOSTILE + file.c.path))
        writer.execute(update(reference).values(path=HOSTILE))
    return again(project)


def edges(project: Project) -> int:
    with project.catalog.read() as connection:
        return connection.execute(select(func.count()).select_from(edge)).scalar_one()


def dot_text(quoted: str) -> str:
    """What Graphviz shows for a quoted label: escapes resolved, lines joined by a blank."""
    return re.sub(r"\\(.)", lambda found: {"n": " "}.get(found[1], found[1]), quoted[1:-1])


def mermaid_text(label: str) -> str:
    """What Mermaid shows: its entity codes are HTML's, written without the ampersand."""
    return html.unescape(re.sub(r"#(\d+);", r"&#\1;", label.replace("<br/>", " ")))


def shown(path: str) -> str:
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in path)


def test_dot_is_valid_for_hostile_names_and_has_every_edge(hostile: Project) -> None:
    lines = ct("-C", hostile.root, "trace", "joined", "--dot", "--all").out.rstrip("\n").split("\n")
    assert (lines[0], lines[1], lines[-1]) == ("digraph lineage {", "  rankdir=LR;", "}")
    parsed = [DOT_BOX.fullmatch(line) or DOT_ARROW.fullmatch(line) for line in lines[2:-1]]
    assert all(parsed), [line for line, found in zip(lines[2:-1], parsed, strict=True) if not found]
    boxes = {found[1]: dot_text(found[2]) for found in parsed if found and found.re is DOT_BOX}
    arrows = [(found[1], found[2]) for found in parsed if found and found.re is DOT_ARROW]
    assert len(arrows) == edges(hostile) and {end for arrow in arrows for end in arrow} == set(boxes)
    assert any(shown(HOSTILE) in text for text in boxes.values()), "the name is shown as it is, its controls as codes"


def test_mermaid_is_valid_for_hostile_names_and_has_every_edge(hostile: Project) -> None:
    lines = ct("-C", hostile.root, "trace", "joined", "--mermaid", "--all").out.rstrip("\n").split("\n")
    assert lines[0] == "flowchart LR"
    parsed = [MERMAID_BOX.fullmatch(line) or MERMAID_ARROW.fullmatch(line) for line in lines[1:]]
    assert all(parsed), [line for line, found in zip(lines[1:], parsed, strict=True) if not found]
    boxes = {found[1]: found[2] or found[3] for found in parsed if found and found.re is MERMAID_BOX}
    arrows = [(found[1], found[3]) for found in parsed if found and found.re is MERMAID_ARROW]
    assert len(arrows) == edges(hostile) and {end for arrow in arrows for end in arrow} == set(boxes)
    labels = [label.replace("<br/>", "") for label in boxes.values()]
    assert not [label for label in labels if re.search(r'[<>"&|%{}\[\]()]', label)], "no sign of Mermaid's or HTML's"
    assert any(shown(HOSTILE) in mermaid_text(label) for label in boxes.values())


def test_a_file_name_moves_no_cursor(hostile: Project) -> None:
    said = ct("-C", hostile.root, "trace", "joined").out
    assert shown(HOSTILE) in said
    assert not [one for one in said.replace("\n", "") if not one.isprintable()]


def test_only_one_form_at_a_time(hostile: Project, tmp_path: Path) -> None:
    said = ct("-C", hostile.root, "trace", "joined", "--dot", "--mermaid")
    assert said.code == 2 and "choose one of" in said.err
