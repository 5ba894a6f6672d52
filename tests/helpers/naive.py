"""What a verdict is, said as plainly as Python can: a model of the world, and the definition in a few lines.

Knows nothing of the catalog or of how verdicts are evaluated. Facts change only when the project is told of them;
what is declared is handed in, because a process that runs on holds what was declared when it began.
"""

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ctcore.inputs.key import Edge, key_of
from ctcore.model.masked_text import Plain, Words
from ctcore.model.node import Node, name_of
from ctcore.model.reasons import Reason, Verdict, change_text, differences, reference_change, role_change
from ctcore.steps.graph import Recipe
from ctcore.store.digest import canonical_json

LEVELS = ("patient", "specimen", "assay")
USES = ("research", "commerce", "commerce,research")  # what a limited consent may name
Inputs = dict[tuple[str, str, str], str]


class Plan(NamedTuple):
    """A declared step."""

    name: str
    level: str
    inputs: dict[str, str]
    files: tuple[str, ...]
    references: tuple[str, ...]
    columns: tuple[str, ...]
    role: str | None = None
    use: str | None = None

    @property
    def rank(self) -> int:
        return (*LEVELS, "cohort").index(self.level)


@dataclass(frozen=True)
class Declared:
    """What a process holds in memory: the steps in their order, the rules of the cohorts, the recipes of today."""

    steps: Mapping[str, Plan]
    cohorts: Mapping[str, Mapping[str, Any]]
    recipes: Mapping[str, Recipe]
    consent_required: bool = False


@dataclass
class Made:
    """One making: how, and from what."""

    node: Node
    key: str
    recipe: Recipe
    inputs: Inputs
    version: str


@dataclass
class Facts:
    """What the project was told, in the order of registration."""

    parent: dict[tuple[str, str], str | None] = field(default_factory=dict)
    attributes: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    files: dict[tuple[str, str, str], str] = field(default_factory=dict)  # role, level, ID → digest
    references: dict[str, str] = field(default_factory=dict)  # key → "version digest"
    ledger: dict[Node, Made] = field(default_factory=dict)
    damage: dict[Node, dict[str, str]] = field(default_factory=dict)
    failing: dict[Node, str] = field(default_factory=dict)  # the key of the last call, where it failed
    running: set[Node] = field(default_factory=set)
    events: dict[int, tuple[str, str, str | None]] = field(default_factory=dict)  # of whom, and for which step only
    consent: dict[str, str] = field(default_factory=dict)  # a status; of a limited one its uses, with commas
    past: Mapping[int, Made] = field(default_factory=dict)  # every making there ever was
    purged: dict[Node, str] = field(default_factory=dict)  # nodes whose last making is a tombstone, with its words


