"""③ A step: a plain function plus a declaration of everything it uses and makes.

A file of steps imports this module and the standard library at its top, and its heavy libraries inside the
functions, so that reading the declarations stays cheap for the command line and on compute nodes.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

from ctcore.column import Column
from ctcore.errors import StepError

Level = Literal["patient", "specimen", "assay", "cohort"]
LEVELS: tuple[Level, ...] = get_args(Level)
ENTITY_LEVELS: tuple[Level, ...] = ("patient", "specimen", "assay")

Facts = Mapping[str, int | float | str | bool | None]


class Contract(Protocol):
    """What an output must satisfy. Checked before publishing: a broken contract publishes nothing."""

    def problems(self, path: Path) -> Sequence[str]:
        """Everything that is wrong with the file, one sentence each; empty where it keeps the contract."""
        ...


@dataclass(frozen=True)
class Output:
    """One file that a step must write.

    `file` is its name inside the artifact's folder; `preview` marks a small table (.tsv) or picture (.png)
    that is worth showing to a person.
    """

    file: str
    contract: Contract | None = None
    preview: bool = False


@dataclass(frozen=True)
class Resources:
    """What one call needs: CPU cores, memory in GiB, minutes of wall time. None: what the place to run gives.

    Memory and minutes may be functions of the GiB that the call reads (raw files, references, inputs). `retries`
    is how often a call that failed is tried again.
    """

    cpus: int | None = None
    memory_gb: float | Callable[[float], float] | None = None
    minutes: float | Callable[[float], float] | None = None
    retries: int = 0


@dataclass(frozen=True)
class Step:
    """A declared step. `inputs` maps an input's name to the step that makes it."""

    name: str
    level: Level
    function: Callable[["Call"], Facts | None]
    source: Path
    inputs: Mapping[str, str]
    files: tuple[str, ...]
    references: tuple[str, ...]
    columns: tuple[str, ...]
    role: str | None
    params: type | None
    outputs: Mapping[str, Output]
    resources: Resources
    kinds: tuple[str, ...]
    group: str
    description: str
    facts: tuple[Column, ...] = ()
    code: tuple[str, ...] = ()
    tools: Mapping[str, str] = field(default_factory=dict)
    sources: Any = field(
        default=None, repr=False, compare=False
    )  # the files that it was loaded from, as they were read


@dataclass(frozen=True)
class Source:
    """An upstream artifact as the step sees it: whose it is, where its outputs are, its role as a member, and the
    declared columns of its entity."""

    entity: str
    outputs: Mapping[str, Path]
    role: Any = None
    level: str = ""
    columns: Mapping[str, Any] = field(default_factory=dict)

    def __getitem__(self, output: str) -> Path:
        try:
            return self.outputs[output]
        except KeyError:
            raise StepError(f"no output {output!r}; this input has: {', '.join(self.outputs)}") from None

    def column(self, name: str) -> Any:
        """The value of a declared metadata column (`patient.sex`) of this source's entity; None if blank."""
        return _column(self.columns, name, f"{self.level} {self.entity}")


@dataclass(frozen=True)
class Call:
    """What a step's function is given: one node, with everything that it declared and nothing else.

    `files` and `references` are paths by role and by key; `inputs` are upstream artifacts by input name, sorted by
    ID; `folder` is private to this call, and every declared output must be written there.
    """

    entity: str
    level: Level
    folder: Path
    outputs: Mapping[str, str]
    files: Mapping[str, Path] = field(default_factory=dict)
    references: Mapping[str, Path] = field(default_factory=dict)
    inputs: Mapping[str, Sequence[Source]] = field(default_factory=dict)
    columns: Mapping[str, Any] = field(default_factory=dict)
    params: Any = None
    cpus: int = 1

    def out(self, name: str) -> Path:
        """Where the output of this name must be written."""
        try:
            return self.folder / self.outputs[name]
        except KeyError:
            raise StepError(f"no output {name!r} is declared; declared: {', '.join(self.outputs)}") from None

    def scratch(self, name: str) -> Path:
        """A place for a temporary file; it is removed before the outputs are looked at."""
        place = self.folder / ".scratch"
        place.mkdir(exist_ok=True)
        return place / name

    def file(self, role: str) -> Path:
        """The raw file that the sheet gives for this role (`fastq_1`, say)."""
        return _named(self.files, role, "file")

    def reference(self, key: str) -> Path:
        """The reference or region of this key in ct.toml."""
        return _named(self.references, key, "reference")

    def intervals(self, key: str) -> Sequence[tuple[str, int, int]]:
        """The intervals of the region of this key in ct.toml: chromosome, start, end, counted as in BED."""
        from ctcore.regions import read_bed

        return read_bed(self.reference(key))

    def many(self, name: str) -> Sequence[Source]:
        """All upstream artifacts of an input, sorted by ID: the order of registration is in no key."""
        return _named(self.inputs, name, "input")

    def members(self, name: str, role: Any) -> Sequence[Source]:
        """Those upstream artifacts of an input whose entity has this role, by the column that the step declares."""
        return [source for source in self.many(name) if source.role == role]

    def one(self, name: str) -> Source:
        """The single upstream artifact of an input of the same or a higher level."""
        sources = self.many(name)
        if len(sources) != 1:
            raise StepError(f"input {name!r} has {len(sources)} artifacts here; use call.many({name!r})")
        return sources[0]

    def column(self, name: str, of: Source | None = None) -> Any:
        """The value of a declared metadata column (`patient.sex`) of this node's own entity; None if blank.

        That of a member is `source.column(name)`, also as `of=source`: an ID alone does not say its level. `level.id`
        is the ID itself: a step that writes a specimen's ID into its output declares it.
        """
        if isinstance(of, Source):
            return of.column(name)
        if of is not None:
            raise StepError(
                f'column "{name}" of {of!r}: an ID does not say whether a patient, a specimen or an assay is meant; '
                f'ask the source, for source in call.many(…): source.column("{name}")'
            )
        return _column(self.columns, name, f"{self.level} {self.entity}")


