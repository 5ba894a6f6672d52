"""Only reading proves bytes: a look raises a doubt and never takes one back."""

import json
import os
import time
from pathlib import Path

import pytest
from sqlalchemy import select, update

from ctcore.catalog.tables import digest_memory, event, file, output
from ctcore.errors import StoreError
from ctcore.governance.consent import Statement, set_consent
from ctcore.intake.raw_files import look
from ctcore.integrity.look import look_around
from ctcore.integrity.scrub import items, scrub, scrub_share, scrub_words
from ctcore.integrity.verify import verify
from ctcore.project import Project
from ctcore.projects.lifecycle import change_state as shut
from ctcore.staleness.verdicts import evaluate
from tests.helpers.kit import TOML, Inline, again, change, make, make_all, make_project, reasons, rot
from tests.helpers.shell import Said, ct, quiet_dagster, shell

both = pytest.mark.usefixtures("catalog_url")


@pytest.fixture
def project(tmp_path: Path, catalog_url: str) -> Project:
    """Everything is made and fresh, and the raw files are no longer young."""
    return _made(tmp_path)


def _made(folder: Path) -> Project:
    made = make_project(folder / "toy")
    os.utime(made.root / "genome.txt", (1, 1))
    look(made)
    make_all(made)
    time.sleep(0.03)
    look(made)
    return made


@pytest.fixture
def own(tmp_path: Path) -> Project:
    """The same on SQLite: what is asked for is of the disk."""
    return _made(tmp_path)


def published(project: Project, asset: str, partition: str) -> Path:
    (found,) = (project.store.root / asset / partition).glob("*/n.txt")
    return found


def kinds(project: Project) -> list[str]:
    with project.catalog.read() as connection:
        return list(connection.execute(select(event.c.kind).order_by(event.c.seq)).scalars())


def asked(project: Project, *arguments: str | Path, code: int = 0) -> Said:
    """What `ct` says, with this exit code."""
    said = ct("-C", project.root, *arguments)
    assert said.code == code, said
    return said


# A published file (T2)


def test_changed_published_bytes_of_one_size_and_time_are_found(project: Project) -> None:
    change(published(project, "merged", "S1"))
    assert [one.node for one in verify(project, deep=False).findings] == [("merged", "S1")]
    assert reasons(project)["merged/S1"] == ["bytes"]


@pytest.mark.parametrize("harm", [change, rot])
def test_only_reading_takes_a_damage_back(project: Project, harm: object) -> None:
    path = published(project, "merged", "S1")
    content = change(path) if harm is change else rot(project, path)
    assert [one.node for one in verify(project).findings] == [("merged", "S1")]
    for _ in range(2):
        assert [one.node for one in verify(project, deep=False).findings] == [("merged", "S1")]
        assert evaluate(again(project)).of("merged", "S1").state == "lost"
    assert "heal" not in kinds(project)
    path.write_bytes(content)
    assert verify(project, deep=False).findings == (), "it was read, as it was doubted"
    assert reasons(project) == {} and kinds(project).count("heal") == 1


def test_a_damaged_file_is_not_read_at_each_look(project: Project) -> None:
    path = published(project, "merged", "S1")
    path.chmod(0o644)
    path.write_text("made by hand\n")
    os.utime(path, (1, 1))
    time.sleep(0.03)
    path.write_bytes(b"F" * published(project, "merged", "S1").stat().st_size)
    path.write_bytes(path.read_bytes()[: len("made by hand\n")])
    verify(project, deep=False)
    read: list[int] = []
    found = verify(project, deep=False, on_bytes=read.append)
    assert [one.node for one in found.findings] == [("merged", "S1")] and sum(read) == 0


def test_another_mode_or_a_hard_link_is_no_change(project: Project) -> None:
    path = published(project, "merged", "S1")
    before = kinds(project)
    path.chmod(0o440)
    os.link(path, project.root / "kept")
    time.sleep(0.03)
    read: list[int] = []
    assert verify(project, deep=False, on_bytes=read.append).findings == () and sum(read) == path.stat().st_size
    assert verify(project, deep=False, on_bytes=read.append).findings == () and sum(read) == path.stat().st_size
    assert kinds(project) == before and reasons(project) == {}


# What a call reads (T3, T4)


