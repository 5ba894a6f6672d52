"""The check of raw files, references and published files that commands run before they report verdicts.

It compares sizes, times and inodes, reads files that look changed up to a limit of bytes, and records what it finds.
"""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

from ctcore.errors import CatalogError
from ctcore.intake.raw_files import FileChanges, look
from ctcore.integrity.verify import look_at_store
from ctcore.model.node import name_of
from ctcore.project import Project
from ctcore.projects.missing_store import refuse_without_store
from ctcore.store.manifest import Allowance
from ctcore.util import json_text
from ctcore.util.clock import utc

AT_ONCE = 256 << 20  # bytes read before a command answers; `ct verify --quick` reads the rest
MANY, AGAIN_S = 100_000, 30  # with more files than this, a look stays valid for so many seconds
SHOWN = 20  # lines of each kind


@dataclass(frozen=True)
class Look:
    """What a look found. The words name nobody without consent. `as_of`: the time of an earlier look that is reused."""

    changes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    damages: tuple[str, ...] = ()
    unread: int = 0
    unread_bytes: int = 0
    as_of: str | None = None
    is_written: bool = True  # the changes are recorded, so verdicts take them into account
    files: int = 0  # number of files that the look covered

    @property
    def is_clear(self) -> bool:
        """Whether no file is missing, damaged or unread, so that verdicts can be trusted."""
        return not (self.problems or self.damages or self.unread or (self.changes and not self.is_written))

    def lines(self) -> Iterator[str]:
        """Lines for the terminal: what changed, what is wrong, and how many files are still unread."""
        for kind, said in (("changed", self.changes), ("problem", self.problems), ("damaged", self.damages)):
            yield from (f"{kind}: {one}" for one in said[:SHOWN])
            if len(said) > SHOWN:
                yield f"{kind}: … and {len(said) - SHOWN} more; `ct verify --quick` names them"
        if self.unread:
            many = f"{self.unread} file{'s' * (self.unread != 1)} ({self.unread_bytes / 1e9:.1f} GB)"
            yield f"{many} look changed and have not been read yet: `ct verify --quick` or `ct run` reads them"
        if self.as_of is not None:
            yield f"as of {self.as_of[11:16]} UTC, when ct last checked all files ([run] look_again_s)"

    def as_json(self) -> dict[str, object]:
        return {"at": self.as_of, "changed": self.changes, "problems": self.problems, "damaged": self.damages}


def look_around(project: Project, on_bytes: Callable[[int], None] | None = None, *, most: int | None = AT_ONCE) -> Look:
    """Check all files and record what changed. `most` limits the bytes that are read; None: no limit.

    StoreError where the whole store is missing. In an archived project, or where the catalog cannot be written, changes
    are reported but not recorded.
    """
    refuse_without_store(project)
    if most is not None and (seen := _last_look(project)) is not None:
        return seen
    allowance = None if most is None else Allowance(most)
    began, found = time.time(), Look(is_written=not project.catalog.project_state().is_archived)
    try:
        looked = look(project, on_bytes, allowance=allowance)
        found = _with(found, looked)
        store = look_at_store(project, on_bytes, allowance)
        damages = tuple(f"{name_of(one.node)}: {one.file} {one.problem}" for one in store.findings)
        found = replace(
            found,
            damages=damages,
            unread=found.unread + store.unread,
            unread_bytes=found.unread_bytes + store.unread_bytes,
            files=found.files + store.files,
        )
    except CatalogError as error:
        if most is None:
            raise
        said = f"ct cannot record what changed on disk, so verdicts do not take it into account: {error}"
        return replace(found, problems=(*found.problems, said))
    # As of its beginning: what changed while it looked may have been missed.
    _remember(project, began, found)
    return found


def _with(found: Look, looked: FileChanges) -> Look:
    return replace(
        found,
        changes=tuple(looked.changes),
        problems=tuple(looked.problems),
        unread=looked.unread,
        unread_bytes=looked.unread_bytes,
        files=looked.files,
    )


def _last_look(project: Project) -> Look | None:
    """The last clean look, if it is recent enough: `look_again_s` of ct.toml, or `AGAIN_S` with many files."""
    try:
        kept = json_text.loads((project.work / "looked.json").read_bytes())
        enough = project.settings.run.look_again_s or (AGAIN_S if kept["files"] > MANY else 0)
        # Not below 0: where the clock was set back, the last look lies in the future, and would hold until then.
        return Look(as_of=utc(kept["at"])) if enough and 0 <= time.time() - kept["at"] <= enough else None
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _remember(project: Project, began: float, found: Look) -> None:
    if not project.settings.run.look_again_s and found.files <= MANY:
        return
    place = project.work / "looked.json"
    with suppress(OSError):
        if found.is_clear and found.is_written:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(json.dumps({"at": began, "files": found.files}))
        else:
            place.unlink(missing_ok=True)
