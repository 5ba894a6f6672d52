"""QC events on patients, specimens and assays: people, sheets and steps add and resolve them.

An entity's status follows from its open events (`access`). Nothing here changes a row or copies anything.
"""

import difflib
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, bindparam, select

from ctcore.catalog.attribute_sql import attribute
from ctcore.catalog.engine import Writer, bind_keys, in_bound_keys, in_keys
from ctcore.catalog.row_numbers import next_number
from ctcore.catalog.tables import entity, qc_act, qc_event, qc_resolution
from ctcore.config.qc_and_consent import BARRING, OF_STATUS, STATUSES, QcKind
from ctcore.errors import SheetError, Usage
from ctcore.governance.access import open_events
from ctcore.governance.hints import not_found, not_found_texts
from ctcore.model.levels import ENTITY_LEVELS
from ctcore.model.spellings import texts_of
from ctcore.project import Project
from ctcore.sheet.rows import read_table

BY_NAME = "by name"
# `row_numbers` counts on it: an event that is lost has given at most so many numbers.
AN_EVENT = 1000  # QC events that one event of the chain tells of
COLUMNS = ("level", "id", "kind", "reason")
OPTIONAL = ("analysis", "source")


@dataclass(frozen=True)
class QcEntry:
    """One QC event of an entity. `step`: it holds for this step only; `row`: its row in a sheet."""

    level: str
    who: str
    kind: str
    reason: str
    step: str | None = None
    row: int | None = None

    @property
    def name(self) -> str:
        return f"{self.level}/{self.who}"


@dataclass(frozen=True)
class QcAct:
    """The result of a write: the act's number, its events (number, entity), and how many existed already."""

    act: int | None
    events: Sequence[tuple[int, str]]
    already: int = 0


def add(project: Project, sayings: Sequence[QcEntry], *, source: str = "manual", scope: str = BY_NAME) -> QcAct:
    """Write all of it, or nothing, with every problem at once. Events that a batch (`where …`) already has are
    skipped."""
    with project.catalog.write() as writer:
        rows, problems, already = _checked(project, writer.connection, sayings, scope)
        if problems:
            _refuse(problems, scope)
        number = None
        if rows:
            number = _act(writer, source, scope)
            _insert(writer, number, source, scope, rows)
    return QcAct(number, [(row["id"], row["name"]) for row in rows], already)


def _refuse(problems: Sequence[str], scope: str) -> None:
    if scope.startswith("sheet "):
        raise SheetError(scope.removeprefix("sheet "), problems)
    raise Usage("; ".join(problems) if len(problems) == 1 else "nothing was written:\n  " + "\n  ".join(problems))


def _checked(
    project: Project, connection: Connection, sayings: Sequence[QcEntry], scope: str
) -> tuple[list[dict[str, Any]], list[str], int]:
    known = _numbers(connection, {(one.level, one.who) for one in sayings})
    unknown = _unregistered(project, sayings, known)
    stands = _open(connection, set(known.values()), scope)
    number = next_number(connection, qc_event.c.id)
    rows: list[dict[str, Any]] = []
    problems: list[str] = []
    already = 0
    for one in sayings:
        where = f"row {one.row}: " if one.row is not None else ""
        seq, kind = known.get((one.level, one.who)), project.settings.qc_kinds.get(one.kind)
        said = unknown.get((one.level, one.who)) or _problem(project, one, kind)
        if said is None and seq is not None and kind is not None:
            if (seq, one.kind, one.step) in stands:
                already += 1
                said = None if scope.startswith("where ") else _stands(one)
            else:
                stands.add((seq, one.kind, one.step))
                rows.append(_row(number + len(rows), one, seq, kind.status))
        if said is not None:
            problems.append(where + said)
    return rows, problems, already


def _stands(one: QcEntry) -> str:
    for_step = f" for {one.step}" if one.step else ""
    return f"{one.name} is {one.kind}{for_step} already; `ct qc history {one.name}` shows it"


