"""⑥ What events say of a person, and what they say without: in the catalog, in its journal, and in copies of these."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, select

from ctcore.catalog.chain import REDACTED, event_digest
from ctcore.catalog.engine import in_keys
from ctcore.catalog.tables import event
from ctcore.digest import canonical
from ctcore.reasons import Node, name_of

GONE = "purged"  # in the place of a text that was a person's
ROLES = "member-role: "  # in the reason of a making that was made because roles had changed
NOBODY = re.compile(r"(?!)")
_QC = ("warn", "censor", "warn-resolved", "release")
_KINDS = ("register", "record", "fail", "accept", "materialize", *_QC)


@dataclass(frozen=True)
class Whose:
    """Of whom something is taken out. `makings` contain them; `steps` have some of their IDs as nodes; of the steps
    `many` the name of a node does not tell who is inside."""

    own: frozenset[Node]
    seqs: frozenset[int]
    makings: frozenset[int]
    steps: Mapping[str, frozenset[str]] = field(default_factory=dict)
    many: frozenset[str] = frozenset()
    any_id: re.Pattern[str] = NOBODY

    @property
    def names(self) -> set[str]:
        return set(map(name_of, self.own))


def without(whose: Whose, kind: str, subject: str, body: str) -> str | None:
    """What an event says without the person; None where it says nothing of them that goes."""
    said = json.loads(body)
    if kind == "register":
        changed = _blanked(said, whose.seqs)
    elif kind == "record":
        changed = _emptied(said["results"], whose.names)
    elif kind == "fail":
        changed = _silenced(said, subject, whose)
    elif kind in _QC:
        changed = _unreasoned(said["events"], whose.names)
    else:
        changed = _roleless(said, kind, whose)
    return canonical(said).decode() if changed else None


def _blanked(said: dict[str, Any], seqs: frozenset[int]) -> bool:
    """Take the attributes of these entities out of what an event says; whether there were any."""
    found = False
    for row in [*said.get("new", ()), *said.get("changed", ())]:
        if row.get("seq", row.get("b_seq")) in seqs and row["attributes"] != "{}":
            row["attributes"], found = "{}", True
    before = said.get("before", {})
    for seq in [seq for seq in before if int(seq) in seqs and before[seq]]:
        before[seq], found = {}, True
    return found


def _emptied(results: Iterable[dict[str, Any]], own: set[str]) -> bool:
    """The same with the values of results that were recorded."""
    theirs = [one for one in results if one["entity"] in own and one["values"]]
    for one in theirs:
        one["values"] = {}
    return bool(theirs)


def _unreasoned(events: Iterable[dict[str, Any]], own: set[str]) -> bool:
    """The same with the texts of QC: what a step or a result said of them, and what people wrote."""
    theirs = [one for one in events if one["name"] in own and one["reason"] != GONE]
    for one in theirs:
        one["reason"] = GONE
    return bool(theirs)


def _silenced(said: dict[str, Any], subject: str, whose: Whose) -> bool:
    """The same with what failed calls said: those of the person's nodes, and what names the person elsewhere."""
    step, _, who = subject.partition("/")
    own = who in whose.steps.get(step, ())
    if said["error"] == GONE or not (own or (step in whose.many and whose.any_id.search(said["error"]))):
        return False
    said |= {"error": GONE} | ({"log": None} if own and "log" in said else {})
    return True


def _roleless(said: dict[str, Any], kind: str, whose: Whose) -> bool:
    """The same with roles: values of columns, told where a difference of them was accepted or led to a making."""
    if kind == "accept" and said["kind"] == "member-role":
        kept = role_less(said["words"], whose.names)
        changed, said["words"] = kept != said["words"], kept
        return changed
    if kind == "materialize" and said.get("materialization") in whose.makings and ROLES in said["reason"]:
        said["reason"] = GONE
        return True
    return False


def role_less(words: str, own: set[str]) -> str:
    """What was accepted of somebody's role, without the role where it is one of these."""
    who = words.partition(" ")[0]
    return f"{who} {GONE}" if who in own else words


