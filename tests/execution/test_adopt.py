"""What another pipeline made, adopted with its story: as true, as stale and as excluded as anything that ct makes."""

import hashlib
import json
from pathlib import Path

import pytest

from ctcore.catalog.tables import materialization
from ctcore.errors import Usage
from ctcore.execution.adopt import AdoptedFiles, Story, adopt
from ctcore.execution.known_files import known_files
from ctcore.execution.named_inputs import NamedInputs
from ctcore.governance.consent import Statement, set_consent
from ctcore.inputs.key import cache_hits, current_edges, prepare
from ctcore.lineage.explain import why
from ctcore.planning.plan import plan
from ctcore.staleness.verdicts import evaluate
from ctcore.store.digest import try_digests
from ctcore.store.folder_content import keep_listing, try_contents
from tests.helpers.adopted import BY, JOINT, NODE, project_with, take, vcf
from tests.helpers.kit import ROWS, add, again, assay, fail, make, make_all


def test_a_joint_call_is_adopted_with_members_and_roles(tmp_path: Path) -> None:
    project = project_with(tmp_path)
    assert evaluate(project).of(*NODE).state == "missing"
    take(project, vcf(tmp_path))
    assert evaluate(project).of(*NODE).state == "fresh"
    made = why(project, NODE).made
    assert made is not None
    assert made["facts"] == {"made_by": "GLnexus at the centre", "tools": "glnexus 1.4.3"}
    side = project.store.sidecar(Path(made["path"]))
    assert side["members"] == [["assay", "A1", "normal"], ["assay", "A2", "tumour"], ["assay", "A3", "tumour"]]
    assert "made elsewhere by GLnexus at the centre" in why(project, NODE).text
    assert make_all(again(project)) == {"report/all": "made"}


def test_run_never_makes_it_and_names_the_way_out(tmp_path: Path) -> None:
    project = project_with(tmp_path)
    assert make_all(project) == {"report/all": "blocked"}
    (outcome,) = make(project, "joint", "all")
    assert outcome.state == "blocked"
    assert outcome.why.endswith("made elsewhere: `ct adopt joint/all …`")
    left = {one.step: [(g.kind, g.words) for g in one.excluded] for one in plan(project).steps}
    assert left["joint"] == [("left alone", "made elsewhere: `ct adopt joint/all …`")]
    assert left["report"] == [("left alone", "waits for joint/all, which is made elsewhere: `ct adopt joint/all …`")]


def test_it_is_stale_for_what_it_was_made_from(tmp_path: Path) -> None:
    project = project_with(tmp_path)
    take(project, vcf(tmp_path))
    add(project, [*ROWS, assay("P3", "S3", "A4")])
    make(project, "counted", "A4")
    assert set(evaluate(project).of(*NODE).kinds) >= {"member-added"}
    take(project, vcf(tmp_path, "with A4\n"))
    assert evaluate(project).of(*NODE).state == "fresh"
    fail(project, "A4")
    assert evaluate(project).of(*NODE).kinds == ("member-removed",)


def test_another_parameter_makes_it_stale(tmp_path: Path) -> None:
    project = project_with(tmp_path)
    take(project, vcf(tmp_path), Story("us", params={"min_quality": "30"}))
    (one,) = evaluate(project).of(*NODE).reasons
    assert str(one) == "parameters: min_quality 30 → 20"


def test_named_members_are_as_they_were_used(tmp_path: Path) -> None:
    project = project_with(tmp_path)
    take(project, vcf(tmp_path), Story("us", named=NamedInputs(members=["A1=tumour", "A2"])))
    said = {(one.kind, one.node) for one in evaluate(project).of(*NODE).reasons}
    assert said == {("member-role", ("assay", "A1")), ("member-added", ("counted", "A3"))}


def test_members_named_by_patient_are_all_of_the_patient(tmp_path: Path) -> None:
    project = project_with(tmp_path)
    take(project, vcf(tmp_path), Story("us", named=NamedInputs(members=["patient/P1"])))
    used = {one.partition for one in current_edges(project, NODE) if one.input == "counts"}
    assert used == {"A1", "A2"}


def test_a_named_member_need_not_be_one_today(tmp_path: Path) -> None:
    project = project_with(tmp_path)
    with (project.root / "ct.toml").open("a") as stream:
        stream.write('\n[cohorts.women]\nwhere = { "patient.sex" = "F" }\n')
    project = again(project)
    story = Story("us", named=NamedInputs(members=["A1", "A2", "A3"]))
    adopt(project, project.steps["joint"], [AdoptedFiles("women", {"vcf": vcf(tmp_path)})], story)
    said = {(one.kind, one.node) for one in evaluate(project).of("joint", "women").reasons}
    assert said == {("member-removed", ("counted", "A3"))}


