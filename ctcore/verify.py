"""⑤ Are the bytes still there? Compares the store with the ledger and writes down what is gone or changed."""

from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, delete, literal, select, update

from ctcore.catalog.engine import Writer, in_keys
from ctcore.catalog.tables import artifact, damage, materialization, output
from ctcore.clock import now
from ctcore.digest import Signature
from ctcore.manifest import Expected
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


def verify(
    project: Project,
    *,
    deep: bool = True,
    budget: int | None = None,
    on_bytes: Callable[[int], None] | None = None,
) -> Verified:
    """Check every current artifact. `deep` reads all bytes; otherwise only files whose size, time or inode differ.

    `budget` (bytes) reads only the artifacts that were read longest ago, up to that many bytes, and looks at the
    others by signature: a little of it in each tick reads the whole store in the end.
    """
    rows = _current(project)
    whole = _longest_unread(rows, budget) if budget is not None else (set(rows) if deep else set())
    return _verify(project, rows, whole, on_bytes)


def verify_asset(project: Project, asset: str, run_id: str | None = None) -> Verified:
    """Read all bytes of one asset, or those that one run made; of the others, what is known to be damaged."""
    rows = _current(project, asset)
    if run_id is None:
        return _verify(project, rows, set(rows), None)
    fresh = {node: made for node, made in rows.items() if made.run_id == run_id}
    found = _verify(project, fresh, set(fresh), None)
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


def _verify(
    project: Project,
    rows: "Mapping[Node, _Made]",
    read_whole: set[Node],
    on_bytes: Callable[[int], None] | None,
) -> Verified:
    findings: list[Finding] = []
    read: list[int] = []  # files are read in several threads

    def count(bytes_read: int) -> None:
        read.append(bytes_read)
        if on_bytes is not None:
            on_bytes(bytes_read)

    for whole in (True, False):
        some = {node: rows[node] for node in rows if (node in read_whole) is whole}
        findings += _check(project, some, whole, count)
    _write(project, rows, read_whole, findings)
    return Verified(len(rows), sum(read), _seen(project, findings))


@dataclass
class _Made:
    materialization: int
    folder: str
    run_id: str | None
    checked_at: str | None
    files: list[Any]


def _current(project: Project, asset: str | None = None) -> dict[Node, _Made]:
    wanted = literal(True) if asset is None else artifact.c.asset == asset
    with project.catalog.read() as connection:
        rows = connection.execute(
            select(artifact, materialization.c.folder, materialization.c.run_id)
            .join(materialization, materialization.c.id == artifact.c.materialization)
            .where(wanted)
        )
        found = {
            row.materialization: (
                (row.asset, row.partition),
                _Made(row.materialization, row.folder, row.run_id, row.checked_at, []),
            )
            for row in rows
        }
        for row in connection.execute(
            select(output).join(artifact, artifact.c.materialization == output.c.materialization).where(wanted)
        ):
            found[row.materialization][1].files.append(row)
    return dict(found.values())


def _longest_unread(rows: Mapping[Node, _Made], budget: int) -> set[Node]:
    chosen: set[Node] = set()
    for node, made in sorted(rows.items(), key=lambda item: (item[1].checked_at or "", item[0])):
        if budget <= 0:
            break
        budget -= sum(file.size for file in made.files)
        chosen.add(node)
    return chosen


def _check(
    project: Project, rows: Mapping[Node, _Made], deep: bool, on_bytes: Callable[[int], None] | None
) -> list[Finding]:
    nodes = list(rows)
    checks = [
        Expected(
            folder=project.store.root / rows[node].folder,
            files={file.file: (file.size, file.digest) for file in rows[node].files},
            signatures={file.file: Signature(file.size, file.mtime_ns, file.inode) for file in rows[node].files},
        )
        for node in nodes
    ]
    found = project.store.check_many(checks, deep=deep, on_bytes=on_bytes)
    return [Finding(node, one.file, one.problem) for node, damages in zip(nodes, found, strict=True) for one in damages]


def _write(project: Project, rows: Mapping[Node, _Made], whole: Iterable[Node], findings: list[Finding]) -> None:
    """Reading took a while: what is made anew by now is not what was looked at, and others may have looked too.

    Of an archived project it is said, and not written.
    """
    if project.catalog.life().is_archived:
        return
    harmed = {one.node for one in findings}
    good = {node for node in whole if node not in harmed}
    moved = _moved(project, rows, harmed)
    with project.catalog.read() as connection:
        known = _known(connection, rows)
    if not (good or moved or known != {(one.node, one.file): one.problem for one in findings}):
        return
    with project.catalog.write() as writer:
        points = writer.execute(select(artifact.c.asset, artifact.c.partition, artifact.c.materialization))
        same = {(row[0], row[1]): row[2] for row in points}
        still = {node for node, made in rows.items() if same.get(node) == made.materialization}
        _write_damage(writer, still, [one for one in findings if one.node in still])
        for asset in {node[0] for node in good & still}:
            keys = [node[1] for node in good & still if node[0] == asset]
            writer.execute(
                update(artifact)
                .where(artifact.c.asset == asset, in_keys(artifact.c.partition, keys))
                .values(checked_at=now())
            )
        if moved:
            mine = (output.c.materialization == bindparam("b_made")) & (output.c.file == bindparam("b_file"))
            writer.execute(update(output).where(mine), moved)


def _known(connection: Connection, nodes: Container[Node]) -> dict[tuple[Node, str], str]:
    """The damage of these nodes that is written down: what is wrong with which file."""
    listed = {((row.asset, row.partition), row.file): row.problem for row in connection.execute(select(damage))}
    return {place: problem for place, problem in listed.items() if place[0] in nodes}


def _write_damage(writer: Writer, nodes: Container[Node], findings: list[Finding]) -> None:
    """Bring what is known of these nodes to what was found, and say what became other."""
    known, found = _known(writer.connection, nodes), {(one.node, one.file): one for one in findings}
    over = {place for place, problem in known.items() if place not in found or found[place].problem != problem}
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


def _moved(project: Project, rows: Mapping[Node, _Made], harmed: set[Node]) -> list[dict[str, Any]]:
    """Intact files with another signature (the project was copied, say): what to remember of them from now on."""
    changed = []
    for node, made in rows.items():
        if node in harmed:
            continue
        for file in made.files:
            seen = Signature.of(project.store.root / made.folder / file.file)
            if (seen.size, seen.mtime_ns, seen.inode) != (file.size, file.mtime_ns, file.inode):
                changed.append(
                    {
                        "b_made": file.materialization,
                        "b_file": file.file,
                        "mtime_ns": seen.mtime_ns,
                        "inode": seen.inode,
                    }
                )
    return changed
