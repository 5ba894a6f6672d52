"""Make nodes of one step: reuse existing results, run the rest, record each when it ends. A key runs once."""

import json
import secrets
import time
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from sqlalchemy import select

from ctcore.catalog.engine import in_keys
from ctcore.catalog.tables import entity, file, materialization, output, reference
from ctcore.code.archive import keep_code
from ctcore.cohorts import rule_history
from ctcore.execution import ledger
from ctcore.execution.call import StepCall, StepResult, forget
from ctcore.execution.concurrent_runs import ConcurrentRuns
from ctcore.execution.local import LocalRunner
from ctcore.execution.reproduce import Reproduction, compare_results, repeated_calls
from ctcore.execution.reproduce import record as record_again
from ctcore.execution.slurm import jobs
from ctcore.governance.masking import UNMASKED, mask_of
from ctcore.inputs.key import Hit, Preparation, PreparedCall, cache_hits, prepare
from ctcore.inputs.resolve import ROLE
from ctcore.intake.raw_files import Memory
from ctcore.lineage.containment import id_pattern
from ctcore.model.masked_text import Plain, Words
from ctcore.model.node import Node
from ctcore.model.reasons import role_text
from ctcore.project import Project
from ctcore.projects import leases
from ctcore.projects.missing_store import refuse_without_store
from ctcore.staleness.verdicts import evaluate
from ctcore.step import Step
from ctcore.steps.git_commit import commit_of
from ctcore.store.digest import Signature
from ctcore.store.folder_content import signature_at, try_seen_contents
from ctcore.store.store import PublishedArtifact

WAIT_S = 0.5
FOREIGN_S = 7 * 24 * 3600  # staged on another host: whether its process lives cannot be seen from here
FORGET_S = 7 * 24 * 3600
ASKED = Words("asked for")


class Runner(Protocol):
    """Where calls run: this machine, or a cluster."""

    def run(self, calls: Sequence[StepCall]) -> Iterator[list[StepResult]]: ...


@dataclass(frozen=True)
class Outcome:
    """The outcome for one node: made, found (`hit`), failed, or blocked by a missing input.

    `why` is the reason for making, reusing or blocking it, after masking.
    """

    node: Node
    state: Literal["made", "hit", "failed", "blocked"]
    why: str
    materialization: int | None = None
    data_version: str | None = None
    log: str | None = None
    same: bool | None = None  # of what was made again: whether it has the same bytes


class Ahead(Protocol):
    """Nodes that are made before the run that reports them begins."""

    def nodes(self, step: str) -> set[str]:
        """The partitions of a step that are made ahead, or were, and that no run has taken over."""
        ...

    def outcomes(self, step: str, partitions: Collection[str]) -> Iterator[list[Outcome]]:
        """Take these over: how they ended, as they end. Those that were given up have no outcome."""
        ...


