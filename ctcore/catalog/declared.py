"""② The declared schema inside the database, so that also a hand-written statement cannot break it.

Attributes are one JSON text a row, so the rules are made from the declaration: triggers on SQLite, which cannot add a
CHECK to a table that is there, and CHECKs on PostgreSQL; unique columns are unique indexes on both.
"""

import json
from collections.abc import Iterator
from functools import cache
from typing import Any

from sqlalchemy import Connection, select, text

from ctcore.catalog.tables import setting
from ctcore.digest import canonical
from ctcore.schema import Column, Levels, LevelSchema, Value, as_json, from_json
from ctcore.sheet.values import convert
from ctcore.step import ENTITY_LEVELS, Level

PREFIX = "declared_"
SETTING = "schema"
_WAY = "see `ct schema check`"


def applied(connection: Connection) -> Levels | None:
    """The schema that the database enforces; None where none was applied yet."""
    found = connection.execute(select(setting.c.value).where(setting.c.name == SETTING)).scalar()
    return None if found is None else from_json(json.loads(found))


def is_applied(connection: Connection, levels: Levels) -> bool:
    found = connection.execute(select(setting.c.value).where(setting.c.name == SETTING)).scalar()
    return found == canonical(as_json(levels)).decode()


def enforce(connection: Connection, levels: Levels) -> None:
    """Replace the rules in the database by those of a declaration. PostgreSQL checks every row as it adds one."""
    relax(connection)
    rules = _sqlite if connection.dialect.name == "sqlite" else _postgresql
    for statement in rules(levels):
        _run(connection, statement)


def relax(connection: Connection) -> None:
    """Take the rules out, until `enforce` in the same transaction."""
    for statement in _present(connection):
        _run(connection, statement)


def is_enforced(connection: Connection, levels: Levels) -> bool:
    """Whether the database has the rules of a declaration; by their names on PostgreSQL, which rewrites them."""
    if connection.dialect.name == "sqlite":
        made = text("SELECT sql FROM sqlite_master WHERE name LIKE 'declared!_%' ESCAPE '!'")
        return set(connection.execute(made).scalars()) == set(_sqlite(levels))
    wanted = {statement.split('"')[1] for statement in _postgresql(levels)}
    return {statement.split('"')[1] for statement in _present(connection)} == wanted


def _run(connection: Connection, statement: str) -> None:
    connection.exec_driver_sql(statement, execution_options={"no_parameters": True})


def _present(connection: Connection) -> list[str]:
    """The statements that take out what is there."""
    if connection.dialect.name == "sqlite":
        made = text("SELECT type, name FROM sqlite_master WHERE name LIKE 'declared!_%' ESCAPE '!'")
        return [f'DROP {kind} "{name}"' for kind, name in connection.execute(made)]
    checks = text(
        "SELECT conname FROM pg_constraint WHERE conrelid = 'entity'::regclass AND conname LIKE 'declared\\_%'"
    )
    indexes = text(
        "SELECT indexname FROM pg_indexes WHERE schemaname = current_schema() AND indexname LIKE 'declared\\_%'"
    )
    return [
        *(f'ALTER TABLE entity DROP CONSTRAINT "{name}"' for name in connection.execute(checks).scalars()),
        *(f'DROP INDEX "{name}"' for name in connection.execute(indexes).scalars()),
    ]


def _columns(levels: Levels) -> Iterator[tuple[Level, LevelSchema, Column, str]]:
    """Every column with the name of its rule: at most 63 bytes, also where two columns differ only in case."""
    for level in ENTITY_LEVELS:
        for at, column in enumerate(_sorted(levels[level])):
            yield level, levels[level], column, f"{PREFIX}{level}_{at}_{column.name}"[:63]


def _sorted(schema: LevelSchema) -> list[Column]:
    """The columns in an order that does not depend on how they are listed: the catalog keeps none."""
    return [schema.columns[name] for name in sorted(schema.columns)]


