"""⑥ What the catalog says of a person beyond what a tombstone needs: taken out of its tables, and of its events."""

import json
from collections.abc import Iterable
from typing import Any

from sqlalchemy import delete, select, update

from ctcore.catalog.chain import redact
from ctcore.catalog.declared import applied, enforce, relax
from ctcore.catalog.engine import Writer, in_keys
from ctcore.catalog.tables import (
    attempt,
    digest_memory,
    edge,
    entity,
    event,
    file,
    materialization,
    member,
    output,
    result,
    waiver,
)
from ctcore.digest import canonical
from ctcore.project import Project
from ctcore.purging.inside import Inside, gathering
from ctcore.reasons import Node, name_of
from ctcore.step import ENTITY_LEVELS

GONE = "purged"  # in the place of a text that was a person's
_ROLES = "member-role: "  # in the reason of a making that was made because roles had changed


def take_out(project: Project, writer: Writer, found: Inside, numbers: Iterable[int], purge: int) -> dict[str, str]:
    """Blank a person's attributes, results and errors, and all values in these makings, also of others: who is purged
    after them is in no tombstone. Returns what was redacted of the events.

    IDs, digests, sizes and times stay: without them a tombstone proves nothing.
    """
    writer.overwrite()
    mine = _entities(writer, found.own)
    levels = applied(writer.connection)
    relax(writer.connection)  # a column may be declared as required
    blank = update(entity).where(in_keys(entity.c.seq, mine))
    writer.execute(blank.values(attributes="{}", purged=purge))
    if levels is not None:
        enforce(writer.connection, levels)
    made = update(materialization).where(in_keys(materialization.c.id, numbers))
    writer.execute(made.values(facts="{}", undeclared=None))  # paths may name people
    writer.execute(made.where(materialization.c.reason.contains(_ROLES)).values(reason=GONE))
    value = edge.c.asset.in_(ENTITY_LEVELS) & edge.c.input.contains(".")
    inside = in_keys(edge.c.materialization, numbers)
    writer.execute(update(edge).where(value, inside).values(version=canonical(GONE).decode()))
    writer.execute(update(member).where(in_keys(member.c.materialization, numbers)).values(role=GONE))
    writer.execute(delete(result).where(in_keys(result.c.entity, mine)))
    _forget_roles(writer, found)
    _forget_digests(project, writer, mine, numbers)
    _forget_errors(project, writer, found)
    return redact(
        writer.connection, {**_bodies(project, writer, found, mine), **_said_of_roles(writer, found, numbers)}
    )


def _entities(writer: Writer, own: Iterable[Node]) -> set[int]:
    wanted = set(own)
    columns = (entity.c.seq, entity.c.level, entity.c.id)
    rows = writer.execute(select(*columns).where(in_keys(entity.c.id, {who for _, who in wanted})))
    return {seq for seq, level, who in rows if (level, who) in wanted}


