"""`ct reference`: the outside files that steps use, and the versions that there ever were of each."""

import sys
from pathlib import Path
from typing import Any

import click

from ctcore.config.settings import FILE_NAME
from ctcore.errors import InputError, Usage
from ctcore.governance.hints import not_found
from ctcore.intake.reference_update import Bump
from ctcore.intake.reference_update import add as add_reference
from ctcore.intake.reference_update import bump as bump_reference
from ctcore.intake.reference_usage import File, ReferenceHistory, kept_files, reference_histories
from ctcore.model.reasons import reference_change, short_digest, version_text
from ctcore.model.regions import KIND, overlaps, parse_interval, read_bed
from ctcore.project import Project
from ctcore.terminal.place import Place
from ctcore.terminal.render import ByteCounter, echo_json, is_terminal, json_option, open_project, table

_dry_run = click.option("--dry-run", is_flag=True, help="Show what would change, and write nothing.")


@click.group()
def reference() -> None:
    """Declare references, change their versions, list them, and index genomes."""


@reference.command("list")
@click.argument("key", required=False)
@click.option("--history", is_flag=True, help="All versions, and what was made with each.")
@click.option("--at", "place", metavar="CHROM:START-END", help="Only regions that overlap this interval.")
@json_option
@click.pass_context
def list_references(ctx: click.Context, key: str | None, history: bool, place: str | None, as_json: bool) -> None:
    """List declared references and regions, with what the catalog knows of them and the nodes made with each."""
    project = open_project(ctx)
    found = reference_histories(project, key)
    if key is not None and not found:
        raise not_found(project, "reference", key)
    if place is not None:
        found = _at(project, found, place)
    if as_json:
        echo_json([_as_json(one, kept_files(project, one.versions) if history else None) for one in found])
    elif history:
        _history([(one, kept_files(project, one.versions)) for one in found])
    else:
        columns = ("key", "version", "kind", "path", "content", "nodes", "with others")
        table(columns, [(one.key, _version(one), *_said(one), one.nodes, one.others) for one in found])


def _at(project: Project, found: list[ReferenceHistory], place: str) -> list[ReferenceHistory]:
    """The regions that overlap a place, by their files as they are now."""
    try:
        wanted = parse_interval(place)
    except ValueError as error:
        raise Usage(f"--at {place}: {error}") from error
    paths = {key: path for key, path in project.references() if project.settings.references[key].kind == KIND}
    there = [one for one in found if one.key in paths and paths[one.key].is_file()]
    return [one for one in there if overlaps(read_bed(paths[one.key]), wanted)]


def _version(one: ReferenceHistory) -> str:
    return version_text(one.version) if one.on is None else f"on {one.on}"


def _said(one: ReferenceHistory) -> tuple[str, str, str]:
    return one.kind, one.path, (one.digest and short_digest(one.digest)) or "not read yet"


def _as_json(one: ReferenceHistory, files: list[File] | None) -> dict[str, Any]:
    names = ("key", "version", "kind", "path", "digest", "on", "declared", "nodes", "others")
    found = {
        "content": short_digest(one.digest) if one.digest else None,
        **{name: getattr(one, name) for name in names},
    }
    if files is None:
        return found
    told = zip(one.versions, one.uses, files, strict=True)
    return {**found, "versions": [{**vars(version), **vars(use), "file": file} for version, use, file in told]}


def _history(found: list[tuple[ReferenceHistory, list[File]]]) -> None:
    rows = []
    for one, files in found:
        for version, use, file in zip(one.versions, one.uses, files, strict=True):
            spans = (version.at, version.until or ("today" if one.declared else "no longer declared"))
            content = (version_text(version.version), short_digest(version.digest), version.path, file)
            rows.append((one.key, *content, *spans, version.actor, version.reason, use.nodes, use.makings))
    heads = ("key", "version", "content", "path", "file", "since", "until", "by", "why", "nodes", "makings")
    table(heads, rows)


