"""The command line as its users meet it: exit codes, tables, JSON, and what is typed wrong."""

import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import click
import pytest

from ctcore.cli import _COMMANDS, WHOLE, cli
from tests.helpers.kit import again, assay, make_all, make_project
from tests.helpers.shell import Said, command, ct, environment, on_a_terminal, shell

EVERY = ("register", "status", "show", "why", "verify", "reference", "path")


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Registered, nothing made. Only read."""
    return make_project(tmp_path_factory.mktemp("toy")).root


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Registered, everything made. Only read."""
    project = make_project(tmp_path_factory.mktemp("made"))
    make_all(project)
    return project.root


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """Registered, nothing made; a test's own."""
    return make_project(tmp_path / "own").root


# What is printed, and the exit code


def test_status_exits_with_3_if_something_is_open_else_0(toy: Path, made: Path) -> None:
    assert [ct("-C", root, "status").code for root in (toy, made)] == [3, 0]
    assert [ct("-C", root, "why", "counted/A1").code for root in (toy, made)] == [3, 0]
    assert [ct("-C", root, "verify").code for root in (toy, made)] == [0, 0]


def test_verify_ends_with_3_where_a_published_byte_has_changed(tmp_path: Path) -> None:
    project = make_project(tmp_path / "p")
    make_all(project)
    table = Path(ct("-C", project.root, "path", "joined", "table").out.strip())
    table.chmod(0o644)
    table.write_text(table.read_text().replace("S1", "S9"))
    said = ct("-C", project.root, "verify")
    assert said.code == 3
    assert "joined/all\ttable.tsv\t" in said.out and "`ct run` makes them again" in said.err
    assert ct("-C", project.root, "status").code == 3


def test_a_pipe_gets_tab_separated_rows(made: Path) -> None:
    rows = [line.split("\t") for line in shell("-C", made, "status").out.splitlines()]
    assert rows[:2] == [["specimen", "assay", "counted"], ["S1", "A1", "fresh"]]
    assert ["", "fresh", "3/3"] in rows and ["all", "fresh"] in rows


def test_a_terminal_gets_aligned_tables(made: Path) -> None:
    code, shown = on_a_terminal("-C", made, "status")
    assert code == 0
    assert "\x1b[32mfresh" in shown, "what is fresh is green"
    plain = re.sub(r"\x1b\[[0-9;]*m|\r", "", shown)
    lines = [line.rstrip() for line in plain.splitlines()]
    assert "\t" not in plain and "assays" in lines
    header = next(line for line in lines if line.startswith("specimen") and "assay" in line)
    row = next(line for line in lines if "A3" in line)
    assert header.index("assay") == row.index("A3") and header.index("counted") == row.index("fresh")


@pytest.mark.parametrize(
    "arguments",
    [
        ("register", "--dry-run"),
        ("status",),
        ("show", "counted/A1"),
        ("show", "patient/P1"),
        ("show", "reference/genome"),
        ("why", "joined"),
        ("why", "assay/A1"),
        ("verify",),
        ("reference", "list"),
        ("path", "joined"),
    ],
    ids=" ".join,
)
def test_every_command_that_prints_can_print_json(made: Path, arguments: tuple[str, ...]) -> None:
    said = ct("-C", made, *arguments, "--json")
    assert said.code == 0
    assert isinstance(json.loads(said.out), dict | list)


def test_json_of_status_has_every_entity_with_its_state(toy: Path) -> None:
    found = json.loads(ct("-C", toy, "status", "--json").out)
    assert found["assay"]["entities"] == {name: {"counted": "missing"} for name in ("A1", "A2", "A3")}
    assert found["cohort"]["counts"]["joined"] == {"fresh": 0, "missing": 1}


def test_show_is_for_people_without_json(made: Path) -> None:
    assert "reads\treads/A1.txt\t12\t" in ct("-C", made, "show", "assay/A1").out
    assert "specimens\tmerged/S1\t" in ct("-C", made, "show", "joined").out


def test_help_and_version_need_no_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    listed = ct("--help")
    assert listed.code == 0 and all(name in listed.out for name in EVERY)
    assert ct("--version").code == 0 and ct("--version").out.startswith("ct ")
    for name in EVERY:
        assert ct(name, "--help").code == 0


def test_help_quotes_each_command_and_loads_none() -> None:
    listed = shell("--help", env={"PYTHONPROFILEIMPORTTIME": "1", "COLUMNS": "80"})
    assert not re.search(r"sqlalchemy|numpy|ctcore\.cli\.status", listed.err)
    lines = re.sub(r"\n {8,}", " ", listed.out.partition("The cohort:")[2])
    found = dict(re.findall(r"^  ([a-z]+) +(.+)$", lines, re.MULTILINE))
    assert found.keys() == set(_COMMANDS)
    for name, said in found.items():
        command = cli.get_command(click.Context(cli), name)
        assert command is not None and said == command.get_short_help_str(WHOLE)


