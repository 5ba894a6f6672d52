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
from pathlib import Path
from typing import Any

import click
import dagster as dg
from sqlalchemy.exc import DBAPIError

from ct_assets.eventlog import kept_open
from ct_assets.factory import CACHE, ONLY_STALE
from ct_assets.keys import PROJECT_TAG, key_of
from ct_assets.partitions import add_missing
from ct_assets.runs import PROCESS_TAG, SHELL_TAG, end_orphans, going, only
from ct_assets.wiping import wipe_purged
from ctcore import progress
from ctcore.asking import registry_batches, untold
from ctcore.batches import Batch, batches
from ctcore.cli.bars import Bars
from ctcore.cli.narrowing import narrowing_options
from ctcore.cli.render import FOUND
from ctcore.dagster_home import end_with_front
from ctcore.errors import CtError, ProjectError
from ctcore.files import check_references
from ctcore.leases import orphaned, process_name
from ctcore.ledger import record_run
from ctcore.looking import Sight, look_around, refuse_without_store
from ctcore.making import Outcome
from ctcore.narrow import Narrowing
from ctcore.plan import Scope, left_alone, scope
from ctcore.planfile import compare, load, refuse
from ctcore.project import Project
from ctcore.reasons import Verdict, name_of
from ctcore.sandbox import refusal
from ctcore.slurm.choose import chosen
from ctcore.slurm.stop import Fail, failing
from ctcore.staleness import evaluate
from ctcore.steps import REGISTRY
from ctcore.veil import veil

