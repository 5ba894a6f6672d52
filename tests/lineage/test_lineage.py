"""Impact, trace and diff: what was made from what, by the ledger, on real parts and on made-up ledgers."""

import json
from collections import defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, insert, select, update

from ctcore.catalog.tables import artifact, edge, entity, materialization, recipe
from ctcore.errors import Usage
from ctcore.governance.masking import UNMASKED
from ctcore.intake.raw_files import look
from ctcore.lineage.diff import diff, find_pair
from ctcore.lineage.impact import Impact, impact
from ctcore.lineage.target import find_target
from ctcore.lineage.trace import Trace, trace
from ctcore.model.masked_text import Words
from ctcore.model.node import name_of
from ctcore.project import Project
from ctcore.store.digest import digest_files
from tests.helpers.costs import costs
from tests.helpers.kit import ROWS, STEPS, TOML, add, again, make_all, make_project, write_sheet
from tests.helpers.shell import ct

ALL = {f"counted/A{n}" for n in (1, 2, 3)} | {"merged/S1", "merged/S2", "joined/all"}


told = UNMASKED.mask_words


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Everything made once. Only read."""
    project = make_project(tmp_path_factory.mktemp("made"))
    make_all(project)
    return again(project)


@pytest.fixture
def own(tmp_path: Path, catalog_url: str) -> Project:
    """Everything made once, on either database; a test's own."""
    project = make_project(tmp_path / "own")
    make_all(project)
    return again(project)


def built_from(project: Project, text: str) -> Impact:
    return impact(project, find_target(project, text, every=True))


def current(found: Impact) -> set[str]:
    return {name_of(one.making.node) for one in found.affected if one.making.current}


def traced(project: Project, text: str) -> Trace:
    return trace(project, find_target(project, text))


def nodes(found: Trace) -> list[str]:
    return [name_of(found.lineage.makings[number].node) for number in found.depths]


def changed_reads(project: Project, who: str = "A1") -> Project:
    """The project after other reads of an assay went all the way down."""
    (project.root / "reads" / f"{who}.txt").write_text("other reads, and longer ones\n")
    look(project)
    make_all(again(project))
    return again(project)


# Impact


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("P1", {"counted/A1", "counted/A2", "merged/S1", "joined/all"}),
        ("S2", {"counted/A3", "merged/S2", "joined/all"}),
        ("A3", {"counted/A3", "merged/S2", "joined/all"}),
        ("genome", ALL),
        ("reference/genome", ALL),
        ("merged/S1", {"merged/S1", "joined/all"}),
        ("joined", {"joined/all"}),
        ("all", {"joined/all"}),
    ],
)
def test_everything_that_was_built_from_it_is_found(made: Project, asked: str, expected: set[str]) -> None:
    assert current(built_from(made, asked)) == expected


def test_both_databases_find_the_same(own: Project) -> None:
    assert current(built_from(own, "P1")) == {"counted/A1", "counted/A2", "merged/S1", "joined/all"}
    assert nodes(traced(own, "joined"))[0] == "joined/all" and set(nodes(traced(own, "joined"))) == ALL
    project = changed_reads(own)
    assert [r.node for r in diff(project, find_pair(project, "joined", None)).roots] == [("assay", "A1")]
    digest = digest_files([own.root / "reads" / "A3.txt"])[own.root / "reads" / "A3.txt"]
    assert current(built_from(own, digest[:12])) == {"counted/A3", "merged/S2", "joined/all"}


def test_counts_and_sizes_are_those_of_the_store(made: Project) -> None:
    rows = {row.step: row for row in built_from(made, "P1").rows()}
    assert [(row.level, row.step, row.nodes, row.earlier) for row in rows.values()] == [
        ("assay", "counted", 2, 0),
        ("specimen", "merged", 1, 0),
        ("cohort", "joined", 1, 0),
    ]
    on_disk = sum(path.stat().st_size for path in made.store.root.glob("counted/A[12]/*/n.txt"))
    assert rows["counted"].size == on_disk > 0


