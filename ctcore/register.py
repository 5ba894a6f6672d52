"""② Registering a sheet: compare with the catalog, refuse what contradicts it, write the rest in one transaction."""

import difflib
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import Connection, func, select

from ctcore.catalog.tables import entity, setting
from ctcore.checksums import read_claimed
from ctcore.collecting import without_collecting
from ctcore.comparison import Allowed, Changes, Comparison
from ctcore.digest import digest_files
from ctcore.errors import Usage
from ctcore.ledger import upsert
from ctcore.project import Project
from ctcore.schema import Levels
from ctcore.sheet import Sheet, read_sheet
from ctcore.step import ENTITY_LEVELS


@without_collecting
def register(
    project: Project,
    path: Path,
    allowed: Allowed | None = None,
    *,
    dry_run: bool = False,
    on_bytes: Callable[[int], None] | None = None,
) -> Changes:
    """Bring the catalog to what the sheet says. Either all of it is written or nothing.

    Raises SheetError with every problem: of the sheet itself, of its checksums, and with the catalog.
    """
    allowed = allowed or Allowed()
    sheet = read_sheet(path, project.settings.levels)
    _check_allowed(allowed, sheet, project.settings.levels)

    def refuse_contradictions() -> None:  # before hours of reading files, not after
        with project.catalog.read() as connection:
            Comparison(project, sheet, None, allowed, connection)

    digests = read_claimed(
        project, sheet, remember=not dry_run, before_reading=refuse_contradictions, on_bytes=on_bytes
    )
    if dry_run:
        with project.catalog.read() as connection:
            return Comparison(project, sheet, digests, allowed, connection).changes
    with project.catalog.write() as writer:
        comparison = Comparison(project, sheet, digests, allowed, writer.connection)
        comparison.write(writer)
        remembered = {"name": "sheet", "value": project.recorded(path)}
        upsert(writer, setting, [remembered], project.dialect)
    return comparison.changes


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


def count_entities(connection: Connection) -> dict[str, int]:
    rows = connection.execute(select(entity.c.level, func.count()).group_by(entity.c.level))
    return {row[0]: row[1] for row in rows}
