"""Raw files by where they really are: what has a file in common, and what a role may be."""

import os
from pathlib import Path

import pytest

from ctcore.intake.raw_places import (
    InsideProblem,
    RawFile,
    RawKinds,
    RawPlaces,
    RegisteredPlaces,
    registered_around,
    registered_inside,
)
from ctcore.project import Project
from ctcore.store.digest import Signature
from tests.helpers.raw_folders import make_project, registered


@pytest.fixture
def project(tmp_path: Path) -> Project:
    found = make_project(tmp_path / "toy")
    registered(found)
    return found


def raw(project: Project, who: str, place: str, is_folder: bool = True) -> RawFile:
    return RawFile(("assay", who), "pod5" if is_folder else "reads", str(project.root / place), is_folder)


def test_only_folders_have_others_files_in_them(project: Project) -> None:
    one, near = raw(project, "A1", "raw/A1"), raw(project, "A3", "raw/A10")
    file = raw(project, "A2", "raw/A1.txt", is_folder=False)
    places = RawPlaces(project, [one, near, file])
    assert [places.other(each) for each in (one, near, file)] == [None] * 3, "a longer name is no folder"
    inner = raw(project, "A4", "raw/A1/skip/b.pod5", is_folder=False)
    both = RawPlaces(project, [one, near, inner])
    assert both.other(one) == inner and both.other(inner) == one and both.other(near) is None


def test_two_roles_of_one_assay_are_two_raw_files(project: Project) -> None:
    one, other = raw(project, "A1", "raw/A1"), raw(project, "A1", "raw/A1/skip")._replace(role="fast5")
    assert RawPlaces(project, [one, other]).other(one) == other


def test_a_link_on_the_way_leads_to_the_same(project: Project) -> None:
    (project.root / "links").symlink_to("raw")
    one, other = raw(project, "A1", "raw/A1"), raw(project, "A3", "links/A1/skip")
    assert RawPlaces(project, [one, other]).other(other) == one


def test_what_is_registered_is_found_in_both_directions(project: Project) -> None:
    with project.catalog.read() as connection:
        around = {
            place: registered_around(project, connection, project.root / place) for place in ("raw", "raw/A1/x/y")
        }
        inside = {
            place: registered_inside(project, connection, project.root / place) for place in ("raw", "raw/A1", ".")
        }
    assert around == {"raw": [], "raw/A1/x/y": ["raw/A1"]}
    assert {place: sorted(found) for place, found in inside.items()} == {
        "raw": ["raw/A1", "raw/A2", "raw/A3"],
        "raw/A1": [],
        ".": ["raw/A1", "raw/A2", "raw/A3"],
    }
    assert RegisteredPlaces(project).wrong(str(project.root / "raw" / "A1")) is None


def test_what_lies_there_is_what_ct_toml_says(project: Project) -> None:
    kinds, folder, file = RawKinds(project), project.root / "raw" / "A1", project.root / "genome.txt"

    def said(role: str, place: Path) -> Signature | str:
        return kinds.signature(role, str(place), os.stat(place))

    assert said("pod5", file) == "not a folder, but a file"
    assert said("reads", folder) == "not a regular file, but a folder"
    assert isinstance(said("pod5", folder), Signature) and said("former", file) == Signature.of(file)
    assert isinstance(said("former", folder), Signature), "a role that is declared no more is what lies there"
    (folder / "x").symlink_to("nowhere")
    assert isinstance(words := said("pod5", folder), InsideProblem) and "x is a link to nothing" in words
    assert "x" not in words.kept.split()
