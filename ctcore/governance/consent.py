"""Consent of patients: status, uses and end; and reversing a revocation, on record.

Rows are only added. A patient's last row holds; `access` decides what follows from it on a day.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date
from typing import Any, Literal, get_args

from sqlalchemy import Connection, func, select, update

from ctcore.catalog.engine import Writer
from ctcore.catalog.tables import consent, entity, purge
from ctcore.errors import SheetError, Usage
from ctcore.governance.access import GIVEN, current_consents, status_on
from ctcore.governance.hints import not_found_texts
from ctcore.project import Project
from ctcore.store.digest import canonical_json
from ctcore.util.clock import today

Consent = Literal["full", "limited", "pending", "revoked", "withdrawn", "expired"]
STATUSES: tuple[Consent, ...] = get_args(Consent)
TAKEN_BACK = ("revoked", "withdrawn")
AN_EVENT = 1000  # patients of whom one event of the chain tells


@dataclass(frozen=True)
class Statement:
    """A patient's statement. `uses` belong to a limited consent; the consent ends on the day `until`.

    A statement with the current status is a correction: None keeps `until` and `form`, an empty text removes them.
    """

    status: str
    uses: tuple[str, ...] = ()
    dated: str | None = None
    until: str | None = None
    form: str | None = None
    reason: str = ""

    @property
    def is_over(self) -> bool:
        """Whether it ends on a day that is over."""
        return bool(self.until) and self.until <= today()


@dataclass(frozen=True)
class Record:
    """The authority for reversing a revocation: the decision, its day, and the two people who confirm it."""

    authority: str
    reference: str
    dated: str
    confirmed_by: tuple[str, ...]


def set_consent(project: Project, patients: Sequence[str], said: Statement) -> None:
    """Write it of all of these patients, or of none. Usage error with every problem."""
    problems = _problems(project, said)
    with project.catalog.write() as writer:
        numbers = _patients(project, writer.connection, patients, problems)
        # Under the write lock: of two statements at once, the second one is judged by the first.
        stands = _current_consents(writer.connection, numbers)
        problems += [wrong for who, row in stands.items() if (wrong := _reverses(who, row, said))]
        _refuse(problems)
        whole = {who: _corrected(stands.get(who), said) for who in numbers}
        new = {who for who in numbers if who not in stands or not _is_same(stands[who], whole[who])}
        _write(writer, {who: (seq, _as_row(whole[who])) for who, seq in numbers.items() if who in new})


def bar_again(writer: Writer, statements: Mapping[str, Mapping[str, Any]]) -> None:
    """Write statements of another history that take consent back (patient → as events have them), of all who may be
    used by this one."""
    numbers = _numbers(writer.connection)
    stands = _current_consents(writer.connection, {who: numbers[who] for who in statements if who in numbers})
    rows: dict[str, tuple[int, dict[str, Any]]] = {}
    for who, one in statements.items():
        if who in numbers and (who not in stands or status_on(stands[who], today()) in GIVEN):
            row = {name: one[name] for name in ("status", "dated", "until", "form", "reason")}
            rows[who] = numbers[who], {**row, "uses": canonical_json(one["uses"]).decode(), "record": None}
    if rows:
        _write(writer, rows)


@dataclass(frozen=True)
class ConsentRow:
    """A row of a sheet: one patient's statement."""

    row: int
    patient: str
    statement: Statement


def set_consents(project: Project, sheet: str, lines: Sequence[ConsentRow]) -> tuple[int, int]:
    """Write a whole sheet, or nothing: SheetError lists every problem. Returns the numbers of written and of
    unchanged consents."""
    judged = {said: _problems(project, said) for said in {line.statement for line in lines}}
    problems = [(line.row, wrong) for line in lines for wrong in _blank(line) or judged[line.statement]]
    first: dict[str, ConsentRow] = {}
    for line in (one for one in lines if one.patient):
        if first.setdefault(line.patient, line) is not line:
            problems.append((line.row, f"patient {line.patient} is in row {first[line.patient].row} already"))
    with project.catalog.write() as writer:
        numbers = _numbers(writer.connection)
        unknown = [who for who in first if who not in numbers]
        words = not_found_texts(project, "patient", unknown)
        problems += [(first[who].row, said) for who, said in zip(unknown, words, strict=True)]
        stands = _current_consents(writer.connection, {who: numbers[who] for who in first if who in numbers})
        for who, row in stands.items():
            if wrong := _reverses(who, row, first[who].statement):
                problems.append((first[who].row, wrong))
        if problems:
            raise SheetError(sheet, [f"row {row}: {said}" for row, said in sorted(problems, key=lambda one: one[0])])
        whole = {who: _corrected(stands.get(who), line.statement) for who, line in first.items()}
        new = {who: said for who, said in whole.items() if who not in stands or not _is_same(stands[who], said)}
        _write(writer, {who: (numbers[who], _as_row(said)) for who, said in new.items()})
    return len(new), len(first) - len(new)


