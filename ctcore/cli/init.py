"""`ct init`: a project directory."""

import re
from contextlib import suppress
from pathlib import Path

import click

from ctcore.config.settings import FILE_NAME, PROJECT_ID
from ctcore.config.starters import SHEET_NAME, STARTERS
from ctcore.config.templates import GITIGNORE, copy_example, example_folder, project_data
from ctcore.errors import CtError, LostCatalog, ProjectError, Usage
from ctcore.project import Project
from ctcore.projects import listing
from ctcore.projects.code_files import OWN, PARTS, bring_up_to_date
from ctcore.projects.permissions import apply_permissions
from ctcore.terminal.place import Place
from ctcore.util.atomic_file import write_whole
from ctcore.util.disk_errors import disk_error

FOLDERS = ("store", "work", "steps")


@click.command()
@click.argument("directory", type=Place(file_okay=False, path_type=Path))
@click.option("--id", "project_id", help="The project's ID (default: from the directory's name).")
@click.option("--example", "example_name", help="Start from an example: three_people.")
@click.option("--template", type=click.Choice(list(STARTERS)), help="The columns and cohorts to start with.")
def init(directory: Path, project_id: str | None, example_name: str | None, template: str | None) -> None:
    """Make a project directory, or update the code of an existing one to this ct.

    ct never overwrites ct.toml, your own steps and definitions, the catalog or the store.
    """
    existed = (directory / FILE_NAME).exists()
    if template and (existed or example_name):
        raise Usage(
            f"--template is for a new project: {directory} has a {FILE_NAME} already"
            if existed
            else "--template and --example: choose one of them"
        )
    for name in FOLDERS:
        if (directory / name).is_file():
            how = "a project has a folder there: move it away, or choose another place"
            raise Usage(f"{directory / name} is a file, and {how}")
    chosen = _checked(directory, project_id, example_name, existed)
    if existed:
        with suppress(LostCatalog):  # what leads out of it may need the store that is made here
            Project(Project.find(directory).root, frozenset({"held", "apart"})).catalog.refuse_archived()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if not existed:
            _begin(directory, chosen, example_name, template or "plain")
        (directory / "steps").mkdir(exist_ok=True)
        kept = bring_up_to_date(directory, chosen or Project.find(directory).id)
    except OSError as error:
        found = disk_error(directory, error)
        said = found.strerror if found else f"{error.strerror}; choose a place that can be written"
        raise ProjectError(f"{directory}: {said}") from error
    project = Project.find(directory)
    project.store.ensure()
    project.work.mkdir(exist_ok=True)
    apply_permissions(project)
    version = project.catalog.version()
    _make_known(project)
    _say_kept(kept)
    said = "is up to date" if existed else "is ready"
    click.echo(f"{project.id} {said} in {directory} (catalog version {version})", err=True)
    if not existed:
        sheet = "SHEET" if project.settings.sheet is None else ""
        click.echo(
            f"next: look at {directory / FILE_NAME}, then `ct -C {directory} register {sheet}".rstrip() + "`", err=True
        )


def _make_known(project: Project) -> None:
    """By its ID. A project is whole without that: what stands against it is said, and is no failure."""
    try:
        listing.add(project)
    except CtError as error:
        click.echo(f"not known to --project {project.id}: {error}", err=True)


def _checked(directory: Path, project_id: str | None, example_name: str | None, existed: bool) -> str:
    """The project's ID. Usage error before anything is written."""
    if existed:
        if project_id:
            raise Usage(f"{directory} is a project already; its ID is in {FILE_NAME} and does not change")
        return ""
    chosen = project_id or _slug(directory.resolve().name)
    if not re.fullmatch(PROJECT_ID, chosen):
        raise Usage(f"--id {chosen!r}: 3 to 64 of a-z, 0-9 and -, not at an end")
    if example_name:
        example_folder(example_name)
    foreign = [part for part in PARTS if (directory / part).exists()]
    if foreign and project_data().resolve() != directory.resolve():
        raise Usage(
            f"{directory} has {', '.join(foreign)}, but no {FILE_NAME}: it is no project of ct; choose a new one"
        )
    return chosen


def _begin(directory: Path, project_id: str, example_name: str | None, template: str) -> None:
    """What is written once. ct.toml comes last, and whole: where it is, all of this is."""
    text = copy_example(example_name, directory) if example_name else STARTERS[template].toml
    if not example_name and not (directory / SHEET_NAME).exists():
        (directory / SHEET_NAME).write_text(STARTERS[template].sheet, encoding="utf-8")
    if not (directory / ".gitignore").exists():
        (directory / ".gitignore").write_text(GITIGNORE, encoding="utf-8")
    write_whole(directory / FILE_NAME, text.replace("{id}", project_id).encode(), durable=True)


def _say_kept(kept: list[str]) -> None:
    """What somebody changed in ct's own files, where it is now, and where it belongs."""
    for name in kept:
        own = f"; what is your own belongs into {OWN[name]}, which ct never writes" if name in OWN else ""
        click.echo(f"{name} was changed by hand: it is replaced, and what stood there is {name}.before{own}", err=True)


def _slug(name: str) -> str:
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:64]
    return slug if len(slug) >= 3 else f"ct-{slug}".strip("-")
