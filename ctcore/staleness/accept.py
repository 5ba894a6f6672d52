"""Accepting a difference as immaterial, under a person's name and reason; and undoing it.

An acceptance holds for the current artifact and for exactly today's difference. The artifact keeps its content and its
key, so everything made from it stays as it is. The next making uses the code of its day.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

from sqlalchemy import Connection, false, func, not_, or_, select, update

from ctcore.catalog.engine import Writer, in_keys
from ctcore.catalog.row_numbers import next_number
from ctcore.catalog.tables import acceptance, artifact, waiver
from ctcore.errors import Usage
from ctcore.governance.masking import UNMASKED, Mask, mask_of
from ctcore.inputs.current import current_inputs
from ctcore.inputs.exclusions import without_consent
from ctcore.model.node import Keys, Node, name_of
from ctcore.model.reasons import Kind, Reason, Verdict
from ctcore.project import Project
from ctcore.staleness.verdicts import Verdicts, evaluate
from ctcore.util.gc import without_collecting

NEVER: Mapping[str, str] = {
    "missing": "there is no result yet that could stand",
    "upstream": "it only waits: accept the reason at the root cause, or make that again",
    "excluded": "who may be used is decided by `ct qc` and `ct consent`",
    "bytes": "a lost or changed file cannot be accepted; `ct run` makes it again (`ct adopt`, if it is made elsewhere)",
}
NOT_YET = "it is not made yet: accept it after it is made"
KINDS: tuple[str, ...] = tuple(kind for kind in get_args(Kind) if kind not in NEVER)
_WHO = "who it is, says `ct why"
AN_EVENT = 1000  # nodes that one event names


@dataclass
class Proposal:
    """The waivers to write: the reasons by node, and the artifacts they belong to.

    `left` counts the nodes that do not become fresh, by the kind of reason or the state that prevents it.
    """

    reasons: dict[Node, list[Reason]] = field(default_factory=dict)
    making: dict[Node, int] = field(default_factory=dict)
    left: Counter[str] = field(default_factory=Counter)

    def groups(self) -> dict[tuple[str, Reason], list[str]]:
        """(step, reason) → partitions, for the display and for events."""
        found: dict[tuple[str, Reason], list[str]] = defaultdict(list)
        for (asset, partition), reasons in self.reasons.items():
            for reason in reasons:
                found[(asset, reason)].append(partition)
        return found


def checked_kinds(text: str | None) -> frozenset[str]:
    """`code,environment` → the kinds to accept; without any, all kinds that can be accepted."""
    if text is None:
        return frozenset(KINDS)
    asked = [word.strip() for word in text.split(",")]
    for word in asked:
        if word in NEVER:
            raise Usage(f"{word!r} cannot be accepted: {NEVER[word]}")
        if word not in KINDS:
            raise Usage(f"no kind {word!r}; these can be accepted: {', '.join(KINDS)}")
    return frozenset(asked)


def checked_reason(text: str | None) -> str:
    """The text that stands beside the name; there has to be one."""
    said = (text or "").strip()
    if not said:
        raise Usage('say why, for those who read it later: --reason "only a comment was changed"')
    if not said.isprintable():
        raise Usage("--reason: one line of printable text, please")
    return said


@without_collecting
def propose(project: Project, keys: Keys, kinds: frozenset[str] = frozenset(KINDS)) -> Proposal:
    """The waivers for these nodes. Usage error with the reason if there are none.

    It reads the makings first, so a making that is recorded later is another one and keeps its reasons.
    """
    found = Proposal()
    with project.catalog.read() as connection:
        making = _makings(connection, keys)
    verdicts = evaluate(project)
    for asset, partitions in keys.items():
        for verdict in verdicts.listed(asset, partitions):
            _add(found, verdict, making, kinds)
    said = _drop_lost_consent(project, found)
    if not found.reasons:
        raise Usage(said or _nothing(keys, verdicts, kinds, mask_of(project)))
    return found


def _drop_lost_consent(project: Project, found: Proposal) -> str | None:
    """Drop reasons for lost consent: they cannot be accepted. Returns the dropped ones as text."""
    by_step: dict[str, list[Node]] = defaultdict(list)
    for node in found.reasons:
        by_step[node[0]].append(node)
    said: str | None = None
    with project.catalog.read() as connection:
        snapshot, inputs = current_inputs(project, connection)
        for asset, nodes in by_step.items():
            went = [one for node in nodes for one in found.reasons[node]]
            hidden = without_consent(connection, snapshot, inputs, project.steps[asset], went)
            for node in nodes if hidden else ():
                gone = [one for one in found.reasons[node] if one.node in hidden]
                kept = [one for one in found.reasons.pop(node) if one not in gone]
                found.left.update(one.kind for one in gone)
                if kept:
                    found.reasons[node] = kept
                if gone and said is None:
                    said = f"consent of a member is wanting, and that cannot be accepted; {_WHO} {name_of(node)}`"
    return said


def _add(found: Proposal, verdict: Verdict, making: Mapping[Node, int], kinds: frozenset[str]) -> None:
    mine = [reason for reason in verdict.reasons if reason.kind in kinds and _refusal(reason) is None]
    if mine and verdict.node in making:
        found.reasons[verdict.node] = mine
        found.making[verdict.node] = making[verdict.node]
    if verdict.state != "excluded":
        found.left.update({reason.kind for reason in verdict.reasons if reason not in mine})


def _refusal(reason: Reason) -> str | None:
    """Why a reason cannot be accepted; None where it can."""
    if reason.kind in NEVER:
        return f"{reason.kind!r}: {NEVER[reason.kind]}"
    if reason.node is not None and reason.old is None and reason.new is None:
        return NOT_YET  # what it will be, nobody has seen
    return None


def accept(project: Project, proposal: Proposal, reason: str) -> Proposal:
    """Write the waivers, and one event for each thousand nodes. Returns the new ones."""
    with project.catalog.write() as writer:
        # Under the write lock: what somebody else accepted since the look is not written twice.
        new = _without(proposal, _accepted_now(writer.connection, proposal))
        if not new.reasons:
            raise Usage("nothing to accept: somebody else has just accepted it")
        number = _act(writer, reason, undoes=False)
        groups = new.groups()
        writer.insert(waiver, list(_rows(number, new, groups)))
        for (asset, one), partitions in groups.items():
            for some in _chunks(partitions):
                nodes = {partition: new.making[(asset, partition)] for partition in some}
                what = {"kind": one.kind, "evidence": one.evidence, "words": UNMASKED.mask_words(one.words)}
                said = {"acceptance": number, "reason": reason, **what, "partitions": nodes}
                writer.event("accept", _subject(asset, some), said)
    return new


def undoable(project: Project, keys: Keys, kinds: frozenset[str]) -> list[Any]:
    """The acceptances of these nodes, as rows of `waiver`. Usage error if there are none."""
    with project.catalog.read() as connection:
        return _to_undo(connection, keys, kinds)


def undo(project: Project, keys: Keys, kinds: frozenset[str], reason: str) -> list[Any]:
    """Take it back: the reasons count again. Returns the rows that stood."""
    with project.catalog.write() as writer:
        rows = _to_undo(writer.connection, keys, kinds)
        number = _act(writer, reason, undoes=True)
        alike: dict[tuple[str, str, str], list[str]] = defaultdict(list)
        for row in rows:
            alike[(row.asset, row.kind, row.evidence)].append(row.partition)
        for asset, partitions in keys.items():
            mine = (waiver.c.asset == asset) & in_keys(waiver.c.partition, partitions)
            # The same rows as above, without their numbers: nobody else writes between the two statements.
            stands = mine & waiver.c.undone.is_(None) & waiver.c.kind.in_(kinds)
            writer.execute(update(waiver).where(stands).values(undone=number))
        for (asset, kind, evidence), partitions in alike.items():
            for some in _chunks(partitions):
                body = {"kind": kind, "evidence": evidence, "partitions": some}
                writer.event("accept-undone", _subject(asset, some), {"acceptance": number, "reason": reason, **body})
    return rows


def _to_undo(connection: Connection, keys: Keys, kinds: frozenset[str]) -> list[Any]:
    rows = [row for row in _open(connection, keys) if row.kind in kinds]
    if not rows:
        raise Usage(f"nothing to undo: nothing is accepted of {_said(keys)}")
    return rows


def _chunks(partitions: Sequence[str]) -> Iterator[list[str]]:
    for at in range(0, len(partitions), AN_EVENT):
        yield list(partitions[at : at + AN_EVENT])


def current_acceptances(project: Project) -> list[Any]:
    """The acceptances of current artifacts: one row for each acceptance, step and kind. Nodes without consent are
    left out."""
    seen = mask_of(project)
    hidden = [
        (waiver.c.asset == step.name) & in_keys(waiver.c.partition, seen.hidden_partitions(step.name))
        for step in project.steps
        if seen and seen.hidden_partitions(step.name)
    ]
    with project.catalog.read() as connection:
        of = (waiver.c.asset == artifact.c.asset) & (waiver.c.partition == artifact.c.partition)
        rows = connection.execute(
            select(
                acceptance.c.id,
                acceptance.c.at,
                acceptance.c.actor,
                waiver.c.asset,
                func.count().label("nodes"),
                func.min(waiver.c.partition).label("first"),
                waiver.c.kind,
                func.min(waiver.c.words).label("words"),
                acceptance.c.reason,
            )
            .select_from(waiver)
            .join(acceptance, acceptance.c.id == waiver.c.acceptance)
            .join(artifact, of & (waiver.c.materialization == artifact.c.materialization))
            # false(): SQLAlchemy gives no meaning to an or_ of nothing.
            .where(waiver.c.undone.is_(None), not_(or_(false(), *hidden)))
            .group_by(
                acceptance.c.id,
                acceptance.c.at,
                acceptance.c.actor,
                acceptance.c.reason,
                waiver.c.asset,
                waiver.c.kind,
            )
            .order_by(acceptance.c.id, waiver.c.asset, waiver.c.kind)
        )
        return list(rows)


def _makings(connection: Connection, keys: Keys) -> dict[Node, int]:
    found: dict[Node, int] = {}
    for asset, partitions in keys.items():
        mine = select(artifact.c.partition, artifact.c.materialization).where(artifact.c.asset == asset)
        rows = connection.execute(mine.where(in_keys(artifact.c.partition, partitions)))
        found |= {(asset, partition): number for partition, number in rows}
    return found


def _open(connection: Connection, keys: Keys) -> Iterator[Any]:
    for asset, partitions in keys.items():
        mine = (waiver.c.asset == asset) & in_keys(waiver.c.partition, partitions)
        yield from connection.execute(
            select(waiver).where(mine, waiver.c.undone.is_(None)).order_by(waiver.c.partition, waiver.c.kind)
        )


def _accepted_now(connection: Connection, proposal: Proposal) -> set[tuple[Node, int, str]]:
    keys: dict[str, set[str]] = defaultdict(set)
    for asset, partition in proposal.reasons:
        keys[asset].add(partition)
    rows = _open(connection, keys)
    return {((row.asset, row.partition), row.materialization, row.evidence) for row in rows}


def _without(proposal: Proposal, standing: set[tuple[Node, int, str]]) -> Proposal:
    if not standing:
        return proposal
    reasons = {
        node: [one for one in some if (node, proposal.making[node], one.evidence) not in standing]
        for node, some in proposal.reasons.items()
    }
    return Proposal({node: some for node, some in reasons.items() if some}, proposal.making, proposal.left)


def _act(writer: Writer, reason: str, undoes: bool) -> int:
    number = next_number(writer.connection, acceptance.c.id)
    row = {"id": number, "at": writer.at, "actor": writer.actor, "undoes": undoes, "reason": reason}
    writer.insert(acceptance, [row])
    return number


def _rows(
    number: int, proposal: Proposal, groups: Mapping[tuple[str, Reason], Sequence[str]]
) -> Iterator[dict[str, Any]]:
    for (asset, reason), partitions in groups.items():
        words = UNMASKED.mask_words(reason.words)
        same = {"asset": asset, "acceptance": number, "kind": reason.kind, "words": words, "undone": None}
        for partition in partitions:
            which = {"partition": partition, "materialization": proposal.making[(asset, partition)]}
            yield {**same, **which, "evidence": reason.evidence}


def _subject(asset: str, partitions: Sequence[str]) -> str:
    return name_of((asset, partitions[0])) if len(partitions) == 1 else asset


def _said(keys: Keys) -> str:
    count = sum(map(len, keys.values()))
    asset, partitions = next(iter(keys.items()))
    return name_of((asset, min(partitions))) if count == 1 else f"the {count} nodes named"


def _nothing(keys: Keys, verdicts: Verdicts, kinds: Iterable[str], seen: Mask) -> str:
    """Why none of these nodes has anything to accept."""
    stale = [verdict for asset, some in keys.items() for verdict in verdicts.listed(asset, some)]
    if not stale:
        marks = any(verdicts.accepted.get(asset, {}).keys() & some for asset, some in keys.items())
        return f"nothing to accept: {_said(keys)} {_are(keys)} fresh" + " (accepted already)" * marks
    for verdict in stale:
        if verdict.state == "excluded":
            return f"{seen.name(verdict.node)} is excluded: nothing is expected of it, so there is nothing to accept"
    listed = [reason for verdict in stale for reason in verdict.reasons]
    others = sorted({reason.kind for reason in listed if _refusal(reason) is None and reason.kind not in kinds})
    if others:
        return f"nothing to accept with these kinds: {_said(keys)} {_are(keys)} not fresh by {', '.join(others)}"
    told = ((seen.reason(reason), refusal) for reason in listed if (refusal := _refusal(reason)))
    said = "; ".join(dict.fromkeys(f"{one}: {why}" if why is NOT_YET else why for one, why in told))
    roots = {seen.name(r.node) for verdict in stale for r in verdict.reasons if r.kind == "upstream" and r.node}
    hint = f" ({min(roots)}" + f" and {len(roots) - 1} more" * (len(roots) > 1) + ")" if roots else ""
    return f"nothing of {_said(keys)} can be accepted: {said}{hint}"


def _are(keys: Keys) -> str:
    return "is" if sum(map(len, keys.values())) == 1 else "are"
