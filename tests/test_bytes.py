"""Only reading proves bytes: a look raises a doubt and never takes one back."""

import os
import time
from pathlib import Path

import pytest
from sqlalchemy import select, update

from ctcore.catalog.tables import event, file, output
from ctcore.files import look
from ctcore.project import Project
from ctcore.staleness import evaluate
from ctcore.verify import verify
from tests.kit import TOML, Inline, again, make, make_all, make_project, reasons

both = pytest.mark.usefixtures("catalog_url")


@pytest.fixture
def project(tmp_path: Path, catalog_url: str) -> Project:
    """Everything is made and fresh, and the raw files are no longer young."""
    made = make_project(tmp_path / "toy")
    os.utime(made.root / "genome.txt", (1, 1))
    look(made)
    make_all(made)
    time.sleep(0.03)
    look(made)
    return made


def change(path: Path) -> bytes:
    """Other bytes of the same size; the mtime is put back, as `cp -p` in place or a restored backup does."""
    before, content = path.stat(), path.read_bytes()
    path.chmod(0o644)
    with path.open("r+b") as stream:
        stream.write(bytes([content[0] ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    return content


def rot(project: Project, path: Path) -> bytes:
    """The same below the file system: the disk gives other bytes, and not even the ctime tells."""
    content = change(path)
    ctime = path.stat().st_ctime_ns
    name = project.recorded(path)
    with project.catalog.write() as writer:
        if name.startswith("store/"):
            writer.execute(update(output).where(output.c.size == len(content)).values(ctime_ns=ctime))
        else:
            writer.execute(update(file).where(file.c.path == name).values(ctime_ns=ctime))
    return content


def published(project: Project, asset: str, partition: str) -> Path:
    (found,) = (project.store.root / asset / partition).glob("*/n.txt")
    return found


def kinds(project: Project) -> list[str]:
    with project.catalog.read() as connection:
        return list(connection.execute(select(event.c.kind).order_by(event.c.seq)).scalars())


# A published file (T2)


def test_a_published_file_of_other_bytes_is_found_though_size_and_mtime_are_kept(project: Project) -> None:
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


def test_a_raw_file_of_other_bytes_is_seen_though_size_and_mtime_are_kept(project: Project) -> None:
    change(project.root / "reads/A1.txt")
    assert len(look(project).changes) == 1
    assert reasons(project)["counted/A1"] == ["input"]


def test_a_touched_raw_file_is_read_again_and_is_no_change(project: Project) -> None:
    before = kinds(project)
    os.utime(project.root / "reads/A1.txt")
    (project.root / "reads/A2.txt").chmod(0o400)
    assert look(project).changes == [] and reasons(project) == {} and kinds(project) == before


@pytest.mark.parametrize(("asset", "key", "name"), [("counted", "A1", "reads/A1.txt"), ("merged", "S1", "counted/A1")])
def test_a_call_refuses_an_input_of_other_bytes_though_size_and_mtime_are_kept(
    project: Project, asset: str, key: str, name: str
) -> None:
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
def test_an_input_that_changes_while_a_call_runs_publishes_nothing(tmp_path: Path) -> None:
    steps = """
    import os
    from ctcore.step import Call, step

    @step(level="assay", files=["reads"], outputs={"n": "n.txt"})
    def counted(call: Call) -> None:
        path = call.file("reads")
        before = os.stat(path)
        call.out("n").write_text(path.read_text())
        path.write_text(path.read_text().swapcase())
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    """
    project = make_project(tmp_path / "toy", steps=steps)
    (outcome,) = make(project, "counted", "A1", runner=Inline(project))
    assert outcome.state == "failed" and "changed since it was last looked at" in outcome.why


def test_a_catalog_from_before_ctime_was_kept_reads_each_file_once(project: Project) -> None:
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