def test_an_earlier_making_counts_if_it_was_built_from_it(own: Project) -> None:
    before = digest_files([own.root / "reads" / "A1.txt"]).popitem()[1]
    project = changed_reads(own)
    rows = {row.step: (row.nodes, row.earlier) for row in built_from(project, "A1").rows()}
    assert rows == {"counted": (1, 1), "merged": (1, 1), "joined": (1, 1)}
    found = built_from(project, before)
    assert {row.step: (row.nodes, row.earlier) for row in found.rows()} == {
        "counted": (0, 1),
        "merged": (0, 1),
        "joined": (0, 1),
    }, "nothing that is current has the former reads inside"
    assert any("former content of assay/A1" in told(note) for note in found.target.notes)


def test_a_former_patient_leads_to_a_moved_specimens_results(own: Project) -> None:
    rows = [{**row, "patient_id": "P2", "sex": "M", "age": "50"} for row in ROWS]
    said = ct("-C", own.root, "register", write_sheet(own.root, rows), "--reparent", "S1", "--yes")
    assert said.code == 0, said.err
    found = built_from(again(own), "P1")
    assert (
        current(found)
        == {"counted/A1", "counted/A2", "merged/S1", "joined/all"}
        == {name_of(one.making.node) for one in found.former}
    )
    assert found.former[0].former is not None
    assert told(found.former[0].former).startswith("specimen/S1 belonged to patient/P1 until ")
    assert built_from(again(own), "P2").former == []
    listed = ct("-C", own.root, "impact", "P1")
    assert listed.code == 3 and "4 artifacts would not have P1 inside today" in listed.err


def test_an_artifact_that_todays_rule_would_not_make_is_told(tmp_path: Path) -> None:
    """Also where the step reads a column of its members, which is an edge from each member itself."""
    steps = STEPS.replace('"specimens": "merged"},', '"specimens": "merged"}, columns=["patient.sex"],')
    own = make_project(tmp_path / "own", steps=steps)
    make_all(own)
    toml = own.root / "ct.toml"
    toml.write_text(TOML.replace("[cohorts.all]", '[cohorts.all]\nwhere = { "patient.sex" = "M" }'))
    found = built_from(again(own), "P1")
    assert {name_of(one.making.node): told(one.former or Words()) for one in found.former} == {
        "joined/all": "joined/all: member-removed: merged/S1 as specimens, "
        "the rule changed: everybody → patient.sex is M"
    }
    assert built_from(again(own), "P2").former == []


def test_a_removed_step_is_still_in_the_ledger(own: Project) -> None:
    steps = own.root / "steps" / "toy.py"
    steps.write_text(steps.read_text().partition('@step(level="cohort"')[0])
    project = again(own)
    found = built_from(project, "P1")
    assert {row.step: (row.level, row.nodes, row.former) for row in found.rows()}["joined"] == ("?", 1, 1)
    assert told(found.former[0].former or Words()) == "step joined is no longer declared"
    assert "merged/S1" in nodes(traced(project, "joined/all"))


def test_one_id_at_several_levels_means_all_of_them_and_says_so(tmp_path: Path) -> None:
    row = {"patient_id": "X", "specimen_id": "X", "assay_id": "X", "sex": "F", "age": "1"}
    project = make_project(tmp_path / "p", [row])
    make_all(project)
    found = built_from(again(project), "X")
    assert current(found) == {"counted/X", "merged/X", "joined/all"}
    assert list(map(told, found.target.notes)) == [
        "X names several: patient/X, specimen/X, assay/X; all of them are meant"
    ]


# Trace


def test_a_trace_goes_down_to_the_sheet_and_the_raw_files(made: Project) -> None:
    said = ct("-C", made.root, "trace", "joined").out
    lines = [line.strip() for line in said.splitlines()]
    for wanted in ("patient.sex of S1", "parameters factor 1"):
        assert wanted in lines
    raw = next(line for line in lines if line.startswith("reads: assay/A2"))
    assert raw.endswith("reads/A2.txt  from sheet.csv")
    assert any(line.startswith("reference/genome  1 ") and line.endswith("genome.txt") for line in lines)
    assert lines[-1] == "in all: 1 joined, 2 merged, 3 counted, 2 columns, 3 files, 1 reference"
    values = {"F", "M"}
    assert not values & set(said.split()), "a column's value is a person's data"


