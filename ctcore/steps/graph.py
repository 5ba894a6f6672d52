"""The steps of a project: found in folders, loaded by path, checked as one graph."""

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from ctcore.code import Code
from ctcore.code.loader import load_file
from ctcore.code.sources import Sources
from ctcore.code.tool_versions import tool_problems
from ctcore.errors import StepError, StoreError, Usage
from ctcore.model.levels import ENTITY_LEVELS, LEVELS
from ctcore.step import Step
from ctcore.steps.asked_names import undeclared_names
from ctcore.steps.declaration_file import declares_step, load_declaration
from ctcore.steps.facts import declaration_problems
from ctcore.store.digest import digest_value
from ctcore.store.manifest import check_names

REGISTRY: tuple[str, ...] = (*ENTITY_LEVELS, "reference")
PLAN = "plan"
READINESS = "readiness"
SHOWN = {PLAN: "what would run", READINESS: "who is in which cohort"}
"""Assets that make nothing, and what they show."""


@dataclass(frozen=True)
class Recipe:
    """How a step is done today: its code, its parameters, its environment. `digest` identifies all three."""

    step: str
    code: str
    parameters: Mapping[str, Any]
    environment: Mapping[str, str]

    @cached_property
    def digest(self) -> str:
        return digest_value(
            "ct.recipe.v1",
            {
                "step": self.step,
                "code": self.code,
                "parameters": dict(self.parameters),
                "environment": dict(self.environment),
            },
        )


class StepGraph:
    """All steps, in an order in which each comes after its inputs."""

    def __init__(self, steps: Iterable[Step], sources: Sequence[Sources] = ()) -> None:
        self.sources = sources
        self.by_name: dict[str, Step] = {}
        for step in steps:
            if step.name in self.by_name:
                other = self.by_name[step.name].source
                raise StepError(f"step {step.name!r} is declared twice: {other} and {step.source}; rename one")
            self.by_name[step.name] = step
        problems = [problem for step in self.by_name.values() for problem in self._problems(step)]
        if problems:
            raise StepError("steps are declared wrongly:\n  " + "\n  ".join(problems))
        self.order: tuple[str, ...] = self._order()
        if nameless := [step for step in self if step.made_elsewhere and not self._tells_members(step)]:
            raise StepError("\n".join(map(_without_members, nameless)))

    def __iter__(self) -> Iterator[Step]:
        return (self.by_name[name] for name in self.order)

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, name: str) -> Step:
        try:
            return self.by_name[name]
        except KeyError:
            near = difflib.get_close_matches(name, self.by_name, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(self.order) or 'none'}"
            raise Usage(f"no step {name!r}; {hint}") from None

    def __contains__(self, name: object) -> bool:
        return name in self.by_name

    def downstream(self, name: str) -> list[str]:
        """The steps that take this one directly."""
        return [step.name for step in self if name in step.inputs.values()]

    def upstream(self, names: Iterable[str]) -> set[str]:
        """These steps and everything that they are made from."""
        found: set[str] = set()
        waiting = list(names)
        while waiting:
            name = waiting.pop()
            if name not in found:
                found.add(name)
                waiting.extend(self[name].inputs.values())
        return found

    def depth(self, name: str) -> int:
        """How many steps lie on the longest way from the raw files to this one."""
        return self._depths[name]

    @cached_property
    def _depths(self) -> dict[str, int]:
        depths: dict[str, int] = {}
        for step in self:
            depths[step.name] = 1 + max((depths[up] for up in step.inputs.values()), default=0)
        return depths

    def _has_roles(self, step: Step) -> bool:
        """Whether some input has members that the column of the role can tell apart."""
        order = LEVELS.index
        ups = [self.by_name[up].level for up in step.inputs.values() if up in self.by_name]
        low = [up for up in ups if up != "cohort" and up in LEVELS]
        level: Any = (step.role or "").partition(".")[0]
        if level not in ENTITY_LEVELS or step.level not in LEVELS:
            return True  # told of already
        below = step.level == "cohort" or order(level) > order(step.level)
        return below and any(order(level) <= order(up) for up in low)

    def _tells_members(self, step: Step) -> bool:
        """Whether its inputs tell who is inside: without them, no consent would reach it."""
        return any(self[name].level != "cohort" for name in self.upstream([step.name]))

    def _order(self) -> tuple[str, ...]:
        sorter = TopologicalSorter({s.name: sorted(s.inputs.values()) for s in self.by_name.values()})
        try:
            return tuple(sorter.static_order())
        except CycleError as error:
            raise StepError("the steps form a circle: " + " → ".join(reversed(error.args[1]))) from None

    def _problems(self, step: Step) -> Iterator[str]:
        where = f"{step.source.name}: step {step.name}"
        if step.level not in LEVELS:
            yield f"{where}: level {step.level!r} is not one of {', '.join(LEVELS)}"
        if step.name in REGISTRY:
            yield f"{where}: {step.name!r} is the name of a registry asset; rename the step"
        if step.name in SHOWN:
            yield f"{where}: {step.name!r} is the name of the asset that shows {SHOWN[step.name]}; rename the step"
        for name, up in step.inputs.items():
            if up not in self.by_name:
                near = difflib.get_close_matches(up, self.by_name, 1)
                yield f"{where}: input {name!r} takes unknown step {up!r}" + (
                    f"; did you mean {near[0]!r}?" if near else ""
                )
            elif self.by_name[up].level == "cohort" and step.level != "cohort":
                yield f"{where}: input {name!r} takes a cohort artifact into a {step.level}; make it a cohort step"
        if step.files and step.level == "cohort":
            yield f"{where}: a cohort has no raw files"
        for column in (*step.columns, *([step.role] if step.role is not None else [])):
            if column.partition(".")[0] not in ENTITY_LEVELS or not column.partition(".")[2]:
                yield f"{where}: column {column!r}: write level.column (patient.sex)"
        if step.role is not None and not self._has_roles(step):
            yield f"{where}: role {step.role!r}: no input has members of that level or below it"
        others = (*_name_problems(step), *_output_problems(step), *_parameter_problems(step))
        others = (*others, *declaration_problems(step.facts), *tool_problems(step.tools))
        others = (*others, *undeclared_names(step, self.by_name))
        yield from (f"{where}: {said}" for said in others)


