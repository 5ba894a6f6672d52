"""What people type all day on a large cohort, as whole processes: register it, ask it, take it away as files.

Registering writes through the real door, from a sheet with a raw file an assay; what its steps made is filled in bulk.
Beside each command is the least that any program would do for it, in a process of its own too.
"""

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from benchmarks.cohort import SETTLED_S, seen_lately
from benchmarks.measure import Measured, Row, Target, apart, run
from benchmarks.nation import GROUP, check, fill
from ctcore.project import Project
from tests.helpers.kit import TOML, assay, write_sheet
from tests.helpers.postgres import NoPostgres, server

ASSAYS, FEWER, FEWEST = 40_000, 10_000, 4_000
QUICK = (40, 20, 8)
AGAIN_S, STATUS_S, GROWTH = 1.0, 0.4, 1.2
CHANGED = 100
FACTS = '{"coverage":31.5,"reads":41234567}'
PAIRED = """
[pairings.tumour_normal]
by = "specimen.site"
order = ["tumour", "normal"]
"""
STEPS = '''
"""Made-up steps."""

from ctcore.step import Call, step


@step(level="assay", files=["reads"], references=["genome"], outputs={"out": "out.txt"})
def aligned(call: Call) -> None: ...


@step(level="assay", inputs={"reads": "aligned"}, outputs={"out": "out.txt"})
def quality(call: Call) -> None: ...


@step(level="assay", inputs={"reads": "aligned"}, references=["genome"], outputs={"out": "out.txt"})
def called(call: Call) -> None: ...


@step(level="specimen", inputs={"of": "called", "told": "quality"}, columns=["patient.sex"], outputs={"out": "out.txt"})
def merged(call: Call) -> None: ...


@step(level="patient", inputs={"of": "merged"}, outputs={"out": "out.txt"})
def compared(call: Call) -> None: ...


@step(level="cohort", inputs={"of": "merged"}, outputs={"out": "out.txt"})
def joined(call: Call) -> None: ...


@step(level="cohort", inputs={"of": "quality"}, outputs={"out": "out.txt"})
def controlled(call: Call) -> None: ...
'''
# `ct register` of a new cohort would also start Dagster and tell it the keys, which is not of interest here
REGISTER = """
import sys
from pathlib import Path
from ctcore.intake.raw_files import check_references, look
from ctcore.project import Project
from ctcore.intake.register import register
project = Project(Path(sys.argv[1]))
check_references(project)
assert register(project, project.root / "sheet.csv").new["assay"]
look(project)
"""
READ = "import pandas, os, sys; os.chdir(sys.argv[1]); sheet = pandas.read_csv('sheet.csv', dtype=str)\n"
READ_AND_DIGEST = f"{READ}import blake3\nfor path in sheet.reads: blake3.blake3(open(path, 'rb').read()).hexdigest()"
READ_AND_STAT = f"{READ}for path in sheet.reads: os.stat(path)"
JOIN = """
import sqlite3, sys
catalog = sqlite3.connect(sys.argv[1] + '/catalog.db')
catalog.execute('''SELECT a.asset, count(*), sum(b.data_version <> e.version) FROM artifact a
    JOIN edge e ON e.materialization = a.materialization
    LEFT JOIN artifact b ON b.asset = e.asset AND b.partition = e.partition GROUP BY a.asset''').fetchall()
"""
COUNT = """
import sqlite3, sys
catalog = sqlite3.connect(sys.argv[1] + '/catalog.db')
catalog.execute("SELECT count(*) FROM entity WHERE level = 'assay'").fetchall()
"""
CROSSED = f"{READ}print(pandas.crosstab(sheet.patient_id, sheet.site).to_string())"
TABLES = (
    "import glob, pandas, sys; tables = {p: pandas.read_parquet(p) for p in glob.glob(sys.argv[1] + '/out/*.parquet')}"
)
TO_PARQUET = f"{TABLES}\nfor path, table in tables.items(): table.to_parquet(path + '.theirs', compression='zstd')"
TO_CSV = f"{TABLES}\nfor path, table in tables.items(): table.to_csv(path + '.csv', index=False)"
TO_JSON = f"{TABLES}\nfor path, table in tables.items(): table.to_json(path + '.json', orient='records')"
TO_XLSX = f"""{TABLES}
import openpyxl
book = openpyxl.Workbook(write_only=True)
for table in tables.values():
    sheet = book.create_sheet()
    sheet.append(list(table.columns))
    for row in zip(*(table[name].tolist() for name in table.columns)): sheet.append(row)
book.save(sys.argv[1] + '/theirs.xlsx')
"""
DRAWN = """
import sys
import numpy
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
figure = Figure(figsize=(12, 12)); FigureCanvasAgg(figure)
for axis in figure.subplots(1, 4): axis.imshow(numpy.zeros((1000, 3)), aspect='auto')
figure.savefig(sys.argv[1] + '/theirs.png', dpi=150)
"""