def _unregistered(
    project: Project, sayings: Sequence[QcEntry], known: Mapping[tuple[str, str], int]
) -> dict[tuple[str, str], str]:
    """The unregistered entities among these, with error texts."""
    found: dict[tuple[str, str], str] = {}
    for level in dict.fromkeys(one.level for one in sayings):
        some = [one.who for one in sayings if one.level == level and (level, one.who) not in known]
        names = list(dict.fromkeys(some))
        words = not_found_texts(project, level, names) if level in ENTITY_LEVELS else [_level(level)] * len(names)
        found |= {(level, who): said for who, said in zip(names, words, strict=True)}
    return found


def _problem(project: Project, one: QcEntry, kind: QcKind | None) -> str | None:
    """The problem of one entry by itself, if any."""
    if kind is None:
        return f"{one.name}: {_unknown(one.kind, 'kind', project.settings.qc_kinds)} ([qc.kinds] of ct.toml adds more)"
    if one.level not in kind.levels:
        return f"{one.name}: {one.kind} is said of {' or '.join(kind.levels)} only"
    if not one.reason.strip() or not one.reason.isprintable():
        return f'{one.name}: say why, in one line: --reason "foreign DNA, 3 %"'
    if one.step is not None and one.step not in project.steps:
        return f"{one.name}: {_unknown(one.step, 'step', project.steps.order)}"
    return None


def _level(level: str) -> str:
    return f"{level!r} is no level; QC belongs to {', '.join(ENTITY_LEVELS)}"


def _unknown(name: str, what: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), 1)
    return f"no {what} {name!r}; " + (f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}")


def _row(number: int, one: QcEntry, seq: int, status: str, made: int | None = None) -> dict[str, Any]:
    row = {"id": number, "entity": seq, "name": one.name, "kind": one.kind, "status": status}
    return {**row, "step": one.step, "reason": one.reason.strip(), "materialization": made}


def _insert(writer: Writer, act: int, source: str, scope: str, rows: Sequence[dict[str, Any]]) -> None:
    names = ("id", "entity", "kind", "status", "step", "reason", "materialization")
    writer.insert(qc_event, [{"act": act, **{name: row[name] for name in names}} for row in rows])
    _tell(writer, act, source, scope, rows, ("warn", "censor"))


def _tell(
    writer: Writer,
    act: int,
    source: str,
    scope: str,
    rows: Sequence[dict[str, Any]],
    kinds: tuple[str, str],
    of: str | None = None,
) -> None:
    """Write the events into the chain, those that change usability apart from the others. `of`: the scope that many
    shared before."""
    fields = ("id", "name", "kind", "status", "step", "reason", "materialization")
    for bars, word in enumerate(kinds):
        mine = [{key: row[key] for key in fields} for row in rows if (row["status"] in BARRING) == bool(bars)]
        for at in range(0, len(mine), AN_EVENT):
            some = mine[at : at + AN_EVENT]
            subject = some[0]["name"] if len(some) == 1 else of or scope
            writer.event(word, subject, {"act": act, "source": source, "scope": scope, "events": some})


def _act(writer: Writer, source: str, scope: str) -> int:
    number = next_number(writer.connection, qc_act.c.id)
    writer.insert(qc_act, [{"id": number, "at": writer.at, "actor": writer.actor, "source": source, "scope": scope}])
    return number


_NUMBERS = select(entity.c.id, entity.c.seq).where(entity.c.level == bindparam("b_level"), in_bound_keys(entity.c.id))


def _numbers(connection: Connection, names: Iterable[tuple[str, str]]) -> dict[tuple[str, str], int]:
    """`entity.seq` by level and ID: a statement a level."""
    by_level: dict[str, set[str]] = {}
    for level, who in names:
        by_level.setdefault(level, set()).add(who)
    found: dict[tuple[str, str], int] = {}
    for level, some in by_level.items():
        rows = connection.execute(_NUMBERS, {"b_level": level, "keys": bind_keys(some)})
        found |= {(level, row.id): row.seq for row in rows}
    return found


