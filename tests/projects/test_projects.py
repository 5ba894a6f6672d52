"""Several projects of one user: found by ID from anywhere, and side by side in one Dagster instance."""

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import click
import dagster as dg
import pytest
import yaml

from ct_assets.asset_keys import PROJECT_TAG, check_home
from ct_assets.runs import PROCESS_TAG, REQUEST_TAG, end_orphans
from ctcore.catalog.engine import Catalog
from ctcore.catalog.event_log import check_chain
from ctcore.catalog.tables import entity
from ctcore.cli import _COMMANDS, cli
from ctcore.config.address_book import address_book_file, folder_of, known_projects
from ctcore.errors import CatalogError, ProjectError, StoreError, Usage
from ctcore.integrity.catalog_check import disagreements
from ctcore.project import Project
from ctcore.projects import listing
from ctcore.projects.dagster_copy import refuse_other_copies
from ctcore.projects.lifecycle import change_state
from ctcore.projects.listing import sharing_projects
from ctcore.util.processes import process_name
from sensors.staleness import _states
from tests.helpers.killing import Moments, forked
from tests.helpers.kit import ROWS, STEPS, TOML, add, again, make_all, make_project, reasons
from tests.helpers.shell import ct, environment, shell
from tools.slurm.processes import wait


@pytest.fixture(autouse=True)
def _own_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CT_PROJECTS", str(tmp_path / "settings" / "projects.json"))


def toml(project_id: str, more: str = "") -> str:
    return TOML.replace('id = "toy"', f'id = "{project_id}"') + more


def project_of(root: Path, project_id: str) -> Project:
    """A project that is known by its ID."""
    made = make_project(root, toml=toml(project_id))
    assert ct("projects", "add", root).code == 0
    return made


# The list


def test_init_makes_a_project_known_by_its_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ct("init", tmp_path / "a", "--id", "lung").code == 0
    monkeypatch.chdir("/")
    assert ct("--project", "lung", "status").code == ct("status", "--project", "lung").code == 0
    assert ct("qc", "--project", "lung", "list").code == ct("qc", "list", "--project", "lung").code == 0
    assert ct("status").code == 1, "there is none in the current directory"
    monkeypatch.setenv("CT_PROJECT", "lung")
    assert Project.find().id == "lung" and ct("status").code == 0


def test_every_command_takes_the_id() -> None:
    def leaves(command: click.Command) -> Iterator[click.Command]:
        yield command
        for one in command.commands.values() if isinstance(command, click.Group) else ():
            yield from leaves(one)

    context = click.Context(cli)
    for name in _COMMANDS:
        command = cli.get_command(context, name)
        assert command is not None
        for one in leaves(command) if name not in ("init", "projects") else ():
            assert sum("--project" in parameter.opts for parameter in one.params) == 1, (name, one.name)


def test_what_is_no_known_id_is_said_with_those_that_are_near(tmp_path: Path) -> None:
    project_of(tmp_path / "a", "lung-2024")
    said = ct("--project", "lung-2042", "status")
    assert said.code == 2 and "no project 'lung-2042'; known: lung-2024" in said.err
    assert "a directory is named with -C" in ct("--project", "../a", "status").err
    assert "name one project" in ct("-C", "/", "--project", "lung-2024", "status").err
    assert ct("-C", tmp_path / "a", "--project", "lung-2024", "status").code == 3


def test_a_folder_that_is_gone_or_is_another_project_is_said_so(tmp_path: Path) -> None:
    project = project_of(tmp_path / "a", "lung")
    project.root.rename(tmp_path / "b")
    assert "was moved or deleted" in ct("--project", "lung", "status").err
    assert "was moved or deleted" in ct("projects").err, "and the list is still shown"
    assert ct("projects", "add", tmp_path / "b").code == 0
    assert folder_of("lung") == tmp_path / "b"
    (tmp_path / "b" / "ct.toml").write_text(toml("colon"))
    assert "is the project colon now" in ct("--project", "lung", "status").err


