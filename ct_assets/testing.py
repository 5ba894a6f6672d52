"""For a group's own tests: the assets on a copy of a project, with a Dagster that is forgotten afterwards."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import tomlkit

from ct_assets.asset_keys import key_of
from ct_assets.definitions import build_assets, build_resources
from ct_assets.partitions import add_missing
from ct_assets.runs import END_TAG, START_TAG
from ctcore.cohorts.lookup import find_node
from ctcore.cohorts.partitions import partitions
from ctcore.config.settings import FILE_NAME
from ctcore.errors import Usage
from ctcore.intake.raw_files import look
from ctcore.intake.register import known_sheet, register
from ctcore.lineage.explain import artifact_path
from ctcore.project import Project
from ctcore.projects.code_files import PARTS

RANGE = (START_TAG, END_TAG)
_NOT_COPIED = {*(Path(part).parts[0] for part in PARTS), "provenance.jsonl", "store", "work", "set-aside"}


@dataclass(frozen=True)
class ProjectCopy:
    """A project in a folder of a test, with its sheet registered, and a Dagster in memory."""

    project: Project
    instance: dg.DagsterInstance

    def materialize(self, *assets: str, partition: str | None = None, **more: Any) -> dg.ExecuteInProcessResult:
        """One run of assets that share their partitions: of one partition, or else of all that are registered.

        `more` goes to Dagster's `execute_in_process`: with `raise_on_error=False`, what fails is in the result.
        """
        add_missing(self.project, self.instance)
        if partition is not None:
            more["partition_key"] = partition
        elif (first := assets[0]) in self.project.steps:
            keys = partitions(self.project, self.project.steps[first].level)
            more["tags"] = {**dict(zip(RANGE, (keys[0], keys[-1]), strict=True)), **more.get("tags", {})}
        return run_assets(self.project, self.instance, *assets, **more)

    def path(self, node: str, output: str | None = None) -> Path:
        """The folder of a node's current artifact, such as `counted/A1`, or one of its files."""
        return artifact_path(self.project, find_node(self.project, node), output)[0]


def run_assets(project: Project, instance: dg.DagsterInstance, *assets: str, **more: Any) -> dg.ExecuteInProcessResult:
    """One run of these assets, in this process; `more` goes to Dagster: partition_key, tags, raise_on_error."""
    defs = dg.Definitions(assets=build_assets(project), resources=build_resources(project))
    job = defs.resolve_implicit_global_asset_job_def()
    keys = [key_of(project, name) for name in assets]
    return job.execute_in_process(instance=instance, asset_selection=keys, **more)


@contextmanager
def project_copy(folder: Path, source: Path | None = None, sheet: Path | None = None) -> Iterator[ProjectCopy]:
    """The project of `source`, or else of the current folder, in `folder`, with `sheet` or its own sheet registered.

    It has the steps and the rest of ct.toml, a catalog and a store of its own on SQLite, and nothing of what is in the
    real ones: no results, consents or QC events. Raw files and references are read where they are. Usage where there is
    no sheet, ProjectError or SheetError as from `ct register`.
    """
    real = Project.find(source)
    chosen = sheet if sheet is not None else known_sheet(real)
    if chosen is None:
        raise Usage(f"{real.id} has no sheet yet: name one as project_copy(folder, sheet=...)")
    url = os.environ.pop("CT_POSTGRES_URL", None)  # the real one's catalog may lie there
    try:
        _copy(real, folder)
        project = Project.find(folder)
        project.store.ensure()
        register(project, chosen.resolve())
        look(project)
        with dg.DagsterInstance.ephemeral() as instance:
            yield ProjectCopy(project, instance)
    finally:
        if url is not None:
            os.environ["CT_POSTGRES_URL"] = url


def _copy(real: Project, folder: Path) -> None:
    """ct.toml and the folders of steps; links to the rest that is not ct's own."""
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / FILE_NAME).exists():
        raise Usage(f"{folder} is a project already; name a new folder, such as tmp_path / 'copy'")
    declared = tomlkit.parse((real.root / FILE_NAME).read_text(encoding="utf-8"))
    declared.pop("dagster", None)  # the instance that it shares with others
    for reference in declared.get("references", {}).values():
        if "path" in reference:
            reference["path"] = str(real.root / reference["path"])
    inside = {name: Path(name) for name in real.settings.step_folders if not Path(name).is_absolute()}
    for name, place in inside.items():
        if ".." not in place.parts and place.parts[0] not in _NOT_COPIED:
            shutil.copytree(real.root / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    outside = [name if (folder / name).is_dir() else str(real.root / name) for name in real.settings.step_folders]
    declared.setdefault("steps", tomlkit.table())["folders"] = outside
    for path in real.root.iterdir():
        if not (path.name in _NOT_COPIED or path.name.startswith((".", "catalog.db")) or (folder / path.name).exists()):
            (folder / path.name).symlink_to(path)
    (folder / FILE_NAME).unlink()
    (folder / FILE_NAME).write_text(tomlkit.dumps(declared), encoding="utf-8")
