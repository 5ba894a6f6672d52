"""A random project of real files and a real catalog, with the naive model told of everything that is done to it."""

import csv
import os
import random
import shutil
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

from sqlalchemy import select

from ctcore.catalog.tables import damage
from ctcore.deletion.proof import purge_findings
from ctcore.deletion.purge import remove as purge
from ctcore.execution import ledger
from ctcore.governance.consent import Statement, set_consent
from ctcore.governance.masking import NOBODY, UNMASKED
from ctcore.governance.qc import Choice, QcEntry, add, resolve
from ctcore.inputs.contributors import Contributors
from ctcore.inputs.current import current_inputs as looked_at
from ctcore.inputs.key import cache_hits, prepare
from ctcore.intake.raw_files import look
from ctcore.intake.register import register
from ctcore.intake.sheet_diff import AllowedChanges
from ctcore.integrity.verify import verify
from ctcore.model.node import Node, name_of
from ctcore.model.reasons import Reason, Verdict
from ctcore.planning.requests import state_of_the_world
from ctcore.project import Project
from ctcore.projects import leases
from ctcore.staleness.verdicts import Verdicts, evaluate
from ctcore.store.digest import canonical_json, digest_files
from ctcore.store.store import PublishedArtifact
from ctcore.util.clock import today
from tests.helpers.naive import LEVELS, USES, Declared, Facts, Made, Naive, Plan, containing

VALUES: dict[str, tuple[Any, ...]] = {
    "patient.sex": ("F", "M"),
    "patient.age": (30, 40),
    "specimen.site": ("blood", 'é"\\ü'),
    "specimen.weight": (5.0, 1e-7),
    "assay.library": ("L1", "0012"),
    "assay.deep": (True, False),
}
COLUMNS = (*VALUES, "patient.id", "specimen.id", "assay.id")
TYPES = {"age": "integer", "weight": "real", "deep": "boolean"}
ROLES = {"patient": (), "specimen": ("slide",), "assay": ("reads", "index")}
REFERENCES = ("genome", "panel")
REGIONS = ("exome",)  # on the genome
IDS = {"patient": ("P1", "P2", "P3"), "specimen": ("S1", "S2", "S3", "S4"), "assay": tuple(f"A{n}" for n in range(6))}
_times = count(1_000_000_000)  # each file is written at its own second, long ago

HEAD = """\
[project]
id = "exact"

[environment]
lock = "lock.txt"

[steps]
folders = ["steps"]
"""


