"""A project that has seen everything, for tests that do much to it; the naive model, told by its tables; and what has
to be true of it at any time, whoever was killed."""

import gc
import json
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, select

from ctcore.catalog.event_log import check_chain
from ctcore.catalog.tables import (
    artifact,
    consent,
    damage,
    edge,
    entity,
    event,
    file,
    lease,
    materialization,
    purge,
    qc_event,
    qc_resolution,
    recipe,
    reference,
    tombstone,
)
from ctcore.catalog.tombstones import current_folders
from ctcore.deletion.proof import check
from ctcore.governance.masking import NOBODY, mask_of
from ctcore.integrity.catalog_check import disagreements
from ctcore.model.node import Node
from ctcore.project import Project
from ctcore.staleness.verdicts import evaluate
from ctcore.steps.graph import Recipe
from ctcore.store.digest import digest_files
from tests.deletion.test_purge import holders, word
from tests.helpers.exact import Exact, Opened
from tests.helpers.kit import TOML, add, again, assay, make_all, make_project
from tests.helpers.naive import Declared, Facts, Made, Naive, Plan
from tests.helpers.shell import ct

DECLARED = """
[consent]
uses = ["research", "commerce"]
use = "research"
[consent.steps]
sold = "commerce"

[analyses.pathology]
level = "assay"
columns.said = {}
"""
# What a person gave is a word of its own in every file that contains them: content can be told from what is declared.
STEPS = """
import time

from ctcore.step import Call, step

@step(level="assay", files=["reads"], references=["genome"], columns=["assay.library"], outputs={"words": "w.txt"})
def heard(call: Call) -> dict[str, str]:
    time.sleep(0.02)
    text = call.file("reads").read_text() + f"{call.column('assay.library')} {call.reference('genome').read_text()}"
    call.out("words").write_text(text)
    return {"heard": text}

@step(level="specimen", inputs={"some": "heard"}, columns=["patient.sex"], outputs={"words": "w.txt"})
def merged(call: Call) -> None:
    print(call.column("patient.sex"))
    text = "".join(source["words"].read_text() for source in call.many("some"))
    call.out("words").write_text(f"{call.column('patient.sex')}\\n{text}")

@step(level="cohort", inputs={"some": "merged"}, outputs={"words": "w.txt"})
def joined(call: Call) -> None:
    call.out("words").write_text("".join(source["words"].read_text() for source in call.many("some")))

@step(level="cohort", inputs={"all": "joined"}, outputs={"n": "n.txt"})
def few(call: Call) -> None:
    call.out("n").write_text(f"{len(call.one('all')['words'].read_text().splitlines()) > 12}\\n")

@step(level="cohort", inputs={"n": "few"}, outputs={"said": "said.txt"})
def sold(call: Call) -> None:
    call.out("said").write_text("few: " + call.one("n")["n"].read_text())
"""
BARRING = {"revoked", "withdrawn", "pending"}


def people(root: Path, first: int, many: int) -> list[dict[str, str]]:
    """Rows of a sheet: patients with a specimen, every other one with two assays; and their reads."""
    (root / "reads").mkdir(parents=True, exist_ok=True)
    rows = []
    for n in range(first, first + many):
        for a in range(1 + n % 2):
            (root / f"reads/ASY{n}x{a}.txt").write_text(f"{word(f'PAT{n}')}reads{a}\n")
            library = f"{word(f'PAT{n}')}library"
            rows.append(assay(f"PAT{n}", f"SPE{n}", f"ASY{n}x{a}", library=library, sex="FM"[n % 2], age="40"))
    return rows


def lived(root: Path) -> list[dict[str, str]]:
    """Seven patients: nothing of 0; 1 for research and 2 for commerce only; 3 has revoked, 4 is purged; 5 has QC, 6
    was never made. Some of it is stale. Gives the rows of the sheet."""
    rows = people(root, 0, 6)
    project = make_project(root, rows, steps=STEPS, toml=TOML + DECLARED)
    make_all(project)
    for words in (
        *(("record", "pathology", f"ASY{n}x0", f"said={word(f'PAT{n}')}") for n in (0, 3, 4)),
        ("qc", "add", "specimen/SPE5", "qc_warn", "--reason", f"{word('PAT5')}dark"),
        ("qc", "add", "assay/ASY5x0", "other", "--reason", "low", "--analysis", "merged"),
        ("qc", "add", "assay/ASY3x0", "qc_fail", "--reason", f"{word('PAT3')}low"),
        ("consent", "set", "PAT1", "limited", "--use", "research"),
        ("consent", "set", "PAT3", "PAT4", "revoked", "--form", "withdrawal"),
        ("purge", "PAT4", "--reason", "asked", "--confirm", "PAT4"),
    ):
        said = ct("-C", root, *words)
        assert said.code == 0, said
    make_all(again(project))
    rows = [row for row in rows if row["patient_id"] != "PAT4"]
    more = people(root, 6, 1)
    add(again(project), more)
    assert ct("-C", root, "consent", "set", "PAT2", "limited", "--use", "commerce").code == 0
    (root / "reads/ASY0x0.txt").write_text(f"{word('PAT0')}otherwise\n")
    project.catalog.engine.dispose()
    return [*rows, *more]


