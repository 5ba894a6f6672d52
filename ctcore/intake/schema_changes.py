"""The declared schema over time: what the catalog holds as such, how ct.toml differs, and what the data say to it.

A change that no value contradicts is applied by the next registering, with an event. One that some do is refused, with
all of them, and nothing is lost: either ct.toml is put right, or the data are, by name.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, replace
from typing import NamedTuple

from sqlalchemy import Connection, bindparam, select, update

from ctcore.catalog.engine import Writer, upsert
from ctcore.catalog.schema_triggers import SETTING, applied_schema, enforce, relax
from ctcore.catalog.tables import entity, setting
from ctcore.errors import ProjectError, Usage
from ctcore.governance.masking import WITHHELD, mask_of
from ctcore.model.column import Column, Value
from ctcore.model.levels import ENTITY_LEVELS, Level
from ctcore.model.schema import Levels, LevelSchema, as_json
from ctcore.model.values import convert_text
from ctcore.project import Project
from ctcore.store.digest import canonical_json
from ctcore.util.gc import without_collecting

SHOWN = 20
EVENT_ROWS = 1000


class StoredEntity(NamedTuple):
    """An entity as the catalog has it, or would have it."""

    seq: int
    level: Level
    id: str
    parent: int | None
    attributes: Mapping[str, Value]


@dataclass(frozen=True)
class Contradiction:
    """What ct.toml declares and these entities do not keep. `values` go with `ids`; a value may be a patient's."""

    level: str
    column: str
    asked: str
    way: str
    ids: tuple[str, ...]
    values: tuple[Value, ...]
    noun: str = ""

    def __str__(self) -> str:
        """Without values, for logs."""
        listed = ", ".join(self.ids[:SHOWN]) + ", …" * (len(self.ids) > SHOWN)
        return f"{self.said} ({listed}); {self.way}"

    @property
    def said(self) -> str:
        """What is wrong, of how many."""
        n, noun = len(self.ids), self.noun or self.level
        who = f"{n} {noun}s {self.asked}" if n != 1 else f"1 {noun} {self.asked.replace('have', 'has', 1)}"
        return f"{self.level}.{self.column}: {who}"


@dataclass(frozen=True)
class Edits:
    """Changes of data that were asked for by name, to make them fit: level.column names; `fill` puts in defaults."""

    fill: bool = False
    convert: frozenset[str] = frozenset()
    drop: frozenset[str] = frozenset()


def entities(connection: Connection) -> Iterator[StoredEntity]:
    """Everybody in the order of registration, but those of whom nothing is to be known any more."""
    columns = (entity.c.seq, entity.c.level, entity.c.id, entity.c.parent, entity.c.attributes)
    found = select(*columns).where(entity.c.purged.is_(None)).order_by(entity.c.seq)
    known: dict[str, dict[str, Value]] = {}
    for seq, level, name, parent, text in connection.execute(found):
        if text not in known:
            known[text] = json.loads(text)
        yield StoredEntity(seq, level, name, parent, known[text])


def differences(old: Levels | None, new: Levels) -> list[tuple[str, str, str]]:
    """Every difference: (level, column or other key, in words)."""
    if old is None:
        return [("", "", "no schema was applied to this catalog yet")]
    found: list[tuple[str, str, str]] = []
    for level in ENTITY_LEVELS:
        before, after = old[level], new[level]
        for name in dict.fromkeys((*before.columns, *after.columns)):
            said = column_differs(before.columns.get(name), after.columns.get(name))
            found += [(level, name, one) for one in said]
        if before.id_pattern != after.id_pattern:
            found.append((level, "id_pattern", f"{before.id_pattern} → {after.id_pattern}"))
        for what, old_roles, new_roles in (
            ("files", before.files, after.files),
            ("folders", before.folders, after.folders),
        ):
            if old_roles != new_roles:
                found.append((level, what, f"{', '.join(old_roles) or 'none'} → {', '.join(new_roles) or 'none'}"))
    return found


def in_words(found: list[tuple[str, str, str]]) -> list[str]:
    return [f"{level}.{name} {what}" if level else what for level, name, what in found]


def column_differs(old: Column | None, new: Column | None) -> Iterator[str]:
    if new is None:
        yield "is not declared any more"
    elif old is None:
        yield f"is new ({new.type})"
    else:
        if old.type != new.type:
            yield f"type {old.type} → {new.type}"
        for flag in ("required", "unique"):
            if getattr(old, flag) != getattr(new, flag):
                yield flag if getattr(new, flag) else f"not {flag} any more"
        if old.range != new.range:
            yield f"range {_ends(old)} → {_ends(new)}"
        if old.default != new.default:
            yield f"default {_shown(old.default)} → {_shown(new.default)}"
        if old.enum != new.enum:
            more = [f"+{value}" for value in new.enum if value not in old.enum]
            less = [f"-{value}" for value in old.enum if value not in new.enum]
            yield f"enum {' '.join([*more, *less]) or 'in another order'}"