@dataclass
class StepRun:
    """One step, some of its partitions, one run."""

    project: Project
    step: Step
    keys: Sequence[str]
    run_id: str | None = None
    params: Mapping[str, Any] | None = None
    stale_only: bool = False
    tells: bool = False  # whoever takes the outcomes tells Dagster of them
    among: Collection[str] | None = None  # with `stale_only`: these and no others, where a run covers more
    runner: Runner | None = None
    again: bool = False  # what was made before the run began is made again beside it, and compared
    replaces: bool = False  # with `again`: what comes out with other bytes takes the place of what is there
    ahead: Ahead | None = None
    waits: bool = True  # for what others make; else it is given up, and whoever drives the run waits
    _why: dict[str, Words] = field(default_factory=dict)

    def outcomes(self) -> Iterator[Outcome]:
        """Make the nodes, and yield each outcome when it is settled."""
        for some in self.settled():
            yield from some

    def settled(self) -> Generator[list[Outcome]]:
        """Make the nodes, and yield all outcomes since the last time, so that they can be reported together.

        `stale_only` skips fresh nodes, unless Dagster does not know them. With `again`, every call runs; earlier
        makings are kept, and the comparison is recorded.
        """
        refuse_without_store(self.project)
        if not self.project.store.is_there:  # nothing is on record: it is the first run
            self.project.store.ensure()
        self.project.look_at_tools()
        if self.step.made_elsewhere:
            yield self._made_elsewhere()
            return
        # Before the first look: a call that another run tries in vain from now on is not tried here (0020).
        began = ConcurrentRuns.from_now(self.project)
        ahead = self.ahead.nodes(self.step.name).intersection(self.keys) if self.ahead else set[str]()
        yield from self._made([key for key in self._asked() if key not in ahead], began)
        if self.ahead and ahead:
            for some in self.ahead.outcomes(self.step.name, frozenset(ahead)):
                ahead -= {one.node[1] for one in some}
                yield some
            if ahead:  # given up there
                yield from self._made([key for key in self._asked() if key in ahead], began)

    def _made_elsewhere(self) -> list[Outcome]:
        """What is there of these nodes, for whoever tells Dagster of it. The others cannot be made here."""
        keys, seen = self._asked(), mask_of(self.project)
        made = ledger.current_makings(self.project, self.step.name, keys)
        untold, found = self._untold(), list[Outcome]()
        for key in keys:
            if key in made and (key in untold or key not in self._why):
                number, version, reason = made[key]
                found.append(Outcome((self.step.name, key), "hit", seen.text(reason), number, version))
            elif not self.stale_only:
                why = Words(self._why.get(key, Words("never made")), "; ", Plain(self.step.way_to(key)))
                found.append(Outcome((self.step.name, key), "blocked", seen.mask_words(why)))
        return found

    def _made(self, keys: Sequence[str], began: ConcurrentRuns) -> Iterator[list[Outcome]]:
        preparation = prepare(self.project, self.step, keys, self.params)
        yield self._blocked(preparation)
        calls = list(preparation.ready.values())
        while calls:
            found = self._made_before(calls, began)
            yield self._reused(calls, found)
            calls = [call for call in calls if call.key not in found]
            # What was looked up above may have changed by now: `_claimed` looks again under the lease (0020).
            mine = leases.take(self.project, [(call.key, call.node) for call in calls], self.run_id)
            moved = yield from self._claimed([call for call in calls if call.key in mine], began)
            calls = [call for call in calls if call.key not in mine]
            if calls:  # another process works on these: look again when it may be done
                yield (recovered := self._left_behind(calls))
                done = {one.node for one in recovered}
                calls = [call for call in calls if call.node not in done]
                if not self.waits:
                    return
                time.sleep(WAIT_S)
            calls += moved

    def _claimed(
        self, calls: Sequence[PreparedCall], began: ConcurrentRuns
    ) -> Generator[list[Outcome], None, list[PreparedCall]]:
        """Run the calls whose leases are ours. Returns calls that changed meanwhile, because an input was made anew."""
        free = {call.key for call in calls}
        moved: list[PreparedCall] = []
        try:
            run = yield from self._looked_at_again(calls, began, moved)
            free -= {call.key for call in run}
        finally:
            if free:
                leases.give_back_ours(self.project, free)
        yield from self._run(run)
        return moved

    def _looked_at_again(
        self, calls: Sequence[PreparedCall], began: ConcurrentRuns, moved: list[PreparedCall]
    ) -> Generator[list[Outcome], None, list[PreparedCall]]:
        """Which of these are still to be run. Before their leases were ours, another run may have made or tried them,
        or made an input anew; from now on, none can."""
        if not calls:
            return []
        now = prepare(self.project, self.step, [call.node[1] for call in calls], self.params)
        yield self._blocked(now)
        held = {call.key for call in calls}
        moved += [call for call in now.ready.values() if call.key not in held]
        run = [call for call in now.ready.values() if call.key in held]
        found = cache_hits(self.project, run)
        if self.again:
            yield from self._repeated([call for call in run if call.key in found], found, began)
        else:
            yield self._reused(run, found)
        run = [call for call in run if call.key not in found]
        tried = began.failed(self.project, [call.key for call in run])
        yield self._failed(tried.values())
        run = [call for call in run if call.key not in tried]
        yield (recovered := self._recovered(run))
        done = {one.node for one in recovered}
        return [call for call in run if call.node not in done]

    def _made_before(self, calls: Sequence[PreparedCall], began: ConcurrentRuns) -> dict[str, Hit]:
        """Calls with an existing result. With `again`, only results that another run made meanwhile."""
        found = cache_hits(self.project, calls)
        return {key: hit for key, hit in found.items() if not self.again or hit.materialization > began.made}

    def _repeated(
        self, calls: Sequence[PreparedCall], found: Mapping[str, Hit], began: ConcurrentRuns
    ) -> Iterator[list[Outcome]]:
        """Repeat calls beside their results, compare, and record. The node keeps its first result unless it is to be
        replaced."""
        yield self._reused([call for call in calls if found[call.key].materialization > began.made], found)
        old = [call for call in calls if found[call.key].materialization <= began.made]
        if not old:
            return
        runner = self.runner or LocalRunner(self.project)
        with repeated_calls(self.project, self._step_calls(old)) as (store, listed):
            for results in runner.run(listed):
                ended = list(compare_results(self.project, store, results, found, self.replaces))
                made = [one for one in ended if isinstance(one, Reproduction)]
                record_again(self.project, made, self.run_id)
                kept = [one for one in made if one.instead is None]
                reused = {one.node: one for one in self._reused([c for c in old if _has(kept, c)], found)}
                reused |= {one.node: one for one in self._record([one.instead for one in made if one.instead])}
                logs = {(result.node[0], result.node[1]): result.log for result in results}
                yield [
                    replace(reused[one.node], why=one.words, same=not one.differs, log=logs[one.node]) for one in made
                ]
                yield [_not_again(one) for one in ended if isinstance(one, StepResult)]

    def _left_behind(self, calls: Sequence[PreparedCall]) -> list[Outcome]:
        """Of calls that others work on: published already by a worker that outlives its run."""
        left = leases.abandoned_keys(self.project, [call.key for call in calls])
        return self._recovered([call for call in calls if call.key in left])

    def _asked(self) -> list[str]:
        listed = evaluate(self.project).listed(self.step.name, self.keys)
        stale = {verdict.partition: verdict for verdict in listed}
        self._why = {partition: verdict.sentence for partition, verdict in stale.items()}
        if not self.stale_only:
            return list(self.keys)
        excluded = {key for key, verdict in stale.items() if verdict.state == "excluded"}
        wanted = (stale.keys() | self._untold()) - excluded
        if self.among is not None:
            wanted &= set(self.among)
        return [key for key in self.keys if key in wanted]

    def _untold(self) -> set[str]:
        """Partitions of which Dagster is to be told."""
        unreported = ledger.unreported_makings(self.project) if self.tells else []
        return {node[1] for node, _ in unreported if node[0] == self.step.name}

    def _reused(self, calls: Iterable[PreparedCall], found: Mapping[str, Hit]) -> list[Outcome]:
        same = {call.node: found[call.key] for call in calls if call.key in found}
        if not same:
            return []
        ledger.reuse(self.project, same)
        return [
            Outcome(node, "hit", f"same call as in {hit.made_at}", hit.materialization, hit.data_version)
            for node, hit in same.items()
        ]

    def _recovered(self, calls: Iterable[PreparedCall]) -> list[Outcome]:
        """Published by a process that died before it was recorded: record it now."""
        found = {call.key: self.project.store.find(*call.node, call.key) for call in calls}
        whole = {key: one for key, one in found.items() if one is not None and self._is_whole(one)}
        if not whole:
            return []
        jobs.take_records(self.project, whole)
        return self._record(list(whole.values()), "published by a run that ended before recording it")

    def _is_whole(self, one: PublishedArtifact) -> bool:
        # Whole: nobody recorded signatures of these files, so there is nothing that a stat could be compared with.
        return not self.project.store.check(one.folder, one.manifest, None, deep=True)

    def _record(self, published: Sequence[PublishedArtifact], why: str | None = None) -> list[Outcome]:
        ids, seen = ledger.record(self.project, published), mask_of(self.project)
        versions = {one.folder: one.data_version for one in published}
        outcomes = []
        for one, (node, number) in zip(published, ids.items(), strict=True):
            said = why or seen.mask_words(self._why.get(node[1], ASKED))
            state = "hit" if why else "made"
            outcomes.append(Outcome(node, state, said, number, versions[one.folder]))
        return outcomes

    def _run(self, calls: Sequence[PreparedCall]) -> Iterator[list[Outcome]]:
        if not calls:
            return
        if self.step.level == "cohort":
            # Before the first call: an artifact names the version of the rule that chose its members (0016).
            rule_history.record_rules(self.project)
        keep_code_of(self.project, self.step.name)
        self.project.store.sweep(FOREIGN_S)
        forget(self.project.work, FORGET_S)
        runner = self.runner or LocalRunner(self.project)
        left, ended = {call.key for call in calls}, set[str]()
        try:
            for results in runner.run(self._step_calls(calls)):
                if not results:
                    yield []
                    continue
                ended = {result.key for result in results}
                settled = self._settle(results)
                left -= ended
                yield settled
        finally:
            if left:  # the run is being ended, or could not record: what nobody works on is free again
                with self.project.catalog.write() as writer:
                    # `ended`: their workers are done, and only the recording failed. Others may still be at work in a
                    # worker that outlives the run, and keep their lease while it lives.
                    leases.give_back(writer, ended & left)
                    leases.give_back_idle(self.project, writer, left - ended)

    def _step_calls(self, calls: Sequence[PreparedCall]) -> list[StepCall]:
        """The calls to run. Their recorded reasons name nobody hidden."""
        seen = mask_of(self.project)
        why = {call.node[1]: seen.mask_words(self._why.get(call.node[1], ASKED)) for call in calls}
        return _step_calls(self.project, self.step, calls, why, self.run_id)

    def _blocked(self, found: Preparation) -> list[Outcome]:
        """The outcomes of blocked nodes. A person who asks for a hidden entity's node learns why it is hidden."""
        seen = mask_of(self.project) if found.blocked else UNMASKED
        listed = [((self.step.name, key), why) for key, why in found.blocked.items()]
        return [
            Outcome(node, "blocked", (UNMASKED if seen.hides(node) else seen).mask_words(why)) for node, why in listed
        ]

    def _settle(self, results: Sequence[StepResult]) -> list[Outcome]:
        published, failed = [], []
        for result in results:
            node = (result.node[0], result.node[1])
            # The store decides, not the result: a compute node wrote that, and may have written into a disk that is
            # gone since.
            one = self.project.store.find(*node, result.key) if result.error is None else None
            if one is not None:
                published.append(one)
            else:
                lost = f"the step ended well, but its artifact is not in the store{self.project.store.loss}"
                error = result.error or lost
                failed.append(ledger.FailedCall(node, result.key, error, result.log))
        logs = {(result.node[0], result.node[1]): result.log for result in results}
        outcomes = [replace(one, log=logs[one.node]) for one in self._record(published)] if published else []
        if failed:
            ledger.record_failures(self.project, failed, self.run_id)
        return outcomes + self._failed(failed)

    def _failed(self, some: Collection[ledger.FailedCall]) -> list[Outcome]:
        """The errors of failed calls, without lines that name somebody hidden."""
        seen = mask_of(self.project) if some else UNMASKED
        said = [(one, "\n".join(seen.lines(one.error.splitlines())) if seen else one.error) for one in some]
        return [Outcome(one.node, "failed", error, log=one.log) for one, error in said]