def test_two_folders_with_one_id_are_named_the_first_stays(tmp_path: Path) -> None:
    project = project_of(tmp_path / "a", "lung")
    shutil.copytree(project.root, tmp_path / "b")
    said = ct("projects", "add", tmp_path / "b")
    assert said.code == 2 and str(tmp_path / "a") in said.err and str(tmp_path / "b") in said.err
    assert "`ct projects remove lung`" in said.err and folder_of("lung") == tmp_path / "a"
    made = ct("init", tmp_path / "c", "--id", "lung")
    assert made.code == 0 and "two folders have the ID lung" in made.err
    (tmp_path / "link").symlink_to(tmp_path / "a")
    assert ct("projects", "add", tmp_path / "link").code == 0, "it is the same one"
    assert ct("projects", "remove", "lung").code == 0 and project.root.is_dir()
    assert ct("projects", "add", tmp_path / "b").code == 0


def test_a_list_that_cannot_be_written_or_read_stops_no_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CT_PROJECTS", str(tmp_path / "file" / "projects.json"))
    said = ct("init", tmp_path / "a", "--id", "lung")
    assert said.code == 0 and "CT_PROJECTS names another place" in said.err
    monkeypatch.setenv("CT_PROJECTS", str(tmp_path / "file"))
    assert "is no list of projects" in ct("projects").err
    assert ct("-C", tmp_path / "a", "status").code == 0
    assert ct("init", tmp_path / "a").code == 0


def test_the_list_is_where_settings_of_a_user_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CT_PROJECTS")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert address_book_file() == tmp_path / "ct" / "projects.json" and known_projects() == {}


def test_the_list_shows_state_and_size_and_changes_nothing(tmp_path: Path) -> None:
    lung, colon = project_of(tmp_path / "a", "lung"), project_of(tmp_path / "b", "colon")
    make_all(lung)
    change_state(colon, "archived", "the paper is out")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "ct.toml").write_text(toml("skin"))
    assert ct("projects", "add", tmp_path / "c").code == 0
    found = {one["id"]: one for one in json.loads(ct("projects", "list", "--json").out)}
    assert json.loads(ct("projects", "--json").out) == list(found.values())
    assert found["lung"]["counts"] == {"patient": 2, "specimen": 2, "assay": 3, "artifact": 6}
    assert [found[name]["state"] for name in ("lung", "colon", "skin")] == ["active", "archived", "active"]
    assert found["lung"]["changed"] and not (tmp_path / "c" / "catalog.db").exists()
    assert ct("projects", "list", "--state", "archived").out.splitlines()[1].startswith("colon\t")
    assert len(ct("projects").out.splitlines()) == 4


# Catalogs


def test_a_catalog_opens_for_no_other_project(tmp_path: Path) -> None:
    project = make_project(tmp_path / "a", toml=toml("lung"))
    (project.root / "ct.toml").write_text(toml("colon"))
    said = ct("-C", project.root, "status")
    assert said.code == 1 and "is the catalog of the project lung" in said.err and "says colon" in said.err
    with pytest.raises(CatalogError, match="of the project lung"):
        Catalog(project.catalog_url, "colon", project.root / "provenance.jsonl").open()


