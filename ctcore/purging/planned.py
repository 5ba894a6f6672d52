"""⑥ What a purge would do, before it does it: what goes, what is to be made again, what stays for others' sake."""

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, select

from ctcore.catalog.engine import in_keys
from ctcore.catalog.tables import entity, lease, output, slurm_batch, slurm_job
from ctcore.catalog.together import is_awaited
from ctcore.clock import today
from ctcore.consent import TAKEN_BACK
from ctcore.errors import Usage
from ctcore.leases import living
from ctcore.lineage import Making
from ctcore.nodes import no_such
from ctcore.policy import standing, status_on
from ctcore.project import Project
from ctcore.purging.copies import Copy, lying
from ctcore.purging.inside import Inside, gathering, inside
from ctcore.purging.leftovers import Leftovers, raw_files, raw_rows
from ctcore.purging.redaction import still_said
from ctcore.purging.stones import differing
from ctcore.reasons import Node, name_of
from ctcore.veil import UNVEILED


@dataclass(frozen=True)
class Row:
    """One line of a plan: what is done with what; so many makings or files, so many bytes; not of a single raw file."""

    action: str
    what: str
    number: int
    size: int | None
    why: str


@dataclass
class Plan:
    """What a purge of a patient finds. `makings` have to go; `again` are nodes that are missing then."""

    patient: str
    found: Inside
    makings: Mapping[int, Making]
    own: set[int]
    files: Mapping[int, Mapping[str, tuple[int, str]]]
    leftovers: Sequence[Path] = ()
    raw: Sequence[dict[str, Any]] = ()
    again: Sequence[Node] = ()
    said: Sequence[tuple[str, str]] = ()  # what the catalog says of them still
    lying: Sequence[Copy] = ()  # what lies somewhere else
    unlike: Sequence[int] = ()  # lines of the journal that are not the catalog's
    rows: list[Row] = field(default_factory=list)

    def __bool__(self) -> bool:
        """Whether there is anything to remove; the saved mirror is there again after every evaluation."""
        left = self.makings or self.said or self.unlike or any(path.name != "mirror" for path in self.leftovers)
        return bool(left or any(one.by in ("purge", "dagster") for one in self.lying))


def plan(project: Project, patient: str, raw: bool = False) -> Plan:
    """What `purge` would do now. Usage error where it would be refused."""
    with project.catalog.read() as connection:
        found = planned(project, connection, patient)
        found.lying = lying(project, connection, found.found, patient)
        found.unlike = project.catalog.journal.unlike(connection)
        found.rows = _rows(project, connection, found, raw)
    return found


def planned(project: Project, connection: Connection, patient: str) -> Plan:
    check_consent(project, connection, patient)
    found = inside(project, connection, patient)
    left = Leftovers(project, connection, found)
    makings = found.left
    own = {number for number, one in makings.items() if left.is_own(one.asset, one.partition)}
    again = [one.node for number, one in makings.items() if one.current and number not in own]
    files = _files(connection, makings)
    raw = raw_files(raw_rows(connection, found), project)
    said = [*still_said(project, connection, found), *((str(one), "") for one in differing(connection, found.gone))]
    return Plan(patient, found, makings, own, files, left.paths(), raw, again, said)


def is_taken_back(connection: Connection, patient: str) -> bool:
    """Whether a patient has revoked or withdrawn their consent, as it stands today."""
    numbers = connection.execute(select(entity.c.seq).where(entity.c.level == "patient", entity.c.id == patient))
    return any(row.status in TAKEN_BACK for row in standing(connection, numbers.scalars().all()))


def check_consent(project: Project, connection: Connection, patient: str) -> None:
    """Usage error unless the patient has taken their consent back: only they end it for good."""
    rows = connection.execute(select(entity.c.seq, entity.c.level).where(entity.c.id == patient)).all()
    numbers = {level: seq for seq, level in rows}
    if "patient" not in numbers and numbers:
        level = next(iter(numbers))
        raise Usage(f"{patient} is a {level}; consent is a patient's, and so is its end: `ct purge PATIENT`")
    if not numbers:
        raise no_such(project, "patient", patient)
    said = next((status_on(row, today()) for row in standing(connection, [numbers["patient"]])), None)
    if said not in TAKEN_BACK:
        raise Usage(
            f"patient {patient}: consent is {said or 'not taken back'}; only what a patient has revoked or withdrawn "
            f"is purged: `ct consent set {patient} revoked --form TEXT` says so first"
        )


