"""The evaluation against the naive definition, node by node and word by word, on random cohorts and histories.

CT_EXAMPLES sets how many histories are tried.
"""

import os
import random
import tempfile
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from ctcore.integrity.catalog_check import disagreements
from ctcore.model.node import Node
from tests.helpers.exact import (
    IDS,
    REFERENCES,
    REGIONS,
    ROLES,
    VALUES,
    Exact,
    Opened,
    chain,
    outside,
    plans,
    remove,
    rules,
    write,
)
from tests.helpers.naive import USES
from tests.helpers.postgres import Server

EXAMPLES = int(os.environ.get("CT_EXAMPLES", "6"))
STEPS = 12
# SQLAlchemy takes conditions between assays and patients, two levels apart, for none
pytestmark = pytest.mark.filterwarnings("ignore:SELECT statement has a cartesian product")
seeds = st.integers(0, 2**32 - 1)
several = st.integers(1, 2**12 - 1)  # which of some nodes, as bits
moments = st.sampled_from([f"20{year}-01-01T00:00:00.000Z" for year in (26, 25, 38)])  # clocks jump


class History(RuleBasedStateMachine):
    """Everything that can happen to a cohort, and in between questions from several processes."""

    world: Exact | None = None

    @initialize(seed=seeds, steps=st.integers(3, 6), assays=st.integers(1, 5), made=st.booleans())
    def begin(self, seed: int, steps: int, assays: int, made: bool) -> None:
        draw = random.Random(seed)
        root = Path(tempfile.mkdtemp(prefix="ct-exact-"))
        self.world = Exact(root / "exact", plans(draw, steps), rules(draw))
        self.others: list[Opened] = [self.world.now]
        sheet = self.world.sheet
        for specimen in IDS["specimen"]:
            sheet.patient[specimen] = draw.choice(IDS["patient"])
        for assay in IDS["assay"][:assays]:
            sheet.specimen[assay] = draw.choice(IDS["specimen"])
        for column, values in VALUES.items():
            level, _, name = column.partition(".")
            for who in IDS[level]:
                sheet.attributes.setdefault((level, who), {})[name] = draw.choice((None, *values))
        for level, roles in ROLES.items():
            for who in IDS[level]:
                sheet.roles[level, who] = {role for role in roles if draw.random() < 0.8}
        self.world.register(self.world.project)
        self.world.look()
        self.before = self.world.cursor(), self.world.known()
        if made:
            self.make_everything("a", "2026-01-01T00:00:00.000Z")

    @property
    def w(self) -> Exact:
        assert self.world is not None
        return self.world

    def node(self, seed: int) -> Node:
        """Any; also one that has not what its step needs."""
        nodes = [(plan.name, who) for plan in self.w.plans.values() for who in self.w.everybody(plan)]
        return nodes[seed % len(nodes)]

    # What the project is told

    @rule(assay=st.sampled_from(IDS["assay"]), specimen=st.sampled_from(IDS["specimen"]))
    def add_or_move_an_assay(self, assay: str, specimen: str) -> None:
        self.w.sheet.specimen[assay] = specimen
        self.w.register(self.w.project)

    @rule(specimen=st.sampled_from(IDS["specimen"]), patient=st.sampled_from(IDS["patient"]))
    def move_a_specimen(self, specimen: str, patient: str) -> None:
        self.w.sheet.patient[specimen] = patient
        self.w.register(self.w.project)

    @rule(column=st.sampled_from(list(VALUES)), which=st.integers(0, 5), value=st.integers(0, 1))
    def correct_an_attribute(self, column: str, which: int, value: int) -> None:
        level, _, name = column.partition(".")
        who = IDS[level][which % len(IDS[level])]
        self.w.sheet.attributes[level, who][name] = VALUES[column][value]
        self.w.register(self.w.project)

    @rule(level=st.sampled_from(("specimen", "assay")), which=st.integers(0, 5))
    def bring_what_was_lacking(self, level: str, which: int) -> None:
        who = IDS[level][which % len(IDS[level])]
        self.w.sheet.roles[level, who] = set(ROLES[level])
        self.w.register(self.w.project)

    @rule(which=several, text=st.sampled_from(["x", "xx"]))
    def replace_a_raw_file(self, which: int, text: str) -> None:
        files = sorted(self.w.facts.files)
        if files:
            role, _, who = files[which % len(files)]
            write(self.w.raw(role, who), text)
            self.w.look()

    @rule(key=st.sampled_from(REFERENCES), text=st.sampled_from(["1", "2", None]), version=st.sampled_from(["1", "2"]))
    def another_reference(self, key: str, text: str | None, version: str) -> None:
        """Another content, another version, or gone: then what was known of it stays."""
        path = self.w.root / f"{key}.txt"
        path.unlink(missing_ok=True)
        if text is not None:
            write(path, outside(key, text))
        if version != self.w.versions[key]:
            self.w.versions[key] = version
            self.declare()
        self.w.look()

    @rule(key=st.sampled_from(REGIONS), text=st.sampled_from(["1", "2", None]))
    def another_region(self, key: str, text: str | None) -> None:
        path = self.w.root / f"{key}.txt"
        path.unlink(missing_ok=True)
        if text is not None:
            write(path, outside(key, text))
        self.w.look()

    def declare(self) -> None:
        self.others = [*self.others[-1:], self.w.now]
        self.w.declare()
        self.before = self.w.cursor(), self.w.known()

    @rule(seed=seeds)
    def other_rules(self, seed: int) -> None:
        self.w.cohorts = rules(random.Random(seed))
        self.declare()

    @rule(which=st.integers(0, 6), variant=st.integers(0, 1), factor=st.integers(1, 2), lock=st.sampled_from("ab"))
    def another_recipe(self, which: int, variant: int, factor: int, lock: str) -> None:
        name = f"s{which % len(self.w.plans)}"
        self.w.variants[name], self.w.factors[name], self.w.lock = variant, factor, lock
        self.declare()

    # What is made, and what becomes of it

    @rule(salt=st.sampled_from("ab"), at=moments)
    def make_everything(self, salt: str, at: str) -> None:
        for plan in self.w.plans.values():
            self.w.make(plan.name, self.w.naive().nodes(plan), salt, at)

    @rule(which=st.integers(0, 6), some=several, salt=st.sampled_from("abc"), at=moments)
    def make_some(self, which: int, some: int, salt: str, at: str) -> None:
        plan = self.w.plans[f"s{which % len(self.w.plans)}"]
        nodes = [who for bit, who in enumerate(self.w.naive().nodes(plan)) if some >> bit & 1]
        self.w.make(plan.name, [*nodes, "nobody"], salt, at)

    @precondition(lambda self: self.world is not None and self.world.makings)
    @rule(which=several)
    def record_again(self, which: int) -> None:
        self.w.record_again(which)

    @precondition(lambda self: self.world is not None and self.world.facts.ledger)
    @rule(which=several, how=st.sampled_from(["remove", "change", "heal"]), deep=st.booleans())
    def harm(self, which: int, how: str, deep: bool) -> None:
        nodes = sorted(self.w.facts.ledger)
        self.w.harm(nodes[which % len(nodes)], how)
        self.w.verify(deep)

    @rule(seed=several, same=st.booleans())
    def fail(self, seed: int, same: bool) -> None:
        node = self.node(seed)
        key = self.w.naive().key(self.w.plans[node[0]], node[1])
        self.w.fail(node, key if same and key else "0" * 64)

    @rule(seed=several)
    def take_or_give_back_a_lease(self, seed: int) -> None:
        node = self.node(seed)
        if key := self.w.naive().key(self.w.plans[node[0]], node[1]):
            self.w.lease(node, key)

    # Who may be used

    @rule(
        level=st.sampled_from(("patient", "specimen", "assay")),
        which=st.integers(0, 5),
        step=st.integers(-4, 6),
        kind=st.sampled_from(["other", "qc_fail"]),
    )
    def censor_or_release(self, level: str, which: int, step: int, kind: str) -> None:
        known = [who for who in IDS[level] if (level, who) in self.w.facts.parent]
        if known:
            name = f"s{step % len(self.w.plans)}" if step >= 0 else None
            self.w.censor(level, known[which % len(known)], name, kind)

    @rule(which=st.integers(0, 5), status=st.sampled_from(["full", "pending", "expired", *USES]))
    def say_consent(self, which: int, status: str) -> None:
        known = {who for who in IDS["patient"] if ("patient", who) in self.w.facts.parent}
        if known := sorted(known - {who for _, who in self.w.forgotten}):
            self.w.consent(known[which % len(known)], status)

    @rule(seed=seeds)
    def other_uses(self, seed: int) -> None:
        """What the steps are for is declared anew."""
        draw = random.Random(seed)
        for name, plan in self.w.plans.items():
            self.w.plans[name] = plan._replace(use=draw.choice((None, "research", "commerce")))
        self.declare()

    @rule(which=st.integers(0, 5))
    def purge_a_person(self, which: int) -> None:
        """Also one who was purged: there is something again where others' specimens were moved to them, say."""
        known = [who for who in IDS["patient"] if ("patient", who) in self.w.facts.parent]
        if known:
            self.w.purge(known[which % len(known)])

    @rule(fresh=st.booleans())
    def require_consent_for_a_while(self, fresh: bool) -> None:
        """Who has none on record may not be used, from the moment that ct.toml says so, and as long as it does."""
        for required in (True, False):
            self.w.consent_required = required
            self.w.declare()
            self.ask(fresh, old=True)

    # The questions

    @rule(fresh=st.booleans(), old=st.booleans())
    def ask(self, fresh: bool, old: bool) -> None:
        """A new process, those that were opened before, and the one that acts: all say the same."""
        asked = [self.w.now, *([self.w.opened()] if fresh else []), *(self.others if old else [])]
        for opened in asked[::-1]:
            self.w.compare(opened, self.w.naive(opened))

    @rule(seed=seeds)
    def ask_of_some(self, seed: int) -> None:
        draw, naive = random.Random(seed), self.w.naive()
        names = draw.sample(list(self.w.plans), min(2, len(self.w.plans)))
        only = {name: {who for who in self.w.everybody(self.w.plans[name]) if draw.random() < 0.4} for name in names}
        self.w.compare_some(draw.choice((self.w.now, self.w.opened())), naive, only)

    @invariant()
    def nothing_changes_in_silence(self) -> None:
        """A verdict that changed is told by an event: sensors and whoever keeps verdicts follow those."""
        if self.world is not None:
            cursor, known = self.w.cursor(), self.w.known()
            assert cursor != self.before[0] or known == self.before[1]
            self.before = cursor, known

    @invariant()
    def every_table_is_what_the_events_say(self) -> None:
        if self.world is not None:
            assert disagreements(self.w.project) == []

    def teardown(self) -> None:
        if self.world is None:
            return
        try:
            for opened in (self.w.opened(), *self.others, self.w.now):
                self.w.compare(opened, self.w.naive(opened))
        finally:
            remove(self.w.root.parent)


