"""⑤ Are the bytes still there? Compares the store with the ledger and writes down what is gone or changed."""

import os
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import Connection, bindparam, delete, literal, or_, select, update

from ctcore.catalog.engine import Writer, in_keys
from ctcore.catalog.tables import artifact, damage, materialization, output
from ctcore.clock import now
from ctcore.digest import Signature
from ctcore.files import FEW, Memory, stats
from ctcore.manifest import SIDECAR, Allowance, Checked, Expected, checked
from ctcore.project import Project
from ctcore.reasons import Node, name_of
from ctcore.veil import NOBODY, WITHHELD, veil


@dataclass(frozen=True)
class Finding:
    """One file of an artifact that is not what was published."""

    node: Node
    file: str
    problem: str


@dataclass(frozen=True)
class Verified:
    """What was looked at, and what was found."""

    artifacts: int
    bytes: int
    findings: tuple[Finding, ...]
    unread: int = 0  # files that look touched and were too much to be read
    unread_bytes: int = 0
    files: int = 0  # that a look at the whole store has seen


def verify(
    project: Project,
    *,
    deep: bool = True,
    on_bytes: Callable[[int], None] | None = None,
    allowance: Allowance | None = None,
) -> Verified:
    """Check every current artifact. `deep` reads all bytes; otherwise only files whose size, times or inode differ, and
    those on record as damaged. `allowance` leaves what is too much.
    """
    rows = current(project)
    return verify_rows(project, rows, set(rows) if deep else set(), on_bytes, allowance)


def look_at_store(
    project: Project, on_bytes: Callable[[int], None] | None = None, allowance: Allowance | None = None
) -> Verified:
    """The same as a quick check, for a whole store at the cost of a stat a file: only what is otherwise is checked."""
    columns = select(
        artifact.c.asset,
        artifact.c.partition,
        materialization.c.folder,
        output.c.file,
        *(output.c[name] for name in Signature._fields),
    )
    joined = columns.join(materialization, materialization.c.id == artifact.c.materialization)
    joined = joined.join(output, output.c.materialization == artifact.c.materialization)
    archived = project.catalog.life().is_archived
    with project.catalog.read() as connection:
        doubted = connection.execute(select(damage.c.asset, damage.c.partition).distinct())
        nodes, files = {(asset, partition) for asset, partition in doubted}, 0
        for rows in connection.execute(joined, execution_options=FEW).partitions():
            nodes |= _otherwise(os.fspath(project.store.root), rows, archived)
            files += len(rows)
    if not nodes:
        return Verified(0, 0, (), files=files)
    return replace(verify_rows(project, current(project, among=nodes), set(), on_bytes, allowance), files=files)


def _otherwise(root: str, rows: Sequence[Any], archived: bool) -> set[Node]:
    """Nodes of which a file is gone or has another signature. Without its sidecar, no call can read an artifact; what
    else the store wrote beside it, a quick check looks at."""
    nodes: set[Node] = set()
    for row, seen in zip(rows, stats([f"{root}/{row[2]}/{row[3]}" for row in rows]), strict=True):
        if isinstance(seen, str) or not Signature.seen(seen).is_like(row[4:], archived):
            nodes.add((row[0], row[1]))
    folders = {row[2]: (row[0], row[1]) for row in rows}
    sidecars = zip(folders.values(), stats([f"{root}/{folder}/{SIDECAR}" for folder in folders]), strict=True)
    return nodes | {node for node, seen in sidecars if isinstance(seen, str)}


def verify_asset(project: Project, asset: str, run_id: str | None = None) -> Verified:
    """Read all bytes of one asset, or those that one run made; of the others, what is known to be damaged."""
    rows = current(project, asset)
    if run_id is None:
        return verify_rows(project, rows, set(rows), None)
    fresh = {node: made for node, made in rows.items() if made.run_id == run_id}
    found = verify_rows(project, fresh, set(fresh), None)
    with project.catalog.read() as connection:
        known = connection.execute(select(damage).where(damage.c.asset == asset)).all()
    damaged = [Finding((row.asset, row.partition), row.file, row.problem) for row in known]
    return Verified(found.artifacts, found.bytes, _seen(project, damaged))


