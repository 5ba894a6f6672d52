"""What can be broken around a command: each is one message with a way out, no traceback, and nothing half-written."""

import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ctcore.errors import CtError
from ctcore.project import Project
from ctcore.staleness.verdicts import evaluate
from tests.helpers.kit import ROWS, TOML, assay, make_project, write_sheet
from tests.helpers.shell import contents, ct

ID = '[project]\nid = "toy"\n'
STEP = (
    'from ctcore.step import step\n@step(level="assay", outputs={{"a": "{file}"}}{more})\ndef late(call):\n    pass\n'
)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    return make_project(tmp_path / "own").root


# ct.toml


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        ("[project", "is not valid TOML"),
        ("", "[project] id ''"),
        ('[project]\nid = "x"', "3 to 64 of a-z"),
        (ID + "sheet = 5", "[project] sheet = 5: a text is expected"),
        (ID + '[stpes]\nfolders = ["steps"]', "unknown key 'stpes'; did you mean 'steps'?"),
        (ID + "[steps]\nfolders = 5", "[steps] folders = 5: a list of texts"),
        (ID + '[steps]\nfolders = "steps"', "[steps] folders = 'steps': a list of texts"),
        (ID + '[levels.assay]\nfiles = "reads"', "[levels.assay] files = 'reads': a list of texts"),
        (ID + '[levels.assay]\nid_pattern = "("', "id_pattern '(' is not a regular expression"),
        (ID + "[levels.patient.columns]\nsex = { enum = 5 }", "enum = 5: a list"),
        (ID + '[levels.patient.columns]\nsex = { required = "no" }', "required = 'no': true or false"),
        (ID + '[levels.patient.columns]\nage = "number"', "type 'number' is not one of text, integer"),
        (ID + '[run]\nworkers = "all"', "[run] workers = 'all': a whole number"),
        (ID + "[environment]\nlock = 5", "[environment] lock = 5: a text is expected"),
        (ID + '[references.genome]\npath = "genome.txt"', '[references.genome] needs version = "…"'),
        (TOML.replace("[cohorts.all]", '[cohorts.all]\nwhere = { "patient.sx" = "F" }'), "did you mean 'patient.sex'?"),
        (TOML.replace("[cohorts.all]", '[cohorts.all]\nwhere = { patient.sex = "F" }'), "where 'patient'"),
        (TOML + "[params.conted]\nfactor = 2", "[params.conted]: no such step; known: counted"),
        (TOML + '[params.counted]\nfactor = "two"', "parameter factor = 'two' must be of type int"),
        (TOML + '[environment]\nlock = "gone.lock"', "gone.lock: missing"),
        (TOML.replace("[references.genome]", "[references.other]"), "reference 'genome' (counted): add [references."),
        (
            TOML.replace('files = ["reads"]', "files = []"),
            "file 'reads' (counted): add it to files or folders of",
        ),
        (TOML.replace("sex = {", "sax = {"), "column 'patient.sex' (merged): add sex to [levels.patient.columns]"),
    ],
)
def test_a_broken_ct_toml_is_one_message_that_names_the_place(own: Path, toml: str, said: str) -> None:
    (own / "ct.toml").write_text(toml)
    found = ct("-C", own, "status")
    assert (found.code, found.out) == (1, "")
    assert said in found.err and "Error" not in found.err


def test_everything_that_is_wrong_with_ct_toml_is_said_at_once(own: Path) -> None:
    (own / "ct.toml").write_text('[project]\nid = "X"\n[stps]\n[levels.assay]\nfiles = 1\n[run]\nworkers = -1\n')
    said = ct("-C", own, "status").err
    assert "4 problems" in said and len(said.splitlines()) == 5


def test_a_ct_toml_that_is_no_text_is_one_message(own: Path) -> None:
    (own / "ct.toml").write_bytes(b"\xff\xfe")
    assert "ct.toml cannot be read" in ct("-C", own, "status").err


