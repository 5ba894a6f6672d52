"""① ct.toml: what a project is. Read once, checked whole, every problem named with its place."""

import difflib
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, cast

from ctcore.errors import ProjectError
from ctcore.schema import COLUMN_TYPES, ID_PATTERN, Column, Levels, LevelSchema
from ctcore.step import ENTITY_LEVELS, Level

FILE_NAME = "ct.toml"
PROJECT_ID = r"[a-z0-9][a-z0-9-]{1,62}[a-z0-9]"


@dataclass(frozen=True)
class Reference:
    """A declared reference: `files` are relative to the project; the first one is what steps are given."""

    key: str
    path: str
    version: str
    kind: str = "other"


@dataclass(frozen=True)
class Cohort:
    """A named rule: all usable entities of a level for which every named column has the given value."""

    name: str
    where: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RunSettings:
    """How much runs at once: local worker processes (0 = one a core), partitions a Dagster run, runs a sensor tick;
    and how often sensors look, in seconds."""

    workers: int = 0
    partitions_per_run: int = 500
    requests_per_tick: int = 20
    look_every_s: int = 15
    verify_every_s: int = 300


@dataclass(frozen=True)
class Settings:
    """Everything that ct.toml declares."""

    project_id: str
    name: str
    sheet: str | None
    levels: Levels
    references: Mapping[str, Reference]
    cohorts: Mapping[str, Cohort]
    step_folders: tuple[str, ...]
    params: Mapping[str, Mapping[str, Any]]
    environment_lock: str | None
    run: RunSettings