@settings(max_examples=EXAMPLES * 2, deadline=None, suppress_health_check=list(HealthCheck))
@given(seeds)
def test_containment_through_steps_is_the_naive_answer(seed: int) -> None:
    """Consents come, change and go; steps get other uses; some of what is stale is made, in any order."""
    draw = random.Random(seed)
    world = Exact(
        Path(tempfile.mkdtemp(prefix="ct-exact-")) / "exact", chain(draw, draw.choice((4, 5, 6))), {"all": {}}
    )
    try:
        for specimen, patient in zip(IDS["specimen"], ("P1", "P2", "P3", "P1"), strict=True):
            world.sheet.patient[specimen] = patient
        for assay, specimen in zip(IDS["assay"], (*IDS["specimen"], "S1", "S2"), strict=True):
            world.sheet.specimen[assay] = specimen
            world.sheet.roles["assay", assay] = {"reads"}
        world.register(world.project)
        world.look()
        for at in range(15):
            _act(world, draw, f"salt {at}")
            world.compare(world.now, world.naive())
            assert disagreements(world.project) == []
        world.compare(world.opened(), world.naive())
    finally:
        remove(world.root.parent)


def _act(world: Exact, draw: random.Random, salt: str) -> None:
    what = draw.choice(("everything", "everything", "one", "one", "one", "consent", "consent", "uses"))
    if what == "consent":
        status = draw.choice(("full", "pending", "research", "commerce", "commerce,research"))
        world.consent(draw.choice(IDS["patient"]), status)
    elif what == "uses":
        name = draw.choice(list(world.plans))
        world.plans[name] = world.plans[name]._replace(use=draw.choice(("research", "commerce", None)))
        world.declare()
    else:
        for plan in world.plans.values() if what == "everything" else draw.sample(list(world.plans.values())[2:], 1):
            world.make(plan.name, world.naive().nodes(plan), salt, "2026-01-01T00:00:00.000Z")


def _settings(examples: int) -> settings:
    return settings(
        max_examples=examples, stateful_step_count=STEPS, deadline=None, suppress_health_check=list(HealthCheck)
    )


def test_every_verdict_is_the_naive_one() -> None:
    run_state_machine_as_test(History, settings=_settings(EXAMPLES))


def test_every_verdict_is_the_naive_one_on_postgresql_too(postgres: Server) -> None:
    class OnPostgres(History):
        """Each history in a database of its own."""

        def __init__(self) -> None:
            super().__init__()
            self.ending = ExitStack()
            url = self.ending.enter_context(postgres.fresh())
            self.ending.enter_context(pytest.MonkeyPatch.context()).setenv("CT_POSTGRES_URL", url)

        def teardown(self) -> None:
            with self.ending:
                super().teardown()

    run_state_machine_as_test(OnPostgres, settings=_settings(max(EXAMPLES // 5, 1)))
