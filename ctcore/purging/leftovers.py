"""⑥ What lies about of a person beside the recorded makings: staged, unrecorded, logs, calls, code, the mirror."""

import json
import os
from collections.abc import Iterable, Iterator
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, func, select

from ctcore.catalog.engine import in_keys
from ctcore.catalog.tables import attempt, consent, entity, file, materialization
from ctcore.catalog.together import lying
from ctcore.code.kept import FOLDER as CODE
from ctcore.manifest import SIDECAR
from ctcore.project import Project
from ctcore.purging.inside import Inside, gathering
from ctcore.reasons import Node
from ctcore.reproduction import BESIDE
from ctcore.store import STAGING

_KEY_DIGITS = 16


class Leftovers:
    """Finds paths that are to go with a person. Looks at the nodes that have to do with them, not at all others."""

    def __init__(self, project: Project, connection: Connection, found: Inside) -> None:
        self.project, self.connection, self.found = project, connection, found
        self.levels = {step.name: step.level for step in project.steps}
        self.keys = {one.key[:_KEY_DIGITS] for one in found.makings.values()}

    def paths(self) -> list[Path]:
        """Files and folders, each once."""
        beside = [*self._logs(), *self._calls(), *self._again(), *self._code()]
        found = [*self.unrecorded(), *self._staged(), *beside, *self.asked()]
        mirror = self.project.work / "mirror"
        return list(dict.fromkeys([*found, *([mirror] if mirror.is_dir() else [])]))

    def is_own(self, asset: str, partition: str) -> bool:
        """Whether a node is the person's; of a step that is no longer declared, only the ID is known."""
        level = self.levels.get(asset)
        return (level, partition) in self.found.own if level else partition in self.found.ids

    @cached_property
    def nodes(self) -> set[Node]:
        """All nodes with a folder in the store that are the person's, or may contain them."""
        names = [name for name in _names(self.project.store.root) if not name.startswith(".")]
        own = {(asset, who) for asset in names for who in self.found.ids if self.is_own(asset, who)}
        cohort = {(name, who) for name, level in self.levels.items() for who in self.project.settings.cohorts}
        cohort = {node for node in cohort if self.levels[node[0]] == "cohort"}
        return own | cohort | {one.node for one in self.found.makings.values()}

    def unrecorded(self) -> Iterator[Path]:
        """Published, but in no making: what a crash kept from the ledger."""
        root = self.project.store.root
        there = {f"{a}/{p}/{name}" for a, p in self.nodes for name in _names(root / a / p)}
        known = select(materialization.c.folder).where(in_keys(materialization.c.folder, there))
        for folder in sorted(there - set(self.connection.execute(known).scalars())):
            asset, partition, _ = folder.split("/")
            if self.is_own(asset, partition) or self._contains(root / folder / SIDECAR):
                yield root / folder

    def _contains(self, sidecar: Path) -> bool:
        said = _json(sidecar)
        return self.takes(said.get("members"), said.get("inputs"))

    def takes(self, members: Any, inputs: Any) -> bool:
        """Whether somebody with these members and inputs has the person inside."""
        own, contents = self.found.own, self.found.contents
        used = [tuple(one) for one in inputs or () if len(one) == 4]
        if any((one[0], one[1]) in own for one in members or ()):
            return True
        return any((one[1], one[2]) in own or one[1:] in contents for one in used)

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
        return gathering(self.project.steps) | {one.asset for one in self.found.makings.values()} - self.levels.keys()

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

    def asked(self) -> Iterator[Path]:
        """What is asked of the catalog while others write into it, and what a killed process left of that."""
        for folder in meetings(self.project):
            for path in lying(folder):
                said = _said(path)
                if said is None:  # it is torn, and may be anybody's
                    yield path
                    continue
                body = said["body"] if isinstance(said, dict) and "body" in said else ()
                sides = [one["side"] for one in body if isinstance(one, dict) and "side" in one]
                taken = any(self.takes(side["members"], side["inputs"]) for side in sides)
                if taken or self.found.any_id.search(json.dumps(said, ensure_ascii=False)):
                    yield path


def meetings(project: Project) -> list[Path]:
    """The folders in which processes ask for something at once."""
    root = project.work / "together"
    return [root / name for name in _names(root)]


def raw_rows(connection: Connection, found: Inside) -> list[Any]:
    columns = (file.c.role, file.c.path, file.c.digest, file.c.size, entity.c.level, entity.c.id)
    rows = connection.execute(
        select(*columns)
        .join(entity, entity.c.seq == file.c.entity)
        .where(in_keys(entity.c.id, found.ids))
        .order_by(entity.c.seq, file.c.role)
    )
    return [row for row in rows if (row.level, row.id) in found.own]


def raw_files(rows: Iterable[Any], project: Project) -> list[dict[str, Any]]:
    """The raw files of entities: which lie inside the project, and are files there and no links to elsewhere."""
    found = []
    for row in rows:
        path = project.absolute(row.path)
        inside = path.resolve().is_relative_to(project.root.resolve()) and path.is_file() and not path.is_symlink()
        said = {name: getattr(row, name) for name in ("level", "id", "role", "path", "digest", "size")}
        found.append({**said, "inside": inside, "there": path.exists()})
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


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