def _blank(line: ConsentRow) -> list[str]:
    cells = (("patient", line.patient), ("status", line.statement.status))
    return [f"column {name} is blank" for name, text in cells if not text]


def _current_consents(connection: Connection, numbers: Mapping[str, int]) -> dict[str, Any]:
    """The consent of each of these patients that was written last."""
    names = {seq: who for who, seq in numbers.items()}
    return {names[row.entity]: row for row in current_consents(connection, names.keys())} if names else {}


def _corrected(row: Any, said: Statement) -> Statement:
    """Complete a correction from the current consent. A consent that has ended does not count."""
    if row is None or status_on(row, today()) != said.status:
        return said
    kept = {name: getattr(row, name) for name in ("until", "form") if getattr(said, name) is None}
    return replace(said, **kept)


def _reverses(who: str, row: Any, said: Statement) -> str | None:
    if row.status not in TAKEN_BACK or said.status in TAKEN_BACK:
        return None
    how = f"`ct consent restore {who}` reverses it, on record"
    return f"patient {who}: consent was {row.status} on {row.dated}; {how}"


def _is_same(row: Any, said: Statement) -> bool:
    """Whether the current consent equals this statement; without a day, any day matches."""
    new = _as_row(said)
    names = [name for name in new if name not in ("record", "dated") or (name == "dated" and said.dated)]
    return all(getattr(row, name) == new[name] for name in names)


def _as_row(said: Statement) -> dict[str, Any]:
    return {
        "status": said.status,
        # Sorted, as `_is_same` compares texts: naming the same uses in another order is no new consent.
        "uses": canonical_json(sorted(said.uses)).decode(),
        "dated": said.dated or today(),
        "until": said.until or None,
        "form": said.form or None,
        "reason": said.reason,
        "record": None,
    }


def restore(project: Project, patient: str, record: Record) -> Any:
    """Restore the consent before a revocation: its tier, uses and end. Returns it."""
    problems = _record_problems(record)
    with project.catalog.write() as writer:
        numbers = _patients(project, writer.connection, [patient], problems)
        _refuse(problems)
        mine = select(consent).where(consent.c.entity == numbers[patient]).order_by(consent.c.id.desc())
        rows = writer.execute(mine).all()
        if not rows or rows[0].status not in TAKEN_BACK:
            raise Usage(f"patient {patient}: nothing to restore; the consent was not revoked or withdrawn")
        if record.dated < rows[0].dated:
            raise Usage(f"patient {patient}: the decision ({record.dated}) is older than what it reverses")
        before = next((row for row in rows if row.status not in TAKEN_BACK), None)
        row = {name: getattr(before, name) for name in ("status", "uses", "until", "form")} if before else _UNSAID
        why = f"{rows[0].status} on {rows[0].dated}, reversed by {record.authority} ({record.reference})"
        new = {**row, "dated": record.dated, "reason": why, "record": canonical_json(asdict(record)).decode()}
        _write(writer, {patient: (numbers[patient], new)})
        theirs = select(purge.c.id).where(purge.c.patient == patient)  # what was taken out may be registered again
        writer.execute(update(entity).where(entity.c.purged.in_(theirs)).values(purged=None))
    return before


_UNSAID: Mapping[str, Any] = {"status": "full", "uses": "[]", "until": None, "form": None}


def current(project: Project) -> list[dict[str, Any]]:
    """The current consent of every patient on record."""
    day = today()
    with project.catalog.read() as connection:
        names: dict[int, str] = {row.seq: row.id for row in connection.execute(_all_patients())}
        rows = current_consents(connection)
    return [{"patient": names[row.entity], **_shown(row), "status": status_on(row, day)} for row in rows]


def history(project: Project, patient: str | None = None) -> list[dict[str, Any]]:
    """All consents, of one patient or of all."""
    query = select(consent, entity.c.id.label("patient")).join(entity, entity.c.seq == consent.c.entity)
    with project.catalog.read() as connection:
        if patient is not None:
            problems: list[str] = []
            _patients(project, connection, [patient], problems)
            _refuse(problems)
            query = query.where(entity.c.id == patient)
        rows = connection.execute(query.order_by(consent.c.id)).all()
    return [{"patient": row.patient, **_shown(row)} for row in rows]


def _all_patients() -> Any:
    return select(entity.c.seq, entity.c.id).where(entity.c.level == "patient")


