"""The next requests: ready nodes in dependency order, each once, and never while it runs or is queued."""

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from sqlalchemy import func, select

from ctcore.catalog.engine import upsert
from ctcore.catalog.tables import event, request
from ctcore.cohorts.partitions import NOBODY, is_empty, partitions
from ctcore.cohorts.registry import unreported_nodes
from ctcore.config.settings import FILE_NAME
from ctcore.execution.ledger import unreported_makings as unreported_artifacts
from ctcore.governance.access import last_consent_end
from ctcore.model.masked_text import Words
from ctcore.model.node import Node
from ctcore.model.reasons import Reason, Verdict
from ctcore.planning.limits import (
    Budget,
    HeldNodes,
    failures_of,
    held_words,
    node_count_text,
    nodes_backing_off,
    split_by_policy,
)
from ctcore.planning.partition_ranges import PartitionRange, batches, stretches, verdict_key, with_steps_below
from ctcore.project import Project
from ctcore.staleness.verdicts import Verdicts, evaluate
from ctcore.steps.graph import REGISTRY
from ctcore.util.clock import now, today, utc

# The daemon launches the runs of a tick after the sensor has answered: until then a run is seen nowhere (0007).
LOST_AFTER_S = 120
REGISTRY_A_RUN = 1000
_PAUSED = f"paused: [run] pause = true in {FILE_NAME}"
_UNTOLD = Reason("metadata", Words("Dagster has not seen it as it is now"))

Going = Callable[[set[str]], set[str]]
"""Which of these runs are under way."""
States = Callable[[set[str]], tuple[set[str], set[str]]]
"""Of these run keys: which have a run under way, and which have one that has ended."""


@dataclass(frozen=True)
class RequestRound:
    """One round: the requests, the held nodes with reasons, and the time of the next look."""

    asked: tuple["RangeRequest", ...] = ()
    held: tuple[HeldNodes, ...] = ()
    settled: bool = False  # nothing is left that only time or a run's end could change

    @property
    def words(self) -> str:
        return held_words(self.held) or "everything that can be made is fresh"


@dataclass(frozen=True)
class RangeRequest:
    """A batch under the name by which its run is found again."""

    batch: PartitionRange
    run_key: str


def state_of_the_world(project: Project) -> str:
    """Changes whenever a verdict may have changed: the ledger, an ended consent, ct.toml, steps, installed versions."""
    with project.catalog.read() as connection:
        last = connection.execute(select(func.max(event.c.seq))).scalar() or 0
        day = last_consent_end(connection, today())
    seen = hashlib.blake2b(f"{last} {day}".encode(), digest_size=16)
    folders = [project.root / folder for folder in project.settings.step_folders]
    # A stat suffices: this only decides whether to evaluate, which reads the files.
    # All Python of the folders: a step file also runs what lies beside it.
    listed = (p for folder in folders for ending in ("py", "toml") for p in sorted(folder.glob(f"*.{ending}")))
    for path in [project.root / FILE_NAME, *listed]:
        stat = path.stat()
        seen.update(f"{path.name} {stat.st_size} {stat.st_mtime_ns}".encode())
    # No event tells of an upgraded package, and what it made is stale.
    for name in sorted({name for step in project.recipes.values() for name in step.environment}):
        try:
            seen.update(f"{name} {metadata.version(name)}".encode())
        except metadata.PackageNotFoundError:
            continue
    return seen.hexdigest()


def ready_nodes(verdicts: Verdicts) -> list[Verdict]:
    """Nodes that could run now: not fresh, and waiting for nothing. Failed nodes are included, for a later retry."""
    return verdicts.unblocked()