class Naive:
    """The verdicts on these facts for a process that holds these declarations."""

    def __init__(self, facts: Facts, declared: Declared) -> None:
        self.facts, self.declared = facts, declared
        self.found: dict[Node, Verdict] = {}
        self.totals: dict[str, int] = {}
        for step in declared.steps.values():
            nodes = self.nodes(step)
            self.totals[step.name] = len(nodes)
            for who in nodes:
                if reasons := [*self.direct(step, who), *self.upstream(step, who)]:
                    node = (step.name, who)
                    self.found[node] = Verdict(*node, self.state(step, who, reasons[0]), tuple(reasons))

    # Who belongs to what

    def ids(self, level: str) -> list[str]:
        return [who for at, who in self.facts.parent if at == level]

    def climb(self, level: str, who: str, to: str) -> str:
        while level != to:
            who, level = self.facts.parent[level, who] or "", LEVELS[LEVELS.index(level) - 1]
        return who

    def related(self, level: str, who: str, other: str) -> list[str]:
        """The ancestor, the entity itself, or the descendants."""
        if LEVELS.index(other) <= LEVELS.index(level):
            return [self.climb(level, who, other)]
        return [one for one in self.ids(other) if self.climb(other, one, level) == who]

    def value(self, level: str, who: str, column: str) -> Any:
        at, _, name = column.partition(".")
        holder = self.climb(level, who, at)
        return holder if name == "id" else self.facts.attributes[at, holder].get(name)

    def bars(self, level: str, who: str, step: str | None = None) -> int:
        """How many things speak against using somebody, for a step or for all of them."""
        found = 0
        for at in LEVELS[: LEVELS.index(level) + 1]:
            whose = (at, self.climb(level, who, at))
            found += sum(one[:2] == whose and one[2] in (None, step) for one in self.facts.events.values())
            found += at == "patient" and not self.consents(whose[1], step)
        return found

    def consents(self, patient: str, step: str | None) -> bool:
        """For what a step is for; None: for anything at all."""
        said = self.facts.consent.get(patient, "none" if self.declared.consent_required else "full")
        if said not in USES:
            return said == "full"
        return step is None or self.declared.steps[step].use in said.split(",")

    def agrees(self, step: Plan, who: str) -> bool:
        """The patient of a node consents to what its step is for."""
        return self.consents(self.climb(step.level, who, "patient"), step.name)

    def can(self, step: Plan, who: str) -> bool:
        """It has what the step needs."""
        return all((role, step.level, who) in self.facts.files for role in step.files) and all(
            any(self.given(step, up, one) for one in self.related(step.level, who, up.level))
            for up in (self.declared.steps[name] for name in step.inputs.values())
        )

    def given(self, step: Plan, up: Plan, who: str) -> bool:
        """It is a node of `up`, and may be used for the step."""
        return self.can(up, who) and not self.bars(up.level, who, up.name) and not self.bars(up.level, who, step.name)

    def fits(self, cohort: str, level: str, who: str) -> bool:
        """Somebody of the deepest level of the rule, above it or below, satisfies all of it."""
        rules = self.declared.cohorts[cohort]
        deepest = max([*(column.partition(".")[0] for column in rules), "patient"], key=LEVELS.index)
        return any(
            not self.bars(deepest, one)
            and all(self.value(deepest, one, column) == wanted for column, wanted in rules.items())
            for one in self.related(level, who, deepest)
        )

    def nodes(self, step: Plan) -> list[str]:
        if step.level == "cohort":
            return [cohort for cohort in self.declared.cohorts if not list(self.held(step, cohort))]
        return [
            who for who in self.ids(step.level) if self.can(step, who) and not self.bars(step.level, who, step.name)
        ]

    def excluded(self, step: Plan) -> set[str]:
        every = self.declared.cohorts if step.level == "cohort" else self.ids(step.level)
        return set(every) - set(self.nodes(step))

    def of_cohorts(self, step: Plan) -> list[Plan]:
        """The results of the same cohort that it takes."""
        ups = (self.declared.steps[name] for name in dict.fromkeys(step.inputs.values()))
        return [up for up in ups if step.level == up.level == "cohort"]

    def held(self, step: Plan, cohort: str) -> Iterator[tuple[Node, int]]:
        """What of a cohort it cannot take today, and how many are in that who do not consent to it."""
        for up in self.of_cohorts(step):
            barred = {one for one in self.inside(up, cohort) if not self.consents(one, step.name)}
            if barred:
                yield (up.name, cohort), len(barred)
            else:
                yield from self.held(up, cohort)

    def inside(self, step: Plan, cohort: str) -> set[str]:
        """The patients that a cohort's result would have in it, through all that it is made from."""
        found: set[str] = set()
        for up in (self.declared.steps[name] for name in step.inputs.values()):
            if up.level == "cohort":
                found |= self.inside(up, cohort)
            else:
                found |= {self.climb(up.level, one, "patient") for one in self.members(step, cohort, up)}
        return found

    def spoilt(self, made: Made, step: Plan) -> bool:
        """Whether somebody is inside a making, however far, who does not consent to what a step is for."""
        return any(self._spoils(step, *source, version) for (_, *source), version in made.inputs.items())

    def _spoils(self, step: Plan, asset: str, who: str, version: str) -> bool:
        level = self.declared.steps[asset].level if asset in self.declared.steps else asset
        if asset == "reference":
            return False
        if level == "cohort" and who not in self.declared.cohorts:
            return True
        if level != "cohort" and not self.consents(self.climb(level, who, "patient"), step.name):
            return True
        if asset in LEVELS:
            return False
        now = self.facts.ledger.get((asset, who))
        return self.spoilt(now, step) if now and now.version == version else (asset, who) in self.ever_spoilt(step)

    def ever_spoilt(self, step: Plan) -> set[Node]:
        """The nodes of which any making had somebody inside who does not."""
        steps = self.declared.steps
        levels = {name: plan.level for name, plan in steps.items()} | {level: level for level in LEVELS}
        found = {
            (asset, who)
            for asset, level in levels.items()
            for who in (self.ids(level) if level in LEVELS else ())
            if not self.consents(self.climb(level, who, "patient"), step.name)
        }
        while more := {
            made.node
            for made in self.facts.past.values()
            if made.node not in found and any((asset, who) in found for _, asset, who in made.inputs)
        }:
            found |= more
        return found

    def members(self, step: Plan, who: str, up: Plan) -> list[str]:
        if up.level == "cohort":
            return [who] if who in self.nodes(up) else []
        if step.level == "cohort":
            return [one for one in self.ids(up.level) if self.given(step, up, one) and self.fits(who, up.level, one)]
        return [one for one in self.related(step.level, who, up.level) if self.given(step, up, one)]

    # What a node would be made from today

    def today(self, step: Plan, who: str) -> dict[tuple[str, str, str], str | None]:
        """None as the version of what is not there yet."""
        facts, now = self.facts, dict[tuple[str, str, str], str | None]()
        for role in step.files:
            now[role, step.level, who] = facts.files[role, step.level, who]
        for name, up in step.inputs.items():
            for one in self.members(step, who, self.declared.steps[up]):
                now[name, up, one] = facts.ledger[up, one].version if (up, one) in facts.ledger else None
        for key in step.references:
            now[f"reference:{key}", "reference", key] = facts.references.get(key)
        for column in step.columns:
            for level, one in self.holders(step, who, column):
                now[column, level, one] = canonical_json(self.value(level, one, column)).decode()
        for level, one in self.holders(step, who, step.role) if step.role else ():
            now[f"role:{step.role}", level, one] = canonical_json(self.value(level, one, step.role or "")).decode()
        return now

    def holders(self, step: Plan, who: str, column: str) -> Iterator[tuple[str, str]]:
        """The node itself for its own and its ancestors' columns; otherwise each member that has such a column."""
        rank = LEVELS.index(column.partition(".")[0])
        if step.level != "cohort" and rank <= step.rank:
            yield step.level, who
            return
        for up in [self.declared.steps[name] for name in step.inputs.values()]:
            if up.level != "cohort" and step.rank != up.rank and rank <= up.rank and self.fans_in(step, up):
                yield from ((up.level, one) for one in self.members(step, who, up))

    def fans_in(self, step: Plan, up: Plan) -> bool:
        return step.level != up.level and (step.level == "cohort" or up.rank > step.rank)

    def key(self, step: Plan, who: str) -> str | None:
        """The identity of today's call; None where it cannot be made."""
        if who not in self.nodes(step):
            return None
        there = [self.facts.ledger[up.name, who] for up in self.of_cohorts(step) if (up.name, who) in self.facts.ledger]
        if any(self.spoilt(made, step) for made in there):
            return None
        now = self.today(step, who)
        edges = [Edge(*place, version) for place, version in now.items() if version is not None]
        return key_of(self.declared.recipes[step.name], (step.name, who), edges) if len(edges) == len(now) else None

    # The definition

    def direct(self, step: Plan, who: str) -> Iterator[Reason]:
        """What it was made with and from, against what it would be made with and from."""
        made = self.facts.ledger.get((step.name, who))
        if made is None:
            yield Reason("missing", Words(Plain(self.facts.purged.get((step.name, who), "never made"))))
            return
        yield from _recipe(made.recipe, self.declared.recipes[step.name])
        now = self.today(step, who)
        for place in sorted({*made.inputs, *now}):
            old, new = made.inputs.get(place), now.get(place)
            if old != new or (place in made.inputs) != (place in now):
                yield from self.difference(step, *place, old, new)
        for file, problem in self.facts.damage.get((step.name, who), {}).items():
            yield Reason("bytes", Words(Plain(f"{file} {problem}")), (step.name, who))

    def difference(
        self, step: Plan, name: str, asset: str, who: str, old: str | None, new: str | None
    ) -> Iterator[Reason]:
        source, up = (asset, who), self.declared.steps.get(step.inputs.get(name, ""))
        if name.startswith("reference:"):
            yield Reason("reference", Words(Plain(reference_change(who, old, new))), source)
        elif name.startswith("role:"):
            if old is not None and new is not None:
                yield Reason("member-role", role_change(source, old, new), source)
        elif "." in name:
            if old is not None and new is not None:
                yield Reason("metadata", Words(Plain(f"{name} of {who} changed")), source)
        elif up is not None and self.fans_in(step, up) and None in (old, new):
            words = Words(Plain(f"{name_of(source)} as {name}"))
            yield Reason("member-added" if old is None else "member-removed", words, source)
        else:
            yield Reason("input", Words(Plain(change_text(f"{name} ({name_of(source)})", old, new))), source)

    def upstream(self, step: Plan, who: str) -> Iterator[Reason]:
        """An input that is not fresh itself, one an input's name: its cause, and the way there."""
        for name, up in step.inputs.items():
            stale = [v for one in self.members(step, who, self.declared.steps[up]) if (v := self.found.get((up, one)))]
            if stale:
                above = stale[0].reasons[0]
                root = above.node if above.kind == "upstream" else stale[0].node
                yield Reason("upstream", Words(Plain(name)), root, (stale[0].node, *above.path))

    def state(self, step: Plan, who: str, first: Reason) -> Any:
        node = (step.name, who)
        if node in self.facts.running:
            return "running"
        if node in self.facts.failing and self.facts.failing[node] == self.key(step, who):
            return "failed"
        return "lost" if node in self.facts.damage else "missing" if first.kind == "missing" else "stale"

    # The same once more, the other way round: for claims that must follow

    def behind(self) -> set[Node]:
        """Every node with an ancestor, however far, that is not fresh of its own."""
        own = {node for node, verdict in self.found.items() if verdict.reasons[0].kind != "upstream"}
        found: set[Node] = set()
        for step in self.declared.steps.values():
            for who in self.nodes(step):
                ups = {(up, one) for up in step.inputs.values() for one in self._of(step, who, up)}
                if ups & (own | found):
                    found.add((step.name, who))
        return found

    def _of(self, step: Plan, who: str, up: str) -> list[str]:
        return self.members(step, who, self.declared.steps[up])


