"""Few runs for a backfill of scattered partitions.

Dagster makes a run of each contiguous stretch of a backfill's partitions: of 1,000 scattered ones among 10,000, nearly
900 runs, each of which takes seconds to start. A run of a step of ct covers small gaps instead, and passes over what
nobody asked for; a tag tells it which.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import dagster as dg
from dagster._core.definitions.events import AssetKeyPartitionKey

from ctcore.planning.partition_ranges import ASKED_TAG, STEP_TAG, asked_text, ranges

Build = Callable[..., Sequence[dg.RunRequest]]
BUILDER = "build_run_requests_with_backfill_policies"


def cover_gaps() -> None:
    """Have this process, which is the daemon, make few runs of what a backfill asks for."""
    from dagster._core.execution import asset_backfill

    build: Build | None = getattr(asset_backfill, BUILDER, None)
    if build is not None and not hasattr(build, "covers_gaps"):  # where Dagster names it otherwise: more runs

        def covering(
            asset_partitions: Iterable[AssetKeyPartitionKey], asset_graph: Any, dynamic_partitions_store: Any
        ) -> Sequence[dg.RunRequest]:
            return list(_requests(build, list(asset_partitions), asset_graph, dynamic_partitions_store))

        covering.covers_gaps = True  # type: ignore[attr-defined]
        setattr(asset_backfill, BUILDER, covering)


def _requests(build: Build, asked: Sequence[AssetKeyPartitionKey], graph: Any, store: Any) -> Iterator[dg.RunRequest]:
    chosen: dict[dg.AssetKey, set[str]] = defaultdict(set)
    for one in asked:
        if one.partition_key is not None and _covers_gaps(graph.get(one.asset_key)):
            chosen[one.asset_key].add(one.partition_key)
    groups: dict[Any, list[dg.AssetKey]] = defaultdict(list)
    for asset, partitions in chosen.items():  # as Dagster does: what has the same partitions and policy is one run
        node = graph.get(asset)
        groups[node.partitions_def, frozenset(partitions), node.backfill_policy].append(asset)
    if others := [one for one in asked if one.asset_key not in chosen]:
        yield from build(asset_partitions=others, asset_graph=graph, dynamic_partitions_store=store)
    for (definition, partitions, policy), assets in groups.items():
        order = definition.get_partition_keys(dynamic_partitions_store=store)
        for covered, mine in ranges(order, partitions, policy.max_partitions_per_run):
            whole = [AssetKeyPartitionKey(asset, key) for asset in assets for key in covered]
            for request in build(asset_partitions=whole, asset_graph=graph, dynamic_partitions_store=store):
                said = {ASKED_TAG: asked_text(covered, partitions)} if len(covered) > len(mine) else {}
                yield request.with_replaced_attrs(tags={**request.tags, **said})


def _covers_gaps(node: Any) -> bool:
    """Whether an asset is a step of ct, which makes only what a run's tag says, in runs of a bounded size."""
    return STEP_TAG in node.tags and bool(node.backfill_policy) and bool(node.backfill_policy.max_partitions_per_run)
