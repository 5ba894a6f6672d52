"""④ Making nodes of one step: reuse what is there, run the rest, record each as it ends. A key is executed once."""

import json
import secrets
import time
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from sqlalchemy import select

from ctcore import leases, ledger, rulebook
from ctcore.catalog.engine import in_keys
from ctcore.catalog.tables import entity, file, materialization, output, reference
from ctcore.code.kept import keep
from ctcore.commits import commit_of
from ctcore.digest import Signature, digest_remembered
from ctcore.execute import StepCall, StepResult, forget
from ctcore.files import Memory
from ctcore.inputs import ROLE
from ctcore.local import LocalRunner
from ctcore.looking import refuse_without_store
from ctcore.meanwhile import Meanwhile
from ctcore.memo import Hit, Preparation, Prepared, hits, prepare
from ctcore.project import Project
from ctcore.purging.inside import any_of
from ctcore.reasons import Node, role_text
from ctcore.reproduction import Again, beside, compared
from ctcore.reproduction import record as record_again
from ctcore.slurm import jobs
from ctcore.staleness import evaluate
from ctcore.step import Step
from ctcore.store import Published
from ctcore.veil import UNVEILED, veil
from ctcore.words import Words

WAIT_S = 0.5
FOREIGN_S = 7 * 24 * 3600  # staged on another host: whether its process lives cannot be seen from here
FORGET_S = 7 * 24 * 3600
ASKED = Words("asked for")


class Runner(Protocol):
    """Where calls run: this machine, or a cluster."""

    def run(self, calls: Sequence[StepCall]) -> Iterator[list[StepResult]]: ...


@dataclass(frozen=True)
class Outcome:
    """What became of one node: made now, found made already (`hit`), failed, or blocked by a missing input.

    `why` is the reason for making it, for reusing it, or for not being able to, as the veil has told it.
    """

    node: Node
    state: Literal["made", "hit", "failed", "blocked"]
    why: str
    materialization: int | None = None
    data_version: str | None = None
    log: str | None = None
    same: bool | None = None  # of what was made again: whether it has the same bytes


