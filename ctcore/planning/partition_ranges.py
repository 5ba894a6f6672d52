"""From many stale nodes to few runs: contiguous stretches of a level's order, bounded, with small gaps bridged.

Dagster makes a run per contiguous stretch of partition keys, and a run costs seconds to start: a gap of fresh
partitions inside a stretch is cheaper than another run, because a run asked for stale nodes passes fresh ones over.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, replace

from ctcore.cohorts.partitions import partitions
from ctcore.errors import Usage
from ctcore.model.reasons import Verdict
from ctcore.project import Project
from ctcore.staleness.verdicts import Verdicts
from ctcore.store.digest import digest_value

GAP = 200
STEP_TAG = "ct/step"
"""A tag of Dagster's assets that are steps: their runs make what `ASKED_TAG` says, whatever range they cover."""
ASKED_TAG = "ct/asked"
"""A tag of runs over a range of which not every partition was asked for."""


@dataclass(frozen=True)
class PartitionRange:
    """The work of one run of one step: the partitions from `start` to `end` in the level's order. `verdicts` are the
    nodes to make. `below` are nodes of steps that can follow in the same run, in the order of their steps."""

    asset: str
    start: str
    end: str
    verdicts: tuple[Verdict, ...]
    below: tuple[Verdict, ...] = ()

    @property
    def steps(self) -> list[str]:
        """The step, and those that follow."""
        return list(dict.fromkeys([self.asset, *(verdict.asset for verdict in self.below)]))

    @property
    def key(self) -> str:
        """The request's identity: the same nodes for the same reasons are the same request."""
        return f"{self.asset}:{digest_value('ct.request.v1', [verdict_key(v) for v in self.verdicts])[:24]}"


def verdict_key(verdict: Verdict) -> str:
    """Identifies a verdict: the node and why it is not fresh."""
    return digest_value("ct.verdict.v2", [*verdict.node, *(reason.evidence for reason in verdict.reasons)])


def batches(project: Project, asset: str, verdicts: Iterable[Verdict]) -> Iterator[PartitionRange]:
    """Cut the verdicts of one step into batches of at most `partitions_per_run` covered partitions."""
    chosen = {verdict.partition: verdict for verdict in verdicts}
    if not chosen:
        return
    order = partitions(project, project.steps[asset].level)
    for covered, asked in ranges(order, chosen.keys(), project.settings.run.partitions_per_run or 500):
        yield PartitionRange(asset, covered[0], covered[-1], tuple(chosen[key] for key in asked))


def with_steps_below(
    project: Project, batch: PartitionRange, verdicts: Verdicts, may: Callable[[Sequence[Verdict]], bool]
) -> PartitionRange:
    """The batch with the nodes of further steps that wait for it alone, step by step as long as they `may` be made.

    A run has one range of partitions, so they are of the same level. Each step is decided again when it begins.
    """
    keys, chain = [verdict.partition for verdict in batch.verdicts], [batch.asset]
    asked, below = set(keys), list[Verdict]()
    level = project.steps[batch.asset].level
    if project.steps[batch.asset].made_elsewhere:  # it is only told of: what waits for it goes on waiting
        return batch
    for step in project.steps:
        if step.level != level or step.name in chain or set(chain).isdisjoint(step.inputs.values()):
            continue
        mine = [verdict for verdict in verdicts.listed(step.name, keys) if verdict.state != "excluded"]
        waits = (reason.path[0] for verdict in mine for reason in verdict.reasons if reason.path)
        if mine and all(name in chain and key in asked for name, key in waits) and may(mine):
            chain.append(step.name)
            below += mine
    return replace(batch, below=tuple(below))


def ranges(order: Sequence[str], chosen: Set[str], most: int) -> Iterator[tuple[Sequence[str], list[str]]]:
    """Ranges of the order that cover at most `most`: all that each covers, and the chosen ones among them."""
    positions = [position for position, key in enumerate(order) if key in chosen]
    for stretch in stretches(positions, most):
        yield order[stretch[0] : stretch[-1] + 1], [order[at] for at in stretch]


def stretches(positions: Sequence[int], most: int, gap: int = GAP) -> Iterator[list[int]]:
    """Group ascending positions so that each group covers at most `most` and bridges no gap over `gap`."""
    group: list[int] = []
    for position in positions:
        if group and (position - group[0] >= most or position - group[-1] > gap):
            yield group
            group = []
        group.append(position)
    if group:
        yield group


def asked_text(covered: Sequence[str], asked: Set[str]) -> str:
    """Which partitions of a range were asked for: how many, a digest of the whole range, and a bit for each in the
    order of their names.

    It names nobody, because tags of runs stay in Dagster after a purge.
    """
    bits = "".join("01"[key in asked] for key in sorted(covered))
    return f"{bits.count('1')} of {len(covered)} {_range_digest(covered)} {int(bits, 2):x}"


def asked_partitions(text: str, covered: Sequence[str]) -> list[str]:
    """Those of a range, in whatever order, that were asked for, by the words of `asked_text`.

    Usage: the range has other partitions now.
    """
    *_, digest, bits = text.split()
    if digest != _range_digest(covered):
        raise Usage(
            "the partitions between the first and the last one of this run are others than when it was launched; "
            "launch them again"
        )
    # A number has no leading zeros, and a flag each has to come back.
    flags = f"{int(bits, 16):0{len(covered)}b}"
    asked = {key for key, flag in zip(sorted(covered), flags, strict=True) if flag == "1"}
    return [key for key in covered if key in asked]


def _range_digest(covered: Sequence[str]) -> str:
    return digest_value("ct.range.v1", sorted(covered))[:16]
