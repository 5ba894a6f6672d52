"""⑧ What to ask for now: ready nodes in dependency order, each once, never while it runs or waits in a queue."""

import hashlib
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from sqlalchemy import func, select

from ctcore.batches import Batch, batches, partitions, stretches, verdict_key
from ctcore.catalog.tables import event, request
from ctcore.clock import now, today, utc
from ctcore.ledger import unreported as unreported_artifacts
from ctcore.ledger import upsert
from ctcore.policy import ended
from ctcore.project import Project
from ctcore.reasons import Node, Reason, Verdict
from ctcore.registry import unreported
from ctcore.settings import FILE_NAME
from ctcore.staleness import Verdicts, evaluate

TRIES = 3
LOST_AFTER_S = 120
REGISTRY_A_RUN = 1000
_UNTOLD = Reason("metadata", "Dagster has not seen it as it is now")

Going = Callable[[set[str]], set[str]]
"""Which of these runs are under way."""


@dataclass(frozen=True)
class Asked:
    """A batch under the name by which its run is found again."""

    batch: Batch
    run_key: str


def state_of_the_world(project: Project) -> str:
    """Changes whenever a verdict may have changed: the ledger, an ended consent, ct.toml, steps, installed versions."""
    with project.catalog.read() as connection:
        last = connection.execute(select(func.max(event.c.seq))).scalar() or 0
        day = ended(connection, today())
    seen = hashlib.blake2b(f"{last} {day}".encode(), digest_size=16)
    folders = [project.root / folder for folder in project.settings.step_folders]
    for path in [project.root / FILE_NAME, *(p for folder in folders for p in sorted(folder.glob("*.py")))]:
        stat = path.stat()
        seen.update(f"{path.name} {stat.st_size} {stat.st_mtime_ns}".encode())
    for name in sorted({name for step in project.recipes.values() for name in step.environment}):
        try:
            seen.update(f"{name} {metadata.version(name)}".encode())
        except metadata.PackageNotFoundError:
            continue
    return seen.hexdigest()


def ready(verdicts: Verdicts) -> list[Verdict]:
    """What could run now: not fresh, and waiting for nothing. A call that failed is not made again by itself."""
    return [
        verdict for verdict in verdicts.stale() if verdict.state in ("missing", "stale", "lost") and not verdict.waits
    ]


def wanted_batches(project: Project, going: Going) -> list[Batch]:
    """Batches of what is ready, in dependency order; then what Dagster was not told of."""
    free = ready(evaluate(project))
    free += [verdict for verdict in untold(project, going) if verdict.node not in {one.node for one in free}]
    found: list[Batch] = []
    for name in project.steps.order:
        found += batches(project, name, [verdict for verdict in free if verdict.asset == name])
    return found + registry_batches(project)


def untold(project: Project, going: Going) -> list[Verdict]:
    """Made nodes that Dagster was not told of because their run was ended between the record and the event."""
    waiting = [(node, run) for node, run in unreported_artifacts(project) if node[0] in project.steps]
    busy = going({run for _, run in waiting if run is not None}) if waiting else set()
    excluded = _excluded(project, [node for node, _ in waiting])
    free = [node for node, run in waiting if run not in busy and node not in excluded]
    return [Verdict(*node, "stale", (_UNTOLD,)) for node in free]


def _excluded(project: Project, nodes: Iterable[Node]) -> set[Node]:
    """Which of these are excluded by now: nobody is told of them."""
    by_step: dict[str, list[str]] = {}
    for asset, partition in nodes:
        by_step.setdefault(asset, []).append(partition)
    verdicts = evaluate(project) if by_step else None
    listed = [one for asset, some in by_step.items() for one in (verdicts.listed(asset, some) if verdicts else ())]
    return {one.node for one in listed if one.state == "excluded"}


def ask(
    project: Project,
    wanted: Iterable[Batch],
    states: Callable[[set[str]], tuple[set[str], set[str]]],
    most: int,
) -> list[Asked]:
    """Note at most `most` batches as asked for, leaving out nodes whose run is under way or was in vain.

    `states` tells of some run keys which have a run under way, and which have one that has ended. A run that is
    not there yet may still come; after a while it counts as lost.
    """
    listed = list(wanted)
    known = _requests(project)
    going, ended = states({row.run_key for row in known.values()}) if known else (set(), set())
    soon = utc(time.time() - LOST_AFTER_S)
    running = going | {row.run_key for row in known.values() if row.asked_at > soon} - ended
    with project.catalog.read() as connection:
        last = connection.execute(select(func.max(event.c.seq))).scalar() or 0
    asked: list[Asked] = []
    rows = []
    for batch in listed:
        chosen = []
        for verdict in batch.verdicts:
            before = known.get(verdict.node)
            key = verdict_key(verdict)
            if before is not None and before.run_key in running:
                continue
            tries = before.tries + 1 if before is not None and before.key == key else 1
            if tries <= TRIES:
                chosen.append((verdict, key, tries))
        if not chosen or len(asked) >= most:
            continue
        smaller = Batch(batch.asset, chosen[0][0].partition, chosen[-1][0].partition, tuple(v for v, _, _ in chosen))
        run_key = f"{smaller.key}:{last}:{max(tries for _, _, tries in chosen)}"
        asked.append(Asked(smaller, run_key))
        rows += [
            {
                "asset": verdict.asset,
                "partition": verdict.partition,
                "key": key,
                "run_key": run_key,
                "tries": tries,
                "asked_at": now(),
            }
            for verdict, key, tries in chosen
        ]
    if rows:
        with project.catalog.write() as writer:
            upsert(writer, request, rows, project.dialect)
    return asked


def _requests(project: Project) -> dict[Node, Any]:
    with project.catalog.read() as connection:
        return {(row.asset, row.partition): row for row in connection.execute(select(request))}


def registry_batches(project: Project) -> list[Batch]:
    found = []
    for asset, keys in unreported(project).items():
        order = list(project.settings.references) if asset == "reference" else partitions(project, asset)  # type: ignore[arg-type]
        told = set(keys)
        positions = [position for position, key in enumerate(order) if key in told]
        for stretch in stretches(positions, REGISTRY_A_RUN):
            names = [order[at] for at in stretch]
            why = (_UNTOLD,)
            found.append(Batch(asset, names[0], names[-1], tuple(Verdict(asset, n, "stale", why) for n in names)))
    return found