def keep_code_of(project: Project, step: str) -> None:
    """Archive the code of a step, unless it names a purged person: the project's own files must not."""
    code = project.codes[step]
    with project.catalog.read() as connection:
        purged = connection.execute(select(entity.c.id).where(entity.c.purged.is_not(None))).scalars().all()
    if not purged or not id_pattern(purged).search(json.dumps(code.content, ensure_ascii=False)):
        keep_code(project.store.root, code)


def members_with_roles(step: Step, call: PreparedCall) -> list[list[str]]:
    """Level, ID and role of each member, as the call's edges have them."""
    said = [one for one in call.edges if one.input == f"{ROLE}{step.role}"]
    roles = {(one.asset, one.partition): role_text(one.version) for one in said}
    return [[level, who, roles.get((level, who), "member")] for level, who in call.members]


def _has(made: Sequence[Reproduction], call: PreparedCall) -> bool:
    return any(one.node == call.node for one in made)


def _not_again(result: StepResult) -> Outcome:
    """The outcome of a failed repetition: the existing result was not touched, so no failure is recorded."""
    said = f"could not be made again, and the existing result was kept: {result.error}"
    return Outcome((result.node[0], result.node[1]), "failed", said, log=result.log)


def _step_calls(
    project: Project, step: Step, calls: Sequence[PreparedCall], why: Mapping[str, str], run_id: str | None
) -> list[StepCall]:
    """StepCalls with real paths: a few statements for all of them."""
    files = _files(project, step, [call.node[1] for call in calls])
    references = {key: str(path) for key, path in sorted(project.references()) if key in step.references}
    watched = _references(project, step)
    outputs = _upstream_outputs(project, calls)
    git = commit_of(step.source)
    found = []
    for call in calls:
        mine = files.get(call.node[1], {})
        inputs: dict[str, list[tuple[str, str]]] = {name: [] for name in step.inputs}
        watch = [*mine.values(), *watched]
        for edge in call.edges:
            if edge.input in inputs:
                folder = call.folders[(edge.asset, edge.partition)]
                inputs[edge.input].append((edge.partition, str(project.store.root / folder)))
                # Inputs made by others are watched like raw files: a store is read-only for accidents, not for
                # everybody (0018).
                watch += outputs.get(folder, [])
        found.append(
            StepCall(
                attempt=secrets.token_hex(8),
                node=call.node,
                level=step.level,
                key=call.key,
                source=str(step.source),
                recipe={
                    "step": call.recipe.step,
                    "code": call.recipe.code,
                    "parameters": dict(call.recipe.parameters),
                    "environment": dict(call.recipe.environment),
                },
                files={role: seen[0] for role, seen in sorted(mine.items())},
                references=references,
                inputs=inputs,
                edges=[list(edge) for edge in call.edges],
                members=members_with_roles(step, call),
                watch=watch,
                reads_first=project.settings.run.verify_inputs == "bytes",
                reason=why.get(call.node[1], "asked for"),
                run_id=run_id,
                rule=project.settings.cohorts[call.node[1]].version if step.level == "cohort" else None,
                actor=project.catalog.actor,
                git=git,
                sandbox=project.settings.run.sandbox,
                trace=project.settings.run.trace,
            )
        )
    return found


