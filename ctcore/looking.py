"""⑤ The one look: raw files, references and published files as they are now, before a command says what is true.

A look raises doubts, and writes down what it sees; what looks touched is read, as far as an answer may wait for it.
"""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

from sqlalchemy import func, select

from ctcore import jsontext
from ctcore.catalog.tables import artifact
from ctcore.clock import utc
from ctcore.errors import CatalogError, StoreError
from ctcore.files import Looked, look
from ctcore.manifest import Allowance
from ctcore.project import Project
from ctcore.reasons import name_of
from ctcore.verify import look_at_store

AT_ONCE = 256 << 20  # bytes that are read before an answer; more is left to `ct verify --quick`
MANY, AGAIN_S = 100_000, 30  # where there are more files, a look is good for so many seconds
SHOWN = 20  # lines of each kind
_GONE = 3  # the exit code of what was found


@dataclass(frozen=True)
class Sight:
    """What a look found, in words in which nobody without consent is named; `as_of`: it was seen then, and not now."""

    changes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    damages: tuple[str, ...] = ()
    unread: int = 0
    unread_bytes: int = 0
    as_of: str | None = None
    is_written: bool = True  # verdicts follow from what changed
    files: int = 0  # that were looked at

    @property
    def is_clear(self) -> bool:
        """Whether all is there and known: verdicts say what is true."""
        return not (self.problems or self.damages or self.unread or (self.changes and not self.is_written))

    def lines(self) -> Iterator[str]:
        """For people: what changed, what is wrong, and what was left."""
        for kind, said in (("changed", self.changes), ("problem", self.problems), ("damaged", self.damages)):
            yield from (f"{kind}: {one}" for one in said[:SHOWN])
            if len(said) > SHOWN:
                yield f"{kind}: … and {len(said) - SHOWN} more; `ct verify --quick` names them"
        if self.unread:
            many = f"{self.unread} file{'s' * (self.unread != 1)} ({self.unread_bytes / 1e9:.1f} GB)"
            yield f"{many} look touched and are not read yet: `ct verify --quick` reads them, and so does `ct run`"
        if self.as_of is not None:
            yield f"as of {self.as_of[11:16]} UTC, when all files were looked at ([run] look_again_s)"

    def as_json(self) -> dict[str, object]:
        return {"at": self.as_of, "changed": self.changes, "problems": self.problems, "damaged": self.damages}


def look_around(
    project: Project, on_bytes: Callable[[int], None] | None = None, *, most: int | None = AT_ONCE
) -> Sight:
    """Look at everything, and write down what is otherwise. `most`: so many bytes are read for it; None: all it takes.

    StoreError where the store is gone as a whole. Of an archived project, or where nothing can be written, what was
    seen is said only.
    """
    refuse_without_store(project)
    if most is not None and (seen := _lately(project)) is not None:
        return seen
    allowance = None if most is None else Allowance(most)
    began, found = time.time(), Sight(is_written=not project.catalog.life().is_archived)
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
        said = f"what is seen on disk cannot be written down, and verdicts do not follow from it: {error}"
        return replace(found, problems=(*found.problems, said))
    _keep(project, began, found)
    return found


def _with(found: Sight, looked: Looked) -> Sight:
    return replace(
        found,
        changes=tuple(looked.changes),
        problems=tuple(looked.problems),
        unread=looked.unread,
        unread_bytes=looked.unread_bytes,
        files=looked.files,
    )


def _lately(project: Project) -> Sight | None:
    """A look that found nothing wrong, no longer ago than ct.toml says is enough, or than many files allow."""
    try:
        kept = jsontext.loads((project.work / "looked.json").read_bytes())
        enough = project.settings.run.look_again_s or (AGAIN_S if kept["files"] > MANY else 0)
        return Sight(as_of=utc(kept["at"])) if enough and 0 <= time.time() - kept["at"] <= enough else None
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _keep(project: Project, began: float, found: Sight) -> None:
    if not project.settings.run.look_again_s and found.files <= MANY:
        return
    place = project.work / "looked.json"
    with suppress(OSError):
        if found.is_clear and found.is_written:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(json.dumps({"at": began, "files": found.files}))
        else:
            place.unlink(missing_ok=True)


def refuse_without_store(project: Project) -> None:
    """StoreError where artifacts are on record and there is no store: a disk that is not mounted is no lost result."""
    if project.store.is_there:
        return
    with project.catalog.read() as connection:
        made = connection.execute(select(func.count()).select_from(artifact)).scalar() or 0
    if made:
        many = f"{made} artifact{'s' * (made != 1)}"
        error = StoreError(
            f"the store {project.store.root} is not there, and {many} should be in it; mount its disk or put it back "
            f"(lost for good: `ct init {project.root}` makes an empty one, and `ct run` makes everything again)"
        )
        error.exit_code = _GONE
        raise error
