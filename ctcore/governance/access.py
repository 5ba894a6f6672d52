"""The one gate beneath every read and write: who may be used today, for which step.

QC, censoring and consent are combined here and nowhere else; callers never filter themselves. Nothing is copied to
descendants: a descendant of an excluded entity is excluded too (see `Hierarchy`).
"""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import CompoundSelect, Connection, Select, bindparam, func, literal, or_, select

from ctcore.catalog.engine import bind_keys, in_bound_keys, in_keys
from ctcore.catalog.ownership import HELD
from ctcore.catalog.row_numbers import FREE
from ctcore.catalog.tables import consent, entity, member, qc_act, qc_event, qc_resolution, setting
from ctcore.config.qc_and_consent import BARRING
from ctcore.model.levels import ENTITY_LEVELS
from ctcore.model.masked_text import NodeName, QuotedText, Words
from ctcore.model.node import Node

NEVER = "9999-12-31"
GIVEN = ("full", "limited")
"""Consents under which a patient may be used; `limited` only for the uses that it names."""


@dataclass(frozen=True)
class Bar:
    """Why one entity is excluded by itself, everywhere or for one step. `kind` groups similar reasons.

    `ethics`: for lack of consent. `scope`: the scope of the QC act behind it. `since` and `actor`: when it began to
    hold, and who recorded it; empty where nobody did.
    """

    entity: int
    kind: str
    words: str
    step: str | None = None
    ethics: bool = False
    scope: str = ""
    since: str = ""
    actor: str = ""


@dataclass(frozen=True)
class BarredEntities:
    """Entities (`entity.seq`) excluded by themselves, everywhere or by step. `withheld`: for lack of consent.
    `nonconsenting`: patients whose limited consent does not cover a step's use, by step.

    It holds from `day` to before `until`, when the next consent ends, unless an event comes first.
    """

    day: str
    until: str
    everywhere: Sequence[int]
    by_step: Mapping[str, Sequence[int]]
    withheld: Sequence[int] = ()
    nonconsenting: Mapping[str, Sequence[int]] = field(default_factory=dict)


def barred_entities(
    connection: Connection, uses: Mapping[str, str | None], day: str, required: bool = False
) -> BarredEntities:
    """Who is excluded on a day. `uses` maps steps to their uses; with `required`, patients without a record are
    excluded."""
    everywhere: list[int] = []
    withheld: list[int] = []
    by_step: dict[str, list[int]] = {}
    nonconsenting: dict[str, list[int]] = {}
    for bar in bars(connection, uses, day, required=required):
        (everywhere if bar.step is None else by_step.setdefault(bar.step, [])).append(bar.entity)
        if bar.ethics:
            (withheld if bar.step is None else nonconsenting.setdefault(bar.step, [])).append(bar.entity)
    # `order_by(None)`: PostgreSQL refuses to order an aggregate by a column that is not part of it.
    ends = _current().with_only_columns(func.min(consent.c.until)).order_by(None)
    until = connection.execute(ends.where(consent.c.until > day, consent.c.status.in_(GIVEN))).scalar()
    return BarredEntities(day, until or NEVER, everywhere, by_step, withheld, nonconsenting)


def bars(
    connection: Connection,
    uses: Mapping[str, str | None],
    day: str,
    only: Collection[int] | None = None,
    required: bool = False,
) -> list[Bar]:
    """Every bar with its words, those of consent first; of these entities only, where they are given."""
    return [*_without_consent(connection, uses, day, only, required), *_censored(connection, only)]


def last_consent_end(connection: Connection, day: str) -> str:
    """Changes on each day on which a consent ends. No event is written on that day."""
    return connection.execute(select(func.max(consent.c.until)).where(consent.c.until <= day)).scalar() or ""


def consent_end_time(connection: Connection, day: str, use: str | None) -> str:
    """When the last of the consents ended that do not allow a use on a day; empty where all allow it."""
    found = ""
    for row in current_consents(connection):
        status = status_on(row, day)
        if status not in GIVEN or (status == "limited" and use not in json.loads(row.uses)):
            found = max(found, row.until if status == "expired" and row.status != "expired" else row.at)
    return found


def status_on(row: Any, day: str) -> str:
    """The status of a consent (a row) on a day, after its end or before it."""
    # On the day itself it has ended: it holds until the day before.
    over = row.status in GIVEN and row.until is not None and row.until <= day
    return "expired" if over else row.status


