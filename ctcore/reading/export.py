"""⑦ Tables as files: which ones, where, all of a file or nothing. The formats are in `formats`."""

import fnmatch
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ctcore.errors import Usage
from ctcore.reading.database import Database
from ctcore.reading.formats import FORMATS, TOGETHER, Counted, write
from ctcore.reading.gate import level_names
from ctcore.reading.views import Row, View, Views
from ctcore.step import Level

SUFFIXES = {f".{name}": name for name in FORMATS}


@dataclass(frozen=True)
class Asked:
    """What is to be exported: tables by name (none: all), a statement, or one level with its results as columns."""

    tables: Sequence[str] = ()
    sql: str | None = None
    wide: Level | None = None
    columns: Sequence[str] = ("*",)
    exact: bool = False


def export(views: Views, place: Path, asked: Asked, given: str | None = None) -> list[tuple[Path, str, int]]:
    """Write the files; returns (file, table, rows) of each table."""
    chosen = chosen_views(views, asked)
    kind = format_of(place, given, len(chosen))
    if kind in TOGETHER or (len(chosen) == 1 and not place.is_dir()):
        return [(place, view.name, view.count) for view in _written(place, kind, chosen, asked.exact)]
    place.mkdir(parents=True, exist_ok=True)
    found = []
    for view in chosen:
        path = place / f"{view.name}.{kind}"
        found += [(path, one.name, one.count) for one in _written(path, kind, [view], asked.exact)]
    return found


def format_of(place: Path, given: str | None, tables: int = 1) -> str:
    """As said, or as the name ends; a folder of tsv where it does not say."""
    kind = given or SUFFIXES.get(place.suffix.lower())
    if kind is None and place.suffix and not place.is_dir():
        raise Usage(f"{place}: which format? --format {'|'.join(FORMATS)}")
    kind = kind or "tsv"
    if tables > 1 and kind not in TOGETHER and (place.is_file() or place.suffix.lower() in SUFFIXES):
        raise Usage(f"{place}: {kind} holds one table a file: name a folder, one --table, or a .xlsx or .json")
    return kind


def chosen_views(views: Views, asked: Asked) -> list[View]:
    """The tables that were asked for."""
    if sum(map(bool, (asked.tables, asked.sql, asked.wide))) > 1:
        raise Usage("--table, --query and --wide are three ways to say what; use one of them")
    if asked.sql is not None:
        heads, rows = Database(views, asked.sql).query(asked.sql)
        return [View("query", tuple((head, "any") for head in heads), lambda: rows)]
    if asked.wide is not None:
        return [wide(views, asked.wide, asked.columns)]
    for name in asked.tables:
        if name not in views.all:
            raise Usage(f"no table {name!r}; tables: {', '.join(views.all)}")
    return [views.all[name] for name in asked.tables or views.all]


def wide(views: Views, level: Level, patterns: Sequence[str]) -> View:
    """A level with its current results as columns, `step.name` each, as many as there are."""
    own = views.all[level_names(level)]
    steps = {step.name for step in views.project.steps if step.level == level}
    types: dict[str, set[str]] = {}
    found: dict[str, dict[str, object]] = {}
    for step, _, who, name, kind, value, *_ in views.all["results"].rows():
        column = f"{step}.{name}"
        if step in steps and any(fnmatch.fnmatchcase(column, pattern) for pattern in patterns):
            types.setdefault(column, set()).add(kind if isinstance(value, str) == (kind == "text") else "text")
            found.setdefault(who, {})[column] = value
    names = list(types)
    columns = (*own.columns, *((name, _common(types[name])) for name in names))
    return View(own.name, columns, partial(_widened, own.rows, found, names))


def _widened(rows: Callable[[], Iterator[Row]], found: dict[str, dict[str, object]], names: list[str]) -> Iterator[Row]:
    for row in rows():
        mine = found.get(row[0], {})
        yield (*row, *(mine.get(name) for name in names))


def _common(types: set[str]) -> str:
    if types <= {"integer", "real"}:
        return "integer" if types == {"integer"} else "real"
    return types.pop() if len(types) == 1 and types <= {"text", "boolean"} else "any"


def _written(path: Path, kind: str, views: Sequence[View], exact: bool) -> list[Counted]:
    counted = [Counted(view) for view in views]
    with replacing(path) as part:
        write(kind, part, counted, exact)
    return counted


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file beside it that takes its place when it is whole."""
    if path.is_dir():
        raise Usage(f"{path} is a folder; name a file in it")
    part = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
