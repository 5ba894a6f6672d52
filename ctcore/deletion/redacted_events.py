"""Redacts events: removes what they say of a purged person, in the catalog, in the journal and in copies of these."""

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import Connection, select

from ctcore.catalog.engine import in_keys
from ctcore.catalog.event_log import REDACTED, event_digest
from ctcore.catalog.event_log import vouched_digests as vouched_by
from ctcore.catalog.purge_numbers import PurgeNumbers
from ctcore.catalog.tables import event
from ctcore.model.node import Node, name_of
from ctcore.store.digest import canonical_json

GONE = "purged"  # replaces a text about a person
ROLES = "member-role: "  # in the reason of a making whose members' roles had changed
NOBODY = re.compile(r"(?!)")
_QC = ("warn", "censor", "warn-resolved", "release")
_KINDS = ("register", "record", "fail", "accept", "materialize", *_QC)


@dataclass(frozen=True)
class RedactionScope:
    """The person that a redaction is about. `makings` contain them; `steps`: step → their IDs among its nodes; `many`:
    steps whose nodes hold several people, so that the node's name does not tell who is inside."""

    own: frozenset[Node]
    seqs: frozenset[int]
    makings: frozenset[int]
    steps: Mapping[str, frozenset[str]] = field(default_factory=dict)
    many: frozenset[str] = frozenset()
    any_id: re.Pattern[str] = NOBODY

    @property
    def names(self) -> set[str]:
        return set(map(name_of, self.own))


def event_without_person(whose: RedactionScope, kind: str, subject: str, body: str) -> str | None:
    """The event's body without the person; None where there is nothing to remove."""
    said = json.loads(body)
    if kind == "register":
        changed = _remove_attributes(said, whose.seqs)
    elif kind == "record":
        changed = _remove_values(said["results"], whose.names)
    elif kind == "fail":
        changed = _remove_error(said, subject, whose)
    elif kind in _QC:
        changed = _remove_qc_reasons(said["events"], whose.names)
    else:
        changed = _remove_roles(said, kind, whose)
    return canonical_json(said).decode() if changed else None


def _remove_attributes(said: dict[str, Any], seqs: frozenset[int]) -> bool:
    """Remove the attributes of these entities from an event's body; whether there were any."""
    found = False
    for row in [*said.get("new", ()), *said.get("changed", ())]:
        if row.get("seq", row.get("b_seq")) in seqs and row["attributes"] != "{}":
            row["attributes"], found = "{}", True
    before = said.get("before", {})
    for seq in [seq for seq in before if int(seq) in seqs and before[seq]]:
        before[seq], found = {}, True
    return found


def _remove_values(results: Iterable[dict[str, Any]], own: set[str]) -> bool:
    """Remove the values of recorded results; whether there were any."""
    theirs = [one for one in results if one["entity"] in own and one["values"]]
    for one in theirs:
        one["values"] = {}
    return bool(theirs)


def _remove_qc_reasons(events: Iterable[dict[str, Any]], own: set[str]) -> bool:
    """Remove the reasons of QC events, by steps, results and people; whether there were any."""
    theirs = [one for one in events if one["name"] in own and one["reason"] != GONE]
    for one in theirs:
        one["reason"] = GONE
    return bool(theirs)


def _remove_error(said: dict[str, Any], subject: str, whose: RedactionScope) -> bool:
    """Remove the error of a failed call of the person's node, or one that names the person; whether there was one."""
    step, _, who = subject.partition("/")
    own = who in whose.steps.get(step, ())
    if said["error"] == GONE or not (own or (step in whose.many and whose.any_id.search(said["error"]))):
        return False
    said |= {"error": GONE} | ({"log": None} if own and "log" in said else {})
    return True


def _remove_roles(said: dict[str, Any], kind: str, whose: RedactionScope) -> bool:
    """Remove roles, which are values of columns, from acceptances and reasons of makings; whether there were any."""
    if kind == "accept" and said["kind"] == "member-role":
        kept = role_less(said["words"], whose.names)
        changed, said["words"] = kept != said["words"], kept
        return changed
    if kind == "materialize" and said.get("materialization") in whose.makings and ROLES in said["reason"]:
        said["reason"] = GONE
        return True
    return False