def read_settings(path: Path) -> Settings:
    """Read ct.toml. ProjectError lists every problem at once."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ProjectError(f"no {FILE_NAME} in {path.parent}; `ct init {path.parent}` makes a project") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ProjectError(f"{path} cannot be read: {error}") from error
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ProjectError(f"{path} is not valid TOML: {error}") from error
    reader = _Reader(path)
    settings = reader.settings(document)
    if reader.problems:
        lines = "\n".join(f"  {problem}" for problem in reader.problems)
        many = f"{len(reader.problems)} problem" + "s" * (len(reader.problems) != 1)
        raise ProjectError(f"{path}: {many}\n{lines}")
    return settings


class _Reader:
    """Walks the document once and collects what is wrong with it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problems: list[str] = []

    def settings(self, document: dict[str, Any]) -> Settings:
        known = {
            "project",
            "levels",
            "references",
            "cohorts",
            "steps",
            "params",
            "environment",
            "run",
            "slurm",
        }
        self._only(document, known, "the top level")
        project = self._table(document, "project")
        self._only(project, {"id", "name", "sheet"}, "[project]")
        project_id = str(project.get("id", ""))
        if not re.fullmatch(PROJECT_ID, project_id):
            self.problems.append(f"[project] id {project_id!r}: 3 to 64 of a-z, 0-9 and -, not at an end")
        steps = self._table(document, "steps")
        self._only(steps, {"folders"}, "[steps]")
        environment = self._table(document, "environment")
        self._only(environment, {"lock"}, "[environment]")
        levels = self._levels(self._table(document, "levels"))
        return Settings(
            project_id=project_id,
            name=self._text(project, "name", "[project]") or project_id,
            sheet=self._text(project, "sheet", "[project]"),
            levels=levels,
            references=self._references(self._table(document, "references")),
            cohorts=self._cohorts(self._table(document, "cohorts"), levels),
            step_folders=self._texts(steps, "folders", "[steps]", ("ct_assets/steps", "steps")),
            params=self._params(self._table(document, "params")),
            environment_lock=self._text(environment, "lock", "[environment]"),
            run=self._run(self._table(document, "run")),
        )

    def _table(self, parent: dict[str, Any], key: str) -> dict[str, Any]:
        value = parent.get(key, {})
        if isinstance(value, dict):
            return cast(dict[str, Any], value)
        self.problems.append(f"{key} = {value!r}: a table [{key}] is expected")
        return {}

    def _text(self, table: dict[str, Any], key: str, where: str) -> str | None:
        value = table.get(key)
        if value is None or isinstance(value, str):
            return value
        self.problems.append(f'{where} {key} = {value!r}: a text is expected, as in {key} = "…"')
        return None

    def _texts(self, table: dict[str, Any], key: str, where: str, default: tuple[str, ...] = ()) -> tuple[str, ...]:
        value = table.get(key)
        if value is None:
            return default
        if isinstance(value, list) and all(isinstance(one, str) for one in value):
            return tuple(value)
        self.problems.append(f'{where} {key} = {value!r}: a list of texts is expected, as in {key} = ["…"]')
        return default

    def _only(self, table: Mapping[str, Any], known: set[str], where: str) -> None:
        for key in table:
            if key not in known:
                near = difflib.get_close_matches(key, known, 1)
                hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(known))}"
                self.problems.append(f"{where}: unknown key {key!r}; {hint}")

    def _levels(self, table: dict[str, Any]) -> Levels:
        self._only(table, set(ENTITY_LEVELS), "[levels]")
        return {level: self._level(level, self._table(table, level)) for level in ENTITY_LEVELS}

    def _level(self, level: Level, table: dict[str, Any]) -> LevelSchema:
        where = f"[levels.{level}]"
        self._only(table, {"columns", "id_pattern", "files"}, where)
        pattern = self._text(table, "id_pattern", where) or ID_PATTERN
        try:
            re.compile(pattern)
        except re.error as error:
            self.problems.append(f"{where} id_pattern {pattern!r} is not a regular expression: {error}")
        columns = self._table(table, "columns")
        return LevelSchema(
            level=level,
            columns={name: self._column(where, name, columns[name]) for name in columns},
            id_pattern=pattern,
            files=self._texts(table, "files", where),
        )

    def _column(self, where: str, name: str, declared: object) -> Column:
        place = f"{where[:-1]}.columns.{name}]"
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) or name == "id":
            self.problems.append(f"{place}: a column is named with letters, digits and _, and not `id`")
        table = cast(dict[str, Any], declared) if isinstance(declared, dict) else {"type": declared}
        self._only(table, {"type", "required", "enum", "description"}, place)
        kind = table.get("type", "text")
        if kind not in COLUMN_TYPES:
            self.problems.append(f"{place} type {kind!r} is not one of {', '.join(COLUMN_TYPES)}")
            kind = "text"
        required, enum = table.get("required", False), table.get("enum", [])
        if not isinstance(required, bool):
            self.problems.append(f"{place} required = {required!r}: true or false")
        if not isinstance(enum, list) or any(isinstance(value, list | dict) for value in enum):
            self.problems.append(f'{place} enum = {enum!r}: a list of values is expected, as in enum = ["…"]')
            enum = []
        return Column(
            name=name,
            type=kind,
            required=bool(required),
            enum=tuple(str(value) for value in enum),
            description=str(table.get("description", "")),
        )

    def _references(self, table: dict[str, Any]) -> dict[str, Reference]:
        found = {}
        for key in table:
            where, entry = f"[references.{key}]", self._table(table, key)
            self._only(entry, {"path", "version", "kind"}, where)
            if not re.fullmatch(ID_PATTERN, key):
                self.problems.append(f"{where}: the key must match {ID_PATTERN}")
            for needed in ("path", "version"):
                if not isinstance(entry.get(needed), str) or not entry[needed]:
                    self.problems.append(f'{where} needs {needed} = "…" (a text)')
            found[key] = Reference(
                key, str(entry.get("path")), str(entry.get("version")), str(entry.get("kind", "other"))
            )
        return found

    def _cohorts(self, table: dict[str, Any], levels: Levels) -> dict[str, Cohort]:
        found = {}
        for name in table:
            entry = self._table(table, name)
            self._only(entry, {"where"}, f"[cohorts.{name}]")
            if not re.fullmatch(ID_PATTERN, name):
                self.problems.append(f"[cohorts.{name}]: the name must match {ID_PATTERN}")
            where = self._table(entry, "where")
            for column, value in where.items():
                self.problems += _rule_problems(f"[cohorts.{name}] where", column, value, levels)
            found[name] = Cohort(name, {column: _as_text(value) for column, value in where.items()})
        return found or {"all": Cohort("all")}

    def _params(self, table: dict[str, Any]) -> dict[str, dict[str, Any]]:
        return {name: self._table(table, name) for name in table}

    def _run(self, table: dict[str, Any]) -> RunSettings:
        known = {option.name for option in fields(RunSettings)}
        self._only(table, known, "[run]")
        for key, value in table.items():
            if not isinstance(value, int) or isinstance(value, bool) or value < 0:
                self.problems.append(f"[run] {key} = {value!r}: a whole number, 0 or more")
        return RunSettings(**{key: table[key] for key in table if key in known and isinstance(table[key], int)})


def _rule_problems(where: str, column: str, value: object, levels: Levels) -> Iterator[str]:
    """A rule about a column that nobody declares would be a cohort of nobody, and nobody would be told."""
    if isinstance(value, list | dict):
        yield f'{where} {column} = {value!r}: one value is expected, as in "patient.sex" = "F"'
        return
    known = [f"{level}.{name}" for level in ENTITY_LEVELS for name in (*levels[level].columns, "id")]
    if column not in known:
        near = difflib.get_close_matches(column, known, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
        yield f"{where} {column!r}: no such column; {hint}"


def _as_text(value: object) -> str:
    """As the catalog has it: TOML's true is its `true`, not Python's `True`."""
    return str(value).lower() if isinstance(value, bool) else str(value)
