"""What several ask for at the same time is done once for each, in few goes, and nobody gets another one's answer."""

import fcntl
import json
import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from ctcore.catalog.event_log import check_chain
from ctcore.catalog.group_commit import Request, commit_in_group
from ctcore.catalog.tables import event, result
from ctcore.errors import Usage
from ctcore.intake.results import ResultEntry, analysis_of, record
from ctcore.project import Project
from tests.helpers.kit import TOML, assay, make_project

WRITERS, EACH = 4, 12


class Slow:
    """Answers with what was asked, and remembers what it was given at once."""

    def __init__(self) -> None:
        self.batches: list[list[Any]] = []
        self.under_way = threading.Lock()

    def __call__(self, requests: Sequence[Request]) -> list[Any]:
        assert self.under_way.acquire(blocking=False), "two at once"
        try:
            self.batches.append([one.body for one in requests])
            time.sleep(0.02)
            if any(one.body == "bad" for one in requests):
                raise Usage("bad")
            return [[one.body, one.actor] for one in requests]
        finally:
            self.under_way.release()


def all_at_once(folder: Path, act: Slow, bodies: Sequence[Any], about: str = "") -> list[Any]:
    def ask(body: Any) -> Any:
        try:
            return commit_in_group(folder, Request(f"who asks {body}", [about or str(body)], body), act)
        except Usage as error:
            return str(error)

    with ThreadPoolExecutor(len(bodies)) as pool:
        return list(pool.map(ask, bodies))


def test_waiting_clients_are_served_together(tmp_path: Path) -> None:
    act = Slow()
    assert all_at_once(tmp_path, act, range(12)) == [[at, f"who asks {at}"] for at in range(12)]
    assert sorted(body for batch in act.batches for body in batch) == list(range(12))
    assert len(act.batches) < 12
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


def test_only_those_who_were_about_the_last_time_are_awaited(tmp_path: Path) -> None:
    act = Slow()
    all_at_once(tmp_path, act, range(6))
    for body in range(6, 9):
        commit_in_group(tmp_path, Request("me", [str(body)], body), act)
    company, _seconds = (tmp_path / "lock").read_text().split()
    assert company == "1", "nobody else was"


def test_two_about_the_same_thing_are_not_done_in_one_go(tmp_path: Path) -> None:
    act = Slow()
    all_at_once(tmp_path, act, range(5), about="A1")
    assert [len(batch) for batch in act.batches] == [1] * 5


def test_a_failure_reaches_only_its_own_client(tmp_path: Path) -> None:
    bodies = [1, 2, "bad", 3]
    found = all_at_once(tmp_path, Slow(), bodies)
    assert found == [[1, "who asks 1"], [2, "who asks 2"], "bad", [3, "who asks 3"]]


def test_what_one_left_who_died_is_done_by_the_next(tmp_path: Path) -> None:
    (tmp_path / "1-dead.ask").write_text(json.dumps({"actor": "x", "about": ["A1"], "body": "of the dead"}))
    (tmp_path / "2-torn.ask").write_text("{")
    act = Slow()
    assert commit_in_group(tmp_path, Request("y", ["A2"], 7), act) == [7, "y"]
    assert act.batches == [[7, "of the dead"]]


def test_old_entries_go_unless_somebody_waits(tmp_path: Path) -> None:
    names = ("1-dead.ask", "2-torn.part", "3-nobody.answer", "4-waits.ask", "5-young.part")
    for name in names:
        (tmp_path / name).write_text("{")
        os.utime(tmp_path / name, None if "young" in name else (0, 0))
    with (tmp_path / "4-waits.ask").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        commit_in_group(tmp_path, Request("y", [], 7), Slow())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["4-waits.ask", "5-young.part", "lock"]


def test_where_no_file_can_be_made_it_is_done_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert commit_in_group(tmp_path / "file", Request("y", [], 7), Slow()) == [7, "y"]


def test_nothing_is_lost_where_processes_record_at_once(tmp_path: Path, catalog_url: str) -> None:
    analysis = '\n[analyses.reading]\nlevel = "assay"\ncolumns = { n = "integer" }\n'
    rows = [assay(f"P{at}", f"S{at}", f"A{at}") for at in range(WRITERS * EACH)]
    project = make_project(tmp_path / "toy", rows, toml=TOML + analysis)
    processes = [get_context("spawn").Process(target=_write, args=(str(project.root), at)) for at in range(WRITERS)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * WRITERS
    with project.catalog.read() as connection:
        assert connection.execute(select(func.count()).select_from(result)).scalar() == WRITERS * EACH
        told = [dict(row) for row in connection.execute(select(event).order_by(event.c.seq)).mappings()]
    assert check_chain(iter(told)) == []
    said = [row for row in told if row["kind"] == "record"]
    assert {row["actor"] for row in said} == {f"writer {at}" for at in range(WRITERS)} and len(said) == WRITERS * EACH
    assert len(list(project.catalog.journal.read())) == len(told)


def _write(root: str, number: int) -> None:
    project = Project(Path(root))
    project.catalog.actor = f"writer {number}"
    for at in range(number, WRITERS * EACH, WRITERS):
        record(project, analysis_of(project, "reading"), [ResultEntry(f"A{at}", {"n": at})])