def _open(connection: Connection, entities: set[int], scope: str) -> set[tuple[int, str, str | None]]:
    mine = in_keys(qc_event.c.entity, entities)
    rows = connection.execute(open_events().where(mine, qc_act.c.scope == scope))
    return {(row.entity, row.kind, row.step) for row in rows}


def read_qc_sheet(path: Path) -> tuple[list[QcEntry], str | None]:
    """Read a sheet (csv or tsv) with the columns level, id, kind, reason, and optionally analysis and source.
    Returns its entries, and its source if it names one."""
    table = read_table(path)
    header = [name.lower() for name in table.header]
    problems = list(table.problems)
    problems += [f"row 1: no column {name}" for name in COLUMNS if name not in header]
    problems += [f"row 1: {_unknown(name, 'column', (*COLUMNS, *OPTIONAL))}" for name in _foreign(header)]
    if not table.rows and not problems:
        problems.append("row 2: there are no rows; one event per row is expected")
    if problems:
        raise SheetError(str(path), problems)
    sayings, sources = [], set[str]()
    for line, cells in table.rows:
        one = dict(zip(header, cells, strict=True))
        sources.add(one.get("source", ""))
        step = one.get("analysis") or None
        sayings.append(QcEntry(one["level"].lower(), one["id"], one["kind"], one["reason"], step, line))
    if len(sources) > 1:
        raise SheetError(str(path), ["column source: several values; one sheet has one source"])
    return sayings, sources.pop() or None


def _foreign(header: Sequence[str]) -> list[str]:
    return [name for name in header if name not in (*COLUMNS, *OPTIONAL)]


def entities_where(project: Project, where: str) -> tuple[str, list[str]]:
    """`assay.flowcell=FC7` → its level, and all entities of that level with this value."""
    name, cut, value = where.partition("=")
    level, _, column = name.strip().partition(".")
    levels = project.settings.levels
    known = [f"{one}.{column}" for one in ENTITY_LEVELS for column in ("id", *levels[one].columns)]
    if not cut or name.strip() not in known:
        raise Usage(f"{where!r}: write assay.COLUMN=VALUE; {_unknown(name.strip(), 'level.column', known)}")
    with project.catalog.read() as connection:
        has = attribute(entity, column, connection.dialect.name).in_(texts_of(value.strip()))
        rows = connection.execute(select(entity.c.id).where(entity.c.level == level, has).order_by(entity.c.seq))
        found = list(rows.scalars())
    if not found:
        raise Usage(f"nobody has {name.strip()} = {value.strip()!r}")
    return level, found


def scope_of(where: str) -> str:
    """How a batch is remembered, however it is typed."""
    name, _, value = where.partition("=")
    return f"where {name.strip()}={value.strip()}"


@dataclass(frozen=True)
class Choice:
    """Which open events are meant: of an entity (and kind, and step), those of a batch, one event, or one act."""

    entity: tuple[str, str] | None = None
    kind: str | None = None
    step: str | None = None
    scope: str | None = None
    event: int | None = None
    act: int | None = None


def resolve(project: Project, choice: Choice, reason: str, source: str = "manual") -> QcAct:
    """Resolve the chosen open events and no others. Usage error if none is chosen, or if the choice is ambiguous."""
    if not reason.strip() or not reason.isprintable():
        raise Usage('say why, in one line: --reason "sequenced again, clean"')
    with project.catalog.write() as writer:
        rows = chosen_events(project, writer.connection, choice)
        scope = choice.scope or BY_NAME
        act = _act(writer, source, scope)
        _resolve(writer, act, source, scope, rows, [reason.strip()] * len(rows))
    return QcAct(act, [(row.id, f"{row.level}/{row.who}") for row in rows])


