"""Results that are made elsewhere: a row for each entity, analysis and run; a correction is another version.

All of a sheet is written, or nothing. What several processes record at once shares a transaction.
"""

import difflib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, bindparam, func, select

from ctcore.catalog.engine import Writer, bind_keys, in_bound_keys
from ctcore.catalog.group_commit import Request, commit_in_group
from ctcore.catalog.tables import entity, result
from ctcore.config.qc_and_consent import qc_problem
from ctcore.errors import SheetError, Usage
from ctcore.governance.access import Bar, bars
from ctcore.governance.hints import not_found
from ctcore.governance.qc import qc_of_results, result_scope
from ctcore.intake import analysis_changes
from ctcore.model.analysis import QC_NAMES, Analysis
from ctcore.model.column import Column, Value
from ctcore.model.values import convert_text
from ctcore.project import Project
from ctcore.sheet.columns import ALIASES
from ctcore.sheet.options import EVERY, Options
from ctcore.sheet.rows import Rows, read_table, with_blanks
from ctcore.store.digest import canonical_json
from ctcore.util.clock import today

BY_NAME = "by name"
AN_EVENT = 1000  # results of which one event of the chain tells


@dataclass(frozen=True)
class ResultEntry:
    """What is recorded of one entity. `row`: where it stands in a sheet; `blank`: what was named, and has no value.

    A correction keeps what it does not name.
    """

    who: str
    values: Mapping[str, Value]
    row: int | None = None
    blank: frozenset[str] = frozenset()


@dataclass(frozen=True)
class RecordedResults:
    """What was written: (entity, version) each, and how many were there already, the same."""

    written: Sequence[tuple[str, int]]
    same: int


def analysis_of(project: Project, name: str) -> Analysis:
    known = project.settings.analyses
    if name not in known:
        near = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"[analyses] of ct.toml has: {', '.join(known) or 'none yet'}"
        raise Usage(f"no analysis {name!r}; {hint}")
    return known[name]


def record(
    project: Project,
    analysis: Analysis,
    entered: Sequence[ResultEntry],
    *,
    run: str = "",
    reason: str = "",
    source: str = BY_NAME,
) -> RecordedResults:
    """Write all of it, or nothing, with every problem. What is recorded already, and is the same, is passed over."""
    for option, text in (("--run", run), ("--reason", reason)):
        if not text.isprintable():
            raise Usage(f"{option} {text!r:.80}: one line of text")
    body = {
        "analysis": analysis.name,
        "run": run.strip(),
        "reason": reason.strip(),
        "source": source,
        "rows": [[one.who, dict(one.values), one.row, sorted(one.blank)] for one in entered],
    }
    # About each entity: a second version is judged by the first one, so the two cannot be judged in one look.
    mine = Request(project.catalog.actor, [f"{analysis.name}/{one.who}" for one in entered], body)
    folder = project.work / "together" / f"results-{project.catalog.write_queue}"
    answer = commit_in_group(folder, mine, partial(_record, project))
    if answer["problems"]:
        _refuse(answer["problems"], source)
    return RecordedResults([(who, version) for who, version in answer["written"]], answer["same"])


def _refuse(problems: Sequence[str], source: str) -> None:
    if source != BY_NAME:
        raise SheetError(source, problems)
    raise Usage("; ".join(problems))


def recorded_of(project: Project, level: str, who: str) -> list[dict[str, Any]]:
    """What is recorded of one entity: the version that holds, of each analysis and run."""
    with project.catalog.read() as connection:
        mine = (entity.c.level == level) & (entity.c.id == who)
        joined = select(result).join(entity, entity.c.seq == result.c.entity).where(mine)
        rows = connection.execute(joined.order_by(result.c.analysis, result.c.run, result.c.version)).all()
    last = {(row.analysis, row.run): row for row in rows}
    names = ("analysis", "run", "version", "reason", "source", "at", "actor")
    return [{**{name: getattr(row, name) for name in names}, "values": json.loads(row.facts)} for row in last.values()]