def role_less(words: str, own: set[str]) -> str:
    """The text of an acceptance about a role, without the role if the member is in `own`."""
    who = words.partition(" ")[0]
    return f"{who} {GONE}" if who in own else words


_LOST = select(event.c.seq).where(event.c.kind == "accept-loss").limit(1)  # then one entity may have two numbers


def events_about(connection: Connection, whose: RedactionScope) -> dict[int, str]:
    """Events of the catalog that mention the person → their body without the person."""
    columns = (event.c.seq, event.c.kind, event.c.subject, event.c.body)
    if connection.execute(_LOST).first() is not None:
        numbers = _numbers(_registered(connection))
        whose = replace(whose, seqs=whose.seqs.union(*(numbers.get(name, ()) for name in whose.names)))
    rows = connection.execute(select(*columns).where(event.c.kind.in_(_KINDS), _may_tell()))
    found = ((number, event_without_person(whose, kind, subject, body)) for number, kind, subject, body in rows)
    return {number: body for number, body in found if body is not None}


def _may_tell() -> Any:
    """Condition for events that can mention the person; acceptances and makings do so only for roles."""
    of_roles = event.c.kind.in_(("accept", "materialize")) & event.c.body.contains("member-role")
    return of_roles | event.c.kind.not_in(("accept", "materialize"))


# Redactions of purges, and the digests that they vouch for

TELLING = ("purge", "recover", "accept-loss")
_SCOPE = ("own", "seqs", "makings")


@dataclass(frozen=True)
class Purges:
    """The purges of a history. `bodies`: bodies of their events, each with its `seq` and the present number of the
    purge. `listed`: redacted event → its digest since, also where a person accepted another one."""

    bodies: Sequence[Mapping[str, Any]]
    listed: Mapping[int, str]
    numbers: PurgeNumbers

    @classmethod
    def from_events(cls, events: Iterable[tuple[int, str, str]]) -> "Purges":
        """From (number, kind, body) of events. Only kinds in `TELLING` count. An edited event that cannot be
        parsed is skipped, because the check of the chain reports it."""
        bodies, numbers, listed = list[dict[str, Any]](), PurgeNumbers(), dict[int, str]()
        for seq, kind, text in events:
            if kind not in TELLING:
                continue
            try:
                body = json.loads(text)
                now = {int(one): now for one, now in vouched_by({"kind": kind, "body": text}).items() if one.isdigit()}
                if kind == "purge":
                    bodies.append(_purge_body(seq, body, now, numbers))
                elif kind == "recover":
                    numbers.recovered(body)
            except (KeyError, TypeError, ValueError, AttributeError):
                continue
            listed |= now
        redacted = {int(one) for body in bodies for one in body[REDACTED]}
        return cls(bodies, {one: now for one, now in listed.items() if one in redacted}, numbers)

    def of(self, number: int) -> list[Mapping[str, Any]]:
        """Bodies of all events of a purge."""
        return [one for one in self.bodies if one["purge"] == number]

    def scopes(self, numbers: Mapping[str, Set[int]]) -> list[tuple[RedactionScope, Mapping[str, str]]]:
        """(scope, redacted events) of each purge. `numbers`: entity → its numbers, of everybody ever registered."""
        return [(self._scope_of(one["purge"], numbers), one[REDACTED]) for one in self.bodies if one[REDACTED]]

    def _scope_of(self, number: int, numbers: Mapping[str, Set[int]]) -> RedactionScope:
        """The scope of a purge, which may have several events."""
        mine = self.of(number)
        own = [name for one in mine for name in one.get("own", ())]
        makings = frozenset(made["materialization"] for one in mine for made in one["removed"])
        nodes = frozenset((level, who) for level, _, who in (name.partition("/") for name in own))
        return RedactionScope(nodes, frozenset[int]().union(*(numbers.get(name, ()) for name in own)), makings)


def _purge_body(seq: int, body: dict[str, Any], redacted: Mapping[int, str], numbers: PurgeNumbers) -> dict[str, Any]:
    """The body of a purge's event, with the present number of the purge."""
    more = {REDACTED: {str(one): now for one, now in redacted.items()}}
    return {**body, "purge": numbers.purge(seq, body), "seq": seq, **more}


