"""The declared schema inside the database, so that also a hand-written statement cannot break it.

Attributes are one JSON text a row, so the rules are triggers made from the declaration: one look a row on SQLite, one a
statement on PostgreSQL. Unique columns are unique indexes on both.
"""

import json
import math
from collections.abc import Iterator

from sqlalchemy import Connection, select, text

from ctcore.catalog.tables import setting
from ctcore.model.analysis import Analysis
from ctcore.model.column import Column, Value
from ctcore.model.levels import ENTITY_LEVELS, Level
from ctcore.model.schema import Levels, LevelSchema, as_json, from_json
from ctcore.model.values import convert_text
from ctcore.store.digest import canonical_json

PREFIX = "declared_"
_FUNCTION = f"{PREFIX}check"
SETTING = "schema"
_WAY = "see `ct schema check`"
# GLOB, because SQLite has no regular expressions of its own (sqlite.org/lang_expr.html, REGEXP).
_UNSAFE = "NEW.id GLOB '*[^A-Za-z0-9_.-]*' OR NEW.id NOT GLOB '[A-Za-z0-9]*' OR length(NEW.id) > 64"


def applied_schema(connection: Connection) -> Levels | None:
    """The schema that the database enforces; None where none was applied yet."""
    found = connection.execute(select(setting.c.value).where(setting.c.name == SETTING)).scalar()
    return None if found is None else from_json(json.loads(found))


def is_applied(connection: Connection, levels: Levels) -> bool:
    found = connection.execute(select(setting.c.value).where(setting.c.name == SETTING)).scalar()
    return found == canonical_json(as_json(levels)).decode()


def enforce(connection: Connection, levels: Levels) -> None:
    """Replace the database's rules by those of a declaration. The caller has checked the existing rows."""
    relax(connection)
    rules = _sqlite if connection.dialect.name == "sqlite" else _postgresql
    for statement in rules(levels):
        run(connection, statement)


def relax(connection: Connection) -> None:
    """Take the rules out, until `enforce` in the same transaction."""
    for statement in _present(connection):
        run(connection, statement)


def is_enforced(connection: Connection, levels: Levels) -> bool:
    """Whether the database has the rules of a declaration; by their names on PostgreSQL, which rewrites them."""
    if connection.dialect.name == "sqlite":
        made = text("SELECT sql FROM sqlite_master WHERE name LIKE 'declared!_%' ESCAPE '!'")
        return set(connection.execute(made).scalars()) == set(_sqlite(levels))
    source = text("SELECT prosrc FROM pg_proc WHERE proname = :name AND pronamespace = current_schema()::regnamespace")
    body = connection.execute(source.bindparams(name=_FUNCTION)).scalar()
    return body == _body(levels) and {_name(one) for one in _present(connection)} == set(
        map(_name, _postgresql(levels))
    )


def _name(statement: str) -> str:
    return statement.split('"')[1]


def run(connection: Connection, statement: str) -> None:
    # Without `no_parameters`, psycopg2 takes a % in a declared value for a placeholder.
    connection.exec_driver_sql(statement, execution_options={"no_parameters": True})


def _present(connection: Connection) -> list[str]:
    """The statements that drop the existing triggers."""
    if connection.dialect.name == "sqlite":
        made = text("SELECT type, name FROM sqlite_master WHERE name LIKE 'declared!_%' ESCAPE '!'")
        return [f'DROP {kind} "{name}"' for kind, name in connection.execute(made)]
    triggers = text(
        "SELECT tgname FROM pg_trigger WHERE tgrelid = 'entity'::regclass AND tgname LIKE 'declared\\_%' "
        "AND NOT tgisinternal"
    )
    functions = text(
        "SELECT proname FROM pg_proc WHERE pronamespace = current_schema()::regnamespace AND proname = :name"
    ).bindparams(name=_FUNCTION)
    indexes = text(
        "SELECT indexname FROM pg_indexes WHERE schemaname = current_schema() AND indexname LIKE 'declared\\_%'"
    )
    return [
        *(f'DROP TRIGGER "{name}" ON entity' for name in connection.execute(triggers).scalars()),
        *(f'DROP FUNCTION "{name}"()' for name in connection.execute(functions).scalars()),
        *(f'DROP INDEX "{name}"' for name in connection.execute(indexes).scalars()),
    ]


def _columns(levels: Levels) -> Iterator[tuple[Level, LevelSchema, Column, str]]:
    """Every column with the name of its rule: at most 63 bytes, also where two columns differ only in case."""
    for level in ENTITY_LEVELS:
        for at, column in enumerate(sorted_columns(levels[level])):
            yield level, levels[level], column, f"{PREFIX}{level}_{at}_{column.name}"[:63]


def sorted_columns(schema: LevelSchema | Analysis) -> list[Column]:
    """The columns in an order that does not depend on how they are listed: the catalog keeps none."""
    return [schema.columns[name] for name in sorted(schema.columns)]