def decide_requests(project: Project, going: Going, states: States, *, record: bool = True) -> RequestRound:
    """Choose the next requests and record them: in dependency order, each node once, and never while it runs.
    Without `record` this is a look: nothing is written.

    A run that is missing may still appear. After a while it counts as lost, and its nodes as failed.
    """
    if project.settings.automation.pause:
        return RequestRound(held=(HeldNodes((), _PAUSED),), settled=True)
    empty, known = is_empty(project), _requests(project)
    verdicts = None if empty else evaluate(project)
    free = ready_nodes(verdicts) if verdicts else []
    running = _under_way(known.values(), states)
    free, held = split_by_policy(project, free)
    held += [HeldNodes((), NOBODY)] * empty
    busy = [verdict for verdict in free if _runs(known, verdict.node, running)]
    free = [verdict for verdict in free if not _runs(known, verdict.node, running)]
    keys = {verdict.node: verdict_key(verdict) for verdict in free}
    waiting = list(nodes_backing_off(project, free, failures_of(project, free, keys)))
    later = {node for one in waiting for node in one.nodes}
    budget = Budget(project, [n for n, row in known.items() if row.run_key in running and n[0] in project.steps])
    free, beyond = budget.within([verdict for verdict in free if verdict.node not in later])
    # What is stale besides is made again, and that run tells Dagster.
    told = [one for one in nodes_untold(project, going) if one.node not in keys]
    registered = registry_batches(project)
    tellings = [*told, *(verdict for batch in registered for verdict in batch.verdicts)]
    passed = {one.node for one in tellings if _runs(known, one.node, running)} | _failed_reports(project, tellings)
    told = [one for one in told if one.node not in passed]
    wanted = [*_in_order(project, [*free, *told]), *_without(registered, passed)]
    most = max(0, min(project.settings.run.requests_per_tick, project.settings.run.requests_in_flight - len(running)))
    may = _may_follow(project, known, running, budget)
    chosen = [
        with_steps_below(project, batch, verdicts, may) if verdicts and batch.asset in project.steps else batch
        for batch in wanted[:most]
    ]
    asked = _note(project, chosen, known, keys, record)
    held += [*waiting, *budget.held(beyond), *_busy(busy, wanted[most:], running)]
    return RequestRound(asked, tuple(held), settled=not (asked or busy or running or wanted or tellings))


def _may_follow(
    project: Project, known: Mapping[Node, Any], running: set[str], budget: Budget
) -> Callable[[Sequence[Verdict]], bool]:
    """Whether nodes that wait for a run may follow in it: by policy, budget, and as nobody makes them."""

    def may(waiting: Sequence[Verdict]) -> bool:
        if any(verdict.state == "running" or _runs(known, verdict.node, running) for verdict in waiting):
            return False
        free, _ = split_by_policy(project, waiting)
        return len(free) == len(waiting) and budget.takes_all(waiting)

    return may


def _failed_reports(project: Project, tellings: Sequence[Verdict]) -> set[Node]:
    """Whether reporting these to Dagster failed, and it is too early to try again."""
    keys = {verdict.node: verdict_key(verdict) for verdict in tellings}
    return {
        node for one in nodes_backing_off(project, tellings, failures_of(project, tellings, keys)) for node in one.nodes
    }


def nodes_untold(project: Project, going: Going) -> list[Verdict]:
    """Made nodes that Dagster does not know, because their run ended between the record and the event."""
    waiting = [(node, run) for node, run in unreported_artifacts(project) if node[0] in project.steps]
    busy = going({run for _, run in waiting if run is not None}) if waiting else set()
    excluded = _excluded(project, [node for node, _ in waiting])
    free = [node for node, run in waiting if run not in busy and node not in excluded]
    return [Verdict(*node, "stale", (_UNTOLD,)) for node in free]


def _excluded(project: Project, nodes: Iterable[Node]) -> set[Node]:
    """Which of these are excluded by now. Dagster does not learn of them."""
    by_step: dict[str, list[str]] = {}
    for asset, partition in nodes:
        by_step.setdefault(asset, []).append(partition)
    verdicts = evaluate(project) if by_step else None
    listed = [one for asset, some in by_step.items() for one in (verdicts.listed(asset, some) if verdicts else ())]
    return {one.node for one in listed if one.state == "excluded"}


def hold_reasons(project: Project, verdicts: Iterable[Verdict]) -> list[str]:
    """Why the sensor would not ask for all of these that are ready, as it would say it."""
    if project.settings.automation.pause:
        return [_PAUSED]
    free, held = split_by_policy(project, (verdict for verdict in verdicts if not verdict.waits))
    failures = failures_of(project, free, {verdict.node: verdict_key(verdict) for verdict in free})
    held += nodes_backing_off(project, free, failures)
    budget = Budget(project, ())
    later = {node for one in held for node in one.nodes}
    _, beyond = budget.within([verdict for verdict in free if verdict.node not in later])
    return [one.words for one in [*held, *budget.held(beyond)]]