@cache
def open_events() -> Select[Any]:
    """Unresolved QC events with their acts, in their order."""
    joined = qc_event.join(qc_act, qc_act.c.id == qc_event.c.act)
    joined = joined.join(entity, entity.c.seq == qc_event.c.entity)
    joined = joined.outerjoin(qc_resolution, qc_resolution.c.event == qc_event.c.id)
    columns = (*qc_event.c, qc_act.c.at, qc_act.c.actor, qc_act.c.source, qc_act.c.scope, entity.c.level)
    chosen = select(*columns, entity.c.id.label("who")).select_from(joined)
    return chosen.where(qc_resolution.c.event.is_(None)).order_by(qc_event.c.id)


@cache
def _current(only: bool = False) -> Select[Any]:
    """The consent of each patient that was written last; `only`: of these `keys`."""
    # By number, not by the day of the statement: an older form may be entered later, and the last word entered holds.
    last = select(func.max(consent.c.id)).group_by(consent.c.entity)
    last = last.where(in_bound_keys(consent.c.entity)) if only else last
    return select(*consent.c).where(consent.c.id.in_(last)).order_by(consent.c.id)


def current_consents(connection: Connection, only: Collection[int] | None = None) -> list[Any]:
    """The consents in force, as rows. A patient without a record has none."""
    return list(connection.execute(_current(only is not None), _keys(only)))


def _keys(only: Collection[int] | None) -> dict[str, Any]:
    return {} if only is None else {"keys": bind_keys(only)}


def _without_record(connection: Connection, only: Collection[int] | None) -> list[int]:
    """Patients without any recorded consent."""
    # NOT IN finds nothing once the list has a NULL; `consent.entity` is NOT NULL.
    chosen = select(entity.c.seq).where(entity.c.level == "patient", entity.c.seq.not_in(select(consent.c.entity)))
    if only is not None:
        chosen = chosen.where(in_keys(entity.c.seq, only))
    return list(connection.execute(chosen.order_by(entity.c.seq)).scalars())


@cache
def _censoring(only: bool) -> Select[Any]:
    chosen = open_events().where(qc_event.c.status.in_(BARRING))
    return chosen.where(in_bound_keys(qc_event.c.entity)) if only else chosen


def _censored(connection: Connection, only: Collection[int] | None) -> Iterator[Bar]:
    for row in connection.execute(_censoring(only is not None), _keys(only)):
        step = f" for {row.step} only" if row.step else ""
        words = f"{row.kind}{step} on {row.at[:10]} by {row.actor}: {row.reason}"
        yield Bar(row.entity, row.kind, words, row.step, scope=row.scope, since=row.at, actor=row.actor)


def _without_consent(
    connection: Connection,
    uses: Mapping[str, str | None],
    day: str,
    only: Collection[int] | None,
    required: bool,
) -> Iterator[Bar]:
    for number in _without_record(connection, only) if required else ():
        yield Bar(number, "no consent on record", "consent: none on record", ethics=True)
    for row in current_consents(connection, only):
        status, form = status_on(row, day), f" ({row.form})" if row.form else ""
        if status == "limited":
            allowed = json.loads(row.uses)
            for step, use in uses.items():
                # Also where nobody named a use for the step: consent to some uses is none to an unknown one.
                if use not in allowed:
                    purpose = f"is for {use}" if use else "is for no use that ct.toml names"
                    words = f"consent is limited to {', '.join(allowed)}{form}, and {step} {purpose}"
                    told = {"since": row.dated, "actor": row.actor}
                    yield Bar(row.entity, "consent limited to other uses", words, step, ethics=True, **told)
        elif status not in GIVEN:
            since = row.until if status == "expired" and row.until else row.dated
            verb = "is pending since" if status == "pending" else f"{status} on"
            words = f"consent {verb} {since}{form}"
            yield Bar(row.entity, f"consent {status}", words, ethics=True, since=since, actor=row.actor)


def hidden_ids(connection: Connection, day: str, required: bool) -> dict[str, set[str]]:
    """The IDs of patients without consent on a day, and of all below them, by level: one statement.

    All IDs while a loss holds everybody back, because any of them may have revoked consent in it. Where a registration
    is lost, each member whom nobody registered is hidden as soon as somebody is.
    """
    found: dict[str, set[str]] = {level: set() for level in (*ENTITY_LEVELS, _LOSS)}
    rows: Any = connection.execute(_hidden(required), {"day": day})
    for level, name in rows:
        found[level].add(name)
    after = found.pop(_LOSS)
    if HELD in after:
        _add(found, connection.execute(select(entity.c.level, entity.c.id)))
    if FREE in after and any(found.values()):
        _add(found, connection.execute(_unregistered()))
    return found