def quoted(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def listed_as(values: Iterator[str] | list[str]) -> str:
    return ", ".join(values)


def _allowed(column: Column) -> list[Value]:
    """The values of an enum, as the catalog has them."""
    return list(dict.fromkeys(convert_text(value, column)[0] for value in column.enum))


def _asked(column: Column) -> str:
    """The requirement for a value, as text."""
    kind = {"date": "a date YYYY-MM-DD", "integer": "an integer", "text": "a text"}.get(column.type, f"a {column.type}")
    one = f"one of {', '.join(column.enum)}" if column.enum else kind
    return f"must be {one}" + (", and not blank" if column.required else "")


def _sqlite(levels: Levels) -> Iterator[str]:
    for level in ENTITY_LEVELS:
        body = "\n".join(f"  WHEN {bad} THEN RAISE(ABORT, {quoted(said)})" for bad, said in _refused(levels[level]))
        body += f"\n  ELSE RAISE(ABORT, '{level}: a value is not as declared; {_WAY}')"
        for event, name in (("INSERT", "insert"), ("UPDATE OF level, id, attributes", "update")):
            yield (
                f'CREATE TRIGGER "{PREFIX}{level}_{name}" BEFORE {event} ON entity WHEN NEW.level = {quoted(level)} '
                f"BEGIN SELECT CASE\n{body}\n  END WHERE NOT ({_is_right(levels[level])}); END"
            )
    for level, _, column, name in _columns(levels):
        if column.unique:
            value = f"json_extract(attributes, '$.{column.name}')"
            yield f"CREATE UNIQUE INDEX \"{name}\" ON entity ({value}) WHERE level = '{level}'"


def _is_right(schema: LevelSchema) -> str:
    """One pass over the keys of a row. Only for a failing row, another statement finds the problem."""
    cases = " ".join(f"WHEN {quoted(column.name)} THEN {is_value(column)}" for column in sorted_columns(schema))
    right = f"CASE key {cases} ELSE 0 END" if cases else "0"
    required = [quoted(column.name) for column in sorted_columns(schema) if column.required]
    # IS NOT, because a sum of nothing but NULL is NULL: `<>` would then be NULL too, and the row would pass.
    keys = f"sum({right}) IS NOT count(*) AND count(*) > 0 OR total(key IN ({listed_as(required)})) <> {len(required)}"
    return (
        f"NOT ({_UNSAFE}) AND json_valid(NEW.attributes) AND json_type(NEW.attributes) = 'object' "
        f"AND NOT (SELECT {keys} FROM json_each(NEW.attributes))"
    )


def is_value(column: Column) -> str:
    if column.type == "boolean":
        values = [quoted(canonical_json(one).decode()) for one in _allowed(column)] or ["'true'", "'false'"]
        return f"type IN ({listed_as(values)})"
    kind = "text" if column.type == "date" else column.type
    good = [f"type = {quoted(kind)}"]
    if column.enum:
        values = [quoted(one) if isinstance(one, str) else canonical_json(one).decode() for one in _allowed(column)]
        good.append(f"value IN ({listed_as(values)})")
    elif column.type == "date":
        good.append("value GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]'")
        # With a modifier, because date('2023-02-31') alone gives back '2023-02-31'; with one, '2023-03-03' (SQLite
        # 3.40).
        good.append("date(value, '+0 days') IS value AND value >= '0001'")
    good += _within(column, "value")
    return f"({' AND '.join(good)})"


def _within(column: Column, value: str) -> Iterator[str]:
    for sign, end in zip((">=", "<="), column.range or (), strict=False):
        if math.isfinite(end):
            yield f"{value} {sign} {canonical_json(end).decode()}"


def _refused(schema: LevelSchema) -> Iterator[tuple[str, str]]:
    """Conditions that a row must not meet, in a safe order, each with its error."""
    level = schema.level
    yield _UNSAFE, f"{level}: the id is not one; 1 to 64 letters, digits, _, . or -"
    yield (
        "NOT json_valid(NEW.attributes) OR json_type(NEW.attributes) <> 'object'",
        f"{level}: attributes must be a JSON object",
    )
    for column in sorted_columns(schema):
        yield _is_bad(column), f"{level}.{column.name} {_asked(column)}; {_WAY}"
    present = " + ".join(f"({_kind(column)} IS NOT NULL)" for column in sorted_columns(schema)) or "0"
    keys = "SELECT count(*) FROM json_each(NEW.attributes)"
    yield f"{present} <> ({keys})", f"{level}: attributes has a key twice, or one that ct.toml does not declare; {_WAY}"


def _kind(column: Column) -> str:
    return f"json_type(NEW.attributes, '$.{column.name}')"


def _is_bad(column: Column) -> str:
    kind, value = _kind(column), f"json_extract(NEW.attributes, '$.{column.name}')"
    raw = f"(NEW.attributes -> '$.{column.name}')"
    wrong = {"boolean": f"{kind} NOT IN ('true', 'false')", "date": f"{kind} <> 'text'"}
    bad = [wrong.get(column.type, f"{kind} <> {quoted(column.type)}")]
    if column.type == "date" and not column.enum:
        bad.append(f"{value} NOT GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]'")
        bad.append(f"date({value}, '+0 days') IS NOT {value} OR {value} < '0001'")
    if column.enum and column.type in ("text", "date"):
        bad.append(f"{value} NOT IN ({listed_as([quoted(str(one)) for one in _allowed(column)])})")
    elif column.enum:
        bad.append(f"{raw} NOT IN ({listed_as([quoted(canonical_json(one).decode()) for one in _allowed(column)])})")
    if column.required:
        bad.insert(0, f"{kind} IS NULL")
    return " OR ".join(bad)


def _postgresql(levels: Levels) -> Iterator[str]:
    """One look at all rows of a statement: each row's text is parsed once, however many columns are declared."""
    yield (f'CREATE FUNCTION "{_FUNCTION}"() RETURNS trigger LANGUAGE plpgsql AS {quoted(_body(levels))}')
    for event in ("INSERT", "UPDATE"):
        yield (
            f'CREATE TRIGGER "{PREFIX}{event.lower()}" AFTER {event} ON entity REFERENCING NEW TABLE AS new_rows '
            f'FOR EACH STATEMENT EXECUTE FUNCTION "{_FUNCTION}"()'
        )
    for level, _, column, name in _columns(levels):
        if column.unique:
            value = f"attributes::json ->> '{column.name}'"
            yield f"CREATE UNIQUE INDEX \"{name}\" ON entity (({value})) WHERE level = '{level}'"


def _body(levels: Levels) -> str:
    unsafe = "id !~ '^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$'"
    cases = [f"WHEN {unsafe} THEN level || ': the id is not one; 1 to 64 letters, digits, _, . or -'"]
    for level in ENTITY_LEVELS:
        own = [f"WHEN jsonb_typeof(j) <> 'object' THEN '{level}: attributes must be a JSON object'"]
        for column in sorted_columns(levels[level]):
            said = f"{level}.{column.name} {_asked(column)}; {_WAY}"
            own.append(f"WHEN NOT ({postgres_check(column)}) THEN {quoted(said)}")
        names = listed_as([quoted(column.name) for column in sorted_columns(levels[level])])
        said = f"{level}: attributes has a key that ct.toml does not declare; {_WAY}"
        own.append(f"WHEN (j - ARRAY[{names}]::text[]) <> '{{}}' THEN {quoted(said)}")
        listed = "\n    ".join(own)
        cases.append(f"WHEN level = '{level}' THEN CASE\n    {listed} END")
    listed = "\n  ".join(cases)
    return (
        "DECLARE wrong text; BEGIN\n"
        f"SELECT said INTO wrong FROM (SELECT CASE\n  {listed} END AS said\n"
        # OFFSET 0: PostgreSQL merges no subquery that has one, so the text is parsed once a row, not once a use of `j`.
        "FROM (SELECT level, id, attributes, attributes::jsonb AS j FROM new_rows OFFSET 0) AS parsed) AS judged\n"
        "WHERE said IS NOT NULL LIMIT 1;\n"
        "IF wrong IS NOT NULL THEN RAISE EXCEPTION '%', wrong USING ERRCODE = 'check_violation'; END IF;\n"
        "RETURN NULL; END"
    )


def postgres_check(column: Column) -> str:
    part, value = f"(j -> '{column.name}')", f"(j ->> '{column.name}')"
    kinds = {"text": "string", "date": "string", "boolean": "boolean"}
    good = [f"jsonb_typeof({part}) = '{kinds.get(column.type, 'number')}'"]
    if column.type == "integer":
        good.append(f"{value} ~ '^-?[0-9]+$'")
    if column.type == "real":
        good.append(f"(attributes::json ->> '{column.name}') ~ '[.eE]'")  # jsonb writes 1e22 with all its digits
    if column.type == "date" and not column.enum:
        good.append(
            f"CASE WHEN {value} ~ '^[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}$' AND {value} >= '0001' "
            f"THEN to_char({value}::date, 'YYYY-MM-DD') = {value} ELSE false END"
        )
    if column.enum:
        listed = [quoted(canonical_json(one).decode()) + "::jsonb" for one in _allowed(column)]
        good.append(f"{part} IN ({listed_as(listed)})")
    if column.range is not None:  # a CASE, because PostgreSQL asks conditions in an order of its own
        inside = " AND ".join(_within(column, f"({value})::numeric")) or "true"
        good.append(f"CASE WHEN jsonb_typeof({part}) = 'number' THEN {inside} ELSE false END")
    blank = "false" if column.required else "true"
    return f"CASE WHEN {part} IS NULL THEN {blank} ELSE {' AND '.join(good)} END"