def _quoted(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _listed(values: Iterator[str] | list[str]) -> str:
    return ", ".join(values)


def _allowed(column: Column) -> list[Value]:
    """The values of an enum, as the catalog has them."""
    return list(dict.fromkeys(convert(value, column)[0] for value in column.enum))


def _asked(column: Column) -> str:
    """What a value must be, in words."""
    kind = {"date": "a date YYYY-MM-DD", "integer": "an integer", "text": "a text"}.get(column.type, f"a {column.type}")
    one = f"one of {', '.join(column.enum)}" if column.enum else kind
    return f"must be {one}" + (", and not blank" if column.required else "")


# SQLite


def _sqlite(levels: Levels) -> Iterator[str]:
    for level in ENTITY_LEVELS:
        body = "\n".join(f"  WHEN {bad} THEN RAISE(ABORT, {_quoted(said)})" for bad, said in _refused(levels[level]))
        for event, name in (("INSERT", "insert"), ("UPDATE OF level, id, attributes", "update")):
            yield (
                f'CREATE TRIGGER "{PREFIX}{level}_{name}" BEFORE {event} ON entity WHEN NEW.level = {_quoted(level)} '
                f"BEGIN SELECT CASE\n{body}\n  END; END"
            )
    for level, _, column, name in _columns(levels):
        if column.unique:
            value = f"json_extract(attributes, '$.{column.name}')"
            yield f"CREATE UNIQUE INDEX \"{name}\" ON entity ({value}) WHERE level = '{level}'"


def _refused(schema: LevelSchema) -> Iterator[tuple[str, str]]:
    """Conditions that a row must not meet, in the order in which they can be asked, and what is said then."""
    level = schema.level
    unsafe = "NEW.id GLOB '*[^A-Za-z0-9_.-]*' OR NEW.id NOT GLOB '[A-Za-z0-9]*' OR length(NEW.id) > 64"
    yield unsafe, f"{level}: the id is not one; 1 to 64 letters, digits, _, . or -"
    yield (
        "NOT json_valid(NEW.attributes) OR json_type(NEW.attributes) <> 'object'",
        f"{level}: attributes must be a JSON object",
    )
    for column in _sorted(schema):
        yield _is_bad(column), f"{level}.{column.name} {_asked(column)}; {_WAY}"
    present = " + ".join(f"({_kind(column)} IS NOT NULL)" for column in _sorted(schema)) or "0"
    keys = "SELECT count(*) FROM json_each(NEW.attributes)"
    yield f"{present} <> ({keys})", f"{level}: attributes has a key twice, or one that ct.toml does not declare; {_WAY}"


def _kind(column: Column) -> str:
    return f"json_type(NEW.attributes, '$.{column.name}')"


def _is_bad(column: Column) -> str:
    kind, value = _kind(column), f"json_extract(NEW.attributes, '$.{column.name}')"
    raw = f"(NEW.attributes -> '$.{column.name}')"
    wrong = {"boolean": f"{kind} NOT IN ('true', 'false')", "date": f"{kind} <> 'text'"}
    bad = [wrong.get(column.type, f"{kind} <> {_quoted(column.type)}")]
    if column.type == "date" and not column.enum:
        bad.append(f"{value} NOT GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]'")
        bad.append(f"date({value}, '+0 days') IS NOT {value} OR {value} < '0001'")
    if column.enum and column.type in ("text", "date"):
        bad.append(f"{value} NOT IN ({_listed([_quoted(str(one)) for one in _allowed(column)])})")
    elif column.enum:
        bad.append(f"{raw} NOT IN ({_listed([_quoted(canonical(one).decode()) for one in _allowed(column)])})")
    if column.required:
        bad.insert(0, f"{kind} IS NULL")
    return " OR ".join(bad)


# PostgreSQL


def _postgresql(levels: Levels) -> Iterator[str]:
    unsafe = "id !~ '^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$'"
    yield _check(f"{PREFIX}id", f"NOT ({unsafe})")
    for level in ENTITY_LEVELS:
        names = _listed([_quoted(name) for name in sorted(levels[level].columns)])
        rest = f"jsonb_typeof(attributes::jsonb) = 'object' AND (attributes::jsonb - ARRAY[{names}]::text[]) = '{{}}'"
        yield _check(f"{PREFIX}{level}_keys", f"level <> '{level}' OR ({rest})")
    for level, _, column, name in _columns(levels):
        yield _check(name, f"level <> '{level}' OR {_is_good(column)}")
        if column.unique:
            unique = f"{PREFIX}unique_{name.removeprefix(PREFIX)}"[:63]
            value = f"attributes::json ->> '{column.name}'"
            yield f"CREATE UNIQUE INDEX \"{unique}\" ON entity (({value})) WHERE level = '{level}'"


def _check(name: str, condition: str) -> str:
    return f'ALTER TABLE entity ADD CONSTRAINT "{name}" CHECK ({condition})'


def _is_good(column: Column) -> str:
    part, value = f"(attributes::json -> '{column.name}')", f"(attributes::json ->> '{column.name}')"
    kinds = {"text": "string", "date": "string", "boolean": "boolean"}
    good = [f"json_typeof({part}) = '{kinds.get(column.type, 'number')}'"]
    if column.type == "integer":
        good.append(f"{value} ~ '^-?[0-9]+$'")
    if column.type == "real":
        good.append(f"{value} ~ '[.eE]'")
    if column.type == "date" and not column.enum:
        good.append(
            f"CASE WHEN {value} ~ '^[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}$' AND {value} >= '0001' "
            f"THEN to_char({value}::date, 'YYYY-MM-DD') = {value} ELSE false END"
        )
    if column.enum:
        good.append(f"{value} IN ({_listed([_quoted(_plain(one)) for one in _allowed(column)])})")
    blank = "false" if column.required else "true"
    return f"CASE WHEN {part} IS NULL THEN {blank} ELSE {' AND '.join(good)} END"


@cache
def _plain(value: Any) -> str:
    """A value as PostgreSQL's ->> gives it."""
    return value if isinstance(value, str) else canonical(value).decode()
