"""What has to hold after a backfill during which anything was killed."""

from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from itertools import combinations

from sqlalchemy import select

from ctcore.catalog.event_log import last_event_of
from ctcore.catalog.tables import artifact, lease, materialization
from ctcore.execution.materialize import FOREIGN_S
from ctcore.execution.slurm.jobs import MADE
from ctcore.integrity.verify import verify
from ctcore.project import Project
from tests.helpers.cluster_runs import Cohort
from tests.helpers.drivers import told
from tests.helpers.kit import again
from tests.helpers.shell import ct
from tests.helpers.slurm import Slurm
from tests.helpers.strikes import workers
from tools.slurm.processes import wait

SLACK_S = 1.0  # accounting has whole seconds


@dataclass(frozen=True)
class Life:
    """One time that Slurm ran a job, as accounting has it."""

    task: str
    state: str
    submitted: float
    end: float


def made_once(project: Project, names: list[str], log: list[str]) -> None:
    """One artifact a partition, in the ledger and in the store, with what the step makes of its reads; nothing damaged,
    nobody waited for."""
    project = again(project)
    with project.catalog.read() as connection:
        for table in (artifact, materialization):
            rows = connection.execute(select(table.c.partition).where(table.c.asset == "counted")).scalars()
            assert Counter(rows) == Counter(names), log
        assert connection.execute(select(lease)).all() == [], log
    folders = [path for path in (project.store.root / "counted").glob("*/*") if path.is_dir()]
    assert Counter(path.parent.name for path in folders) == Counter(names), log
    genome = (project.root / "genome.txt").read_text()
    for folder in folders:
        reads = (project.root / "reads" / f"{folder.parent.name}.txt").read_text().strip()
        assert (folder / "n.txt").read_text() == f"{len(reads)} {genome}", (folder, log)
    found = verify(project, deep=True)
    assert (found.artifacts, found.findings) == (len(names), ()), log
    project.store.sweep(FOREIGN_S)  # what a crashed node left behind; the next run would do this
    assert list((project.store.root / ".staging").glob("[!.]*")) == [], log


def records_agree(project: Project, log: list[str]) -> None:
    """The catalog, its events and provenance.jsonl say the same, to the last event."""
    said = ct("-C", project.root, "verify")
    assert said.code == 0, (said, log)
    project = again(project)
    with project.catalog.read() as connection:
        assert project.catalog.journal.end()[0] == last_event_of(connection), log


def executed_once(slurm: Slurm, cohort: Cohort, log: list[str]) -> int:
    """Of no key have two jobs been completed, and of each one job made it. Gives how many of these accounting does not
    call completed: a controller that is killed forgets what it did last."""
    rows = cohort.rows()
    made = Counter(str(row["partition"]) for row in rows if row["why"] == MADE)
    assert made == Counter(cohort.names), (made - Counter(cohort.names), log)
    lives = accounted(slurm, sorted({str(row["batch"]) for row in rows}))
    completed = Counter[str]()
    for row in rows:
        runs = lives[str(row["batch"])]
        mine = [life for life in runs if life.task == f"{row['job']}_{row['idx']}" and life.state == "COMPLETED"]
        completed[str(row["partition"])] += len(mine)
    assert not (twice := {name for name, times in completed.items() if times > 1}), (twice, log)
    return len(cohort.names) - completed.total()


def done_once(cohort: Cohort, killed: int, log: list[str]) -> None:
    """No call was gone through twice, but where who had gone through it was killed before it had published."""
    done = cohort.done()
    assert set(done) == set(cohort.names), log
    twice = {name: times for name, times in done.items() if times > 1}
    assert sum(twice.values()) - len(twice) <= killed, (twice, killed, log)


def nothing_lost_or_doubled(slurm: Slurm, cohort: Cohort, log: list[str]) -> None:
    """No job is open in the catalog; a batch is one array; no key had two jobs at the same time."""
    rows = cohort.rows()
    assert [row for row in rows if row["ended_at"] is None] == [], log
    names = sorted({str(row["batch"]) for row in rows})
    lives = accounted(slurm, names)
    arrays = {name: {life.task.partition("_")[0] for life in lives[name]} for name in names}
    assert all(len(found) <= 1 for found in arrays.values()), (arrays, log)
    for row in rows:
        if row["job"] is not None:
            assert arrays[str(row["batch"])] <= {str(row["job"])}, (row, log)
    jobs: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        mine = [life for life in lives[str(row["batch"])] if life.task == f"{row['job']}_{row['idx']}"]
        if mine:
            whole = min(life.submitted for life in mine), max(life.end for life in mine)
            jobs.setdefault(str(row["partition"]), []).append(whole)
    for partition, found in jobs.items():
        for first, second in combinations(sorted(found), 2):
            assert first[1] <= second[0] + SLACK_S, (partition, first, second, log)


def nobody_works(project: Project, log: list[str]) -> None:
    assert wait(lambda: not workers(project), 30), (workers(project), log)


def ghosts(slurm: Slurm) -> int:
    """What Slurm still lists though nothing works on it, and then forgets: a killed controller started ended tasks
    again, in vain. Gives how many; after it, its queue is empty."""
    queued = ("squeue", "-h", "-r", "-o", "%i")
    if wait(lambda: not slurm.command(*queued), 10):
        return 0
    found = len(slurm.command(*queued).split())
    slurm.calm()
    return found


def accounted(slurm: Slurm, names: list[str]) -> dict[str, list[Life]]:
    """Of each batch by its name: every time that a task of it ran, when accounting has all of them."""
    columns = "--format=JobName,JobID,State,Submit,End"

    def lines() -> list[list[str]]:
        said = slurm.command("sacct", "--duplicates", "-X", "-n", "-P", f"--name={','.join(names)}", columns)
        return [line.split("|") for line in said.splitlines()]

    wait(lambda: all(line[4] != "Unknown" for line in lines()), 10)
    found: dict[str, list[Life]] = {name: [] for name in names}
    for name, task, state, *times in lines():
        # nothing is queued: one without an end was lost by a killed controller before it had written it down
        moments = [datetime.fromisoformat(text).timestamp() for text in times if text != "Unknown"]
        found[name].append(Life(task, state.split(" ")[0], moments[0], moments[-1]))
    return found


def dagster_knows(project: Project, names: list[str], log: list[str]) -> None:
    """Every partition is materialized there too, and no run is believed to go on."""
    known, active = told(project)
    assert (known, active) == (set(names), []), log