VALUES: st.SearchStrategy[str] = st.sampled_from(
    ["5", "-1", "2.5", "true", '"text"', '""', "[]", "[5]", '["a"]', "{}", "{ a = 1 }", "1979-05-27", "nan", "[[1]]"]
)
KEYS = st.sampled_from([line.partition(" = ")[0] for line in TOML.splitlines() if " = " in line] + ["extra"])


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(key=KEYS, value=VALUES)
def test_any_value_in_any_place_of_ct_toml_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, key: str, value: str
) -> None:
    root = tmp_path_factory.mktemp("any")
    (root / "steps").mkdir()
    lines = [f"{key} = {value}" if line.startswith(f"{key} = ") else line for line in TOML.splitlines()]
    (root / "ct.toml").write_text("\n".join([*lines, f"{key} = {value}"] if key == "extra" else lines))
    try:
        evaluate(Project(root))
    except CtError as error:
        assert str(error)


# Step files


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("def broken(:\n", "late.py line 1: invalid syntax"),
        ("\n\n1 / 0\n", "late.py line 3 cannot be loaded: ZeroDivisionError: division by zero"),
        ("import nothing_of_this_name\n", "late.py line 1 cannot be loaded: ModuleNotFoundError"),
        ("import sys\nsys.exit(7)\n", "late.py line 2 cannot be loaded: SystemExit: 7"),
        ("class Own(Exception):\n    pass\nraise Own('mine')\n", "late.py line 3 cannot be loaded: Own: mine"),
        ("open('/nowhere/at/all')\n", "late.py line 1 cannot be loaded: FileNotFoundError"),
        ("x = '\0'\n", "late.py line 1"),
        (STEP.format(file="../../escape", more=""), "'../../escape': no name for a file of an artifact"),
        (STEP.format(file="ct.json", more=""), "ct.json: the store writes a file of this name itself"),
        (STEP.format(file="a", more=', columns=["patient.sx"]'), "column 'patient.sx' (late): add sx to"),
        (
            STEP.format(file="a", more=', files=["raeds"]'),
            "file 'raeds' (late): add it to files or folders of",
        ),
        (STEP.format(file="a", more=', inputs={"n": "conted"}'), "did you mean 'counted'?"),
        (STEP.format(file="a", more=', inputs={"n": "late"}'), "the steps form a circle"),
        (STEP.format(file="a", more=", params=dict"), "params must be a dataclass with defaults"),
        (STEP.format(file="a", more="").replace("late", "counted"), "step 'counted' is declared twice"),
    ],
)
def test_a_broken_step_file_is_one_message_with_its_line(own: Path, source: str, said: str) -> None:
    (own / "steps" / "late.py").write_text(source)
    for name in ("status", "verify"):
        found = ct("-C", own, name)
        if name == "status":
            assert (found.code, found.out) == (1, "")
            assert said in found.err
        assert "Traceback" not in found.err


PARAMS = """\
from dataclasses import dataclass
from ctcore.step import step

@dataclass(frozen=True)
class Late:
    sites: tuple[str, ...] = (){more}

    def __post_init__(self):
        if "never" in self.sites:
            raise ValueError("never is no site")

@step(level="assay", params=Late, outputs={{"a": "a.txt"}})
def late(call):
    pass
"""


@pytest.mark.parametrize(
    ("more", "value", "said"),
    [
        ("", "5", "parameter sites = 5 must be of type list"),
        ("", '["never"]', "step late does not accept sites = ('never',): never is no site"),
        ("\n    most: int", "[]", "cannot be loaded: TypeError: non-default argument"),
    ],
)
def test_parameters_that_a_step_does_not_take_are_one_message(own: Path, more: str, value: str, said: str) -> None:
    (own / "steps" / "late.py").write_text(PARAMS.format(more=more))
    (own / "ct.toml").write_text(TOML + f"[params.late]\nsites = {value}\n")
    found = ct("-C", own, "status")
    assert (found.code, found.out) == (1, "") and said in found.err


def test_a_parameter_without_a_default_is_named(own: Path) -> None:
    source = PARAMS.format(more="").replace("sites: tuple[str, ...] = ()", "sites: tuple[str, ...]")
    (own / "steps" / "late.py").write_text(source)
    assert "step late: parameter 'sites' has no default; give it one" in ct("-C", own, "status").err


# The sheet


