"""`ct recover`: a lost catalog again, from provenance.jsonl and the store; and what it refuses."""

import shutil
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from sqlalchemy import select, text

from ctcore.catalog.tables import metadata
from ctcore.deletion.proof import check
from ctcore.intake.register import register
from ctcore.intake.results import ResultEntry, analysis_of, record
from ctcore.intake.sheet_diff import AllowedChanges
from ctcore.integrity.catalog_check import NOT_TOLD
from ctcore.project import Project
from ctcore.staleness.accept import KINDS, accept, propose
from ctcore.staleness.verdicts import evaluate
from tests.catalog.test_hand_edits import LOOKED, everything
from tests.deletion.test_purge import STEPS, cohort, end, word
from tests.helpers.kit import TOML, again, assay, make_all, make_project, write_sheet
from tests.helpers.shell import ct

KEPT = [name for name in metadata.tables if name not in NOT_TOLD] + ["event"]


def facts(project: Project) -> dict[str, list[tuple[Any, ...]]]:
    """All rows, without when something was last looked at."""
    found: dict[str, list[tuple[Any, ...]]] = {}
    with project.catalog.read() as connection:
        for name in KEPT:
            table = metadata.tables[name]
            columns = [column for column in table.columns if column.name not in LOOKED.get(name, ())]
            chosen = select(*columns).order_by(*table.primary_key)
            if name == "setting":  # which sheet was registered last is asked again
                chosen = chosen.where(table.c.name.in_(("schema", "analyses")))
            found[name] = [tuple(row) for row in connection.execute(chosen)]
    return found


def lose(project: Project) -> Project:
    """The database is gone; the journal and the store are there."""
    project.catalog.engine.dispose()
    if project.catalog.is_sqlite:
        for path in project.root.glob("catalog.db*"):
            path.unlink()
    else:
        with project.catalog.engine.connect() as connection, connection.begin():
            connection.execute(text(f'DROP SCHEMA "{project.catalog.schema}" CASCADE'))
        project.catalog.engine.dispose()
    return again(project)


def test_a_lost_catalog_is_made_from_journal_and_store(tmp_path: Path, catalog_url: str) -> None:
    project = everything(make_project(tmp_path / "toy"), purged=False)
    before, verdicts = facts(project), evaluate(project).totals
    journal = (project.root / "provenance.jsonl").read_bytes()
    lost = lose(project)
    said = ct("-C", lost.root, "status")
    assert said.code == 1 and "`ct recover` brings back" in said.err
    said = ct("-C", lost.root, "recover")
    assert said.code == 0 and "6 makings" in said.err, said
    after = facts(again(lost))
    assert after["event"].pop()[3] == "recover"
    assert after == before and evaluate(again(lost)).totals == verdicts
    assert (lost.root / "provenance.jsonl").read_bytes().startswith(journal)
    said = ct("-C", lost.root, "recover")
    assert said.code == 0 and "nothing is lost" in said.err, said


def test_after_it_the_cohort_goes_on_as_before(tmp_path: Path) -> None:
    project = make_project(tmp_path / "toy")
    make_all(project)
    lost = lose(project)
    assert ct("-C", lost.root, "recover").code == 0
    lost = again(lost)
    assert set(make_all(lost).values()) == set(), "nothing is made again"
    register(lost, write_sheet(lost.root, [assay("P3", "S3", "A9", sex="F", age="9")]))
    assert set(make_all(again(lost)).values()) == {"made"}
    said = ct("-C", lost.root, "verify")
    assert said.code == 0, said


def test_lost_files_are_named_and_the_rest_comes_back(tmp_path: Path) -> None:
    project = make_project(tmp_path / "toy")
    make_all(project)
    (folder,) = (project.store.root / "merged/S1").iterdir()
    folder.chmod(0o755)
    shutil.rmtree(folder)
    said = ct("-C", lose(project).root, "recover")
    assert said.code == 3 and "merged/S1\tits files are gone" in said.out and "5 makings" in said.err, said
    assert evaluate(again(project)).of("merged", "S1").state == "missing"
    found = ct("-C", project.root, "verify")
    assert (found.code, found.out) == (0, ""), "said once, by recover"


def test_damage_that_was_made_again_is_no_hand_edit(tmp_path: Path) -> None:
    project = make_project(tmp_path / "toy")
    make_all(project)
    (path,) = (project.store.root / "counted/A1").glob("*/n.txt")
    path.parent.chmod(0o755)
    path.unlink()
    assert ct("-C", project.root, "verify").code == 3
    assert make_all(again(project))["counted/A1"] == "made"
    said = ct("-C", lose(project).root, "recover")
    assert said.code == 3 and said.out.splitlines()[1:] == [
        "counted/A1\twas made again since, in the same place: the earlier making is not in the ledger any more"
    ]
    found = ct("-C", project.root, "verify")
    assert (found.code, found.out) == (0, ""), found
    assert evaluate(again(project)).of("counted", "A1").state == "fresh"
    assert make_all(again(project)) == {} and ct("-C", lose(project).root, "recover").code == 0