def test_changed_raw_bytes_of_one_size_and_time_are_seen(project: Project) -> None:
    change(project.root / "reads/A1.txt")
    assert len(look(project).changes) == 1
    assert reasons(project)["counted/A1"] == ["input"]


def test_a_touched_raw_file_is_read_again_and_is_no_change(project: Project) -> None:
    before = kinds(project)
    os.utime(project.root / "reads/A1.txt")
    (project.root / "reads/A2.txt").chmod(0o400)
    assert look(project).changes == [] and reasons(project) == {} and kinds(project) == before


@pytest.mark.parametrize(("asset", "key", "name"), [("counted", "A1", "reads/A1.txt"), ("merged", "S1", "counted/A1")])
def test_a_call_refuses_changed_input_of_one_size_and_time(project: Project, asset: str, key: str, name: str) -> None:
    """Otherwise the result of these bytes would be recorded under the digest of the others, and reused for ever."""
    rewritten(project)
    change(project.root / name if asset == "counted" else published(project, "counted", "A1"))
    (outcome,) = make(again(project), asset, key, runner=Inline(project))
    assert outcome.state == "failed" and "changed since it was last looked at" in outcome.why


def rewritten(project: Project) -> None:
    """Other code of two steps, so that they are made again."""
    steps = project.root / "steps/toy.py"
    text = steps.read_text().replace('f"{n} {call', 'f"{n}  {call').replace("' '.join(lines)", "'  '.join(lines)")
    steps.write_text(text)


@both
def test_with_verify_inputs_bytes_a_call_reads_its_inputs_first(tmp_path: Path) -> None:
    project = make_project(tmp_path / "toy", toml=TOML.replace("[run]", '[run]\nverify_inputs = "bytes"'))
    time.sleep(0.03)
    look(project)
    rot(project, project.root / "reads/A1.txt")
    states = {one.node[1]: one.state for one in make(project, "counted", runner=Inline(project))}
    assert states == {"A1": "failed", "A2": "made", "A3": "made"}


@both
@pytest.mark.parametrize(
    ("write", "said"),
    [
        ("path.write_text(text)", "the step wrote into its input"),
        ("new = path.with_name(call.entity); new.write_text(text); new.replace(path)", "changed while the call ran"),
    ],
)
def test_an_input_that_changes_during_a_call_publishes_nothing(tmp_path: Path, write: str, said: str) -> None:
    steps = f"""
    import os
    from ctcore.step import Call, step

    @step(level="assay", files=["reads"], outputs={{"n": "n.txt"}})
    def counted(call: Call) -> None:
        path = call.file("reads")
        before, text = os.stat(path), path.read_text().swapcase()
        call.out("n").write_text(path.read_text())
        {write}
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    """
    project = make_project(tmp_path / "toy", steps=steps)
    for key, runner in (("A1", Inline(project)), ("A2", None)):
        (outcome,) = make(again(project), "counted", key, runner=runner)
        assert outcome.state == "failed" and said in outcome.why and f"{key}.txt" in outcome.why


def test_a_catalog_without_ctime_reads_each_file_once(project: Project) -> None:
    with project.catalog.write() as writer:
        writer.execute(update(file).values(ctime_ns=0))
        writer.execute(update(output).values(ctime_ns=0))
    time.sleep(0.03)
    read: list[int] = []
    before = kinds(project)
    for _ in range(2):
        assert (
            look(project, read.append).changes == []
            and verify(project, deep=False, on_bytes=read.append).findings == ()
        )
    sizes = [one.stat().st_size for one in (project.root / "reads").iterdir()]
    assert sum(read) == sum(sizes) + sum(one.stat().st_size for one in project.store.root.glob("*/*/*/[nt]*.t*"))
    assert kinds(project) == before and reasons(project) == {}


# Reading everything


def test_a_full_verify_reads_sources_and_makes_users_stale(project: Project) -> None:
    rot(project, project.root / "reads/A1.txt")
    assert look(project).changes == [], "no look can tell"
    said = asked(project, "verify", code=3)
    assert "assay/A1 reads" in said.out and "3 raw files, 1 reference, " in said.err
    assert reasons(again(project))["counted/A1"] == ["input"]
    asked(project, "verify")
    assert look(project).changes == [] and reasons(again(project))["counted/A1"] == ["input"]