START_TAG = "dagster/asset_partition_range_start"
END_TAG = "dagster/asset_partition_range_end"
SHOWN = 20
WAY_OUT = "is there room on the disk, and may its folder be written?"
_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@click.group()
def main() -> None:
    """Internal: use `ct`."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # until Dagster sets its own, and after
    end_with_front()
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
@narrowing_options
def run(
    what: tuple[str, ...],
    file: Path | None,
    partial: bool,
    no_cache: bool,
    fail: Fail,
    cohort: str | None,
    pairing: str | None,
    complete_only: bool,
) -> None:
    """Make everything that is stale, or these steps and nodes and what they need, or what a saved plan holds."""
    with _edge(), dg.DagsterInstance.get() as instance:
        project = Project.find()
        project.catalog.refuse_archived()
        if chosen(project) is None and project.settings.run.sandbox == "strict" and (said := refusal()) is not None:
            raise ProjectError(said)
        check_references(project)
        refuse_without_store(project)
        project.store.ensure()
        add_missing(project, instance)
        end_orphans(instance, project)
        sight = _look(project)
        narrowing = Narrowing(cohort, pairing, complete_only)
        asked = _planned(project, file, partial) if file else scope(project, what, narrowing)
        for said in asked.said:
            click.echo(said, err=True)
        launch = Launch(project, instance, asked, no_cache, fail)
        with failing(fail):
            launch.run()
        launch.report(sight)
    sys.exit(1 if launch.bad else FOUND if sight.problems or launch.other else 0)


@contextmanager
def _edge() -> Iterator[None]:
    try:
        yield
    except CtError as error:
        click.echo(f"ct: {error}", err=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        click.echo("ct: interrupted; what was made is kept, and `ct run` goes on from there", err=True)
        sys.exit(130)
    except (DBAPIError, OSError) as error:  # of Dagster's own storage; that of ct says what it is
        said = str(getattr(error, "orig", None) or error).splitlines()[0]
        click.echo(f"ct: Dagster's storage ({os.environ.get('DAGSTER_HOME')}): {said}; {WAY_OUT}", err=True)
        sys.exit(1)


class Launch:
    """One `ct run`: step after step in dependency order, asking before each what is stale now."""

    def __init__(
        self, project: Project, instance: dg.DagsterInstance, asked: Scope, no_cache: bool = False, fail: Fail = "slow"
    ) -> None:
        self.project = project
        self.instance = instance
        self.asked = asked
        self.fail = fail
        self.only = asked.only
        self.left: dict[str, set[str]] = {}
        self.counts: Counter[str] = Counter()
        self.bad: list[Outcome] = []
        self.again = no_cache
        self.other = 0
        self.elsewhere = 0
        self.untold = untold(project, lambda runs: going(instance, runs))
        self.job = _definitions(project).resolve_implicit_global_asset_job_def()

    def run(self) -> None:
        with Bars() as bars:
            self._registry(bars)
            for step in self.project.steps:
                if self.is_stopped:
                    return
                todo = self._todo(step.name)
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
            self._execute(batch)
            bars.advance("registry", len(batch.verdicts))

    def _todo(self, name: str) -> list[Verdict]:
        if self.only is not None and name not in self.only:
            return []
        keys = None if self.only is None else self.only[name]
        found = {verdict.partition: verdict for verdict in evaluate(self.project).listed(name, keys)}
        for verdict in self.untold:
            if verdict.asset == name:
                found.setdefault(verdict.partition, verdict)
        wanted = [verdict for verdict in found.values() if keys is None or verdict.partition in keys]
        going = {verdict.node for verdict in wanted if verdict.state == "running"}
        going -= orphaned(self.project) if going else set()  # whose run has ended: this one waits for them
        self.elsewhere += len(going)
        todo = [one for one in wanted if one.state != "excluded" and one.node not in going]
        left = left_alone(self.project, self.asked, name, todo, self.left)
        return [verdict for verdict in todo if verdict.partition not in left]

    def _step(self, name: str, todo: Sequence[Verdict], bars: Bars) -> None:
        able = [verdict for verdict in todo if not verdict.waits]
        seen = veil(self.project)
        for verdict in todo:
            if verdict.waits:
                self.bad.append(Outcome(verdict.node, "blocked", seen.told(verdict.sentence)))
        bars.start(name, len(able))

        def settled(outcome: Outcome) -> None:
            self.counts[outcome.state] += 1
            bars.advance(name, 1)
            if outcome.same is not None:
                self.other += not outcome.same
                bars.say(f"{name_of(outcome.node)}: {outcome.why}", style=None)
            if outcome.state in ("failed", "blocked"):
                self.bad.append(outcome)
                bars.say(f"{name_of(outcome.node)} {outcome.state}: {outcome.why}")

        def noted(text: str) -> None:
            bars.say(f"{name}: {text}", style=None)

        with progress.listening(settled), progress.reading(noted):
            for batch in batches(self.project, name, able):
                if self.is_stopped:
                    return
                with only({verdict.partition for verdict in batch.verdicts}):
                    self._execute(batch)

    def _execute(self, batch: Batch) -> None:
        tags = {PROCESS_TAG: process_name(), SHELL_TAG: "ct run", PROJECT_TAG: self.project.id}
        if batch.asset not in REGISTRY:
            tags[ONLY_STALE] = "stale"
            if self.again:
                tags[CACHE] = "off"
        partition: dict[str, Any] = {}
        if batch.start == batch.end:
            partition["partition_key"] = batch.start
        else:
            tags |= {START_TAG: batch.start, END_TAG: batch.end}
        with kept_open(self.instance):
            result = self.job.execute_in_process(
                run_config=_QUIET,
                instance=self.instance,
                asset_selection=[key_of(self.project, batch.asset)],
                raise_on_error=False,
                tags=tags,
                **partition,
            )
        if any(_is_interrupt(event) for event in result.all_events):
            raise KeyboardInterrupt  # Dagster takes it for a failed step, and would go on with the next one
        record_run(self.project, result.run_id, {"asset": batch.asset, "partitions": len(batch.verdicts)})
        if not result.success and not self.bad:
            said = [_cause(event) for event in result.all_events if event.is_failure]
            self.bad.append(Outcome((batch.asset, batch.start), "failed", said[0] if said else "the run failed"))

    def report(self, sight: Sight) -> None:
        """What was done, in one line; then what could not be, in one line each. `sight`: what was seen before."""
        made, reused = self.counts["made"], self.counts["hit"]
        left = sum(map(len, self.left.values()))
        nothing = not made and not reused and not self.bad
        if left:
            click.echo(f'{left} nodes are left alone: [policy] has "never", see `ct plan`', err=True)
        if self.elsewhere:
            click.echo(f"left to another run that makes them now: {self.elsewhere} (`ct status`)", err=True)
        elif nothing:
            click.echo(f"nothing else to do{_wanting(sight)}" if left else _nothing(sight), err=True)
        if nothing:
            return
        click.echo(f"{made} made, {reused} reused, {len(self.bad)} not made", err=True)
        for one in sorted(self.bad, key=lambda one: one.state == "blocked")[:SHOWN]:
            click.echo(f"  {name_of(one.node)} {one.state}: {one.why}", err=True)
            if one.log:
                click.echo(f"    log: {one.log}", err=True)
        if self.is_stopped:
            click.echo("stopped at the first failure (--fail fast); `ct run` goes on with the rest", err=True)
        if len(self.bad) > SHOWN:
            click.echo(f"  … and {len(self.bad) - SHOWN} more (`ct status`)", err=True)


def _cause(event: dg.DagsterEvent) -> str:
    """What was raised first, in its own words: Dagster's say only that a step failed."""
    error = getattr(event.event_specific_data, "error", None)
    while error is not None and error.cause is not None:
        error = error.cause
    if error is None:
        return event.message or ""
    name, _, words = error.message.strip().partition(": ")
    return words if name.startswith("ctcore.errors.") else error.message.strip()


def _nothing(sight: Sight) -> str:
    return f"nothing to do{_wanting(sight)}" if sight.problems else "everything is fresh: nothing to do"


def _wanting(sight: Sight) -> str:
    """What stands above, and is no step's work."""
    many = len(sight.problems)
    return f"; {many} problem{'s' * (many != 1)} of raw files or references" if many else ""


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


def _planned(project: Project, file: Path, partial: bool) -> Scope:
    """Exactly what a saved plan holds. What is not as planned any more is refused, or with `partial` left out."""
    compared = compare(project, load(project, file))
    if compared.differs and not partial:
        raise refuse(file, compared)
    for group in compared.differs:
        more = f" and {group.nodes - 1} more" if group.nodes > 1 else ""
        click.echo(f"left out: {group.example}{more}: {group.words}", err=True)
    if compared.done:
        click.echo(f"{compared.done} planned nodes are made already", err=True)
    return Scope(compared.holds, compared.holds)


def _look(project: Project) -> Sight:
    """See what changed on disk before asking what is stale."""
    found = look_around(project, most=None)
    for said in found.lines():
        click.echo(said, err=True)
    return found


if __name__ == "__main__":
    main()