class Told(Exact):
    """The model that is told by the tables of a catalog, and not of what is done to it."""

    def __post_init__(self) -> None:
        self.facts.past = self.makings


def told(project: Project) -> Told:
    """What the tables say, in the model's words; nobody runs."""
    with project.catalog.read() as connection:
        plans = {one.name: _plan(project, one) for one in project.steps}
        made = Told(project.root, plans, {"all": {}})
        made.now = Opened(project, Declared(plans, {"all": {}}, dict(project.recipes)))
        made.makings.update(_makings(connection))
        _registered(connection, made.facts)
        _governed(connection, made.facts)
        _made(connection, made)
    return made


def _plan(project: Project, one: Any) -> Plan:
    use = project.settings.uses.of(one.name)
    return Plan(one.name, one.level, dict(one.inputs), one.files, one.references, one.columns, one.role, use)


def _makings(connection: Connection) -> Iterator[tuple[int, Made]]:
    recipes = {
        row.id: Recipe(row.step, row.code, json.loads(row.parameters), json.loads(row.environment))
        for row in connection.execute(select(recipe))
    }
    inputs: dict[int, dict[tuple[str, str, str], str]] = {}
    for row in connection.execute(select(edge)):
        inputs.setdefault(row.materialization, {})[row.input, row.asset, row.partition] = row.version
    for row in connection.execute(select(materialization).order_by(materialization.c.id)):
        node = (row.asset, row.partition)
        yield row.id, Made(node, row.key, recipes[row.recipe], inputs.get(row.id, {}), row.data_version)


def _registered(connection: Connection, facts: Facts) -> None:
    rows = {row.seq: row for row in connection.execute(select(entity).order_by(entity.c.seq))}
    for row in rows.values():
        facts.parent[row.level, row.id] = rows[row.parent].id if row.parent is not None else None
        facts.attributes[row.level, row.id] = json.loads(row.attributes)
    for row in connection.execute(select(file)):
        facts.files[row.role, rows[row.entity].level, rows[row.entity].id] = row.digest
    for row in connection.execute(select(reference)):
        facts.references[row.key] = f"{row.version} {row.digest}"


def _governed(connection: Connection, facts: Facts) -> None:
    names = {row.seq: row for row in connection.execute(select(entity))}
    resolved = set(connection.execute(select(qc_resolution.c.event)).scalars())
    for row in connection.execute(select(qc_event).where(qc_event.c.status != "warn")):
        if row.id not in resolved:
            facts.events[row.id] = (names[row.entity].level, names[row.entity].id, row.step)
    for row in connection.execute(select(consent).order_by(consent.c.id)):
        uses = ",".join(json.loads(row.uses))
        facts.consent[names[row.entity].id] = uses if row.status == "limited" else row.status


def _made(connection: Connection, model: Told) -> None:
    facts = model.facts
    for row in connection.execute(select(artifact)):
        facts.ledger[row.asset, row.partition] = model.makings[row.materialization]
    for row in connection.execute(select(damage)):
        facts.damage.setdefault((row.asset, row.partition), {})[row.file] = row.problem
    calls = select(event.c.subject, event.c.kind, event.c.body).where(
        event.c.kind.in_(("materialize", "reuse", "fail"))
    )
    last = {row.subject: row for row in connection.execute(calls.order_by(event.c.seq))}
    for subject, row in last.items():
        if row.kind == "fail":
            facts.failing[_node(subject)] = json.loads(row.body)["key"]
    purges = {row.id: row for row in connection.execute(select(purge))}
    model.gone.update({row.materialization: row.purge for row in connection.execute(select(tombstone))})
    for node, number in {made.node: number for number, made in model.makings.items()}.items():
        if number in model.gone and node not in facts.ledger:
            one = purges[model.gone[number]]
            done = f"purged on {one.ended_at[:10]}" if one.ended_at else f"being purged since {one.at[:10]}"
            facts.purged[node] = f"{done} (purge {one.id})"


def _node(subject: str) -> Node:
    step, _, partition = subject.partition("/")
    return step, partition


# What has to be true


def let_go() -> None:
    """Close all connections of this process. SQLite's locks are the process's: they are lost in a child of it, and
    where it reads the file by itself; then somebody else takes the log away under a connection that is still open."""
    gc.collect()
    for one in [one for one in gc.get_objects() if type(one) is Engine]:
        one.dispose()