def containing(makings: Mapping[int, Made], own: Collection[tuple[str, str]], levels: Mapping[str, str]) -> set[int]:
    """The makings that have one of these entities inside: of their nodes, from them, or from content that was never
    made without them."""
    takes = {number: {(asset, who) for _, asset, who in made.inputs} for number, made in makings.items()}
    found = {n for n, made in makings.items() if (levels[made.node[0]], made.node[1]) in own or takes[n] & set(own)}
    while True:
        without = {(*made.node, made.version) for number, made in makings.items() if number not in found}
        only = {(*made.node, made.version) for number, made in makings.items() if number in found} - without
        used = {n: {(asset, who, v) for (_, asset, who), v in made.inputs.items()} for n, made in makings.items()}
        more = {number for number, taken in used.items() if taken & only} - found
        if not more:
            return found
        found |= more


def _recipe(used: Recipe, today: Recipe) -> Iterator[Reason]:
    if used.code != today.code:
        yield Reason("code", Words(Plain(change_text(used.step, used.code, today.code))))
    for kind in ("parameters", "environment"):
        old, new = (json.loads(canonical_json(dict(getattr(one, kind)))) for one in (used, today))
        if old != new:
            yield Reason(kind, Words(Plain(differences(old, new))))  # type: ignore[arg-type]