def _resolve(writer: Writer, act: int, source: str, scope: str, rows: Sequence[Any], reasons: Sequence[str]) -> None:
    """End these events, each for a reason of its own."""
    ended = list(zip(rows, reasons, strict=True))
    writer.insert(qc_resolution, [{"event": row.id, "act": act, "reason": reason} for row, reason in ended])
    told = [{**row._mapping, "name": f"{row.level}/{row.who}", "reason": reason} for row, reason in ended]
    _tell(writer, act, source, scope, told, ("warn-resolved", "release"), of=rows[0].scope if rows else None)


def chosen_events(project: Project, connection: Connection, choice: Choice) -> list[Any]:
    """The open events that are meant, as rows."""
    query = open_events()
    if choice.entity is not None:
        if choice.entity not in _numbers(connection, [choice.entity]):
            raise not_found(project, *choice.entity)
        query = query.where(entity.c.level == choice.entity[0], entity.c.id == choice.entity[1])
    exact = ((qc_event.c.kind, choice.kind), (qc_event.c.step, choice.step), (qc_act.c.scope, choice.scope))
    for column, wanted in (*exact, (qc_event.c.id, choice.event), (qc_act.c.id, choice.act)):
        if wanted is not None:
            query = query.where(column == wanted)
    rows = list(connection.execute(query))
    if not rows:
        number = f" {choice.event}" * (choice.event is not None)
        raise Usage(f"nothing to resolve: no such event{number} is open; `ct qc list` shows the open ones")
    if choice.entity is not None and choice.event is None and choice.act is None and len(rows) > 1:
        listed = "\n  ".join(f"--event {row.id}: {_line(row)}" for row in rows)
        raise Usage(f"{'/'.join(choice.entity)} has {len(rows)} open events; name one of them\n  {listed}")
    return rows


def _line(row: Any) -> str:
    step = f" for {row.step} only" if row.step else ""
    return f"{row.kind}{step} ({row.status}) on {row.at[:10]} by {row.actor} ({row.scope}): {row.reason}"


def statuses(project: Project) -> list[tuple[str, str, list[Any]]]:
    """All entities with an open event: name, status (the worst of events for all steps), and the events."""
    found: dict[str, list[Any]] = {}
    with project.catalog.read() as connection:
        for row in connection.execute(open_events()):
            found.setdefault(f"{row.level}/{row.who}", []).append(row)
    return [(name, status_of(rows), rows) for name, rows in found.items()]


def status_of(rows: Iterable[Any]) -> str:
    """The worst of some events; one that holds for one step only does not count."""
    return max((row.status for row in rows if row.step is None), key=STATUSES.index, default="pass")


def history(project: Project, who: tuple[str, str] | None = None) -> list[dict[str, Any]]:
    """Every event that ever was, of one entity or of all, with how it ended."""
    begun, over = qc_act.alias(), qc_act.alias()
    joined = qc_event.join(entity, entity.c.seq == qc_event.c.entity).join(begun, begun.c.id == qc_event.c.act)
    joined = joined.outerjoin(qc_resolution, qc_resolution.c.event == qc_event.c.id)
    joined = joined.outerjoin(over, over.c.id == qc_resolution.c.act)
    fields = (qc_event.c.id.label("event"), qc_event.c.act, entity.c.level, entity.c.id, qc_event.c.kind)
    ended = (over.c.at.label("resolved_at"), over.c.actor.label("resolved_by"))
    query = select(
        *(*fields, qc_event.c.status, qc_event.c.step, qc_event.c.reason, qc_event.c.materialization),
        *(begun.c.source, begun.c.scope, begun.c.at, begun.c.actor, *ended),
        qc_resolution.c.reason.label("resolved_reason"),
    ).select_from(joined)
    with project.catalog.read() as connection:
        if who is not None:
            if who not in _numbers(connection, [who]):
                raise not_found(project, *who)
            query = query.where(entity.c.level == who[0], entity.c.id == who[1])
        return [dict(row) for row in connection.execute(query.order_by(qc_event.c.id)).mappings()]