def values_of(analysis: Analysis, cells: Mapping[str, str]) -> tuple[dict[str, Value], list[str]]:
    """Typed values of texts, and all that is wrong with them. A blank text is no value, and blanks what was there."""
    found: dict[str, Value] = {}
    problems: list[str] = []
    columns = {**analysis.columns, **{name: Column(name) for name in QC_NAMES}}
    for name, text in cells.items():
        if name not in columns:
            problems.append(_unknown(name, analysis))
        elif text:
            found[name], problem = convert_text(text, columns[name])
            problems += [f"column {name!r}: {text!r:.80} {problem}"] if problem else []
    for name, column in analysis.columns.items():
        if column.required and cells.get(name) == "":
            problems.append(_lacking(name))
    if (problem := qc_problem(found, analysis.level)) is not None:
        problems.append(problem.replace("it returns", "there is"))
    return found, problems


def blank_columns(cells: Mapping[str, str]) -> frozenset[str]:
    """The columns that are named without a value."""
    return frozenset(name for name, text in cells.items() if not text)


def _lacking(name: str) -> str:
    return f"column {name!r}: blank, but required"


def _unknown(name: str, analysis: Analysis) -> str:
    known = [*analysis.columns, *QC_NAMES]
    near = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"declared: {', '.join(known)}"
    return f"unknown column {name!r:.80}; {hint} (--map THEIRS=OURS, or --ignore COLUMN)"


def read_entered(analysis: Analysis, path: Path, options: Options) -> list[ResultEntry]:
    """A sheet (csv, tsv, xlsx): a column with IDs, and columns of the analysis. SheetError with every problem."""
    table = with_blanks(read_table(path, options), options.blank)
    names, problems = _header(table, analysis, options)
    if problems or table.problems:
        raise SheetError(str(path), [*problems, *table.problems])
    found: dict[str, ResultEntry] = {}
    for line, cells in table.rows:
        mine = {name: cell for name, cell in zip(names, cells, strict=True) if name is not None}
        who = mine.pop(ID)
        values, wrong = values_of(analysis, mine)
        if not who:
            wrong.append("no ID")
        elif who in found:
            wrong.append(f"{who} is there already, in row {found[who].row}")
        problems += [f"row {line}, {said}" for said in wrong]
        found.setdefault(who, ResultEntry(who, values, line, blank_columns(mine)))
    if not found:
        problems.append("row 2: no result; one row an entity is expected below the header")
    if problems:
        raise SheetError(str(path), problems)
    return list(found.values())


ID = "id"


def _header(table: Rows, analysis: Analysis, options: Options) -> tuple[list[str | None], list[str]]:
    """What each column means (None: passed over), and what is wrong with that."""
    ids = {ID, "entity", f"{analysis.level}_id", *(a for a, name in ALIASES.items() if name == f"{analysis.level}_id")}
    folded = {name.lower(): name for name in (*analysis.columns, *QC_NAMES)} | dict.fromkeys(ids, ID)
    found: list[str | None] = []
    problems: list[str] = []
    for written in table.header:
        name = options.name_of(written)
        meant = None if name is None else folded.get(name.lower(), None if EVERY in options.ignore else name)
        if meant is not None and meant in found:
            problems.append(f"row 1: two columns mean {meant}; keep one of them")
        elif meant is not None and meant not in folded.values():
            problems.append(f"row 1: {_unknown(meant, analysis)}")
        found.append(meant)
    if ID not in found:
        problems.append(f"row 1: no column {analysis.level}_id; add it: it names the entity of each row")
    return found, problems


_LAST = select(func.max(result.c.id))