def told(connection: Connection, whose: Whose) -> dict[int, str]:
    """The events of the catalog that say something of the person which goes, with what they say without it."""
    columns = (event.c.seq, event.c.kind, event.c.subject, event.c.body)
    rows = connection.execute(select(*columns).where(event.c.kind.in_(_KINDS), _may_tell()))
    found = ((number, without(whose, kind, subject, body)) for number, kind, subject, body in rows)
    return {number: body for number, body in found if body is not None}


def _may_tell() -> Any:
    """Of events of makings and of what was accepted, only those of roles can."""
    of_roles = event.c.kind.in_(("accept", "materialize")) & event.c.body.contains("member-role")
    return of_roles | event.c.kind.not_in(("accept", "materialize"))


# What purges took out of events, and vouched for


Purges = Sequence[Mapping[str, Any]]


def purges(connection: Connection) -> list[dict[str, Any]]:
    """The bodies of all events of purging, in their order."""
    rows = connection.execute(select(event.c.body).where(event.c.kind == "purge").order_by(event.c.seq))
    return [json.loads(body) for body in rows.scalars()]


def vouched(said: Purges) -> dict[int, str]:
    """Event → the digest that it has since the last purge that took something out of it."""
    return {int(seq): digest for one in said for seq, digest in one.get(REDACTED, {}).items()}


def said_again(connection: Connection, said: Purges) -> dict[int, str]:
    """Events of the catalog that are not what a purge left, with what they have to say: values were put back."""
    listed = vouched(said)
    rows = connection.execute(select(event).where(in_keys(event.c.seq, listed))).mappings()
    wrong = [row for row in map(dict, rows) if event_digest(row) != listed[row["seq"]]]
    return put_right(wrong, said, _numbers(_registered(connection))) if wrong else {}


def _registered(connection: Connection) -> Iterator[str]:
    return connection.execute(select(event.c.body).where(event.c.kind == "register").order_by(event.c.seq)).scalars()


def as_purged(events: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Events of a file, with all taken out that purges of the same file took out: an older copy has it still."""
    rows = list(events)
    said = [json.loads(row["body"]) for row in rows if row["kind"] == "purge"]
    listed = vouched(said)
    wrong = [row for row in rows if row["seq"] in listed and event_digest(row) != listed[row["seq"]]]
    right = put_right(wrong, said, _numbers(row["body"] for row in rows if row["kind"] == "register")) if wrong else {}
    return [{**row, "body": right[row["seq"]]} if row["seq"] in right else row for row in rows]


def _numbers(bodies: Iterable[str]) -> dict[str, int]:
    """Level and ID → number, of everybody who was ever registered."""
    rows = (row for body in bodies for row in json.loads(body).get("new", ()))
    return {f"{row['level']}/{row['id']}": row["seq"] for row in rows}


def put_right(rows: Iterable[dict[str, Any]], said: Purges, numbers: Mapping[str, int]) -> dict[int, str]:
    """What these events say once each purge took out of them again what it took out: that has the digest on record.

    Where the text was another one meanwhile, nothing has; then all of the person is taken out that is known how.
    """
    takers = [(_whose(said, one["purge"], numbers), one[REDACTED]) for one in said if one.get(REDACTED)]
    found: dict[int, str] = {}
    for row in rows:
        body = row["body"]
        for whose, listed in takers:
            if (digest := listed.get(str(row["seq"]))) is not None:
                bodies = _possible(whose, {**row, "body": body})
                body = next((one for one in bodies if event_digest({**row, "body": one}) == digest), bodies[0])
        found[row["seq"]] = body
    return found


def _whose(said: Purges, number: int, numbers: Mapping[str, int]) -> Whose:
    """Whom a purge was about; it may be told of in several events."""
    mine = [one for one in said if one["purge"] == number]
    own = [name for one in mine for name in one.get("own", ())]
    makings = frozenset(made["materialization"] for one in mine for made in one["removed"])
    nodes = frozenset((level, who) for level, _, who in (name.partition("/") for name in own))
    return Whose(nodes, frozenset(numbers[name] for name in own if name in numbers), makings)


def _possible(whose: Whose, row: Mapping[str, Any]) -> list[str]:
    """What an event may have been made by a purge."""
    if row["kind"] != "fail":
        body = without(whose, row["kind"], row["subject"], row["body"])
        return [body or row["body"], row["body"]]
    said = json.loads(row["body"])
    return [canonical({**said, "error": GONE, **more}).decode() for more in ({"log": None}, {})]