@cache
def _hidden(required: bool) -> CompoundSelect[str, str]:
    last = select(func.max(consent.c.id)).group_by(consent.c.entity)
    is_full = or_(*(consent.c.status == one for one in GIVEN))  # `in_` is written out at each execution
    is_given = is_full & or_(consent.c.until.is_(None), consent.c.until > bindparam("day"))
    barred = select(consent.c.entity).where(consent.c.id.in_(last), ~is_given)
    if required:
        unasked = (entity.c.level == "patient") & entity.c.seq.not_in(select(consent.c.entity))
        barred = barred.union_all(select(entity.c.seq).where(unasked))
    who = select(entity.c.seq, entity.c.level, entity.c.id)
    below = who.where(entity.c.seq.in_(barred)).cte("hidden", recursive=True)
    below = below.union_all(who.join(below, entity.c.parent == below.c.seq))
    losses = select(literal(_LOSS), setting.c.name).where(or_(setting.c.name == HELD, setting.c.name == FREE))
    return select(below.c.level, below.c.id).union_all(losses)


def unregistered_members(connection: Connection) -> Iterable[Any]:
    """Level and ID of the members of makings whose registration was lost; none where no event was lost."""
    is_lossy = connection.execute(select(setting.c.name).where(setting.c.name == FREE)).first() is not None
    return connection.execute(_unregistered()) if is_lossy else ()


_LOSS = "loss"


def _add(found: Mapping[str, set[str]], rows: Iterable[Any]) -> None:
    for level, name in rows:
        found[level].add(name)


@cache
def _unregistered() -> Select[Any, Any]:
    """The members of makings whose registration was lost."""
    is_there = select(entity.c.seq).where(entity.c.level == member.c.level, entity.c.id == member.c.entity).exists()
    return select(member.c.level, member.c.entity).where(member.c.level.in_(ENTITY_LEVELS), ~is_there).distinct()


def hidden_ids_of_rows(
    entities: Iterable[Mapping[str, Any]], consents: Iterable[Mapping[str, Any]], day: str, required: bool
) -> dict[str, set[str]]:
    """The same of rows that no database has, those of consents in their order: of a history."""
    last: dict[int, bool] = {}
    for row in consents:
        last[row["entity"]] = row["status"] in GIVEN and (row["until"] is None or row["until"] > day)
    found: dict[str, set[str]] = {level: set() for level in ENTITY_LEVELS}
    barred: set[int] = set()
    # Parents first: whoever is below somebody barred is found by the parent's number.
    for row in sorted(entities, key=lambda row: ENTITY_LEVELS.index(row["level"])):
        if row["parent"] in barred or (row["parent"] is None and not last.get(row["seq"], not required)):
            barred.add(row["seq"])
            found[row["level"]].add(row["id"])
    return found


class MissingConsent(NamedTuple):
    """Why somebody is hidden: the patient without consent, and the status."""

    patient: str
    words: str

    @property
    def sentence(self) -> Words:
        return Words(NodeName(("patient", self.patient), f"patient {self.patient}"), ": ", QuotedText(self.words))


def missing_consents(
    connection: Connection, day: str, required: bool, whose: Collection[Node] | None = None
) -> dict[Node, MissingConsent]:
    """Entities without consent on a day, (level, ID) → reason: patients and all their descendants."""
    # Without steps: a limited consent bars from steps only, and hides nobody.
    barred = {bar.entity: bar.words for bar in _without_consent(connection, {}, day, None, required)}
    found: dict[Node, MissingConsent] = {}
    names = entity.c.seq, entity.c.level, entity.c.id, entity.c.parent
    rows = list(connection.execute(select(*names).where(in_keys(entity.c.seq, barred)))) if barred else []
    said = {row.seq: MissingConsent(row.id, barred[row.seq]) for row in rows}
    while rows:
        found |= {(row.level, row.id): said[row.seq] for row in rows}
        below = in_keys(entity.c.parent, [row.seq for row in rows])
        rows = list(connection.execute(select(*names).where(below)))
        said = {row.seq: said[row.parent] for row in rows}
    return found if whose is None else {who: words for who, words in found.items() if who in set(whose)}