def lived_and_purged(root: Path) -> Project:
    """Two were purged, one after the other: what was made with both is a tombstone since the first."""
    cohort_step = 'step(level="cohort", inputs={"some": "merged"'
    own = cohort_step.replace("inputs={", 'role="assay.library", columns=["assay.library"], inputs={"own": "heard", ')
    text = '    text = call.one("all")["words"].read_text()\n'
    fails = '    raise ValueError(f"S10 {text}" if "P1" in text else f"S20 {text}" if "P2" in text else "of nobody")\n'
    steps = STEPS.replace(cohort_step, own).replace(line := "few(call: Call) -> None:\n", f"{line}{text}{fails}")
    declared = '\n[analyses.pathology]\nlevel = "assay"\ncolumns.said = {}\n'
    rows = cohort(root, [[1], [1], [1]])
    project = make_project(root, rows, steps=steps, toml=TOML + declared)
    make_all(project)
    for how in ("accepted", "made again"):
        other = write_sheet(root, [row | {"library": row["library"] + how} for row in rows])
        register(project, other, AllowedChanges(update=frozenset({"assay.library"})))
        if how == "accepted":
            accept(project, propose(project, {"joined": {"all"}}, frozenset(KINDS)), "the same")
    make_all(project)
    record(project, analysis_of(project, "pathology"), [ResultEntry("A200", {"said": word("P2")})])
    for patient in ("P1", "P2"):
        end(project, patient)
    make_all(project)
    return again(project)


def mentioned(root: Path, text: str) -> set[str]:
    """Files that say it, or are called so; but the sheet, code and raw files, which are the user's."""
    names = {path: str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
    kept = {path: name for path, name in names.items() if not name.startswith(("reads/", "sheet.csv", "steps/"))}
    return {name for path, name in kept.items() if text in name or text.encode() in path.read_bytes()}


def test_after_a_purge_a_lost_catalog_keeps_its_tombstones(tmp_path: Path, catalog_url: str) -> None:
    project = lived_and_purged(tmp_path / "toy")
    before, verdicts = facts(project), evaluate(project).totals
    assert len(before["tombstone"]) > 6 and {row[-2] for row in before["purge"]} != {None}
    lost = lose(project)
    said = ct("-C", lost.root, "recover")
    assert said.code == 0 and "files are gone" not in said.out, said
    lost = again(lost)
    after = facts(lost)
    assert after["event"].pop()[3] == "recover"
    assert after == before and evaluate(lost).totals == verdicts
    said = ct("-C", lost.root, "verify")
    assert said.code == 0, said
    assert check(lost, 1).findings == () == check(lost, 2).findings
    assert "made" not in make_all(again(lost)).values(), "nothing is made again"
    for patient, entity in (("P1", "S10"), ("P2", "A200")):
        assert mentioned(lost.root, word(patient)) == set() != mentioned(lost.root, word("P0"))
        assert mentioned(lost.root, entity) <= {"provenance.jsonl", "catalog.db", "catalog.db-wal"}
    with lost.catalog.read() as connection:
        for table in metadata.sorted_tables:  # also where no file of the project is the catalog's
            assert "secret-of-P1" not in str(connection.execute(select(table)).all()), table.name
            assert "secret-of-P2" not in str(connection.execute(select(table)).all()), table.name


def test_a_catalog_lost_during_a_purge_lacks_the_person(
    tmp_path: Path, catalog_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The journal still says all that was taken out of the catalog: it is written anew after that."""
    with monkeypatch.context() as broken:
        broken.setattr("ctcore.catalog.event_log.Journal.rewrite", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            lived_and_purged(tmp_path / "toy")
    lost = again(lose(Project(tmp_path / "toy")))
    journal = lost.root / "provenance.jsonl"
    assert word("P1") in journal.read_text()
    assert ct("-C", lost.root, "recover").code == 0
    with lost.catalog.read() as connection:
        for table in metadata.sorted_tables:
            assert word("P1") not in str(connection.execute(select(table)).all()), table.name
    assert ct("-C", lost.root, "purge", "P1", "--reason", "they said so", "--confirm", "P1").code == 0
    assert mentioned(lost.root, word("P1")) == set() and word("P2") in journal.read_text()
    assert ct("-C", lost.root, "verify").code == 0