def _ends(column: Column) -> str:
    return "none" if column.range is None else f"{column.range[0]:g} to {column.range[1]:g}"


def _shown(value: Value) -> str:
    return "none" if value is None else canonical_json(value).decode()


@without_collecting
def contradictions(rows: Iterable[StoredEntity], levels: Levels) -> list[Contradiction]:
    """All that is in the catalog and not as declared, by column."""
    found: dict[tuple[Level, str, str, str], list[tuple[str, Value]]] = {}
    owners: dict[tuple[Level, str], dict[Value, str]] = {}
    judged: dict[tuple[Level, int], list[tuple[str, str, str, Value]]] = {}
    for row in rows:
        schema = levels[row.level]
        same = (row.level, id(row.attributes))  # equal attributes are one object, and are judged once
        if same not in judged or any(column.unique for column in schema.columns.values()):
            judged[same] = list(_wrong(row, schema, owners))
        problems = judged[same]
        if not schema.id_is_valid(row.id):
            way = f"widen id_pattern of [levels.{row.level}]"
            problems = [*problems, ("id", f"have an ID that does not match {schema.id_pattern}", way, row.id)]
        for column, asked, way, value in problems:
            found.setdefault((row.level, column, asked, way), []).append((row.id, value))
    return [
        Contradiction(*key, ids=tuple(name for name, _ in some), values=tuple(value for _, value in some))
        for key, some in found.items()
    ]


def _wrong(
    row: StoredEntity, schema: LevelSchema, owners: dict[tuple[Level, str], dict[Value, str]]
) -> Iterator[tuple[str, str, str, Value]]:
    """(column, what is wrong, the way out, value)."""
    for name, value in row.attributes.items():
        column, whole = schema.columns.get(name), f"{row.level}.{name}"
        if column is None:
            way = f"declare it again, or remove the values with `ct schema apply --drop {whole}`"
            yield name, "have a value of it, but it is not declared", way, value
        elif not _has_type(value, column):
            way = f"correct ct.toml, or convert the values with `ct schema apply --convert {whole}`"
            yield name, f"have a value that is not of type {column.type}", way, value
        elif column.enum and value not in _enum(column):
            way = f"extend the enum, or correct the values with a sheet and `--update {whole}`"
            yield name, f"have a value that is not one of {', '.join(column.enum)}", way, value
        elif column.unique:
            first = owners.setdefault((row.level, name), {}).setdefault(value, row.id)
            if first != row.id:
                way = f"leave out unique, or correct the values with a sheet and `--update {whole}`"
                yield name, "have a value that another one has", way, value
    for name, column in schema.columns.items():
        if column.required and row.attributes.get(name) is None:
            fill = "" if column.default is None else ", or put in the default with `ct schema apply --fill`"
            yield name, "have no value, but it is required", f"fill it in with a sheet{fill}", None


def _enum(column: Column) -> list[Value]:
    return [convert_text(value, column)[0] for value in column.enum]


def _has_type(value: Value, column: Column) -> bool:
    kinds = {"integer": int, "real": float, "boolean": bool}
    if type(value) is not kinds.get(column.type, str):
        return False
    return column.type != "date" or convert_text(str(value), Column("", "date"))[1] is None


def without_names(project: Project, found: list[Contradiction]) -> list[Contradiction]:
    """The same, with those without consent counted and not named."""
    seen = mask_of(project)
    return [_without(one, seen.hidden_partitions(one.level)) for one in found] if seen else found


def _without(one: Contradiction, hidden: Set[str]) -> Contradiction:
    kept = [(name, value) for name, value in zip(one.ids, one.values, strict=True) if name not in hidden]
    more = len(one.ids) - len(kept)
    kept += [(f"{more} × {WITHHELD}", None)] if more else []
    return replace(one, ids=tuple(name for name, _ in kept), values=tuple(value for _, value in kept))


def refuse(project: Project, found: list[Contradiction]) -> None:
    """ProjectError with all of it."""
    if found:
        lines = "\n".join(f"  {one}" for one in without_names(project, found))
        many = f"{len(found)} contradiction" + "s" * (len(found) != 1)
        raise ProjectError(
            f"ct.toml: the data contradict its declarations: {many}; nothing was written "
            f"(`ct schema diff` shows the values)\n{lines}"
        )