def test_a_named_reference_is_the_one_that_was_used(tmp_path: Path) -> None:
    project = project_with(tmp_path)
    toml = (project.root / "ct.toml").read_text()
    (project.root / "genome.txt").write_text("ACGTT\n")
    (project.root / "ct.toml").write_text(toml.replace('version = "1"', 'version = "2"'))
    project = again(project)
    add(project, ROWS)
    make_all(project)
    take(project, vcf(tmp_path), Story("us", named=NamedInputs(references={"genome": "1"})))
    assert evaluate(project).of(*NODE).kinds == ("reference",)
    with pytest.raises(Usage, match="no such version is on record; there is: 2, 1"):
        take(project, vcf(tmp_path), Story("us", named=NamedInputs(references={"genome": "3"})))


def test_a_named_input_is_the_making_that_was_used(tmp_path: Path) -> None:
    project = project_with(tmp_path)
    first = {one.partition: one.version for one in current_edges(project, ("joined", "all"))}
    assert first
    before = {one.node[1]: one.data_version for one in make(project, "counted", "A1")}["A1"]
    (project.root / "reads" / "A1.txt").write_text("other reads of A1\n")
    add(project, ROWS)
    make_all(project)
    named = NamedInputs(inputs=[f"counted/A1@{(before or '')[:12]}"])
    take(project, vcf(tmp_path), Story("us", named=named))
    (one,) = evaluate(project).of(*NODE).reasons
    assert (one.kind, one.node, one.old) == ("input", ("counted", "A1"), before)


def test_who_is_excluded_is_no_member_of_what_is_adopted(tmp_path: Path) -> None:
    project = project_with(tmp_path)
    set_consent(project, ["P2"], Statement("revoked", form="form 12"))
    with pytest.raises(Usage, match=r"member assay/A3 cannot be used: .*revoked"):
        take(project, vcf(tmp_path), Story("us", named=NamedInputs(members=["A1", "A3"])))
    take(project, vcf(tmp_path))
    assert {one.partition for one in current_edges(project, NODE) if one.input == "counts"} == {"A1", "A2"}


def test_every_problem_is_told_and_nothing_written(tmp_path: Path) -> None:
    project = project_with(tmp_path)
    files = AdoptedFiles("all", {"vcf": tmp_path / "none.vcf", "bam": tmp_path}, {"vcf": "xyz"})
    named = NamedInputs(members=["A9"], inputs=["merged/S1"], references={"genom": "1"})
    with pytest.raises(Usage) as error:
        adopt(project, project.steps["joint"], [files], Story(" ", params={"depth": "1"}, named=named))
    said = str(error.value)
    for part in ("--made-by", "no output 'bam'", "no parameter 'depth'", "none.vcf"):
        assert part in said
    with pytest.raises(Usage) as error:
        adopt(project, project.steps["joint"], [files], Story("us", named=named))
    said = str(error.value)
    for part in ("no assay 'A9'", "takes nothing from 'merged'", "uses no such reference", "none.vcf"):
        assert part in said
    assert evaluate(project).of(*NODE).state == "missing"
    assert not (project.store.root / "joint").exists()