Watched = tuple[str, int, int, int, int, str]
# No file has it: the call reads the reference, and refuses it where its digest is not the one on record.
_NEVER = Signature(-1, -1, -1, -1)


def _watched(place: str, row: Any) -> Watched:
    """A file with the signature that its row records."""
    return place, row.size, row.mtime_ns, row.inode, row.ctime_ns, row.digest


def _files(project: Project, step: Step, keys: Sequence[str]) -> dict[str, dict[str, Watched]]:
    """The raw files of these entities by role, with their signatures and digests."""
    if not step.files:
        return {}
    found: dict[str, dict[str, Watched]] = {}
    with project.catalog.read() as connection:
        rows = connection.execute(
            select(entity.c.id, file)
            .join(file, file.c.entity == entity.c.seq)
            .where(
                entity.c.level == step.level,
                in_keys(entity.c.id, keys),
                file.c.role.in_(step.files),
            )
        )
        for row in rows:
            place = str(project.absolute(row.path))
            found.setdefault(row.id, {})[row.role] = _watched(place, row)
    return found


def _references(project: Project, step: Step) -> list[Watched]:
    """The references as last seen. A changed file matches nothing, so its calls refuse to run."""
    paths = {key: path for key, path in project.references() if key in step.references}
    with project.catalog.read() as connection:
        known = {row.key: row.digest for row in connection.execute(select(reference.c.key, reference.c.digest))}
    now, _ = try_seen_contents(dict(_signatures(paths.values())), Memory(project))
    seen = {key: now[path][1] for key, path in paths.items() if path in now and now[path][0] == known.get(key)}
    watched = ((str(path), seen.get(key, _NEVER), known.get(key, "")) for key, path in paths.items())
    return [(place, one.size, one.mtime_ns, one.inode, one.ctime_ns, digest) for place, one, digest in watched]


def _signatures(paths: Iterable[Path]) -> Iterator[tuple[Path, Signature]]:
    """Of those that are there."""
    for path in paths:
        with suppress(OSError):
            yield path, signature_at(path)


def _upstream_outputs(project: Project, calls: Sequence[PreparedCall]) -> dict[str, list[Watched]]:
    """The files of each folder as its last making left them: the same call made twice has one folder."""
    folders = {folder for call in calls for folder in call.folders.values()}
    found: dict[str, dict[str, Watched]] = {}
    with project.catalog.read() as connection:
        rows = connection.execute(
            select(materialization.c.folder, output)
            .join(output, output.c.materialization == materialization.c.id)
            .where(in_keys(materialization.c.folder, folders))
            .order_by(materialization.c.id)
        )
        for row in rows:
            place = str(Path(project.store.root, row.folder, row.file))
            found.setdefault(row.folder, {})[row.file] = _watched(place, row)
    return {folder: list(files.values()) for folder, files in found.items()}
