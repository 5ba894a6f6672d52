"""A cohort as a country would have it: all its nodes made, written into the catalog in bulk, as recording would have.

Eight assay steps in a chain with two diamonds, a specimen's and a patient's step over them, twenty cohort artifacts
over all; every step reads the one reference. 100,000 assays make 875,020 nodes and 3.4 million edges. What the
makings look like in the ledger is proven by the ledger's own questions (`check`), not by this file. Of events there
is one for all of it: no verdict looks at the text of one.
"""

import io
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from blake3 import blake3
from sqlalchemy import Table, func, select

from benchmarks.measure import expect
from ctcore.catalog.tables import artifact, edge, entity, file, materialization, member, output, recipe, reference
from ctcore.inputs.key import Edge, key_of, prepare
from ctcore.project import Project
from ctcore.step import Step
from ctcore.store.digest import Signature, canonical_json
from ctcore.util.clock import now
from ctcore.util.gc import without_collecting
from tests.helpers.kit import assay, make_project

GROUP = 2  # assays a specimen, and specimens a patient
OF_ASSAYS = {
    "trimmed": "",
    "aligned": "trimmed",
    "quality": "trimmed",
    "marked": "aligned",
    "calls": "marked",
    "depth": "marked",
    "joined": "calls depth",
    "summary": "joined quality",
}
OF_COHORT = {
    **{f"over_{name}": name for name in OF_ASSAYS},
    "calls_and_depth": "calls depth",
    "all_summaries": "summary",
    **{f"specimens_{at}": "merged" for at in range(3)},
    **{f"people_{at}": "person" for at in range(2)},
    "derived_0": "over_calls",
    "derived_1": "over_summary specimens_0",
    "derived_2": "derived_0 derived_1",
    "derived_3": "people_0",
    "derived_4": "derived_2 derived_3",
}
BELOW_ONE_ASSAY = len(OF_ASSAYS) + 2 + len(OF_COHORT)
_STEP = """
@step(level={level!r}, inputs={inputs!r}, references=["genome"]{more}, outputs={{"out": "out.txt"}})
def {name}(call: Call) -> None:
    call.out("out").write_text({name!r})
"""


def steps() -> str:
    """The file of steps."""
    found = [
        *(_step("assay", name, up, "" if up else ', files=["reads"]') for name, up in OF_ASSAYS.items()),
        _step("specimen", "merged", "summary", ', columns=["patient.sex"]'),
        _step("patient", "person", "merged"),
        *(_step("cohort", name, up) for name, up in OF_COHORT.items()),
    ]
    return "\n".join(['"""Made-up steps."""\n\nfrom ctcore.step import Call, step\n', *found])


def _step(level: str, name: str, up: str, more: str = "") -> str:
    return _STEP.format(level=level, name=name, inputs={f"of_{one}": one for one in up.split()}, more=more)


@dataclass(frozen=True)
class Nation:
    """The project, and how much is in its catalog."""

    project: Project
    assays: int
    nodes: int
    edges: int

    @property
    def size(self) -> str:
        return f"{self.assays} assays, {self.nodes} nodes, {self.edges} edges"

    def again(self) -> Project:
        """As a new process would open it."""
        return Project.find(self.project.root)


def nation(root: Path, assays: int, raw: bool = False) -> Nation:
    """Fill a project. CT_POSTGRES_URL says where, as ever; `raw` writes the raw files too, for what looks at them."""
    return fill(make_project(root, [assay("P0", "S0", "A0", sex="F")], steps()), assays, raw)


def fill(project: Project, assays: int, raw: bool = False, facts: str = "{}") -> Nation:
    """All nodes of any steps, in a project that has one assay, or all of them; `facts`: what each making measured."""
    with _bulk(project) as bulk:
        filling = _Filling(project, bulk, assays, facts)
        if len(filling.files) < assays:
            filling.register(raw)
        for step in project.steps:
            filling.make(step)
    with project.catalog.write() as writer:
        writer.event("benchmark", project.id, {"assays": assays})
    return Nation(project, assays, filling.nodes, filling.edges)


def check(made: Nation, some: int = 3) -> None:
    """The ledger's own questions: today's calls are those that were made, and it has as many rows as were written."""
    project = made.again()
    for step in project.steps:
        keys = ["all"] if step.level == "cohort" else [f"{step.level[0].upper()}{at}" for at in range(some)]
        ready = prepare(project, step, keys).ready
        with project.catalog.read() as connection:
            known = select(artifact.c.partition, artifact.c.key).where(artifact.c.asset == step.name)
            held = {row.partition: row.key for row in connection.execute(known.where(artifact.c.partition.in_(keys)))}
        expect(f"keys of {step.name}", held, {name: call.key for name, call in ready.items()})
    with project.catalog.read() as connection:
        counted = [connection.execute(select(func.count()).select_from(one)).scalar() for one in (artifact, edge)]
    expect("artifacts and edges", counted, [made.nodes, made.edges])


