"""What people do to a project while it lives, in any order, and what is true once it is done."""

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import select, text

from ctcore.catalog.tables import consent, entity, purge, qc_event, qc_resolution, result
from ctcore.project import Project
from ctcore.util.clock import today
from tests.deletion.test_purge import holders, word
from tests.governance.test_gate_everywhere import readable
from tests.helpers.kit import write_sheet
from tests.helpers.lived import BARRING, let_go, people, stale, told
from tests.helpers.shell import ct
from tests.integrity.test_recover import lose

COMMANDS = ("register", "run", "record", "purge", "recover", "export", "verify", "consent", "qc")
EXPORTS = (
    "all.json",
    "all.xlsx",
    "folder",
    "wide.csv --wide assay",
    "r.parquet --table results",
    "v.tsv --table verdicts",
)


@dataclass
class Act:
    """A command, and what is true once it has been done: `stands`. Done twice, it may be refused (exit code 2). `once`:
    the kinds of events of which there is at most one, however often it was killed."""

    name: str
    words: tuple[str, ...]
    stands: Callable[[], bool]
    codes: tuple[int, ...] = (0,)
    once: tuple[str, ...] = ()
    before: Callable[[], None] = lambda: None
    is_inline: bool = False

    @property
    def breaks(self) -> bool:
        """Whether until its end catalog and journal are not what they should be."""
        return self.name == "recover"