def measure(folder: Path, quick: bool) -> Iterator[Row]:
    most, fewer, fewest = QUICK if quick else (ASSAYS, FEWER, FEWEST)
    yield from _status(_prepared(folder / "fewest", fewest), fewest)
    root = folder / "most"
    yield from _registered(root, most)
    apart(_fill, root, most)
    yield from _again(root, most, "")
    yield from _asked(root, most)
    yield from _taken(root, most, _prepared(folder / "fewer", fewer), fewer)
    yield from _on_postgres(folder / "server", most)


def _on_postgres(root: Path, assays: int) -> Iterator[Row]:
    with ExitStack() as stack:
        try:
            url = stack.enter_context(stack.enter_context(server()).fresh())
        except NoPostgres as error:
            print(f"without PostgreSQL: {error}", file=sys.stderr)
            return
        os.environ["CT_POSTGRES_URL"] = url
        stack.callback(os.environ.pop, "CT_POSTGRES_URL")
        yield from _registered(root, assays, "PostgreSQL, ")
        apart(_fill, root, assays)
        yield from _again(root, assays, "PostgreSQL, ")
        _ct(root, 1, "status")
        yield Row("PostgreSQL, status", _size(assays), _ct(root, 3, "status"))


def _prepared(root: Path, assays: int) -> Path:
    apart(_write, root, assays)
    _python(REGISTER, root, 1)
    apart(_fill, root, assays)
    return root


def _registered(root: Path, assays: int, on: str = "") -> Iterator[Row]:
    apart(_write, root, assays)
    time.sleep(SETTLED_S)
    first, theirs = _python(REGISTER, root, 1), _python(READ_AND_DIGEST, root)
    yield Row(f"{on}register, the first time", _size(assays), first, "pandas.read_csv, BLAKE3 of each file", theirs)


def _again(root: Path, assays: int, on: str) -> Iterator[Row]:
    stat = ("pandas.read_csv, os.stat of each file", _python(READ_AND_STAT, root))
    _ct(root, 1, "register", "sheet.csv")
    again = _ct(root, 3, "register", "sheet.csv")
    yield Row(f"{on}register, nothing changed", _size(assays), again, *stat, Target(AGAIN_S, "s"))
    sheet = root / "sheet.csv"
    lines = sheet.read_text().split("\n")
    lines[1 : CHANGED + 1] = [line.replace(",L1,", ",L2,") for line in lines[1 : CHANGED + 1]]
    sheet.write_text("\n".join(lines))
    changed = _ct(root, 1, "register", "sheet.csv", "--update", "assay.library")
    yield Row(f"{on}register, {min(CHANGED, assays)} rows changed", _size(assays), changed, *stat)


def _status(root: Path, assays: int) -> Iterator[Row]:
    bare = ("python -c 'import numpy'", _python("import numpy", root))
    yield Row("status, the first ever", _size(assays), _ct(root, 1, "status"), *bare)
    yield Row("status", _size(assays), _ct(root, 3, "status"), *bare, Target(STATUS_S, "s"))