def refused(root: Path, rows: list[dict[str, str]], *arguments: str) -> str:
    """Register these rows; it must be refused and change nothing."""
    path = write_sheet(root, rows)
    (root / "reads" / "gone.txt").unlink(missing_ok=True)
    before = contents(root)
    for more in (arguments, (*arguments, "--dry-run")):
        said = ct("-C", root, "register", path, *more)
        assert (said.code, said.out) == (1, "")
        assert "nothing was written" in said.err
    assert contents(root) == before
    return said.err


def test_a_sheet_with_every_kind_of_error_lists_all_of_them(own: Path) -> None:
    (own / "reads").joinpath("empty.txt").touch()
    (own / "reads").joinpath("shared.txt").write_text("shared\n")
    said = refused(
        own,
        [
            assay("Q 1", "T1", "B1"),
            assay("", "T2", "B2"),
            assay("Q3", "T3", "B3", sex="X"),
            assay("Q4", "T4", "B4", age="old"),
            assay("Q5", "T5", "B5", reads="reads/empty.txt"),
            assay("Q6", "T6", "B6", reads="reads/gone.txt"),
            assay("Q7", "T7", "B7", reads="reads"),
            assay("Q8", "T8", "B8", reads="reads/shared.txt"),
            assay("Q8", "T8", "B9", reads="reads/shared.txt"),
            assay("Q9", "T8", "B10"),
            assay("Q10", "T10", "B11", age="40"),
            assay("Q10", "T10", "B12", age="41"),
            assay("q10", "T11", "B13"),
        ],
    )
    wanted = {
        2: "'Q 1' is not an ID",
        3: "blank",
        4: "'X' is not one of F, M",
        5: "'old' is not a whole number",
        6: "is empty",
        7: "is not there",
        8: "is a folder",
        10: "shared.txt",
        11: "T8",
        13: "41",
        14: "only in case",
    }
    lines = said.splitlines()[1:]
    for row, words in wanted.items():
        assert [line for line in lines if f"row {row}" in line and words in line], (row, words, said)


@pytest.mark.parametrize(
    "name",
    [
        *("a b", "a/b", "../a", "..", ".", "-rf", "~", "%00", "a*", "a\\b", "a\u202eb", "é", "A" * 65),
        *('a"b', "a'b", "<script>", "$(x)", "`x`", "a;b", "a|b", "a&b"),
    ],
    ids=ascii,
)
@pytest.mark.parametrize("column", ["patient_id", "specimen_id", "assay_id"])
def test_an_id_with_another_meaning_is_refused(own: Path, column: str, name: str) -> None:
    row = {**assay("Q1", "T1", "B1", reads="reads/A1.txt"), column: name}
    said = ct("-C", own, "register", write_sheet(own, [row]), "--dry-run")
    assert (said.code, said.out) == (1, "")
    assert f"row 2, column {column}" in said.err and "is not an ID" in said.err


def test_a_sheet_that_contradicts_the_catalog_changes_nothing(own: Path) -> None:
    said = refused(own, [assay("P2", "S1", "A1", sex="F", age="40"), assay("P1", "S1", "A2", sex="M", age="40")])
    assert "A1" in said or "S1" in said


@pytest.mark.parametrize(
    ("name", "raw", "said"),
    [
        ("gone.csv", None, "there is no such file"),
        ("sheet.xlsx", b"PK", "it is no workbook, or is damaged"),
        ("empty.csv", b"", "empty"),
        ("latin.csv", "patient_id,specimen_id\nJosé,S\n".encode("latin-1"), "is not UTF-8"),
        ("quote.csv", b'patient_id,specimen_id,assay_id\n"P9,S9,A9\n', "quotes"),
        ("header.csv", b"patient_id,specimen_id,assay_id\n", "no assay"),
        ("cells.csv", b"patient_id,specimen_id,assay_id\nP9,S9\n", "2 cells"),
    ],
)
def test_a_sheet_that_cannot_be_read_is_one_message(own: Path, name: str, raw: bytes | None, said: str) -> None:
    if raw is not None:
        (own / name).write_bytes(raw)
    before = contents(own)
    found = ct("-C", own, "register", own / name)
    assert (found.code, found.out) == (1, "") and said in found.err and name in found.err
    assert contents(own) == before