def write(path: Path, content: str | bytes) -> None:
    """Write a file so that it is seen to be another one."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    os.utime(path, (moment := next(_times), moment))


@dataclass
class Sheet:
    """What the sheet says: rows by assay, and the attributes of every ID."""

    specimen: dict[str, str] = field(default_factory=dict)
    patient: dict[str, str] = field(default_factory=dict)
    attributes: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    roles: dict[tuple[str, str], set[str]] = field(default_factory=dict)


@dataclass
class Opened:
    """A process: the project as it was declared when it was opened."""

    project: Project
    declared: Declared


@dataclass
class Exact:
    """The world outside, the project, and the model of both."""

    root: Path
    plans: dict[str, Plan]
    cohorts: dict[str, dict[str, Any]]
    sheet: Sheet = field(default_factory=Sheet)
    facts: Facts = field(default_factory=Facts)
    content: dict[Path, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=lambda: dict.fromkeys(REFERENCES, "1"))
    factors: dict[str, int] = field(default_factory=dict)
    variants: dict[str, int] = field(default_factory=dict)
    lock: str = "one"
    consent_required: bool = False
    makings: dict[int, Made] = field(default_factory=dict)
    harmed: dict[Path, bytes] = field(default_factory=dict)
    leased: dict[str, Node] = field(default_factory=dict)
    gone: dict[int, str] = field(default_factory=dict)  # makings that were purged → when and by which purge
    forgotten: set[tuple[str, str]] = field(default_factory=set)  # entities that were purged
    told: set[tuple[str, str]] = field(default_factory=set)  # of whom a text was written since they were purged last

    def __post_init__(self) -> None:
        (self.root / "steps").mkdir(parents=True)
        (self.root / "raw").mkdir()
        for key in (*REFERENCES, *REGIONS):
            write(self.root / f"{key}.txt", outside(key, "1"))
        self.facts.past = self.makings
        self.declare()
        self.project.store.ensure()

    # What is declared

    def declare(self) -> None:
        """Write ct.toml and the steps, and open the project anew; who had it open goes on with what was."""
        write(self.root / "lock.txt", self.lock)
        write(self.root / "ct.toml", self._toml())
        write(self.root / "steps" / "toy.py", self._steps())
        self.now = self.opened()

    @property
    def project(self) -> Project:
        return self.now.project

    def opened(self) -> Opened:
        """As a new process would."""
        project = Project.find(self.root)
        rules = {name: dict(rule) for name, rule in self.cohorts.items()}
        return Opened(project, Declared(dict(self.plans), rules, dict(project.recipes), self.consent_required))

    def _toml(self) -> str:
        lines = [HEAD, '[consent]\nuses = ["research", "commerce"]', f"required = {str(self.consent_required).lower()}"]
        lines += ["[consent.steps]", *(f'{one.name} = "{one.use}"' for one in self.plans.values() if one.use)]
        for level in LEVELS:
            lines.append(f"[levels.{level}]\nfiles = {list(ROLES[level])}\n[levels.{level}.columns]")
            names = [column.partition(".")[2] for column in VALUES if column.startswith(level)]
            lines += [f'{name} = "{TYPES.get(name, "text")}"' for name in names]
        for key in REFERENCES:
            lines.append(f'[references.{key}]\npath = "{key}.txt"\nversion = "{self.versions[key]}"')
        lines += [f'[regions.{key}]\nreference = "genome"\nbed = "{key}.txt"' for key in REGIONS]
        for name, rule in self.cohorts.items():
            lines.append(f"[cohorts.{name}]")
            inside = ", ".join(f'"{column}" = {canonical_json(value).decode()}' for column, value in rule.items())
            lines += [f"where = {{ {inside} }}"] if rule else []
        for name, factor in self.factors.items():
            lines.append(f"[params.{name}]\nfactor = {factor}")
        return "\n".join(lines) + "\n"

    def _steps(self) -> str:
        lines = ["from dataclasses import dataclass", "from ctcore.step import Call, step"]
        for plan in self.plans.values():
            used = f"inputs={plan.inputs}, files={plan.files}, references={plan.references}, columns={plan.columns}"
            used += f", role={plan.role!r}"
            lines += [
                f"@dataclass(frozen=True)\nclass Of{plan.name}:\n    factor: int = 1",
                f'@step(level="{plan.level}", {used}, params=Of{plan.name}, outputs={{"n": "n.txt"}})',
                f"def {plan.name}(call: Call) -> None:\n    print({self.variants.get(plan.name, 0)})",
            ]
        return "\n".join(lines) + "\n"

    # What the project is told

    def register(self, project: Project) -> None:
        """The sheet as it is, into the catalog and into the facts: a blank cell keeps what is known. Who was purged is
        taken out of it."""
        for assay, specimen in list(self.sheet.specimen.items()):
            line = {("assay", assay), ("specimen", specimen), ("patient", self.sheet.patient[specimen])}
            if line & self.forgotten:
                del self.sheet.specimen[assay]
        if not self.sheet.specimen:
            return
        rows, seen = self._rows(), dict[tuple[str, str], str | None]()
        with (self.root / "sheet.csv").open("w", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        for assay, specimen in self.sheet.specimen.items():
            patient = self.sheet.patient[specimen]
            seen |= {("patient", patient): None, ("specimen", specimen): patient, ("assay", assay): specimen}
        moves = frozenset(who for level, who in seen if level != "patient")
        register(project, self.root / "sheet.csv", AllowedChanges(moves, frozenset(VALUES)))
        for level in LEVELS:
            for (at, who), parent in seen.items():
                if at == level:
                    self._told(level, who, parent)

    def _told(self, level: str, who: str, parent: str | None) -> None:
        self.facts.parent[level, who] = parent
        said = self.sheet.attributes.get((level, who), {})
        known = self.facts.attributes.setdefault((level, who), {})
        known |= {name: value for name, value in said.items() if value is not None}
        for role in self.sheet.roles.get((level, who), ()):
            self.facts.files[role, level, who] = _digest(self.raw(role, who))

    def _rows(self) -> list[dict[str, str]]:
        rows = []
        for assay, specimen in self.sheet.specimen.items():
            who = {"patient": self.sheet.patient[specimen], "specimen": specimen, "assay": assay}
            row = {f"{level}_id": name for level, name in who.items()}
            for column in VALUES:
                level, _, name = column.partition(".")
                row[name] = _cell(self.sheet.attributes.get((level, who[level]), {}).get(name))
            for level, roles in ROLES.items():
                for role in roles:
                    given = role in self.sheet.roles.get((level, who[level]), ())
                    row[role] = str(self.raw(role, who[level]).relative_to(self.root)) if given else ""
            rows.append(row)
        return rows

    def raw(self, role: str, who: str) -> Path:
        path = self.root / "raw" / f"{role}-{who}.txt"
        if not path.exists():
            write(path, f"{role} of {who}")
        return path

    def look(self) -> None:
        look(self.project)
        for role, level, who in self.facts.files:
            self.facts.files[role, level, who] = _digest(self.raw(role, who))
        for key in REFERENCES:
            path = self.root / f"{key}.txt"
            if path.exists():
                self.facts.references[key] = f"{self.versions[key]} {_digest(path)}"
        for key in REGIONS:
            path = self.root / f"{key}.txt"
            if path.exists():
                self.facts.references[key] = f"on genome {self.facts.references['genome']} {_digest(path)}"

    # What is made

    def make(self, step: str, keys: Collection[str], salt: str, at: str) -> None:
        """Make these nodes if they can be, as a run would: what was made before is used again."""
        plan, naive = self.plans[step], Naive(self.facts, self.now.declared)
        calls = prepare(self.project, self.project.steps[step], keys)
        nodes = set(naive.nodes(plan))
        expected = {who: key for who in keys if who in nodes and (key := naive.key(plan, who)) is not None}
        assert {who: call.key for who, call in calls.ready.items()} == expected
        assert set(calls.blocked) == set(keys) - set(expected)
        for who, call in calls.ready.items():
            assert {tuple(edge)[:3]: edge.version for edge in call.edges} == naive.today(plan, who)
        found = cache_hits(self.project, calls.ready.values())
        assert set(found) == {key for who, key in expected.items() if self._is_there((step, who), key)}
        same = {call.node: found[call.key] for call in calls.ready.values() if call.key in found}
        if same:
            ledger.reuse(self.project, same)
        for node, hit in same.items():
            if self.facts.ledger.get(node) is not self.makings[hit.materialization]:
                self._current(node, self.makings[hit.materialization])
        published = {}
        for who, call in calls.ready.items():
            if call.key not in found:
                inputs = [list(edge) for edge in call.edges]
                one = self._publish((step, who), call.key, f"{salt}", at, inputs)
                made = Made((step, who), call.key, call.recipe, _given(naive.today(plan, who)), one.data_version)
                published[who] = (one, made)
        self._record(published.values())

    def _is_there(self, node: Node, key: str) -> bool:
        folder = self.project.store.folder(*node, key)
        return (
            node not in self.facts.damage
            and folder not in self.harmed
            and any(made.key == key for number, made in self.makings.items() if number not in self.gone)
        )

    def _publish(self, node: Node, key: str, text: str, at: str, inputs: list[list[str]]) -> PublishedArtifact:
        recipe = self.now.declared.recipes[node[0]]
        sidecar = {
            "node": list(node),
            "key": key,
            "recipe": {name: getattr(recipe, name) for name in ("step", "code", "parameters", "environment")},
            "inputs": inputs,
            "members": [],
            "outputs": {"n": "n.txt"},
            "level": self.plans[node[0]].level,
            "facts": {},
            "reason": "asked for",
            "started_at": at,
            "seconds": 0.0,
        }
        staged = self.project.store.stage(*node, key)
        (staged / "n.txt").write_text(text)
        self.harmed.pop(self.project.store.folder(*node, key), None)
        return self.project.store.publish(staged, *node, key, sidecar, ["n.txt"])

    def _record(self, published: Iterable[tuple[PublishedArtifact, Made]]) -> None:
        listed = list(published)
        if not listed:
            return
        ids = ledger.record(self.project, [one for one, _ in listed])
        for _, made in listed:
            number = ids[made.node]
            known = self.makings.get(number)
            assert known is None or (known.key, known.version) == (made.key, made.version)
            self.makings[number] = known or made
            self._current(made.node, self.makings[number])
            self._freed({made.key})

    def _current(self, node: Node, made: Made) -> None:
        self.facts.ledger[node] = made
        self.facts.damage.pop(node, None)
        self.facts.failing.pop(node, None)
        self.facts.purged.pop(node, None)

    def record_again(self, which: int) -> None:
        """A run that was cut off is taken up: what it published is recorded, though it may be long since known."""
        made = list(self.makings.values())[which % len(self.makings)]
        folder = self.project.store.folder(*made.node, made.key)
        one = self.project.store.find(*made.node, made.key)
        if folder not in self.harmed and one is not None and one.data_version == made.version:
            self._record([(one, made)])

    def censor(self, level: str, who: str, step: str | None, kind: str) -> None:
        """Something is said of somebody; where it was said already, that ends."""
        said = [number for number, one in self.facts.events.items() if one == (level, who, step)]
        self.told.add((level, who))
        if said:
            resolve(self.project, Choice(event=said[0]), "it was nothing")
            del self.facts.events[said[0]]
            return
        found = add(self.project, [QcEntry(level, who, kind, "as the laboratory says", step)])
        if kind != "qc_warn":
            self.facts.events[found.events[0][0]] = (level, who, step)

    def consent(self, patient: str, status: str) -> None:
        form, uses = "a letter" if status == "revoked" else "", tuple(status.split(",")) if status in USES else ()
        set_consent(self.project, [patient], Statement("limited" if uses else status, uses, form=form))
        self.facts.consent[patient] = status

    def purge(self, patient: str) -> None:
        """All that has somebody inside goes, and they are forgotten; nothing else changes."""
        naive, levels = self.naive(), {plan.name: plan.level for plan in self.plans.values()}
        own = {place for place in self.facts.parent if naive.climb(*place, "patient") == patient}
        for key in list(self.leased):  # it waits for whoever may have them inside
            self.lease(self.leased[key], key)
        if ("patient", patient) not in self.forgotten:
            self.consent(patient, "revoked")
        inside = containing(self.makings, own, levels) - self.gone.keys()
        told = self.told & own  # also what was written after a purge goes
        done = purge(self.project, patient, "asked", patient)
        assert bool(done) == bool(inside or told or own - self.forgotten), done
        self.forgotten |= own
        self.told -= told
        self.gone |= {number: f"purged on {today()} (purge {one.number})" for one in done for number in inside}
        self.facts.attributes |= {place: {} for place in own}
        self._forget({id(self.makings[number]) for number in inside})
        assert purge_findings(self.project) == []

    def _forget(self, inside: set[int]) -> None:
        for node in [node for node, made in self.facts.ledger.items() if id(made) in inside]:
            del self.facts.ledger[node]
            self.facts.damage.pop(node, None)
        there = {(made.node, made.key) for number, made in self.makings.items() if number not in self.gone}
        folders = {self.project.store.folder(*node, key) for node, key in there}
        self.harmed = {folder: kept for folder, kept in self.harmed.items() if folder in folders}
        last = {made.node: number for number, made in sorted(self.makings.items())}
        lost = {node: self.gone[number] for node, number in last.items() if number in self.gone}
        self.facts.purged = {node: said for node, said in lost.items() if node not in self.facts.ledger}

    def fail(self, node: Node, key: str) -> None:
        ledger.record_failures(self.project, [ledger.FailedCall(node, key, "no luck", None)], None)
        self.facts.failing[node] = key
        self.told.add((self.plans[node[0]].level, node[1]))
        self._freed({key})

    def lease(self, node: Node, key: str) -> None:
        """This process works on it, or gives it up again."""
        if key in self.leased:
            with self.project.catalog.write() as writer:
                leases.give_back(writer, [key])
            self._freed({key})
        else:
            leases.take(self.project, [(key, node)], None)
            self.leased[key] = node
            self.facts.running.add(node)

    def _freed(self, keys: Collection[str]) -> None:
        self.leased = {key: node for key, node in self.leased.items() if key not in keys}
        self.facts.running = set(self.leased.values())

    # What becomes of bytes

    def harm(self, node: Node, how: str) -> None:
        """Remove or change the file of a node's artifact, or put it back."""
        folder = self.project.store.folder(*node, self.facts.ledger[node].key)
        path = folder / "n.txt"
        os.chmod(folder, 0o755)
        if how == "heal":
            if folder in self.harmed:
                path.unlink(missing_ok=True)
                write(path, self.harmed.pop(folder))
        else:
            self.harmed.setdefault(folder, path.read_bytes() if path.exists() else b"")
            path.unlink(missing_ok=True)
            if how == "change":
                write(path, bytes(255 - byte for byte in self.harmed[folder]))
        os.chmod(folder, 0o555)

    def verify(self, deep: bool) -> None:
        found = verify(self.project, deep=deep).findings
        harmed = {
            node
            for node, made in self.facts.ledger.items()
            if self.project.store.folder(*node, made.key) in self.harmed
        }
        with self.project.catalog.read() as connection:
            known = connection.execute(select(damage)).all()
        self.facts.damage = {(row.asset, row.partition): {row.file: row.problem} for row in known}
        assert set(self.facts.damage) == harmed
        named = {one.node for one in found if one.node[1] != NOBODY}  # whoever has revoked consent is not
        assert named <= harmed and len(found) == len(harmed)

    # The claim

    def naive(self, opened: Opened | None = None) -> Naive:
        return Naive(self.facts, (opened or self.now).declared)

    def compare(self, opened: Opened, naive: Naive) -> None:
        """Every verdict on every node, with all that is said of it, and everything that is counted."""
        real = evaluate(opened.project)
        assert real.totals == naive.totals
        for plan in self.plans.values():
            counts = Counter(dict.fromkeys(["fresh"], 0))
            excluded = naive.excluded(plan)
            for who in [*naive.nodes(plan), *excluded]:
                counts[self._same(real, naive, plan.name, who, who in excluded)] += 1
            assert +Counter(real.count(plan.name)) == +counts, plan.name
        self._compare_inside(opened, naive)
        listed = real.stale()
        free = {node for node, verdict in naive.found.items() if verdict.state != "running"}
        assert Counter(verdict.node for verdict in listed) == Counter(free)
        order = [list(self.plans).index(verdict.asset) for verdict in listed]
        for verdict in listed:
            ups = self.plans[verdict.asset].inputs.values()
            first = order.index(list(self.plans).index(verdict.asset))
            assert all(one.asset not in ups for one in listed[first:])
        behind = {node for node in naive.found if any(r.kind == "upstream" for r in real.of(*node).reasons)}
        assert behind == naive.behind()

    def _compare_inside(self, opened: Opened, naive: Naive) -> None:
        """Whoever is inside what is there, and does not consent to it, is found; and nobody else."""
        with opened.project.catalog.read() as connection:
            snapshot, inputs = looked_at(opened.project, connection)
            for plan in naive.declared.steps.values():
                clean = Contributors.permitted(lambda: connection, snapshot, inputs, plan.name).permitted_nodes(
                    plan.name
                )
                found = {who for who, fine in zip(snapshot.names(plan.name), clean, strict=True) if not fine}
                made = {who: one for (asset, who), one in self.facts.ledger.items() if asset == plan.name}
                own = set() if plan.level == "cohort" else {who for who in made if not naive.agrees(plan, who)}
                here = set(snapshot.names(plan.name)) & made.keys()
                assert found & here == {who for who in here if who in own or naive.spoilt(made[who], plan)}, plan

    def _same(self, real: Verdicts, naive: Naive, asset: str, who: str, excluded: bool) -> str:
        said = real.of(asset, who)
        if excluded:
            kinds = [reason.kind for reason in said.reasons]
            if self.plans[asset].level == "cohort":
                held = dict.fromkeys(naive.held(naive.declared.steps[asset], who))
                many = [f"{n} patient{'s' * (n != 1)} inside {name_of(node)} do{'es' * (n == 1)}" for node, n in held]
                words = [UNMASKED.mask_words(reason.words).partition(" not consent")[0] for reason in said.reasons]
                assert words == many and set(kinds) == {"excluded"} and said.state == "excluded", said
                return said.state
            bars = naive.bars(self.plans[asset].level, who, asset)
            assert said.state == "excluded" and (not bars or kinds == ["excluded"] * bars), said
            assert bars or kinds == ["missing"] or set(kinds) == {"excluded"}, said
            barring = naive.facts.events or naive.facts.consent or naive.declared.consent_required
            assert barring or kinds == ["missing"], said
            return said.state
        wanted = naive.found.get((asset, who)) or Verdict(asset, who, "fresh")
        assert _told(said) == _told(wanted), f"{said}\n{wanted}"
        assert said.state == wanted.state, f"{said}\n{wanted}"
        return said.state

    def compare_some(self, opened: Opened, naive: Naive, only: Mapping[str, set[str]]) -> None:
        """What is asked of some nodes is what is said of them among all."""
        real = evaluate(opened.project)
        for asset, keys in only.items():
            excluded = set(naive.excluded(self.plans[asset]))
            listed = real.listed(asset, keys)
            assert {one.partition for one in listed} == {who for who in keys if (asset, who) in naive.found} | (
                excluded & keys
            )
            for verdict in listed:
                self._same(real, naive, *verdict.node, excluded=verdict.partition in excluded)

    def everybody(self, plan: Plan) -> list[str]:
        return list(self.now.declared.cohorts) if plan.level == "cohort" else self.naive().ids(plan.level)

    def cursor(self) -> str:
        """What the sensors compare to see whether anything may have changed."""
        return state_of_the_world(self.project)

    def known(self) -> dict[Node, Verdict]:
        """The verdicts as far as they come from what is written, and not from which processes live."""
        return Naive(replace(self.facts, running=set()), self.now.declared).found