class _Entity(NamedTuple):
    seq: int
    id: str


class _Filling:
    def __init__(self, project: Project, bulk: "Bulk", assays: int, facts: str) -> None:
        self.project, self.bulk, self.facts = project, bulk, facts
        numbers = {"assay": assays, "specimen": -(-assays // GROUP), "patient": -(-assays // GROUP**2)}
        self.ids = {level: [f"{level[0].upper()}{at}" for at in range(n)] for level, n in numbers.items()}
        self.ids["cohort"] = ["all"]
        self.versions: dict[str, list[str]] = {}
        self.files: list[str] = []
        self.nodes = self.edges = 0
        self.at = now()
        with project.catalog.read() as connection:
            self.genome = connection.execute(select(reference.c.version + " " + reference.c.digest)).scalar_one()
            self.first = {row.id: row.seq for row in connection.execute(select(entity.c.id, entity.c.seq))}
            self.files += connection.execute(select(file.c.digest).order_by(file.c.entity)).scalars()

    def register(self, raw: bool) -> None:
        """Entities and files beside the first ones, which came from a sheet."""
        seq = dict(self.first)
        for level in ("patient", "specimen", "assay"):
            new = self.ids[level][1:]
            start = max(seq.values()) + 1
            seq |= {name: start + at for at, name in enumerate(new)}
            self.bulk.add(entity, (self._entity(level, at, seq) for at in range(1, len(new) + 1)))
        names = self.ids["assay"]
        rows = [_file(self.project.root, seq[name], at, name, raw) for at, name in enumerate(names) if at]
        self.files += [row[3] for row in rows]
        self.bulk.add(file, rows)

    def _entity(self, level: str, at: int, seq: dict[str, int]) -> tuple[Any, ...]:
        above = {"specimen": "P", "assay": "S"}.get(level)
        parent = seq[f"{above}{at // GROUP}"] if above else None
        said = {"sex": _sex(at)} if level == "patient" else {}
        name = self.ids[level][at]
        return seq[name], level, name, parent, canonical_json(said).decode(), None

    @without_collecting
    def make(self, step: Step) -> None:
        """All nodes of one step."""
        used = self.project.recipes[step.name]
        number = self.project.steps.order.index(step.name) + 1
        sides = [canonical_json(dict(value)).decode() for value in (used.parameters, used.environment)]
        self.bulk.add(recipe, [(number, used.step, used.code, *sides, used.digest)])
        ids = self.ids[step.level]
        edges = [self._edges(step, at) for at in range(len(ids))]
        versions = self.versions[step.name] = [_digest(f"{step.name} {name}") for name in ids]
        keys = [key_of(used, (step.name, name), mine) for name, mine in zip(ids, edges, strict=True)]
        numbers = range(self.nodes + 1, self.nodes + 1 + len(ids))
        rows = list(zip(numbers, ids, keys, versions, strict=True))
        self.bulk.add(materialization, (self._materialization(step.name, number, *row) for row in rows))
        self.bulk.add(output, ((at, "out.txt", version, 9, 1, at) for at, _, _, version in rows))
        self.bulk.add(edge, ((at, *one) for at, mine in zip(numbers, edges, strict=True) for one in mine))
        self.bulk.add(member, chain.from_iterable(map(self._members(step), numbers, edges)))
        self.bulk.add(
            artifact, ((step.name, name, at, number, version, key, self.at) for at, name, key, version in rows)
        )
        self.nodes += len(ids)
        self.edges += sum(map(len, edges))

    def _edges(self, step: Step, at: int) -> list[Edge]:
        """In the order of their names, as a key takes them."""
        name = self.ids[step.level][at]
        found = [Edge(role, step.level, name, self.files[at]) for role in step.files]
        found += [Edge(column, step.level, name, f'"{_sex(at // GROUP)}"') for column in step.columns]
        found += [Edge(f"reference:{key}", "reference", key, self.genome) for key in step.references]
        for role, up in step.inputs.items():
            level, versions = self.project.steps[up].level, self.versions[up]
            ids = self.ids[level]
            if level == step.level:
                found.append(Edge(role, up, name, versions[at]))
            elif step.level == "cohort":
                found += [Edge(role, up, who, version) for who, version in zip(ids, versions, strict=True)]
            else:
                below = range(at * GROUP, min(at * GROUP + GROUP, len(ids)))
                found += [Edge(role, up, ids[one], versions[one]) for one in below]
        return sorted(found)

    def _materialization(self, asset: str, used: int, number: int, name: str, key: str, version: str) -> Sequence[Any]:
        folder = f"{asset}/{name}/{key[:16]}"
        said = (self.facts, "missing: never made", None, self.at, 0.1, True, None, *(None,) * 4)
        return (number, asset, name, key, used, version, folder, 9, *said)

    def _members(self, step: Step) -> Any:
        levels = {up: self.project.steps[up].level for up in step.inputs.values()}
        below = {up: level for up, level in levels.items() if level != step.level}

        def rows(number: int, edges: Sequence[Edge]) -> Iterable[tuple[Any, ...]]:
            who = dict.fromkeys((below[one.asset], one.partition) for one in edges if one.asset in below)
            return ((number, *one, "member") for one in who)

        return rows if below else lambda number, edges: ()


def _sex(patient: int) -> str:
    return "FM"[patient % 2]


def _digest(said: str) -> str:
    return blake3(said.encode()).hexdigest()


def _file(root: Path, number: int, at: int, name: str, raw: bool) -> tuple[Any, ...]:
    path = f"reads/{at // 1000:03d}/{name}.txt"
    content = f"reads of {name}\n".encode()
    seen = Signature(len(content), 1, number, 1)
    if raw:
        place = root / path
        if at % 1000 in (0, 1):
            place.parent.mkdir(exist_ok=True)
        place.write_bytes(content)
        seen = Signature.of(place)
    size, mtime_ns, inode, ctime_ns = seen
    return number, "reads", path, blake3(content).hexdigest(), size, mtime_ns, inode, None, ctime_ns


class Bulk(Protocol):
    """Where rows go, the columns of a table in its order; used as a context, at whose end they are there."""

    def __enter__(self) -> "Bulk": ...

    def __exit__(self, *_: object) -> None: ...

    def add(self, table: Table, rows: Iterable[Sequence[Any]]) -> None: ...


def _bulk(project: Project) -> Bulk:
    return _Sqlite(project) if project.catalog.is_sqlite else _Postgres(project)


class _Sqlite:
    """`executemany` of tuples; indexes that are not filled in order are built at the end."""

    def __init__(self, project: Project) -> None:
        project.catalog.engine.dispose()
        self.connection = sqlite3.connect(project.root / "catalog.db", isolation_level=None)
        self.connection.execute("PRAGMA synchronous=OFF")
        found = "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND tbl_name IN ('edge', 'materialization')"
        self.later = [row for row in self.connection.execute(found) if row[1]]

    def __enter__(self) -> "_Sqlite":
        self.connection.execute("BEGIN")
        for name, _ in self.later:
            self.connection.execute(f"DROP INDEX {name}")
        return self

    def add(self, table: Table, rows: Iterable[Sequence[Any]]) -> None:
        first, every = _first(rows)
        marks = ", ".join("?" * len(first))
        if first:
            self.connection.executemany(f"INSERT INTO {table.name} ({_names(table, first)}) VALUES ({marks})", every)

    def __exit__(self, *_: object) -> None:
        for _, statement in self.later:
            self.connection.execute(statement)
        self.connection.execute("COMMIT")
        self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self.connection.close()


class _Postgres:
    """COPY, without looking at each row's foreign keys; statistics at the end, as a server gathers by itself."""

    def __init__(self, project: Project) -> None:
        self.connection = project.catalog.engine.raw_connection()
        self.cursor = self.connection.cursor()
        self.cursor.execute(
            "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = current_schema()"
            " AND indexname IN ('edge_source', 'materialization_key', 'materialization_node')"
        )
        self.later = self.cursor.fetchall()

    def __enter__(self) -> "_Postgres":
        self.cursor.execute("SET LOCAL session_replication_role = replica")
        for name, _ in self.later:
            self.cursor.execute(f'DROP INDEX "{name}"')
        return self

    def add(self, table: Table, rows: Iterable[Sequence[Any]]) -> None:
        first, every = _first(rows)
        text = io.StringIO("".join(_lines(every)))
        if first:
            self.cursor.copy_expert(f'COPY "{table.name}" ({_names(table, first)}) FROM STDIN', text)

    def __exit__(self, *_: object) -> None:
        for _, statement in self.later:
            self.cursor.execute(statement)
        self.connection.commit()
        self.cursor.execute("ANALYZE")
        self.connection.commit()
        self.connection.close()


def _first(rows: Iterable[Sequence[Any]]) -> tuple[Sequence[Any], Iterable[Sequence[Any]]]:
    """The first row, and all of them."""
    listed = iter(rows)
    first = next(listed, ())
    return first, chain([first], listed) if first else ()


def _names(table: Table, row: Sequence[Any]) -> str:
    """The columns of a row: the last ones may have their defaults."""
    return ", ".join(f'"{column.name}"' for column in list(table.columns)[: len(row) or None])


def _lines(rows: Iterable[Sequence[Any]]) -> Iterator[str]:
    for row in rows:
        yield "\t".join(r"\N" if one is None else str(one).replace("\\", r"\\") for one in row) + "\n"
