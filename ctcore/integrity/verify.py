"""Compares the files of the store with the ledger, and records files that are missing or changed."""

import os
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import Connection, bindparam, delete, literal, or_, select, update

from ctcore.catalog.engine import Writer, in_keys
from ctcore.catalog.tables import artifact, damage, materialization, output
from ctcore.governance.masking import NOBODY, WITHHELD, mask_of
from ctcore.intake.raw_files import FEW, Memory, stats
from ctcore.model.node import Node, name_of
from ctcore.project import Project
from ctcore.store.digest import Signature
from ctcore.store.manifest import SIDECAR, Allowance, ArtifactCheck, ExpectedArtifact, check_artifacts
from ctcore.util.clock import now


@dataclass(frozen=True)
class Finding:
    """One file of an artifact that differs from what was published."""

    node: Node
    file: str
    problem: str


@dataclass(frozen=True)
class Verification:
    """Number of artifacts and bytes that were checked, and the findings."""

    artifacts: int
    bytes: int
    findings: tuple[Finding, ...]
    unread: int = 0  # files that look changed but exceed the allowance
    unread_bytes: int = 0
    files: int = 0  # number of files that a look at the whole store covered


def verify(
    project: Project,
    *,
    deep: bool = True,
    on_bytes: Callable[[int], None] | None = None,
    allowance: Allowance | None = None,
) -> Verification:
    """Check every current artifact. `deep` reads all bytes; otherwise only files whose size, times or inode differ, and
    files that are recorded as damaged. `allowance` limits the bytes that are read.
    """
    rows = current_artifacts(project)
    return verify_rows(project, rows, set(rows) if deep else set(), on_bytes, allowance)


def look_at_store(
    project: Project, on_bytes: Callable[[int], None] | None = None, allowance: Allowance | None = None
) -> Verification:
    """A quick check of the whole store: one stat call a file, and a full check only where that differs."""
    columns = select(
        artifact.c.asset,
        artifact.c.partition,
        materialization.c.folder,
        output.c.file,
        *(output.c[name] for name in Signature._fields),
    )
    joined = columns.join(materialization, materialization.c.id == artifact.c.materialization)
    joined = joined.join(output, output.c.materialization == artifact.c.materialization)
    archived = project.catalog.project_state().is_archived
    with project.catalog.read() as connection:
        doubted = connection.execute(select(damage.c.asset, damage.c.partition).distinct())
        nodes, files = {(asset, partition) for asset, partition in doubted}, 0
        for rows in connection.execute(joined, execution_options=FEW).partitions():
            nodes |= _changed_nodes(os.fspath(project.store.root), rows, archived)
            files += len(rows)
    if not nodes:
        return Verification(0, 0, (), files=files)
    return replace(
        verify_rows(project, current_artifacts(project, among=nodes), set(), on_bytes, allowance), files=files
    )


def _changed_nodes(root: str, rows: Sequence[Any], archived: bool) -> set[Node]:
    """Nodes with a file that is missing or has another signature, or without their sidecar, which every call needs. The
    other files that the store wrote are left to a quick check."""
    nodes: set[Node] = set()
    for row, seen in zip(rows, stats([f"{root}/{row[2]}/{row[3]}" for row in rows]), strict=True):
        if isinstance(seen, str) or not Signature.from_stat(seen).is_like(row[4:], archived):
            nodes.add((row[0], row[1]))
    folders = {row[2]: (row[0], row[1]) for row in rows}
    sidecars = zip(folders.values(), stats([f"{root}/{folder}/{SIDECAR}" for folder in folders]), strict=True)
    return nodes | {node for node, seen in sidecars if isinstance(seen, str)}


def verify_asset(project: Project, asset: str, run_id: str | None = None) -> Verification:
    """Read all bytes of one asset, or of the artifacts that one run made. The findings include all recorded damage of
    the asset."""
    rows = current_artifacts(project, asset)
    if run_id is None:
        return verify_rows(project, rows, set(rows), None)
    fresh = {node: made for node, made in rows.items() if made.run_id == run_id}
    found = verify_rows(project, fresh, set(fresh), None)
    with project.catalog.read() as connection:
        known = connection.execute(select(damage).where(damage.c.asset == asset)).all()
    damaged = [Finding((row.asset, row.partition), row.file, row.problem) for row in known]
    return Verification(found.artifacts, found.bytes, _masked(project, damaged))