def _shown(row: Any) -> dict[str, Any]:
    names = ("status", "dated", "until", "form", "reason", "at", "actor")
    record = json.loads(row.record) if row.record else None
    return {**{name: getattr(row, name) for name in names}, "uses": json.loads(row.uses), "record": record}


def _write(writer: Writer, rows: Mapping[str, tuple[int, Mapping[str, Any]]]) -> None:
    first = (writer.execute(select(func.max(consent.c.id))).scalar() or 0) + 1
    same = {"at": writer.at, "actor": writer.actor}
    listed = [{"id": first + at, "entity": seq, **row, **same} for at, (seq, row) in enumerate(rows.values())]
    writer.insert(consent, listed)
    told = [{"patient": who, **_shown_row(row)} for who, (_, row) in rows.items()]
    for at in range(0, len(told), AN_EVENT):
        some = told[at : at + AN_EVENT]
        subject = f"patient/{some[0]['patient']}" if len(some) == 1 else "patient"
        writer.event("consent", subject, {"consents": some})


def _shown_row(row: Mapping[str, Any]) -> dict[str, Any]:
    record = json.loads(row["record"]) if row["record"] else None
    return {**row, "uses": json.loads(row["uses"]), "record": record}


def _patients(project: Project, connection: Connection, patients: Sequence[str], problems: list[str]) -> dict[str, int]:
    """The patients' numbers; an unregistered patient is a problem."""
    known = _numbers(connection)
    problems += not_found_texts(project, "patient", [who for who in dict.fromkeys(patients) if who not in known])
    return {who: known[who] for who in dict.fromkeys(patients) if who in known}


def _numbers(connection: Connection) -> dict[str, int]:
    """`entity.seq` of all patients by ID."""
    return {row.id: row.seq for row in connection.execute(_all_patients())}


def _refuse(problems: Sequence[str]) -> None:
    if problems:
        many = "nothing was written:\n  " + "\n  ".join(problems)
        raise Usage(problems[0] if len(problems) == 1 else many)


def _problems(project: Project, said: Statement) -> list[str]:
    known, found = project.settings.uses.known, []
    if said.status not in STATUSES:
        found.append(f"no consent {said.status!r}; it is one of {', '.join(STATUSES)}")
    listed = f"[consent] uses of ct.toml has: {', '.join(map(repr, known)) or 'none yet'}"
    if said.status == "limited" and not said.uses:
        found.append(f"name the uses of a limited consent: limited --use {next(iter(known), 'USE')}; {listed}")
    if said.status in STATUSES and said.status != "limited" and said.uses:
        found.append(f"name the uses of a limited consent only, not of {said.status}")
    found += [f"no use {use!r}; {listed}" for use in said.uses if use not in known]
    if said.until and said.status not in GIVEN:
        found.append(f"--until is for a consent that is given, not for {said.status}")
    if said.until and said.dated and said.until <= said.dated:
        found.append(f"--until {said.until} is not after --date {said.dated}: it would end before it begins")
    if said.status in TAKEN_BACK and not (said.form or said.reason):
        found.append("where does it stand? --form 'withdrawal form 12', or --reason")
    found += [wrong for day in (said.dated, said.until or None) if (wrong := _not_a_day(day))]
    if is_future(said.dated):
        found.append(f"--date {said.dated} lies in the future; a consent takes effect at once")
    found += [f"{text!r}: one line of printable text" for text in (said.form, said.reason) if not _is_line(text)]
    return found


def is_future(day: str | None) -> bool:
    """Whether a day is to come."""
    return day is not None and _not_a_day(day) is None and day > today()


def _is_line(text: str | None) -> bool:
    return text is None or text.isprintable()


def _not_a_day(day: str | None) -> str | None:
    try:
        # The form as well: since Python 3.11, `fromisoformat` also takes 20260131 and 2026-W05-6, and days are compared
        # as texts.
        fine = day is None or (re.fullmatch(r"\d{4}-\d\d-\d\d", day) and date.fromisoformat(day))
    except ValueError:
        fine = False
    return None if fine else f"{day!r} is no day; write YYYY-MM-DD"


def _record_problems(record: Record) -> list[str]:
    found = []
    for option, text in (("--authority", record.authority), ("--reference", record.reference)):
        if not text.strip() or not text.isprintable():
            found.append(f"{option}: who decided it, and where does it stand? One line of text")
    found += [said for said in [_not_a_day(record.dated)] if said]
    if is_future(record.dated):
        found.append(f"--date {record.dated} lies in the future; the decision has been made")
    people = {name.strip().casefold() for name in record.confirmed_by if name.strip()}
    if len(people) < 2:
        found.append("two people confirm it: --confirmed-by A --confirmed-by B, two different names")
    return found
