"""What one `ct run` has to do, step after step, as it is when each step begins; and what it leaves."""

from collections.abc import Iterator, Sequence

from ctcore.governance.masking import mask_of
from ctcore.model.levels import count_text
from ctcore.model.node import Node
from ctcore.model.reasons import Verdict
from ctcore.planning.plan import Scope, group_plan_reasons, nodes_left_alone
from ctcore.project import Project
from ctcore.projects.leases import orphaned_nodes
from ctcore.staleness.verdicts import Verdicts, evaluate

SHOWN = 20


class WorkList:
    """The nodes to make within a scope. `untold` are made, and Dagster does not know of it."""

    def __init__(self, project: Project, asked: Scope, untold: Sequence[Verdict] = ()) -> None:
        self.project = project
        self.asked = asked
        self.untold = untold
        self.ahead: dict[Node, Verdict] = {}  # begun before the turn of their step, and not reported yet
        self.elsewhere = 0  # nodes that another run makes now
        self._left: dict[str, set[str]] = {}
        self._excluded: list[Verdict] = []
        self._others = 0  # that were asked for beside the excluded ones

    def of(self, name: str) -> list[Verdict]:
        """The nodes of a step that are to be made now. Asked once a step, in dependency order."""
        only = self.asked.only
        if only is not None and name not in only:
            return []
        keys = None if only is None else only[name]
        verdicts = evaluate(self.project)
        found = {verdict.partition: verdict for verdict in verdicts.listed(name, keys)}
        is_elsewhere = self.project.steps[name].made_elsewhere
        told = {verdict.partition: verdict for verdict in self.untold if verdict.asset == name}
        if not is_elsewhere:
            found |= {key: one for key, one in told.items() if key not in found}
        found |= {partition: verdict for (asset, partition), verdict in self.ahead.items() if asset == name}
        wanted = [verdict for verdict in found.values() if keys is None or verdict.partition in keys]
        named = None if self.asked.named is None else self.asked.named.get(name, set())
        excluded = [one for one in wanted if one.state == "excluded" and (named is None or one.partition in named)]
        self._excluded += excluded
        self._others += verdicts.totals[name] if named is None else len(named) - len(excluded)
        going = {verdict.node for verdict in wanted if verdict.state == "running"}
        going -= orphaned_nodes(self.project) if going else set()  # whose run has ended: this one waits for them
        self.elsewhere += len(going)
        todo = [one for one in wanted if one.state != "excluded" and one.node not in going]
        left = nodes_left_alone(self.project, self.asked, name, todo, self._left)
        if is_elsewhere:  # all of them are left alone; Dagster is told of what was adopted, be it stale or not
            return [one for key, one in told.items() if keys is None or key in keys]
        return [verdict for verdict in todo if verdict.partition not in left]

    def ready(self) -> list[Verdict]:
        """The nodes of all steps that could be made at once: they wait for nothing, and nobody makes them."""
        only = self.asked.only
        return [
            verdict
            for verdict in evaluate(self.project).unblocked()
            if (only is None or verdict.partition in only.get(verdict.asset, ()))
            and not self.asked.leaves_alone(self.project, verdict.asset)
        ]

    def chain(self, first: Verdict) -> list[str]:
        """The step of a node, and steps below it that can follow in the same run of this one partition.

        Nothing else is stale of them, and all that they are made from is on the chain or was made before. The verdict
        is taken again when each begins: it may be fresh by then.
        """
        steps = self.project.steps
        before = set(steps.order[: steps.order.index(first.asset)])
        found, verdicts = [first.asset], evaluate(self.project)
        if steps[first.asset].made_elsewhere:  # it is only told of, and may be stale afterwards as before
            return found
        for step in steps:
            if step.level == steps[first.asset].level and not set(found).isdisjoint(step.inputs.values()):
                is_due = steps.upstream([step.name]) <= before | {*found, step.name}
                if is_due and self._is_alone(verdicts, step.name, first.partition, found):
                    found.append(step.name)
        return found

    def _is_alone(self, verdicts: Verdicts, name: str, partition: str, chain: Sequence[str]) -> bool:
        """Whether this partition of a step is all that is to be made of it, and waits for the chain only."""
        only = self.asked.only
        if (only is not None and name not in only) or self.asked.leaves_alone(self.project, name):
            return False
        if any(verdict.asset == name for verdict in (*self.untold, *self.ahead.values())):
            return False
        listed = verdicts.listed(name, None if only is None else only[name])
        todo = [verdict for verdict in listed if verdict.state != "excluded"]
        if [verdict.partition for verdict in todo] != [partition] or todo[0].state == "running":
            return False
        return all(reason.path[0][0] in chain for reason in todo[0].reasons if reason.path)

    def is_empty(self) -> bool:
        """Whether no step has anything to do. Nothing is made meanwhile, so that asking all at once is the same."""
        return not any(self.of(step.name) for step in self.project.steps)

    def left_lines(self, is_idle: bool, problems: int) -> Iterator[str]:
        """What was left, and why there was nothing to do where the run was idle. `problems`: of files, seen before."""
        steps = self.project.steps
        adopted = {name: some for name, some in self._left.items() if some and steps[name].made_elsewhere}
        for name, some in adopted.items():
            yield f"{count_text(len(some), 'node')} of {name} left, {steps[name].way_to(min(some))}"
        others = {name: some for name, some in self._left.items() if some and name not in adopted}
        left = sum(map(len, others.values()))
        if any(self.asked.leaves_alone(self.project, name) for name in others):
            yield f'{left} nodes are left alone: [policy] has "never", see `ct plan`'
        elif left:
            yield f"{count_text(left, 'node')} waiting for what is made elsewhere, see `ct plan`"
        if self.elsewhere:
            yield f"left to another run that makes them now: {self.elsewhere} (`ct status`)"
        elif is_idle and self._excluded and not self._others:
            yield f"nothing may run: {count_text(len(self._excluded), 'node')} excluded"
            for group in group_plan_reasons(map(mask_of(self.project).verdict, self._excluded))[:SHOWN]:
                yield f"  {group.example}: {group.words}" + f" ({group.nodes} nodes)" * (group.nodes > 1)
        elif is_idle:
            yield _nothing_text(bool(left or adopted), problems)


def _nothing_text(is_left: bool, problems: int) -> str:
    wanting = f"; {problems} problem{'s' * (problems != 1)} of raw files or references" if problems else ""
    if is_left:
        return f"nothing else to do{wanting}"
    return f"nothing to do{wanting}" if problems else "everything is fresh: nothing to do"
