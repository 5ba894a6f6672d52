"""What Dagster reads of a project: ct's files, which `ct init` replaces, and the group's own, which it leaves alone."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ctcore.cli.dev import workspaces
from ctcore.errors import ProjectError
from ctcore.project import Project
from ctcore.projects.code_files import (
    OWN_DEFINITIONS,
    OWN_SETTINGS,
    OWN_WORKSPACE,
    SETTINGS,
    WORKSPACE,
    refresh_settings,
    settings_with_own,
)
from ctcore.projects.dagster_home import environment
from ctcore.store.digest import tagged_digest
from tests.helpers.kit import STEPS, TOML
from tests.helpers.shell import ROOT, Said, ct

(EXAMPLE,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/operations.md").read_text(), re.DOTALL)
DEFINITIONS = EXAMPLE.replace("cohort_report", "joined").replace("reads_qc", "counted")
"""The page's example, with the steps of the toy project."""
LISTED = """
import dagster as dg, definitions
graph = definitions.defs.resolve_asset_graph()
print(sorted(key.to_user_string() for key in graph.get_all_asset_keys()))
print(definitions.defs.resolve_job_def("quality").name, definitions.defs.resolve_sensor_def("tell_us").name)
print(sorted(one.name for one in definitions.defs.sensors))
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / "cohort"
    assert ct("init", made, "--id", "toy").code == 0
    (made / "ct.toml").write_text(TOML)
    (made / "steps/toy.py").write_text(STEPS)
    return made


def loaded(root: Path, code: str = LISTED) -> Said:
    """A Python that loads the project's definitions, as Dagster's code server does."""
    variables = {**environment(Project.find(root)), "PYTHONPATH": os.pathsep.join([str(root), str(ROOT)])}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, env=variables, capture_output=True, text=True, check=False
    )
    return Said(done.returncode, done.stdout, done.stderr)


def test_a_groups_own_definitions_stand_beside_ours(root: Path) -> None:
    (root / OWN_DEFINITIONS).write_text(DEFINITIONS)
    assert ct("init", root).code == 0
    assert (root / OWN_DEFINITIONS).read_text() == DEFINITIONS
    said = loaded(root)
    assert said.code == 0, said.err
    keys, job, sensors = said.out.splitlines()
    assert "'letter'" in keys and "'counted'" in keys and job == "quality tell_us"
    assert sensors == "['integrity', 'jobs', 'sheet', 'staleness', 'tell_us']"


def test_own_definitions_without_defs_are_one_line(root: Path) -> None:
    (root / OWN_DEFINITIONS).write_text("assets = []\n")
    said = loaded(root, "import definitions")
    assert said.code == 1 and f"{root / OWN_DEFINITIONS} defines no `defs = dg.Definitions(...)`" in said.err


@pytest.mark.parametrize("name", ["definitions.py", WORKSPACE, SETTINGS, "sensors/jobs.py"])
def test_a_change_by_hand_is_kept_beside_and_said(root: Path, name: str) -> None:
    before = (root / name).read_text()
    (root / name).write_text(before + "\n# our own\n")
    said = ct("init", root)
    assert said.code == 0 and f"{name} was changed by hand: it is replaced" in said.err
    assert (root / name).read_text() == before
    assert (root / f"{name}.before").read_text() == before + "\n# our own\n"
    again = ct("init", root)
    assert "by hand" not in again.err and "is up to date" in again.err


def test_a_file_that_only_an_older_ct_wrote_is_replaced(root: Path) -> None:
    """Nobody changed it, so there is nothing to keep."""
    written = root / "ct_assets/.written.json"
    for name in ("definitions.py", "sensors/jobs.py"):
        now = (root / name).read_bytes()
        (root / name).write_text("of an older ct")
        record = written.read_text()
        written.write_text(record.replace(digest(now), digest(b"of an older ct")))
    said = ct("init", root)
    assert "by hand" not in said.err and not list(root.rglob("*.before"))
    assert (root / "definitions.py").read_text() != "of an older ct"


def digest(content: bytes) -> str:
    return tagged_digest("ct.code_file.v1", content)


def test_without_a_record_what_people_change_is_kept(root: Path) -> None:
    """A project of a ct that kept no digests."""
    (root / "ct_assets/.written.json").unlink()
    for name in ("definitions.py", "sensors/jobs.py"):
        (root / name).write_text("other")
    said = ct("init", root)
    assert said.err.count("by hand") == 1 and (root / "definitions.py.before").read_text() == "other"


def test_own_settings_are_joined_to_ours(root: Path) -> None:
    (root / OWN_SETTINGS).write_text("run_retries: {enabled: true}\nrun_queue: {tag_concurrency_limits: []}\n")
    for bring in (lambda: ct("init", root), lambda: environment(Project.find(root))):
        bring()
        found = yaml.safe_load((root / SETTINGS).read_text())
        assert found["run_retries"] == {"enabled": True}
        assert found["run_queue"] == {"max_concurrent_runs": 4, "tag_concurrency_limits": []}
        assert found["storage"]["custom"]["class"] == "CtStorage"
        (root / OWN_SETTINGS).write_text((root / OWN_SETTINGS).read_text().replace("retries: {en", "retries:  {en"))
    stamp = (root / SETTINGS).stat().st_mtime_ns
    refresh_settings(root)
    assert (root / SETTINGS).stat().st_mtime_ns == stamp, "nothing changed, so nothing is written"
    assert "by hand" not in ct("init", root).err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("storage: {sqlite: {}}\n", "storage is ct's own"),
        ("- a\n", "this is no mapping"),
        ("run_queue: [\n", "while parsing a flow"),
        ("\xff", "no mapping"),
    ],
)
def test_own_settings_that_cannot_be_are_refused(root: Path, text: str, said: str) -> None:
    (root / OWN_SETTINGS).write_text(text, encoding="utf-8")
    before = (root / SETTINGS).read_bytes()
    with pytest.raises(ProjectError, match=said) as error:
        settings_with_own(root, before)
    assert str(error.value).startswith(f"{root / OWN_SETTINGS}: ") and "\n" not in str(error.value)
    assert said in ct("init", root).err and (root / SETTINGS).read_bytes() == before


@pytest.mark.daemon
def test_own_code_locations_are_served_beside_ours(root: Path) -> None:
    """By Dagster's own look at what `ct dev` tells it."""
    assert workspaces(root) == ["-w", WORKSPACE]
    (root / "other.py").write_text("import dagster as dg\n\n\n@dg.asset\ndef elsewhere() -> None: ...\n")
    (root / OWN_WORKSPACE).write_text("load_from:\n  - python_file: other.py\n")
    assert ct("init", root).code == 0
    command = [Path(sys.executable).with_name("dagster"), "job", "list", *workspaces(root)]
    variables = {**environment(Project.find(root)), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=root, env=variables, capture_output=True, text=True, check=False)
    assert "Options are: ['other.py', 'toy']" in done.stderr
