"""`ct adopt`, and what other commands say of what was made elsewhere."""

import json
from pathlib import Path

from tests.helpers.adopted import project_with, vcf
from tests.helpers.shell import ct

WAY = "made elsewhere: `ct adopt joint/all …`"


def test_every_command_says_that_it_was_made_elsewhere(tmp_path: Path) -> None:
    root, path = project_with(tmp_path).root, vcf(tmp_path)
    words = ("--made-by", "GLnexus", "--tool", "glnexus=1.4.3", "--reason", "the centre's call")
    said = ct("-C", root, "adopt", "joint", "--output", f"vcf={path}", *words, "--member", "A1", "--member", "A2")
    assert said.code == 0 and "1 adopted, made elsewhere by GLnexus: the centre's call" in said.err
    for call in (["show", "joint/all"], ["trace", "joint/all"], ["show", "joint/all", "--json"]):
        assert "made elsewhere by GLnexus: the centre's call" in ct("-C", root, *call).out
    assert "glnexus 1.4.3" in ct("-C", root, "show", "joint/all").out
    assert "made_elsewhere" in ct("-C", root, "trace", "joint/all", "--code").out
    why = ct("-C", root, "why", "joint/all")
    assert why.code == 3 and "member-added: counted/A3" in why.out
    missing = json.loads(ct("-C", root, "status", "joint", "--missing", "--json").out)["missing"]
    assert [one["next"] for one in missing] == ["ct adopt joint/all"]
    below = json.loads(ct("-C", root, "status", "report", "--missing", "--json").out)["missing"]
    assert [one["next"] for one in below] == ["ct adopt joint/all"]
    told = ct("-C", root, "query", "SELECT reason FROM artifacts WHERE step = 'joint'")
    assert "made elsewhere by GLnexus" in told.out


def test_what_is_not_adopted_yet_names_the_way_out(tmp_path: Path) -> None:
    root = project_with(tmp_path).root
    for call in (["why", "joint/all"], ["path", "joint/all"], ["trace", "joint/all"], ["trace", "joint"]):
        said = ct("-C", root, *call)
        assert said.code and "made elsewhere: `ct adopt joint/" in said.out + said.err, call
    assert WAY in ct("-C", root, "plan").out
    again = ct("-C", root, "run", "--again", "joint/all")
    assert again.code == 2 and "joint cannot be made again here" in again.err


def test_a_folder_has_the_files_by_their_declared_names(tmp_path: Path) -> None:
    root, path = project_with(tmp_path).root, vcf(tmp_path)
    said = ct("-C", root, "adopt", "joint", "--folder", path.parent, "--made-by", "us", "--json")
    assert said.code == 0 and json.loads(said.out)[0]["members"] == 3
    again = ct("-C", root, "adopt", "joint", "--folder", path.parent, "--made-by", "us")
    assert "1 there already: the same files with the same story" in again.err
    none = ct("-C", root, "adopt", "joint", "--folder", root, "--made-by", "us")
    assert none.code == 2 and f"{root / 'joint.vcf'}: " in none.err


def test_a_wrong_call_says_what_is_wrong(tmp_path: Path) -> None:
    root, path = project_with(tmp_path).root, vcf(tmp_path)
    said = ct("-C", root, "adopt", "joint", "--output", f"vcf={path}")
    assert said.code == 2 and "--made-by" in said.err
    said = ct("-C", root, "adopt", "joint", "--sheet", path, "--output", "vcf=x", "--made-by", "us")
    assert said.code == 2 and "--sheet names the files of many nodes" in said.err
    said = ct("-C", root, "adopt", "joined/all", "--output", f"table={path}", "--made-by", "us")
    assert said.code == 2 and "joined is made by ct (toy.py)" in said.err
