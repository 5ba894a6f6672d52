"""`ct adopt` of a joint call over a cohort, as a shell sees it."""

import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measure import Row, Target, apart, expect, run

MEMBERS = (1_000, 10_000)
QUICK = (20,)
BYTES = 16 << 20
ADOPTED_S = 2.0
BASELINE = "python -c pass"
JOINT = """\
made_elsewhere = true
level = "cohort"
inputs = { counts = "counted" }
references = ["genome"]
role = "patient.sex"
outputs = { vcf = "joint.vcf" }
"""


def measure(folder: Path, quick: bool) -> Iterator[Row]:
    bare = run([sys.executable, "-c", "pass"])
    for members in QUICK if quick else MEMBERS:
        root = folder / f"project-{members}"
        apart(_make, root, members)
        words = ["adopt", "joint/all", "--output", f"vcf={root / 'joint.vcf'}", "--made-by", "GLnexus"]
        mine = run([sys.executable, "-m", "ctcore.cli", "-C", str(root), *words], times=1)
        expect("members", apart(_members, root), members)
        target = Target(ADOPTED_S, "s", mine.cpu) if members <= MEMBERS[0] else None
        yield Row("ct adopt, a joint call", f"{members} members, 16 MiB", mine, BASELINE, bare, target)


def _make(root: Path, members: int) -> None:
    from benchmarks.cohort import made_project

    made_project(root, members)
    (root / "steps" / "joint.toml").write_text(JOINT)
    (root / "joint.vcf").write_bytes(bytes(BYTES))


def _members(root: Path) -> int:
    from sqlalchemy import func, select

    from ctcore.catalog.tables import materialization, member
    from ctcore.project import Project

    joined = member.join(materialization, materialization.c.id == member.c.materialization)
    mine = select(func.count()).select_from(joined)
    with Project(root).catalog.read() as connection:
        return connection.execute(mine.where(materialization.c.asset == "joint")).scalar_one()