def consistent(root: Path, harmed: Collection[Path] = ()) -> Told:
    """Tables, events, journal and store agree; each verdict is the naive one, and what is fresh has the content that
    it should have. `harmed`: folders of which a test has taken something."""
    project = Project.find(root)
    model = told(project)
    assert disagreements(project) == []
    with project.catalog.read() as connection:
        rows = [dict(row) for row in connection.execute(select(event).order_by(event.c.seq)).mappings()]
        assert check_chain(iter(rows), "") == []
        bad, purges = _other_bytes(project, connection), connection.execute(select(purge)).all()
        ended = [one for one in purges if one.ended_at is not None]
        if ended == purges:  # one that was cut off says so, and leaves the journal to who ends it
            assert project.catalog.journal.differing_lines(connection) == []
    assert bad <= {project.store.root / one.relative_to(project.store.root) for one in harmed}, bad
    model.compare(model.now, model.naive())
    if _is_seen(project, model):
        _content(project, model, bad)
    let_go()
    for one in ended:
        if model.facts.consent[one.patient] in BARRING:
            assert holders(root, one.patient) == []
    return model


def settled(root: Path, model: Told, harmed: Collection[Path] = ()) -> None:
    """Besides: `ct verify` agrees, the journal has its end, nobody holds anything, and the last purge is proved."""
    project = Project.find(root)
    with project.catalog.read() as connection:
        assert not project.catalog.journal.has_diverged(connection)
        assert connection.execute(select(lease)).all() == []
        last = connection.execute(select(purge.c.id).order_by(purge.c.id.desc())).scalars().first()
    found = check(project, last).findings if last is not None else ()
    mine = {project.recorded(one) for one in harmed}
    assert [one for one in found if not one[0].startswith(tuple(mine))] == [], found
    said, hidden = ct("-C", root, "verify"), mask_of(project)
    told = [(step, NOBODY) if hidden.hides((step, who)) else (step, who) for step, who in model.facts.damage]
    lines = [line.split("\t")[0] for line in said.out.splitlines()[1:]]
    assert (said.code, sorted(lines)) == (3 if told else 0, sorted(map("/".join, told))), said
    project.catalog.engine.dispose()


def _other_bytes(project: Project, connection: Connection) -> set[Path]:
    """Folders of the store, current or past, of which a file has not the bytes of its making any more."""
    found = set()
    for folder, files in current_folders(connection).items():
        place = project.store.root / folder
        paths = {place / name: digest for name, (_, digest) in files.items()}
        if not all(path.is_file() for path in paths) or digest_files(paths) != paths:
            found.add(place)
    return found


def _is_seen(project: Project, model: Told) -> bool:
    """Whether the catalog knows raw files and the reference as they are."""
    paths = {project.root / f"reads/{who}.txt": digest for (_, _, who), digest in model.facts.files.items()}
    paths[project.root / "genome.txt"] = model.facts.references["genome"].partition(" ")[2]
    there_are = {path: digest for path, digest in paths.items() if path.exists()}  # a purge may take raw files
    return digest_files(there_are) == there_are


def _content(project: Project, model: Told, bad: Collection[Path]) -> None:
    """What is fresh has the content that its step makes of what there is today."""
    naive = model.naive()
    for plan in model.plans.values():
        for who in naive.nodes(plan):
            node = (plan.name, who)
            if node in naive.found:
                continue
            folder = project.store.folder(*node, model.facts.ledger[node].key)
            if folder not in bad:  # of which nobody has looked yet
                (path,) = folder.glob("[!.]*.txt")
                assert path.read_text() == _made_of(project.root, naive, plan, who), node


def _made_of(root: Path, naive: Naive, plan: Plan, who: str) -> str:
    """The steps once more."""
    if plan.name == "heard":
        library, genome = naive.value("assay", who, "assay.library"), (root / "genome.txt").read_text()
        return (root / f"reads/{who}.txt").read_text() + f"{library} {genome}"
    (up,) = (naive.declared.steps[name] for name in plan.inputs.values())
    text = "".join(_made_of(root, naive, up, one) for one in sorted(naive.members(plan, who, up)))
    if plan.name == "few":
        return f"{len(text.splitlines()) > 12}\n"
    if plan.name == "merged":
        return f"{naive.value('specimen', who, 'patient.sex')}\n{text}"
    return f"few: {text}" if plan.name == "sold" else text


# Who may not be named


def barred(root: Path) -> set[str]:
    """The patients who may not be used by anybody: they are in nothing that a command shows."""
    return {who for who, status in told(Project.find(root)).facts.consent.items() if status in BARRING}


def named(text: str, patients: Collection[str]) -> set[str]:
    """What of these patients a text tells: IDs of theirs, and what they gave."""
    numbers = "|".join(one.removeprefix("PAT") for one in patients)
    found = re.findall(rf"(?:PAT|SPE|ASY)(?:{numbers})(?!\d)", text) if patients else []
    return {*found, *secrets(text, patients)}


def secrets(text: str, patients: Collection[str]) -> set[str]:
    return {word(one) for one in patients if word(one) in text}


def stale(root: Path) -> list[str]:
    """The nodes that a run would make."""
    project = Project.find(root)
    return ["/".join(one.node) for one in evaluate(project).stale() if one.state != "excluded"]
