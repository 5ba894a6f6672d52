"""What lies about of a person beside the recorded makings: staged, unrecorded, logs, calls, code, the mirror."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Set
from contextlib import suppress
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, func, select

from ctcore.catalog.engine import in_keys
from ctcore.catalog.group_commit import queued_requests
from ctcore.catalog.lost_inputs import lost_among, was_recovered
from ctcore.catalog.tables import attempt, consent, entity, file, materialization
from ctcore.code.archive import FOLDER as CODE
from ctcore.deletion.raw_folders import FolderListings, folder_listings
from ctcore.errors import StoreError
from ctcore.execution.reproduce import BESIDE
from ctcore.intake.raw_places import RegisteredPlaces
from ctcore.lineage.containment import Containment, cohort_derived_steps
from ctcore.model.node import Content, Node
from ctcore.project import Project
from ctcore.store.manifest import SIDECAR, version_in_sidecar
from ctcore.store.store import STAGING

_KEY_DIGITS = 16


class Leftovers:
    """Finds paths that are to go with a person. Looks at the nodes that have to do with them, not at all others."""

    def __init__(self, project: Project, connection: Connection, found: Containment) -> None:
        self.project, self.connection, self.found = project, connection, found
        self.levels = {step.name: step.level for step in project.steps}
        self.keys = {one.key[:_KEY_DIGITS] for one in found.makings.values()}

    def paths(self) -> list[Path]:
        """Files and folders, each once."""
        beside = [*self._logs(), *self._calls(), *self._again(), *self._code()]
        found = [*self.unrecorded, *self._staged(), *beside, *self.asked(), *self._listings()]
        snapshot = self.project.work / "mirror"
        return list(dict.fromkeys([*found, *([snapshot] if snapshot.is_dir() else [])]))

    def is_own(self, asset: str, partition: str) -> bool:
        """Whether a node is the person's; of a step that is no longer declared, only the ID is known."""
        level = self.levels.get(asset)
        return (level, partition) in self.found.own if level else partition in self.found.ids

    @cached_property
    def nodes(self) -> set[Node]:
        """All nodes with a folder in the store that are the person's, or may contain them."""
        names = [name for name in _names(self.project.store.root) if not name.startswith(".")]
        own = {(asset, who) for asset in names for who in self.found.ids if self.is_own(asset, who)}
        many = cohort_derived_steps(self.project.steps) | {name for name in names if name not in self.levels}
        others = {(asset, who) for asset in many.intersection(names) for who in _names(self.project.store.root / asset)}
        return own | others | {one.node for one in self.found.makings.values()}

    @cached_property
    def unrecorded(self) -> Mapping[Path, Content | None]:
        """Published, but in no making: what a crash or a lost history kept from the ledger, with its content.

        What was made from that belongs to it, though its own sidecar names nobody: so it is looked again, until no
        other one is found.
        """
        root = self.project.store.root
        there = {f"{a}/{p}/{name}" for a, p in self.nodes for name in _names(root / a / p)}
        known = select(materialization.c.folder).where(in_keys(materialization.c.folder, there))
        sides = {folder: _json(root / folder / SIDECAR) for folder in there}
        for folder in self.connection.execute(known).scalars():
            sides.pop(folder, None)  # two makings may have one folder
        found: dict[Path, Content | None] = {}
        mine = {_content(folder, side) for folder, side in sides.items()}
        contents = self.found.contents | (self._lost_inputs(*(side.get("inputs") for side in sides.values())) - mine)
        while more := sorted(folder for folder, side in sides.items() if self._holds(folder, side, contents)):
            for folder in more:
                found[root / folder] = content = _content(folder, sides.pop(folder))
                contents |= {content} if content else set()
        return found

    def _holds(self, folder: str, side: Mapping[str, Any], contents: Set[Content]) -> bool:
        asset, partition, _ = folder.split("/")
        return self.is_own(asset, partition) or self._is_inside(side.get("members"), side.get("inputs"), contents)

    @cached_property
    def _contents(self) -> Set[Content]:
        return self.found.contents | {content for content in self.unrecorded.values() if content}

    def takes(self, members: Any, inputs: Any) -> bool:
        """Whether somebody with these members and inputs has the person inside, or may have, as an input is lost."""
        return self._is_inside(members, inputs, self._contents | self._lost_inputs(inputs))

    def _lost_inputs(self, *inputs: Any) -> set[Content]:
        """Which of these inputs the catalog does not know."""
        if not self._was_recovered:
            return set()
        return lost_among(self.connection, {one[1:] for some in inputs for one in _edges(some)})

    @cached_property
    def _was_recovered(self) -> bool:
        return was_recovered(self.connection)

    def _is_inside(self, members: Any, inputs: Any, contents: Set[Content]) -> bool:
        own = self.found.own
        if any((one[0], one[1]) in own for one in members or ()):
            return True
        return any(one[1:3] in own or one[1:] in contents for one in _edges(inputs))

    def _staged(self) -> Iterator[Path]:
        for name in _names(self.project.store.staging):
            asset, partition, key, *_ = [*name.split("~"), "", ""]
            if key and (self.is_own(asset, partition) or key in self.keys):
                yield self.project.store.staging / name

    def _logs(self) -> Iterator[Path]:
        """All of the person's own nodes; of others those of what is removed, and of failures."""
        root = self.project.work / "logs"
        for asset in _names(root):
            yield from (root / asset / who for who in self._partitions(asset) if (root / asset / who).is_dir())
        for asset, partition in sorted({one.node for one in self.found.makings.values()}):
            if not self.is_own(asset, partition):
                names = _names(root / asset / partition)
                yield from (root / asset / partition / name for name in names if name.split(".")[0] in self.keys)
        yield from self._failures()

    def _partitions(self, asset: str) -> list[str]:
        return sorted(who for who in self.found.ids if self.is_own(asset, who))

    def _failures(self) -> Iterator[Path]:
        """Logs of others' calls that ended without a result, with the person inside for all that anybody can tell.

        Those that ended before the consent was taken back; of later ones, those that name the person.
        """
        until = self._taken_back
        columns = (attempt.c.log, attempt.c.asset, attempt.c.partition, attempt.c.ended_at)
        logs = select(*columns).where(attempt.c.log.is_not(None), attempt.c.asset.in_(self._many)).distinct()
        for log, asset, partition, ended_at in self.connection.execute(logs):
            path = self.project.absolute(log)
            if self.is_own(asset, partition) or not path.is_relative_to(self.project.work) or not path.is_file():
                continue
            if ended_at < until or self.found.any_id.search(path.read_text(errors="replace")):
                yield path

    @cached_property
    def _many(self) -> set[str]:
        """Steps of which the name of a node does not tell who is inside."""
        return (
            cohort_derived_steps(self.project.steps)
            | {one.asset for one in self.found.makings.values()} - self.levels.keys()
        )

    def _may_tell(self, path: Path) -> bool:
        """By the same rule, what such a call left beside its log."""
        try:
            is_old = path.stat().st_mtime < datetime.fromisoformat(self._taken_back).timestamp()
            return is_old or bool(self.found.any_id.search(path.read_text(errors="replace")))
        except FileNotFoundError:
            return False

    @cached_property
    def _taken_back(self) -> str:
        """When the last word on the patient's consent was written."""
        whose = next(who for level, who in self.found.own if level == "patient")
        said = select(func.max(consent.c.at)).join(entity, entity.c.seq == consent.c.entity)
        mine = said.where(entity.c.level == "patient", entity.c.id == whose)
        return self.connection.execute(mine).scalar() or ""

    def _calls(self) -> Iterator[Path]:
        """Calls and results that nobody took away."""
        work = self.project.work
        batches = [work / "slurm" / name / "calls" for name in _names(work / "slurm")]
        for folder in (work / "calls", work / "results", *batches):
            for name in _names(folder):
                said = _json(folder / name)
                node, key = said.get("node") or ("", ""), str(said.get("key"))
                mine = self.is_own(*node) or key[:_KEY_DIGITS] in self.keys
                mine = mine or (said.get("error") and node[0] in self._many and self._may_tell(folder / name))
                if mine or self.takes(said.get("members"), said.get("edges")):
                    yield folder / name

    def _again(self) -> Iterator[Path]:
        """What a killed run made again beside what is there, with all that it made."""
        root = self.project.work / BESIDE
        for name in _names(root):
            store = root / name
            staged = [one.split("~")[:3] for one in _names(store / STAGING) if one.count("~") > 2]
            made = [path.relative_to(store).parts for path in store.glob("[!.]*/*/*")]
            if any(self.is_own(asset, who) or key in self.keys for asset, who, key in (*staged, *made)):
                yield store

    def _code(self) -> Iterator[Path]:
        """Kept code that names the person: a step may list whom it leaves out."""
        root = self.project.store.root / CODE
        yield from (root / name for name in _names(root) if self.found.any_id.search(_text(root / name)))

    @cached_property
    def listings(self) -> FolderListings:
        return folder_listings(self.project, self.connection, self.found)

    def _listings(self) -> list[Path]:
        """Lists of what is in the person's raw folders, which name files, as far as nobody else has the same."""
        return self.listings.places(self.listings.theirs)

    def asked(self) -> Iterator[Path]:
        """What is asked of the catalog while others write into it, and what a killed process left of that."""
        for folder in write_queues(self.project):
            for path in queued_requests(folder):
                said = _said(path)
                if said is None:  # it is torn, and may be anybody's
                    yield path
                    continue
                body = said["body"] if isinstance(said, dict) and "body" in said else ()
                sides = [one["side"] for one in body if isinstance(one, dict) and "side" in one]
                taken = any(self.takes(side["members"], side["inputs"]) for side in sides)
                if taken or self.found.any_id.search(json.dumps(said, ensure_ascii=False)):
                    yield path


