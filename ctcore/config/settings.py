"""ct.toml: the declaration of a project. It is read once and checked whole; every problem is named with its place."""

import datetime
import difflib
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, cast, get_args

from ctcore.config.automation import RUN_KEYS, Automation, read_automation
from ctcore.config.cohort_rules import columns_of, nearest_hint, read_cohorts, value_of
from ctcore.config.qc_and_consent import KINDS, QcKind, Uses, read_kinds, read_uses
from ctcore.config.slurm_profiles import Profile, read_profile
from ctcore.errors import ProjectError
from ctcore.model import regions
from ctcore.model.analysis import KEPT_NAMES, Analysis
from ctcore.model.cohort_rule import Cohort
from ctcore.model.column import COLUMN_TYPES, Column, Value
from ctcore.model.levels import ENTITY_LEVELS, Level
from ctcore.model.schema import COLUMN_NAME, ID_PATTERN, Levels, LevelSchema
from ctcore.model.values import CONTROL, convert_text
from ctcore.sheet.columns import ALIASES, known_names
from ctcore.sheet.made_ids import template_problem
from ctcore.sheet.mapped_values import checked_values
from ctcore.sheet.options import Options
from ctcore.steps.facts import range_problems
from ctcore.util.disk_errors import reason_of

FILE_NAME = "ct.toml"
LEVEL_KEYS = ("unique", "default")
RESULT_KEYS = ("unit", "range")
PROJECT_ID = r"[a-z0-9][a-z0-9-]{1,62}[a-z0-9]"


@dataclass(frozen=True)
class Reference:
    """A declared reference: a file or a `folder`, relative to the project. A region lies `on` another reference; `bed`
    are its intervals where ct.toml has them itself."""

    key: str
    path: str
    version: str
    kind: str = "other"
    on: str | None = None
    bed: str | None = None
    folder: bool = False


Several = Literal["any", "all", "worst"]


@dataclass(frozen=True)
class Pairing:
    """A group is a patient, a specimen, or all patients with one value of a column (a family). Its parts are the
    values of the column `by`. `order` lists the required values; without it, all existing ones are required. If
    several specimens or assays have one value: `any` needs one usable assay, `all` one of each specimen, `worst` all
    assays. `require`: this many values suffice. `where`: only such assays count."""

    name: str
    by: str
    order: tuple[str, ...] = ()
    require: int = 0
    several: Several = "all"
    within: str = "patient"
    where: Mapping[str, str] = field(default_factory=dict)

    @property
    def level(self) -> Level:
        """The level of the groups."""
        return "specimen" if self.within == "specimen" else "patient"

    def groups(self, many: int) -> str:
        """`3 patients`, `1 family`."""
        name = self.within.partition(".")[2] or self.within
        return f"{many} {name}" if many == 1 else f"{many} {name[:-1]}ies" if name.endswith("y") else f"{many} {name}s"


MAY_BE_ZERO = ("workers", "look_again_s")  # of these, 0 says something
VerifyInputs = Literal["signature", "bytes"]
Sandbox = Literal["off", "watch", "strict"]
Readable = Literal["group", "everybody"]
Trace = Literal["sparing", "always", "off"]
CHOICES: Mapping[str, Any] = {"verify_inputs": VerifyInputs, "sandbox": Sandbox, "trace": Trace}


@dataclass(frozen=True)
class RunSettings:
    """Limits of runs and sensors, in processes, partitions, requests, seconds and GiB a day; and how calls are watched.

    `workers`: 0 = one per core. `verify_inputs`: whether a call reads its inputs' bytes first, or trusts size, times
    and inode. `look_again_s`: how long commands trust an earlier look at the disk.
    """

    workers: int = 0
    partitions_per_run: int = 500
    requests_per_tick: int = 20
    requests_in_flight: int = 20
    retry_after_s: int = 300
    look_every_s: int = 15
    verify_every_s: int = 300
    verify_gib_a_day: int = 1000
    verify_inputs: VerifyInputs = "signature"
    look_again_s: int = 0
    sandbox: Sandbox = "watch"
    trace: Trace = "sparing"


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
    slurm: Mapping[str, Profile] = field(default_factory=dict)
    qc_kinds: Mapping[str, QcKind] = field(default_factory=lambda: KINDS)
    uses: Uses = field(default_factory=Uses)
    automation: Automation = field(default_factory=Automation)
    reading: Options = field(default_factory=Options)
    pairings: Mapping[str, Pairing] = field(default_factory=dict)
    analyses: Mapping[str, Analysis] = field(default_factory=dict)
    dagster_home: str | None = None
    readable: Readable = "group"


