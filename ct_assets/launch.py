"""What the shell starts for work that needs Dagster: `python -m ct_assets.launch run|sync|wipe`.

Runs in a process of its own, because `ct` itself must answer in a moment and imports no Dagster.
"""

import logging
import os
import signal
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import click
import dagster as dg
from sqlalchemy.exc import DBAPIError

from ct_assets.asset_keys import PROJECT_TAG, key_of
from ct_assets.compute_logs import beside_terminal
from ct_assets.event_log_storage import StorageLost, kept_open
from ct_assets.partitions import add_missing
from ct_assets.purged_events import wipe_purged
from ct_assets.registry_assets import tell
from ct_assets.runs import END_TAG, PROCESS_TAG, SHELL_TAG, START_TAG, end_orphans, going, making_ahead, only
from ct_assets.step_assets import CACHE, ONLY_STALE
from ctcore.cohorts.filters import NodeFilter
from ctcore.errors import CtError
from ctcore.execution.ledger import record_run
from ctcore.execution.materialize import Outcome
from ctcore.execution.slurm.cancel import Fail, on_failure
from ctcore.governance.masking import mask_of
from ctcore.model.node import Node, name_of
from ctcore.model.reasons import Verdict
from ctcore.planning.ahead import AheadRuns
from ctcore.planning.partition_ranges import PartitionRange, batches
from ctcore.planning.plan import Scope, scope
from ctcore.planning.plan_file import planned_scope
from ctcore.planning.requests import nodes_untold, registry_batches
from ctcore.planning.work_list import SHOWN, WorkList
from ctcore.project import Project
from ctcore.projects.dagster_home import end_with_front, unblock_interrupt
from ctcore.query.exclusion_counts import emptied_cohorts
from ctcore.staleness.verdicts import evaluate
from ctcore.terminal.cohort_options import narrowing_options
from ctcore.terminal.look_before_run import look_before_run
from ctcore.terminal.progress_bars import Bars
from ctcore.terminal.render import FOUND
from ctcore.util import progress
from ctcore.util.disk_errors import are_files_short, too_many_files
from ctcore.util.gc import collect_from_now
from ctcore.util.processes import process_name

_FILES = 8  # if fewer can be opened now, its databases could not be: some are closed by then
WAY_OUT = "is there room on the disk, and may its folder be written?"
# Dagster logs several lines an event to the terminal; ours has bars.
_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@click.group()
def main() -> None:
    """Internal: use `ct`."""
    collect_from_now()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # until Dagster sets its own, and after
    end_with_front()
    # Dagster warns on stderr of beta features and of its own waiting, in the middle of the bars.
    logging.getLogger("dagster").setLevel(logging.CRITICAL)


@main.command()
def sync() -> None:
    """Tell Dagster of the partitions that it does not know yet."""
    with _edge():
        with dg.DagsterInstance.get() as instance:
            added = add_missing(Project.find(), instance)
        if added:
            click.echo(f"{added} new partition{'s' * (added != 1)} in Dagster", err=True)


@main.command()
@click.argument("after", type=int)
def wipe(after: int) -> None:
    """Take out of Dagster's storage what it was told of what was purged after this purge."""
    with _edge(), dg.DagsterInstance.get() as instance:
        wipe_purged(Project.find(), instance, after)


@main.command()
@click.argument("what", nargs=-1)
@click.option("--plan", "file", type=click.Path(path_type=Path))
@click.option("--partial", is_flag=True)
@click.option("--no-cache", is_flag=True)
@click.option("--fail", type=click.Choice(["slow", "fast"]), default="slow")
@click.option("--problems", type=int, help="So many did a look find that was taken just now; it is not repeated.")
@narrowing_options
def run(
    what: tuple[str, ...],
    file: Path | None,
    partial: bool,
    no_cache: bool,
    fail: Fail,
    problems: int | None,
    cohort: str | None,
    pairing: str | None,
    complete_only: bool,
) -> None:
    """Make everything that is stale, or these steps and nodes and what they need, or what a saved plan holds."""
    with _edge(), dg.DagsterInstance.get() as instance:
        project = Project.find()
        project.catalog.refuse_archived()
        if problems is None:
            problems = look_before_run(project)
        add_missing(project, instance)
        end_orphans(instance, project)
        narrowing = NodeFilter(cohort, pairing, complete_only)
        asked = planned_scope(project, file, partial) if file else scope(project, what, narrowing)
        for said in asked.notes:
            click.echo(said, err=True)
        launch = Launch(project, instance, asked, no_cache, fail)
        with on_failure(fail):
            launch.run()
        launch.report(problems)
    sys.exit(1 if launch.bad else FOUND if problems or launch.other else 0)


