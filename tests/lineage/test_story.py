"""The story of what was made is kept: who asked, where, which commit, what it printed, and if it comes out again."""

import gzip
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from ctcore.catalog.replay import _TOLD, _digest_of
from ctcore.catalog.tables import event, materialization, reproduction
from ctcore.execution.materialize import StepRun
from ctcore.governance.consent import Statement, set_consent
from ctcore.inputs.current import forget
from ctcore.integrity.catalog_check import disagreements
from ctcore.integrity.recover import recover
from ctcore.integrity.verify import verify
from ctcore.project import Project
from ctcore.steps.git_commit import commit_of
from ctcore.store import call_log
from ctcore.store.store import Store
from tests.helpers.kit import STEPS, Inline, again, make, make_all, make_project, reasons
from tests.helpers.shell import ct

SAYING = STEPS.replace("    n = len(", "    print('counting', call.entity)\n    n = len(", 1)
CHANCE = STEPS.replace(
    "    n = len(",
    "    from pathlib import Path\n"
    "    chance = Path(call.file('reads')).parent / 'chance'\n"
    "    extra = chance.read_text() if chance.exists() else ''\n"
    "    n = len(",
    1,
).replace("call.reference('genome').read_text()}", "call.reference('genome').read_text()}{extra}")


def git(folder: Path, *words: str) -> str:
    identity = ("-c", "user.name=Ann", "-c", "user.email=ann@example.org", "-c", "commit.gpgsign=false")
    done = subprocess.run(["git", "-C", str(folder), *identity, *words], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def row_of(project: Project, step: str, partition: str) -> dict[str, object]:
    with project.catalog.read() as connection:
        mine = (materialization.c.asset == step) & (materialization.c.partition == partition)
        rows = connection.execute(select(materialization).where(mine).order_by(materialization.c.id))
        return dict(rows.mappings().all()[-1])


def said_by(project: Project, *words: str, code: int = 0) -> str:
    said = ct("-C", str(project.root), *words)
    assert said.code == code, said
    return said.out


def made_again(project: Project, step: str, *keys: str) -> dict[str, bool | None]:
    making = StepRun(project, project.steps[step], keys, again=True, runner=Inline(project))
    return {one.node[1]: one.same for one in making.outcomes()}


def test_who_asked_where_and_which_commit_are_kept_and_shown(
    tmp_path: Path, catalog_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CT_ACTOR", "Ann Example")
    root = tmp_path / "toy"
    project = make_project(root)
    git(root, "init", "-q")
    (root / ".gitignore").write_text("work\nstore\n*.db*\n")
    git(root, "add", "steps", ".gitignore")
    git(root, "commit", "-qm", "steps")
    commit = git(root, "rev-parse", "HEAD")
    make(project, "counted", "A1", runner=Inline(project))
    row = row_of(project, "counted", "A1")
    assert (row["actor"], row["host"], row["git"]) == ("Ann Example", os.uname().nodename, commit)
    with (root / "steps" / "toy.py").open("a") as file:
        file.write("# a remark\n")
    project = again(project)
    make(project, "counted", "A2", runner=Inline(project))
    assert row_of(project, "counted", "A2")["git"] == f"{commit}+"
    assert f"asked for by Ann Example, ran on {os.uname().nodename}, code of commit {commit}" in said_by(
        project, "trace", "counted/A1"
    )
    shown = said_by(project, "show", "counted/A1")
    assert "asked by    Ann Example" in shown and f"commit      {commit}" in shown
    told = json.loads(said_by(project, "trace", "counted/A1", "--json"))["makings"][0]
    assert (told["actor"], told["git"], told["again"]) == ("Ann Example", commit, [])
    rows = said_by(project, "query", "SELECT entity, actor, git FROM artifacts ORDER BY entity")
    assert f"A1\tAnn Example\t{commit}" in rows
    differs = said_by(project, "diff", "counted/A1", "counted/A2", code=3)
    assert f"beside\tgit\t{commit} → {commit}+" in differs
    assert disagreements(project) == []


def test_a_makings_facts_are_in_its_event_and_come_back(tmp_path: Path) -> None:
    project = make_project(tmp_path / "toy")
    make_all(project)
    made_again(project, "counted", "A1")
    with project.catalog.read() as connection:
        before = [connection.execute(select(table)).all() for table in (materialization, reproduction)]
    for column in ("actor", "host", "git", "undeclared"):
        with project.catalog.write() as writer:
            was = writer.execute(select(materialization.c[column]).where(materialization.c.id == 1)).scalar()
            writer.execute(update(materialization).where(materialization.c.id == 1).values({column: "somebody"}))
        (found,) = disagreements(project)
        assert found[0] == "materialization 1 (counted/A1)"
        with project.catalog.write() as writer:
            writer.execute(update(materialization).where(materialization.c.id == 1).values({column: was}))
    project.catalog.engine.dispose()
    for path in project.root.glob("catalog.db*"):
        path.unlink()
    forget()
    found = recover(Project.find(project.root))
    assert found.lost == () and found.left == ()
    project = again(project)
    with project.catalog.read() as connection:
        after = [connection.execute(select(table)).all() for table in (materialization, reproduction)]
    names = [column.name for column in materialization.columns if column.name != "reported"]
    kept = [[tuple(row._mapping[name] for name in names) for row in rows[0]] for rows in (before, after)]
    assert kept[0] == kept[1] and before[1] == after[1]


def test_what_a_call_read_undeclared_is_kept_shown_and_purged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = make_project(tmp_path / "toy")
    publish = Store.publish

    def telling(store: Store, staged: Path, *node: str, **more: Any) -> object:
        asset, partition, key, sidecar, names = node
        read = {"kind": "file", "what": f"/ref/{partition}.bed"}
        told = {**sidecar, "undeclared": [read]}  # type: ignore[dict-item]
        return publish(store, staged, asset, partition, key, told, names, **more)

    monkeypatch.setattr(Store, "publish", telling)
    make(project, "counted", runner=Inline(project))
    assert row_of(project, "counted", "A3")["undeclared"] == '[{"kind":"file","what":"/ref/A3.bed"}]'
    assert "/ref/A3.bed" in said_by(project, "show", "counted/A3")
    sql = "SELECT undeclared FROM artifacts WHERE entity = 'A3'"
    assert "/ref/A3.bed" in said_by(project, "query", sql)
    assert disagreements(project) == []
    set_consent(project, ["P2"], Statement("revoked", form="form 7"))
    said_by(project, "purge", "P2", "--confirm", "P2", "--reason", "asked for")
    row = row_of(project, "counted", "A3")
    assert row["undeclared"] is None and row["actor"] == project.catalog.actor
    assert disagreements(again(project)) == []
    assert "/ref/A3.bed" not in (project.root / "provenance.jsonl").read_text()


def test_events_of_before_still_hold(tmp_path: Path) -> None:
    """Their digest knows nothing of who asked; a hand that adds somebody is found."""
    project = make_project(tmp_path / "toy")
    make(project, "counted", "A1", runner=Inline(project))
    row = row_of(project, "counted", "A1") | dict.fromkeys(("actor", "git", "undeclared"))
    old = _digest_of("ct.making.v1", _TOLD, row, "r", ([], [], []))
    from ctcore.catalog.replay import matches_event

    assert matches_event(old, row, "r", ([], [], []))
    assert matches_event(old, row | {"host": "found in its sidecar"}, "r", ([], [], []))
    assert not matches_event(old, row | {"actor": "somebody"}, "r", ([], [], []))
    assert not matches_event(old, row | {"reason": "another"}, "r", ([], [], []))


def test_no_repository_and_no_git_are_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "steps.py"
    source.write_text("")
    assert commit_of(source) is None
    git(tmp_path, "init", "-q")
    assert commit_of(source) is None  # no commit yet
    (tmp_path / ".gitignore").write_text("steps.py\n")
    git(tmp_path, "add", ".gitignore")
    git(tmp_path, "commit", "-qm", "nothing")
    assert commit_of(source) is None  # git does not know it
    (tmp_path / ".gitignore").write_text("")
    assert (commit_of(source) or "").endswith("+")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert commit_of(source) is None


def test_what_a_call_printed_is_there_when_work_is_gone(tmp_path: Path) -> None:
    project = make_project(tmp_path / "toy", steps=SAYING)
    make_all(project, inline=False)
    shutil.rmtree(project.root / "work")
    assert said_by(project, "logs", "counted/A1") == "counting A1\n"
    number = row_of(project, "counted", "A1")["id"]
    assert said_by(project, "logs", f"counted/A1@{number}") == "counting A1\n"
    assert f"log: `ct logs counted/A1@{number}`" in said_by(project, "trace", "counted/A1")
    assert "printed nothing" in ct("-C", str(project.root), "logs", "merged/S1").err
    assert verify(project).findings == ()
    (kept,) = (project.store.root / "counted" / "A1").glob("*/ct.log.gz")
    assert kept.stat().st_mode & 0o222 == 0
    assert "ct.log.gz" not in (kept.parent / "MANIFEST.b3").read_text()


def test_a_log_changes_nothing_of_what_was_made(tmp_path: Path) -> None:
    versions = []
    for name, steps in (("one", SAYING), ("other", SAYING.replace("'counting'", "'counting anew'"))):
        project = make_project(tmp_path / name, steps=steps)
        make(project, "counted", "A1", runner=Inline(project))
        versions.append(row_of(project, "counted", "A1")["data_version"])
    assert versions[0] == versions[1]


def test_a_long_log_keeps_its_beginning_and_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_log, "END", 10)
    log = tmp_path / "log"
    log.write_bytes(b"0123456789" + b"x" * 100 + b"abcdefghij")
    packed = call_log.pack(log)
    assert packed is not None and packed == call_log.pack(log)
    text = gzip.decompress(packed).decode()
    assert text == "0123456789\n… 100 bytes are left out here …\nabcdefghij"
    log.write_bytes(b"")
    assert call_log.pack(log) is None
    assert call_log.pack(tmp_path / "none") is None


def test_a_damaged_log_is_said_and_is_no_damage_of_the_artifact(tmp_path: Path) -> None:
    project = make_project(tmp_path / "toy", steps=SAYING)
    make(project, "counted", "A1")
    shutil.rmtree(project.root / "work")
    (kept,) = (project.store.root / "counted" / "A1").glob("*/ct.log.gz")
    kept.chmod(0o644)
    kept.write_bytes(kept.read_bytes()[:-9])
    assert "is damaged" in said_by(project, "logs", "counted/A1")
    assert verify(project).findings == ()


def test_the_log_of_somebody_without_consent_is_for_nobody(tmp_path: Path) -> None:
    project = make_project(tmp_path / "toy", steps=SAYING)
    make_all(project, inline=False)
    set_consent(project, ["P2"], Statement("revoked", form="form 7"))
    for text in ("counted/A3", "counted/A3@current", f"counted/A3@{row_of(project, 'counted', 'A3')['id']}"):
        said = ct("-C", str(project.root), "logs", text)
        assert said.code == 2 and "counting" not in said.out, said
    said_by(project, "purge", "P2", "--confirm", "P2", "--reason", "asked for")
    assert not list((project.store.root).glob("counted/A3/*/ct.log.gz"))


def test_made_again_with_the_same_bytes_is_reproduced(tmp_path: Path, catalog_url: str) -> None:
    project = make_project(tmp_path / "toy")
    make_all(project)
    before = {path: path.stat().st_mtime_ns for path in project.store.root.glob("[!.]*/**/*") if path.is_file()}
    assert made_again(project, "counted", "A1", "A2") == {"A1": True, "A2": True}
    assert {path: path.stat().st_mtime_ns for path in project.store.root.glob("[!.]*/**/*") if path.is_file()} == before
    assert not (project.work / "again").exists()
    assert reasons(again(project)) == {} and disagreements(project) == []
    with project.catalog.read() as connection:
        rows = connection.execute(select(reproduction).order_by(reproduction.c.id)).all()
        assert [(row.materialization, row.differs, row.actor) for row in rows] == [
            (1, "[]", project.catalog.actor),
            (2, "[]", project.catalog.actor),
        ]
        kinds = connection.execute(select(event.c.kind, event.c.subject).order_by(event.c.seq)).all()
        assert [tuple(row) for row in kinds[-2:]] == [("reproduce", "counted/A1"), ("reproduce", "counted/A2")]


def test_a_killed_rerun_of_a_person_goes_with_their_purge(tmp_path: Path) -> None:
    project = make_project(tmp_path / "toy")
    make_all(project)
    for name, step, who in (("one", "counted", "A3"), ("two", "counted", "A1"), ("three", "joined", "all")):
        key = str(row_of(project, step, who)["key"])
        store = Store(project.work / "again" / name)
        (store.stage(step, who, key) if name == "one" else store.folder(step, who, key)).mkdir(
            parents=True, exist_ok=True
        )
    set_consent(project, ["P2"], Statement("revoked", form="form 7"))
    said_by(project, "purge", "P2", "--confirm", "P2", "--reason", "asked for")
    assert [path.name for path in (project.work / "again").iterdir()] == ["two"]


def test_other_bytes_are_shown_by_file_and_replace_nothing(tmp_path: Path) -> None:
    project = make_project(tmp_path / "toy", steps=CHANCE)
    make_all(project)
    (project.root / "reads" / "chance").write_text("heads")
    said = ct("-C", str(project.root), "run", "--again", "counted/A1", "counted/A2")
    assert said.code == 3 and "counted/A1\tother\tmade again, other bytes in n.txt; what is there was kept" in said.out
    assert "made again: 2 other; nothing was replaced" in said.err
    project = again(project)
    assert reasons(project) == {} and verify(project).findings == ()
    for command in ("show", "trace", "why"):
        assert "other bytes in n.txt" in said_by(project, command, "counted/A1"), command
    rows = said_by(project, "query", "SELECT step, entity, same, differs FROM reproductions ORDER BY entity")
    assert rows.splitlines()[1] == 'counted\tA1\t0\t["n.txt"]'
    (project.root / "reads" / "chance").unlink()
    said = ct("-C", str(project.root), "run", "--again", "counted/A1")
    assert said.code == 0 and "counted/A1\tsame" in said.out
    assert json.loads(said_by(project, "show", "counted/A1", "--json"))["made"]["reproduced"] == "same"
    assert "other bytes" not in said_by(project, "why", "counted/A1")


def test_other_bytes_replace_the_old_ones_if_asked(tmp_path: Path, catalog_url: str) -> None:
    project = make_project(tmp_path / "toy", steps=CHANCE)
    make_all(project)
    before = row_of(project, "counted", "A1")
    (project.root / "reads" / "chance").write_text("heads")
    said = ct("-C", str(project.root), "run", "--again", "counted/A1", "--replace")
    assert said.code == 3 and "other bytes in n.txt; what was there is replaced" in said.out
    project = again(project)
    now = row_of(project, "counted", "A1")
    assert now["id"] > before["id"] and (now["key"], now["folder"]) == (before["key"], before["folder"])
    assert "heads" in (project.store.root / str(now["folder"]) / "n.txt").read_text()
    assert verify(project, deep=True).findings == () and verify(project).findings == ()
    assert {name: why for name, why in reasons(project).items() if why == ["input"]}.keys() == {"merged/S1"}
    make_all(project)
    forget()
    assert reasons(again(project)) == {}
    (project.root / "reads" / "chance").unlink()
    said = ct("-C", str(project.root), "run", "--again", "counted/A2", "--replace")
    assert said.code == 0 and "nothing was replaced" in said.err
    assert ct("-C", str(project.root), "run", "counted/A2", "--replace").code == 2


def test_what_cannot_be_made_again_is_told_and_stays(tmp_path: Path) -> None:
    broken = CHANCE.replace("    n = len(", "    assert extra != 'tails', 'no luck'\n    n = len(", 1)
    project = make_project(tmp_path / "toy", steps=broken)
    make_all(project)
    (project.root / "reads" / "chance").write_text("tails")
    said = ct("-C", str(project.root), "run", "--again", "counted/A1")
    assert said.code == 1 and "could not be made again" in said.out and "no luck" in said.out
    assert reasons(again(project)) == {}
    said = ct("-C", str(project.root), "run", "--again", "counted/A1", "--no-cache")
    assert said.code == 2 and "--again takes steps and nodes" in said.err
    assert ct("-C", str(project.root), "run", "--again").code == 2
    assert (
        "--fail does not go with --again"
        in ct("-C", str(project.root), "run", "--again", "counted/A1", "--fail", "fast").err
    )


def test_whoever_may_not_be_used_is_not_made_again(tmp_path: Path) -> None:
    project = make_project(tmp_path / "toy")
    make_all(project)
    set_consent(project, ["P2"], Statement("revoked", form="form 7"))
    said = ct("-C", str(project.root), "run", "--again", "counted")
    assert said.code == 0 and "made again: 2 reproduced" in said.err and "A3" not in said.out + said.err
    assert ct("-C", str(project.root), "run", "--again", "counted/A3").code == 2


def test_what_was_never_made_is_not_made_by_making_it_again(tmp_path: Path) -> None:
    project = make_project(tmp_path / "toy")
    make(project, "counted", "A1", runner=Inline(project))
    said = ct("-C", str(project.root), "run", "--again", "counted")
    assert said.code == 2 and "counted/A2 has no making of today's call; `ct run counted/A2` makes it" in said.err
    with project.catalog.read() as connection:
        assert len(connection.execute(select(materialization)).all()) == 1


def test_without_the_cache_a_stale_node_runs_again(tmp_path: Path, catalog_url: str) -> None:
    project = make_project(tmp_path / "toy", steps=CHANCE)
    make_all(project)
    place = project.root / "steps" / "toy.py"
    first = place.read_text()
    place.write_text(first.replace("{n} ", "{n}: "))
    make_all(again(project))
    place.write_text(first)
    project = again(project)
    assert reasons(project)["counted/A1"] == ["code"]
    (project.root / "reads" / "chance").write_text("heads")
    step = project.steps["counted"]
    keys = ["A1", "A2", "A3"]
    cached = StepRun(project, step, keys[:1], stale_only=True, runner=Inline(project))
    assert [(one.state, one.same) for one in cached.outcomes()] == [("hit", None)]
    whole = StepRun(project, step, keys, stale_only=True, again=True, runner=Inline(project))
    assert {one.node[1]: (one.state, one.same) for one in whole.outcomes()} == {
        "A2": ("hit", False),
        "A3": ("hit", False),
    }
    forget()
    assert not [node for node in reasons(again(project)) if node.startswith("counted/")]
    assert disagreements(project) == []
