"""Regions: references whose content is intervals, on a reference whose version is part of theirs."""

from pathlib import Path

import pytest
from sqlalchemy import select

from ctcore.catalog.tables import reference
from ctcore.config.settings import read_settings
from ctcore.errors import ProjectError
from ctcore.governance.masking import UNMASKED
from ctcore.intake.raw_files import look
from ctcore.lineage.impact import impact
from ctcore.lineage.target import find_target
from ctcore.model.node import name_of
from ctcore.model.reasons import reference_change
from ctcore.model.regions import parse_interval, read_bed
from ctcore.project import Project
from ctcore.staleness.verdicts import evaluate
from tests.helpers.kit import STEPS, TOML, again, make_all, make_project, reasons
from tests.helpers.shell import ct

REGIONS = """
[regions.exome]
reference = "genome"
bed = "exome.bed"

[regions.tp53]
intervals = ["17:7,661,779-7,687,538", "17:1-100"]
"""
STEP = '''

@step(level="specimen", inputs={"counts": "merged"}, references=["exome"], outputs={"n": "n.txt"})
def covered(call: Call) -> None:
    """How much of the exome there is."""
    call.out("n").write_text(str(call.intervals("exome")))


@step(level="specimen", inputs={"counts": "merged"}, references=["tp53"], outputs={"n": "n.txt"})
def narrow(call: Call) -> None:
    """One gene."""
    call.out("n").write_text(call.reference("tp53").read_text())
'''


@pytest.fixture
def project(tmp_path: Path, catalog_url: str) -> Project:
    (tmp_path / "exome.bed").write_text("# targets\n17\t10\t20\tfirst\n17\t30\t40\tsecond\n")
    made = make_project(
        tmp_path,
        steps=STEPS.replace('references=["genome"], ', "").replace("call.reference('genome').read_text()", "'x'")
        + STEP,
        toml=TOML + REGIONS,
    )
    make_all(made)
    assert reasons(made) == {}
    return made


def written(project: Project, old: str, new: str) -> Project:
    path = project.root / "ct.toml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    now = again(project)
    look(now)
    return now


def words(project: Project, node: str) -> list[str]:
    step, _, partition = node.partition("/")
    return [UNMASKED.mask_words(reason.sentence) for reason in evaluate(project).of(step, partition).reasons]


def test_a_step_reads_intervals_from_a_bed_file_or_from_ct_toml(project: Project) -> None:
    def made(step: str) -> str:
        return Path(ct("-C", project.root, "path", f"{step}/S1", "n").out.strip()).read_text()

    assert made("covered") == "[('17', 10, 20), ('17', 30, 40)]"
    assert made("narrow") == "17\t7661778\t7687538\n17\t0\t100\n"


def test_a_change_of_a_region_reaches_only_what_uses_it(project: Project) -> None:
    now = written(project, "17:1-100", "17:1-101")
    assert reasons(now) == {"narrow/S1": ["reference"], "narrow/S2": ["reference"]}
    assert words(now, "narrow/S1")[0].startswith("reference: tp53 content ")
    back = written(project, "17:1-101", "17:1-100")
    assert reasons(back) == {}
    (project.root / "exome.bed").write_text("17\t10\t21\n")
    look(again(project))
    assert reasons(again(project)) == {"covered/S1": ["reference"], "covered/S2": ["reference"]}


def test_a_bump_reaches_users_of_regions_on_the_reference(project: Project) -> None:
    said = ct(
        "-C",
        project.root,
        "reference",
        "bump",
        "genome",
        project.root / "genome.txt",
        "--version",
        "2",
        "--reason",
        "x",
    )
    assert said.code == 0, said.err
    assert [line for line in said.err.splitlines() if "would be" in line] == ["covered: 2 would be stale"]
    now = again(project)
    assert reasons(now) == {"covered/S1": ["reference"], "covered/S2": ["reference"]}
    assert words(now, "covered/S1") == ["reference: exome on genome version 1 → 2"]
    assert look(now).changes == [], "the region was recorded with it"
    assert ct("-C", project.root, "reference", "list").out.splitlines()[2].split("\t")[:3] == [
        "exome",
        "on genome",
        "region",
    ]
    back = written(project, 'version = "2"', 'version = "1"')
    assert reasons(back) == {}


def test_results_of_a_region_are_built_from_its_reference(project: Project) -> None:
    assert depths(project, "genome") == {"covered/S1": 2, "covered/S2": 2}
    assert depths(project, "exome") == {"covered/S1": 1, "covered/S2": 1}
    with project.catalog.read() as connection:
        digest = connection.execute(select(reference.c.digest).where(reference.c.key == "genome")).scalar_one()
    assert depths(project, digest) == {"covered/S1": 2, "covered/S2": 2}
    bumped = ("reference", "bump", "genome", project.root / "genome.txt", "--version", "2", "--reason", "x")
    assert ct("-C", project.root, *bumped).code == 0
    make_all(again(project))
    assert depths(again(project), "genome") == {"covered/S1": 2, "covered/S2": 2}, "those of before and of now"


def test_a_making_on_two_ways_counts_once_by_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "exome.bed").write_text("17\t10\t20\n")
    made = make_project(tmp_path, steps=STEPS + STEP, toml=TOML + REGIONS)
    make_all(made)
    found = depths(made, "genome")
    assert (found["counted/A1"], found["merged/S1"], found["covered/S1"], found["narrow/S1"]) == (1, 2, 2, 3)
    rows = impact(made, find_target(made, "genome", every=True)).rows()
    assert {row.step: row.nodes for row in rows} == {"counted": 3, "merged": 2, "covered": 2, "narrow": 2, "joined": 1}


