"""The same question put to make, ninja, Snakemake and redun: what is out of date, as a whole command.

N samples of three steps in a row, a fan-in over all and one step derived from it; the first step also reads a
reference. 3N + 2 steps, of which a changed sample touches five and a changed reference all. Tools that are not
installed are left out and named; `make` and `ninja-build` are packages of the distribution, the other two of PyPI
(best in an environment of their own, its bin on PATH).
"""

import os
import re
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from benchmarks.cohort import SETTLED_S
from benchmarks.measure import Measured, Row, Target, apart, expect, run
from benchmarks.nation import fill
from ctcore.project import Project
from tests.helpers.kit import assay, make_project

SAMPLES = 10_000
FEWER = 1_000  # for those that would take an hour
QUICK = 4
CPU_S = 0.6
STATES = ("nothing changed", "one input changed", "the reference changed")
_OURS = """
import sys
from pathlib import Path
from ctcore.intake.raw_files import look
from ctcore.project import Project
from ctcore.staleness.verdicts import evaluate
project = Project.find(Path(sys.argv[1]))
look(project)
found = evaluate(project)
counts = [found.count(step.name) for step in project.steps]
print(sum(found.totals.values()) - sum(count.get("fresh", 0) for count in counts))
"""
_STEPS = '''"""Three steps in a row, a fan-in, and one derived."""

from ctcore.step import Call, step


@step(level="assay", files=["reads"], references=["genome"], outputs={"out": "out.txt"})
def one(call: Call) -> None:
    call.out("out").write_text("one")


@step(level="assay", inputs={"given": "one"}, outputs={"out": "out.txt"})
def two(call: Call) -> None:
    call.out("out").write_text("two")


@step(level="assay", inputs={"given": "two"}, outputs={"out": "out.txt"})
def three(call: Call) -> None:
    call.out("out").write_text("three")


@step(level="cohort", inputs={"given": "three"}, outputs={"out": "out.txt"})
def joint(call: Call) -> None:
    call.out("out").write_text("joint")


@step(level="cohort", inputs={"given": "joint"}, outputs={"out": "out.txt"})
def derived(call: Call) -> None:
    call.out("out").write_text("derived")
'''


@dataclass
class Tool:
    """A folder with its own description of the pipeline, in which all is up to date."""

    folder: Path
    samples: int
    name: ClassVar[str]
    program: ClassVar[str]
    times: ClassVar[int] = 3
    counted: ClassVar[str]
    restores: ClassVar[bool] = True
    before: dict[Path, bytes] = field(default_factory=dict)

    def describe(self) -> None:
        raise NotImplementedError

    def make(self) -> None:
        raise NotImplementedError

    def question(self) -> Sequence[str]:
        raise NotImplementedError

    def ready(self) -> None:
        (self.folder / "raw").mkdir(parents=True)
        for at in range(self.samples):
            self._write(f"raw/{at}", f"reads of {at}\n")
        self._write("ref", "ACGT\n")
        for name in ("one", "two", "three"):
            (self.folder / name).mkdir()
        self.describe()
        self.make()

    def asked(self) -> tuple[Measured, int]:
        """How long the question takes, and how many steps it names."""
        found = run(["env", "-C", str(self.folder), *self.question()], self.times)
        return found, len(re.findall(self.counted, found.value.decode(), re.MULTILINE))

    def change(self, name: str) -> None:
        path = self.folder / name
        self.before[path] = path.read_bytes()
        self._seen = path.stat()
        path.write_bytes(self.before[path] + b"and more\n")

    def put_back(self) -> None:
        for path, content in self.before.items():
            path.write_bytes(content)
            os.utime(path, ns=(self._seen.st_atime_ns, self._seen.st_mtime_ns))
        self.before.clear()

    def _write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)

    def rules(self) -> Iterator[tuple[str, list[str]]]:
        """Every output with its inputs, in an order in which they could be made."""
        above = {"one": "raw", "two": "one", "three": "two"}
        for name, up in above.items():
            for at in range(self.samples):
                yield f"{name}/{at}", [f"{up}/{at}", *(["ref"] if name == "one" else [])]
        yield "joint", [f"three/{at}" for at in range(self.samples)]
        yield "derived", ["joint"]


class Make(Tool):
    name, program, counted = "GNU make", "make", "^touch "

    def describe(self) -> None:
        rules = "".join(f"{out}: {' '.join(given)}\n\ttouch $@\n" for out, given in self.rules())
        self._write("Makefile", f"all: derived\n{rules}")

    def make(self) -> None:
        """It looks at nothing but times: the files are put there in order."""
        start = time.time() - 1000
        sources = [f"raw/{at}" for at in range(self.samples)] + ["ref"]
        for number, name in enumerate([*sources, *(out for out, _ in self.rules())]):
            (self.folder / name).touch()
            os.utime(self.folder / name, (start, start + number / 1000))

    def question(self) -> Sequence[str]:
        return ["make", "-n"]


class Ninja(Tool):
    name, program, counted = "ninja", "ninja", r"^\[\d"

    def describe(self) -> None:
        rules = "".join(f"build {out}: touch {' '.join(given)}\n" for out, given in self.rules())
        self._write("build.ninja", f"rule touch\n  command = touch $out\n{rules}")

    def make(self) -> None:
        run(["env", "-C", str(self.folder), "ninja", "--quiet"], 1)

    def question(self) -> Sequence[str]:
        return ["ninja", "-n"]


