"""A step's history in the ledger: the cost of one making, how often another call gave other content, and today's
spending. Nothing is guessed: a step without history has no cost."""

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

from sqlalchemy import and_, case, func, select

from ctcore.catalog.tables import attempt, materialization, slurm_batch, slurm_job
from ctcore.execution.slurm.jobs import MADE
from ctcore.project import Project

RECENT = 200  # makings of a step that an estimate rests on; older ones may be of other data and other code
HOUR_S = 3600


@dataclass(frozen=True)
class Cost:
    """One making of a step: medians over its last `runs` makings. None: it was never made."""

    runs: int = 0
    seconds: float | None = None
    core_seconds: float | None = None


@dataclass(frozen=True)
class Remakings:
    """How often a node was made again: by another call, and which of those gave other content; by the same call too."""

    other_call: int = 0
    gave_other: int = 0
    same_call: int = 0
    differed: int = 0

    @property
    def share(self) -> float | None:
        """Of the re-makings by another call, those with other content. None: there was none yet."""
        return self.gave_other / self.other_call if self.other_call else None

    @property
    def share_of_same(self) -> float | None:
        """The same share for calls repeated because their bytes were lost."""
        return self.differed / self.same_call if self.same_call else None


@dataclass(frozen=True)
class Spending:
    """All makings since a time, by anybody. Failed calls count as nodes; only Slurm knows their time."""

    nodes: int
    core_hours: float


def costs(project: Project, steps: Iterable[str]) -> dict[str, Cost]:
    """The cost of one making of each step: one statement per step, over its latest makings."""
    found = {}
    with project.catalog.read() as connection:
        for name in steps:
            made = (
                select(materialization.c.id, materialization.c.key, materialization.c.seconds)
                .where(materialization.c.asset == name)
                .order_by(materialization.c.id.desc())
                .limit(RECENT)
                .subquery()
            )
            there = made.outerjoin(slurm_job, and_(slurm_job.c.key == made.c.key, slurm_job.c.why == MADE))
            rows = connection.execute(
                select(made.c.id, made.c.seconds, slurm_job.c.elapsed_s, slurm_batch.c.cpus)
                .select_from(there.outerjoin(slurm_batch, slurm_batch.c.id == slurm_job.c.batch))
                .order_by(made.c.id, slurm_job.c.ended_at)
            )
            cpus = project.steps[name].resources.cpus or 1
            # A call may have several jobs, as it is made again after a loss: they come in order, and the last to end is
            # kept.
            took = {row.id: (row.elapsed_s or row.seconds, row.cpus or cpus) for row in rows}
            found[name] = _cost(list(took.values()))
    return found


def _cost(took: list[tuple[float, int]]) -> Cost:
    if not took:
        return Cost()
    return Cost(len(took), median(s for s, _ in took), median(s * cpus for s, cpus in took))


def changes(project: Project, steps: Iterable[str]) -> dict[str, Remakings]:
    """How often making a node of these steps again gave other content: one statement."""
    names = list(steps)
    made = materialization.c
    before = {"partition_by": [made.asset, made.partition], "order_by": made.id}
    pairs = (
        select(
            made.asset,
            made.key,
            made.data_version,
            func.lag(made.key).over(**before).label("key_before"),
            func.lag(made.data_version).over(**before).label("version_before"),
        )
        .where(made.asset.in_(names))
        .subquery()
    )
    same, other = pairs.c.key == pairs.c.key_before, pairs.c.data_version != pairs.c.version_before
    counted = (
        select(
            pairs.c.asset,
            func.count(case((~same, 1))).label("other_call"),
            func.count(case((and_(~same, other), 1))).label("gave_other"),
            func.count(case((same, 1))).label("same_call"),
            func.count(case((and_(same, other), 1))).label("differed"),
        )
        .where(pairs.c.key_before.is_not(None))
        .group_by(pairs.c.asset)
    )
    with project.catalog.read() as connection:
        found = {
            row.asset: Remakings(row.other_call, row.gave_other, row.same_call, row.differed)
            for row in connection.execute(counted)
        }
    return {name: found.get(name, Remakings()) for name in names}


def spending_since(project: Project, since: str) -> Spending:
    """Makings and failures since this time (UTC). What is made elsewhere cost nothing here."""
    here, there = materialization.c, slurm_job.c
    elsewhere = [step.name for step in project.steps if step.made_elsewhere]
    with project.catalog.read() as connection:
        # Time on Slurm is counted by its jobs below, failed ones too; a making's own seconds would count it twice.
        on_slurm = select(there.key).where(there.why == MADE)
        local = connection.execute(
            select(here.asset, func.count(), func.sum(case((here.key.in_(on_slurm), 0.0), else_=here.seconds)))
            .where(here.started_at >= since, here.asset.not_in(elsewhere))
            .group_by(here.asset)
        ).all()
        jobs = select(func.sum(there.elapsed_s * slurm_batch.c.cpus)).join(slurm_batch, slurm_batch.c.id == there.batch)
        core_seconds = connection.execute(jobs.where(there.ended_at >= since)).scalar() or 0.0
        failed = connection.execute(
            select(func.count()).select_from(attempt).where(attempt.c.ended_at >= since)
        ).scalar_one()
    for asset, _, seconds in local:
        cpus = project.steps[asset].resources.cpus or 1 if asset in project.steps else 1
        core_seconds += seconds * cpus
    return Spending(sum(row[1] for row in local) + failed, core_seconds / HOUR_S)
