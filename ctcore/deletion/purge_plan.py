"""What a purge would do, before it does it: what goes, what is to be made again, what stays for others' sake."""

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, select

from ctcore.catalog.engine import in_keys
from ctcore.catalog.group_commit import is_awaited
from ctcore.catalog.tables import entity, lease, output, slurm_batch, slurm_job
from ctcore.deletion.copies import Copy, unowned_copies
from ctcore.deletion.leftovers import Leftovers, raw_files, raw_rows
from ctcore.deletion.redact import remaining_values
from ctcore.deletion.tombstone_check import differing_tombstones
from ctcore.errors import Usage
from ctcore.governance.access import current_consents, status_on
from ctcore.governance.consent import TAKEN_BACK
from ctcore.governance.hints import not_found
from ctcore.governance.masking import UNMASKED
from ctcore.lineage.containment import Containment, cohort_derived_steps, containment_of
from ctcore.lineage.walk import Making
from ctcore.model.node import Node, name_of
from ctcore.project import Project
from ctcore.projects.leases import living_processes
from ctcore.store.folder_content import LISTED
from ctcore.util.clock import today

REMOVING = ("remove", "take out", "write anew")
"""Actions of a row by which something goes; the others name what stays, or is to be made again."""
_MAY_CONTAIN = "may contain the patient, as what it was made from is lost: `ct run` before the purge tells"


@dataclass(frozen=True)
class PurgePlanRow:
    """One line of a plan: what is done with what; so many makings or files, so many bytes; not of a single raw file."""

    action: str
    what: str
    number: int
    size: int | None
    why: str


@dataclass
class PurgePlan:
    """What a purge of a patient finds. `makings` have to go; `again` are nodes that are missing then."""

    patient: str
    found: Containment
    makings: Mapping[int, Making]
    own: set[int]
    files: Mapping[int, Mapping[str, tuple[int, str]]]
    leftovers: Sequence[Path] = ()
    raw: Sequence[dict[str, Any]] = ()
    again: Sequence[Node] = ()
    said: Sequence[tuple[str, str]] = ()  # what the catalog says of them still
    lying: Sequence[Copy] = ()  # what lies somewhere else
    unlike: Sequence[int] = ()  # lines of the journal that are not the catalog's
    rows: list[PurgePlanRow] = field(default_factory=list)

    def __bool__(self) -> bool:
        """Whether there is anything to remove; the saved mirror is there again after every evaluation."""
        left = self.makings or self.said or self.unlike or any(path.name != "mirror" for path in self.leftovers)
        return bool(left or any(one.by in ("purge", "dagster") for one in self.lying))


def plan(project: Project, patient: str, raw: bool = False) -> PurgePlan:
    """What `purge` would do now. Usage error where it would be refused."""
    with project.catalog.read() as connection:
        found = plan_purge(project, connection, patient)
        found.lying = unowned_copies(project, connection, found.found, patient)
        found.unlike = project.catalog.journal.differing_lines(connection)
        found.rows = _rows(project, connection, found, raw)
    return found


def plan_purge(project: Project, connection: Connection, patient: str) -> PurgePlan:
    check_consent(project, connection, patient)
    found = containment_of(project, connection, patient)
    left = Leftovers(project, connection, found)
    makings = found.left
    own = {number for number, one in makings.items() if left.is_own(one.asset, one.partition)}
    again = [one.node for number, one in makings.items() if one.current and number not in own]
    files = _files(connection, makings)
    raw = raw_files(raw_rows(connection, found), project)
    said = [
        *remaining_values(project, connection, found),
        *((str(one), "") for one in differing_tombstones(connection, found.gone)),
    ]
    return PurgePlan(patient, found, makings, own, files, left.paths(), raw, again, said)


def is_revoked(connection: Connection, patient: str) -> bool:
    """Whether a patient has revoked or withdrawn their consent, as it stands today."""
    numbers = connection.execute(select(entity.c.seq).where(entity.c.level == "patient", entity.c.id == patient))
    return any(row.status in TAKEN_BACK for row in current_consents(connection, numbers.scalars().all()))


def check_consent(project: Project, connection: Connection, patient: str) -> None:
    """Usage error unless the patient has taken their consent back: only they end it for good."""
    rows = connection.execute(select(entity.c.seq, entity.c.level).where(entity.c.id == patient)).all()
    numbers = {level: seq for seq, level in rows}
    if "patient" not in numbers and numbers:
        level = next(iter(numbers))
        raise Usage(f"{patient} is a {level}; consent is a patient's, and so is its end: `ct purge PATIENT`")
    if not numbers:
        raise not_found(project, "patient", patient)
    said = next((status_on(row, today()) for row in current_consents(connection, [numbers["patient"]])), None)
    if said not in TAKEN_BACK:
        raise Usage(
            f"patient {patient}: consent is {said or 'not taken back'}; only what a patient has revoked or withdrawn "
            f"is purged: `ct consent set {patient} revoked --form TEXT` says so first"
        )


