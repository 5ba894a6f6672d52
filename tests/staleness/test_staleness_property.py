"""The set-based evaluation against a naive definition, on random histories of a small cohort.

The model below knows nothing of the catalog: it keeps what each node was made from as plain values and compares.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ctcore.execution.materialize import StepRun
from ctcore.intake.raw_files import look
from ctcore.intake.register import register
from ctcore.intake.sheet_diff import AllowedChanges
from ctcore.integrity.verify import verify
from ctcore.model.node import Node
from ctcore.project import Project
from ctcore.staleness.verdicts import evaluate
from tests.helpers.kit import STEPS, TOML, Inline, again, assay, make_project, write_sheet
from tests.helpers.postgres import Server

ASSAYS = ("A1", "A2", "A3", "A4")
SPECIMENS = {"S1": "P1", "S2": "P1", "S3": "P2"}

actions = st.one_of(
    st.tuples(st.just("reads"), st.sampled_from(ASSAYS), st.sampled_from(["x", "xx", "x\n"])),
    st.tuples(st.just("move"), st.sampled_from(ASSAYS), st.sampled_from(list(SPECIMENS))),
    st.tuples(st.just("sex"), st.sampled_from(["P1", "P2"]), st.sampled_from(["F", "M"])),
    st.tuples(st.just("genome"), st.sampled_from(["A", "C"]), st.sampled_from(["1", "2"])),
    st.tuples(st.just("factor"), st.sampled_from([1, 2]), st.none()),
    st.tuples(st.just("code"), st.sampled_from(["", "+"]), st.none()),
    st.tuples(st.just("cohort"), st.sampled_from(["all", "F"]), st.none()),
    st.tuples(st.just("harm"), st.sampled_from(["counted", "merged", "joined"]), st.integers(0, 3)),
    st.tuples(st.just("make"), st.sampled_from(["counted", "merged", "joined"]), st.none()),
    st.tuples(st.just("make"), st.just("everything"), st.none()),
)


class World:
    """What is outside, as plain values; and what each node was made from, as plain values."""

    def __init__(self) -> None:
        self.reads = dict.fromkeys(ASSAYS, "x")
        self.specimen = {"A1": "S1", "A2": "S1", "A3": "S2", "A4": "S3"}
        self.sex = {"P1": "F", "P2": "M"}
        self.genome, self.version, self.factor, self.code, self.rule = "A", "1", 1, "", "all"
        self.made: dict[Node, dict[str, Any]] = {}
        self.harmed: set[Node] = set()
        self.kept: set[str] = set()  # calls whose result is still there, to be used again

    def nodes(self) -> dict[str, list[str]]:
        return {"counted": list(ASSAYS), "merged": sorted(set(self.specimen.values())), "joined": ["all"]}

    def now(self, node: Node) -> dict[str, Any]:
        """What the node would be made from today; None as the content of what was never made."""
        step, key = node
        if step == "counted":
            return {
                "code": "",
                "parameters": self.factor,
                "input": {key: self.reads[key]},
                "reference": (self.version, self.genome),
                "member": {},
                "metadata": None,
            }
        up, members = ("counted", [a for a in ASSAYS if self.specimen[a] == key])
        if step == "joined":
            up, members = (
                "merged",
                [s for s in self.nodes()["merged"] if self.rule in ("all", self.sex[SPECIMENS[s]])],
            )
        contents = {who: self.content((up, who)) for who in members}
        sex = self.sex[SPECIMENS[key]] if step == "merged" else None
        code = self.code if step == "merged" else ""
        return {
            "code": code,
            "parameters": None,
            "input": {},
            "reference": None,
            "member": contents,
            "metadata": sex,
        }

    def content(self, node: Node) -> Any:
        """What a made node holds, following the toy steps by hand."""
        made = self.made.get(node)
        if made is None:
            return None
        if node[0] == "counted":
            return (len(made["input"][node[1]].strip()) * made["parameters"], made["reference"][1])
        if node[0] == "merged":
            joint = made["code"] if len(made["member"]) > 1 else ""
            return (made["metadata"], joint, tuple(sorted(made["member"].items())))
        return tuple(sorted(made["member"].items()))

    def direct(self, node: Node) -> set[str]:
        """The naive definition: compare what it was made from with what it would be made from."""
        made, now = self.made.get(node), self.now(node)
        if made is None:
            return {"missing"}
        kinds = {kind for kind in ("code", "parameters", "reference", "metadata") if made[kind] != now[kind]}
        kinds |= {"input"} if made["input"] != now["input"] else set()
        old, new = made["member"], now["member"]
        kinds |= {"member-added"} if set(new) - set(old) else set()
        kinds |= {"member-removed"} if set(old) - set(new) else set()
        kinds |= {"input"} if any(old[who] != new[who] for who in set(old) & set(new)) else set()
        return kinds | ({"bytes"} if node in self.harmed else set())

    def verdicts(self) -> dict[Node, set[str]]:
        found: dict[Node, set[str]] = {}
        ups = {"counted": None, "merged": "counted", "joined": "merged"}
        for step, keys in self.nodes().items():
            for key in keys:
                kinds = self.direct((step, key))
                sources = self.now((step, key))["member"]
                if any((ups[step], who) in found for who in sources):
                    kinds = kinds | {"upstream"}
                if kinds:
                    found[(step, key)] = kinds
        return found


def apply(world: World, root: Path, action: tuple[str, Any, Any]) -> None:
    """Change the world outside and the model in the same way."""
    kind, what, how = action
    if kind == "reads":
        world.reads[what] = how
        (root / f"reads/{what}.txt").write_text(how)
    elif kind == "move":
        world.specimen[what] = how
    elif kind == "sex":
        world.sex[what] = how
    elif kind == "genome":
        world.genome, world.version = what, how
        (root / "genome.txt").write_text(what)
    elif kind == "factor":
        world.factor = what
    elif kind == "code":
        world.code = what
        (root / "steps/toy.py").write_text(STEPS.replace("' '.join(lines)", f"'{what or ' '}'.join(lines)"))
    elif kind == "cohort":
        world.rule = what
    toml = (
        TOML.replace('version = "1"', f'version = "{world.version}"') + f"\n[params.counted]\nfactor = {world.factor}\n"
    )
    if world.rule != "all":
        toml = toml.replace("[cohorts.all]", f'[cohorts.all]\nwhere = {{ "patient.sex" = "{world.rule}" }}')
    (root / "ct.toml").write_text(toml)


def sheet(world: World, root: Path) -> Path:
    rows = []
    for name, specimen in world.specimen.items():
        patient = SPECIMENS[specimen]
        rows.append(assay(patient, specimen, name, sex=world.sex[patient]))
    return write_sheet(root, rows)


def harm(world: World, project: Project, step: str, which: int) -> None:
    """Change the bytes of an artifact, if there is one."""
    keys = world.nodes()[step]
    node = (step, keys[which % len(keys)])
    folders = sorted((project.store.root / step / node[1]).glob("*/"), key=lambda f: f.stat().st_mtime_ns)
    if node not in world.made or node in world.harmed:
        return
    current = {p.folder: p for p in [_current(project, node)] if p is not None}
    assert folders and current
    path = next(p for p in next(iter(current)).iterdir() if p.name in ("n.txt", "table.tsv"))
    os.chmod(path, 0o644)
    path.write_bytes(b"#" + path.read_bytes())
    world.harmed.add(node)
    world.kept.discard(repr((node, world.made[node])))


def _current(project: Project, node: Node) -> Any:
    from sqlalchemy import select

    from ctcore.catalog.tables import artifact

    with project.catalog.read() as connection:
        key = connection.execute(
            select(artifact.c.key).where(artifact.c.asset == node[0], artifact.c.partition == node[1])
        ).scalar()
    return project.store.find(*node, key) if key else None


def make(world: World, project: Project, step: str) -> None:
    """Make what is stale of a step, in both; a node whose source was never made or is harmed stays as it is."""
    for key in world.nodes()[step]:
        node = (step, key)
        now = world.now(node)
        if (world.direct(node) or _waits(world, node)) and _can_be_made(world, node):
            world.made[node] = now
            world.harmed.discard(node)
            world.kept.add(repr((node, now)))
    keys = world.nodes()[step]
    list(StepRun(project, project.steps[step], keys, stale_only=True, runner=Inline(project)).outcomes())


def _can_be_made(world: World, node: Node) -> bool:
    """Nothing is read from harmed bytes; but the same call of an earlier day needs to read nothing."""
    now = world.now(node)
    if node not in world.harmed and repr((node, now)) in world.kept:
        return True
    up = {"merged": "counted", "joined": "merged"}.get(node[0], "")
    return None not in now["member"].values() and not any((up, who) in world.harmed for who in now["member"])


def _waits(world: World, node: Node) -> bool:
    return "upstream" in world.verdicts().get(node, set())


histories = st.lists(actions, min_size=1, max_size=12)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(histories)
@example([("make", "counted", None), ("harm", "counted", 3), ("make", "everything", None)])
@example([("make", "everything", None), ("sex", "P1", "M"), ("harm", "counted", 1), ("make", "merged", None)])
@example(
    [
        ("make", "everything", None),
        ("sex", "P1", "M"),
        ("make", "everything", None),
        ("harm", "counted", 1),
        ("sex", "P1", "F"),
        ("make", "merged", None),
    ]
)
def test_the_evaluation_agrees_with_the_naive_definition(history: list[tuple[str, Any, Any]]) -> None:
    with _folder() as root:
        _compare(root, history)


@settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck))
@given(history=histories)
def test_the_evaluation_agrees_on_postgresql_too(postgres: Server, history: list[tuple[str, Any, Any]]) -> None:
    with postgres.fresh() as url, pytest.MonkeyPatch.context() as patch, _folder() as root:
        patch.setenv("CT_POSTGRES_URL", url)
        _compare(root, history)


@contextmanager
def _folder() -> Iterator[Path]:
    """A folder that goes, with everything read-only in it."""
    root = Path(tempfile.mkdtemp(prefix="ct-property-"))
    try:
        yield root
    finally:
        for folder in [root, *root.rglob("*/")]:
            os.chmod(folder, 0o755)
        shutil.rmtree(root)


def _compare(root: Path, history: list[tuple[str, Any, Any]]) -> None:
    world = World()
    project = _begin(world, root)
    for action in history:
        apply(world, root, action)
        project = again(project)
        allowed = AllowedChanges(frozenset(ASSAYS), frozenset({"patient.sex"}))
        register(project, sheet(world, root), allowed)
        look(project)
        if action[0] == "harm":
            harm(world, project, action[1], action[2])
            verify(project, deep=False)
        if action[0] == "make":
            for step in world.nodes() if action[1] == "everything" else [action[1]]:
                make(world, project, step)
        real = {v.node: {reason.kind for reason in v.reasons} for v in evaluate(project).stale()}
        assert real == world.verdicts(), action


def _begin(world: World, root: Path) -> Project:
    rows = [assay(SPECIMENS[s], s, name, sex=world.sex[SPECIMENS[s]]) for name, s in world.specimen.items()]
    (root / "reads").mkdir()
    for name in ASSAYS:
        (root / f"reads/{name}.txt").write_text(world.reads[name])
    project = make_project(root, rows)
    (root / "genome.txt").write_text(world.genome)
    look(project)
    return project