def _record(project: Project, requests: Sequence[Request]) -> list[dict[str, Any]]:
    """An answer a request; one that has a problem is not written, the others are."""
    with project.catalog.write() as writer:
        analysis_changes.enforce_analyses(writer, project)
        known = _Known(project, writer.connection, requests)
        number = (writer.execute(_LAST).scalar() or 0) + 1
        answers, rows_of_all = [], list[dict[str, Any]]()
        said: dict[tuple[str, str, str], dict[str, Any]] = {}
        for one in requests:
            writer.actor = one.actor
            rows, problems, same = known.judged(one.body)
            written = [] if problems else [{"id": number + at, **row} for at, row in enumerate(rows)]
            number += len(written)
            rows_of_all += _row_with_event(writer, one.body, known.analyses[one.body["analysis"]].level, written)
            listed = [(row["who"], row["version"]) for row in written]
            answers.append({"problems": problems, "written": listed, "same": same})
            facts = {row["who"]: json.loads(row["facts"]) for row in written}
            said.setdefault((one.actor, one.body["analysis"], one.body["run"]), {}).update(facts)
        writer.insert(result, rows_of_all)
        for (writer.actor, analysis, run), facts in said.items():
            qc_of_results(writer, analysis, run, known.analyses[analysis].level, facts)
    return answers


