"""The verdict on every node of a national cohort, beside one raw scan and join of the same tables."""

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sqlalchemy import select, update

from benchmarks import scans
from benchmarks.measure import Measured, Row, Target, apart, expect, growth, timed
from benchmarks.nation import BELOW_ONE_ASSAY, Nation, check, nation
from ctcore.catalog.tables import entity, file, reference
from ctcore.lineage.explain import why
from ctcore.model.node import name_of
from ctcore.project import Project
from ctcore.staleness.verdicts import Verdicts, evaluate
from ctcore.store.digest import digest_value
from tests.helpers.postgres import NoPostgres, server

ASSAYS = (1_000, 10_000, 100_000)
QUICK = (10, 40)
TIMES_RAW = 3.0
EXPONENT = 1.05
NOTHING_S, ONE_FILE_S = 0.010, 0.050
COLD = "first evaluation ever, new process"
SAVED = "evaluation by a new process"
WARM = "evaluation again, the reference back as it was"
REFERENCE = "the reference of all nodes changed"
GROWING = (COLD, SAVED, WARM, REFERENCE)
RAW_FROM = 10_000
CHECKED_UP_TO = 10_000  # assays up to which the filled catalog is compared with what preparing the calls anew gives


@dataclass(frozen=True)
class Baselines:
    """The fastest way over tables that are loaded, and the fastest over the catalog as it lies."""

    loaded: tuple[str, Measured]
    stored: tuple[str, Measured]
    all: scans.Found


def measure(folder: Path, quick: bool) -> Iterator[Row]:
    loaded: dict[int, tuple[str, Measured]] = {}
    for name in ("SQLite", "PostgreSQL"):
        points: dict[str, list[tuple[int, Measured]]] = {what: [] for what in GROWING}
        for assays in QUICK if quick else ASSAYS:
            with ExitStack() as stack:
                try:
                    url = None if name == "SQLite" else stack.enter_context(stack.enter_context(server()).fresh())
                except NoPostgres as error:
                    print(f"without PostgreSQL: {error}", file=sys.stderr)
                    return
                rows = apart(_measured, folder / f"{name}-{assays}", assays, url, loaded.get(assays))
            loaded.setdefault(assays, next((row.baseline, row.theirs) for row in rows if row.what.endswith(WARM)))
            for row in rows:
                yield row
                what = row.what.removeprefix(f"{name}, ")
                if what in points:
                    points[what].append((assays, row.mine))
        yield from _growths(name, points)


def _growths(name: str, points: dict[str, list[tuple[int, Measured]]]) -> Iterator[Row]:
    """From the smallest, as the target has it, and between the two largest, where fixed costs hide nothing."""
    for what, some in points.items():
        for first in some[:-1]:
            (less, before), (more, after) = first, some[-1]
            found = growth((less, before.seconds), (more, after.seconds))
            target = Target(EXPONENT, "exponent", found)
            yield Row(f"{name}, growth: {what}", f"{less} → {more} assays", after, target=target)


def _measured(root: Path, assays: int, url: str | None, loaded: tuple[str, Measured] | None) -> list[Row]:
    if url is not None:
        os.environ["CT_POSTGRES_URL"] = url
    filled = apart(_fill, root, assays)
    made = Nation(Project(root), *filled.value)
    before = {path.name for path in root.iterdir()}
    baselines = apart(_baselines, root, url, loaded)
    cold = apart(_alone, root, made.nodes, before)
    saved = apart(_alone, root, made.nodes, None)
    name = "SQLite" if url is None else "PostgreSQL"
    rows = [
        Row("filling the catalog", made.size, filled),
        *(Row(f"raw: {what}", made.size, found) for what, found in baselines.all.items()),
        _beside(COLD, made, cold, baselines.stored),
        _beside(SAVED, made, saved, baselines.loaded),
        *_Warm(made, baselines, full=saved).rows(),
    ]
    shutil.rmtree(root)
    return [Row(f"{name}, {row.what}", row.size, row.mine, row.baseline, row.theirs, row.target) for row in rows]


def _fill(root: Path, assays: int) -> Measured:
    found = timed(lambda: nation(root, assays), times=1)
    made = found.value
    if assays <= CHECKED_UP_TO:
        check(made)
    return replace(found, value=(made.assays, made.nodes, made.edges))


def _beside(what: str, made: Nation, mine: Measured, against: tuple[str, Measured]) -> Row:
    """Below a size, what any call costs is more than the scan, and the ratio is no target."""
    target = Target(TIMES_RAW, "×") if made.assays >= RAW_FROM else None
    return Row(what, made.size, mine, *against, target)