def depths(project: Project, text: str) -> dict[str, int]:
    found = impact(project, find_target(project, text, every=True))
    return {name_of(one.making.node): one.depth for one in found.affected}


def test_a_region_off_the_new_genome_is_told_and_left(project: Project) -> None:
    written(project, 'version = "1"', 'version = "1"\nkind = "genome"')
    (project.root / "small.fa").write_text("A\n")
    (project.root / "small.fa.fai").write_text("17\t12\t4\t60\t61\n")
    bump = ("reference", "bump", "genome", project.root / "small.fa", "--version", "2", "--reason", "x")
    said = ct("-C", project.root, *bump)
    wrong = "region exome: exome.bed line 2: 17 has 12 bases, and 20 lies behind them"
    assert said.code == 0 and f"problem: {wrong}" in said.err
    assert look(again(project)).problems[0] == wrong
    assert reasons(again(project)) == {}
    (project.root / "exome.bed").write_text("17\t10\t12\n")
    look(again(project))
    assert words(again(project), "covered/S1")[0].startswith("reference: exome content ")


def test_a_region_that_names_no_reference_does_not_follow_one(project: Project) -> None:
    now = written(project, 'version = "1"', 'version = "2"')
    assert not [node for node in reasons(now) if node.startswith("narrow/")]


def test_the_work_folder_may_be_deleted(project: Project) -> None:
    place = project.settings.references["tp53"].path
    (project.root / place).unlink()
    now = again(project)
    look(now)
    assert reasons(now) == {} and (project.root / place).is_file()


@pytest.mark.parametrize(
    ("bed", "said"),
    [
        ("17\t10\n", "line 1: '17\\t10': chromosome, start and end are expected"),
        ("17\t1\t2\n17\t20\t20\n", "line 2: '17\\t20\\t20': the end is not behind the start"),
        ("# nothing\n", "has no intervals"),
        ("chr17\t1\t2\n", "line 1: chr17 is no sequence of the genome; it has 17, …"),
        ("17\t1\t200\n", "line 1: 17 has 100 bases, and 200 lies behind them"),
    ],
)
def test_a_bed_file_is_checked_against_its_genome(project: Project, bed: str, said: str) -> None:
    if "sequence" in said or "bases" in said:
        (project.root / "genome.txt.fai").write_text("17\t100\t4\t60\t61\n")
        written(project, 'version = "1"', 'version = "1"\nkind = "genome"')
    (project.root / "exome.bed").write_text(bed)
    now = again(project)
    assert look(now).problems == [f"region exome: exome.bed {said}"]
    assert reasons(now) == {}


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("[regions.r]\n", '[regions.r] needs bed = "…" (a BED file) or intervals'),
        ("[regions.r]\nbed = 'x'\nintervals = '1:1-2'\n", "[regions.r] needs bed"),
        ("[regions.r]\nintervals = '17'\n", "intervals '17': chromosome:start-end is expected"),
        ("[regions.r]\nintervals = '17:0-5'\n", "starts at 0; the first base is 1"),
        ("[regions.r]\nintervals = ['17:9-5']\n", "ends before it starts"),
        ("[regions.r]\nintervals = []\n", "intervals is empty"),
        ("[regions.r]\nintervals = [3]\n", "a text is expected"),
        ("[regions.r]\nbed = 'x'\nreference = 'genom'\n", "no such reference; did you mean 'genome'?"),
        ("[regions.genome]\nbed = 'x'\n", "[references.genome] has this key already"),
        ("[references.r]\npath = 'x'\nversion = '1'\nkind = 'region'\n", "write it as [regions.r]"),
        ("[regions.r]\nbed = 'x'\nversion = '1'\n", "unknown key 'version'"),
    ],
)
def test_what_is_wrong_with_a_region_is_named(tmp_path: Path, table: str, said: str) -> None:
    (tmp_path / "ct.toml").write_text(TOML + table)
    with pytest.raises(ProjectError, match=r".*") as refused:
        read_settings(tmp_path / "ct.toml")
    assert said in str(refused.value)


def test_intervals_count_from_one_with_both_ends(tmp_path: Path) -> None:
    assert parse_interval("HLA-A*01:01:1-1") == ("HLA-A*01:01", 0, 1)
    (tmp_path / "r.bed").write_text("track x\n17 0 1\n")
    assert read_bed(tmp_path / "r.bed") == [("17", 0, 1)]


@pytest.mark.parametrize(
    ("place", "keys"),
    [("17:20-30", ["exome", "tp53"]), ("17:21-30", ["tp53"]), ("17:7,580,000-7,700,000", ["tp53"]), ("18:1-99", [])],
)
def test_regions_at_a_place(tmp_path: Path, place: str, keys: list[str]) -> None:
    (tmp_path / "exome.bed").write_text("17\t10\t20\n")
    make_project(tmp_path, toml=TOML + REGIONS)
    rows = ct("-C", tmp_path, "reference", "list", "--at", place).out.splitlines()[1:]
    assert [row.split("\t")[0] for row in rows] == keys
    assert "is expected, as in chr17" in ct("-C", tmp_path, "reference", "list", "--at", "17").err


def test_what_of_a_region_differs_is_said_in_full() -> None:
    one, two, three = ("a" * 64, "b" * 64, "c" * 64)
    old, new = f"on genome GRCh37 17:1-9 {one} {three}", f"on genome GRCh38 {two} {two}"
    said = "r content cccccccc → bbbbbbbb and on genome version GRCh37 17:1-9 → GRCh38 and content aaaaaaaa → bbbbbbbb"
    assert reference_change("r", old, new) == said
    moved = f"on t2t 1 {two} {three}"
    assert reference_change("r", old, moved) == "r version on genome GRCh37 17:1-9 aaaaaaaa → on t2t 1 bbbbbbbb"