# `ct path`


def test_path_prints_the_current_folder_or_a_file(made: Path) -> None:
    folder = Path(ct("-C", made, "path", "joined").out.strip())
    assert folder.is_absolute() and (folder / "table.tsv").is_file()
    for output in ("table", "table.tsv"):
        assert ct("-C", made, "path", "joined/all", output).out.strip() == str(folder / "table.tsv")
    assert json.loads(ct("-C", made, "path", "joined", "--json").out) == {"node": "joined/all", "path": str(folder)}


def test_path_of_a_lost_result_says_how_to_make_it(tmp_path: Path) -> None:
    project = make_project(tmp_path / "p")
    make_all(project)
    made = project.root
    folder = Path(ct("-C", made, "path", "joined").out.strip())
    folder.chmod(0o755)
    (folder / "table.tsv").unlink()
    for words, shown in ((("joined",), f"{folder}\n"), (("joined/all", "table"), "")):
        said = ct("-C", made, "path", *words)
        assert (said.code, said.out) == (3, shown)
        assert said.err == f"{folder / 'table.tsv'} is gone; `ct run joined/all` makes it again\n"
    assert json.loads(ct("-C", made, "path", "joined", "--json").out)["path"] == str(folder)
    shutil.rmtree(folder)
    said = ct("-C", made, "path", "joined")
    assert (said.code, said.out) == (3, "") and f"{folder} is gone" in said.err


def test_path_follows_to_the_artifact_that_was_made_last(tmp_path: Path) -> None:
    project = make_project(tmp_path / "p")
    make_all(project)
    before = ct("-C", project.root, "path", "counted/A1").out
    (project.root / "reads" / "A1.txt").write_text("other reads\n")
    ct("-C", project.root, "verify")
    assert ct("-C", project.root, "path", "counted/A1").out == before
    make_all(again(project))
    assert ct("-C", project.root, "path", "counted/A1").out != before


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("joined",), 1, "joined/all was never made; `ct run joined/all` makes it"),
        (("counted",), 2, "counted has 3 partitions; name one, as in counted/A1"),
        (("assay/A1",), 2, "assay/A1 has no artifact; `ct show assay/A1` names its files"),
    ],
)
def test_path_of_what_is_not_there_is_one_error(toy: Path, arguments: tuple[str, ...], code: int, said: str) -> None:
    assert ct("-C", toy, "path", *arguments) == Said(code, "", f"ct: {said}\n")


def test_path_of_an_unknown_output_lists_the_known(made: Path) -> None:
    said = ct("-C", made, "path", "joined", "tabel")
    assert (said.code, said.out) == (2, "")
    assert "has no output 'tabel'; it has: table (table.tsv)" in said.err


def test_path_of_an_artifact_that_was_deleted_is_an_error(tmp_path: Path) -> None:
    project = make_project(tmp_path / "p")
    make_all(project)
    folder = Path(ct("-C", project.root, "path", "joined").out.strip())
    project.store.remove(folder)
    said = ct("-C", project.root, "path", "joined", "table")
    assert (said.code, said.out) == (3, "") and "is gone; `ct run joined/all` makes it again" in said.err


def test_a_step_with_a_single_partition_needs_no_partition(tmp_path: Path) -> None:
    root = make_project(tmp_path / "p", [assay("P1", "S1", "A1", sex="F")]).root
    assert "counted/A1 is missing" in ct("-C", root, "why", "counted").out


# What is typed wrong


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("statsu",), "no command 'statsu'; did you mean 'status'?"),
        (("xyzzy",), "commands: init, register, schema, status"),
        (("status", "--jsn"), "--json"),
        (("reference", "lst"), "list"),
        (("why",), "Missing argument 'NODE'"),
        (("why", "conted/A1"), "no step 'conted'; did you mean 'counted'?"),
        (("why", "conted"), "did you mean 'counted'?"),
        (("why", "xyzzy/A1"), "known: counted, merged, joined"),
        (("show", "counted/a1"), "no assay 'a1' is registered; did you mean 'A1'?"),
        (("path", "counted/A1/"), "did you mean 'A1'?"),
        (("why", "counted/Z"), "see `ct status --all`"),
        (("why", "joined/al"), "no cohort 'al' is declared; did you mean 'all'?"),
        (("show", "patient/P9"), "no patient 'P9' is registered"),
        (("show", "reference/genom"), "no reference 'genom' is declared; did you mean 'genome'?"),
        (("reference", "index", "genom"), "did you mean 'genome'?"),
        (("why", "counted"), "counted has 3 partitions; name one, as in counted/A1"),
        (("init", "sub", "--id", "UP PER"), "--id 'UP PER': 3 to 64 of a-z"),
        (("init", "sub", "--example", "three_peple"), "no example 'three_peple'; there is: three_people"),
    ],
)
def test_what_is_typed_wrong_is_named_beside_what_was_meant(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    found = ct("-C", toy, *arguments)
    assert (found.code, found.out) == (2, "")
    assert said in found.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name", ["", "/", "//", "/A1", "counted/", "A1", "counted:A1", "counted/\udcff", "counted/A\n1"]
)
def test_a_name_of_another_form_is_no_node(toy: Path, name: str) -> None:
    for asking in ("why", "show", "path"):
        found = ct("-C", toy, asking, name)
        assert (found.code, found.out) == (2, "")
        assert "is not a node (step/partition); " in found.err


