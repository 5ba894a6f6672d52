"""Tables as files: which tables, where, and each file whole or not at all. `formats` writes the formats."""

import fnmatch
import glob
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import gettempdir

from ctcore.errors import Usage
from ctcore.intake.own_files import refuse_own_file
from ctcore.model.levels import Level
from ctcore.projects.leases import is_alive
from ctcore.query.formats import FORMATS, TOGETHER, CountedTable, write
from ctcore.query.readable import level_names
from ctcore.query.result_rows import table_type
from ctcore.query.sql import Database
from ctcore.query.table import Row, View, common_type
from ctcore.query.views import Views
from ctcore.util.disk_errors import disk_error, free_at
from ctcore.util.processes import process_name

_PART = re.compile(r"\.([^~]+)~([0-9]+)~([0-9]+)")
SUFFIXES = {f".{name}": name for name in FORMATS}


@dataclass(frozen=True)
class ExportRequest:
    """The export: tables by name (none: all), a statement, or one level with its results as columns."""

    tables: Sequence[str] = ()
    sql: str | None = None
    wide: Level | None = None
    columns: Sequence[str] = ("*",)
    exact: bool = False


def export(views: Views, place: Path, asked: ExportRequest, given: str | None = None) -> list[tuple[Path, str, int]]:
    """Write the files; returns (file, table, rows) of each table."""
    chosen = chosen_views(views, asked)
    kind = format_of(place, given, len(chosen))
    if kind in TOGETHER or (len(chosen) == 1 and not place.is_dir()):
        refuse_own_file(views.project, place)
        return [(place, view.name, view.count) for view in _written(place, kind, chosen, asked.exact)]
    place.mkdir(parents=True, exist_ok=True)
    found = []
    for view in chosen:
        path = place / f"{view.name}.{kind}"
        refuse_own_file(views.project, path)
        found += [(path, one.name, one.count) for one in _written(path, kind, [view], asked.exact)]
    return found


def format_of(place: Path, given: str | None, tables: int = 1) -> str:
    """The requested format, or that of the file's ending; tsv for a folder without one."""
    kind = given or SUFFIXES.get(place.suffix.lower())
    if kind is None and place.suffix and not place.is_dir():
        raise Usage(f"{place}: which format? --format {'|'.join(FORMATS)}")
    kind = kind or "tsv"
    if tables > 1 and kind not in TOGETHER and (place.is_file() or place.suffix.lower() in SUFFIXES):
        raise Usage(f"{place}: {kind} holds one table a file: name a folder, one --table, or a .xlsx or .json")
    return kind


def chosen_views(views: Views, asked: ExportRequest) -> list[View]:
    """The tables that were asked for."""
    if sum(map(bool, (asked.tables, asked.sql, asked.wide))) > 1:
        raise Usage("--table, --query and --wide exclude each other; use one of them")
    if asked.sql is not None:
        heads, rows = Database(views, asked.sql).query(asked.sql)
        return [View("query", tuple((head, "any") for head in heads), lambda: rows)]
    if asked.wide is not None:
        return [wide_table(views, asked.wide, asked.columns)]
    found = {name: views.view(name) for name in asked.tables or views.all}
    for name, view in found.items():
        if view is None:
            raise Usage(f"no table {name!r}; tables: {', '.join(views.all)}, and wide_NAME of a step or an analysis")
    return [view for view in found.values() if view is not None]


def _known(views: Views, patterns: Sequence[str]) -> None:
    known = [*(step.name for step in views.project.steps), *views.project.settings.analyses]
    for pattern in patterns:
        of = pattern.partition(".")[0]
        if of not in known and not set(of) & set("*?["):
            raise Usage(f"--columns {pattern}: no step or analysis {of!r}; known: {', '.join(known) or 'none'}")


def wide_table(views: Views, level: Level, patterns: Sequence[str]) -> View:
    """A level with its current results as columns, `step.name` or `analysis.run.name` each."""
    _known(views, patterns)
    own = views.all[level_names(level)]
    types: dict[str, set[str]] = {}
    found: dict[str, dict[str, object]] = {}
    recorded = views.project.settings.analyses
    for step, of, who, run, name, kind, value, *_ in views.all["results"].rows():
        column = f"{step}.{run}.{name}" if run and step in recorded else f"{step}.{name}"
        if of == level and any(fnmatch.fnmatchcase(column, pattern) for pattern in patterns):
            types.setdefault(column, set()).add(table_type(kind, value))
            found.setdefault(who, {})[column] = value
    names = list(types)
    columns = (*own.columns, *((name, common_type(types[name])) for name in names))
    return View(own.name, columns, partial(_widened, own.rows, found, names))


def _widened(rows: Callable[[], Iterator[Row]], found: dict[str, dict[str, object]], names: list[str]) -> Iterator[Row]:
    for row in rows():
        mine = found.get(row[0], {})
        yield (*row, *(mine.get(name) for name in names))


def _written(path: Path, kind: str, views: Sequence[View], exact: bool) -> list[CountedTable]:
    counted = [CountedTable(view) for view in views]
    with replace_when_whole(path) as part:
        write(kind, part, counted, exact)
    return counted


@contextmanager
def replace_when_whole(path: Path) -> Iterator[Path]:
    """A file beside it that takes its place when it is whole. Those of processes that were killed are removed.

    Usage error for a folder, a device or a pipe.
    """
    if path.is_dir():
        raise Usage(f"{path} is a folder; name a file in it")
    if path.exists() and not path.is_file():
        raise Usage(f"{path} is a device or a pipe, and would be replaced; name a file")
    path = path.resolve() if path.is_symlink() else path  # a link stays a link
    if not path.parent.is_dir():
        raise Usage(f"{path}: there is no folder {path.parent}; make it, or name a file in another")
    # The name's end only: with host, number and start before it, a name has 255 bytes at most (NAME_MAX).
    end = f"~{path.name[-40:]}"
    for other in path.parent.glob(f".*{glob.escape(end)}"):
        found = _PART.fullmatch(other.name.removesuffix(end))
        if found and not is_alive(":".join(found.groups()), path.parent):
            other.unlink(missing_ok=True)
    part = path.with_name(f".{process_name().replace(':', '~')}{end}")
    try:
        with _sigterm_as_interrupt():
            yield part
            os.replace(part, path)
    except OSError as error:
        size = part.stat().st_size if part.exists() else 0
        place = min((path, Path(gettempdir())), key=lambda one: free_at(one) or 0)  # a workbook is first made there
        raise (disk_error(place, error, size if place == path else 0) or error) from error
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """Treat SIGTERM as Ctrl-C: remove unfinished files, including the temporary files of helper processes."""
    if threading.current_thread() is not threading.main_thread():  # only there, signals have handlers
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
