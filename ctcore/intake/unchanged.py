"""Registering the same once more: what proves that there is nothing to read, compare or write.

All that registering looks at is compared with what it was when it was done last: the sheet's bytes, how it is read,
what ct.toml declares, the code that reads it, every row of the tables `entity` and `file`, and every raw file by size,
times and inode. Where anything is otherwise, or is not known to be the same, the sheet is read as ever.
"""

import os
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from stat import S_ISDIR
from typing import Any

from sqlalchemy import Connection, Table, Text, cast, func, literal, select

from ctcore.catalog.schema_triggers import is_applied
from ctcore.catalog.tables import entity, file
from ctcore.errors import InputError
from ctcore.model.levels import Level
from ctcore.model.schema import as_json
from ctcore.project import Project
from ctcore.sheet.options import Options
from ctcore.sheet.parse import Sheet
from ctcore.store.digest import digest_files, digest_value, inode_of, is_old, tagged_digest
from ctcore.store.folder_content import signature_at
from ctcore.util import json_text
from ctcore.util.atomic_file import write_json
from ctcore.util.clock import now

_CODE = ("sheet/*.py", "intake/*.py", "model/*.py", "store/digest.py", "store/folder_content.py")


REGISTERED = "registered.json"
"""In `work`, what was last said of a sheet."""


class RegisteredSheet:
    """A sheet that is to be registered, as it is now; made before it is read."""

    def __init__(self, project: Project, path: Path, options: Options, began_ns: int) -> None:
        self.project, self.path, self.options, self.began_ns = project, path, options, began_ns
        self.asked = self._asked()

    def _asked(self) -> str | None:
        """What decides what a sheet says, but for the catalog and the raw files; None where it cannot be read."""
        try:
            read = digest_files([self.path])[self.path]
            lists = digest_files(self.options.checksums)
        except InputError:
            return None
        options = self.options
        said = {
            "read": read,
            "code": _code(),
            "declared": as_json(self.project.settings.levels),
            "map": [list(pair) for pair in options.map.items()],
            "ignore": list(options.ignore),
            "tab": options.tab,
            "split": options.split,
            "blank": list(options.blank),
            "make": [list(pair) for pair in options.make.items()],
            "values": [[column, *pair] for column, words in options.values.items() for pair in words.items()],
            "checksums": [[str(path), str(path.absolute()), digest] for path, digest in lists.items()],
            # what relative paths, and those with ~, are relative to
            "places": [str(self.path.absolute()), str(self._folder), str(self.project.root), os.path.expanduser("~")],
        }
        return digest_value("ct.registered.v1", said)

    @property
    def _folder(self) -> Path:
        return self.path.absolute().parent.resolve()

    def known(self) -> dict[str, Any] | None:
        """What was said when the same was registered; None where anything may have changed since."""
        kept = self._kept()
        if self.asked is None or kept.get("asked") != self.asked:
            return None
        with self.project.catalog.read() as connection:
            if not is_applied(connection, self.project.settings.levels) or kept["state"] != _state(connection):
                return None
            columns = (file.c.path, file.c.size, file.c.mtime_ns, file.c.inode, file.c.ctime_ns, file.c.problem)
            files = connection.execute(select(*columns)).all()
        return {**kept, "files": len(files)} if _are_as_recorded(self.project, files) else None

    def _kept(self) -> dict[str, Any]:
        try:
            kept = json_text.loads(self._place.read_bytes())
        except (OSError, ValueError):
            return {}
        return kept if isinstance(kept, dict) else {}

    @property
    def _place(self) -> Path:
        return self.project.work / REGISTERED

    def told_next(self, connection: Connection, sheet: Sheet, unchanged: dict[Level, int]) -> dict[str, Any] | None:
        """What the same sheet would be told next time; None where a file is so new that its time proves nothing."""
        claims = (claim for rows in sheet.entities.values() for row in rows.values() for claim in row.files.values())
        settled = all(is_old(claim.seen, self.began_ns) for claim in claims)
        # Asked again: somebody may have saved the sheet while it was read.
        if self.asked is None or not settled or self._asked() != self.asked:
            return None
        said = {"unchanged": unchanged, "notes": list(sheet.notes), "at": now()}
        return {"asked": self.asked, "state": _state(connection), **said}

    def keep(self, said: dict[str, Any] | None) -> None:
        """Write it down, once the catalog has it."""
        if said is None:
            return
        with suppress(OSError):  # whoever may not write there reads the sheet again
            write_json(self._place, said)


def _are_as_recorded(project: Project, files: Iterable[Sequence[Any]]) -> bool:
    """Whether every raw file is there, may be read, and has the recorded size, times and inode."""
    stat, access, readable = os.stat, os.access, os.R_OK
    for path, size, mtime_ns, inode, ctime_ns, problem in files:
        place = project.located(path)
        try:
            seen = stat(place)
        except (OSError, ValueError):
            return False
        if S_ISDIR(seen.st_mode):
            is_same = _is_as_recorded(place, (size, mtime_ns, inode, ctime_ns))
        else:
            is_same = seen.st_mtime_ns == mtime_ns and seen.st_size == size and inode_of(seen) == inode
            is_same = is_same and seen.st_ctime_ns == ctime_ns
        if not is_same or problem is not None or not access(place, readable):
            return False
    return True


def _is_as_recorded(folder: str, recorded: Sequence[int]) -> bool:
    try:
        return signature_at(folder) == recorded
    except OSError:
        return False


def _state(connection: Connection) -> str:
    """The digest of everybody and of all raw files in the catalog."""
    return tagged_digest("ct.registered.v1", "\0".join(_text(connection, table) for table in (entity, file)).encode())


def _text(connection: Connection, table: Table) -> str:
    """All rows as one text, put together by the database: 60,000 of them are no objects here."""
    told = [column for column in table.columns if column.name != "checked_at"]  # reading a file changes nothing
    # No cell of a sheet has a control character (`model.values.CONTROL`), so these three stand for nothing else.
    cells = [func.coalesce(cast(column, Text), literal("\x1d")) for column in told]
    row = cells[0]
    for cell in cells[1:]:
        row = row.concat(literal("\x1f")).concat(cell)
    rows = select(row.label("row")).order_by(*table.primary_key).subquery()
    return connection.execute(select(func.aggregate_strings(rows.c.row, "\x1e"))).scalar() or ""


@cache
def _code() -> str:
    """The code that reads and compares sheets: another version may find other things in the same one."""
    folder = Path(__file__).parent.parent
    found = {pattern: sorted(folder.glob(pattern)) for pattern in _CODE}
    if lost := [pattern for pattern, some in found.items() if not some]:
        raise RuntimeError(f"no code lies at {', '.join(lost)}: the digest of what reads sheets would miss it")
    paths = [path for some in found.values() for path in some]
    return digest_value("ct.registered.v1", [sys.version, *digest_files(paths).values()])