def test_a_rotten_reference_is_another_one(project: Project) -> None:
    genome = project.root / "genome.txt"
    look(project)
    before = genome.stat()
    change(genome)
    with project.catalog.write() as writer:
        known = {"mtime_ns": before.st_mtime_ns, "ctime_ns": genome.stat().st_ctime_ns, "size": before.st_size}
        writer.execute(update(digest_memory).where(digest_memory.c.path == "genome.txt").values(**known))
    assert look(project).changes == []
    assert "reference/genome" in asked(project, "verify", code=3).out
    assert look(project).changes == [] and reasons(again(project))["counted/A1"] == ["reference"]


def test_fresh_is_said_with_what_could_not_be_seen(project: Project) -> None:
    make_all(project)
    (project.root / "reads/A1.txt").unlink()
    asked(project, "verify", "--quick", code=3)
    for said in ("No such file or directory", "not a regular file, but a folder"):
        found = asked(project, "why", "counted/A1", code=3).out
        assert f"as far as can be seen: of its raw files, reads cannot be ({said})" in found
        (project.root / "reads/A1.txt").mkdir(exist_ok=True)
    assert "as far as" not in asked(project, "why", "counted/A2", code=3).out


def test_what_is_no_file_any_more_is_named_and_the_rest_is_read(project: Project) -> None:
    (project.root / "reads/A1.txt").unlink()
    os.mkfifo(project.root / "reads/A1.txt")
    (project.root / "reads/A2.txt").unlink()
    (project.root / "reads/A2.txt").mkdir()
    rot(project, project.root / "reads/A3.txt")
    for quick in ([], ["--quick"]):
        said = asked(project, "verify", *quick, code=3)
        assert said.out.count("not a regular file") == 2
        assert ("assay/A3 reads" in said.out) is (not quick)


@both
def test_what_was_interrupted_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = make_project(tmp_path / "toy")
    make_all(project)
    monkeypatch.setattr("ctcore.integrity.scrub.CHUNK_FILES", 1)
    read: list[int] = []
    rot(project, project.root / "reads/A2.txt")

    def stop(done: int) -> None:
        read.append(done)
        if len(read) > 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scrub(project, on_bytes=stop)
    whole, rest = sum(one.size for one in items(project)), list[int]()
    found = scrub(again(project), begin=rest.append)
    assert 0 < rest[0] < whole and found.since is not None
    assert any("A2" in said for said in found.changed_inputs), "what was found before the interruption is said too"
    assert scrub(again(project), begin=rest.append).since is None and rest[1] == whole


@both
def test_a_share_is_read_at_a_time_longest_unread_first(tmp_path: Path) -> None:
    project = make_project(tmp_path / "toy")
    make_all(project)
    rot(project, project.root / "reads/A3.txt")
    assert "4 of 10 have not been read since they were made or registered" in scrub_words(project)
    counts, said = list[int](), list[str]()
    for _ in range(4):
        found = scrub_share(project, 1)
        counts.append(found.count)
        said += found.changed_inputs
    assert counts == [1] * 4 and len(said) == 1 and "A3" in said[0]
    assert "everything within 1 day; the oldest check is of 20" in scrub_words(project)


# One rule of looking (T13)


COMMANDS = (("status",), ("stale",), ("why", "counted/A1"), ("plan",))


@pytest.mark.parametrize("command", COMMANDS, ids=lambda one: one[0])
def test_a_command_that_asks_for_verdicts_looks_first(own: Project, command: tuple[str, ...]) -> None:
    asked(own, *command)
    change(own.root / "reads/A1.txt")
    said = asked(own, *command, code=3)
    assert "changed: assay/A1 reads" in said.err


@pytest.mark.parametrize("command", COMMANDS, ids=lambda one: one[0])
def test_a_file_that_is_gone_is_said_by_every_command(own: Project, command: tuple[str, ...]) -> None:
    (own.root / "reads/A1.txt").unlink()
    (own.root / "genome.txt").unlink()
    said = asked(own, *command, code=3)
    assert "problem: assay A1: reads reads/A1.txt: No such file" in said.err
    assert "problem: reference genome: genome.txt is not there" in said.err


@pytest.mark.parametrize("command", COMMANDS, ids=lambda one: one[0])
def test_an_output_that_is_gone_is_lost_for_every_command(own: Project, command: tuple[str, ...]) -> None:
    path = published(own, "counted", "A1")
    path.parent.chmod(0o755)
    path.unlink()
    said = asked(own, *command, code=3)
    assert "damaged: counted/A1: n.txt gone" in said.err
    assert "counted" in said.out