def test_blanks_around_a_name_do_not_matter(made: Path) -> None:
    assert ct("-C", made, "why", " counted/A1 ").out == ct("-C", made, "why", "counted/A1").out


def test_a_mistyped_id_among_very_many_is_answered_in_a_moment(tmp_path: Path) -> None:
    rows = [assay(f"P{n:06}", f"S{n:06}", f"A{n:06}", reads="") for n in range(20_000)]
    root = make_project(tmp_path / "p", rows).root
    began = time.monotonic()
    assert "did you mean 'A000012'?" in ct("-C", root, "path", "counted/a000012x").err
    assert time.monotonic() - began < 5


# Where the project is


def test_outside_a_project_ct_says_how_to_make_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CT_PROJECT", raising=False)
    for name in ("register", "status", "verify", "run"):
        said = ct(name)
        assert (said.code, said.out) == (1, "")
        assert f"no ct.toml in {tmp_path} or above it; `ct init DIR` makes a project" in said.err


def test_what_dagster_reads_first_is_missed_before_dagster_does(toy: Path) -> None:
    said = ct("-C", toy, "dev")
    assert (said.code, said.out) == (2, "")
    assert f"{toy / 'definitions.py'} is not there" in said.err and "`ct init`" in said.err


def test_a_project_is_found_from_within_and_elsewhere(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CT_PROJECT", raising=False)
    monkeypatch.chdir(toy / "reads")
    inside = ct("status")
    monkeypatch.chdir(tmp_path)
    assert inside.code == 3 and ct("-C", toy, "status") == ct("-C", os.path.relpath(toy), "status") == inside


def test_a_missing_directory_is_not_the_project_around_it(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(toy)
    for place in ("nowhere", "ct.toml", "no\udcffwhere"):
        said = ct("-C", place, "status")
        assert (said.code, said.out) == (2, "")
        way = "is a file; name the folder" if place == "ct.toml" else "is not a directory; `ct init"
        assert way in said.err


# How a command ends before its end


def test_ctrl_c_is_one_line_and_130(own: Path) -> None:
    (own / "steps" / "slow.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    said = shell("-C", own, "status")
    assert (said.code, said.out, said.err.strip()) == (130, "", "ct: interrupted")


@pytest.mark.parametrize("arguments", [("status",), ("status", "--json"), ("--help",), ("verify",)], ids=" ".join)
def test_a_reader_who_leaves_is_no_error_to_talk_about(made: Path, arguments: tuple[str, ...]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        command("-C", made, *arguments), stdout=writing, stderr=subprocess.PIPE, env=environment(), check=False
    )
    os.close(writing)
    assert b"Error" not in done.stderr and b"Exception" not in done.stderr and b"Traceback" not in done.stderr


def test_output_that_cannot_be_written_is_one_message(made: Path) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            command("-C", made, "status"), stdout=full, stderr=subprocess.PIPE, env=environment(), check=False
        )
    assert (done.returncode, done.stderr.decode()) == (1, "ct: No space left on device\n")


def test_a_closed_output_is_no_traceback(made: Path) -> None:
    closed = ["sh", "-c", 'exec "$@" >&-', "sh", *command("-C", made, "status")]
    done = subprocess.run(closed, stderr=subprocess.PIPE, env=environment(), check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_an_id_alone_is_answered_with_the_node_of_that_id(toy: Path) -> None:
    said = ct("-C", toy, "show", "P1")
    assert said.code == 2 and "did you mean 'patient/P1'?" in said.err


def test_a_narrow_terminal_cuts_nothing_off(tmp_path: Path) -> None:
    """Two IDs may differ in their last letter only."""
    rows = [assay("P1", "S1", f"{'A-very-long-name-of-an-assay' * 2}-{n}", sex="F") for n in (1, 2)]
    _, shown = on_a_terminal("-C", make_project(tmp_path / "toy", rows).root, "status", columns=80)
    letters = "".join(shown.split())
    assert "…" not in shown and "-1" in letters and "-2" in letters
