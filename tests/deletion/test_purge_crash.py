"""Purging where processes are killed: what one left that recorded, and the purge itself."""

import fcntl
import json
import os
import shutil
import signal
from collections import Counter
from pathlib import Path

import pytest

from ctcore.catalog.event_log import check_chain
from ctcore.catalog.group_commit import pause_commits
from ctcore.catalog.tables import metadata
from ctcore.deletion.proof import check, purge_findings
from ctcore.deletion.purge import list_purges, pending_purges, remove
from ctcore.errors import Usage
from ctcore.governance.consent import set_consent
from ctcore.inputs.current import forget
from ctcore.intake.results import ResultEntry, analysis_of, record
from ctcore.integrity.catalog_check import disagreements
from ctcore.integrity.verify import verify
from ctcore.project import Project
from tests.deletion.test_purge import REVOKED, STEPS, cohort, files, holders, word
from tests.helpers.killing import Moments, forked
from tests.helpers.kit import TOML, again, make_all, make_project
from tests.helpers.shell import ct
from tools.slurm.processes import wait

ANALYSIS = '\n[analyses.pathology]\nlevel = "assay"\ncolumns.said = {}\n'


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Two patients, everything made."""
    root = tmp_path / "toy"
    made = make_project(root, cohort(root, [[1], [2]]), steps=STEPS, toml=TOML + ANALYSIS)
    make_all(made)
    return made


def killed_while_it_waits(project: Project) -> Path:
    """A process that has asked for a result of each patient to be recorded, while somebody else writes."""
    folder = project.work / "together" / f"results-{project.catalog.write_queue}"
    folder.mkdir(parents=True)

    def ask() -> int:
        forget()
        opened = Project.find(project.root)
        both = [ResultEntry(who, {"said": word(patient)}) for who, patient in (("A100", "P1"), ("A000", "P0"))]
        record(opened, analysis_of(opened, "pathology"), both)
        return 0

    with pause_commits([folder]):
        child = os.fork()
        if child == 0:
            os._exit(forked(ask, project.root.parent / "log"))
        try:
            assert wait(lambda: list(folder.glob("*.ask")), 60), (project.root.parent / "log").read_text()
        finally:
            os.kill(int(Path(f"/proc/{child}/task/{child}/children").read_text().split()[0]), signal.SIGKILL)
            os.waitpid(child, 0)
    (path,) = folder.glob("*.ask")
    return path


def test_pending_records_of_a_killed_process_go_too(project: Project) -> None:
    set_consent(project, ["P1"], REVOKED)
    project.catalog.engine.dispose()
    path = killed_while_it_waits(project)
    assert word("P1") in path.read_text()
    remove(project, "P1", "asked", "P1")
    assert not path.exists() and holders(project.root, "P1") == [] and check(project, 1).findings == ()
    ct("-C", project.root, "record", "pathology", "A000", "said=x")
    assert ct("-C", project.root, "verify").code == 0 and holders(project.root, "P1") == []


@pytest.mark.parametrize("torn", [False, True])
def test_what_lies_there_after_a_purge_is_found_and_removed(project: Project, torn: bool) -> None:
    set_consent(project, ["P1"], REVOKED)
    remove(project, "P1", "asked", "P1")
    folder = project.work / "together" / f"record-{project.catalog.write_queue}"
    folder.mkdir(parents=True, exist_ok=True)
    mine, other = folder / ("1-x.part" if torn else "1-x.ask"), folder / "2-y.answer"
    side = {"node": ["few", "all"], "members": [["specimen", "S10", "member"]], "inputs": []}
    text = json.dumps({"actor": "x", "about": ["few/all"], "body": [{"side": side}]})
    mine.write_text(text[:20] if torn else text)
    other.write_text("[7]")
    (found,) = purge_findings(project)
    assert (
        mine.name in found.where
        and "belongs to patient P1; `ct purge P1 --reason TEXT --confirm P1` removes it" in found.problem
    )
    assert mine.name in ct("-C", project.root, "purge", "--check", "1").out
    assert mine.name in ct("-C", project.root, "verify").out
    assert [one.number for one in remove(project, "P1", "again", "P1")] == [2]
    assert not mine.exists() and other.exists() and check(project, 2).findings == ()


def test_nothing_is_purged_while_somebody_waits_to_record_it(project: Project) -> None:
    set_consent(project, ["P1"], REVOKED)
    folder = project.work / "together" / "record-x"
    folder.mkdir(parents=True)
    (folder / "1-x.ask").write_text(json.dumps({"actor": "x", "about": ["heard/A100"], "body": []}))
    with (folder / "1-x.ask").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(Usage, match=r"1-x\.ask: is about to be recorded, and may contain the patient"):
            remove(project, "P1", "asked", "P1")
    remove(project, "P1", "asked", "P1")
    assert not (folder / "1-x.ask").exists()


def test_on_postgresql_a_killed_purge_claims_nothing_false(
    tmp_path: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CT_POSTGRES_URL", postgres_url)
    root = tmp_path / "toy"
    project = make_project(root, cohort(root, [[1], [1]]), steps=STEPS)
    make_all(project)
    set_consent(project, ["P1"], REVOKED)
    project.catalog.engine.dispose()
    before, kills, begun, at = files(root), Counter[bool](), False, 0

    def purge() -> int:
        forget()
        Moments(tmp_path / "moments", at).watch()
        remove(Project.find(root), "P1", "asked", "P1")
        return 0

    while (ended := forked(purge, tmp_path / "log")) == -9:
        opened, was = again(project), begun
        begun, unfinished = bool(list_purges(opened)), bool(pending_purges(opened))
        assert unfinished == bool(purge_findings(opened)) and verify(opened).findings == ()
        assert check_chain(opened.catalog.journal.read(), "line") == [] and disagreements(opened) == []
        assert bool(check(opened, 1).findings) == unfinished if begun else files(root) == before
        opened.catalog.engine.dispose()
        kills[begun] += 1
        at = 0 if begun and not was else at + 11
    assert ended == 0 and min(kills[True], kills[False]) > 5, (kills, (tmp_path / "log").read_text())
    assert check(project, 1).findings == () and disagreements(project) == [] and holders(root, "P1") == []
    with project.catalog.read() as connection:
        told = [str(row) for table in metadata.sorted_tables for row in connection.execute(table.select())]
    assert not [row for row in told if word("P1") in row] and [row for row in told if word("P0") in row]


@pytest.mark.parametrize("part", [0.0, 0.5, 1.0])
def test_a_purge_that_was_cut_off_is_one_purge_on_record(project: Project, tmp_path: Path, part: float) -> None:
    set_consent(project, ["P1"], REVOKED)
    project.catalog.engine.dispose()
    shutil.copytree(project.root, tmp_path / "whole")

    def purge(root: Path, at: int | None) -> int:
        def work() -> int:
            forget()
            Moments(tmp_path / "moments", at).watch()
            remove(Project.find(root), "P1", "asked", "P1")
            return 0

        return forked(work, tmp_path / "log")

    assert purge(tmp_path / "whole", None) == 0
    names = (tmp_path / "moments").read_text().splitlines()
    *_, begun, ended = (at for at, name in enumerate(names) if name == "commit")
    assert purge(project.root, begun + 1 + int(part * (ended - begun - 1))) == -9 and pending_purges(again(project))
    assert [one.number for one in remove(again(project), "P1", "asked", "P1")] == [1]
    assert len(list_purges(again(project))) == 1 and check(project, 1).findings == ()