def test_projects_in_one_database_see_each_other_not(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CT_POSTGRES_URL", postgres_url)
    lung, colon = (make_project(tmp_path / name, toml=toml(name)) for name in ("lung", "colon"))
    assert set(make_all(lung).values()) == {"made"}
    assert all("missing" in kinds for kinds in reasons(colon).values()) and len(reasons(colon)) == 6
    change_state(colon, "archived", "the paper is out")
    with lung.catalog.write() as writer:
        writer.execute(entity.select())
    shutil.copytree(lung.root, tmp_path / "copy")
    with pytest.raises(CatalogError, match=f"two folders have the ID lung.*{lung.root} and {tmp_path / 'copy'}"):
        _ = Project.find(tmp_path / "copy").catalog
    lung.root.rename(tmp_path / "moved")
    assert reasons(Project.find(tmp_path / "moved")) == {}


# kill -9

CHANGING: dict[str, tuple[str, ...]] = {
    "add": ("add", "{new}"),
    "move": ("add", "{moved}"),
    "remove": ("remove", "lung"),
    "complete": ("set", "lung", "complete", "--reason", "the last one is in"),
    "archive": ("set", "lung", "archived", "--reason", "the paper is out"),
    "open": ("open", "colon", "--reason", "somebody withdrew"),
}


def user(place: Path) -> Path:
    """Somebody with two projects, one of them archived, and a folder with a third one."""
    for name in ("lung", "colon", "skin"):
        project = make_project(place / name, toml=toml(name))
        if name == "colon":
            change_state(project, "archived", "the paper is out")
        if name != "skin":
            listing.add(project)
        with project.catalog.engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        project.catalog.engine.dispose()
    return place


def all_that_is(place: Path) -> dict[str, object]:
    """What is known, the state of each project, and whether its store takes anything; all of it right in itself."""
    found: dict[str, object] = {"known": {name: folder.name for name, folder in known_projects().items()}}
    for folder in sorted(path.parent for path in place.glob("*/ct.toml")):
        project = Project.find(folder)
        assert disagreements(project) == [] and check_chain(project.catalog.journal.read(), "line") == []
        try:
            project.store.ensure()
            takes = True
        except StoreError:
            takes = False
        found[folder.name] = (project.catalog.project_state().state, takes)
        project.catalog.engine.dispose()
    return found


@pytest.mark.parametrize("name", CHANGING)
def test_a_killed_projects_command_did_all_or_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def called(place: Path, at: int | None = None) -> int:
        monkeypatch.setenv("CT_PROJECTS", str(place / "projects.json"))
        words = [word.format(new=place / "skin", moved=place / "moved") for word in CHANGING[name]]

        def work() -> int:
            Moments(tmp_path / "moments", at).watch()
            said = ct("projects", *words)
            os.write(1, f"{said}".encode())
            return said.code

        return forked(work, place / "log")

    def copied(to: str) -> Path:
        place = Path(shutil.copytree(first, tmp_path / to))
        text = (place / "projects.json").read_text().replace(str(first), str(place))
        (place / "projects.json").write_text(text)
        if name == "move":
            (place / "lung").rename(place / "moved")
        return place

    first = tmp_path / "first"
    monkeypatch.setenv("CT_PROJECTS", str(first / "projects.json"))
    user(first)
    whole = copied("whole")
    monkeypatch.setenv("CT_PROJECTS", str(whole / "projects.json"))
    before = all_that_is(whole)
    assert called(whole) == 0, (whole / "log").read_text()
    wanted, names = all_that_is(whole), (tmp_path / "moments").read_text().splitlines()
    assert wanted != before
    telling = [at for at, one in enumerate(names) if one in ("commit", "os.rename", "os.remove")]
    for at in sorted({at + more for at in telling for more in (0, 1)} & set(range(len(names)))):
        place = copied(f"at{at}")
        assert called(place, at) == -9, (at, names[at])
        monkeypatch.setenv("CT_PROJECTS", str(place / "projects.json"))
        assert all_that_is(place)["known"] in (before["known"], wanted["known"])
        assert called(place) in (0, 2), (at, names[at], (place / "log").read_text())
        assert all_that_is(place) == wanted, (at, names[at], (place / "log").read_text())


# Dagster


def shared(root: Path, project_id: str) -> Project:
    """A real project directory whose Dagster is `../dagster`, registered; its steps and IDs are those of any other."""
    assert ct("init", root, "--id", project_id).code == 0
    more = '\n[dagster]\nhome = "../dagster"\n'
    text = toml(project_id, more).replace("workers = 2", "workers = 2\nlook_every_s = 3")
    for name, said in (("ct.toml", text), ("genome.txt", "ACGT\n"), ("steps/toy.py", STEPS)):
        (root / name).write_text(said)
    project = Project.find(root)
    add(project, ROWS)
    return project


def told(home: Path) -> tuple[dict[str, int], Counter[str]]:
    """What the instance has: partitions that are materialized, by asset; runs, by project."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAGSTER_HOME", str(home))
        with dg.DagsterInstance.get() as instance:
            keys = list(instance.all_asset_keys())
            made = {key.to_user_string(): len(instance.get_materialized_partitions(key)) for key in keys}
            runs = Counter(run.tags.get("ct/project", "") for run in instance.get_runs())
    return {name: n for name, n in made.items() if n}, runs


EVERY = {"patient": 2, "specimen": 2, "assay": 3, "reference": 1, "counted": 3, "merged": 2, "joined": 1}


def all_of(*ids: str) -> dict[str, int]:
    return {f"{one}/{name}": n for one in ids for name, n in EVERY.items()}


@pytest.mark.daemon
@pytest.mark.xdist_group("daemon")
def test_two_projects_with_the_same_names_share_one_dagster(tmp_path: Path) -> None:
    lung, colon = shared(tmp_path / "lung", "lung"), shared(tmp_path / "colon", "colon")
    home = tmp_path / "dagster"
    assert lung.dagster_home == colon.dagster_home == home and not (lung.root / "dagster_home" / "storage").exists()
    assert shell("--project", "lung", "run").code == 0
    made, runs = told(home)
    assert made == all_of("lung") and set(runs) == {"lung"}
    assert len(reasons(again(colon))) == 6, "nothing of it was made"

    said = ct("--project", "lung", "projects", "workspace")
    locations = [one["python_file"] for one in yaml.safe_load(said.out)["load_from"]]
    assert [one["location_name"] for one in locations] == ["colon", "lung"]
    (home / "workspace.yaml").write_text(said.out)
    # what a shell points to must not make one project of both
    variables = environment(DAGSTER_HOME=str(home), CT_PROJECT=str(lung.root))
    command = [sys.executable, "-m", "dagster._daemon", "run", "-w", "workspace.yaml"]
    with (tmp_path / "daemon.log").open("wb") as log:
        daemon = subprocess.Popen(command, cwd=home, env=variables, stdout=log, stderr=log, start_new_session=True)
    try:
        there = wait(lambda: len([*(colon.root / "store" / "counted").glob("A*/*")]) == 3, 300)
        begun = there and wait(lambda: told(home)[0].get("colon/counted") == 3, 60)
        assert begun, (tmp_path / "daemon.log").read_text()[-3000:]
    finally:
        os.killpg(daemon.pid, 15)
        daemon.wait()
    made, after = told(home)
    assert after["colon"] and after["lung"] == runs["lung"], "what is fresh in one is not asked for by the other"
    assert {name: n for name, n in made.items() if not name.startswith("colon/")} == all_of("lung")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAGSTER_HOME", str(home))
        with dg.DagsterInstance.get() as instance:
            sensors = [state.origin for state in instance.all_instigator_state()]
            assert instance.get_dynamic_partitions("lung.assays") == ["A1", "A2", "A3"]
    where = {one.repository_origin.code_location_origin.location_name for one in sensors}
    assert where == {"lung", "colon"} and len({one.get_selector().get_id() for one in sensors}) == len(sensors)


def test_a_run_of_another_project_is_neither_ended_nor_counted(tmp_path: Path) -> None:
    """Both may ask with one key: it is made of step and verdict."""
    lung = make_project(tmp_path / "lung", toml=toml("lung", '\n[dagster]\nhome = "../dagster"\n'))
    gone = {PROCESS_TAG: f"{process_name().partition(':')[0]}:999999999:1", REQUEST_TAG: "one key"}
    with dg.instance_for_test() as instance:
        for name in ("lung", "colon"):
            tags = {**gone, PROJECT_TAG: name}
            instance.add_run(dg.DagsterRun(job_name="x", status=dg.DagsterRunStatus.STARTED, tags=tags))
        assert _states(instance, lung, {"one key"}) == ({"one key"}, set())
        end_orphans(instance, lung)
        found = {run.tags[PROJECT_TAG]: run.status for run in instance.get_runs()}
        assert found == {"lung": dg.DagsterRunStatus.FAILURE, "colon": dg.DagsterRunStatus.STARTED}
        assert _states(instance, lung, {"one key"}) == (set(), {"one key"})


def test_bare_names_of_two_projects_never_meet_in_one_instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lung, colon = (make_project(tmp_path / name, toml=toml(name)) for name in ("lung", "colon"))
    other, home = tmp_path / "elsewhere", lung.root / "dagster_home"
    other.mkdir()
    home.mkdir()
    for place in (home, other):
        monkeypatch.setenv("DAGSTER_HOME", str(place))
        check_home(lung)
        check_home(again(lung))
        with pytest.raises(ProjectError, match=r"has the assets of .*lung.*\[dagster\] home = "):
            check_home(colon)
        (colon.root / "ct.toml").write_text(toml("colon", f'\n[dagster]\nhome = "{place}"\n'))
        check_home(again(colon))
        (colon.root / "ct.toml").write_text(toml("colon"))
    shutil.rmtree(lung.root)
    check_home(again(colon))


def test_only_projects_of_one_instance_share_a_workspace(tmp_path: Path) -> None:
    lung, colon = project_of(tmp_path / "lung", "lung"), project_of(tmp_path / "colon", "colon")
    assert [one.id for one in sharing_projects(lung)] == ["lung"]
    said = ct("projects", "workspace", "lung", "colon")
    assert said.code == 2 and "share no Dagster instance" in said.err and "[dagster] home" in said.err
    (colon.root / "ct.toml").write_text(toml("colon", '\n[dagster]\nhome = "../lung/dagster_home"\n'))
    assert [one.id for one in sharing_projects(lung)] == ["colon", "lung"]
    assert ct("projects", "workspace", "lung", "colon").code == 0
    with pytest.raises(Usage):
        folder_of("nobody")


def test_an_outdated_copy_of_the_dagster_side_is_one_line(tmp_path: Path) -> None:
    root = make_project(tmp_path / "toy").root
    assert ct("init", root).code == 0
    path = root / "ct_assets" / "asset_keys.py"
    path.write_text(path.read_text() + "\nfrom ctcore.looking import look_around\n")
    said = ct("-C", root, "run", "counted")
    assert said.code == 1 and said.err.count("\n") == 1
    assert f"{path} is of another ct: it uses ctcore.looking" in said.err
    assert ct("init", root).code == 0  # the way out that it names
    refuse_other_copies(Project(root))


@pytest.mark.parametrize("file", ("sensors/jobs.py", "resources/__init__.py", "definitions.py", "ct_assets/runs.py"))
def test_a_name_that_this_ct_lacks_is_told_of_every_copied_file(tmp_path: Path, file: str) -> None:
    root = make_project(tmp_path / "toy").root
    assert ct("init", root).code == 0
    (root / "ct_assets" / "eventlog.py").write_text("from ctcore.looking import look_around\n")  # of an older ct
    refuse_other_copies(Project(root), "wipe")
    path = root / file
    path.write_text(path.read_text() + "\nfrom ctcore.project import (\n    Project,\n    Undertaking,  # it\n)\n")
    with pytest.raises(ProjectError, match=rf"{file} is of another ct: it uses Undertaking of ctcore\.project"):
        refuse_other_copies(Project(root))