def test_json_has_each_making_once_with_all_facts(made: Project) -> None:
    data = json.loads(ct("-C", made.root, "trace", "joined", "--json").out)
    assert {one["node"] for one in data["makings"]} == ALL and len(data["makings"]) == len(ALL)
    by_id = {one["materialization"]: one for one in data["makings"]}
    top = by_id[data["roots"][0]]
    assert [by_id[used["materialization"]]["node"] for used in top["inputs"]] == ["merged/S1", "merged/S2"]
    with made.catalog.read() as connection:
        edges = connection.execute(select(edge)).all()
    told = {(n["materialization"], u["input"], u["from"], u["version"]) for n in data["makings"] for u in n["inputs"]}
    assert told == {(e.materialization, e.input, f"{e.asset}/{e.partition}", e.version) for e in edges}
    assert {one["step"] for one in data["recipes"]} == {"counted", "merged", "joined"}
    assert all(one["files"] for one in data["makings"])


def test_a_file_without_its_path_is_found_by_its_bytes(own: Project, tmp_path: Path) -> None:
    lonely = tmp_path / "mail attachment (1).tsv"
    lonely.write_bytes(Path(ct("-C", own.root, "path", "joined", "table").out.strip()).read_bytes())
    assert nodes(traced(own, str(lonely)))[0] == "joined/all"
    project = changed_reads(own)
    found = traced(project, str(lonely))
    assert nodes(found)[0] == "joined/all" and not found.lineage.makings[found.roots[0]].current
    assert "which is no longer current" in told(found.target.notes[0])
    raw = tmp_path / "unknown.fastq"
    raw.write_bytes((own.root / "reads" / "A3.txt").read_bytes())
    assert traced(project, str(raw)).target.registered == [("assay", "A3")]
    (tmp_path / "copy").write_bytes((own.root / "genome.txt").read_bytes())
    assert traced(project, str(tmp_path / "copy")).target.registered == [("reference", "genome")]


