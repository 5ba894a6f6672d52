"""`ct init`: a project directory."""

import re
import shutil
from pathlib import Path

import click

from ctcore.errors import ProjectError, Usage
from ctcore.project import Project
from ctcore.settings import FILE_NAME
from ctcore.templates import BLANK, GITIGNORE, example, project_data

PARTS = ("definitions.py", "workspace.yaml", "ct_assets", "resources", "sensors", "dagster_home")


@click.command()
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path))
@click.option("--id", "project_id", help="The project's ID (default: from the directory's name).")
@click.option("--example", "example_name", help="Begin with an example: three_people.")
def init(directory: Path, project_id: str | None, example_name: str | None) -> None:
    """Make a project directory, or bring the code of an existing one up to date with this ct.

    What a person wrote (ct.toml, own steps, the catalog, the store) is never overwritten.
    """
    existed = (directory / FILE_NAME).exists()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _write(directory, project_id, example_name, existed)
    except OSError as error:
        raise ProjectError(
            f"{directory}: {error.strerror} ({error.filename}); choose a place that can be written"
        ) from error
    project = Project.find(directory)
    project.store.ensure()
    version = project.catalog.version()
    said = "is up to date" if existed else "is ready"
    click.echo(f"{project.id} {said} in {directory} (catalog version {version})", err=True)
    if not existed:
        click.echo(f"next: edit {directory / FILE_NAME}, then `ct -C {directory} register SHEET`", err=True)


def _write(directory: Path, project_id: str | None, example_name: str | None, existed: bool) -> None:
    chosen = project_id or _slug(directory.resolve().name)
    if not existed:
        text = example(example_name, directory) if example_name else BLANK
        (directory / FILE_NAME).write_text(text.replace("{id}", chosen), encoding="utf-8")
        (directory / ".gitignore").write_text(GITIGNORE, encoding="utf-8")
    elif project_id:
        raise Usage(f"{directory} is a project already; its ID is in {FILE_NAME} and does not change")
    (directory / "steps").mkdir(exist_ok=True)
    source = project_data()
    if source.resolve() == directory.resolve():
        return
    for part in PARTS:
        _copy(source / part, directory / part)


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        ignored = shutil.ignore_patterns("__pycache__", "*.pyc", "history", "storage", "logs", "schedules")
        shutil.copytree(source, target, dirs_exist_ok=True, ignore=ignored)
    else:
        shutil.copy(source, target)


def _slug(name: str) -> str:
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:64]
    return slug if len(slug) >= 3 else f"ct-{slug}".strip("-")
