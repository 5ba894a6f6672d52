"""`ct dashboard` and `ct heatmap`: what people see is what the verdicts say; what data says runs nowhere."""

import re
import warnings
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

import ctcore.reports.heatmap as pictures
from ctcore.intake.raw_files import look
from ctcore.project import Project
from ctcore.query.readable import Gate
from ctcore.reports.dashboard import dashboard
from ctcore.reports.heatmap import grid
from ctcore.reports.page import STYLE
from ctcore.reports.palette import LOOKS, WORST
from ctcore.staleness.verdicts import evaluate
from tests.helpers.kit import STEPS, TOML, add, assay, fail, make_all, make_project
from tests.helpers.shell import ct

EVIL = "\"'><img src=x onerror=alert(1)></td><script>alert(1)</script>"
ROWS = [assay(f"P{at // 4}", f"S{at // 2}", f"A{at}", sex="F", age="40", site=EVIL) for at in range(8)]
FAILS = f"""if call.entity == "A3": raise ValueError({EVIL!r})
    n = len"""


class Parsed(HTMLParser):
    """The elements, the links and the texts of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str]] = []
        self.cells: Counter[str] = Counter()
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(name, value or "") for name, value in attrs]
        named = dict(attrs)
        if (named.get("class") or "").startswith("s ") and tag == "td":
            self.cells[str(named["title"])] += 1

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def project(tmp_path: Path) -> Project:
    toml = TOML.replace('id = "toy"', f"id = \"toy\"\nname = '''{EVIL}'''")
    made = make_project(tmp_path / "toy", ROWS, STEPS.replace("n = len", FAILS), toml)
    make_all(made)
    (made.root / "reads/A5.txt").write_text("other reads\n")
    look(made)
    return made


def drawn(project: Project, rows: int = 400) -> Parsed:
    verdicts = evaluate(project)
    with project.catalog.read() as connection:
        return Parsed(dashboard(Gate.of(project, connection), verdicts, rows))


def test_the_matrix_has_the_states_of_all_nodes(project: Project) -> None:
    verdicts = evaluate(project)
    expected = sum((Counter(verdicts.states(step.name)) for step in project.steps), Counter[str]())
    assert drawn(project).cells == expected and expected["failed"] == 1 and expected["stale"] == 2


def test_nothing_that_data_says_becomes_an_element(project: Project) -> None:
    page = drawn(project)
    assert {"script", "img", "iframe", "object", "form"} & set(page.tags) == set()
    assert [name for name, _ in page.attributes if name.startswith("on")] == []
    assert EVIL in page.text


def test_the_page_asks_nothing_of_the_network(project: Project) -> None:
    page = drawn(project)
    links = [value for name, value in page.attributes if name in ("src", "href", "action", "data", "srcset")]
    assert links == ["data:,"]
    policy = [value for name, value in page.attributes if name == "content" and "default-src" in value]
    assert policy and policy[0].startswith("default-src 'none'") and "script-src" not in policy[0]
    assert page.tags["link"] == 1


def test_of_many_entities_those_come_first_that_are_not_fresh(project: Project) -> None:
    page = drawn(project, rows=2)
    assert page.cells == {"failed": 1, "stale": 2, "missing": 2}
    assert "2 of 8: those first in which something is not fresh" in page.text


def test_only_what_is_whole_is_a_hundred_percent(tmp_path: Path) -> None:
    project = make_project(tmp_path / "toy", ROWS)
    make_all(project)
    assert "100 %" in drawn(project).text
    add(project, [*ROWS, assay("P9", "S9", "A9", sex="F", age="1")])
    assert "100 %" not in drawn(project).text


def test_a_project_without_steps_has_a_page_and_no_picture(tmp_path: Path) -> None:
    project = make_project(tmp_path / "toy", ROWS)
    (project.root / "steps/toy.py").write_text('"""No steps."""\n')
    assert ct("-C", project.root, "dashboard", tmp_path / "d.html").code == 0
    said = ct("-C", project.root, "heatmap", tmp_path / "h.png")
    assert said.code == 2 and "nothing to draw" in said.err and not (tmp_path / "h.png").exists()


def test_who_may_not_be_used_is_on_no_page(project: Project) -> None:
    before = drawn(project)
    assert "A3" in before.text
    fail(project, "P0")
    verdicts = evaluate(project)
    with project.catalog.read() as connection:
        gate = Gate.of(project, connection)
        page = Parsed(dashboard(gate, verdicts))
        assert grid(gate, verdicts, "assay")[0].shape == (4, 1)
    assert re.findall(r"\b(?:P0|S0|S1|A[0-3])\b", page.text) == []
    assert "left out: 1 patient (1 qc_fail), 2 specimens (2 qc_fail), 4 assays (4 qc_fail)" in page.text
    assert "A7" in page.text and sum(page.cells.values()) == 4 + 2 + 1


def test_a_line_of_the_picture_is_the_worst_of_its_entities(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "LINES", 2)
    verdicts = evaluate(project)
    with project.catalog.read() as connection:
        codes, every = grid(Gate.of(project, connection), verdicts, "assay")
    assert every == 4 and [WORST[code] for code in codes[:, 0]] == ["failed", "stale"]


@pytest.mark.parametrize(("name", "magic"), (("h.png", b"\x89PNG"), ("h.svg", b"<?xml"), ("h.pdf", b"%PDF")))
def test_the_picture_is_written(project: Project, tmp_path: Path, name: str, magic: bytes) -> None:
    said = ct("-C", project.root, "heatmap", tmp_path / name)
    found = (tmp_path / name).read_bytes()
    assert said.code == 0 and found.startswith(magic)
    if name.endswith("svg"):
        assert b"<script" not in found and b"onerror=alert(1)>" not in found


def test_there_is_room_for_the_longest_names(tmp_path: Path) -> None:
    long, step = "N" * 62, "a_step_with_a_name_that_is_longer_than_its_picture_is_high"
    rows = [assay(f"P{long}", f"S{long}", f"A{long}")]
    project = make_project(tmp_path / "toy", rows, steps=STEPS.replace("merged", step))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib's, where the axes have no room left
        assert ct("-C", project.root, "heatmap", tmp_path / "h.png").code == 0


def test_a_picture_of_another_kind_is_refused(project: Project, tmp_path: Path) -> None:
    assert ct("-C", project.root, "heatmap", tmp_path / "h.jpg").code == 2
    assert not (tmp_path / "h.jpg").exists()


def test_of_many_lines_those_are_named_that_ask_for_a_person() -> None:
    fresh, stale, missing = (WORST.index(state) for state in ("fresh", "stale", "missing"))
    few, many = np.full((pictures.NAMED, 2), fresh), np.full((700, 2), fresh)
    many[[7, 8, 300, 650], 1] = stale, stale, stale, missing
    assert pictures.labelled_lines(few) == list(range(pictures.NAMED))
    assert pictures.labelled_lines(many) == [7, 300], "8 has no room, and what is only to be made asks for nobody"


def luminance(colour: str) -> float:
    """Relative luminance (WCAG 2)."""
    parts = np.array([int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)])
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ np.array([0.2126, 0.7152, 0.0722]))


def test_states_differ_in_lightness_and_not_in_colour_alone() -> None:
    """The states that stay are told apart in grey, all by their sign."""
    values = sorted(luminance(LOOKS[state][0]) for state in LOOKS if state != "running")
    assert min(np.diff(values)) > 0.02
    assert len({sign for _, sign, _ in LOOKS.values()}) == len(LOOKS) and set(WORST) == set(LOOKS)


def test_states_are_readable_and_tables_work_by_key(project: Project) -> None:
    """Contrast of at least 4.5 (WCAG 2). Whoever has no mouse moves a table that is wider than the screen."""
    for state, (ground, _, _) in LOOKS.items():
        ink = re.search(rf"^[^{{\n]*\.{state}\b[^{{\n]*\{{color:(#\w{{6}})", STYLE, re.M)
        assert ink is not None, state
        low, high = sorted((luminance(ink[1]), luminance(ground)))
        assert (high + 0.05) / (low + 0.05) >= 4.5, state
    page = drawn(project)
    assert page.attributes.count(("tabindex", "0")) == page.tags["table"] > 3


def test_cohorts_are_on_the_page_without_excluded_names(tmp_path: Path) -> None:
    pairing = '[pairings.tn]\nby = "specimen.site"\norder = ["normal", "tumour"]\n'
    rows = [
        assay("P1", "N1", "N1-0", sex="F", site="normal"),
        assay("P1", "SICK", "SICK-0", sex="F", site="tumour"),
        assay("P2", "N2", "N2-0", sex="M", site="normal"),
    ]
    project = make_project(
        tmp_path / "toy", rows, toml=TOML.replace("[cohorts.all]", '[cohorts.all]\npairing = "tn"') + pairing
    )
    fail(project, "SICK")
    with project.catalog.read() as connection:
        page = dashboard(Gate.of(project, connection), evaluate(project))
    text = re.sub(r"<[^>]+>", " ", page)
    assert "SICK" not in text
    for said in (
        "Who is in which cohort",
        "everybody",
        "Members then and today",
        "Pairing tn: specimen.site",
        "Pairing tn in cohort all",
        "0 complete, 0 incomplete, 1 broken, 1 singleton; 0 without any of it",
        "tumour: somebody may not be used",
        "no assay of tumour",
    ):
        assert said in text, said
