"""`ct reference`: the outside files that steps use."""

import click
from sqlalchemy import select

from ctcore.catalog.tables import reference as references
from ctcore.cli.render import echo_json, json_option, opened, table
from ctcore.errors import InputError, Usage
from ctcore.nodes import no_such
from ctcore.reasons import short
from ctcore.settings import FILE_NAME


@click.group()
def reference() -> None:
    """List references, or index one."""


@reference.command("list")
@json_option
@click.pass_context
def list_references(ctx: click.Context, as_json: bool) -> None:
    """The declared references, and what the catalog knows of them."""
    project = opened(ctx)
    with project.catalog.read() as connection:
        known = {row.key: row for row in connection.execute(select(references))}
    rows = []
    for key, said in project.settings.references.items():
        row = known.get(key)
        rows.append((key, said.version, said.kind, said.path, short(row.digest) if row else "not read yet"))
    columns = ("key", "version", "kind", "path", "content")
    if as_json:
        echo_json([dict(zip(columns, row, strict=True)) for row in rows])
    else:
        table(columns, rows)


@reference.command()
@click.argument("key")
@click.pass_context
def index(ctx: click.Context, key: str) -> None:
    """Make the index (.fai) of a genome."""
    project = opened(ctx)
    project.catalog.refuse_archived()
    if key not in project.settings.references:
        raise no_such(project, "reference", key)
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
