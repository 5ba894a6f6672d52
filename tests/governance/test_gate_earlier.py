"""An earlier making is gated by who was in it, and not by who is a member today."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ctcore.governance.consent import Statement, set_consent
from ctcore.governance.qc import Choice, QcEntry, resolve
from ctcore.governance.qc import add as add_qc
from ctcore.project import Project
from tests.governance.test_gate_everywhere import CHAIN, DEEP
from tests.helpers.kit import STEPS, TOML, again, make_all, make_project
from tests.helpers.shell import ct

REVOKED = Statement("revoked", dated="2024-01-20", form="withdrawal form 12")
ENDS = {
    "revoked": REVOKED,
    "ended": Statement("full", until="2020-01-01"),
    "pending": Statement("pending"),
    "limited": Statement("limited", ("commerce",), form="form 4"),
}
USES = '\n[consent]\nuses = ["research", "commerce"]\nuse = "research"\n'
FAR = [1, 2, DEEP]


IDS = re.compile(r"(?<!\w)(P1|S1|A1|A2)(?!\w)")


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Made with P1 and then without, and the other way round: whoever fails QC is taken no more."""
    return {first: _made(tmp_path_factory.mktemp("earlier") / first, first) for first in ("with", "without")}


def _made(root: Path, first: str) -> Path:
    project = make_project(root, toml=TOML + USES, steps=STEPS + CHAIN)
    for which in ("with", "without") if first == "with" else ("without", "with"):
        if which == "without":
            add_qc(project, [QcEntry("specimen", "S1", "qc_fail", "low yield")])
        elif first == "without":
            resolve(project, Choice(entity=("specimen", "S1")), "it was another tube")
        make_all(again(project))
    return root


Built = Callable[[str], Project]


@pytest.fixture
def built(both: dict[str, Path], tmp_path: Path) -> Built:
    """A copy that may be changed."""
    return lambda first: Project(shutil.copytree(both[first], tmp_path / "toy"))


def says(project: Project, *call: str) -> tuple[int, str]:
    """The exit code, and all that is said, but for what was typed."""
    said = ct("-C", project.root, *call)
    return said.code, said.out + said.err


@pytest.mark.parametrize("how", ENDS)
def test_an_earlier_making_with_a_person_shows_on_record_only(built: Built, how: str) -> None:
    project = built("with")
    assert says(project, "trace", "after2/all@previous")[0] == 0
    set_consent(project, ["P1"], ENDS[how])
    for far in FAR:
        before, now = f"after{far}/all@previous", f"after{far}/all@current"
        for call in (["trace"], ["trace", "--json"], ["trace", "--dot"], ["trace", "--all"], ["logs"], ["show"]):
            code, said = says(project, call[0], before, *call[1:])
            assert code == 2 and not IDS.search(said), (call, said)
            assert call[0] == "show" or f"{before} is excluded: 1 patient in it whose consent does not" in said
            code, said = says(project, call[0], now, *call[1:])
            assert code == (2 if call[0] == "show" else 0) and not IDS.search(said), (call, said)
        code, said = says(project, "trace", before, "--excluded", "--reason", "audit")
        assert code == 0 and "S1" in said


@pytest.mark.parametrize("how", ENDS)
def test_an_earlier_making_is_shown_without_names_or_digests(built: Built, how: str) -> None:
    project = built("with")
    set_consent(project, ["P1"], ENDS[how])
    for node in ("joined/all", *(f"after{far}/all" for far in FAR)):
        code, said = says(project, "diff", node, "--all")
        assert code == 3 and not IDS.search(said) and "table.tsv differs" in said, said
        sides = json.loads(ct("-C", project.root, "diff", node, "--json").out)
        assert (sides["a"]["folder"], sides["a"]["data_version"], sides["files"]) == (None, None, ["table.tsv differs"])
        assert sides["b"]["folder"] and sides["b"]["data_version"] and not IDS.search(json.dumps(sides))
    assert "S1" in says(project, "diff", "joined/all", "--excluded", "--reason", "audit")[1]


@pytest.mark.parametrize("how", ENDS)
def test_an_earlier_making_without_them_is_everybodys(built: Built, how: str) -> None:
    project = built("without")
    set_consent(project, ["P1"], ENDS[how])
    for far in FAR:
        before, now = f"after{far}/all@previous", f"after{far}/all@current"
        for command in ("trace", "logs"):
            assert says(project, command, now)[0] == 2
            code, said = says(project, command, before)
            assert code == 0 and not IDS.search(said)
        made = json.loads(ct("-C", project.root, "trace", before, "--json").out)["makings"]
        assert all(one["folder"] for one in made)


def test_a_former_steps_use_is_unknown_and_allows_nothing(built: Built) -> None:
    project = built("with")
    set_consent(project, ["P1"], ENDS["limited"])
    steps = project.root / "steps" / "toy.py"
    steps.write_text(steps.read_text().replace("def after5", "def after6"))
    project = again(project)
    assert says(project, "trace", "after5/all@previous")[0] == 2
    assert says(project, "trace", "after5/all@current")[0] == 0


def test_logs_of_failed_quality_are_hidden_like_todays(built: Built) -> None:
    project = built("with")
    code, said = says(project, "logs", "after2/all@previous")
    assert code == 2 and "somebody is in it who may not be used today" in said
    assert says(project, "trace", "after2/all@previous")[0] == 0


def test_folders_of_readable_intermediates_are_shown(built: Built) -> None:
    """The join is for commerce, and what is made of it for research, to which P1 consents."""
    project = built("with")
    (project.root / "ct.toml").write_text(f'{TOML}{USES}[consent.steps]\njoined = "commerce"\n')
    resolve(project, Choice(entity=("specimen", "S1")), "it was another tube")
    set_consent(project, ["P1"], Statement("limited", ("research",), form="form 4"))
    made = json.loads(ct("-C", project.root, "trace", "after1/all@previous", "--json").out)["makings"]
    folders = {one["node"]: one["folder"] for one in made}
    assert folders["joined/all"] is None and folders["merged/S1"] and folders["after1/all"] is None
