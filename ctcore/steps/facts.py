"""The facts that a step returns, typed before anything is published. Undeclared facts are free."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ctcore.model.column import COLUMN_TYPES, Column
from ctcore.model.values import convert_text, fit_value
from ctcore.store.digest import canonical_json


def typed_facts(facts: Mapping[str, Any], columns: Sequence[Column]) -> tuple[dict[str, Any], list[str]]:
    """The facts in the types of their columns, and all their problems."""
    found, problems = dict(facts), list[str]()
    for column in columns:
        given = facts.get(column.name)
        value, problem = fit_value(given, column)
        if problem is not None:
            problems.append(f"{column.name} = {given!r:.80} {problem}")
        elif given is not None:
            found[column.name] = value
    declared = {column.name for column in columns}
    problems += [said for name in facts if name not in declared and (said := _not_json(name, facts[name]))]
    return found, problems


def _not_json(name: object, value: Any) -> str | None:
    if not isinstance(name, str):
        return f"{name!r:.80} = {value!r:.80}: a fact is named with a text"
    try:
        canonical_json(value)
    except ValueError:
        return f"{name} = {value!r:.80} is not a value that can be kept; return a text, a finite number, true or false"
    return None


def declaration_problems(columns: Sequence[Column]) -> Iterator[str]:
    """The problems of a declaration of facts."""
    names = [column.name for column in columns]
    yield from (f"fact {name!r} twice; declare it once" for name in sorted({n for n in names if names.count(n) > 1}))
    for column in columns:
        where = f"fact {column.name!r}"
        if column.type not in COLUMN_TYPES:
            yield f"{where}: type {column.type!r} is not one of {', '.join(COLUMN_TYPES)}"
            continue
        if column.unique or column.default is not None:
            yield f"{where}: unique and default are for metadata; leave them out"
        yield from range_problems(where, column)
        plain = Column(column.name, column.type)
        for value in column.enum:
            if (problem := convert_text(value, plain)[1]) is not None:
                yield f"{where} enum: {value!r:.80} {problem.partition(';')[0]}, the column's type"


def range_problems(where: str, column: Column) -> Iterator[str]:
    if column.range is not None:
        if column.type not in ("integer", "real"):
            yield f"{where} range: only numbers have one, and it is {column.type}"
        elif not column.range[0] <= column.range[1]:
            yield f"{where} range = {list(column.range)}: the lower end first"