def read_settings(path: Path) -> Settings:
    """Read ct.toml. ProjectError lists every problem at once."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ProjectError(f"no {FILE_NAME} in {path.parent}; `ct init {path.parent}` makes a project") from None
    except OSError as error:
        raise ProjectError(f"{path} cannot be read: {reason_of(error)}") from error
    except UnicodeDecodeError as error:
        raise ProjectError(f"{path} cannot be read: {error}") from error
    try:
        document = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ProjectError(f"{path} is not valid TOML: {error}") from error
    reader = _Reader(path)
    settings = reader.settings(document)
    if reader.problems:
        lines = "\n".join(f"  {problem}" for problem in reader.problems)
        many = f"{len(reader.problems)} problem" + "s" * (len(reader.problems) != 1)
        raise ProjectError(f"{path}: {many}\n{lines}")
    return settings


class _Reader:
    """Walks the document once and collects the problems."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problems: list[str] = []

    def settings(self, document: dict[str, Any]) -> Settings:
        known = {
            "project",
            "levels",
            "references",
            "regions",
            "cohorts",
            "steps",
            "params",
            "environment",
            "run",
            "policy",
            "slurm",
            "sheet",
            "qc",
            "consent",
            "pairings",
            "analyses",
            "dagster",
        }
        self._only(document, known, "the top level")
        project = self._table(document, "project")
        self._only(project, {"id", "name", "sheet", "readable"}, "[project]")
        project_id = self._text(project, "id", "[project]") or ""
        if not re.fullmatch(PROJECT_ID, project_id):
            self.problems.append(f"[project] id {project_id!r}: 3 to 64 of a-z, 0-9 and -, not at an end")
        steps = self._table(document, "steps")
        self._only(steps, {"folders"}, "[steps]")
        dagster = self._table(document, "dagster")
        self._only(dagster, {"home"}, "[dagster]")
        environment = self._table(document, "environment")
        self._only(environment, {"lock"}, "[environment]")
        levels = self._levels(self._table(document, "levels"))
        run = self._table(document, "run")
        automation, problems = read_automation(run, self._table(document, "policy"))
        self.problems += problems
        references = self._references(self._table(document, "references"))
        return Settings(
            project_id=project_id,
            name=self._text(project, "name", "[project]") or project_id,
            sheet=self._text(project, "sheet", "[project]"),
            levels=levels,
            references=references | self._regions(self._table(document, "regions"), references),
            cohorts=self._cohorts(self._table(document, "cohorts"), levels, self._table(document, "pairings")),
            step_folders=self._texts(steps, "folders", "[steps]", ("ct_assets/steps", "steps")),
            params=self._params(self._table(document, "params")),
            environment_lock=self._text(environment, "lock", "[environment]"),
            run=self._run(run),
            slurm=self._slurm(self._table(document, "slurm")),
            qc_kinds=self._kinds(self._table(document, "qc")),
            uses=self._uses(self._table(document, "consent")),
            automation=automation,
            reading=self._reading(self._table(document, "sheet"), levels),
            pairings=self._pairings(self._table(document, "pairings"), levels),
            analyses=self._analyses(self._table(document, "analyses")),
            dagster_home=self._text(dagster, "home", "[dagster]"),
            readable=self._readable(project),
        )

    def _readable(self, project: dict[str, Any]) -> Readable:
        said = project.get("readable", "group")
        if said not in get_args(Readable):
            self.problems.append(f"[project] readable = {said!r:.80}: one of {', '.join(get_args(Readable))}")
        return said

    def _table(self, parent: dict[str, Any], key: str, where: str = "") -> dict[str, Any]:
        value = parent.get(key, {})
        if isinstance(value, dict):
            return cast(dict[str, Any], value)
        name = f"{where[1:-1]}.{key}" if where else key
        self.problems.append(f"{name} = {value!r:.80}: a table [{name}] is expected")
        return {}

    def _text(self, table: dict[str, Any], key: str, where: str) -> str | None:
        value = table.get(key)
        if value is None or (isinstance(value, str) and value and "\0" not in value):
            return value
        self.problems.append(f'{where} {key} = {value!r:.80}: a text is expected, as in {key} = "…"')
        return None

    def _texts(self, table: dict[str, Any], key: str, where: str, default: tuple[str, ...] = ()) -> tuple[str, ...]:
        value = table.get(key, default)
        if isinstance(value, list | tuple) and all(isinstance(one, str) and one for one in value):
            if len(set(value)) < len(value):
                self.problems.append(f"{where} {key} = {value!r:.80}: one of them is listed twice")
            return tuple(value)
        self.problems.append(f'{where} {key} = {value!r:.80}: a list of texts is expected, as in {key} = ["…"]')
        return default

    def _only(self, table: Mapping[str, Any], known: Iterable[str], where: str) -> None:
        for key in table:
            if key not in known:
                near = difflib.get_close_matches(key, known, 1)
                hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(known))}"
                self.problems.append(f"{where}: unknown key {key!r}; {hint}")

    def _levels(self, table: dict[str, Any]) -> Levels:
        self._only(table, ENTITY_LEVELS, "[levels]")
        levels: dict[Level, LevelSchema] = {
            level: self._level(level, self._table(table, level, "[levels]")) for level in ENTITY_LEVELS
        }
        users: dict[str, Level] = {}
        for level in ENTITY_LEVELS:
            for role in levels[level].roles:
                if users.setdefault(role, level) != level:
                    self.problems.append(f"[levels.{level}] files: {role!r} is a file of {users[role]} already")
        return levels

    def _level(self, level: Level, table: dict[str, Any]) -> LevelSchema:
        where = f"[levels.{level}]"
        self._only(table, {"columns", "id_pattern", "files", "folders"}, where)
        pattern = self._text(table, "id_pattern", where) or ID_PATTERN
        try:
            re.compile(pattern)
        except re.error as error:
            self.problems.append(f"{where} id_pattern {pattern!r} is not a regular expression: {error}")
        columns = self._table(table, "columns", where)
        files, folders = self._texts(table, "files", where), self._texts(table, "folders", where)
        for name in (*columns, *files, *folders):
            self._name(f"{where} {name!r}", name)
        for name in files:
            if name in folders:
                self.problems.append(f"{where} {name!r} is in files and in folders; take it out of one of them")
        for name in columns:
            if name in (*files, *folders):
                self.problems.append(f"{where} {name!r}: a column and a file have one name; rename one of them")
        return LevelSchema(
            level=level,
            columns={name: self._column(f"[levels.{level}.columns.{name}]", name, columns[name]) for name in columns},
            id_pattern=pattern,
            files=files,
            folders=folders,
        )

    def _name(self, where: str, name: str) -> None:
        if not re.fullmatch(COLUMN_NAME, name) or name == "id":
            self.problems.append(f"{where}: a column or file is named with letters, digits and _, and not `id`")
        elif name.lower() in (*ALIASES, *ALIASES.values()):
            self.problems.append(f"{where}: a sheet has the IDs under this name; choose another")

    def _analyses(self, table: dict[str, Any]) -> dict[str, Analysis]:
        """Analyses that are made elsewhere and recorded by `ct record`."""
        found = {}
        for name in table:
            where, entry = f"[analyses.{name}]", self._table(table, name, "[analyses]")
            self._only(entry, {"level", "columns", "description"}, where)
            if not re.fullmatch(COLUMN_NAME, name):
                self.problems.append(f"{where}: the name must match {COLUMN_NAME}")
            if (level := entry.get("level")) not in ENTITY_LEVELS:
                self.problems.append(f"{where} level = {level!r:.80}: one of {', '.join(ENTITY_LEVELS)}")
            columns = {}
            for one, declared in self._table(entry, "columns", where).items():
                place = f"[analyses.{name}.columns.{one}]"
                columns[one] = self._column(place, one, declared, RESULT_KEYS)
                if one in KEPT_NAMES or not re.fullmatch(COLUMN_NAME, one):
                    said = "a column is named with letters, digits and _"
                    self.problems.append(f"{place}: {said}, and not {', '.join(KEPT_NAMES)}")
            found[name] = Analysis(name, cast(Level, level), columns, self._text(entry, "description", where) or "")
        return found

    def _range(self, value: object, column: Column, where: str) -> Column:
        if value is None:
            return column
        numbers = isinstance(value, list) and len(value) == 2 and all(type(one) in (int, float) for one in value)
        if not numbers:
            self.problems.append(f"{where} range = {value!r:.80}: two numbers, as in range = [0, 1]")
            return column
        low, high = cast(list[float], value)
        ranged = replace(column, range=(low, high))
        self.problems += range_problems(where, ranged)
        return ranged

    def _column(self, where: str, name: str, declared: object, keys: tuple[str, ...] = LEVEL_KEYS) -> Column:
        table = cast(dict[str, Any], declared) if isinstance(declared, dict) else {"type": declared}
        self._only(table, {"type", "required", "enum", "description", *keys}, where)
        kind = table.get("type", "text")
        if kind not in COLUMN_TYPES:
            self.problems.append(f"{where} type {kind!r:.80} is not one of {', '.join(COLUMN_TYPES)}")
            kind = "text"
        values = table.get("enum")
        if isinstance(values, list):  # enum = [0, 1] is meant as it reads
            table = {**table, "enum": [str(one) if type(one) is int else one for one in values]}
        column = Column(
            name=name,
            type=kind,
            required=self._flag(table, "required", where),
            enum=self._texts(table, "enum", where),
            description=self._text(table, "description", where) or "",
            unique=self._flag(table, "unique", where),
            unit=(self._text(table, "unit", where) or "") if keys is RESULT_KEYS else "",
        )
        column = self._range(table.get("range"), column, where) if keys is RESULT_KEYS else column
        for value in column.enum:
            if CONTROL.search(value):
                self.problems.append(f"{where} enum: {value!r:.80} has a control character, which no cell may have")
            elif (problem := convert_text(value, column)[1]) is not None:
                self.problems.append(f"{where} enum: {value!r:.80} {problem.partition(';')[0]}, the column's type")
        return replace(column, default=self._default(table.get("default"), column, where))

    def _flag(self, table: dict[str, Any], key: str, where: str) -> bool:
        value = table.get(key, False)
        if not isinstance(value, bool):
            self.problems.append(f"{where} {key} = {value!r:.80}: true or false is expected, without quotes")
        return value is True

    def _default(self, value: object, column: Column, where: str) -> Value:
        """Written as in TOML or as in a sheet: 30, "30", true, a date."""
        if value is None:
            return None
        said = f"{where} default = {value!r:.80}"
        if column.unique:
            self.problems.append(f"{said}: the column is unique, and a second entity could not have it; remove one")
        if isinstance(value, datetime.datetime) or not isinstance(value, str | int | float | datetime.date):
            self.problems.append(f"{said}: one value is expected")
            return None
        text = str(value).lower() if isinstance(value, bool) else str(value)
        typed, problem = convert_text(text, column)
        if not text or text != text.strip() or CONTROL.search(text):
            problem = "is blank, or has blanks around it or a control character"
        if problem is not None:
            self.problems.append(f"{said} {problem.partition(';')[0]}")
            return None
        return typed

    def _entries(self, table: dict[str, Any], name: str, known: set[str]) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """Each key of a table of tables, how the entry is called in a problem, and the entry."""
        for key, declared in table.items():
            where, entry = f"[{name}.{key}]", self._table(table, key, f"[{name}]")
            if entry is not declared:
                continue
            self._only(entry, known, where)
            if not re.fullmatch(ID_PATTERN, key):
                self.problems.append(f"{where}: the key must match {ID_PATTERN}")
            yield key, where, entry

    def _references(self, table: dict[str, Any]) -> dict[str, Reference]:
        found = {}
        for key, where, entry in self._entries(table, "references", {"path", "version", "kind", "folder"}):
            for needed in ("path", "version"):
                if not isinstance(entry.get(needed), str) or not entry[needed]:
                    self.problems.append(f'{where} needs {needed} = "…" (a text)')
            kind = self._text(entry, "kind", where) or "other"
            if kind == regions.KIND:
                self.problems.append(f'{where} kind = "{kind}": write it as [regions.{key}]')
            folder = self._flag(entry, "folder", where)
            if folder and kind == "genome":
                self.problems.append(f'{where} kind = "genome": is a file with an index beside it, and no folder')
            path, version = str(entry.get("path")), str(entry.get("version"))
            found[key] = Reference(key, path, version, kind, folder=folder)
        return found

    def _regions(self, table: dict[str, Any], references: Mapping[str, Reference]) -> dict[str, Reference]:
        found = {}
        for key, where, entry in self._entries(table, "regions", {"reference", "bed", "intervals"}):
            if key in references:
                self.problems.append(f"{where}: [references.{key}] has this key already; rename one of them")
            on, path, bed = self._text(entry, "reference", where), self._text(entry, "bed", where), None
            if on is not None and on not in references:
                near = difflib.get_close_matches(on, references, 1)
                hint = f"did you mean {near[0]!r}?" if near else f"declared: {', '.join(references) or 'none'}"
                self.problems.append(f"{where} reference = {on!r:.80}: no such reference; {hint}")
            if ("bed" in entry) == ("intervals" in entry):
                self.problems.append(f'{where} needs bed = "…" (a BED file) or intervals = ["chr17:1-100000"]')
            elif "intervals" in entry:
                listed, problems = regions.read_intervals(entry["intervals"])
                self.problems += [f"{where} {problem}" for problem in problems]
                bed = regions.as_bed(listed)
            found[key] = Reference(key, path or regions.place_of(bed or ""), regions.KIND, regions.KIND, on, bed)
        return found

    def _cohorts(self, table: dict[str, Any], levels: Levels, pairings: Iterable[str]) -> dict[str, Cohort]:
        found, problems = read_cohorts(table, levels, pairings, self.path.parent)
        self.problems += problems
        return found

    def _pairings(self, table: dict[str, Any], levels: Levels) -> dict[str, Pairing]:
        found = {}
        for name in table:
            place, entry = f"[pairings.{name}]", self._table(table, name, "[pairings]")
            self._only(entry, {"by", "order", "require", "several", "within", "where"}, place)
            if not re.fullmatch(ID_PATTERN, name):
                self.problems.append(f"{place}: the name must match {ID_PATTERN}")
            several, within = entry.get("several", "all"), entry.get("within", "patient")
            if several not in get_args(Several):
                self.problems.append(f"{place} several = {several!r:.80}: one of {', '.join(get_args(Several))}")
            grouping = [f"patient.{column}" for column in levels["patient"].columns]
            if within not in ("patient", "specimen", *grouping):
                listed = ", ".join(["patient", "specimen", *grouping])
                self.problems.append(
                    f"{place} within = {within!r:.80}: patient, specimen, or a column of patients; {listed}"
                )
                within = "patient"
            require, where = entry.get("require", 0), self._table(entry, "where", place)
            if isinstance(require, bool) or not isinstance(require, int) or require < 0:
                self.problems.append(f"{place} require = {require!r:.80}: a whole number, 0 or more")
            found[name] = Pairing(
                name,
                self._by(place, entry.get("by"), levels, within),
                self._texts(entry, "order", place),
                require,
                several,
                within,
                {column: self._rule(place, column, where[column], levels) for column in where},
            )
        return found

    def _by(self, place: str, by: object, levels: Levels, within: str) -> str:
        """A column of a level below the group's; for groups of patients, also a column of patients."""
        above = {"patient": 1, "specimen": 2}.get(within, 0)
        below = ENTITY_LEVELS[above:]
        known = [f"{level}.{name}" for level in below for name in levels[level].columns]
        if by not in known:
            listed = ", ".join(known) or "none yet"
            self.problems.append(
                f'{place} by = {by!r:.80}: a column below {within}, as in by = "specimen.site"; {listed}'
            )
        return str(by)

    def _rule(self, place: str, name: str, value: Any, levels: Levels) -> str:
        """One value of a column, as the catalog has it."""
        columns = columns_of(levels)
        if name not in columns:
            self.problems.append(f"{place} where {name!r}: no such level.column; {nearest_hint(name, columns)}")
            return str(value)
        return value_of(f"{place} where {name}", value, columns[name], self.problems)

    def _params(self, table: dict[str, Any]) -> dict[str, dict[str, Any]]:
        return {name: self._table(table, name, "[params]") for name in table}

    def _run(self, table: dict[str, Any]) -> RunSettings:
        known = {option.name for option in fields(RunSettings)}
        self._only(table, {*known, *RUN_KEYS}, "[run]")
        good: dict[str, Any] = {}
        for key in known & set(table):
            value, least = table[key], 0 if key in MAY_BE_ZERO else 1
            if key in CHOICES:
                good[key] = value
                if value not in (allowed := get_args(CHOICES[key])):
                    self.problems.append(f"[run] {key} = {value!r:.80}: one of {', '.join(allowed)}")
            elif isinstance(value, int) and not isinstance(value, bool) and value >= least:
                good[key] = value
            else:
                self.problems.append(f"[run] {key} = {value!r:.80}: a whole number, {least} or more")
        return RunSettings(**good)

    def _reading(self, table: dict[str, Any], levels: Levels) -> Options:
        """How sheets of this project call their columns."""
        self._only(table, {"map", "ignore", "tab", "make", "blank", "values", "split"}, "[sheet]")
        names = self._table(table, "map", "[sheet]")
        known = known_names(levels)
        for theirs, ours in names.items():
            if not isinstance(ours, str) or ours.lower() not in known:
                near = difflib.get_close_matches(str(ours), known, 1)
                hint = f"did you mean {near[0]!r}?" if near else "an ID, a file or a declared column is expected"
                self.problems.append(f"[sheet.map] {theirs!r:.80} = {ours!r:.80}: {hint}")
        good = {theirs: ours for theirs, ours in names.items() if isinstance(ours, str)}
        made = self._table(table, "make", "[sheet]")
        for name, template in made.items():
            said = template_problem(name, template) if isinstance(template, str) else "a template is a text"
            if said is not None:
                self.problems.append(f"[sheet.make] {name:.80} = {template!r:.80}: {said}")
        ignored, blank = (self._texts(table, key, "[sheet]") for key in ("ignore", "blank"))
        said = self._table(table, "values", "[sheet]")
        values, problems = checked_values({name: self._table(said, name, "[sheet.values]") for name in said}, levels)
        self.problems += [f"[sheet.values] {problem}" for problem in problems]
        tab, split = (self._text(table, key, "[sheet]") for key in ("tab", "split"))
        return Options(good, ignored, tab, made, blank, values, split=split)

    def _slurm(self, table: dict[str, Any]) -> dict[str, Profile]:
        found = {}
        for name in table:
            found[name], problems = read_profile(name, self._table(table, name, "[slurm]"))
            self.problems += problems
        return found

    def _kinds(self, table: dict[str, Any]) -> dict[str, QcKind]:
        self._only(table, {"kinds"}, "[qc]")
        found, problems = read_kinds(self._table(table, "kinds", "[qc]"))
        self.problems += problems
        return found

    def _uses(self, table: dict[str, Any]) -> Uses:
        found, problems = read_uses(table)
        self.problems += problems
        return found