def test_of_equal_files_the_named_one_is_meant(made: Project) -> None:
    """The toy counts of the three assays have the same bytes."""
    path = ct("-C", made.root, "path", "counted/A2", "n").out.strip()
    found = find_target(made, path)
    assert [name_of(one.node) for one in found.made.values()] == ["counted/A2"]
    elsewhere = find_target(made, digest_files([Path(path)])[Path(path)][:10])
    assert len(elsewhere.made) == 3 and "files of 3 nodes" in told(elsewhere.notes[0])


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("merged/S9", "no specimen 'S9' is registered"),
        ("mergd/S1", "did you mean 'merged'?"),
        ("nothing.vcf", "no step/partition, ID, cohort, reference or file of this name"),
        ("abcdef0123", "no content of this project begins with abcdef0123"),
        ("joined/all@77", "joined/all has no making '77'; it has: #"),
        ("joined/all@previous", "there is no previous making"),
        ("reads", "is a folder"),
        ("", "unknown"),
        ("@previous", "unknown"),
        ("/", "is a folder"),
    ],
)
def test_what_is_not_found_is_one_error_with_a_way_out(
    made: Project, asked: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(made.root)
    for command in ("trace", "impact"):
        found = ct(command, asked)
        assert (found.code, found.out) == (2, "") and said in found.err, found


def test_a_changed_copy_is_unknown_and_its_digest_is_told(made: Project, tmp_path: Path) -> None:
    (tmp_path / "x.tsv").write_text("edited\n")
    with pytest.raises(Usage, match="is unknown: neither an output of any making, nor a raw file, nor a reference"):
        find_target(made, str(tmp_path / "x.tsv"))


def test_what_differs_today_points_to_why(own: Project) -> None:
    (own.root / "reads" / "A1.txt").write_text("newer\n")
    look(own)
    said = ct("-C", own.root, "trace", "joined").out
    assert "joined/all  #6" in said and "(stale today: `ct why joined/all`)" in said.splitlines()[0]
    assert "  (today " in next(line for line in said.splitlines() if "reads: assay/A1" in line)


# Diff


def test_the_first_cause_is_named_and_the_root_is_found(own: Project) -> None:
    project = changed_reads(own)
    found = diff(project, find_pair(project, "joined", None))
    assert [reason.kind for reason in found.causes] == ["input"]
    assert [(r.kind, r.node, r.path) for r in found.roots] == [
        ("input", ("assay", "A1"), (("merged", "S1"), ("counted", "A1")))
    ]
    assert found.files and "the first difference is input: specimens (" in found.sentence
    assert told(found.causes[0].words).startswith("specimens (merged/S1) ")


def test_a_making_has_many_names_and_sides_can_be_swapped(own: Project) -> None:
    project = changed_reads(own)
    old, new = find_pair(project, "joined/all", None)
    version = {one.id: one.data_version for one in find_target(project, "joined/all", every=True).made.values()}
    assert find_pair(project, "joined", "@previous") == (new, old)
    assert find_pair(project, "joined@previous", "joined") == (old, new)
    assert find_pair(project, f"joined/all@{old}", f"joined/all@{version[new][:8]}") == (old, new)
    assert find_pair(project, "joined", f"@{version[old][:6]}") == (new, old)
    with pytest.raises(Usage, match="no earlier making"):
        find_pair(project, "merged/S2", None)


def test_code_parameters_members_and_references_are_each_told(own: Project) -> None:
    steps = own.root / "steps" / "toy.py"
    steps.write_text(steps.read_text().replace("factor: int = 1", "factor: int = 2"))
    (own.root / "genome.txt").write_text("TTTT\n")
    add(own, [*ROWS, {"patient_id": "P3", "specimen_id": "S3", "assay_id": "A9", "sex": "F", "age": "4"}])
    make_all(again(own))
    project = again(own)
    counted = diff(project, find_pair(project, "counted/A1", None))
    assert [reason.kind for reason in counted.causes] == ["parameters", "reference"]
    joined = diff(project, find_pair(project, "joined", None))
    assert {reason.kind for reason in joined.causes} == {"input", "member-added"}
    assert [told(r.words) for r in joined.causes if r.kind == "member-added"] == ["merged/S3 as specimens"]
    assert sorted(r.kind for r in joined.roots) == ["parameters", "reference"], "told once, not for each assay"


def test_two_nodes_differ_by_their_inputs_under_the_same_names(made: Project) -> None:
    found = diff(made, find_pair(made, "counted/A1", "counted/A3"))
    assert [reason.kind for reason in found.causes] == ["input"] and found.same_content
    words = [told(r.sentence) for r in diff(made, find_pair(made, "merged/S1", "merged/S2")).causes]
    assert words[0] == "metadata: patient.sex of S1 and S2 differs"


def test_the_exit_code_says_whether_they_differ(own: Project) -> None:
    assert ct("-C", own.root, "diff", "joined", "joined").code == 0
    project = changed_reads(own)
    said = ct("-C", project.root, "diff", "joined", "--json")
    assert said.code == 3 and json.loads(said.out)["roots"][0]["node"] == "assay/A1"


def test_other_bytes_from_the_same_inputs_are_told_as_such(own: Project) -> None:
    with own.catalog.write() as writer:
        _copy_last(writer, "joined")
    found = diff(again(own), find_pair(own, "joined/all@previous", "joined/all@99"))
    assert found and not found.causes
    assert found.sentence.endswith("the step gives other bytes each time it runs")


def _copy_last(writer: Any, asset: str) -> None:
    """The same call made again as #99, with other content."""
    row = writer.execute(select(materialization).where(materialization.c.asset == asset)).mappings().one()
    writer.execute(insert(materialization).values({**row, "id": 99, "data_version": "f" * 64}))
    edges = writer.execute(select(edge).where(edge.c.materialization == row["id"])).mappings().all()
    writer.insert(edge, [{**one, "materialization": 99} for one in edges])
    writer.execute(update(artifact).where(artifact.c.asset == asset).values(materialization=99))


def test_equal_bytes_are_followed_down_and_the_last_one_up(own: Project) -> None:
    with own.catalog.write() as writer:
        mine = (materialization.c.asset == "counted") & (materialization.c.partition == "A1")
        row = writer.execute(select(materialization).where(mine)).mappings().one()
        writer.execute(insert(materialization).values({**row, "id": 99, "key": "other"}))
        used = {"materialization": 99, "input": "reads", "asset": "assay", "partition": "A50", "version": "0" * 64}
        writer.insert(edge, [used])
    project = again(own)
    assert {name_of(one.making.node) for one in built_from(project, "A50").affected} == {
        "counted/A1",
        "merged/S1",
        "joined/all",
    }
    assert row["id"] in traced(project, "joined").depths and 99 not in traced(project, "joined").depths


def test_a_step_alone_means_all_its_nodes(made: Project) -> None:
    assert current(built_from(made, "counted")) == ALL
    with pytest.raises(Usage, match="counted has 3 nodes; name one, as in counted/A1"):
        traced(made, "counted")


# What is damaged or unknown


def test_an_edge_to_something_unknown_is_shown_and_not_dropped(own: Project) -> None:
    with own.catalog.write() as writer:
        first = writer.execute(select(materialization.c.id).where(materialization.c.asset == "joined")).scalar()
        lost = {"materialization": first, "version": "e" * 64}
        writer.insert(edge, [{**lost, "input": "x", "asset": "gone", "partition": "S1"}])
        writer.insert(edge, [{**lost, "input": "reads", "asset": "assay", "partition": "A77"}])
    said = ct("-C", own.root, "trace", "joined")
    assert said.out.count("(unknown to the catalog)") == 2 and "x: gone/S1  eeeeeeee" in said.out
    assert "2 unknowns" in said.out
    for option in ("--dot", "--mermaid"):
        assert ct("-C", own.root, "trace", "joined", option).out.count("unknown to the catalog") == 2
    found = built_from(again(own), "A77")
    assert current(found) == {"joined/all"}, "also what is not registered can be asked for"


def test_a_cycle_is_told_and_does_not_loop(own: Project) -> None:
    with own.catalog.write() as writer:
        rows = {(row.asset, row.partition): row for row in writer.execute(select(materialization))}
        low, high = rows["counted", "A1"], rows["joined", "all"]
        back = {"input": "back", "asset": "joined", "partition": "all", "version": high.data_version}
        writer.insert(edge, [{"materialization": low.id, **back}])
    for command in ("trace", "impact"):
        said = ct("-C", own.root, command, "joined")
        assert "the catalog is damaged: joined/all ← " in said.err, said
        assert said.out.count("\n") < 60
    assert diff(own, find_pair(own, "joined", "merged/S1"))


# Large ledgers


def ledger(project: Project, sources: list[list[int]]) -> None:
    """A ledger of which making i was made from the makings of sources[i]; steps that no code declares."""
    made, edges = [], []
    for number, mine in enumerate(sources, 1):
        row = {"id": number, "asset": "x", "partition": f"N{number}", "key": f"k{number}", "recipe": 1}
        more = {"data_version": f"{number:064x}", "folder": "f", "size": 1, "facts": "{}", "reason": "r"}
        made.append({**row, **more, "run_id": None, "started_at": "t", "seconds": 0.0, "reported": True})
        for one in mine:
            used = {"asset": "x", "partition": f"N{one}", "version": f"{one:064x}"}
            edges.append({"materialization": number, "input": "i", **used})
    same = ("asset", "partition", "recipe", "data_version", "key")
    with project.catalog.write() as writer:
        for table in (edge, artifact, materialization, recipe):
            writer.execute(delete(table))
        done = {"id": 1, "step": "x", "code": "c", "parameters": "{}", "environment": "{}", "digest": "d"}
        writer.insert(recipe, [done])
        writer.insert(materialization, made)
        writer.insert(edge, edges)
        now = [{**{name: row[name] for name in same}, "materialization": row["id"], "checked_at": None} for row in made]
        writer.insert(artifact, now)


@st.composite
def graphs(draw: st.DrawFn) -> list[list[int]]:
    size = draw(st.integers(1, 12))
    below = st.lists(st.integers(1, size), unique=True, max_size=4)
    return [[one for one in draw(below) if one < number] for number in range(1, size + 1)]


def naive_closure(sources: list[list[int]], start: int) -> set[int]:
    """The definition: the target, and whatever takes something of it, until nothing is added."""
    found = {start}
    while more := {n for n, mine in enumerate(sources, 1) if found & set(mine)} - found:
        found |= more
    return found


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """For made-up ledgers."""
    return make_project(tmp_path_factory.mktemp("bare"))


@settings(max_examples=60, deadline=None)
@given(graphs(), st.data())
def test_impact_and_trace_are_the_closure_of_the_edges(
    bare: Project, sources: list[list[int]], data: st.DataObject
) -> None:
    ledger(bare, sources)
    start = data.draw(st.integers(1, len(sources)))
    found = built_from(bare, f"x/N{start}")
    assert {one.making.id for one in found.affected} == naive_closure(sources, start)
    assert all(one.depth <= len(sources) for one in found.affected) and found.cycle == []
    up = traced(bare, f"x/N{start}")
    assert set(up.depths) == {n for n in range(1, len(sources) + 1) if start in naive_closure(sources, n)}


def test_the_closure_on_postgresql_is_the_same(tmp_path: Path, postgres_url: str, monkeypatch: Any) -> None:
    monkeypatch.setenv("CT_POSTGRES_URL", postgres_url)
    project = make_project(tmp_path / "p")
    sources = [[], [1], [1], [2, 3], [4, 1], [3], []]
    ledger(project, sources)
    for start in range(1, len(sources) + 1):
        found = {one.making.id for one in built_from(project, f"x/N{start}").affected}
        assert found == naive_closure(sources, start)


def layers(deep: int, wide: int, fan: int = 2) -> list[list[int]]:
    """Layers in which every making is made from a few of the layer below, and each of those has several users."""
    found: list[list[int]] = [[] for _ in range(wide)]
    for layer in range(1, deep):
        first = (layer - 1) * wide
        found += [[first + (at + k) % wide + 1 for k in range(fan)] for at in range(wide)]
    return found


def test_a_chain_of_ten_thousand_is_walked_printed_and_compared(bare: Project) -> None:
    ledger(bare, [[], *([number] for number in range(1, 10_000))])
    found = built_from(bare, "x/N1")
    assert len(found.affected) == 10_000 and found.affected[-1].depth == 9_999
    for options in ([], ["--all"], ["--json"], ["--dot"], ["--mermaid"]):
        said = ct("-C", bare.root, "trace", "x/N10000", *options)
        assert said.code == 0 and "N9999" in said.out and "x/N1" in said.out
    assert diff(bare, find_pair(bare, "x/N10000", "x/N9999"))


def test_a_hundred_layers_of_diamonds_are_visited_once(bare: Project) -> None:
    ledger(bare, layers(100, 1000))
    found = built_from(bare, "x/N1")
    assert len(found.affected) == sum(min(layer + 1, 1000) for layer in range(100))
    up = traced(bare, "x/N99001")
    assert len(up.depths) == len(found.affected) and max(up.depths.values()) == 99
    said = ct("-C", bare.root, "trace", "x/N99001").out
    assert said.count("\n") < 40_000 and "(shown above)" in said


@pytest.mark.parametrize("shape", ["chain", "diamonds"])
def test_walking_four_times_as_much_costs_four_times_as_much(shape: str) -> None:
    """Counted in SQLite's own instructions."""
    found: dict[str, list[int]] = defaultdict(list)
    for size in (500, 2000):
        sources = [[], *([n] for n in range(1, size))] if shape == "chain" else layers(size // 10, 10, fan=10)
        with TemporaryDirectory() as folder:
            project = make_project(Path(folder) / "p")
            ledger(project, sources)
            last = f"x/N{len(sources)}"
            found["down"].append(costs(project, lambda p=project: built_from(p, "x/N1")).instructions)
            found["up"].append(costs(project, lambda p=project, last=last: traced(p, last)).instructions)
    assert all(more < less * 4.6 for less, more in found.values()), found


def test_many_sources_are_summed_up_and_shown_on_request(bare: Project) -> None:
    ledger(bare, [*([] for _ in range(300)), list(range(1, 301))])
    few = ct("-C", bare.root, "trace", "x/N301").out
    assert "i: … and 295 more; --all shows them" in few and few.count("\n") < 30
    assert ct("-C", bare.root, "trace", "x/N301", "--all").out.count("i: x/N") == 300
    assert ct("-C", bare.root, "trace", "x/N301", "--dot").out.count("->") == 6
    assert ct("-C", bare.root, "trace", "x/N301", "--mermaid", "--all").out.count("-->") == 300


def test_entities_are_asked_for_as_a_set(bare: Project) -> None:
    """The number of statements does not follow the number of makings."""
    from sqlalchemy import event

    counts = []
    for size in (10, 200):
        ledger(bare, [[], *([n] for n in range(1, size))])
        seen: list[str] = []

        def count(*args: Any, seen: list[str] = seen) -> None:
            seen.append(args[2])

        event.listen(bare.catalog.engine, "before_cursor_execute", count)
        built_from(bare, "x/N1"), traced(bare, f"x/N{size}")
        event.remove(bare.catalog.engine, "before_cursor_execute", count)
        counts.append(len(seen))
    assert counts[0] == counts[1] < 40
    with bare.catalog.read() as connection:
        assert connection.execute(select(entity.c.id)).first() is not None
