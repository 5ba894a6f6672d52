"""Registering a sheet: compare with the catalog, refuse what contradicts it, write the rest in one transaction."""

import difflib
import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path

from sqlalchemy import select

from ctcore.catalog.engine import Writer, upsert
from ctcore.catalog.tables import entity, setting
from ctcore.cohorts.rule_history import record_rules
from ctcore.errors import ProjectError, SheetError, Usage
from ctcore.intake.checksums import read_claimed
from ctcore.intake.sheet_diff import AllowedChanges, Comparison, SheetChanges
from ctcore.intake.unchanged import RegisteredSheet
from ctcore.model.column import Value
from ctcore.model.levels import ENTITY_LEVELS, Level
from ctcore.model.schema import Levels
from ctcore.model.values import control_characters
from ctcore.project import Project
from ctcore.sheet.options import Options
from ctcore.sheet.parse import Sheet, Stored, in_order, read_rows, read_sheet
from ctcore.sheet.rows import Rows, files_of
from ctcore.staleness.preview import consequences
from ctcore.store.digest import digest_files, digest_value
from ctcore.util.gc import without_collecting


@without_collecting
def register(
    project: Project,
    path: Path,
    allowed: AllowedChanges | None = None,
    *,
    options: Options | None = None,
    dry_run: bool = False,
    foresee: bool = False,
    on_bytes: Callable[[int], None] | None = None,
) -> SheetChanges:
    """Bring the catalog to what the sheet says. Either all of it is written or nothing.

    `foresee`: say also what would be stale, which takes an evaluation. Raises SheetError with every problem: of the
    sheet itself, of its checksums, and with the catalog; ProjectError where the data contradict ct.toml.
    """
    levels, options, allowed = project.settings.levels, options or project.settings.reading, allowed or AllowedChanges()
    again = RegisteredSheet(project, path, options, time.time_ns())
    if allowed == AllowedChanges() and (before := _as_before(project, again, dry_run)) is not None:
        return before
    sheet = read_sheet(path, levels, options, _Stored(project), partial(_contradictions, project, allowed))
    return _register(project, sheet, allowed, again, dry_run=dry_run, foresee=foresee, on_bytes=on_bytes)


def _as_before(project: Project, again: RegisteredSheet, dry_run: bool) -> SheetChanges | None:
    """What the sheet would do, known without reading it: nothing."""
    known = again.known()
    if known is None:
        return None
    if not dry_run:
        with project.catalog.write() as writer:
            _remember(project, writer, again.path)
        record_rules(project)
    return SheetChanges(
        unchanged=known["unchanged"], notes=tuple(known["notes"]), as_before=(known["at"], known["files"])
    )


@without_collecting
def register_entity(
    project: Project,
    level: Level,
    name: str,
    *,
    parent: str | None = None,
    values: Mapping[str, str] | None = None,
    allowed: AllowedChanges | None = None,
    dry_run: bool = False,
    foresee: bool = False,
    on_bytes: Callable[[int], None] | None = None,
) -> SheetChanges:
    """One patient, specimen or assay, as a sheet of one row would say it; files are relative to the current folder.

    Its parent must be in the catalog: a slip of the hand makes no second patient.
    """
    stored, subject = _Stored(project), f"{level} {name}"
    cells = {f"{level}_id": name, **_parent_cell(stored, level, name, parent), **(values or {})}
    row = (1, [text.strip() for text in cells.values()])
    table = Rows(list(cells), [row], control_characters([row], list(cells)), is_sheet=False)
    try:
        beside = partial(_contradictions, project, allowed or AllowedChanges())
        sheet = read_rows(Path(subject), table, project.settings.levels, Options(), stored, beside)
        sheet = replace(sheet, subject=subject)
        return _register(
            project, sheet, allowed or AllowedChanges(), None, dry_run=dry_run, foresee=foresee, on_bytes=on_bytes
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
    allowed: AllowedChanges,
    again: RegisteredSheet | None,
    *,
    dry_run: bool,
    foresee: bool,
    on_bytes: Callable[[int], None] | None,
) -> SheetChanges:
    _check_allowed(allowed, sheet, project.settings.levels)

    def refuse_contradictions() -> None:  # before hours of reading files, not after
        with project.catalog.read() as connection:
            Comparison(project, sheet, None, allowed, connection)

    try:
        digests = read_claimed(
            project, sheet, remember=not dry_run, before_reading=refuse_contradictions, on_bytes=on_bytes
        )
    except SheetError as error:
        also = [said for said in _contradictions(project, allowed, sheet) if said not in error.problems]
        if not also:
            raise
        raise SheetError(str(sheet.path), in_order([*error.problems, *also])) from None
    if dry_run:
        with project.catalog.read() as connection:
            planned = Comparison(project, sheet, digests, allowed, connection)
        if foresee and planned.changes:
            planned.changes.consequences += consequences(project, planned.write)
        return planned.changes
    told = None
    with project.catalog.write() as writer:
        # Again, under the write lock: the first comparison was before the files were read, which may have taken hours.
        comparison = Comparison(project, sheet, digests, allowed, writer.connection)
        comparison.write(writer)
        if again is not None:
            _remember(project, writer, sheet.path)
            told = again.told_next(writer.connection, sheet, comparison.changes.known)
    if again is not None:
        # After the commit: the file must promise nothing that the catalog has not.
        again.keep(told)
    record_rules(project)
    return comparison.changes


def _contradictions(project: Project, allowed: AllowedChanges, sheet: Sheet) -> tuple[str, ...]:
    """What a sheet that is refused says otherwise than the catalog."""
    try:
        with project.catalog.read() as connection:
            Comparison(project, sheet, None, allowed, connection)
    except SheetError as error:
        return error.problems
    except ProjectError:  # of data and ct.toml: it is said of a sheet that can be read
        pass
    return ()


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


def _check_allowed(allowed: AllowedChanges, sheet: Sheet, levels: Levels) -> None:
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
    """What the sheet sensor compares: the digest of the sheet's bytes; of a folder, of its files."""
    if not path.is_dir():
        return digest_files([path])[path]
    return digest_value("ct.sheet_folder.v1", {one.name: read for one, read in digest_files(files_of(path)).items()})