def test_without_any_sheet_ct_asks_for_one(tmp_path: Path) -> None:
    (tmp_path / "ct.toml").write_text(ID + '[steps]\nfolders = ["steps"]\n')
    said = ct("-C", tmp_path, "register")
    assert (said.code, said.out) == (2, "") and "`ct register SHEET`" in said.err


def test_a_dry_run_says_what_would_change_and_writes_nothing(own: Path) -> None:
    path = write_sheet(own, [*ROWS, assay("P9", "S9", "A9", sex="F")])
    before = contents(own)
    said = ct("-C", own, "register", path, "--dry-run")
    assert said.code == 0 and "assay\t1\t0\t3" in said.out.splitlines() and "nothing was written" in said.err
    assert contents(own) == before


# References


def genome(root: Path, raw: str = ">chr\nACGT\n") -> None:
    (root / "genome.txt").write_text(raw)
    (root / "ct.toml").write_text(TOML.replace('version = "1"', 'version = "1"\nkind = "genome"'))


def test_a_genome_needs_an_index_and_ct_makes_it(own: Path) -> None:
    genome(own)
    refusal = ct("-C", own, "register")
    assert (refusal.code, refusal.out) == (1, "")
    assert "genome.txt has no index (genome.txt.fai); make it with `ct reference index genome`" in refusal.err
    assert ct("-C", own, "reference", "index", "genome").code == 0
    assert (own / "genome.txt.fai").read_text().startswith("chr\t4")
    assert ct("-C", own, "register").code == 0


def test_what_is_no_fasta_is_not_indexed(own: Path) -> None:
    genome(own, "no FASTA\n")
    said = ct("-C", own, "reference", "index", "genome")
    assert said.code == 1 and "genome.txt cannot be indexed; is it FASTA" in said.err
    (own / "genome.txt").unlink()
    assert "is not there; correct [references.genome] path" in ct("-C", own, "reference", "index", "genome").err


def test_the_list_of_references_says_what_was_read_of_each(own: Path) -> None:
    (own / "ct.toml").write_text(TOML + '[references.other]\npath = "other.txt"\nversion = "2"\n')
    rows = [line.split("\t") for line in ct("-C", own, "reference", "list").out.splitlines()]
    assert rows[0] == ["key", "version", "kind", "path", "content", "nodes", "with others"]
    assert rows[1][:4] == ["genome", "1", "other", "genome.txt"] and len(rows[1][4]) == 8
    assert rows[2] == ["other", "2", "other", "other.txt", "not read yet", "0", "0"]


# The catalog and the journal