@contextmanager
def _edge() -> Iterator[None]:
    try:
        unblock_interrupt()
        yield
    except CtError as error:
        click.echo(f"ct: {error}", err=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        click.echo("ct: interrupted; what was made is kept, and `ct run` goes on from there", err=True)
        sys.exit(130)
    except (DBAPIError, OSError, StorageLost) as error:  # of Dagster's own storage; that of ct says what it is
        said = str(getattr(error, "orig", None) or error).splitlines()[0]
        way = too_many_files() if are_files_short(_FILES) else WAY_OUT
        click.echo(f"ct: Dagster's storage ({os.environ.get('DAGSTER_HOME')}): {said}; {way}", err=True)
        sys.exit(1)


class Launch:
    """One `ct run`: step after step in dependency order, asking before each what is stale now. While the last calls of
    a step go on, what is ready of others is made ahead."""

    def __init__(
        self, project: Project, instance: dg.DagsterInstance, asked: Scope, no_cache: bool = False, fail: Fail = "slow"
    ) -> None:
        self.project = project
        self.instance = instance
        self.fail = fail
        self.only = asked.only
        self.counts: Counter[str] = Counter()
        self.bad: list[Outcome] = []
        self.settled: set[Node] = set()
        self.again = no_cache
        self.other = 0
        self.work = WorkList(project, asked, nodes_untold(project, lambda runs: going(instance, runs)))
        # What was made before is repeated beside it (`--no-cache`): that is compared in its step's own turn.
        self.ahead = None if no_cache else AheadRuns(project, self.work)

    @cached_property
    def job(self) -> dg.JobDefinition:
        """Once for all steps: resolving the definitions of a large project takes longer than a small run."""
        return _definitions(self.project).resolve_implicit_global_asset_job_def()

    def run(self) -> None:
        with Bars() as bars, making_ahead(self.ahead):
            self._registry(bars)
            # A run for each step, or for a chain of them, and verdicts anew before each step: what came out with the
            # same bytes leaves the next fresh.
            for step in self.project.steps:
                if self.is_stopped:
                    return
                tried = {one.node for one in self.bad} - self.work.ahead.keys()  # on a chain that begins above
                todo = [verdict for verdict in self.work.of(step.name) if verdict.node not in tried]
                if todo:
                    self._step(step.name, todo, bars)

    @property
    def is_stopped(self) -> bool:
        """Whether a call has failed, and nothing new is to be started then."""
        return self.fail == "fast" and any(one.state == "failed" for one in self.bad)

    def _registry(self, bars: Bars) -> None:
        """Dagster learns what is registered. No step waits for it, and it is no work on data."""
        if self.only is not None:
            return
        waiting = registry_batches(self.project)
        bars.start("registry", sum(len(batch.verdicts) for batch in waiting))
        for batch in waiting:
            tell(self.project, self.instance, batch.asset, [verdict.partition for verdict in batch.verdicts])
            bars.advance("registry", len(batch.verdicts))

    def _step(self, name: str, todo: Sequence[Verdict], bars: Bars) -> None:
        able = [verdict for verdict in todo if not verdict.waits]
        seen = mask_of(self.project)
        for verdict in todo:
            if verdict.waits:
                self.bad.append(Outcome(verdict.node, "blocked", seen.mask_words(verdict.sentence)))
        bars.start(name, sum(verdict.node not in self.work.ahead for verdict in able))
        chain = self.work.chain(able[0]) if len(able) == 1 else [name]
        now = [name]

        def heard(what: Outcome | progress.StepBegun | progress.StepAhead) -> None:
            if isinstance(what, Outcome):
                self._settled(what, bars)
            elif isinstance(what, progress.StepAhead):
                bars.start(what.step, what.nodes)
            elif what.step != now[-1]:
                bars.end(now[-1])
                bars.start(what.step, 1)
                now.append(what.step)

        def noted(text: str) -> None:
            bars.say(f"{now[-1]}: {text}", style=None)

        with progress.listening(heard), progress.reading(noted):
            for batch in batches(self.project, name, able):
                if self.is_stopped:
                    return
                with only({verdict.partition for verdict in batch.verdicts}):
                    self._execute(batch, chain)
            bars.end(now[-1])

    def _settled(self, outcome: Outcome, bars: Bars) -> None:
        if outcome.node in self.settled:  # when it was made, ahead of its step
            return
        self.counts[outcome.state] += 1
        self.settled.add(outcome.node)
        bars.advance(outcome.node[0], 1)
        if outcome.same is not None:
            self.other += not outcome.same
            bars.say(f"{name_of(outcome.node)}: {outcome.why}", style=None)
        if outcome.state in ("failed", "blocked"):
            self.bad.append(outcome)
            bars.say(f"{name_of(outcome.node)} {outcome.state}: {outcome.why}")

    def _execute(self, batch: PartitionRange, chain: Sequence[str]) -> None:
        """One run of Dagster's. A `chain` of steps is of one partition, and each begins with a new look at what is
        stale: what came out with the same bytes leaves the next fresh."""
        tags = {PROCESS_TAG: process_name(), SHELL_TAG: "ct run", PROJECT_TAG: self.project.id, ONLY_STALE: "stale"}
        if self.again:
            tags[CACHE] = "off"
        # execute_in_process takes one partition key, and a range only as these two tags (Dagster 1.13).
        partition: dict[str, Any] = {}
        if batch.start == batch.end:
            partition["partition_key"] = batch.start
        else:
            # A range covers fresh nodes in between; ONLY_STALE makes the run pass over them.
            tags |= {START_TAG: batch.start, END_TAG: batch.end}
        with kept_open(self.instance), beside_terminal(self.instance):
            # In this process: a run of its own costs seconds, mostly for importing Dagster (1 CPU second even
            # compiled).
            result = self.job.execute_in_process(
                run_config=_QUIET,
                instance=self.instance,
                asset_selection=[key_of(self.project, name) for name in chain],
                # The failure of one step must not hide what its other partitions did.
                raise_on_error=False,
                tags=tags,
                **partition,
            )
        # An interrupt is one of Dagster's failures here: DagsterExecutionInterruptedError inside the asset's body.
        if any(_is_interrupt(event) for event in result.all_events):
            raise KeyboardInterrupt  # Dagster takes it for a failed step, and would go on with the next one
        below = {"below": chain[1:]} if chain[1:] else {}
        record_run(self.project, result.run_id, {"asset": batch.asset, "partitions": len(batch.verdicts), **below})
        if not result.success:
            said = [_cause(event) for event in result.all_events if event.is_failure]
            self._broke_off(batch, chain, said[0] if said else "the run failed")

    def _broke_off(self, batch: PartitionRange, chain: Sequence[str], cause: str) -> None:
        """Name the nodes of a failed run of which nothing was heard: those of its first step that has such. The run
        itself where all were settled well, or where the catalog cannot be asked."""
        partitions = [verdict.partition for verdict in batch.verdicts]
        nodes = {(step, partition) for step in chain for partition in partitions}
        left, is_known = set[Node](), True
        step = next((step for step in chain if not self.settled.issuperset((step, one) for one in partitions)), None)
        if step is not None:
            waiting = [one for one in partitions if (step, one) not in self.settled]
            try:
                stale = evaluate(self.project).listed(step, waiting)
                left = {verdict.node for verdict in stale if verdict.state != "excluded"}
            except CtError:  # the catalog is damaged, say, which is the cause then
                is_known = False
        if step == chain[0] or not any(one.node in nodes for one in self.bad):  # else it was not reached
            self.bad += [Outcome(node, "failed", cause) for node in sorted(left)]
        if not (is_known and any(one.node in nodes for one in self.bad)):
            which = batch.start if batch.start == batch.end else f"{batch.start}...{batch.end}"
            self.bad.append(Outcome((batch.asset, which), "failed", cause))

    def report(self, problems: int) -> None:
        """What was done, in one line; then what could not be, in one line each. `problems`: of files, seen before."""
        made, reused = self.counts["made"], self.counts["hit"]
        is_idle = not made and not reused and not self.bad
        for said in self.work.left_lines(is_idle, problems):
            click.echo(said, err=True)
        if is_idle:
            return
        click.echo(f"{made} made, {reused} reused, {len(self.bad)} not made", err=True)
        for one in sorted(self.bad, key=lambda one: one.state == "blocked")[:SHOWN]:
            click.echo(f"  {name_of(one.node)} {one.state}: {one.why}", err=True)
            if one.log:
                click.echo(f"    log: {one.log}", err=True)
        levels = {step.name: step.level for step in self.project.steps}
        cohorts = {one.node[1] for one in self.bad if one.state == "failed" and levels.get(one.node[0]) == "cohort"}
        for said in emptied_cohorts(self.project, sorted(cohorts)) if cohorts else ():
            click.echo(f"  {said}", err=True)
        if self.is_stopped:
            click.echo("stopped at the first failure (--fail fast); `ct run` goes on with the rest", err=True)
        if len(self.bad) > SHOWN:
            click.echo(f"  … and {len(self.bad) - SHOWN} more (`ct status`)", err=True)


def _cause(event: dg.DagsterEvent) -> str:
    """What ct says of it, or else what was raised first, in its own words: Dagster's say only that a step failed."""
    error, words = getattr(event.event_specific_data, "error", None), event.message or ""
    while error is not None:
        name, _, said = error.message.strip().partition(": ")
        if name.startswith("ctcore.errors."):
            return said
        words, error = error.message.strip(), error.cause
    return words


def _is_interrupt(event: dg.DagsterEvent) -> bool:
    error = event.step_failure_data.error if event.is_step_failure else None
    while error is not None:
        if error.cls_name in ("DagsterExecutionInterruptedError", "KeyboardInterrupt"):
            return True
        error = error.cause
    return False


def _definitions(project: Project) -> dg.Definitions:
    os.environ["CT_PROJECT"] = str(project.root)
    from definitions import defs

    return defs


if __name__ == "__main__":
    main()