def check_idle(project: Project, connection: Connection, found: Containment) -> None:
    """What runs meanwhile may have the person inside, and would be recorded after the purge."""
    held = connection.execute(select(lease.c.asset, lease.c.partition, lease.c.owner, lease.c.job)).all()
    alive = living_processes(project, [name for row in held for name in (row.owner, row.job)])
    busy = {(row.asset, row.partition) for row in held if row.owner in alive or row.job in alive}
    joined = select(slurm_batch.c.asset, slurm_job.c.partition).join(slurm_job, slurm_job.c.batch == slurm_batch.c.id)
    rows = connection.execute(joined.where(slurm_job.c.ended_at.is_(None)))
    busy |= {(row.asset, row.partition) for row in rows}
    many, affected = cohort_derived_steps(project.steps), {one.node for one in found.makings.values()}
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


def _rows(project: Project, connection: Connection, plan: PurgePlan, raw: bool) -> list[PurgePlanRow]:
    removed, again = _removed(project, plan), _again(project, plan)
    return [*removed, *_put_back(plan), *_named(plan, raw), *again, *_kept(connection, plan)]


def _removed(project: Project, plan: PurgePlan) -> Iterable[PurgePlanRow]:
    by_step: dict[tuple[str, str], list[Making]] = defaultdict(list)
    for number, one in plan.makings.items():
        inside = _MAY_CONTAIN if number in plan.found.unsure else "contains the patient"
        by_step[one.asset, "the patient's own" if number in plan.own else inside].append(one)
    for (step, why), some in by_step.items():
        before = sum(1 for one in some if not one.current)
        earlier = f", {before} of them earlier makings" if before else ""
        yield PurgePlanRow("remove", step, len(some), sum(one.size for one in some), why + earlier)
    kinds: dict[str, list[Path]] = defaultdict(list)
    for path in plan.leftovers:
        if path.name == "mirror" and not plan:  # it is there again after every evaluation, and has nobody in it
            continue
        listed = path.is_relative_to(project.store.root / LISTED)
        kinds[f"store/{LISTED}" if listed else path.relative_to(project.root).parts[0]].append(path)
    why = {"store": "staged or published, in no making", "work": "calls, logs and the saved mirror"}
    why[f"store/{LISTED}"] = "lists of what is in raw folders"
    for kind, some in kinds.items():
        yield PurgePlanRow("remove", kind, len(some), sum(map(size_of, some)), why.get(kind, ""))


def _put_back(plan: PurgePlan) -> Iterable[PurgePlanRow]:
    """What nobody looks for in its place: rows and lines that were changed by hand, copies of files."""
    if plan.found.gone and (places := [place for place, _ in plan.said]):
        yield PurgePlanRow("take out", "rows and events of the catalog", len(places), None, f"{places[0]}, …")
    if plan.unlike:
        yield PurgePlanRow("write anew", "provenance.jsonl", len(plan.unlike), None, "lines that are not the catalog's")
    for one in plan.lying:
        action = {"purge": "remove", "dagster": "take out"}.get(one.by, "name")
        yield PurgePlanRow(action, one.path, 1, None, one.words(plan.patient) if action == "name" else one.what)


def _named(plan: PurgePlan, raw: bool) -> Iterable[PurgePlanRow]:
    for one in plan.raw:
        goes = one["inside"] and raw
        kind = "raw folder" if one["folder"] else "raw file"
        where = "inside the project"
        if not one["inside"]:
            where = "outside of the project: yours to remove"
            where = "that has files of others, too: yours to take apart" if one["mixed"] else where
        hint = "" if raw or not one["inside"] else "; --raw removes it"
        if one["there"]:
            yield PurgePlanRow("remove" if goes else "name", one["path"], 1, None, f"{kind} {where}{hint}")


def _again(project: Project, plan: PurgePlan) -> Iterable[PurgePlanRow]:
    for node in plan.again:
        gone = "" if node[0] in project.steps else ": its step is no longer declared"
        is_adopted = node[0] in project.steps and project.steps[node[0]].made_elsewhere
        way = f"it is {project.steps[node[0]].way_to(node[1])}" if is_adopted else "by `ct run`"
        yield PurgePlanRow("make again", name_of(node), 1, 0, f"without the patient, {way}{gone}")


def _kept(connection: Connection, plan: PurgePlan) -> Iterable[PurgePlanRow]:
    for one in plan.found.spared.values():
        why = "only from content that was also made without the patient"
        yield PurgePlanRow("keep", f"{name_of(one.node)}@{one.id}", 1, one.size, why)
    for node, said in plan.found.moved.items():
        yield PurgePlanRow("keep", name_of(node), 1, 0, f"{UNMASKED.mask_words(said)}, and is another patient's")
    digests = {digest for some in plan.files.values() for _, digest in some.values()}
    same = in_keys(output.c.digest, digests)
    mine = in_keys(output.c.materialization, plan.found.makings)
    sizes = connection.execute(select(output.c.size).where(same, ~mine)).scalars().all()
    if sizes:
        yield PurgePlanRow("keep", "files of others", len(sizes), sum(sizes), "have the same bytes as some that go")


def size_of(path: Path) -> int:
    """The bytes of a file, or of all in a folder."""
    if not path.is_dir():
        return path.lstat().st_size
    return sum(os.lstat(os.path.join(at, name)).st_size for at, _, names in os.walk(path) for name in names)