def purges(connection: Connection) -> Purges:
    """The purges in the catalog's events."""
    columns = select(event.c.seq, event.c.kind, event.c.body).where(event.c.kind.in_(TELLING)).order_by(event.c.seq)
    return Purges.from_events((seq, kind, body) for seq, kind, body in connection.execute(columns))


def restored_events(connection: Connection, said: Purges) -> dict[int, str]:
    """Events of the catalog that lack a redaction → the body that they should have. Somebody put values back, or of two
    purges that did not know of each other only one redacted the event."""
    rows = connection.execute(select(event).where(in_keys(event.c.seq, said.listed))).mappings()
    return _missing_redactions(map(dict, rows), said, lambda: _numbers(_registered(connection)))


def _registered(connection: Connection) -> Iterator[str]:
    return connection.execute(select(event.c.body).where(event.c.kind == "register").order_by(event.c.seq)).scalars()


def redact_again(rows: Sequence[dict[str, Any]], said: Purges) -> list[dict[str, Any]]:
    """Events of a file with all redactions of purges in the same file: lines of an older copy may lack them."""
    mine = (row for row in rows if row["seq"] in said.listed)
    right = _missing_redactions(mine, said, lambda: _numbers(row["body"] for row in rows if row["kind"] == "register"))
    return [{**row, "body": right[row["seq"]]} if row["seq"] in right else row for row in rows]


def _numbers(bodies: Iterable[str]) -> dict[str, set[int]]:
    """`level/ID` → numbers of everybody ever registered; several numbers if an event was lost meanwhile."""
    found = defaultdict[str, set[int]](set)
    for body in bodies:
        for row in json.loads(body).get("new", ()):
            found[f"{row['level']}/{row['id']}"].add(row["seq"])
    return found


def _missing_redactions(
    rows: Iterable[dict[str, Any]], said: Purges, numbers: Callable[[], Mapping[str, Set[int]]]
) -> dict[int, str]:
    """Events that lack a redaction → their body after each purge has redacted it again.

    The body then has the recorded digest. If somebody changed the text, no body has it; then everything that can be
    recognized as the person's is removed.
    """
    redacting = [one[REDACTED] for one in said.bodies if one[REDACTED]]
    found: dict[int, str] = {}
    scopes: Sequence[tuple[RedactionScope, Mapping[str, str]]] = ()
    for row in rows:
        key, now = str(row["seq"]), event_digest(row)
        if now == said.listed[row["seq"]] and all(one.get(key, now) == now for one in redacting):
            continue
        scopes = scopes or said.scopes(numbers())
        mine = [(whose, listed[key]) for whose, listed in scopes if key in listed]
        if now == said.listed[row["seq"]] and not _mentions(row, [whose for whose, _ in mine], len(mine) > 1):
            continue
        body = row["body"]
        for whose, digest in mine:
            # In the order of the purges: each redacted what the one before it had left, and listed the digest of that.
            bodies = _possible(whose, {**row, "body": body})
            body = next((one for one in bodies if event_digest({**row, "body": one}) == digest), bodies[0])
        if now != said.listed[row["seq"]] or body != row["body"]:
            found[row["seq"]] = body
    return found


def _mentions(row: Mapping[str, Any], some: Sequence[RedactionScope], is_twice: bool) -> bool:
    """Whether an event mentions one of these people. It is parsed once for all purges, because events may be large."""
    if row["kind"] == "fail":
        return is_twice
    nodes, seqs, makings = (frozenset[Any]().union(*(getattr(one, name) for one in some)) for name in _SCOPE)
    return (
        event_without_person(RedactionScope(nodes, seqs, makings), row["kind"], row["subject"], row["body"]) is not None
    )


def _possible(whose: RedactionScope, row: Mapping[str, Any]) -> list[str]:
    """The bodies that a purge may have written for an event."""
    if row["kind"] != "fail":
        body = event_without_person(whose, row["kind"], row["subject"], row["body"])
        return [body or row["body"], row["body"]]
    said = json.loads(row["body"])
    # Of the person's own node the log went too, of another that names them it stayed; only the digest tells which it
    # was.
    return [canonical_json({**said, "error": GONE, **more}).decode() for more in ({"log": None}, {})]
