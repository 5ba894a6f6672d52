"""The catalog's rows of jobs, on both databases; and what people are shown of them."""

from pathlib import Path

import pytest
from sqlalchemy import select

from ctcore.catalog.engine import HEAD, Catalog
from ctcore.catalog.migrations import upgrade
from ctcore.catalog.tables import entity, lease, materialization
from ctcore.config.slurm_profiles import Needs
from ctcore.execution import ledger
from ctcore.execution.slurm import jobs
from ctcore.execution.slurm.accounting import usage_by_key
from ctcore.execution.slurm.job_list import listed_jobs, log_of
from ctcore.execution.slurm.jobs import Job, JobEnd
from ctcore.project import Project
from ctcore.projects import leases
from ctcore.util.processes import process_name
from tests.helpers.fake_slurm import FakeSlurm
from tests.helpers.kit import make, make_project
from tests.helpers.shell import ct
from tools.slurm.processes import wait

NEEDS = Needs(2, 1024, 60)


@pytest.fixture
def project(tmp_path: Path, catalog_url: str) -> Project:
    return make_project(tmp_path / "toy")


def listed(*names: str, batch: str = "ct-toy-1") -> list[Job]:
    return [
        Job(batch, at, f"{name}key", ("counted", name), f"{batch}{name}", NEEDS, "main")
        for at, name in enumerate(names)
    ]


def test_a_batch_is_known_before_sbatch_and_until_judged(project: Project) -> None:
    first, second = listed("A1", "A2")
    leases.take(project, [(first.key, first.node), (second.key, second.node)], "run")
    jobs.record_batch(project, [first, second], "run")
    assert [(job.key, job.array) for job in jobs.open_jobs(project)] == [("A1key", None), ("A2key", None)]
    with project.catalog.read() as connection:
        assert {row.job for row in connection.execute(select(lease))} == {"slurm:ct-toy-1"}
    jobs.mark_submitted(project, "ct-toy-1", "17")
    jobs.settle(project, [JobEnd(first, "COMPLETED", jobs.MADE, "n1", 10.0, 15.0, 512.0)])
    (left,) = jobs.open_jobs(project)
    assert (left.id, left.key, left.needs) == ("17_1", "A2key", NEEDS)
    assert jobs.open_jobs(project, ["A1key", "nokey"]) == []
    made = usage_by_key(project, ["A1key", "A2key"])
    assert set(made) == {"A1key"}
    assert (made["A1key"].id, made["A1key"].attempts) == ("17_0", 1)
    assert (made["A1key"].cpu_efficiency, made["A1key"].memory_efficiency) == (0.75, 0.5)


def test_a_later_try_replaces_the_former_in_one_step(project: Project) -> None:
    (first,) = listed("A1")
    (second,) = listed("A1", batch="ct-toy-2")
    jobs.record_batch(project, [first], None)
    jobs.record_batch(project, [second], None, [JobEnd(first, "TIMEOUT", "it was over its time limit")])
    assert [job.batch for job in jobs.open_jobs(project)] == ["ct-toy-2"]


def test_a_key_of_a_lone_job_goes_to_whoever_wants_it(project: Project) -> None:
    (job,) = listed("A1")
    assert leases.take(project, [(job.key, job.node)], "first") == {job.key}
    jobs.record_batch(project, [job], "first")
    assert leases.take(project, [(job.key, job.node)], "second") == set()  # the first one lives
    with project.catalog.write() as writer:
        writer.execute(lease.update().values(owner=process_name().replace(":", ":9", 1)))
    assert leases.take(project, [(job.key, job.node)], "second") == {job.key}


def test_recording_an_artifact_closes_its_jobs(project: Project) -> None:
    (made,) = [one for one in make(project, "counted", "A1") if one.state == "made"]
    with project.catalog.read() as connection:
        row = connection.execute(select(materialization).where(materialization.c.id == made.materialization)).one()
    (job,) = listed("A1")
    job.key = row.key
    jobs.record_batch(project, [job], None)
    published = project.store.find("counted", "A1", row.key)
    assert published is not None
    ledger.record(project, [published])
    assert jobs.open_jobs(project) == []


def test_an_older_catalog_is_upgraded_and_keeps_its_rows(tmp_path: Path, catalog_url: str) -> None:
    old = Catalog(catalog_url, "toy", tmp_path / "toy.jsonl")
    upgrade(old, "0001")
    with old.write() as writer:
        writer.insert(entity, [{"seq": 1, "level": "patient", "id": "P1", "parent": None, "attributes": "{}"}])
        writer.event("register", "sheet", {"new": 1})
    assert old.version() == "0001"
    assert Catalog(catalog_url, "toy", tmp_path / "toy.jsonl").open().version() == HEAD
    with old.read() as connection:
        assert connection.execute(select(entity.c.id)).scalars().all() == ["P1"]


def test_ct_jobs_shows_what_is_in_slurm_and_asks_it_once_a_poll(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy = make_project(tmp_path / "toy")
    fake = FakeSlurm(tmp_path / "fake")
    monkeypatch.setenv("PATH", str(fake.programs), prepend=":")
    assert ct("-C", toy.root, "jobs").out.strip().split("\t")[:3] == ["node", "job", "state"]
    assert fake.count("asked") == 0
    first, second = listed("A1", "A2")
    second.log = str(tmp_path / "a.log")
    jobs.record_batch(toy, [first, second], "run7")
    jobs.mark_submitted(toy, "ct-toy-1", "17")
    fake.says("queue", "17_0|ct-toy-1|RUNNING|None|n2|1:05|0|\n17_1|ct-toy-1|PENDING|Priority||0:00|0|\n")
    said = ct("-C", toy.root, "jobs").out.splitlines()
    assert said[1].split("\t")[:6] == ["counted/A1", "17_0", "RUNNING", "0:01:05", "n2", "main"]
    assert said[2].split("\t")[2] == "PENDING (Priority)"
    assert said[2].split("\t")[6:] == ["2 CPU, 1 GiB, 60 min", "1", "run7", second.log]
    fake.says("down")
    assert ct("-C", toy.root, "jobs").out.splitlines() == said
    assert fake.count("asked") == 1
    assert wait(lambda: "Slurm does not answer" in ct("-C", toy.root, "jobs").err, 30)
    jobs.settle(toy, [JobEnd(first, "TIMEOUT", "it was over its time limit", "n2", 3600.0)])
    assert len(listed_jobs(toy).jobs) == 1
    assert "TIMEOUT: it was over its time limit" in ct("-C", toy.root, "jobs", "--all").out


def test_ct_logs_prints_what_the_last_call_said_wherever_it_ran(tmp_path: Path) -> None:
    toy = make_project(tmp_path / "toy")
    assert "has no log" in ct("-C", toy.root, "logs", "counted/A1").err
    make(toy, "counted", "A1")
    (log,) = (toy.work / "logs" / "counted" / "A1").glob("*.log")
    log.write_text("one\ntwo\n")
    assert ct("-C", toy.root, "logs", "counted/A1").out == "one\ntwo\n"
    assert ct("-C", toy.root, "logs", "--path", "counted/A1").out.strip() == str(log)
    (job,) = listed("A2")
    jobs.record_batch(toy, [job], None)
    jobs.mark_submitted(toy, "ct-toy-1", "17")
    before = toy.work / "slurm" / "ct-toy-1" / "17_0.out"
    before.parent.mkdir(parents=True)
    before.write_text("module: command not found\n")
    assert log_of(toy, ("counted", "A2")) == before
    assert "command not found" in ct("-C", toy.root, "logs", "counted/A2").out
