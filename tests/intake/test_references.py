"""References with versions: declared and bumped in ct.toml, every version kept, what each one made known."""

import json
import os
import time
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

from ctcore.catalog.engine import Catalog
from ctcore.catalog.migrations import upgrade
from ctcore.catalog.tables import event
from ctcore.config.edit import add_table, change_table
from ctcore.config.settings import read_settings
from ctcore.intake.raw_files import look
from ctcore.intake.references import history
from ctcore.project import Project
from tests.helpers.kit import TOML, again, make_all, make_project, reasons
from tests.helpers.shell import contents, ct

HAND = """\
# What we trust
[project]
id = "toy"   # never change

[references.genome]   # the one
# from the core
path   = 'genome.txt'  # relative
version = "1"# as they call it

[references."dbsnp.156"]
version = "156"
path = "d.vcf"

# the people
[cohorts.all]
"""


@pytest.fixture
def project(tmp_path: Path, catalog_url: str) -> Project:
    return make_project(tmp_path)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """On SQLite, made."""
    make_all(make_project(tmp_path))
    return tmp_path


def put(path: Path, text: str, second: int = 1) -> Path:
    """A file that was written long ago: what was written this moment is read again each time."""
    path.write_text(text)
    os.utime(path, (1_000_000_000 + second, 1_000_000_000 + second))
    time.sleep(0.03)  # old enough to be remembered
    return path


# ct.toml in place


def test_only_the_two_values_change_to_the_byte() -> None:
    edited = change_table(HAND, ("references", "genome"), {"path": "g2.fa", "version": "GRCh38"})
    assert edited == HAND.replace("'genome.txt'", '"g2.fa"').replace('version = "1"#', 'version = "GRCh38"#')
    edited = change_table(HAND, ("references", "dbsnp.156"), {"path": "d.vcf", "version": '157 "b"'})
    assert edited == HAND.replace('version = "156"', 'version = "157 \\"b\\""')


def test_line_endings_stay_as_they_are() -> None:
    windows = HAND.replace("\n", "\r\n")
    edited = change_table(windows, ("references", "genome"), {"version": "2"})
    assert edited == windows.replace('version = "1"', 'version = "2"')
    assert add_table(windows, ("references", "x"), {"path": "x"}).count("\r\n") == windows.count("\r\n") + 3


def test_a_new_table_stands_behind_its_like() -> None:
    edited = add_table(HAND, ("references", "panel.v1"), {"path": "p", "version": "1"})
    new = '\n[references."panel.v1"]\npath = "p"\nversion = "1"\n'
    assert edited == HAND.replace('path = "d.vcf"\n', f'path = "d.vcf"\n{new}')
    assert add_table('x = "1"', ("references", "g"), {"path": "p"}) == 'x = "1"\n\n[references.g]\npath = "p"\n'


@pytest.mark.parametrize(
    "text",
    [
        '[references]\ngenome = { path = "g", version = "1" } # a\n',
        'references.genome = { path = "g", version = "1" }\n',
        '[references]\ngenome.path = "g"\ngenome.version = "1" # a\n',
        '[references.genome]\npath = "g"\nversion = "1"\n',
        'references = { genome = { path = "g", version = "1" } }\n',
    ],
    ids=["inline", "dotted", "dotted-below", "table", "all-inline"],
)
def test_a_table_is_edited_in_whatever_form_it_is_written(text: str) -> None:
    edited = change_table(text, ("references", "genome"), {"path": "g", "version": "2"})
    assert edited == text.replace('"1"', '"2"')


def test_what_only_looks_like_the_table_is_not_touched() -> None:
    decoy = '[project]\nname = """\n[references.genome]\npath = "no"\nversion = "0"\n"""\n'
    real = '[references.genome]\npath = "g"\nversion = "1"\n'
    edited = change_table(decoy + real, ("references", "genome"), {"path": "g", "version": "2"})
    assert edited == decoy + real.replace('"1"', '"2"')


texts = st.text(st.characters(exclude_categories=("Cs",)), min_size=1)


@given(texts, texts, st.sampled_from(["", "# \u2028\x85 ü\n"]))
def test_any_written_text_is_read_back_and_nothing_moves(path: str, version: str, before: str) -> None:
    text = before + HAND
    edited = change_table(text, ("references", "genome"), {"path": path, "version": version})
    told = tomllib.loads(edited)["references"]["genome"]
    assert told == {"path": path, "version": version}
    marks = (text.index("path   = ") + len("path   = "), text.index('"1"# as'))
    assert edited.startswith(text[: marks[0]]) and edited.endswith(text[marks[1] + 3 :])


# bump