def write_queues(project: Project) -> list[Path]:
    """The folders in which processes ask for something at once."""
    root = project.work / "together"
    return [root / name for name in _names(root)]


def raw_rows(connection: Connection, found: Containment) -> list[Any]:
    columns = (file.c.role, file.c.path, file.c.digest, file.c.size, entity.c.level, entity.c.id)
    rows = connection.execute(
        select(*columns)
        .join(entity, entity.c.seq == file.c.entity)
        .where(in_keys(entity.c.id, found.ids))
        .order_by(entity.c.seq, file.c.role)
    )
    return [row for row in rows if (row.level, row.id) in found.own]


def raw_files(rows: Iterable[Any], project: Project) -> list[dict[str, Any]]:
    """The raw files of entities: which lie inside the project, and are files or folders there and no links to
    elsewhere. One that is `mixed` holds files of others or of ct, too, and does not go as a whole."""
    found: list[dict[str, Any]] = []
    places: RegisteredPlaces | None = None
    for row in rows:
        path = project.absolute(row.path)
        if path.is_dir() and places is None:
            places = RegisteredPlaces(project)
        inside = path.resolve().is_relative_to(project.root.resolve()) and not path.is_symlink()
        mixed = places is not None and path.is_dir() and places.wrong(project.located(row.path)) is not None
        inside = inside and (path.is_file() or path.is_dir()) and not mixed
        said = {name: getattr(row, name) for name in ("level", "id", "role", "path", "digest", "size")}
        found.append({**said, "inside": inside, "folder": path.is_dir(), "mixed": mixed, "there": path.exists()})
    return found


def _edges(inputs: Any) -> list[Any]:
    """The edges of a sidecar, a result or a call, by the input's name, asset, partition and version."""
    return [tuple(one) for one in inputs or () if isinstance(one, list | tuple) and len(one) == 4]


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _content(folder: str, side: Mapping[str, Any]) -> Content | None:
    """Which content a published folder has; None where its sidecar does not say."""
    asset, partition, _ = folder.split("/")
    with suppress(LookupError, TypeError, AttributeError, StoreError):
        return asset, partition, version_in_sidecar(side)
    return None


def _names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _json(path: Path) -> dict[str, Any]:
    """What a file says; nothing where it cannot be read."""
    said = _said(path)
    return said if isinstance(said, dict) else {}


def _said(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