def _under_way(rows: Iterable[Any], states: States) -> set[str]:
    """The run keys with a run that is going or may still appear."""
    listed = list(rows)
    going, ended = states({row.run_key for row in listed}) if listed else (set(), set())
    soon = utc(time.time() - LOST_AFTER_S)
    return going | {row.run_key for row in listed if row.asked_at > soon} - ended


def _runs(known: Mapping[Node, Any], node: Node, running: set[str]) -> bool:
    return node in known and known[node].run_key in running


def _in_order(project: Project, free: Sequence[Verdict]) -> list[PartitionRange]:
    by_step: dict[str, list[Verdict]] = {name: [] for name in project.steps.order}
    for verdict in free:
        by_step[verdict.asset].append(verdict)
    return [batch for name, listed in by_step.items() for batch in batches(project, name, listed)]


def _without(listed: Iterable[PartitionRange], passed: set[Node]) -> Iterator[PartitionRange]:
    """Batches without the nodes that are passed over."""
    for batch in listed:
        left = tuple(verdict for verdict in batch.verdicts if verdict.node not in passed)
        if left:
            yield PartitionRange(batch.asset, left[0].partition, left[-1].partition, left)


def _busy(busy: Sequence[Verdict], left: Sequence[PartitionRange], running: set[str]) -> Iterator[HeldNodes]:
    if busy:
        yield HeldNodes((), f"{node_count_text(busy)} asked for already")
    nodes = tuple(verdict.node for batch in left for verdict in batch.verdicts if verdict.asset not in REGISTRY)
    if nodes:
        yield HeldNodes(
            nodes, f"{node_count_text(nodes)} waiting for {len(running)} runs under way ([run] requests_in_flight)"
        )


def _note(
    project: Project,
    wanted: Sequence[PartitionRange],
    known: Mapping[Node, Any],
    keys: Mapping[Node, str],
    record: bool,
) -> tuple[RangeRequest, ...]:
    """Name the requests, and record each before it is made."""
    if not wanted:
        return ()
    with project.catalog.read() as connection:
        last = connection.execute(select(func.max(event.c.seq))).scalar() or 0
    asked: list[RangeRequest] = []
    rows = []
    for batch in wanted:
        verdicts = (*batch.verdicts, *batch.below)
        tries = {verdict.node: _tries(known, verdict, keys) for verdict in verdicts}
        # Dagster starts no second run of one run_key: the last event and the try make each request another one.
        run_key = f"{batch.key}:{last}:{max(tries.values())}"
        asked.append(RangeRequest(batch, run_key))
        rows += [
            {
                "asset": verdict.asset,
                "partition": verdict.partition,
                "key": keys.get(verdict.node) or verdict_key(verdict),
                "run_key": run_key,
                "tries": tries[verdict.node],
                "asked_at": now(),
            }
            for verdict in verdicts
        ]
    if record:
        with project.catalog.write() as writer:
            upsert(writer, request, rows)
    return tuple(asked)


def _tries(known: Mapping[Node, Any], verdict: Verdict, keys: Mapping[Node, str]) -> int:
    before = known.get(verdict.node)
    key = keys.get(verdict.node) or verdict_key(verdict)
    return before.tries + 1 if before is not None and before.key == key else 1


def requested_partitions(project: Project, run_key: str) -> set[str] | None:
    """The partitions requested under this key of which a step is not made yet; None if there are none left."""
    with project.catalog.read() as connection:
        listed = connection.execute(select(request.c.partition).where(request.c.run_key == run_key)).scalars()
        return set(listed) or None


def _requests(project: Project) -> dict[Node, Any]:
    with project.catalog.read() as connection:
        return {(row.asset, row.partition): row for row in connection.execute(select(request))}


def registry_batches(project: Project) -> list[PartitionRange]:
    found = []
    for asset, keys in unreported_nodes(project).items():
        order = list(project.settings.references) if asset == "reference" else partitions(project, asset)  # type: ignore[arg-type]
        told = set(keys)
        positions = [position for position, key in enumerate(order) if key in told]
        for stretch in stretches(positions, REGISTRY_A_RUN):
            names = [order[at] for at in stretch]
            why = (_UNTOLD,)
            found.append(
                PartitionRange(asset, names[0], names[-1], tuple(Verdict(asset, n, "stale", why) for n in names))
            )
    return found