@dataclass
class Making:
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
    _why: dict[str, Words] = field(default_factory=dict)

    def outcomes(self) -> Iterator[Outcome]:
        """Make them, yielding each as it is settled."""
        for some in self.settled():
            yield from some

    def settled(self) -> Iterator[list[Outcome]]:
        """Make them, yielding those that were settled since the last time: they can be told of at once.

        With `stale_only`, what is fresh is passed over, unless Dagster was not told of it. With `again`, no earlier
        making spares a call; it is kept all the same, and whether it could be reproduced is on record.
        """
        refuse_without_store(self.project)
        self.project.look_at_tools()
        began = Meanwhile.from_now(self.project)
        todo = self._asked()
        preparation = prepare(self.project, self.step, todo, self.params)
        yield self._blocked(preparation)
        calls = list(preparation.ready.values())
        while calls:
            found = self._made_before(calls, began)
            yield self._reused(calls, found)
            calls = [call for call in calls if call.key not in found]
            mine = leases.take(self.project, [(call.key, call.node) for call in calls], self.run_id)
            moved = yield from self._claimed([call for call in calls if call.key in mine], began)
            calls = [call for call in calls if call.key not in mine]
            if calls:  # another process works on these: look again when it may be done
                yield (recovered := self._left_behind(calls))
                done = {one.node for one in recovered}
                calls = [call for call in calls if call.node not in done]
                time.sleep(WAIT_S)
            calls += moved

    def _claimed(self, calls: Sequence[Prepared], began: Meanwhile) -> Generator[list[Outcome], None, list[Prepared]]:
        """Run calls whose leases are ours. Gives those that are other calls by now: an input was made anew."""
        free = {call.key for call in calls}
        moved: list[Prepared] = []
        try:
            run = yield from self._looked_at_again(calls, began, moved)
            free -= {call.key for call in run}
        finally:
            if free:
                leases.give_back_ours(self.project, free)
        yield from self._run(run)
        return moved

    def _looked_at_again(
        self, calls: Sequence[Prepared], began: Meanwhile, moved: list[Prepared]
    ) -> Generator[list[Outcome], None, list[Prepared]]:
        """Which of these are still to be run. Before their leases were ours, another run may have made or tried them,
        or made an input anew; from now on, none can."""
        if not calls:
            return []
        now = prepare(self.project, self.step, [call.node[1] for call in calls], self.params)
        yield self._blocked(now)
        held = {call.key for call in calls}
        moved += [call for call in now.ready.values() if call.key not in held]
        run = [call for call in now.ready.values() if call.key in held]
        found = hits(self.project, run)
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

    def _made_before(self, calls: Sequence[Prepared], began: Meanwhile) -> dict[str, Hit]:
        """Calls that need not be made. If they are to be made again, those which another run made meanwhile."""
        found = hits(self.project, calls)
        return {key: hit for key, hit in found.items() if not self.again or hit.materialization > began.made}

    def _repeated(
        self, calls: Sequence[Prepared], found: Mapping[str, Hit], began: Meanwhile
    ) -> Iterator[list[Outcome]]:
        """Made again beside what is there, compared, and written down; the node is what it was made to be first, unless
        that is to be replaced."""
        yield self._reused([call for call in calls if found[call.key].materialization > began.made], found)
        old = [call for call in calls if found[call.key].materialization <= began.made]
        if not old:
            return
        runner = self.runner or LocalRunner(self.project)
        with beside(self.project, self._step_calls(old)) as (store, listed):
            for results in runner.run(listed):
                ended = list(compared(self.project, store, results, found, self.replaces))
                made = [one for one in ended if isinstance(one, Again)]
                record_again(self.project, made, self.run_id)
                kept = [one for one in made if one.instead is None]
                reused = {one.node: one for one in self._reused([c for c in old if _has(kept, c)], found)}
                reused |= {one.node: one for one in self._record([one.instead for one in made if one.instead])}
                logs = {(result.node[0], result.node[1]): result.log for result in results}
                yield [
                    replace(reused[one.node], why=one.words, same=not one.differs, log=logs[one.node]) for one in made
                ]
                yield [_not_again(one) for one in ended if isinstance(one, StepResult)]

    def _left_behind(self, calls: Sequence[Prepared]) -> list[Outcome]:
        """Of calls that others work on: published already by a worker that outlives its run."""
        left = leases.left_behind(self.project, [call.key for call in calls])
        return self._recovered([call for call in calls if call.key in left])

    def _asked(self) -> list[str]:
        listed = evaluate(self.project).listed(self.step.name, self.keys)
        stale = {verdict.partition: verdict for verdict in listed}
        self._why = {partition: verdict.sentence for partition, verdict in stale.items()}
        if not self.stale_only:
            return list(self.keys)
        unreported = ledger.unreported(self.project) if self.tells else []
        untold = {node[1] for node, _ in unreported if node[0] == self.step.name}
        excluded = {key for key, verdict in stale.items() if verdict.state == "excluded"}
        wanted = (stale.keys() | untold) - excluded
        if self.among is not None:
            wanted &= set(self.among)
        return [key for key in self.keys if key in wanted]

    def _reused(self, calls: Iterable[Prepared], found: Mapping[str, Hit]) -> list[Outcome]:
        same = {call.node: found[call.key] for call in calls if call.key in found}
        if not same:
            return []
        ledger.reuse(self.project, same)
        return [
            Outcome(node, "hit", f"same call as in {hit.made_at}", hit.materialization, hit.data_version)
            for node, hit in same.items()
        ]

    def _recovered(self, calls: Iterable[Prepared]) -> list[Outcome]:
        """Published by a process that died before it was recorded: record it now."""
        found = {call.key: self.project.store.find(*call.node, call.key) for call in calls}
        whole = {key: one for key, one in found.items() if one is not None and self._is_whole(one)}
        if not whole:
            return []
        jobs.take_records(self.project, whole)
        return self._record(list(whole.values()), "published by a run that ended before recording it")

    def _is_whole(self, one: Published) -> bool:
        return not self.project.store.check(one.folder, one.manifest, None, deep=True)

    def _record(self, published: Sequence[Published], why: str | None = None) -> list[Outcome]:
        ids, seen = ledger.record(self.project, published), veil(self.project)
        versions = {one.folder: one.data_version for one in published}
        outcomes = []
        for one, (node, number) in zip(published, ids.items(), strict=True):
            said = why or seen.told(self._why.get(node[1], ASKED))
            state = "hit" if why else "made"
            outcomes.append(Outcome(node, state, said, number, versions[one.folder]))
        return outcomes

    def _run(self, calls: Sequence[Prepared]) -> Iterator[list[Outcome]]:
        if not calls:
            return
        if self.step.level == "cohort":
            rulebook.note(self.project)
        self._keep_code()
        self.project.store.sweep(FOREIGN_S)
        forget(self.project.work, FORGET_S)
        runner = self.runner or LocalRunner(self.project)
        left, ended = {call.key for call in calls}, set[str]()
        try:
            for results in runner.run(self._step_calls(calls)):
                ended = {result.key for result in results}
                settled = self._settle(results)
                left -= ended
                yield settled
        finally:
            if left:  # the run is being ended, or could not record: what nobody works on is free again
                with self.project.catalog.write() as writer:
                    leases.give_back(writer, ended & left)
                    leases.give_back_idle(self.project, writer, left - ended)

    def _step_calls(self, calls: Sequence[Prepared]) -> list[StepCall]:
        """What is written down of why they are made names nobody who is hidden."""
        seen = veil(self.project)
        why = {call.node[1]: seen.told(self._why.get(call.node[1], ASKED)) for call in calls}
        return _step_calls(self.project, self.step, calls, why, self.run_id)

    def _blocked(self, found: Preparation) -> list[Outcome]:
        """Whoever asks for the node of somebody hidden is told what is the matter with them."""
        seen = veil(self.project) if found.blocked else UNVEILED
        listed = [((self.step.name, key), why) for key, why in found.blocked.items()]
        return [Outcome(node, "blocked", (UNVEILED if seen.hides(node) else seen).told(why)) for node, why in listed]

    def _keep_code(self) -> None:
        """Unless it names somebody who was purged: what the project keeps of its own must not."""
        code = self.project.codes[self.step.name]
        with self.project.catalog.read() as connection:
            purged = connection.execute(select(entity.c.id).where(entity.c.purged.is_not(None))).scalars().all()
        if not purged or not any_of(purged).search(json.dumps(code.content, ensure_ascii=False)):
            keep(self.project.store.root, code)

    def _settle(self, results: Sequence[StepResult]) -> list[Outcome]:
        published, failed = [], []
        for result in results:
            node = (result.node[0], result.node[1])
            one = self.project.store.find(*node, result.key) if result.error is None else None
            if one is not None:
                published.append(one)
            else:
                error = result.error or "the step ended well, but its artifact is not in the store"
                failed.append(ledger.Failed(node, result.key, error, result.log))
        logs = {(result.node[0], result.node[1]): result.log for result in results}
        outcomes = [replace(one, log=logs[one.node]) for one in self._record(published)] if published else []
        if failed:
            ledger.record_failures(self.project, failed, self.run_id)
        return outcomes + self._failed(failed)

    def _failed(self, some: Collection[ledger.Failed]) -> list[Outcome]:
        """What calls said when they failed, without the lines that name somebody hidden."""
        seen = veil(self.project) if some else UNVEILED
        said = [(one, "\n".join(seen.lines(one.error.splitlines())) if seen else one.error) for one in some]
        return [Outcome(one.node, "failed", error, log=one.log) for one, error in said]