def check_edits(edits: Edits, levels: Levels, old: Levels | None) -> None:
    """Usage error where an edit names no column, or one that is still declared."""
    now = {f"{level}.{name}" for level in ENTITY_LEVELS for name in levels[level].columns}
    for name in sorted(edits.convert - now):
        raise Usage(f"--convert {name}: no such column of ct.toml; as in patient.age")
    for name in sorted(edits.drop):
        if name in now:
            raise Usage(f"--drop {name}: ct.toml declares it; take it out there first")
        if name.partition(".")[0] not in ENTITY_LEVELS:
            raise Usage(f"--drop {name}: write it with its level, as in patient.age")


def edited_rows(rows: Iterable[StoredEntity], levels: Levels, edits: Edits) -> Iterator[StoredEntity]:
    """The rows as they would be."""
    for row in rows:
        attributes = dict(row.attributes)
        for name in row.attributes:
            whole = f"{row.level}.{name}"
            if whole in edits.drop:
                del attributes[name]
            elif whole in edits.convert:
                attributes[name] = _converted(row.attributes[name], levels[row.level].columns[name])
        if edits.fill:
            defaults = {name: column.default for name, column in levels[row.level].columns.items()}
            missing = {name: one for name, one in defaults.items() if one is not None and name not in attributes}
            attributes |= missing
        yield (
            row
            if attributes == row.attributes and _same_types(attributes, row)
            else row._replace(attributes=attributes)
        )


def _same_types(attributes: Mapping[str, Value], row: StoredEntity) -> bool:
    return all(type(attributes[name]) is type(value) for name, value in row.attributes.items())


def _converted(value: Value, column: Column) -> Value:
    """A value of another type, where it says the same; otherwise as it is, to be told as a contradiction."""
    if isinstance(value, float) and value.is_integer() and column.type == "integer":
        return int(value)
    text = value if isinstance(value, str) else canonical_json(value).decode()
    typed, problem = convert_text(text, Column(column.name, column.type))
    return value if problem is not None else typed


def enforce_schema(writer: Writer, old: Levels | None, levels: Levels) -> None:
    """Enforce a declaration from now on, and say so. The caller has looked for contradictions."""
    enforce(writer.connection, levels)
    said = in_words(differences(old, levels))
    row = {"name": SETTING, "value": canonical_json(as_json(levels)).decode()}
    upsert(writer, setting, [row])
    body = {"old": None if old is None else as_json(old), "new": as_json(levels), "said": said}
    writer.event("schema", "ct.toml", body)


def apply(project: Project, edits: Edits | None = None, *, dry_run: bool = False) -> list[tuple[str, str]]:
    """Bring the catalog to what ct.toml declares. ProjectError where data contradict it. Returns what was changed."""
    edits, levels = edits or Edits(), project.settings.levels
    with project.catalog.read() as connection:
        old, planned = _plan(connection, project, edits)
    if dry_run:
        return _said(old, levels, planned)
    with project.catalog.write() as writer:
        # Again, under the write lock: the data may have changed since the first look.
        old, planned = _plan(writer.connection, project, edits)
        relax(writer.connection)
        _write(writer, planned)
        if old is None or as_json(old) != as_json(levels):
            enforce_schema(writer, old, levels)
        else:
            enforce(writer.connection, levels)
    return _said(old, levels, planned)


def _plan(
    connection: Connection, project: Project, edits: Edits
) -> tuple[Levels | None, list[tuple[StoredEntity, StoredEntity]]]:
    """What is applied now, and which rows the edits change."""
    levels, old = project.settings.levels, applied_schema(connection)
    check_edits(edits, levels, old)
    rows = list(entities(connection))
    after = list(edited_rows(rows, levels, edits))
    refuse(project, contradictions(after, levels))
    return old, [(row, new) for row, new in zip(rows, after, strict=True) if row is not new]


def _write(writer: Writer, planned: list[tuple[StoredEntity, StoredEntity]]) -> None:
    rows = [
        {"b_seq": new.seq, "parent": new.parent, "attributes": canonical_json(dict(new.attributes)).decode()}
        for _, new in planned
    ]
    if rows:
        writer.execute(update(entity).where(entity.c.seq == bindparam("b_seq")), rows)
    for at in range(0, len(rows), EVENT_ROWS):
        before = {str(row.seq): dict(row.attributes) for row, _ in planned[at : at + EVENT_ROWS]}
        writer.event("register", "ct.toml", {"changed": rows[at : at + EVENT_ROWS], "before": before})


def _said(
    old: Levels | None, levels: Levels, planned: list[tuple[StoredEntity, StoredEntity]]
) -> list[tuple[str, str]]:
    said = [(".".join(part for part in one[:2] if part), one[2]) for one in differences(old, levels)]
    counts: dict[str, int] = {}
    for _, new in planned:
        counts[new.level] = counts.get(new.level, 0) + 1
    return [*said, *((level, f"values of {n} {level}{'s' * (n != 1)} changed") for level, n in counts.items())]