def _told(verdict: Verdict) -> tuple[list[Any], list[Any]]:
    """Direct reasons word by word, in any order; then those of ancestors in order, without the words between."""
    direct = [reason for reason in verdict.reasons if reason.kind != "upstream"]
    assert [reason.kind for reason in verdict.reasons[len(direct) :]] == ["upstream"] * (
        len(verdict.reasons) - len(direct)
    ), f"direct reasons come first: {verdict}"
    waiting: list[Reason] = list(verdict.reasons[len(direct) :])
    for reason in waiting:
        assert reason.words
    return sorted((r.kind, UNMASKED.mask_words(r.words), r.node or ()) for r in direct), [
        (r.kind, r.node, r.path) for r in waiting
    ]


def _given(now: Mapping[tuple[str, str, str], str | None]) -> dict[tuple[str, str, str], str]:
    return {place: version for place, version in now.items() if version is not None}


def outside(key: str, text: str) -> str:
    """The content of a reference, or of a region."""
    return f"1\t0\t{text}\n" if key in REGIONS else f"{key} {text}"


def _digest(path: Path) -> str:
    return digest_files([path])[path]


def _cell(value: Any) -> str:
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def remove(root: Path) -> None:
    """With everything read-only in it."""
    for folder in [root, *root.rglob("*/")]:
        os.chmod(folder, 0o755)
    shutil.rmtree(root)


