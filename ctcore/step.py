"""A step: a plain function with a declaration of everything that it uses and makes.

A step file imports this module and the standard library at its top, and heavy libraries inside its functions. So the
command line and compute nodes read the declarations quickly.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ctcore.errors import StepError
from ctcore.model.column import Column
from ctcore.model.levels import Level

Facts = Mapping[str, int | float | str | bool | None]


class Contract(Protocol):
    """What an output must satisfy. ct checks it before publishing; a broken contract publishes nothing."""

    def problems(self, path: Path) -> Sequence[str]:
        """Every problem of the file, one sentence each; empty if the file satisfies the contract."""
        ...


@dataclass(frozen=True)
class Output:
    """One file that a step must write.

    Attributes:
        file: The file's name inside the artifact's folder.
        contract: What the file must be like; a file that is not is never published.
        preview: Show it in the UI: a small table (.tsv) or a picture (.png).
    """

    file: str
    contract: Contract | None = None
    preview: bool = False


@dataclass(frozen=True)
class Resources:
    """The resources of one call. None takes the default of the place where the call runs.

    Memory and minutes may be functions of the GiB that the call reads (raw files, references and inputs).

    Attributes:
        cpus: CPU cores.
        memory_gb: Memory in GiB.
        minutes: Wall time in minutes.
        retries: How many times a failed call is tried again.
    """

    cpus: int | None = None
    memory_gb: float | Callable[[float], float] | None = None
    minutes: float | Callable[[float], float] | None = None
    retries: int = 0


@dataclass(frozen=True)
class Step:
    """A declared step, as `@step` records it. `inputs` maps each input's name to the step that makes it."""

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
    made_elsewhere: bool = False  # by another pipeline: results are adopted, and ct never runs it
    sources: Any = field(
        default=None, repr=False, compare=False
    )  # the files that it was loaded from, as they were read

    def way_to(self, partition: str, again: bool = False) -> str:
        """The command that makes a node of this step, as the end of a sentence."""
        if self.made_elsewhere:
            return f"made elsewhere: `ct adopt {self.name}/{partition} …`"
        return f"`ct run {self.name}/{partition}` makes it{' again' * again}"


@dataclass(frozen=True)
class Source:
    """An upstream artifact: `source["bam"]` is the path of its output `bam`.

    Attributes:
        entity: The ID of its patient, specimen or assay.
        outputs: The path of each output.
        role: The entity's value of the step's `role` column, such as `tumour`.
        level: The level of the entity.
        columns: The entity's values of the columns that the step declares.
    """

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
        """The value of a metadata column of this source's entity, such as `patient.sex`; None if it is blank.

        The step must declare the column. StepError otherwise.
        """
        return _column(self.columns, name, f"{self.level} {self.entity}")


@dataclass(frozen=True)
class Call:
    """The argument of a step's function: one node with everything that the step declares, and nothing else.

    Attributes:
        entity: The ID of the node's patient, specimen or assay; the cohort's name at the cohort level.
        level: The node's level.
        folder: A folder of this call alone. The step writes its outputs there.
        outputs: The file name of each output.
        files: The path of each declared raw file, by its role.
        references: The path of each declared reference or region, by its key.
        inputs: The upstream artifacts of each input, sorted by ID.
        columns: The values of the declared metadata columns.
        params: An instance of the step's `params` dataclass.
        cpus: The CPU cores that this call may use.
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
        """The path where the step writes this output."""
        try:
            return self.folder / self.outputs[name]
        except KeyError:
            raise StepError(f"no output {name!r} is declared; declared: {', '.join(self.outputs)}") from None

    def scratch(self, name: str) -> Path:
        """The path of a temporary file. ct removes it before it checks the outputs."""
        place = self.folder / ".scratch"
        place.mkdir(exist_ok=True)
        return place / name

    def file(self, role: str) -> Path:
        """The raw file that the sheet names in this column, such as `fastq_1`."""
        return _named(self.files, role, "file")

    def reference(self, key: str) -> Path:
        """The file of this reference or region of ct.toml."""
        return _named(self.references, key, "reference")

    def intervals(self, key: str) -> Sequence[tuple[str, int, int]]:
        """The intervals of this region of ct.toml: chromosome, start and end, counted as in BED (from 0, half-open)."""
        from ctcore.model.regions import read_bed

        return read_bed(self.reference(key))

    def many(self, name: str) -> Sequence[Source]:
        """All upstream artifacts of an input, sorted by ID."""
        return _named(self.inputs, name, "input")

    def members(self, name: str, role: Any) -> Sequence[Source]:
        """The upstream artifacts of an input whose entity has this role, such as `tumour`. The step declares `role`."""
        return [source for source in self.many(name) if source.role == role]

    def one(self, name: str) -> Source:
        """The upstream artifact of an input that has exactly one here. StepError if it has none or several."""
        sources = self.many(name)
        if len(sources) != 1:
            raise StepError(f"input {name!r} has {len(sources)} artifacts here; use call.many({name!r})")
        return sources[0]

    def column(self, name: str, of: Source | None = None) -> Any:
        """The value of a metadata column of this node's entity, such as `patient.sex`; None if it is blank.

        The step must declare the column. `specimen.id` is the ID itself: a step that writes IDs into its output
        declares it, because then a renamed specimen makes the output stale. For a member, use `source.column(name)`
        (or `of=source`).
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
            f'there is no column "{name}" of {whose} here; known: {there}. Declare it in the columns of the step; '
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
    """Declare a function as a step. The function stays a plain function.

    The UI shows the first paragraph of the function's docstring.

    Args:
        level: `assay`, `specimen`, `patient` or `cohort`: the step has one node for each entity of this level.
        outputs: The files that the step writes, by name.
        inputs: The upstream step of each input, by the input's name.
        files: The raw files that it reads: columns of the sheet, such as `fastq_1`.
        references: The references and regions of ct.toml that it reads, by key.
        columns: The metadata columns that it reads, as `level.column`.
        role: A column, as `level.column`, that gives each member its role, such as tumour or normal.
        params: A frozen dataclass whose fields, all with defaults, are the step's parameters.
        resources: What one call needs.
        kinds: Tags that the UI shows on the step's asset.
        group: The group of the step's asset in the UI.
        facts: The columns of the values that the function returns.
        code: Patterns of files beside the step's file that it reads or runs, such as `scripts/*.R`.
        tools: The programs that it runs, each with the command that prints its version, as in
            `{"samtools": "samtools --version"}`.
        name: The step's name, for a function without one of its own: a partial, or one of many from a loop.
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
    """A step file while it is loaded, and the steps declared so far, by the file or by code that it calls."""

    path: Path
    steps: list[Step] = field(default_factory=list)


_loading: list[Loading] = []


@contextmanager
def loading(path: Path) -> Iterator[Loading]:
    """Attribute all steps that are declared meanwhile to this file, whichever code declares them."""
    _loading.append(Loading(path))
    try:
        yield _loading[-1]
    finally:
        _loading.pop()


def _file_of(function: Callable[..., Any]) -> Path:
    """The file that declares the step: the one being loaded, or else the one that holds the function's code."""
    if _loading:
        return _loading[-1].path
    inner: Any = inspect.unwrap(function)
    while not hasattr(inner, "__code__") and (given := getattr(inner, "func", None)) is not None:
        inner = inspect.unwrap(given)
    code = getattr(inner, "__code__", None) or type(inner).__call__.__code__
    return Path(code.co_filename).resolve()