@dataclass
class Life:
    """The project, the rows of its sheet, and what was done to it: `harmed` are folders of which a file was taken."""

    root: Path
    draw: random.Random
    rows: list[dict[str, str]]
    harmed: set[Path] = field(default_factory=set)
    said: list[str] = field(default_factory=list)
    count: Iterator[int] = field(default_factory=lambda: iter(range(1, 10_000)))

    def __post_init__(self) -> None:
        self.model = told(self.project)

    @property
    def out(self) -> Path:
        return self.root.parent / "out"

    @property
    def project(self) -> Project:
        return Project.find(self.root)

    def one(self, query: Any) -> Any:
        """The first row of it."""
        project = self.project
        with project.catalog.read() as connection:
            found = connection.execute(query).first()
        project.catalog.engine.dispose()
        return found

    # What there is to do

    def act(self) -> Act:
        """The next command, ready to be done."""
        name = self.draw.choice(COMMANDS)
        self._disturb()
        self.model = told(self.project)
        return getattr(self, f"_{name}")()

    def _disturb(self) -> None:
        """The world outside goes on: files change, and are lost."""
        what = self.draw.choice(("", "", "", "reads", "genome", "harm"))
        if what == "reads":
            row = self.draw.choice(self.rows)
            path = self.root / f"reads/{row['assay_id']}.txt"
            if path.exists():
                path.write_text(f"{word(row['patient_id'])}reads {next(self.count)}\n")
        elif what == "genome":
            (self.root / "genome.txt").write_text(f"ACGT {next(self.count)}\n")
        elif what == "harm":
            found = sorted((self.root / "store").glob("*/*/*/*.txt"))
            victim = self.draw.choice(found)
            victim.parent.chmod(0o755)
            victim.unlink()
            self.harmed.add(victim.parent)

    def _of(self, *status: str) -> list[str]:
        """Patients of the sheet with such a consent; the empty one: none is written."""
        consents = self.model.facts.consent
        return sorted({row["patient_id"] for row in self.rows if consents.get(row["patient_id"], "") in status})

    def _register(self) -> Act:
        usable = self._of("", "full", "research", "commerce")
        if self.draw.random() < 0.5 or not usable:
            number = 7 + next(self.count)
            new = people(self.root, number, 1)
            self.rows += new
            changed, more, who = new, (), f"PAT{number}"
        else:
            who = self.draw.choice(usable)
            more = ("--update", "assay.library", "--update", "patient.age")
            changed = [row for row in self.rows if row["patient_id"] == who]
            age = str(next(self.count))
            for row in changed:
                row |= {"library": f"{word(who)}{next(self.count)}", "age": age}
        sheet, age = write_sheet(self.root, changed), changed[-1]["age"]

        def stands() -> bool:
            row = self.one(select(entity).where(entity.c.id == who))
            return row is not None and json.loads(row.attributes).get("age") == int(age)

        return Act("register", ("register", str(sheet), *more), stands)

    def _run(self) -> Act:
        """With worker processes, or all in one process: then any moment of a call is one to be killed at, too."""
        is_inline = self.draw.random() < 0.6
        return Act("run", ("run",), lambda: stale(self.root) == [], (0, 1, 3), is_inline=is_inline)

    def _record(self) -> Act:
        naive = self.model.naive()
        free = [row["assay_id"] for row in self.rows if row["patient_id"] in self._of("", "full", "research")]
        free = [who for who in free if ("assay", who) in self.model.facts.parent and not naive.bars("assay", who)]
        if not free:
            return self._register()
        who, many = self.draw.choice(free), select(result).join(entity, entity.c.seq == result.c.entity)
        value = f"{word(self._patient(who))}{next(self.count)}"
        mine = many.where(entity.c.id == who).order_by(result.c.version.desc())
        last = self.one(mine)
        version = last.version + 1 if last else 1

        def stands() -> bool:
            row = self.one(mine)
            return row.version == version and json.loads(row.facts) == {"said": value}

        words: tuple[str, ...] = (who, f"said={value}")
        if self.draw.random() < 0.5:
            sheet = self.root.parent / "results.csv"
            sheet.write_text(f"assay_id,said\n{who},{value}\n")
            words = (str(sheet),)
        return Act("record", ("record", "pathology", *words, "--reason", "again"), stands, once=("record",))

    def _patient(self, who: str) -> str:
        return next(row["patient_id"] for row in self.rows if row["assay_id"] == who)

    def _purge(self) -> Act:
        if not self._of("revoked"):
            who = self.draw.choice(self._of("", "full", "research", "commerce", "pending"))
            assert ct("-C", self.root, "consent", "set", who, "revoked", "--form", "1").code == 0
            self.model = told(self.project)
        who = self.draw.choice(self._of("revoked"))
        raw = ("--raw",) if self.draw.random() < 0.5 else ()
        self.rows = [row for row in self.rows if row["patient_id"] != who]
        done = select(purge).where(purge.c.patient == who, purge.c.ended_at.is_not(None))

        def stands() -> bool:
            is_over = self.one(done) is not None
            let_go()
            return is_over and holders(self.root, who) == []

        words = ("purge", who, "--reason", "asked", "--confirm", who, *raw)
        return Act("purge", words, stands, once=("purge", "purged"))

    def _recover(self) -> Act:
        what = self.draw.choice(("nothing", "catalog", "journal", "cut", "torn", "edited"))
        journal = self.root / "provenance.jsonl"

        def before() -> None:
            self.said.append(f"lost: {what}")
            if what == "catalog":
                lose(self.project)
            elif what == "journal":
                journal.unlink()
            elif what in ("cut", "torn"):
                content = journal.read_bytes().splitlines(keepends=True)
                journal.write_bytes(b"".join(content[:-3]) if what == "cut" else b"".join(content)[:-40])
            elif what == "edited":
                self._edit()

        return Act("recover", ("recover",), lambda: True, (0, 3), ("recover",), before)

    def _edit(self) -> None:
        project = self.project
        with project.catalog.engine.connect() as connection, connection.begin():
            connection.execute(text("UPDATE entity SET attributes = '{}' WHERE level = 'patient'"))
        project.catalog.engine.dispose()

    def _export(self) -> Act:
        place, *more = self.draw.choice(EXPORTS).split()

        def stands() -> bool:
            there = self.out / place
            return there.exists() and all(readable(path) for path in self.written())

        return Act("export", ("export", str(self.out / place), *more), stands)

    def written(self) -> list[Path]:
        return [path for path in self.out.rglob("*") if path.is_file()]

    def _verify(self) -> Act:
        more = self.draw.choice(((), ("--quick",), ("--again",)))
        return Act("verify", ("verify", *more), lambda: True, (0, 3))

    def _consent(self) -> Act:
        gone = self._of("revoked")
        if gone and self.draw.random() < 0.4:
            who, status = self.draw.choice(gone), None
            people_ = ("--confirmed-by", "Ann", "--confirmed-by", "Bob")
            words = ("restore", who, "--authority", "IRB", "--reference", "4/26", "--date", today(), *people_)
        else:
            who = self.draw.choice(self._of("", "full", "research", "commerce", "pending"))
            said = self.draw.choice(("full", "limited research", "limited commerce", "pending", "revoked"))
            status, *use = said.split()
            words = (
                "set",
                who,
                status,
                *(("--use", *use) if use else ()),
                "--form",
                f"{next(self.count)}",
            )
        mine = select(consent).join(entity, entity.c.seq == consent.c.entity).where(entity.c.id == who)

        def stands() -> bool:
            row = self.one(mine.order_by(consent.c.id.desc()))
            return row.status == status if status else row.status not in BARRING

        return Act("consent", ("consent", *words), stands, (0,) if status else (0, 2), ("consent",))

    def _qc(self) -> Act:
        row = self.draw.choice(self.rows)
        level = self.draw.choice(("patient", "specimen", "assay"))
        who = row[f"{level}_id"]
        joined = select(qc_event).join(entity, entity.c.seq == qc_event.c.entity)
        open_ = joined.outerjoin(qc_resolution, qc_resolution.c.event == qc_event.c.id)
        mine = open_.where(entity.c.id == who, entity.c.level == level, qc_resolution.c.event.is_(None))
        is_said = self.one(mine) is not None
        words = ("qc", "resolve" if is_said else "add", f"{level}/{who}", *(() if is_said else ("qc_fail",)))
        reason = f"{word(row['patient_id'])}{next(self.count)}"
        once = ("release", "warn-resolved") if is_said else ("censor",)
        return Act("qc", (*words, "--reason", reason), lambda: (self.one(mine) is None) is is_said, (0, 2), once)
