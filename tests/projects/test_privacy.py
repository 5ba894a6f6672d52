"""What is of patients is not readable for everybody on the host, unless ct.toml says so."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from ctcore.project import Project
from ctcore.projects.permissions import CLOSED
from tests.helpers.kit import TOML, make_all, make_project
from tests.helpers.shell import ct


@pytest.fixture(autouse=True)
def _usual() -> Iterator[None]:
    """The umask of most hosts: others may read what is made."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def wide(root: Path) -> set[str]:
    """What is there of a project, and others may read."""
    there = [root / name for name in CLOSED if (root / name).exists()]
    return {path.name for path in there if stat.S_IMODE(path.stat().st_mode) & stat.S_IRWXO}


def group(root: Path, name: str) -> int:
    return stat.S_IMODE((root / name).stat().st_mode) & stat.S_IRWXG


def test_a_new_project_is_for_its_owner_and_group(tmp_path: Path) -> None:
    root = tmp_path / "cohort"
    assert ct("init", root).code == 0
    assert ct("-C", root, "register", "patient", "P1").code == 0
    project = Project.find(root)
    with project.catalog.write() as writer:
        writer.event("look", "x", 1)
        assert {"catalog.db", "catalog.db-wal", "provenance.jsonl", "store", "work", "dagster_home"} <= {
            name for name in CLOSED if (root / name).exists()
        }
        assert wide(root) == set()
    assert group(root, "catalog.db") & stat.S_IRGRP and group(root, "store") & stat.S_IRGRP
    assert "everybody on this host" not in ct("-C", root, "verify").err


def test_of_a_project_of_before_verify_says_it_and_init_ends_it(tmp_path: Path) -> None:
    project = make_project(tmp_path / "toy")
    make_all(project)
    for name in ("catalog.db", "provenance.jsonl"):
        (project.root / name).chmod(0o644)
    said = ct("-C", project.root, "verify")
    assert (
        said.code == 0
        and "everybody on this host may read catalog.db, provenance.jsonl, store, work: `ct init" in said.err
    )
    assert ct("init", project.root).code == 0
    assert wide(project.root) == set() and "everybody" not in ct("-C", project.root, "verify").err
    (project.root / "ct.toml").write_text(TOML.replace('id = "toy"', 'id = "toy"\nreadable = "everybody"'))
    assert ct("init", project.root).code == 0
    assert wide(project.root) >= {"catalog.db", "provenance.jsonl", "store", "work"}
    assert "everybody" not in ct("-C", project.root, "verify").err


def test_what_a_recovery_makes_is_private_too(tmp_path: Path) -> None:
    project = make_project(tmp_path / "toy")
    project.catalog.engine.dispose()
    with (project.root / "provenance.jsonl").open("ab") as stream:
        stream.write(b"half a li")
    for path in project.root.glob("catalog.db*"):
        path.unlink()
    assert ct("-C", project.root, "recover").code == 0
    assert wide(project.root) <= {"store", "work"}, "which were there before"
    assert (project.root / "set-aside/1/provenance.jsonl").exists()


def test_who_may_read_is_one_of_two(tmp_path: Path) -> None:
    project = make_project(tmp_path / "toy")
    (project.root / "ct.toml").write_text(TOML.replace('id = "toy"', 'id = "toy"\nreadable = "all"'))
    said = ct("-C", project.root, "status")
    assert said.code == 1 and "[project] readable = 'all': one of group, everybody" in said.err