def test_a_bump_shows_stale_nodes_and_a_dry_run_writes_nothing(own: Path) -> None:
    (own / "genome2.txt").write_text("TTTT\n")
    before = contents(own), (own / "ct.toml").read_bytes()
    said = ct("-C", own, "reference", "bump", "genome", own / "genome2.txt", "--version", "2", "--dry-run")
    assert said.code == 0 and "genome version 1 → 2 and content" in said.out
    assert [line for line in said.err.splitlines() if "would be" in line] == [
        "counted: 3 would be stale",
        "merged: 2 would be stale",
        "joined: 1 would be stale",
    ]
    assert (contents(own), (own / "ct.toml").read_bytes()) == before


def test_a_bump_writes_ct_toml_the_record_and_the_history(own: Path) -> None:
    put(own / "genome2.txt", "TTTT\n")
    put(own / "genome.txt", "ACGT\n")
    look(Project.find(own))
    where = ("-C", own, "reference")
    assert "--reason" in ct(*where, "bump", "genome", own / "genome2.txt", "--version", "2").err
    said = ct(*where, "bump", "genome", own / "genome2.txt", "--version", "2", "--reason", "the new build")
    assert said.code == 0, said.err
    expected = TOML.replace('"genome.txt"', '"genome2.txt"').replace('version = "1"', 'version = "2"')
    assert (own / "ct.toml").read_text() == expected
    project = Project.find(own)
    assert look(project).changes == [], "it is all in the catalog"
    found = reasons(project)
    assert {node for node, kinds in found.items() if kinds == ["reference"]} == {f"counted/A{n}" for n in (1, 2, 3)}
    with project.catalog.read() as connection:
        body = connection.execute(select(event.c.body).where(event.c.kind == "reference")).scalars().all()[-1]
    told = json.loads(body)
    assert (told["version"], told["old"].split()[0], told["reason"]) == ("2", "1", "the new build")
    row = json.loads(ct(*where, "list", "genome", "--history", "--json").out)[0]
    assert (row["nodes"], row["others"]) == (0, 3)
    assert [(one["version"], one["reason"], one["nodes"], one["file"]) for one in row["versions"]] == [
        ("2", "the new build", 0, "there"),
        ("1", None, 3, "there"),
    ]
    assert row["versions"][1]["until"] == row["versions"][0]["at"]
    assert (
        "nothing was written"
        in ct(*where, "bump", "genome", own / "genome2.txt", "--version", "2", "--reason", "x").err
    )


def test_the_old_version_made_true_again_needs_no_run(project: Project) -> None:
    root = project.root
    make_all(project)
    (root / "genome2.txt").write_text("TTTT\n")
    bump = ("-C", root, "reference", "bump", "genome")
    assert ct(*bump, root / "genome2.txt", "--version", "2", "--reason", "new").code == 0
    assert set(make_all(again(project)).values()) == {"made"}
    assert ct(*bump, root / "genome.txt", "--version", "1", "--reason", "back").code == 0
    assert reasons(again(project))["counted/A1"] == ["reference"]
    assert set(make_all(again(project)).values()) == {"hit"}, "what was made then is still true"
    assert reasons(again(project)) == {}
    rows = json.loads(ct("-C", root, "reference", "list", "--history", "--json").out)[0]["versions"]
    assert [(one["version"], one["nodes"], one["makings"]) for one in rows] == [("1", 3, 3), ("2", 0, 3), ("1", 3, 3)]


def test_version_and_content_are_separate_reasons(own: Path) -> None:
    bump = ("-C", own, "reference", "bump", "genome", own / "genome.txt", "--reason", "x", "--version")
    assert ct(*bump, "1b").out == "genome version 1 → 1b\n"
    assert "reference: genome version 1 → 1b" in ct("-C", own, "why", "counted/A1").out
    put(own / "genome.txt", "GGGG\n", 2)
    said = ct(*bump, "1b").out
    assert said.startswith("genome content ") and "version" not in said
    row = json.loads(ct("-C", own, "reference", "list", "--history", "--json").out)[0]
    assert [one["file"] for one in row["versions"]] == ["there", "replaced", "replaced"]
    (own / "genome.txt").unlink()
    row = json.loads(ct("-C", own, "reference", "list", "--history", "--json").out)[0]
    assert {one["file"] for one in row["versions"]} == {"gone"}