def _row_with_event(
    writer: Writer, body: Mapping[str, Any], level: str, rows: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """The rows as they are inserted, after the events that tell of them."""
    if not rows:
        return []
    same = {key: body[key] for key in ("analysis", "run", "reason", "source")}
    stamp = {**same, "at": writer.at, "actor": writer.actor}
    mine = ("id", "entity", "version", "facts")
    told = [
        {"entity": f"{level}/{row['who']}", "version": row["version"], "values": json.loads(row["facts"])}
        for row in rows
    ]
    for at in range(0, len(told), AN_EVENT):
        some = told[at : at + AN_EVENT]
        subject = f"{body['analysis']}/{rows[0]['who']}" if len(told) == 1 else body["analysis"]
        writer.event("record", subject, {**same, "results": some})
    return [{**{key: row[key] for key in mine}, **stamp} for row in rows]


class _Known:
    """What the catalog has of those of whom results come: a few statements for all requests."""

    def __init__(self, project: Project, connection: Connection, requests: Sequence[Request]) -> None:
        self.project, self.analyses = project, project.settings.analyses
        bodies = [one.body for one in requests]
        self.lines: dict[tuple[str, str], tuple[int, ...]] = {}
        whose: dict[str, set[str]] = {}
        for body in bodies:
            whose.setdefault(self.analyses[body["analysis"]].level, set()).update(row[0] for row in body["rows"])
        for level, some in whose.items():
            for who, *line in connection.execute(_lines(), {"b_level": level, "keys": bind_keys(some)}):
                self.lines[level, who] = tuple(seq for seq in line if seq is not None)
        uses = {name: project.settings.uses.of(name) for name in self.analyses}
        everybody = {seq for line in self.lines.values() for seq in line}
        self.bars: dict[int, list[Bar]] = {}
        for bar in bars(connection, uses, today(), everybody, project.settings.uses.required):
            self.bars.setdefault(bar.entity, []).append(bar)
        self.held = _held(connection, {line[0] for line in self.lines.values()}, bodies)

    def judged(self, body: Mapping[str, Any]) -> tuple[list[dict[str, Any]], list[str], int]:
        """The rows to write, all problems, and how many are recorded already."""
        analysis, rows, problems, same = self.analyses[body["analysis"]], list[dict[str, Any]](), list[str](), 0
        for who, said_now, line, blanked in body["rows"]:
            where = f"row {line}: " if line is not None else ""
            version, before = self._before(analysis, who, body["run"])
            said = "; ".join(self._problems(analysis, who, body["run"], first=not problems))
            whole = _whole(analysis, before, said_now, blanked)
            values = canonical_json(whole).decode()
            if before is None and not whole:
                named = ", ".join(analysis.columns)
                said = said or f"{who}: no value of {analysis.name}; give one of {named}, or leave it out"
            lacking = [_lacking(name) for name, one in analysis.columns.items() if one.required and name not in whole]
            if said:
                problems.append(where + said)
            elif lacking:
                problems += [f"row {line}, {wrong}" if line is not None else f"{who}: {wrong}" for wrong in lacking]
            elif before == values:
                same += 1
            elif before is not None and not body["reason"]:
                changed = _changed(json.loads(before), whole)
                how = "say why with --reason, or record another --run"
                problems.append(f"{where}{who} has a {analysis.name} already ({changed}); {how}")
            else:
                seq = self.lines[analysis.level, who][0]
                rows.append({"who": who, "entity": seq, "version": version + 1, "facts": values})
        return rows, problems, same

    def _before(self, analysis: Analysis, who: str, run: str) -> tuple[int, str | None]:
        line = self.lines.get((analysis.level, who), (0,))
        return self.held.get((line[0], analysis.name, run), (0, None))

    def _problems(self, analysis: Analysis, who: str, run: str, first: bool) -> Iterator[str]:
        line = self.lines.get((analysis.level, who))
        if line is None:  # what was probably meant takes a look at many: for the first one only
            yield (
                str(not_found(self.project, analysis.level, who))
                if first
                else f"no {analysis.level} {who!r:.80} is registered"
            )
            return
        # The QC of the very result that is corrected here does not keep its correction out.
        own = result_scope(analysis.name, run)
        for bar in (bar for seq in line for bar in self.bars.get(seq, ())):
            if bar.step in (None, analysis.name) and bar.scope != own:
                yield f"{analysis.level} {who} is excluded: {bar.words}"


def _whole(
    analysis: Analysis, before: str | None, values: Mapping[str, Value], blanked: Iterable[str]
) -> dict[str, Value]:
    """What is recorded: what a correction does not name stays as it was. QC and its reason are one."""
    named = {*values, *blanked}
    named |= set(QC_NAMES) if named.intersection(QC_NAMES) else set()
    known = {*analysis.columns, *QC_NAMES} - named
    was: dict[str, Value] = json.loads(before) if before is not None else {}
    return {**{name: value for name, value in was.items() if name in known}, **values}


@cache
def _lines() -> Any:
    """ID, own number, those of parent and grandparent."""
    parent, above = entity.alias(), entity.alias()
    joined = entity.outerjoin(parent, parent.c.seq == entity.c.parent).outerjoin(above, above.c.seq == parent.c.parent)
    mine = (entity.c.level == bindparam("b_level")) & in_bound_keys(entity.c.id)
    return select(entity.c.id, entity.c.seq, parent.c.seq, above.c.seq).select_from(joined).where(mine)


_HELD = (
    select(result.c.entity, result.c.analysis, result.c.run, result.c.version, result.c.facts)
    .where(in_bound_keys(result.c.entity, "entities"), in_bound_keys(result.c.analysis, "analyses"))
    .order_by(result.c.version)
)


def _held(
    connection: Connection, entities: Iterable[int], bodies: Sequence[Mapping[str, Any]]
) -> dict[tuple[int, str, str], tuple[int, str]]:
    """The version that holds of each entity, analysis and run, with its values."""
    mine = {"entities": bind_keys(entities), "analyses": bind_keys({body["analysis"] for body in bodies})}
    rows = connection.execute(_HELD, mine)
    return {(seq, name, run): (version, values) for seq, name, run, version, values in rows}


def _changed(before: Mapping[str, Value], after: Mapping[str, Value]) -> str:
    names = [name for name in dict.fromkeys((*before, *after)) if before.get(name) != after.get(name)]
    shown = [f"{name} {_shown(before.get(name))} → {_shown(after.get(name))}" for name in names[:3]]
    return ", ".join(shown) + ", …" * (len(names) > 3)


def _shown(value: Value) -> str:
    return "none" if value is None else str(value)