def test_a_checksum_is_compared_with_the_bytes(tmp_path: Path) -> None:
    project, path = project_with(tmp_path), vcf(tmp_path)
    with pytest.raises(Usage, match=r"md5 is [0-9a-f]{32}, and 0+ is stated"):
        take(project, path, checksums={"vcf": "0" * 32})
    take(project, path, checksums={"vcf": hashlib.md5(path.read_bytes()).hexdigest()})
    take(project, path, checksums={"vcf": f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"})


def test_the_same_adopted_twice_is_one_making(tmp_path: Path) -> None:
    project, path = project_with(tmp_path), vcf(tmp_path)
    take(project, path)
    first = why(project, NODE).made
    (told,) = adopt(project, project.steps["joint"], [AdoptedFiles("all", {"vcf": path})], BY)
    assert told.same
    second = why(project, NODE).made
    assert first and second and first["id"] == second["id"]
    take(project, vcf(tmp_path, "another call\n"))
    third = why(project, NODE).made
    assert third and third["id"] != first["id"]


def test_no_memo_takes_what_was_made_elsewhere(tmp_path: Path) -> None:
    project = project_with(tmp_path)
    take(project, vcf(tmp_path))
    (project.root / "steps" / "joint.toml").unlink()
    with (project.root / "steps" / "toy.py").open("a") as stream:
        stream.write(
            '\n\n@step(level="cohort", inputs={"counts": "counted"}, references=["genome"], role="assay.library",'
            ' outputs={"vcf": "joint.vcf"})\n'
            'def joint(call: Call) -> None:\n    call.out("vcf").write_text("a joint call\\n")\n'
        )
    project = again(project)
    assert "code" in evaluate(project).of(*NODE).kinds
    (outcome,) = make(project, "joint", "all")
    assert outcome.state == "made"
    (project.root / "steps" / "toy.py").write_text(
        (project.root / "steps" / "toy.py").read_text().partition('\n\n@step(level="cohort", inputs={"counts"')[0]
    )
    (project.root / "steps" / "joint.toml").write_text(JOINT)
    project = again(project)
    (outcome,) = make(project, "joint", "all")
    assert outcome.state == "blocked"


def test_its_key_is_that_of_no_call(tmp_path: Path) -> None:
    project = project_with(tmp_path)
    take(project, vcf(tmp_path))
    call = prepare(project, project.steps["joint"], ["all"]).ready["all"]
    assert cache_hits(project, [call]) == {}
    assert project.store.find(*NODE, call.key) is None


def test_the_lock_of_this_environment_does_not_count(tmp_path: Path) -> None:
    project = project_with(tmp_path)
    take(project, vcf(tmp_path))
    (project.root / "env.lock").write_text("pysam 0.23\n")
    with (project.root / "ct.toml").open("a") as stream:
        stream.write('\n[environment]\nlock = "env.lock"\n')
    found = evaluate(again(project))
    assert found.of(*NODE).kinds == ("upstream",) and found.of("joined", "all").kinds[0] == "environment"


def test_an_older_making_with_somebody_revoked_is_refused(tmp_path: Path) -> None:
    declared = JOINT.replace('counts = "counted"', 'counts = "counted", table = "joined"')
    project = project_with(tmp_path, declared)
    set_consent(project, ["P2"], Statement("revoked", form="form 12"))
    make_all(again(project))
    project = again(project)
    named = NamedInputs(inputs=["joined/all@previous"])
    with pytest.raises(Usage, match="joined/all@previous: somebody was inside who may not be used today"):
        take(project, vcf(tmp_path), Story("us", named=named))
    take(project, vcf(tmp_path), Story("us", named=NamedInputs(inputs=["joined/all@current"])))
    assert evaluate(project).of(*NODE).state == "fresh"


def test_what_ct_makes_cannot_be_adopted(tmp_path: Path) -> None:
    project = project_with(tmp_path)
    with pytest.raises(Usage, match="joined is made by ct"):
        adopt(project, project.steps["joined"], [AdoptedFiles("all", {"table": vcf(tmp_path)})], BY)


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    project = project_with(tmp_path)
    files = AdoptedFiles("all", {"vcf": vcf(tmp_path)})
    (one,) = adopt(project, project.steps["joint"], [files], BY, dry_run=True)
    assert one.number is None and one.members == 3
    assert evaluate(project).of(*NODE).state == "missing"
    assert not (project.store.root / "joint").exists()


def test_words_and_layout_of_a_declaration_do_not_count(tmp_path: Path) -> None:
    project = project_with(tmp_path)
    take(project, vcf(tmp_path))
    place = project.root / "steps" / "joint.toml"
    place.write_text("# a comment\n" + JOINT.replace("level =", 'description = "of the centre"\nlevel ='))
    assert evaluate(again(project)).of(*NODE).state == "fresh"
    place.write_text(JOINT.replace('"joint.vcf"', '"called.vcf"'))
    assert evaluate(again(project)).of(*NODE).kinds == ("code",)


def test_the_story_is_in_the_sidecar(tmp_path: Path) -> None:
    project = project_with(tmp_path)
    take(project, vcf(tmp_path))
    made = why(project, NODE).made
    assert made is not None
    side = json.loads((Path(made["path"]) / "ct.json").read_text())
    assert side["facts"]["made_by"] == "GLnexus at the centre"


def test_the_same_bytes_under_a_better_story_are_taken(tmp_path: Path) -> None:
    """Who is inside is what it was."""
    project = project_with(tmp_path)
    take(project, vcf(tmp_path))
    take(project, vcf(tmp_path), Story("GLnexus 1.4.3", reason="a slip of the pen"))
    assert evaluate(project).of(*NODE).state == "fresh"


def test_empty_files_are_no_evidence(tmp_path: Path) -> None:
    project = project_with(tmp_path)
    take(project, vcf(tmp_path, ""))
    add(project, [*ROWS, assay("P3", "S3", "A4")])
    make(project, "counted", "A4")
    take(project, vcf(tmp_path, ""))
    assert evaluate(project).of(*NODE).state == "fresh"


@pytest.mark.parametrize("place", ["genome.txt", "reads/A1.txt", "store"])
def test_files_that_the_project_has_are_not_adopted(tmp_path: Path, place: str) -> None:
    project = project_with(tmp_path)
    own = project.root / place if place != "store" else next(project.store.root.glob("merged/S1/*/n.txt"))
    with project.catalog.read() as connection:
        (problem,) = known_files(project, connection, [(NODE, (), [own])], try_digests([own])[0])
    assert problem.endswith(f"`ct trace {own}` says whose they are")
    with pytest.raises(Usage, match="the project has these bytes already"):
        take(project, own)
    with project.catalog.read() as connection:
        assert not connection.execute(materialization.select().where(materialization.c.asset == "joint")).all()


def test_a_file_of_a_raw_folder_is_not_adopted(tmp_path: Path) -> None:
    project = project_with(tmp_path)
    (tmp_path / "pod5").mkdir()
    (tmp_path / "pod5/a.pod5").write_bytes(vcf(tmp_path).read_bytes())
    try_contents([tmp_path / "pod5"], keep=lambda digest, text: keep_listing(project.store.root, digest, text))
    with pytest.raises(Usage, match="the project has these bytes already"):
        take(project, vcf(tmp_path))
