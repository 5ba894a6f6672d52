"""The declared analyses inside the database: a row that a hand writes is checked as one that `ct record` writes.

As `schema_triggers` does it for levels: triggers from the declaration. Rows are added and never changed.
"""

import json
from collections.abc import Iterator

from sqlalchemy import Connection, select, text

from ctcore.catalog.schema_triggers import is_value, listed_as, postgres_check, quoted, run, sorted_columns
from ctcore.catalog.tables import setting
from ctcore.model.analysis import QC_NAMES, Analyses, Analysis, as_json, from_json
from ctcore.store.digest import canonical_json

SETTING = "analyses"
_PREFIX = "measured_"
_FUNCTION = f"{_PREFIX}check"
_WAY = "see `ct schema check`"
_KEPT = "results are only added; `ct record` writes a new version"


_APPLIED = select(setting.c.value).where(setting.c.name == SETTING)


def applied_analyses(connection: Connection) -> Analyses:
    """The analyses that the database enforces."""
    found = connection.execute(_APPLIED).scalar()
    return {} if found is None else from_json(json.loads(found))


def is_applied(connection: Connection, analyses: Analyses) -> bool:
    found = connection.execute(_APPLIED).scalar()
    return (found or "{}") == canonical_json(as_json(analyses)).decode()


def enforce(connection: Connection, analyses: Analyses) -> None:
    """Replace the rules in the database by those of a declaration."""
    for statement in _present(connection):
        run(connection, statement)
    for statement in _rules(connection, analyses):
        run(connection, statement)


def is_enforced(connection: Connection, analyses: Analyses) -> bool:
    if not analyses and not _present(connection):
        return True
    if connection.dialect.name == "sqlite":
        made = text(f"SELECT sql FROM sqlite_master WHERE type = 'trigger' AND name GLOB '{_PREFIX}*'")
        return set(connection.execute(made).scalars()) == set(_sqlite(analyses))
    source = text("SELECT prosrc FROM pg_proc WHERE proname = :name AND pronamespace = current_schema()::regnamespace")
    return connection.execute(source.bindparams(name=_FUNCTION)).scalar() == _body(analyses)


def _rules(connection: Connection, analyses: Analyses) -> Iterator[str]:
    return _sqlite(analyses) if connection.dialect.name == "sqlite" else _postgresql(analyses)


def _present(connection: Connection) -> list[str]:
    """The statements that drop the existing triggers."""
    if connection.dialect.name == "sqlite":
        made = text(f"SELECT name FROM sqlite_master WHERE type = 'trigger' AND name GLOB '{_PREFIX}*'")
        return [f'DROP TRIGGER "{name}"' for name in connection.execute(made).scalars()]
    there = text("SELECT 1 FROM pg_proc WHERE proname = :name AND pronamespace = current_schema()::regnamespace")
    is_there = connection.execute(there.bindparams(name=_FUNCTION)).first()
    return [f'DROP FUNCTION "{_FUNCTION}"() CASCADE'] if is_there else []  # with its triggers


def _not_as_declared(name: str) -> str:
    return f"{name}: a result is not as [analyses.{name}] declares it; {_WAY}"


def _sqlite(analyses: Analyses) -> Iterator[str]:
    known = listed_as([quoted(name) for name in sorted(analyses)])
    said = quoted(f"ct.toml declares no such analysis; {_WAY}")
    begins = "BEFORE INSERT ON result WHEN"
    others = f"NEW.analysis NOT IN ({known})"
    yield f'CREATE TRIGGER "{_PREFIX}known" {begins} {others} BEGIN SELECT RAISE(ABORT, {said}); END'
    yield f'CREATE TRIGGER "{_PREFIX}kept" BEFORE UPDATE ON result BEGIN SELECT RAISE(ABORT, {quoted(_KEPT)}); END'
    for at, name in enumerate(sorted(analyses)):
        said = quoted(_not_as_declared(name))
        yield (
            f'CREATE TRIGGER "{_PREFIX}of_{at}" {begins} NEW.analysis = {quoted(name)} '
            f"BEGIN SELECT RAISE(ABORT, {said}) WHERE NOT ({_is_right(analyses[name])}); END"
        )


def _is_right(analysis: Analysis) -> str:
    columns = sorted_columns(analysis)
    cases = " ".join(f"WHEN {quoted(column.name)} THEN {is_value(column)}" for column in columns)
    cases += "".join(f" WHEN {quoted(name)} THEN type = 'text'" for name in QC_NAMES)
    required = [quoted(column.name) for column in columns if column.required]
    wrong = f"sum(CASE key {cases} ELSE 0 END) IS NOT count(*) AND count(*) > 0"
    wrong += f" OR total(key IN ({listed_as(required)})) <> {len(required)}"
    return (
        f"json_valid(NEW.facts) AND json_type(NEW.facts) = 'object' "
        f"AND NOT (SELECT {wrong} FROM json_each(NEW.facts)) "
        f"AND (SELECT level FROM entity WHERE seq = NEW.entity) = {quoted(analysis.level)}"
    )


def _postgresql(analyses: Analyses) -> Iterator[str]:
    yield f'CREATE FUNCTION "{_FUNCTION}"() RETURNS trigger LANGUAGE plpgsql AS {quoted(_body(analyses))}'
    ends = f'FOR EACH STATEMENT EXECUTE FUNCTION "{_FUNCTION}"()'
    yield f'CREATE TRIGGER "{_PREFIX}insert" AFTER INSERT ON result REFERENCING NEW TABLE AS new_rows {ends}'
    yield f'CREATE TRIGGER "{_PREFIX}update" BEFORE UPDATE ON result {ends}'


def _body(analyses: Analyses) -> str:
    cases = [f"WHEN analysis = {quoted(name)} THEN {_said(analyses[name])}" for name in sorted(analyses)]
    cases.append(f"WHEN true THEN analysis || ': ct.toml declares no such analysis; {_WAY}'")
    listed = "\n  ".join(cases)
    return (
        "DECLARE wrong text; BEGIN\n"
        f"IF TG_OP = 'UPDATE' THEN RAISE EXCEPTION {quoted(_KEPT)} USING ERRCODE = 'check_violation'; END IF;\n"
        f"SELECT said INTO wrong FROM (SELECT CASE\n  {listed} END AS said\n"
        "FROM (SELECT analysis, level, facts AS attributes, facts::jsonb AS j\n"
        "FROM new_rows JOIN entity ON seq = entity OFFSET 0) AS parsed) AS judged\n"
        "WHERE said IS NOT NULL LIMIT 1;\n"
        "IF wrong IS NOT NULL THEN RAISE EXCEPTION '%', wrong USING ERRCODE = 'check_violation'; END IF;\n"
        "RETURN NULL; END"
    )


def _said(analysis: Analysis) -> str:
    """A CASE, because PostgreSQL asks conditions in an order of its own."""
    columns = sorted_columns(analysis)
    names = listed_as([quoted(name) for name in (*(column.name for column in columns), *QC_NAMES)])
    said = quoted(_not_as_declared(analysis.name))
    good = "".join(f" WHEN NOT ({postgres_check(column)}) THEN {said}" for column in columns)
    return (
        f"CASE WHEN jsonb_typeof(j) <> 'object' THEN {said} WHEN level <> {quoted(analysis.level)} THEN {said} "
        f"WHEN (j - ARRAY[{names}]::text[]) <> '{{}}' THEN {said}{good} END"
    )