class Snakemake(Tool):
    name, program, times, counted = "Snakemake", "snakemake", 1, r"^(?:local)?rule (?!all)\w+:"

    def describe(self) -> None:
        steps = [
            f'rule {name}:\n  input: "{up}/{{at}}"{extra}\n  output: "{name}/{{at}}"\n  shell: "touch {{output}}"\n'
            for name, up, extra in (("one", "raw", ', "ref"'), ("two", "one", ""), ("three", "two", ""))
        ]
        last = (
            f'rule joint:\n  input: [f"three/{{at}}" for at in range({self.samples})]\n'
            '  output: "joint"\n  shell: "touch {output}"\n'
            'rule derived:\n  input: "joint"\n  output: "derived"\n  shell: "touch {output}"\n'
        )
        self._write("Snakefile", "\n".join(['rule all:\n  input: "derived"\n', *steps, last]))

    def make(self) -> None:
        run(["env", "-C", str(self.folder), "snakemake", "--cores", "2", "--quiet", "all"], 1)

    def question(self) -> Sequence[str]:
        return ["snakemake", "-n", "--cores", "1"]


class Redun(Tool):
    """It has no question that ends with an answer here: what is run is counted, and running it is the time."""

    name, program, times, counted, restores = "redun, by running it", "redun", 1, r"\] Run .*bench\.(?!main)", False

    def describe(self) -> None:
        head = 'from redun import File, task\n\nredun_namespace = "bench"\n'
        bodies = (
            "@task()\ndef {name}(at: int, given: File, more: File = None) -> File:\n"
            '    out = File(f"{name}/{{at}}")\n    out.write(given.read())\n    return out\n'
        )
        steps = [bodies.format(name=name) for name in ("one", "two", "three")]
        tail = (
            "@task()\ndef joint(given: list) -> File:\n"
            '    out = File("joint")\n    out.write(str(len(given)))\n    return out\n\n'
            "@task()\ndef derived(given: File) -> File:\n"
            '    out = File("derived")\n    out.write(given.read())\n    return out\n\n'
            '@task()\ndef main() -> File:\n    ref = File("ref")\n'
            f'    made = [three(at, two(at, one(at, File(f"raw/{{at}}"), ref))) for at in range({self.samples})]\n'
            "    return derived(joint(made))\n"
        )
        self._write("flow.py", "\n\n".join([head, *steps, tail]))

    def make(self) -> None:
        run(["env", "-C", str(self.folder), *self.question()], 1)

    def question(self) -> Sequence[str]:
        return ["redun", "run", "flow.py", "main"]


class Ours(Tool):
    """Looks at every raw file and at the reference, and evaluates. Its own files are not looked at: `verify` does."""

    name, program, counted, restores = "ct", sys.executable, "", True

    def ready(self) -> None:
        apart(_fill, self.folder, self.samples)
        time.sleep(SETTLED_S)
        self.asked()

    def asked(self) -> tuple[Measured, int]:
        """The first one after a change writes down what it saw: each is asked once."""
        found = run([sys.executable, "-c", _OURS, str(self.folder)], 1)
        return found, int(found.value)

    def change(self, name: str) -> None:
        at = int(name.rpartition("/")[2]) if "/" in name else None
        super().change("genome.txt" if at is None else f"reads/{at // 1000:03d}/A{at}.txt")


def _fill(root: Path, samples: int) -> None:
    project: Project = make_project(root, [assay("P0", "S0", "A0", sex="F")], _STEPS)
    fill(project, samples, raw=True)


TOOLS: tuple[tuple[type[Tool], int], ...] = ((Make, SAMPLES), (Ninja, SAMPLES), (Snakemake, FEWER), (Redun, FEWER))


def measure(folder: Path, quick: bool) -> Iterator[Row]:
    ours: dict[int, dict[str, tuple[Measured, int]]] = {}
    for samples in sorted({QUICK if quick else number for _, number in TOOLS}, reverse=True):
        ours[samples] = _answers(Ours(folder / f"ct-{samples}", samples))
        for state, (mine, found) in ours[samples].items():
            expect(f"what is not fresh, {state}", found, _right(state, samples))
            yield Row(f"ct, whole process, {state}", _size(samples), mine, target=Target(CPU_S, "s", mine.cpu))
    for kind, number in TOOLS:
        samples = QUICK if quick else number
        if shutil.which(kind.program) is None:
            print(f"  without {kind.name}: no {kind.program} on PATH", file=sys.stderr)
            continue
        for state, (theirs, found) in _answers(kind(folder / kind.program, samples)).items():
            mine = ours[samples][state][0]
            what = f"{state}: ct {_right(state, samples)}, {kind.name} {found} of {_right(state, samples)}"
            yield Row(what, _size(samples), mine, kind.name, theirs)


def _answers(tool: Tool) -> dict[str, tuple[Measured, int]]:
    tool.ready()
    found = {}
    for state, name in zip(STATES, (None, f"raw/{tool.samples // 2}", "ref"), strict=True):
        if name is not None:
            time.sleep(0.01)  # no clock of a file system is that coarse
            tool.change(name)
        found[state] = tool.asked()
        if name is not None and tool.restores:
            tool.put_back()
            if isinstance(tool, Ours):
                tool.asked()
    return found


def _right(state: str, samples: int) -> int:
    return {STATES[0]: 0, STATES[1]: 5, STATES[2]: 3 * samples + 2}[state]


def _size(samples: int) -> str:
    return f"{samples} samples, {3 * samples + 2} steps"