def qc_of_makings(
    writer: Writer,
    asset: str,
    level: str,
    made: Mapping[str, tuple[int, Mapping[str, Any]]],
    fresh: Container[int],
) -> None:
    """Record the QC that these makings of a step return (partition → number, facts). They are current from now on; the
    `fresh` ones were made now.

    It runs in the transaction of the result. QC from earlier makings of the step ends; what a person resolved stays
    resolved.
    """
    if level != "cohort":
        settled = _settled_by_people(
            writer.connection, [number for number, facts in made.values() if any(_said(facts))]
        )
        _follow(writer, f"step {asset}", level, made, settled, fresh)


def qc_of_results(writer: Writer, analysis: str, run: str, level: str, made: Mapping[str, Mapping[str, Any]]) -> None:
    """Record the QC of recorded results. QC from their earlier versions ends."""
    _follow(writer, result_scope(analysis, run), level, {who: (None, values) for who, values in made.items()}, set())


def result_scope(analysis: str, run: str) -> str:
    return f"record {analysis}" + f" {run}" * bool(run)


_STANDS = open_events().where(
    entity.c.level == bindparam("b_level"), in_bound_keys(entity.c.id), qc_act.c.scope == bindparam("b_scope")
)


def _follow(
    writer: Writer,
    scope: str,
    level: str,
    made: Mapping[str, tuple[int | None, Mapping[str, Any]]],
    settled: set[tuple[int, str]],
    fresh: Container[int] = (),
) -> None:
    connection = writer.connection
    stands = list(connection.execute(_STANDS, {"b_level": level, "keys": bind_keys(made), "b_scope": scope}))
    if not stands and not any(any(_said(facts)) for _, facts in made.values()):
        return
    numbers = _numbers(connection, [(level, who) for who in made])
    sayings = [
        (number, status, QcEntry(level, who, kind, reason))
        for who, (number, facts) in made.items()
        if (level, who) in numbers
        for status, kind, reason in _said(facts)
        if (number, kind) not in settled
    ]
    wanted = {(numbers[level, one.who], one.kind, one.reason) for _, _, one in sayings}
    known = {(row.entity, row.kind, row.reason) for row in stands}
    gone = [row for row in stands if (row.entity, row.kind, row.reason) not in wanted]
    new = [one for one in sayings if (numbers[level, one[2].who], one[2].kind, one[2].reason) not in known]
    if not (gone or new):
        return
    act, first = _act(writer, scope, scope), next_number(connection, qc_event.c.id)
    if gone:
        _resolve(writer, act, scope, scope, gone, [_over(made[row.who][0], fresh) for row in gone])
    rows = [
        _row(first + at, one, numbers[level, one.who], status, number) for at, (number, status, one) in enumerate(new)
    ]
    if rows:
        _insert(writer, act, scope, scope, rows)


def _over(making: int | None, fresh: Container[int]) -> str:
    """Why QC no longer holds: the later making, or the corrected result."""
    if making is None:
        return "corrected"
    return "made again" if making in fresh else "an earlier result is current again"


def _said(facts: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    status = facts.get("qc", "pass")
    if status in OF_STATUS:
        yield status, OF_STATUS[status], str(facts.get("qc_reason", ""))


def _settled_by_people(connection: Connection, makings: Sequence[int]) -> set[tuple[int, str]]:
    """(making, kind) of a step's QC that a person resolved."""
    if not makings:
        return set()
    joined = qc_event.join(qc_resolution, qc_resolution.c.event == qc_event.c.id)
    joined = joined.join(qc_act, qc_act.c.id == qc_resolution.c.act)
    mine = in_keys(qc_event.c.materialization, makings)
    rows = connection.execute(
        select(qc_event.c.materialization, qc_event.c.kind)
        .select_from(joined)
        # What a step ended itself has its own name as the source (`_follow`); all else is the word of a person.
        .where(mine, qc_act.c.source.not_like("step %"))
    )
    return {(row.materialization, row.kind) for row in rows}