def check_idle(project: Project, connection: Connection, found: Inside) -> None:
    """What runs meanwhile may have the person inside, and would be recorded after the purge."""
    held = connection.execute(select(lease.c.asset, lease.c.partition, lease.c.owner, lease.c.job)).all()
    alive = living(project, [name for row in held for name in (row.owner, row.job)])
    busy = {(row.asset, row.partition) for row in held if row.owner in alive or row.job in alive}
    joined = select(slurm_batch.c.asset, slurm_job.c.partition).join(slurm_job, slurm_job.c.batch == slurm_batch.c.id)
    rows = connection.execute(joined.where(slurm_job.c.ended_at.is_(None)))
    busy |= {(row.asset, row.partition) for row in rows}
    many, affected = gathering(project.steps), {one.node for one in found.makings.values()}
    levels = {step.name: step.level for step in project.steps}
    mine = {n for n in busy if n in affected or n[0] in many or (levels.get(n[0]), n[1]) in found.own}
    if mine:
        listed = ", ".join(map(name_of, sorted(mine)[:3])) + ", …" * (len(mine) > 3)
        raise Usage(f"{listed}: being made now, and may contain the patient; wait until it has ended, or end it")
    for path in Leftovers(project, connection, found).asked():
        if is_awaited(path):
            raise Usage(f"{project.recorded(path)}: is about to be recorded, and may contain the patient; try again")


def _files(connection: Connection, ids: Iterable[int]) -> dict[int, dict[str, tuple[int, str]]]:
    found: dict[int, dict[str, tuple[int, str]]] = defaultdict(dict)
    rows = select(output).where(in_keys(output.c.materialization, ids))
    for row in connection.execute(rows.order_by(output.c.materialization, output.c.file)):
        found[row.materialization][row.file] = (row.size, row.digest)
    return found


def _rows(project: Project, connection: Connection, plan: Plan, raw: bool) -> list[Row]:
    removed, again = _removed(project, plan), _again(project, plan)
    return [*removed, *_put_back(plan), *_named(plan, raw), *again, *_kept(connection, plan)]


def _removed(project: Project, plan: Plan) -> Iterable[Row]:
    by_step: dict[tuple[str, bool], list[Making]] = defaultdict(list)
    for number, one in plan.makings.items():
        by_step[one.asset, number in plan.own].append(one)
    for (step, own), some in by_step.items():
        before = sum(1 for one in some if not one.current)
        why = "the patient's own" if own else "contains the patient"
        earlier = f", {before} of them earlier makings" if before else ""
        yield Row("remove", step, len(some), sum(one.size for one in some), why + earlier)
    kinds: dict[str, list[Path]] = defaultdict(list)
    for path in plan.leftovers:
        kinds[path.relative_to(project.root).parts[0]].append(path)
    why = {"store": "staged or published, in no making", "work": "calls, logs and the saved mirror"}
    for kind, some in kinds.items():
        yield Row("remove", kind, len(some), sum(map(size_of, some)), why.get(kind, ""))


def _put_back(plan: Plan) -> Iterable[Row]:
    """What nobody looks for in its place: rows and lines that were changed by hand, copies of files."""
    if plan.found.gone and (places := [place for place, _ in plan.said]):
        yield Row("take out", "rows and events of the catalog", len(places), None, f"{places[0]}, …")
    if plan.unlike:
        yield Row("write anew", "provenance.jsonl", len(plan.unlike), None, "lines that are not the catalog's")
    for one in plan.lying:
        action = {"purge": "remove", "dagster": "take out"}.get(one.by, "name")
        yield Row(action, one.path, 1, None, one.words(plan.patient) if action == "name" else one.what)


def _named(plan: Plan, raw: bool) -> Iterable[Row]:
    for one in plan.raw:
        goes = one["inside"] and raw
        where = "raw file inside the project" if one["inside"] else "raw file outside of the project: yours to remove"
        hint = "" if raw or not one["inside"] else "; --raw removes it"
        if one["there"]:
            yield Row("remove" if goes else "name", one["path"], 1, None, where + hint)


def _again(project: Project, plan: Plan) -> Iterable[Row]:
    for node in plan.again:
        gone = "" if node[0] in project.steps else ": its step is no longer declared"
        yield Row("make again", name_of(node), 1, 0, "without the patient, by `ct run`" + gone)


def _kept(connection: Connection, plan: Plan) -> Iterable[Row]:
    for one in plan.found.spared.values():
        why = "only from content that was also made without the patient"
        yield Row("keep", f"{name_of(one.node)}@{one.id}", 1, one.size, why)
    for node, said in plan.found.moved.items():
        yield Row("keep", name_of(node), 1, 0, f"{UNVEILED.told(said)}, and is another patient's")
    digests = {digest for some in plan.files.values() for _, digest in some.values()}
    same = in_keys(output.c.digest, digests)
    mine = in_keys(output.c.materialization, plan.found.makings)
    sizes = connection.execute(select(output.c.size).where(same, ~mine)).scalars().all()
    if sizes:
        yield Row("keep", "files of others", len(sizes), sum(sizes), "have the same bytes as some that go")


def size_of(path: Path) -> int:
    """The bytes of a file, or of all in a folder."""
    if not path.is_dir():
        return path.lstat().st_size
    return sum(os.lstat(os.path.join(at, name)).st_size for at, _, names in os.walk(path) for name in names)
