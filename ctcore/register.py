"""② Registering a sheet: compare with the catalog, refuse what contradicts it, write the rest in one transaction."""

import difflib
import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from sqlalchemy import select

from ctcore.again import Again
from ctcore.catalog.engine import Writer, upsert
from ctcore.catalog.tables import entity, setting
from ctcore.checksums import read_claimed
from ctcore.collecting import without_collecting
from ctcore.column import Value
from ctcore.comparison import Allowed, Changes, Comparison
from ctcore.digest import digest_files
from ctcore.errors import SheetError, Usage
from ctcore.foresight import consequences
from ctcore.project import Project
from ctcore.rulebook import note
from ctcore.schema import Levels
from ctcore.sheet import Options, Rows, Sheet, Stored, read_rows, read_sheet
from ctcore.sheet.values import control_characters
from ctcore.step import ENTITY_LEVELS, Level


@without_collecting
def register(
    project: Project,
    path: Path,
    allowed: Allowed | None = None,
    *,
    options: Options | None = None,
    dry_run: bool = False,
    foresee: bool = False,
    on_bytes: Callable[[int], None] | None = None,
) -> Changes:
    """Bring the catalog to what the sheet says. Either all of it is written or nothing.

    `foresee`: say also what would be stale, which takes an evaluation. Raises SheetError with every problem: of the
    sheet itself, of its checksums, and with the catalog; ProjectError where the data contradict ct.toml.
    """
    levels, options, allowed = project.settings.levels, options or project.settings.reading, allowed or Allowed()
    again = Again(project, path, options, time.time_ns())
    if allowed == Allowed() and (before := _as_before(project, again, dry_run)) is not None:
        return before
    sheet = read_sheet(path, levels, options, _Stored(project))
    return _register(project, sheet, allowed, again, dry_run=dry_run, foresee=foresee, on_bytes=on_bytes)


def _as_before(project: Project, again: Again, dry_run: bool) -> Changes | None:
    """What the sheet would do, known without reading it: nothing."""
    known = again.known()
    if known is None:
        return None
    if not dry_run:
        with project.catalog.write() as writer:
            _remember(project, writer, again.path)
        note(project)
    return Changes(unchanged=known["unchanged"], notes=tuple(known["notes"]), as_before=(known["at"], known["files"]))


@without_collecting
def register_entity(
    project: Project,
    level: Level,
    name: str,
    *,
    parent: str | None = None,
    values: Mapping[str, str] | None = None,
    allowed: Allowed | None = None,
    dry_run: bool = False,
    foresee: bool = False,
    on_bytes: Callable[[int], None] | None = None,
) -> Changes:
    """One patient, specimen or assay, as a sheet of one row would say it; files are relative to the current folder.

    Its parent must be in the catalog: a slip of the hand makes no second patient.
    """
    stored, subject = _Stored(project), f"{level} {name}"
    cells = {f"{level}_id": name, **_parent_cell(stored, level, name, parent), **(values or {})}
    row = (1, [text.strip() for text in cells.values()])
    table = Rows(list(cells), [row], control_characters([row], list(cells)))
    try:
        sheet = read_rows(Path(subject), table, project.settings.levels, Options(), stored)
        sheet = replace(sheet, subject=subject)
        return _register(
            project, sheet, allowed or Allowed(), None, dry_run=dry_run, foresee=foresee, on_bytes=on_bytes
        )
    except SheetError as error:
        said = [re.sub(r"^row 1(, column )?(: )?", "", problem) for problem in error.problems]
        raise SheetError(subject, said) from None


def _parent_cell(stored: Stored, level: Level, name: str, parent: str | None) -> dict[str, str]:
    above: Level = "patient" if level == "specimen" else "specimen"
    if parent is None:
        if level != "patient" and stored(level, name) is None:
            raise SheetError(f"{level} {name}", [f"it is new, and needs its {above}; say --parent ID"])
        return {}
    if level == "patient":
        raise Usage("--parent: a patient has no parent; leave it out")
    if stored(above, parent) is None:
        raise Usage(f"no {above} {parent!r:.80} in the catalog; register it first: `ct register {above} ID`")
    return {f"{above}_id": parent}


def _register(
    project: Project,
    sheet: Sheet,
    allowed: Allowed,
    again: Again | None,
    *,
    dry_run: bool,
    foresee: bool,
    on_bytes: Callable[[int], None] | None,
) -> Changes:
    _check_allowed(allowed, sheet, project.settings.levels)

    def refuse_contradictions() -> None:  # before hours of reading files, not after
        with project.catalog.read() as connection:
            Comparison(project, sheet, None, allowed, connection)

    digests = read_claimed(
        project, sheet, remember=not dry_run, before_reading=refuse_contradictions, on_bytes=on_bytes
    )
    if dry_run:
        with project.catalog.read() as connection:
            planned = Comparison(project, sheet, digests, allowed, connection)
        if foresee and planned.changes:
            planned.changes.consequences += consequences(project, planned.write)
        return planned.changes
    told = None
    with project.catalog.write() as writer:
        comparison = Comparison(project, sheet, digests, allowed, writer.connection)
        comparison.write(writer)
        if again is not None:
            _remember(project, writer, sheet.path)
            told = again.told_next(writer.connection, sheet, comparison.changes.known)
    if again is not None:
        again.keep(told)
    note(project)
    return comparison.changes


def _remember(project: Project, writer: Writer, path: Path) -> None:
    """The sheet that was registered last."""
    upsert(writer, setting, [{"name": "sheet", "value": project.recorded(path)}])


class _Stored:
    """What the catalog has of an entity; read when it is first asked for."""

    def __init__(self, project: Project) -> None:
        self.project = project

    def __call__(self, level: Level, name: str) -> Mapping[str, Value] | None:
        text = self._texts.get((level, name))
        return None if text is None else json.loads(text)

    @cached_property
    def _texts(self) -> dict[tuple[str, str], str]:
        with self.project.catalog.read() as connection:
            rows = connection.execute(select(entity.c.level, entity.c.id, entity.c.attributes))
            return {(level, name): text for level, name, text in rows}


def known_sheet(project: Project) -> Path | None:
    """The sheet of ct.toml, or else the one that was registered last."""
    if project.settings.sheet is not None:
        return project.absolute(project.settings.sheet)
    with project.catalog.read() as connection:
        found = connection.execute(select(setting.c.value).where(setting.c.name == "sheet")).scalar()
    return project.absolute(found) if found else None


def _check_allowed(allowed: Allowed, sheet: Sheet, levels: Levels) -> None:
    """An allowance that names nothing is a slip of the hand, and what it was meant for would be refused."""
    columns = [f"{level}.{name}" for level in ENTITY_LEVELS for name in levels[level].columns]
    ids = [*sheet.entities["specimen"], *sheet.entities["assay"]]
    for option, names, known in (("--update", allowed.update, columns), ("--reparent", allowed.reparent, ids)):
        for name in sorted(names - set(known)):
            near = difflib.get_close_matches(name, known, 1)
            what = "column of ct.toml" if option == "--update" else "specimen or assay of the sheet"
            hint = f"did you mean {near[0]}?" if near else "see `ct register --help`"
            raise Usage(f"{option} {name}: no such {what}; {hint}")


def sheet_digest(path: Path) -> str:
    """What the sheet sensor compares: the digest of the sheet's bytes."""
    return digest_files([path])[path]