def _asked(root: Path, assays: int) -> Iterator[Row]:
    join = ("sqlite3: versions joined, counted by step", _python(JOIN, root))
    size = _size(assays)
    yield Row("status, the first ever", size, _ct(root, 1, "status"), *join)
    yield Row("status", size, _ct(root, 3, "status"), *join)
    crossed = _python(CROSSED, root)
    paired = _ct(root, 3, "cohort", "--pairing", "tumour_normal")
    yield Row("cohort --pairing", size, paired, "pandas.crosstab of the sheet", crossed)
    counted = _ct(root, 3, "query", "SELECT count(*) FROM assays")
    yield Row("query, a count", size, counted, "sqlite3: the same count, ungated", _python(COUNT, root))
    yield Row("dashboard", size, _ct(root, 3, "dashboard", str(root / "page.html")), *join)
    drawn = _ct(root, 3, "heatmap", str(root / "map.png"))
    yield Row("heatmap", size, drawn, "matplotlib: four such pictures", _python(DRAWN, root))


def _taken(root: Path, assays: int, small: Path, fewer: int) -> Iterator[Row]:
    """Exports, with what they are compared with at the smaller size: there it takes minutes already."""
    before = dict(_exports(small))
    others = {
        "parquet": ("pandas.to_parquet", TO_PARQUET),
        "csv": ("pandas.to_csv", TO_CSV),
        "json": ("pandas.to_json", TO_JSON),
        "xlsx": ("openpyxl write_only", TO_XLSX),
    }
    for kind, mine in _exports(root):
        what, (name, script) = f"export of all tables, {kind}", others[kind]
        yield Row(what, _size(fewer), before[kind], f"{name} of the same rows", _python(script, small, 1))
        grown = Target(GROWTH, "× peak", (mine.peak_mib or 0) / (before[kind].peak_mib or 1))
        yield Row(what, _size(assays), mine, _size(fewer), before[kind], grown)


def _exports(root: Path) -> Iterator[tuple[str, Measured]]:
    for kind in ("parquet", "csv"):
        yield kind, _ct(root, 1, "export", str(root / "out"), "--format", kind)
    yield "json", _ct(root, 1, "export", str(root / "all.json"))
    yield "xlsx", _ct(root, 1, "export", str(root / "all.xlsx"))


def _size(assays: int) -> str:
    return f"{assays} assays"


def _ct(root: Path, times: int, *arguments: str) -> Measured:
    names = [str(root / one) if one == "sheet.csv" else one for one in arguments]
    return run([sys.executable, "-m", "ctcore.cli", "-C", str(root), *names], times)


def _python(script: str, root: Path, times: int = 3) -> Measured:
    return run([sys.executable, "-c", script, str(root)], times)


def _write(root: Path, assays: int) -> None:
    """A project with a sheet and a raw file an assay, nothing registered."""
    (root / "steps").mkdir(parents=True)
    (root / "ct.toml").write_text(TOML + PAIRED)
    (root / "genome.txt").write_text("ACGT\n")
    (root / "steps" / "made_up.py").write_text(STEPS)
    Project.find(root).store.ensure()
    write_sheet(root, _rows(assays))


def _rows(assays: int) -> Sequence[dict[str, str]]:
    return [
        assay(f"P{at // GROUP**2}", f"S{at // GROUP}", f"A{at}", **_said(at // GROUP**2, at // GROUP))
        for at in range(assays)
    ]


def _said(patient: int, specimen: int) -> dict[str, str]:
    site = ("tumour", "normal")[specimen % GROUP]
    return {"sex": "FM"[patient % 2], "age": str(20 + patient % 60), "site": site, "library": "L1"}


def _fill(root: Path, assays: int) -> None:
    check(fill(Project(root), assays, facts=FACTS))
    seen_lately(root)
