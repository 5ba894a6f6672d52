"""`ct verify` leads to the purge that left something, and names nobody."""

import json
import re
from pathlib import Path

import pytest

from ctcore.deletion.proof import check, purge_findings
from ctcore.errors import Usage
from tests.helpers.kit import assay, make_all, make_project
from tests.helpers.purging import purge_patient
from tests.helpers.shell import ct


def test_a_finding_leads_to_its_purge_whatever_the_patients_id(tmp_path: Path) -> None:
    """The ID of a patient may be a number, and is no number of a purge."""
    project = make_project(tmp_path / "toy", [assay("17", "S1", "A1", sex="F"), assay("18", "S2", "A2", sex="F")])
    make_all(project)
    purge_patient(project, "17")
    folder = project.work / "together" / f"record-{project.catalog.write_queue}"
    folder.mkdir(parents=True, exist_ok=True)
    side = {"node": ["joined", "all"], "members": [["specimen", "S1", "member"]], "inputs": []}
    (folder / "1-x.ask").write_text(json.dumps({"actor": "x", "about": ["joined/all"], "body": [{"side": side}]}))
    (found,) = purge_findings(project)
    assert found.purge == 1 and "patient 17" in found.problem
    said = ct("-C", project.root, "verify").out
    assert "purge 1 has not removed everything; `ct purge --check 1` says what to do" in said
    assert not re.search(r"\b17\b", said), "names of ct's own folders are random, and may have these digits"


def test_a_check_of_a_purge_that_never_was_is_an_error(tmp_path: Path) -> None:
    project = make_project(tmp_path / "toy")
    with pytest.raises(Usage, match="no purge 3; `ct purge --list` lists all purges"):
        check(project, 3)