def test_a_crash_between_ct_toml_and_the_record_is_repaired(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the same command, with its reason; and by any look, which knows none."""
    (own / "genome2.txt").write_text("TTTT\n")
    command = ("-C", own, "reference", "bump", "genome", own / "genome2.txt", "--version", "2", "--reason", "why")

    class Cut(Exception):
        pass

    def cut(*_: object, **__: object) -> None:
        raise Cut

    before = contents(own)
    with monkeypatch.context() as patched, pytest.raises(Cut):
        patched.setattr("ctcore.intake.references.upsert", cut)  # the tables' first write after the file's
        from ctcore.intake.reference_update import bump

        found = bump(Project.find(own), "genome", own / "genome2.txt", "2")
        found.write("why")
    assert read_settings(own / "ct.toml").references["genome"].version == "2"
    assert contents(own) == before
    assert ct(*command).code == 0
    assert (
        json.loads(ct("-C", own, "reference", "list", "--history", "--json").out)[0]["versions"][0]["reason"] == "why"
    )


def test_an_impossible_bump_is_refused_and_writes_nothing(own: Path) -> None:
    (own / "empty").touch()
    before = contents(own), (own / "ct.toml").read_bytes()
    for arguments, said in (
        (("genom", own / "genome.txt", "--version", "2"), "did you mean 'genome'?"),
        (("genome", own / "nothing", "--version", "2"), "is not there"),
        (("genome", own, "--version", "2"), "is no file"),
        (("genome", own / "empty", "--version", "2"), "is empty"),
        (("genome", own / "genome.txt", "--version", " "), "--version"),
        (("genome", own / "genome.txt", "--version", "1"), "with this content already"),
    ):
        refused = ct("-C", own, "reference", "bump", *arguments, "--reason", "x")
        assert refused.code != 0 and said in refused.err, refused.err
    assert (contents(own), (own / "ct.toml").read_bytes()) == before


def test_a_project_opened_before_a_bump_does_not_undo_it(own: Path) -> None:
    put(own / "genome2.txt", "TTTT\n")
    before = Project.find(own)
    assert before.settings.references["genome"].version == "1"
    command = ("-C", own, "reference", "bump", "genome", own / "genome2.txt", "--version", "2", "--reason", "why")
    assert ct(*command).code == 0
    assert look(before).changes == []
    rows = json.loads(ct("-C", own, "reference", "list", "--history", "--json").out)[0]["versions"]
    assert [one["version"] for one in rows] == ["2", "1"]


def test_versions_can_be_asked_for_in_sql(own: Path) -> None:
    assert (
        ct("-C", own, "reference", "bump", "genome", own / "genome.txt", "--version", "2", "--reason", "why").code == 0
    )
    asked = "SELECT version, until IS NULL, reason, nodes FROM reference_versions ORDER BY since, version"
    assert ct("-C", own, "query", asked).out.splitlines()[1:] == ["1\t0\t\t3", "2\t1\twhy\t0"]


# add


def test_a_reference_that_a_step_misses_is_added(own: Path) -> None:
    steps = own / "steps" / "toy.py"
    steps.write_text(steps.read_text().replace('references=["genome"]', 'references=["genome", "panel"]'))
    assert ct("-C", own, "status").code == 1
    (own / "panel.txt").write_text("1\n")
    said = ct("-C", own, "reference", "add", "panel", own / "panel.txt", "--version", "v1", "--kind", "variants")
    assert said.code == 0, said.err
    told = read_settings(own / "ct.toml").references["panel"]
    assert (told.path, told.version, told.kind) == ("panel.txt", "v1", "variants")
    assert "panel not used → v1" in ct("-C", own, "why", "counted/A1").out
    again_ = ct("-C", own, "reference", "add", "panel", own / "panel.txt", "--version", "v2")
    assert "ct reference bump panel" in again_.err
    assert (
        "nothing was written"
        in ct("-C", own, "reference", "add", "panel", own / "panel.txt", "--version", "v1", "--kind", "variants").err
    )


def test_a_genome_without_an_index_is_told_what_to_do(own: Path) -> None:
    (own / "g.fa").write_text(">1\nACGT\n")
    said = ct("-C", own, "reference", "add", "hs", own / "g.fa", "--version", "1", "--kind", "genome")
    assert said.code == 0 and "ct reference index hs" in said.err


def test_a_catalog_of_before_knows_the_versions_from_its_events(tmp_path: Path, catalog_url: str) -> None:
    old = Catalog(catalog_url, "toy", tmp_path / "toy.jsonl", actor="ada")
    upgrade(old, "0006")
    said = {"key": "genome", "kind": "other", "path": "genome.txt", "digest": "a" * 64, "size": 5, "old": None}
    with old.write() as writer:
        for version in ("1", "2"):
            writer.event("reference", "reference/genome", {**said, "version": version})
    with Catalog(catalog_url, "toy", tmp_path / "toy.jsonl").open().read() as connection:
        found = history(connection)["genome"]
    assert [(one.version, one.digest, one.actor, one.reason) for one in found] == [
        ("2", "a" * 64, "ada", None),
        ("1", "a" * 64, "ada", None),
    ]
    assert found[0].until is None and found[1].until == found[0].at