def _has(made: Sequence[Again], call: Prepared) -> bool:
    return any(one.node == call.node for one in made)


def _not_again(result: StepResult) -> Outcome:
    """What is there was not touched: no failure of the node is on record."""
    said = f"could not be made again, and what is there was kept: {result.error}"
    return Outcome((result.node[0], result.node[1]), "failed", said, log=result.log)


def _step_calls(
    project: Project, step: Step, calls: Sequence[Prepared], why: Mapping[str, str], run_id: str | None
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
                members=_members(step, call),
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


def _members(step: Step, call: Prepared) -> list[list[str]]:
    """Level, ID and role of each member, as the sheet says it now."""
    said = [one for one in call.edges if one.input == f"{ROLE}{step.role}"]
    roles = {(one.asset, one.partition): role_text(one.version) for one in said}
    return [[level, who, roles.get((level, who), "member")] for level, who in call.members]


Watched = tuple[str, int, int, int, int, str]
_NEVER = Signature(-1, -1, -1, -1)


def _watched(place: str, row: Any) -> Watched:
    """A file as its row says it was last seen."""
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
    """The references as they were looked at. One that is another file by now matches nothing: its calls refuse."""
    paths = {key: path for key, path in project.references() if key in step.references}
    with project.catalog.read() as connection:
        known = {row.key: row.digest for row in connection.execute(select(reference.c.key, reference.c.digest))}
    now = digest_remembered([path for path in paths.values() if path.is_file()], Memory(project))
    seen = {key: now[path][1] for key, path in paths.items() if path in now and now[path][0] == known.get(key)}
    watched = ((str(path), seen.get(key, _NEVER), known.get(key, "")) for key, path in paths.items())
    return [(place, one.size, one.mtime_ns, one.inode, one.ctime_ns, digest) for place, one, digest in watched]


def _upstream_outputs(project: Project, calls: Sequence[Prepared]) -> dict[str, list[Watched]]:
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
