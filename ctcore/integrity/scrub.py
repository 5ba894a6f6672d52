"""Reads all artifacts, raw files and references again, those with the oldest check first.

An interrupted scrub continues where it stopped. The integrity sensor reads one share at each tick.
"""

import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from sqlalchemy import func, select

from ctcore.catalog.tables import artifact, entity, event, file, materialization, reference
from ctcore.governance.masking import mask_of
from ctcore.intake.raw_files import read_raw, read_references
from ctcore.integrity.verify import Finding, current_artifacts, verify, verify_rows
from ctcore.model.node import Node
from ctcore.project import Project
from ctcore.util import json_text
from ctcore.util.clock import now, utc

GIB = 1 << 30
CHUNK_BYTES, CHUNK_FILES = 2 * GIB, 2_000  # read before the check is recorded
DAY_S = 24 * 3600

Told = Callable[[int], None]


class ScrubItem(NamedTuple):
    """One thing to read. `read_at`: time of the last read, empty if never; `size`: bytes."""

    read_at: str
    kind: Literal["artifact", "file", "reference"]
    name: Node
    size: int


@dataclass
class ScrubResult:
    """Counts of what was read. `findings`: damaged artifacts; `said`: changed or unreadable inputs, in words."""

    artifacts: int = 0
    files: int = 0
    references: int = 0
    bytes: int = 0
    findings: list[Finding] = field(default_factory=list)
    changed_inputs: list[str] = field(default_factory=list)
    since: str | None = None  # start of the interrupted scrub that this one continues

    @property
    def count(self) -> int:
        return self.artifacts + self.files + self.references


def items(project: Project) -> list[ScrubItem]:
    """Everything that a scrub reads, the oldest check first."""
    of_people = entity.c.purged.is_(None)
    # Several entities may have one file: it is read once, and is due as soon as the oldest of its checks is.
    raw = select(file.c.path, func.max(file.c.size), func.min(func.coalesce(file.c.checked_at, "")))
    raw = raw.join(entity, entity.c.seq == file.c.entity).where(of_people).group_by(file.c.path)
    made = select(artifact.c.asset, artifact.c.partition, materialization.c.size, artifact.c.checked_at)
    made = made.join(materialization, materialization.c.id == artifact.c.materialization)
    declared = project.settings.references
    with project.catalog.read() as connection:
        found = [ScrubItem(read_at, "file", ("", path), size) for path, size, read_at in connection.execute(raw)]
        rows = connection.execute(select(reference.c.key, reference.c.size, reference.c.checked_at))
        found += [ScrubItem(at or "", "reference", ("", key), size) for key, size, at in rows if key in declared]
        rows = connection.execute(made)
        found += [ScrubItem(at or "", "artifact", (asset, who), size) for asset, who, size, at in rows]
    return sorted(found)


def scrub(
    project: Project, again: bool = False, begin: Told = lambda _: None, on_bytes: Told | None = None
) -> ScrubResult:
    """Read everything, or the rest of an interrupted scrub. `begin` receives the number of bytes to read.

    `again`: read everything, even after an interrupted scrub.
    """
    mark = project.work / "verifying.json"
    writes = not project.catalog.project_state().is_archived
    since = None if again or not writes else _began(mark)
    if since is None and writes:
        with suppress(OSError):
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.write_text(json.dumps({"began": now()}))
    todo = [one for one in items(project) if since is None or one.read_at < since]
    begin(sum(one.size for one in todo))
    found = ScrubResult(since=since)
    if since is not None:
        found.changed_inputs += _found_since(project, since)
    for some in _chunks(todo):
        _read(project, some, found, on_bytes)
    if since is not None:  # the catalog has the findings from before the interruption
        done = set(found.findings)
        found.findings += [one for one in verify(project, deep=False, on_bytes=on_bytes).findings if one not in done]
    with suppress(OSError):
        mark.unlink(missing_ok=True)
    return found


def scrub_share(project: Project, budget: int) -> ScrubResult:
    """Read the things with the oldest check, up to `budget` bytes, but at least one thing."""
    found, left = ScrubResult(), budget
    chosen: list[ScrubItem] = []
    for one in items(project):
        if left <= 0:
            break
        left -= one.size
        chosen.append(one)
    for some in _chunks(chosen):
        _read(project, some, found, None)
    return found


def _began(mark: Path) -> str | None:
    """Start of an interrupted scrub; None if there is none, or it is older than 30 days."""
    try:
        said = json_text.loads(mark.read_bytes())["began"]
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return said if isinstance(said, str) and said > utc(time.time() - 30 * DAY_S) else None


def _found_since(project: Project, since: str) -> list[str]:
    """Inputs that an interrupted scrub found changed."""
    told = select(event.c.kind, event.c.subject, event.c.body).where(
        event.c.kind.in_(("file", "reference")), event.c.at >= since
    )
    with project.catalog.read() as connection:
        rows = [(kind, subject, json.loads(body)) for kind, subject, body in connection.execute(told)]
    said = [
        f"{subject} {body['role']} {body['old'][:8]}… → {body['new'][:8]}…"
        for kind, subject, body in rows
        if kind == "file" and "new" in body
    ]
    said += [f"{subject} {body['digest'][:8]}…" for kind, subject, body in rows if kind == "reference" and body["old"]]
    return list(mask_of(project).lines(said)) if said else []


def _chunks(todo: Sequence[ScrubItem]) -> Iterator[list[ScrubItem]]:
    some: list[ScrubItem] = []
    size = 0
    for one in todo:
        some.append(one)
        size += one.size
        if size >= CHUNK_BYTES or len(some) >= CHUNK_FILES:
            yield some
            some, size = [], 0
    if some:
        yield some


def _read(project: Project, some: Iterable[ScrubItem], found: ScrubResult, on_bytes: Told | None) -> None:
    """Read these things, and record their state and the time of the check."""
    named: dict[str, set[Node]] = {"artifact": set(), "file": set(), "reference": set()}
    for one in some:
        named[one.kind].add(one.name)

    def count(read: int) -> None:
        found.bytes += read
        if on_bytes is not None:
            on_bytes(read)

    if nodes := named["artifact"]:
        rows = current_artifacts(project, among=nodes)
        done = verify_rows(project, rows, set(rows), count)
        found.artifacts += done.artifacts
        found.findings += done.findings
    for kind, read in (("file", read_raw), ("reference", read_references)):
        if names := {name for _, name in named[kind]}:
            looked = read(project, names, count)
            found.changed_inputs += [*looked.problems, *looked.changes]
    found.files += len(named["file"])
    found.references += len(named["reference"])


def scrub_words(project: Project, todo: Sequence[ScrubItem] | None = None) -> str:
    """How long the integrity sensor takes to read everything, and how much is still unread."""
    listed = items(project) if todo is None else todo
    if not listed:
        return ""
    a_day = project.settings.run.verify_gib_a_day
    days = max(1, math.ceil(sum(one.size for one in listed) / (a_day * GIB)))
    within = f"{days} day{'s' * (days != 1)}"
    begun = f"the integrity sensor reads up to {a_day} GiB a day ([run] verify_gib_a_day): everything within {within}"
    if unread := sum(not one.read_at for one in listed):
        return f"{begun}; {unread} of {len(listed)} have not been read since they were made or registered"
    return f"{begun}; the oldest check is of {listed[0].read_at[:16]}"