def _without_members(step: Step) -> str:
    return (
        f"{step.source.name}: step {step.name} is made elsewhere, and no input tells who is inside, so that no consent "
        "would reach it; name the steps that it was made from in inputs (their results may be made elsewhere, too)"
    )


def _name_problems(step: Step) -> Iterator[str]:
    """The ledger and the key identify a step's inputs by name, so names must be unique."""
    for what in ("files", "references", "columns"):
        names = getattr(step, what)
        for name in sorted({name for name in names if names.count(name) > 1}):
            yield f"{what} name {name!r} twice; write it once"
    for name in step.inputs:
        if name in step.files:
            yield f"input {name!r} has the name of a file; rename the input"
        elif not name.isidentifier():
            yield f"input {name!r}: name it with letters, digits and _"


def _output_problems(step: Step) -> Iterator[str]:
    names = [output.file for output in step.outputs.values()]
    if not names:
        yield "declares no outputs"
    if len(set(names)) != len(names):
        yield "two outputs have the same file name"
    try:
        check_names(names)
    except StoreError as error:
        yield str(error)


def _parameter_problems(step: Step) -> Iterator[str]:
    if step.params is None:
        return
    if not is_dataclass(step.params):
        yield "params must be a dataclass with defaults"
        return
    for field in fields(step.params):
        if field.default is MISSING and field.default_factory is MISSING:
            yield f"parameter {field.name!r} has no default; give it one"


def step_files(folder: Path) -> list[Path]:
    """The files of a folder that declare steps, as Python or as TOML."""
    listed = [*sorted(folder.glob("*.py")), *sorted(folder.glob("*.toml"))] if folder.is_dir() else []
    return [path for path in listed if not path.name.startswith("_")]


def load_steps(folders: Sequence[Path]) -> StepGraph:
    """The steps of all folders that exist; files whose names begin with _ are shared code, not steps."""
    steps: list[Step] = []
    read = [Sources() for _ in folders]
    for folder, sources in zip(folders, read, strict=True):
        sources.names(folder)  # so that a new file is noticed
        for path in step_files(folder):
            if path.suffix == ".py":
                steps.extend(load_file(path, sources))
            elif declares_step(path, sources):
                steps.append(load_declaration(path, sources))
    return StepGraph(steps, read)


def params_of(step: Step, given: Mapping[str, Any]) -> Any:
    """The step's parameters: the declared defaults, replaced by the given values. StepError names the problem."""
    if step.params is None:
        if given:
            raise StepError(f"step {step.name} has no parameters, but {', '.join(given)} is given")
        return None
    known = [field.name for field in fields(step.params)]
    for name in given:
        if name not in known:
            raise StepError(f"step {step.name} has no parameter {name!r}; it has: {', '.join(known)}")
    defaults = _made(step, {})
    for name, value in given.items():
        default = getattr(defaults, name)
        fits = type(value) is type(default) or (type(value) is int and isinstance(default, float))
        fits = fits or (isinstance(default, tuple) and isinstance(value, list | tuple))
        if default is not None and not fits:
            kind = "list" if isinstance(default, tuple) else type(default).__name__
            raise StepError(f"step {step.name}: parameter {name} = {value!r} must be of type {kind}")
    return _made(step, {name: _like(getattr(defaults, name), value) for name, value in given.items()})


def _made(step: Step, values: Mapping[str, Any]) -> Any:
    """The parameters' class may refuse values itself."""
    try:
        return step.params(**values) if step.params else None
    except (TypeError, ValueError, AssertionError) as error:
        listed = ", ".join(f"{name} = {value!r}" for name, value in values.items()) or "the defaults"
        raise StepError(f"step {step.name} does not accept {listed}: {error}") from error


def _like(default: Any, value: Any) -> Any:
    if isinstance(default, tuple):
        return tuple(value)
    return float(value) if isinstance(default, float) else value


def parameters_of(params: Any) -> dict[str, Any]:
    """Parameters as plain values for a digest: {} where a step has none."""
    if params is None:
        return {}
    values = {field.name: getattr(params, field.name) for field in fields(params)}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def recipe_of(step: Step, code: Code, params: Any, environment: Mapping[str, str]) -> Recipe:
    """The step's recipe of today. `environment` comes on top of the versions of its libraries."""
    return Recipe(step.name, code.digest, parameters_of(params), {**code.environment, **environment})