def _column(known: Mapping[str, Any], name: str, whose: str) -> Any:
    try:
        return known[name]
    except KeyError:
        there = ", ".join(sorted(known)) or "none"
        raise StepError(
            f'there is no column "{name}" of {whose} here; there is: {there}. Declare it in the columns of the step; '
            "that of a level below is asked of a source: source.column(name)"
        ) from None


def _named(things: Mapping[str, Any], name: str, what: str) -> Any:
    try:
        return things[name]
    except KeyError:
        declared = ", ".join(things) or "none"
        raise StepError(f"no {what} {name!r} is declared by this step; declared: {declared}") from None


def step(
    *,
    level: Level,
    outputs: Mapping[str, str | Output],
    inputs: Mapping[str, str] | None = None,
    files: Sequence[str] = (),
    references: Sequence[str] = (),
    columns: Sequence[str] = (),
    role: str | None = None,
    params: type | None = None,
    resources: Resources | None = None,
    kinds: Sequence[str] = (),
    group: str = "steps",
    facts: Sequence[Column] = (),
    code: Sequence[str] = (),
    tools: Mapping[str, str] | None = None,
    name: str | None = None,
) -> Callable[[Callable[[Call], Facts | None]], Callable[[Call], Facts | None]]:
    """Declare a function as a step of its own name; the function stays a plain function.

    `params` is a frozen dataclass with defaults; `columns` are `level.column` names, and so is `role`, which tells what
    each member is here (tumour, normal); `facts` are the columns of what it returns. `code` are patterns of files
    beside the step's file that it reads or runs (`scripts/*.R`); `tools` the programs that it runs, with the command
    that prints the version of each (`{"samtools": "samtools --version"}`). `name` is for what has none of its own: a
    partial, or one of many that a loop makes. The first paragraph of the docstring is what people read in the UI.
    """

    def declare(function: Callable[[Call], Facts | None]) -> Callable[[Call], Facts | None]:
        own = name or getattr(function, "__name__", "")
        if not own.isidentifier():
            raise StepError(f"{own or function!r} is no name for a step: declare a function with a name, or say name=…")
        declaration = Step(
            name=own,
            level=level,
            function=function,
            source=_file_of(function),
            inputs=dict(inputs or {}),
            files=tuple(files),
            references=tuple(references),
            columns=tuple(columns),
            role=role,
            params=params,
            outputs={name: o if isinstance(o, Output) else Output(o) for name, o in outputs.items()},
            resources=resources or Resources(),
            kinds=tuple(kinds),
            group=group,
            description=(function.__doc__ or "").strip(),
            facts=tuple(facts),
            code=(code,) if isinstance(code, str) else tuple(code),
            tools=dict(tools or {}),
        )
        if _loading:
            _loading[-1].steps.append(declaration)
        function.ct_step = declaration  # type: ignore[attr-defined]
        return function

    return declare


@dataclass
class Loading:
    """A file that is being loaded, and the steps that were declared meanwhile: by itself, or by what it calls."""

    path: Path
    steps: list[Step] = field(default_factory=list)


_loading: list[Loading] = []


@contextmanager
def loading(path: Path) -> Iterator[Loading]:
    """Steps that are declared meanwhile are those of this file, whichever code declares them."""
    _loading.append(Loading(path))
    try:
        yield _loading[-1]
    finally:
        _loading.pop()


def _file_of(function: Callable[..., Any]) -> Path:
    """The file that declares the step: the one that is being loaded; elsewhere the one that has the function's code."""
    if _loading:
        return _loading[-1].path
    inner: Any = inspect.unwrap(function)
    while not hasattr(inner, "__code__") and (given := getattr(inner, "func", None)) is not None:
        inner = inspect.unwrap(given)
    code = getattr(inner, "__code__", None) or type(inner).__call__.__code__
    return Path(code.co_filename).resolve()
