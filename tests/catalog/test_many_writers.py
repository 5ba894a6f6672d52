"""Sixteen processes that write different things at one moment: nothing is lost, and one chain tells of all of it."""

import os
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import select

from ctcore.catalog.event_log import check_chain
from ctcore.catalog.tables import event
from ctcore.errors import CtError
from ctcore.governance.consent import Statement, set_consent
from ctcore.governance.qc import Choice, QcEntry, add, resolve
from ctcore.inputs.current import forget
from ctcore.intake.raw_files import look
from ctcore.intake.register import register_entity
from ctcore.integrity.catalog_check import disagreements
from ctcore.integrity.verify import verify
from ctcore.project import Project
from ctcore.staleness.accept import KINDS, accept, propose
from tests.helpers.killing import forked
from tests.helpers.kit import Inline, again, assay, fail, make, make_all, make_project

pytestmark = pytest.mark.usefixtures("catalog_url")
Work = Callable[[Project], object]
SECONDS = 120.0  # the longest that anybody may wait: each has 30 s for the lock


def project_of(root: Path) -> Project:
    """Ten assays of six patients, made; then the reads of five are others, and two have failed."""
    owner = [0, 1, 2, 3, 0, 1, 2, 3, 8, 9]
    rows = [assay(f"P{who}", f"S{who}", f"A{n}", sex="F") for n, who in enumerate(owner)]
    project = make_project(root, rows)
    make_all(project)
    for name in ("A0", "A1", "A2", "A3", "A6"):
        (project.root / f"reads/{name}.txt").write_text(f"other reads of {name}\n")
    look(project)
    fail(project, "A4", "A5")
    return project


def works() -> list[tuple[str, Work]]:
    """Sixteen: what each does, and the kind of event that it leaves."""
    found: list[tuple[str, Work]] = []
    for n in range(4):
        found.append(("register", lambda project, n=n: register_entity(project, "patient", f"Q{n}")))
        found.append(("materialize", lambda project, n=n: make(project, "counted", f"A{n}", runner=Inline(project))))
    for n in range(3):
        said = QcEntry("patient", f"P{n}", "qc_warn", "a dark spot")
        found.append(("warn", lambda project, said=said: add(project, [said])))
    for n in (8, 9):
        found.append(("consent", lambda project, n=n: set_consent(project, [f"P{n}"], Statement("pending"))))
    for n in (4, 5):
        choice = Choice(entity=("assay", f"A{n}"))
        found.append(("release", lambda project, choice=choice: resolve(project, choice, "it was not")))
    found.append(("accept", lambda project: accept(project, propose(project, {"counted": {"A6"}}, ALL), "the same")))
    return found


ALL = frozenset(KINDS)


def begun(root: Path, work: Work, start: float, log: Path) -> int:
    """A process that opens the project, waits for the moment, and does its work: its ID."""
    child = os.fork()
    if child == 0:

        def alone() -> int:
            forget()
            project = Project.find(root)
            time.sleep(max(0.0, start - time.time()))
            try:
                work(project)
            except CtError as error:
                os.write(1, f"{type(error).__name__}: {error}".encode())
                return error.exit_code
            return 0

        code = forked(alone, log)
        os._exit(code if code >= 0 else 99)
    return child


def ended(children: list[int], deadline: float) -> list[int]:
    codes: dict[int, int] = {}
    while len(codes) < len(children):
        for child in set(children) - codes.keys():
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                codes[child] = os.waitstatus_to_exitcode(status)
        assert time.monotonic() < deadline, f"{len(children) - len(codes)} are still waiting"
        time.sleep(0.01)
    return [codes[child] for child in children]


def kinds(project: Project) -> Counter[str]:
    with project.catalog.read() as connection:
        return Counter(connection.execute(select(event.c.kind)).scalars())


def test_sixteen_writers_of_different_things_lose_nothing(tmp_path: Path) -> None:
    project = project_of(tmp_path / "toy")
    before, listed = kinds(project), works()
    assert len(listed) == 16
    project.catalog.engine.dispose()
    start = time.time() + 0.5
    logs = [tmp_path / f"log{number}" for number in range(16)]
    children = [begun(project.root, work, start, log) for (_, work), log in zip(listed, logs, strict=True)]
    codes = ended(children, time.monotonic() + SECONDS)
    said = [log.read_text() for log in logs if log.exists()]
    assert codes == [0] * 16, said
    forget()
    project = again(project)
    assert kinds(project) - before == Counter(kind for kind, _ in listed)
    assert disagreements(project) == []
    with project.catalog.read() as connection:
        rows = [dict(row) for row in connection.execute(select(event).order_by(event.c.seq)).mappings()]
    assert check_chain(iter(rows)) == [] and list(project.catalog.journal.read()) == rows
    assert verify(project).findings == ()


def test_sixteen_equal_clients_are_one_and_fifteen_errors(tmp_path: Path) -> None:
    project = project_of(tmp_path / "toy")
    said = QcEntry("assay", "A7", "qc_fail", "low yield")
    project.catalog.engine.dispose()
    start = time.time() + 0.5
    logs = [tmp_path / f"log{number}" for number in range(16)]
    children = [begun(project.root, lambda one: add(one, [said]), start, log) for log in logs]
    codes = ended(children, time.monotonic() + SECONDS)
    assert sorted(codes) == [0] + [2] * 15
    words = [log.read_text() for log, code in zip(logs, codes, strict=True) if code]
    assert all("assay/A7 is qc_fail already" in one for one in words), words
    assert disagreements(again(project)) == []
