"""What lies about of a person beside the recorded makings, by place; and that nobody else's is taken."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from ctcore.deletion.leftovers import Leftovers, raw_files, raw_rows, write_queues
from ctcore.governance.consent import Statement, set_consent
from ctcore.lineage.containment import containment_of
from ctcore.project import Project
from ctcore.store.manifest import SIDECAR, version_in_sidecar
from tests.governance.test_gate_everywhere import CHAIN
from tests.helpers.kit import STEPS, again, make_all, make_project

KEY = "0123456789abcdef"


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Made with everybody; P1 has revoked consent since."""
    project = make_project(tmp_path / "toy", steps=STEPS + CHAIN)
    make_all(project)
    for scratch in ("results", "calls", "logs"):
        shutil.rmtree(project.work / scratch, ignore_errors=True)
    set_consent(project, ["P1"], Statement("revoked", form="form 1"))
    return again(project)


@pytest.fixture
def left(project: Project) -> Iterator[Leftovers]:
    with project.catalog.read() as connection:
        yield Leftovers(project, connection, containment_of(project, connection, "P1"))


def put(path: Path, text: object = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text if isinstance(text, str) else json.dumps(text))
    return path


def found(left: Leftovers) -> list[str]:
    """Beside the mirror of who is registered, which always goes."""
    return sorted({left.project.recorded(path) for path in left.paths()} - {"work/mirror"})


def call(node: tuple[str, str], **more: object) -> dict[str, object]:
    return {"node": node, "key": "ffff" * 8, "members": [], "edges": [], **more}


def test_nothing_lies_about_where_all_is_recorded(left: Leftovers) -> None:
    assert found(left) == []


def test_calls_and_results_by_node_member_input_and_key(left: Leftovers) -> None:
    key = next(one.key for one in left.found.makings.values())
    version = next(one.data_version for one in left.found.makings.values() if one.asset == "merged")
    work = left.project.work
    theirs = {
        "own": call(("counted", "A1")),
        "member": call(("joined", "all"), members=[["specimen", "S1", "specimens"]]),
        "input": call(("joined", "all"), edges=[["specimens", "merged", "S1", version]]),
        "key": call(("joined", "all"), key=key),
    }
    others = {"other": call(("counted", "A3")), "cohort": call(("joined", "all"), members=[["specimen", "S2", "x"]])}
    for name, said in {**theirs, **others}.items():
        put(work / "calls" / f"{name}.json", said)
        put(work / "slurm/batch/calls" / f"{name}.json", said)
    put(work / "calls/torn.json", "{")
    names = [f"{name}.json" for name in theirs]
    expected = [f"work/{folder}/{name}" for folder in ("calls", "slurm/batch/calls") for name in names]
    assert found(left) == sorted(expected)


def test_staged_folders_and_logs_of_their_nodes(left: Leftovers) -> None:
    (left.project.store.staging / f"counted~A1~{KEY}~x").mkdir(parents=True)
    (left.project.store.staging / f"counted~A3~{KEY}~x").mkdir()
    put(left.project.work / "logs/counted/A1/1.log")
    put(left.project.work / "logs/counted/A3/1.log")
    staged = left.project.recorded(left.project.store.staging / f"counted~A1~{KEY}~x")
    assert found(left) == sorted([staged, "work/logs/counted/A1"])


def test_unrecorded_folders_and_what_was_made_from_them(left: Leftovers) -> None:
    """The second names nobody, but was made from the content of the first."""
    first, second = (unrecorded(left, step, n) for n, step in enumerate(("joined", "after1")))
    said = json.loads(second.read_bytes())
    version = version_in_sidecar(json.loads(first.read_bytes()))
    put(second, {**said, "inputs": [["before", "joined", "all", version]]})
    assert sorted(left.unrecorded) == [second.parent, first.parent]


def unrecorded(left: Leftovers, step: str, digit: int) -> Path:
    """The sidecar of another result of a step, with other bytes, of which no ledger knows."""
    (folder,) = (left.project.store.root / step / "all").iterdir()
    side = json.loads((folder / SIDECAR).read_bytes())
    side["store"]["files"]["table.tsv"]["digest"] = str(digit) * 64
    return put(folder.with_name(KEY) / SIDECAR, side)


def test_who_has_them_inside_is_told_by_members_and_inputs(left: Leftovers) -> None:
    side = json.loads((next((left.project.store.root / "joined/all").iterdir()) / SIDECAR).read_bytes())
    assert left.takes(side["members"], side["inputs"])
    assert left.takes([["specimen", "S1", "x"]], []) and not left.takes([["specimen", "S2", "x"]], [])
    assert not left.takes([], [["specimens", "merged", "S2", "v"]]) and not left.takes(None, None)


def test_raw_files_say_which_may_be_removed(left: Leftovers) -> None:
    root = left.project.root
    linked = put(root / "elsewhere.txt", "reads")
    (root / "reads/A2.txt").unlink()
    (root / "reads/A2.txt").symlink_to(linked)
    listed = raw_files(raw_rows(left.connection, left.found), left.project)
    assert [(one["id"], one["inside"], one["there"]) for one in listed] == [("A1", True, True), ("A2", False, True)]


def test_a_torn_request_may_be_anybodys(left: Leftovers) -> None:
    queue = left.project.work / "together/record-1"
    torn = put(queue / "1.ask", "{")
    sides = {who: {"members": [["patient", who, ""]], "inputs": []} for who in ("P1", "P2")}
    mine, _ = (put(queue / f"{who}.ask", {"body": [{"side": sides[who]}]}) for who in sides)
    assert queue in write_queues(left.project)
    assert sorted(left.asked()) == [torn, mine]