def _masked(project: Project, findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """The findings, with node and file masked for entities without consent."""
    seen = mask_of(project) if findings else None
    return tuple(
        Finding((one.node[0], NOBODY), WITHHELD, one.problem) if seen and seen.hides(one.node) else one
        for one in findings
    )


def verify_rows(
    project: Project,
    rows: "Mapping[Node, CurrentArtifact]",
    read_whole: set[Node],
    on_bytes: Callable[[int], None] | None,
    allowance: Allowance | None = None,
) -> Verification:
    """Check these artifacts, read those in `read_whole` completely, and record the findings."""
    found: dict[Node, ArtifactCheck] = {}
    read: list[int] = []  # files are read in several threads

    def count(bytes_read: int) -> None:
        read.append(bytes_read)
        if on_bytes is not None:
            on_bytes(bytes_read)

    for whole in (True, False):
        some = {node: rows[node] for node in rows if (node in read_whole) is whole}
        found |= _check(project, some, whole, count, allowance)
    findings = [Finding(node, one.file, one.problem) for node, seen in found.items() for one in seen.damages]
    _write(project, rows, read_whole, found, findings)
    unread = [size for seen in found.values() for size in seen.unread.values()]
    return Verification(len(rows), sum(read), _masked(project, findings), len(unread), sum(unread))


@dataclass
class CurrentArtifact:
    """The current materialization of a node with the rows of its files; `doubted`: files recorded as damaged."""

    materialization: int
    folder: str
    run_id: str | None
    checked_at: str | None
    files: list[Any]
    doubted: set[str] = field(default_factory=set)

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)


def current_artifacts(
    project: Project, asset: str | None = None, among: Iterable[Node] | None = None
) -> dict[Node, CurrentArtifact]:
    """Every current artifact, or those of one asset, or of these nodes."""
    wanted = literal(True) if asset is None else artifact.c.asset == asset
    if among is not None:
        wanted = or_(
            *(
                (artifact.c.asset == name) & in_keys(artifact.c.partition, partitions)
                for name, partitions in _by_asset(among).items()
            )
        )
    with project.catalog.read() as connection:
        rows = connection.execute(
            select(artifact, materialization.c.folder, materialization.c.run_id)
            .join(materialization, materialization.c.id == artifact.c.materialization)
            .where(wanted)
        )
        found = {
            row.materialization: (
                (row.asset, row.partition),
                CurrentArtifact(row.materialization, row.folder, row.run_id, row.checked_at, []),
            )
            for row in rows
        }
        for row in connection.execute(
            select(output).join(artifact, artifact.c.materialization == output.c.materialization).where(wanted)
        ):
            found[row.materialization][1].files.append(row)
        nodes = dict(found.values())
        for row in connection.execute(select(damage)):
            if (made := nodes.get((row.asset, row.partition))) is not None:
                made.doubted.add(row.file)
    return nodes


def _check(
    project: Project,
    rows: Mapping[Node, CurrentArtifact],
    deep: bool,
    on_bytes: Callable[[int], None] | None,
    allowance: Allowance | None = None,
) -> dict[Node, ArtifactCheck]:
    root = os.fspath(project.store.root)
    checks = [
        ExpectedArtifact(
            folder=f"{root}/{made.folder}",
            files={file.file: (file.size, file.digest) for file in made.files},
            signatures={file.file: _signature(file) for file in made.files},
            doubted=made.doubted,
        )
        for made in rows.values()
    ]
    memory = None if deep else Memory(project)
    found = check_artifacts(checks, deep=deep, on_bytes=on_bytes, memory=memory, allowance=allowance)
    return dict(zip(rows, found, strict=True))


def _signature(file: Any) -> Signature:
    return Signature(file.size, file.mtime_ns, file.inode, file.ctime_ns)