def _baselines(root: Path, url: str | None, loaded: tuple[str, Measured] | None) -> Baselines:
    stored = scans.of_the_server(url, Project(root).catalog.schema) if url else scans.of_the_file(root / "catalog.db")
    tables = dict([loaded]) if loaded else scans.of_loaded_tables(root / "catalog.db", root)
    for what, found in (*stored.items(), *tables.items()):
        expect(f"versions that differ, {what}", found.value[1], 0)
    expect("edges of artifacts", len({found.value[0] for found in (*stored.values(), *tables.values())}), 1)
    return Baselines(scans.fastest(tables), scans.fastest(stored), {**stored, **({} if loaded else tables)})


def _alone(root: Path, nodes: int, keep: set[str] | None) -> Measured:
    """In a process that has never evaluated; with `keep`, on a project in which nobody has: only these files stay."""
    for path in root.iterdir() if keep is not None else ():
        if path.name not in (keep or ()) and not path.name.startswith("catalog.db"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    if keep is not None:
        shutil.rmtree(root / "work" / "mirror", ignore_errors=True)  # the check of what was filled left one
    found = timed(lambda: _verdicts(Project.find(root)), times=1)
    _expect_stale(found.value, 0, nodes)
    return replace(found, value=None)


def _verdicts(project: Project) -> Verdicts:
    """Evaluated, and the states of every step counted, as `ct status` does."""
    found = evaluate(project)
    for step in project.steps:
        found.count(step.name)
    return found


def _expect_stale(found: Verdicts, stale: int, nodes: int) -> None:
    counts = [found.count(name) for name in found.totals]
    fresh = sum(count.get("fresh", 0) for count in counts)
    expect("fresh nodes and all nodes", (fresh, sum(found.totals.values())), (nodes - stale, nodes))


class _Warm:
    """One process that evaluates again and again while the world changes, as the daemon does."""

    def __init__(self, made: Nation, baselines: Baselines, full: Measured) -> None:
        self.made, self.baselines, self.full = made, baselines, full
        self.project = made.again()
        self.times = 1 if full.seconds > 5 else 3
        self.changes = 0
        _verdicts(self.project)

    def rows(self) -> Iterator[Row]:
        yield self._row("nothing changed", 0, None, Target(NOTHING_S, "s"))
        node = ("summary", f"A{self.made.assays // 2}")
        yield Row("one assay's last step asked", self.made.size, timed(lambda: why(self.project, node)))
        yield self._row("one input file changed", BELOW_ONE_ASSAY, self._change_file, Target(ONE_FILE_S, "s"))
        self._change_file(back=True)
        _verdicts(self.project)
        target = Target(1.0, "×")
        changed = self._row(REFERENCE, self.made.nodes, self._change_reference, target, against=(SAVED, self.full))
        yield changed
        listed = timed(lambda: len(evaluate(self.project).stale()), times=1)
        expect("stale nodes listed", listed.value, self.made.nodes)
        yield Row("of it again, and each stale node listed", self.made.size, listed)
        self._change_reference("1")
        back = timed(lambda: _verdicts(self.project), times=1)
        _expect_stale(back.value, 0, self.made.nodes)
        yield _beside(WARM, self.made, replace(back, value=None), self.baselines.loaded)

    def _row(
        self,
        what: str,
        stale: int,
        before: Callable[[], Any] | None,
        target: Target,
        against: tuple[str, Measured] | None = None,
    ) -> Row:
        def changed() -> Project:
            if before is not None:
                before()
            return self.project

        found = timed(_verdicts, self.times, before=changed)
        _expect_stale(found.value, stale, self.made.nodes)
        return Row(what, self.made.size, replace(found, value=None), *(against or self.baselines.loaded), target)

    def _change_file(self, back: bool = False) -> None:
        """As looking at the files writes it."""
        name = f"A{self.made.assays // 2}"
        with self.project.catalog.write() as writer:
            seq = writer.execute(select(entity.c.seq).where(entity.c.level == "assay", entity.c.id == name)).scalar()
            mine = (file.c.entity == seq) & (file.c.role == "reads")
            row = writer.execute(select(file).where(mine)).one()
            self.changes += 1
            self.first = getattr(self, "first", row.digest)
            new = self.first if back else digest_value("ct.bench", self.changes)
            writer.execute(update(file).where(mine).values(digest=new))
            body = {"role": row.role, "path": row.path, "old": row.digest, "new": new}
            writer.event("file", name_of(("assay", name)), body)

    def _change_reference(self, version: str = "") -> None:
        with self.project.catalog.write() as writer:
            row = writer.execute(select(reference)).mappings().one()
            self.changes += 1
            new = {**row, "version": version or f"changed {self.changes}"}
            writer.execute(update(reference).values(version=new["version"]))
            writer.event("reference", "reference/genome", {**new, "old": f"{row['version']} {row['digest']}"})