@pytest.mark.parametrize("command", [*COMMANDS, ("verify",), ("path", "counted/A1")], ids=lambda one: one[0])
def test_a_store_that_is_gone_is_one_line_with_the_way_out(own: Project, command: tuple[str, ...]) -> None:
    own.store.root.rename(own.root / "elsewhere")
    for _ in range(2):
        said = asked(own, *command, code=3)
        (line,) = said.err.splitlines()
        assert "the store" in line and "6 artifacts should be in it; mount its disk" in line and "ct init" in line
        own.store.root.mkdir(exist_ok=True)  # where its disk should be mounted
    own.store.root.rmdir()
    (own.root / "elsewhere").rename(own.store.root)
    asked(own, *command)


def test_what_is_too_much_to_read_is_reported_not_fresh(own: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    change(own.root / "reads/A1.txt")
    published(own, "merged", "S1").chmod(0o400)
    sight = look_around(own, most=5)
    assert (sight.unread, sight.is_clear) == (2, False)
    assert "2 files (0.0 GB) look changed and have not been read yet: `ct verify --quick`" in "\n".join(sight.lines())
    assert reasons(own) == {}
    assert look_around(own, most=None).is_clear and reasons(own)["counted/A1"] == ["input"]


def test_with_look_again_s_commands_say_of_when_they_speak(own: Project) -> None:
    text = (own.root / "ct.toml").read_text().replace("[run]", "[run]\nlook_again_s = 600")
    (own.root / "ct.toml").write_text(text)
    assert "as of" not in asked(own, "status").err
    change(own.root / "reads/A1.txt")
    assert "as of" in asked(own, "status").err
    assert json.loads(asked(own, "stale", "--json").out)["looked"]["at"]
    assert look_around(again(own), most=None).changes, "what runs looks always"


def test_a_look_at_an_archived_project_writes_nothing(own: Project) -> None:
    shut(own, "archived", "over")
    before = kinds(again(own))
    change(own.root / "reads/A1.txt")
    assert "changed: assay/A1 reads" in asked(own, "status", code=3).err
    assert kinds(again(own)) == before


def test_an_archived_project_without_ctime_stays_as_it_was(own: Project) -> None:
    with own.catalog.write() as writer:
        for table in (file, output, digest_memory):
            writer.execute(update(table).values(ctime_ns=0))
    shut(own, "archived", "over")
    sight = look_around(again(own), most=0)
    assert sight.is_clear and sight.changes == ()


def test_nobody_without_consent_is_named_by_a_look(own: Project) -> None:
    set_consent(own, ["P2"], Statement("withdrawn", form="form 1"))
    (own.root / "reads/A3.txt").unlink()
    path = published(own, "counted", "A3")
    path.parent.chmod(0o755)
    path.unlink()
    said = asked(own, "stale", code=3)
    assert "A3" not in said.err and "somebody who may not be used" in said.err


def test_a_run_with_nothing_to_make_says_what_is_missing(own: Project) -> None:
    quiet_dagster(own.root)
    assert shell("-C", own.root, "run").code == 0, "Dagster knows of all that was made"
    (own.root / "reads/A1.txt").unlink()
    said = shell("-C", own.root, "run")
    assert said.code == 3 and "nothing to do; 1 problem of raw files or references" in said.err
    assert "fresh" not in said.err


def test_a_run_makes_nothing_where_the_store_is_gone(own: Project) -> None:
    quiet_dagster(own.root)
    own.store.root.rename(own.root / "elsewhere")
    own.store.root.mkdir()
    said = shell("-C", own.root, "run")
    assert said.code == 3 and "6 artifacts should be in it; mount its disk" in said.err
    with pytest.raises(StoreError, match="6 artifacts should be in it; mount its disk"):
        make(again(own), "counted")  # as a run of Dagster's begins
    assert list(own.store.root.iterdir()) == []


def test_with_many_files_a_look_holds_for_seconds_and_says_so(own: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctcore.integrity.look.MANY", 8)
    assert "as of" not in asked(own, "status").err
    assert "as of" in asked(own, "status").err
    monkeypatch.setattr("ctcore.integrity.look.MANY", 9)
    assert "as of" not in asked(own, "status").err