@reference.command()
@click.argument("key")
@click.argument("path", type=Place(path_type=Path))
@click.option("--version", required=True, metavar="TEXT", help="The version's name, such as GRCh38.p14 or 156.")
@click.option(
    "--kind", default="other", show_default=True, metavar="WORD", help="genome, annotation, variants or another word."
)
@_dry_run
@click.pass_context
def add(ctx: click.Context, key: str, path: Path, version: str, kind: str, dry_run: bool) -> None:
    """Declare a reference: check its file or folder and write it into ct.toml."""
    project = open_project(ctx)
    if not dry_run:
        project.catalog.refuse_archived()
    with ByteCounter("reading the reference") as on_bytes:
        found = add_reference(project, key, path, version, kind, on_bytes)
    if not dry_run:
        found.write(None)
    click.echo(f"{key} {version_text(found.after)} {found.declared.path}")
    _say_index(found, dry_run)
    if dry_run:
        click.echo("nothing was written (--dry-run)", err=True)


@reference.command()
@click.argument("key")
@click.argument("path", type=Place(path_type=Path))
@click.option(
    "--version", required=True, metavar="TEXT", help="The version's name; keep the old one if only the bytes changed."
)
@click.option("--reason", metavar="TEXT", help="The reason; goes on record with your name. Required.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@_dry_run
@json_option
@click.pass_context
def bump(ctx: click.Context, key: str, path: Path, version: str, reason: str | None, **said: bool) -> None:
    """Change the version or the file of a reference. ct first shows which nodes become stale."""
    project = open_project(ctx)
    if not said["dry_run"]:
        project.catalog.refuse_archived()
    if not said["dry_run"] and not (reason or "").strip():
        raise Usage("--reason TEXT: why? It is kept with the version, beside your name")
    with ByteCounter("reading the reference") as on_bytes:
        found = bump_reference(project, key, path, version, on_bytes)
    told = found.consequences()
    if not said["as_json"]:
        click.echo(reference_change(key, found.before, found.after))
        for one in told:
            click.echo(f"{one.step}: {one.stale} would be stale", err=True)
        _say_index(found, said["dry_run"])
    if not said["dry_run"]:
        if is_terminal(sys.stdin) and not said["yes"]:
            click.confirm("bump it?", abort=True, err=True)
        found.write(reason)
    if said["as_json"]:
        stale = {one.step: one.stale for one in told}
        echo_json(
            {"key": key, "old": found.before, "new": found.after, "stale": stale, "dry_run": said["dry_run"]},
        )
    elif said["dry_run"]:
        click.echo("nothing was written (--dry-run)", err=True)


def _say_index(found: Bump, dry_run: bool) -> None:
    for said in found.problems:
        click.echo(f"problem: {said}", err=True)
    place = found.project.root / f"{found.declared.path}.fai"
    if found.declared.kind == "genome" and not place.is_file():
        then = "" if dry_run else f"; now `ct reference index {found.declared.key}`"
        click.echo(f"{found.declared.path} has no index{then}", err=True)


@reference.command()
@click.argument("key")
@click.pass_context
def index(ctx: click.Context, key: str) -> None:
    """Make the index (.fai) of a genome."""
    project = open_project(ctx)
    project.catalog.refuse_archived()
    if key not in project.settings.references:
        raise not_found(project, "reference", key)
    if project.settings.references[key].folder:
        raise Usage(f"{key} is a folder; only a genome, which is a file, has an index")
    import pysam

    path = project.root / project.settings.references[key].path
    pysam.set_verbosity(0)
    try:
        if not path.is_file():
            raise Usage(f"{path} is not there; correct [references.{key}] path in {FILE_NAME}")
        pysam.faidx(str(path))  # type: ignore[attr-defined]
    except (pysam.SamtoolsError, OSError) as error:
        way = "is it FASTA (bgzip, not gzip, where compressed), and may its folder be written?"
        raise InputError(f"{path} cannot be indexed; {way}") from error
    click.echo(f"{path}.fai", err=True)
