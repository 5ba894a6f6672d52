"""A project directory, opened: its settings, its catalog, its store, its steps. Where every command begins."""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ctcore.catalog.engine import Catalog
from ctcore.code import Code, code_of
from ctcore.code.environment import are_current
from ctcore.code.tool_versions import Tools
from ctcore.config.address_book import folder_of
from ctcore.config.automation import unknown_steps
from ctcore.config.settings import FILE_NAME, PROJECT_ID, Settings, read_settings
from ctcore.errors import ProjectError, Usage
from ctcore.model.levels import ENTITY_LEVELS
from ctcore.model.regions import write_bed
from ctcore.step import Step
from ctcore.steps.graph import REGISTRY, Recipe, StepGraph, load_steps, params_of, recipe_of
from ctcore.store.digest import digest_files
from ctcore.store.store import Store


@dataclass(frozen=True)
class Project:
    """All recorded paths are relative to `root`; the directory can be moved."""

    root: Path
    tolerated: frozenset[str] = frozenset()  # what is let pass in a catalog that has lost something

    @classmethod
    def find(cls, start: Path | None = None) -> "Project":
        """The project of a directory or the nearest one above it; `CT_PROJECT` names one from outside, also by ID."""
        given = os.environ.get("CT_PROJECT") if start is None else None
        if given and re.fullmatch(PROJECT_ID, given) and not Path(given).is_dir():
            return cls(folder_of(given))
        place = Path(given) if given else (start or Path.cwd())
        if place.is_file():
            raise Usage(f"{place} is a file; name the folder of the project")
        if not place.is_dir():
            raise Usage(f"{place} is not a directory; `ct init {place}` makes a project there")
        for folder in (place.resolve(), *place.resolve().parents):
            if (folder / FILE_NAME).is_file():
                return cls(folder)
        raise ProjectError(f"no {FILE_NAME} in {place} or above it; `ct init DIR` makes a project")

    def reopened(self) -> "Project":
        """The same project, opened anew: its steps are read again where one of their files has changed."""
        fresh, known = Project(self.root, self.tolerated), vars(self)
        if "steps" not in known or fresh.settings != self.settings:
            return fresh
        if all(one.is_as_read() for one in self.steps.sources):
            kept = ["steps"]
            # Libraries may have been installed meanwhile.
            if all(are_current(code.environment) for code in known.get("codes", {}).values()):
                kept.append("codes")
                # Tools are asked anew in each run, and the lock is a file.
                if fresh.settings.environment_lock is None and not any(step.tools for step in self.steps):
                    kept.append("recipes")
            vars(fresh).update({name: known[name] for name in kept if name in known})
        return fresh

    @cached_property
    def settings(self) -> Settings:
        return read_settings(self.root / FILE_NAME)

    @property
    def id(self) -> str:
        return self.settings.project_id

    @cached_property
    def catalog(self) -> Catalog:
        """Opened, and brought up to date where it is older than this ct."""
        return self.closed_catalog().open(self.tolerated)

    def closed_catalog(self) -> Catalog:
        """The catalog without opening it: nothing is created or migrated."""
        for_everybody = self.settings.readable == "everybody"
        return Catalog(self.catalog_url, self.id, self.root / "provenance.jsonl", for_everybody=for_everybody)

    @property
    def catalog_url(self) -> str:
        """CT_POSTGRES_URL serves the catalog and Dagster; without it, catalog.db in the project."""
        return os.environ.get("CT_POSTGRES_URL") or f"sqlite:///{self.root / 'catalog.db'}"

    @cached_property
    def store(self) -> Store:
        return Store(self.root / "store")

    @property
    def work(self) -> Path:
        """The folder of running steps' calls, results and logs. It is disposable while nothing runs."""
        return self.root / "work"

    @property
    def own_folders(self) -> tuple[Path, ...]:
        """Where only ct writes."""
        return self.store.root, self.work, self.dagster_home

    @property
    def is_shared(self) -> bool:
        """Whether its Dagster is there for other projects too: then all asset keys begin with its ID."""
        return self.settings.dagster_home is not None

    @property
    def dagster_home(self) -> Path:
        """Where its Dagster has settings, runs and events."""
        said = self.settings.dagster_home
        return self.root / "dagster_home" if said is None else (self.root / Path(said).expanduser()).resolve()

    @cached_property
    def steps(self) -> StepGraph:
        graph = load_steps([self.root / folder for folder in self.settings.step_folders])
        unknown = [name for name in self.settings.params if name not in graph]
        known = ", ".join(graph.order)
        problems = [f"[params.{name}]: no such step; known: {known}" for name in unknown]
        unknown = [name for name in self.settings.uses.steps if name not in (*graph.order, *self.settings.analyses)]
        problems += [f"[consent.steps] {name}: no such step; known: {known}" for name in unknown]
        problems += unknown_steps(self.settings.automation, graph.order)
        twice = [name for name in self.settings.analyses if name in (*graph.order, *REGISTRY)]
        problems += [f"[analyses.{name}]: a step or a level has this name; choose another" for name in twice]
        if problems:
            raise ProjectError(f"{self.root / FILE_NAME}: " + "\n  ".join(problems))
        problems = [said for step in graph for said in _undeclared(step, self.settings)]
        if problems:
            folders = ", ".join(self.settings.step_folders)
            problems.append(f"or remove these steps: [steps] folders lists the folders of steps (now {folders})")
            lines = "\n".join(f"  {problem}" for problem in problems)
            raise ProjectError(f"{self.root / FILE_NAME} lacks declarations that its steps need\n{lines}")
        return graph

    @property
    def dialect(self) -> str:
        return "sqlite" if self.catalog_url.startswith("sqlite") else "postgresql"

    @cached_property
    def recipes(self) -> Mapping[str, Recipe]:
        """How each step is done today."""
        return {step.name: self.recipe(step) for step in self.steps}

    @cached_property
    def codes(self) -> Mapping[str, Code]:
        """The code of each step as it was loaded."""
        return {step.name: code_of(step) for step in self.steps}

    @cached_property
    def tools(self) -> Tools:
        """The versions of the programs that steps declare."""
        return Tools(self.work / "tools.json")

    def look_at_tools(self) -> None:
        """Ask the programs for their versions: a run does, so that none is used that is not in the key."""
        if self.tools.look(step.tools for step in self.steps):
            self.__dict__.pop("recipes", None)

    def recipe(self, step: Step, params: Mapping[str, Any] | None = None) -> Recipe:
        """A step's recipe with the project's parameters, some of them replaced for one run."""
        code, tools = self.codes[step.name], self.tools.versions(step.tools)
        # The lock is of the environment here, in which nothing is run that is made elsewhere.
        lock = {"lock": self._lock} if self._lock and not step.made_elsewhere else {}
        return recipe_of(step, code, self.params(step, params), {**tools, **lock})

    def params(self, step: Step, params: Mapping[str, Any] | None = None) -> Any:
        return params_of(step, {**self.settings.params.get(step.name, {}), **(params or {})})

    @cached_property
    def _lock(self) -> str | None:
        if self.settings.environment_lock is None:
            return None
        path = self.root / self.settings.environment_lock
        return digest_files([path])[path]

    def absolute(self, recorded: str) -> Path:
        """A recorded path, where it is now."""
        return self.root / recorded

    def located(self, recorded: str) -> str:
        """The same as text: as `Path` objects, 100,000 cost more than looking at them."""
        return recorded if recorded.startswith("/") else self._inside + recorded

    def recorded(self, path: Path | str) -> str:
        """How a path is recorded: relative where it lies inside the project. Text is an absolute path already."""
        place = path if isinstance(path, str) else os.path.abspath(path)
        return place.removeprefix(self._inside)

    @cached_property
    def _inside(self) -> str:
        return os.path.join(self.root, "")

    def references(self) -> Iterator[tuple[str, Path]]:
        """The declared references and regions, and where they are; intervals of ct.toml are written there."""
        for key, declared in self.settings.references.items():
            if declared.bed is not None:
                write_bed(self.root / declared.path, declared.bed)
            yield key, self.root / declared.path


def _undeclared(step: Step, settings: Settings) -> Iterator[str]:
    """What a step uses but ct.toml does not declare. Without this check, it would silently be empty for every node."""
    for key in step.references:
        if key not in settings.references:
            way = 'with path = "…" and version = "…"; for a region'
            yield f"reference {key!r} ({step.name}): add [references.{key}] {way}, [regions.{key}]"
    for role in step.files:
        if step.level != "cohort" and role not in settings.levels[step.level].roles:
            yield f"file {role!r} ({step.name}): add it to files or folders of [levels.{step.level}]"
    for column in (*step.columns, *([step.role] if step.role else [])):
        level, _, name = column.partition(".")
        if level in ENTITY_LEVELS and name != "id" and name not in settings.levels[level].columns:
            yield f"column {column!r} ({step.name}): add {name} to [levels.{level}.columns]"