def plans(draw: random.Random, steps: int) -> dict[str, Plan]:
    """Steps at every level; each takes what was declared before it, up, down or across; cohort artifacts too."""
    found: dict[str, Plan] = {}
    for at in range(steps):
        level = "assay" if at == 0 else draw.choice((*LEVELS, "cohort", "cohort"))
        ups = [up.name for up in found.values() if level == "cohort" or up.level != "cohort"]
        taken = draw.sample(ups, min(len(ups), draw.choice((0, 1, 1, 2, 2, 3)))) if at else []
        files = [role for role in ROLES.get(level, ()) if draw.random() < (0.3 if at else 0.8)]
        references = [key for key in (*REFERENCES, *REGIONS) if draw.random() < 0.25]
        columns = [column for column in COLUMNS if draw.random() < 0.2]
        names = {f"in{number}": up for number, up in enumerate(taken)}
        plan = Plan(f"s{at}", level, names, tuple(files), tuple(references), tuple(columns))
        use = draw.choice((None, "research", "research", "commerce"))
        found[f"s{at}"] = plan._replace(role=_role(draw, plan, found), use=use)
    return found


def chain(draw: random.Random, steps: int) -> dict[str, Plan]:
    """Counts, specimens, a cohort of these, and cohort artifacts of cohort artifacts; each for a use of its own."""
    found = {"s0": Plan("s0", "assay", {}, ("reads",), (), ()), "s1": Plan("s1", "specimen", {"in0": "s0"}, (), (), ())}
    for at in range(2, steps):
        ups = [f"s{draw.choice((0, 1))}"] if at == 2 else draw.sample([f"s{n}" for n in range(1, at)], min(at - 1, 2))
        names = {f"in{number}": up for number, up in enumerate(ups)}
        found[f"s{at}"] = Plan(f"s{at}", "cohort", names, (), (), ())
    return {name: one._replace(use=draw.choice(("research", "commerce"))) for name, one in found.items()}


def _role(draw: random.Random, plan: Plan, known: dict[str, Plan]) -> str | None:
    """A column that tells members apart, where there are some."""
    below = [known[up].rank for up in plan.inputs.values() if known[up].level != "cohort"]
    lowest = -1 if plan.level == "cohort" else plan.rank
    fit = [name for name in COLUMNS if lowest < LEVELS.index(name.partition(".")[0]) <= max(below, default=-1)]
    return draw.choice(fit) if fit and draw.random() < 0.4 else None


def rules(draw: random.Random) -> dict[str, dict[str, Any]]:
    """Up to three cohorts, by columns of different levels."""
    found: dict[str, dict[str, Any]] = {"all": {}}
    for name in ("some", "few")[: draw.randrange(3)]:
        columns = draw.sample([*VALUES, "specimen.id"], draw.choice((1, 1, 2)))
        found[name] = {column: draw.choice(VALUES.get(column, ("S1", "S2"))) for column in columns}
    return found