def _by_level(own: Iterable[Node]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for level, who in own:
        found.setdefault(level, set()).add(who)
    return found


def _of_role(words: str, own: set[str]) -> str:
    """What was accepted of somebody's role, without the role where it is one of these."""
    whose = words.partition(" ")[0]
    return f"{whose} {GONE}" if whose in own else words


def _forget_roles(writer: Writer, found: Inside) -> None:
    """Roles are values of columns, and are said where one has changed."""
    own = set(map(name_of, found.own))
    said = select(waiver.c.words).where(waiver.c.kind == "member-role").distinct()
    for words in writer.execute(said).scalars().all():
        if (kept := _of_role(words, own)) != words:
            writer.execute(update(waiver).where(waiver.c.words == words).values(words=kept))


def _said_of_roles(writer: Writer, found: Inside, numbers: Iterable[int]) -> dict[int, str]:
    """The events that say so: of accepting it, and of making one anew for it."""
    own, makings = set(map(name_of, found.own)), set(numbers)
    bodies: dict[int, str] = {}
    told = select(event.c.seq, event.c.kind, event.c.body).where(event.c.kind.in_(("accept", "materialize")))
    for number, kind, body in writer.execute(told.where(event.c.body.contains("member-role"))):
        said = json.loads(body)
        if kind == "accept":
            kept = {**said, "words": _of_role(said["words"], own)} if said["kind"] == "member-role" else said
        else:
            kept = {**said, "reason": GONE} if said["materialization"] in makings and _ROLES in said["reason"] else said
        if kept != said:
            bodies[number] = canonical(kept).decode()
    return bodies


def _forget_digests(project: Project, writer: Writer, seqs: set[int], numbers: Iterable[int]) -> None:
    """The memory of what was read; also that of other checksums, whose paths have the algorithm in front."""
    paths = set(writer.execute(select(file.c.path).where(in_keys(file.c.entity, seqs))).scalars())
    made = output.join(materialization, materialization.c.id == output.c.materialization)
    columns = select(materialization.c.folder, output.c.file).select_from(made)
    rows = writer.execute(columns.where(in_keys(output.c.materialization, numbers)))
    paths |= {project.recorded(f"{project.store.root}/{folder}/{name}") for folder, name in rows}
    every = [*paths, *(f"{kind}:{path}" for kind in ("md5", "sha256") for path in paths)]
    writer.execute(digest_memory.delete().where(in_keys(digest_memory.c.path, every)))


def _own_steps(project: Project, found: Inside) -> dict[str, set[str]]:
    """Step → the person's IDs at its level."""
    by_level = _by_level(found.own)
    return {step.name: by_level[step.level] for step in project.steps if step.level in by_level}


def _forget_errors(project: Project, writer: Writer, found: Inside) -> None:
    """Of failed calls: all that those of the person's nodes said, and what names the person elsewhere."""
    for step, who in _own_steps(project, found).items():
        mine = (attempt.c.asset == step) & in_keys(attempt.c.partition, who)
        writer.execute(update(attempt).where(mine).values(error=GONE, log=None))
    others = select(attempt.c.id, attempt.c.error).where(attempt.c.asset.in_(gathering(project.steps)))
    naming = [number for number, error in writer.execute(others) if found.any_id.search(error)]
    writer.execute(update(attempt).where(in_keys(attempt.c.id, naming)).values(error=GONE))


def _bodies(project: Project, writer: Writer, found: Inside, seqs: set[int]) -> dict[int, str]:
    """The events that say something of the person which goes, with what they say without it."""
    bodies: dict[int, str] = {}
    own_names = set(map(name_of, found.own))
    kept = select(event.c.seq, event.c.kind, event.c.body).where(event.c.kind.in_(("register", "record")))
    for number, kind, body in writer.execute(kept):
        said = json.loads(body)
        if _blanked(said, seqs) if kind == "register" else _emptied(said, own_names):
            bodies[number] = canonical(said).decode()
    own, many = _own_steps(project, found), gathering(project.steps)
    failed = select(event.c.seq, event.c.subject, event.c.body).where(event.c.kind == "fail")
    for number, subject, body in writer.execute(failed):
        said, (step, _, who) = json.loads(body), subject.partition("/")
        theirs = who in own.get(step, ()) or (step in many and found.any_id.search(said["error"]))
        if theirs and said["error"] != GONE:
            log = {"log": None} if who in own.get(step, ()) and "log" in said else {}
            bodies[number] = canonical({**said, "error": GONE, **log}).decode()
    return bodies


def _blanked(said: dict[str, Any], seqs: set[int]) -> bool:
    """Take the attributes of these entities out of what an event says; whether there were any."""
    found = False
    for row in [*said.get("new", ()), *said.get("changed", ())]:
        if row.get("seq", row.get("b_seq")) in seqs and row["attributes"] != "{}":
            row["attributes"], found = "{}", True
    before = said.get("before", {})
    for seq in [seq for seq in before if int(seq) in seqs and before[seq]]:
        before[seq], found = {}, True
    return found


def _emptied(said: dict[str, Any], own: set[str]) -> bool:
    """The same with the values of results that were recorded."""
    theirs = [one for one in said["results"] if one["entity"] in own and one["values"]]
    for one in theirs:
        one["values"] = {}
    return bool(theirs)