def test_a_catalog_of_a_newer_ct_is_left_alone(own: Path) -> None:
    with sqlite3.connect(own / "catalog.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    before = (own / "catalog.db").read_bytes()
    for arguments in (("status",), ("register",), ("verify",), ("why", "joined"), ("path", "joined")):
        said = ct("-C", own, *arguments)
        assert (said.code, said.out) == (1, "")
        assert "is of version 9999" in said.err and "use that one (nothing was changed)" in said.err
    assert (own / "catalog.db").read_bytes() == before


def test_a_catalog_that_is_something_else_is_one_message(own: Path) -> None:
    for path in own.glob("catalog.db*"):
        path.unlink()
    (own / "catalog.db").write_text("this is not a database, whatever its name says")
    said = ct("-C", own, "status")
    assert said.code == 1 and "file is not a database" in said.err and "`ct recover` brings back" in said.err


@pytest.mark.parametrize("url", ["nonsense", "mysql://user:secret@host/db", "postgresql://"])
def test_a_wrong_database_url_shows_no_password(own: Path, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("CT_POSTGRES_URL", url)
    monkeypatch.setenv("PGHOST", "127.0.0.1")
    monkeypatch.setenv("PGPORT", "1")
    said = ct("-C", own, "status")
    assert (said.code, said.out) == (1, "") and "secret" not in said.err
    assert "CT_POSTGRES_URL" in said.err or "is the database server running" in said.err


@pytest.mark.parametrize("line", ["no JSON at all", "[1]", "5", '{"seq": "x"}', "{}"])
def test_a_journal_with_a_line_that_is_no_event_is_one_message(own: Path, line: str) -> None:
    journal = own / "provenance.jsonl"
    whole = journal.read_text()
    for text in (whole + line + "\n", line + "\n" + whole):
        journal.write_text(text)
        said = ct("-C", own, "verify")
        assert said.code == 3 and "provenance.jsonl" in said.out and "not an event" in said.out
        assert "`ct recover` brings back" in said.err


# Disks


@contextmanager
def mounted(place: Path, *arguments: str) -> Iterator[Path]:
    place.mkdir(exist_ok=True)
    done = subprocess.run(["mount", *arguments, str(place)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"needs the right to mount: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 8 MB."""
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=8m", "tmpfs") as place:
        yield place


def fill(disk: Path, but: int = 0) -> Path:
    """Write until there is no room, then free so many bytes."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as stream:
        try:
            while stream.write(b"\0" * 4096):
                pass
        except OSError:
            pass
        stream.truncate(stream.tell() - but)
    return filler


@pytest.mark.parametrize("left", [0, 64 << 10, 400 << 10])
def test_a_full_disk_while_registering_costs_nothing(small_disk: Path, left: int) -> None:
    root = make_project(small_disk / "p").root
    rows = [*ROWS, *(assay(f"Q{n}", f"T{n}", f"B{n}", reads="") for n in range(4000))]
    path = write_sheet(root, rows)
    before = contents(root)
    filler = fill(small_disk, left)
    said = ct("-C", root, "register", path)
    assert (said.code, said.out) == (1, "")
    assert "disk" in said.err and "is safe" in said.err
    filler.unlink()
    assert contents(root) == before
    assert ct("-C", root, "verify").code == 0


def test_init_on_a_full_disk_can_be_repeated_when_there_is_room(small_disk: Path) -> None:
    filler = fill(small_disk, 8 << 10)
    said = ct("init", small_disk / "new")
    assert said.code == 1 and "the disk is full: free space there" in said.err
    assert said.err.count("\n") == 1 and "choose a place" not in said.err
    filler.unlink()
    assert ct("init", small_disk / "new").code == 0
    assert ct("-C", small_disk / "new", "status").code == 0


# `ct init`


def test_init_leaves_alone_what_a_person_wrote(tmp_path: Path) -> None:
    root = tmp_path / "cohort"
    root.mkdir()
    (root / ".gitignore").write_text("mine\n")
    assert ct("init", root).code == 0
    assert (root / ".gitignore").read_text() == "mine\n"
    (root / "ct.toml").write_text((root / "ct.toml").read_text() + "# mine\n")
    (root / "steps" / "mine.py").write_text("# mine\n")
    (root / "definitions.py").write_text("an old one\n")
    again = ct("init", root)
    assert again.code == 0 and "cohort is up to date" in again.err
    assert (root / "ct.toml").read_text().endswith("# mine\n") and (root / "steps" / "mine.py").exists()
    assert "Dagster" in (root / "definitions.py").read_text()


@pytest.mark.parametrize("name", ["store", "work", "steps"])
def test_init_writes_nothing_if_a_file_is_in_the_way(tmp_path: Path, name: str) -> None:
    place = tmp_path / "new"
    place.mkdir()
    (place / name).write_text("mine\n")
    said = ct("init", place)
    assert said.code == 2 and said.err == (
        f"ct: {place / name} is a file, and a project has a folder there: move it away, or choose another place\n"
    )
    assert [path.name for path in place.iterdir()] == [name]


def test_init_does_not_write_over_somebody_elses_code(tmp_path: Path) -> None:
    (tmp_path / "definitions.py").write_text("theirs\n")
    said = ct("init", tmp_path)
    assert (said.code, said.out) == (2, "") and "has definitions.py, but no ct.toml" in said.err
    assert [path.name for path in tmp_path.iterdir()] == ["definitions.py"]


def test_the_example_is_a_whole_project(tmp_path: Path) -> None:
    assert ct("init", tmp_path / "p", "--example", "three_people").code == 0
    said = ct("-C", tmp_path / "p", "register", "--dry-run")
    assert said.code == 0 and "assay\t5\t0\t0" in said.out


def test_a_read_only_project_says_what_must_be_writable(tmp_path: Path) -> None:
    project = make_project(tmp_path / "p")
    project.catalog.engine.dispose()
    with mounted(project.root, "--bind", "-o", "ro", str(project.root)):
        for arguments in (("status",), ("register",), ("verify",)):
            said = ct("-C", project.root, *arguments)
            assert (said.code, said.out) == (1, "") and "cannot be written, as also a reader must" in said.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("why", "A1"), "'A1' is not a node (step/partition); did you mean 'assay/A1'?"),
        (("why", "merge"), "'merge' is not a node (step/partition); did you mean 'merged'?"),
        (("qc", "add", "assay/A1", "fail", "--reason", "x"), "assay/A1: no kind 'fail'; did you mean 'qc_fail'?"),
        (("consent", "set", "P1", "revokd"), "no consent 'revokd'; it is one of full, "),
        (("consent", "set", "P1", "full", "--date", "2026-13-01"), "'2026-13-01' is no day; write YYYY-MM-DD"),
        (("register", "."), "it is a folder; name a sheet in it"),
        (("heatmap", "h.jpg"), "a picture is .png, .svg, .pdf, not .jpg"),
        (("heatmap", "gone/h.svg"), "gone/h.svg: there is no folder gone"),
        (("dashboard", "gone/d.html"), "gone/d.html: there is no folder gone"),
        (("export", "gone/d.xlsx"), "gone/d.xlsx: there is no folder gone"),
    ],
)
def test_a_slip_is_one_message_in_the_words_that_were_typed(
    own: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], said: str
) -> None:
    assert ct("-C", own, "register").code == 0
    monkeypatch.chdir(own)
    before = contents(own)
    found = ct(*arguments)
    assert found.code in (1, 2) and found.out == "" and contents(own) == before
    assert said in found.err and ".?" not in found.err and "?;" not in found.err and "to come" not in found.err
    assert not any(f".{name}" in found.err for name in ("h.", "d.html", "d.xlsx"))


# Places and numbers that cannot be meant


@pytest.mark.parametrize(
    "words",
    [
        ("export", "loop", "--table", "verdicts"),
        ("dashboard", "loop"),
        ("plan", "--save", "loop"),
        ("register", "loop.csv"),
        ("trace", "./loop"),
        ("-C", "loop", "status"),
        ("init", "loop"),
    ],
)
def test_a_link_that_leads_to_itself_is_one_line(own: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    monkeypatch.chdir(own)
    for name in ("loop", "loop.csv"):
        (own / name).symlink_to(name)
    said = ct(*words)
    assert said.code in (1, 2) and said.err.startswith("ct: ") and "loop" in said.err


@pytest.mark.parametrize(
    "words",
    [
        ("purge", "--check", str(10**20)),
        ("qc", "resolve", "--event", str(10**20), "--reason", "x"),
        ("qc", "resolve", "--act", str(10**20), "--reason", "x"),
        ("trace", f"counted/A1@{10**20}"),
    ],
)
def test_a_number_beyond_the_catalogs_is_one_line(own: Path, words: list[str]) -> None:
    said = ct("-C", own, *words)
    assert said.code == 2 and said.err.startswith("ct: ") and said.err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "way"),
    [
        *(((command, ""), "it is empty; name a file or a folder") for command in ("export", "init", "dashboard", "-C")),
        (("register", ""), "'' is no sheet; one entity: `ct register LEVEL ID`"),
        (("register", "patient/P9"), "'patient/P9' is no sheet; one entity: `ct register patient P9`"),
        (("query", "--seconds", "-1", "SELECT 1"), "-1.0 is not in the range x>0"),
    ],
)
def test_what_an_unset_variable_leaves_is_refused(own: Path, words: list[str], way: str) -> None:
    """And what is nearly right gets the right words."""
    before = sorted(own.iterdir())
    said = ct("-C", own, *words)
    assert said.code == 2 and way in said.err and sorted(own.iterdir()) == before