def _seen(project: Project, findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Of those without consent, only what happened."""
    seen = veil(project) if findings else None
    return tuple(
        Finding((one.node[0], NOBODY), WITHHELD, one.problem) if seen and seen.hides(one.node) else one
        for one in findings
    )


def verify_rows(
    project: Project,
    rows: "Mapping[Node, Made]",
    read_whole: set[Node],
    on_bytes: Callable[[int], None] | None,
    allowance: Allowance | None = None,
) -> Verified:
    """Check these artifacts, read some of them whole, and write down what became known."""
    found: dict[Node, Checked] = {}
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
    return Verified(len(rows), sum(read), _seen(project, findings), len(unread), sum(unread))


@dataclass
class Made:
    """The making that is current, with the rows of its files; `doubted` are on record as damaged."""

    materialization: int
    folder: str
    run_id: str | None
    checked_at: str | None
    files: list[Any]
    doubted: set[str] = field(default_factory=set)

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)


def current(project: Project, asset: str | None = None, among: Iterable[Node] | None = None) -> dict[Node, Made]:
    """Every current artifact, those of one asset, or these nodes."""
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
                Made(row.materialization, row.folder, row.run_id, row.checked_at, []),
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
    rows: Mapping[Node, Made],
    deep: bool,
    on_bytes: Callable[[int], None] | None,
    allowance: Allowance | None = None,
) -> dict[Node, Checked]:
    root = os.fspath(project.store.root)
    checks = [
        Expected(
            folder=f"{root}/{made.folder}",
            files={file.file: (file.size, file.digest) for file in made.files},
            signatures={file.file: _signature(file) for file in made.files},
            doubted=made.doubted,
        )
        for made in rows.values()
    ]
    memory = None if deep else Memory(project)
    found = checked(checks, deep=deep, on_bytes=on_bytes, memory=memory, allowance=allowance)
    return dict(zip(rows, found, strict=True))


def _signature(file: Any) -> Signature:
    return Signature(file.size, file.mtime_ns, file.inode, file.ctime_ns)


def _write(
    project: Project,
    rows: Mapping[Node, Made],
    whole: Iterable[Node],
    found: Mapping[Node, Checked],
    findings: list[Finding],
) -> None:
    """Reading took a while: what is made anew by now is not what was looked at, and others may have looked too.

    Of an archived project it is said, and not written.
    """
    if project.catalog.life().is_archived:
        return
    read = set(whole)  # also what is damaged was read: the others have their turn
    moved = _moved(rows, found)
    with project.catalog.read() as connection:
        known = _known(connection, rows)
    left = {(node, name) for node, seen in found.items() for name in seen.unread}
    if not (read or moved or {*known} - left != {(one.node, one.file) for one in findings} or _differ(known, findings)):
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


def _differ(known: Mapping[tuple[Node, str], str], findings: Iterable[Finding]) -> bool:
    return any(known.get((one.node, one.file)) != one.problem for one in findings)


def _by_asset(nodes: Iterable[Node]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for asset, partition in nodes:
        found.setdefault(asset, []).append(partition)
    return found


def _makings(connection: Connection, nodes: Iterable[Node]) -> dict[Node, int]:
    """The making that is current now, of each of these nodes."""
    found: dict[Node, int] = {}
    for asset, partitions in _by_asset(nodes).items():
        mine = (artifact.c.asset == asset) & in_keys(artifact.c.partition, partitions)
        rows = connection.execute(select(artifact.c.partition, artifact.c.materialization).where(mine))
        found |= {(asset, partition): number for partition, number in rows}
    return found


def _known(connection: Connection, nodes: Container[Node]) -> dict[tuple[Node, str], str]:
    """The damage of these nodes that is written down: what is wrong with which file."""
    listed = {((row.asset, row.partition), row.file): row.problem for row in connection.execute(select(damage))}
    return {place: problem for place, problem in listed.items() if place[0] in nodes}


def _write_damage(
    writer: Writer, nodes: Container[Node], findings: list[Finding], left: Container[tuple[Node, str]] = ()
) -> None:
    """Bring what is known of these nodes to what was found, and say what became other. Of what was left unread,
    nothing is taken back."""
    known, found = _known(writer.connection, nodes), {(one.node, one.file): one for one in findings}
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


def _moved(rows: Mapping[Node, Made], found: Mapping[Node, Checked]) -> list[dict[str, Any]]:
    """Files that were read and are whole, with another signature (the project was copied, or somebody changed their
    mode): what they had when they were read is remembered of them from now on."""
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