def _write(
    project: Project,
    rows: Mapping[Node, CurrentArtifact],
    whole: Iterable[Node],
    found: Mapping[Node, ArtifactCheck],
    findings: list[Finding],
) -> None:
    """Record the findings. Reading took a while: nodes that were made again meanwhile are skipped.

    In an archived project nothing is recorded.
    """
    if project.catalog.project_state().is_archived:
        return
    read = set(whole)  # damaged artifacts count as read, so that a scrub moves on to the others
    moved = _new_signatures(rows, found)
    with project.catalog.read() as connection:
        known = _recorded_damage(connection, rows)
    left = {(node, name) for node, seen in found.items() for name in seen.unread}
    if not (
        read
        or moved
        or {*known} - left != {(one.node, one.file) for one in findings}
        or _problems_differ(known, findings)
    ):
        return
    with project.catalog.write() as writer:
        same = _makings(writer.connection, rows)
        still = {node for node, made in rows.items() if same.get(node) == made.materialization}
        _write_damage(writer, still, [one for one in findings if one.node in still], left)
        for asset, keys in _by_asset(read & still).items():
            writer.execute(
                update(artifact)
                .where(artifact.c.asset == asset, in_keys(artifact.c.partition, keys))
                .values(checked_at=now())
            )
        if moved:
            mine = (output.c.materialization == bindparam("b_made")) & (output.c.file == bindparam("b_file"))
            writer.execute(update(output).where(mine), moved)


def _problems_differ(known: Mapping[tuple[Node, str], str], findings: Iterable[Finding]) -> bool:
    return any(known.get((one.node, one.file)) != one.problem for one in findings)


def _by_asset(nodes: Iterable[Node]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for asset, partition in nodes:
        found.setdefault(asset, []).append(partition)
    return found


def _makings(connection: Connection, nodes: Iterable[Node]) -> dict[Node, int]:
    """Node → its current materialization."""
    found: dict[Node, int] = {}
    for asset, partitions in _by_asset(nodes).items():
        mine = (artifact.c.asset == asset) & in_keys(artifact.c.partition, partitions)
        rows = connection.execute(select(artifact.c.partition, artifact.c.materialization).where(mine))
        found |= {(asset, partition): number for partition, number in rows}
    return found


def _recorded_damage(connection: Connection, nodes: Container[Node]) -> dict[tuple[Node, str], str]:
    """Recorded damage of these nodes: (node, file) → problem."""
    listed = {((row.asset, row.partition), row.file): row.problem for row in connection.execute(select(damage))}
    return {place: problem for place, problem in listed.items() if place[0] in nodes}


def _write_damage(
    writer: Writer, nodes: Container[Node], findings: list[Finding], left: Container[tuple[Node, str]] = ()
) -> None:
    """Replace the recorded damage of these nodes by the findings, with an event for each difference. Files in `left`
    were not read and keep their recorded damage."""
    known, found = _recorded_damage(writer.connection, nodes), {(one.node, one.file): one for one in findings}
    over = {
        place
        for place, problem in known.items()
        if place not in left and (place not in found or found[place].problem != problem)
    }
    news = [one for place, one in found.items() if place not in known or place in over]
    if over:
        mine = (
            (damage.c.asset == bindparam("b_asset"))
            & (damage.c.partition == bindparam("b_partition"))
            & (damage.c.file == bindparam("b_file"))
        )
        listed = [{"b_asset": node[0], "b_partition": node[1], "b_file": name} for node, name in over]
        writer.execute(delete(damage).where(mine), listed)
    moment = writer.at
    names = ("asset", "partition", "file", "problem", "found_at")
    rows = [(*one.node, one.file, one.problem, moment) for one in news]
    writer.insert(damage, [dict(zip(names, row, strict=True)) for row in rows])
    for node, name in sorted(over - set(found)):
        writer.event("heal", name_of(node), {"file": name})
    for one in news:
        writer.event("damage", name_of(one.node), {"file": one.file, "problem": one.problem})


def _new_signatures(rows: Mapping[Node, CurrentArtifact], found: Mapping[Node, ArtifactCheck]) -> list[dict[str, Any]]:
    """New signatures of files whose content is unchanged: the project was copied, or somebody changed their mode."""
    return [
        {
            "b_made": file.materialization,
            "b_file": file.file,
            "mtime_ns": seen.mtime_ns,
            "inode": seen.inode,
            "ctime_ns": seen.ctime_ns,
        }
        for node, checks in found.items()
        for file in rows[node].files
        if (seen := checks.read.get(file.file)) is not None and seen != _signature(file)
    ]
