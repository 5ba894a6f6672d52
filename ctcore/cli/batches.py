"""`ct batches`: which runs or flow cells fed which specimens, and which specimens are merges."""

from collections.abc import Iterator, Mapping
from typing import Any

import click

from ctcore.errors import Usage
from ctcore.model.masked_text import Plain, Words
from ctcore.query.batches import Feeding, feeding_of
from ctcore.query.disclosure import shows_excluded
from ctcore.query.readable import Gate
from ctcore.terminal.render import echo_json, excluded_options, json_option, open_project, table


@click.command()
@click.argument("batch", required=False)
@click.option("--by", metavar="assay.COLUMN", help="The column that names the batch (default: run, flowcell, …).")
@click.option("--merges", is_flag=True, help="Only specimens with assays of several batches.")
@click.option("--mermaid", is_flag=True, help="Print a Mermaid flowchart of batches, specimens and numbers of assays.")
@excluded_options
@json_option
@click.pass_context
def batches(
    ctx: click.Context,
    batch: str | None,
    by: str | None,
    merges: bool,
    mermaid: bool,
    excluded: bool,
    reason: str | None,
    as_json: bool,
) -> None:
    """List batches with their assays and specimens; or all specimens that one BATCH fed."""
    project = open_project(ctx)
    everybody = shows_excluded(project, excluded, reason, "batches", Words(Plain(batch or "all")))
    with project.catalog.read() as connection:
        gate = Gate.of(project, connection, everybody)
        found, audit = feeding_of(gate, by), gate.audit
    known = {one.name for one in found.batches}
    if batch is not None and batch not in known:
        raise Usage(f"no batch {batch!r} by assay.{found.by}; there is: {', '.join(sorted(known)[:10]) or 'none'}")
    fed = {who: some for who, some in (found.merges if merges else found.specimens).items() if batch in (None, *some)}
    if as_json:
        echo_json(_data(found, fed, batch))
    elif mermaid:
        click.echo("\n".join(_flowchart(fed)))
    else:
        _tables(found, fed, batch, merges)
        click.echo(audit, err=True)


def _data(found: Feeding, fed: Mapping[str, Mapping[str, int]], batch: str | None) -> dict[str, Any]:
    listed = [vars(one) for one in found.batches if batch in (None, one.name)]
    return {"by": f"assay.{found.by}", "batches": listed, "specimens": fed, "merges": [*found.merges]}


def _tables(found: Feeding, fed: Mapping[str, Mapping[str, int]], batch: str | None, merges: bool) -> None:
    if batch is None and not merges:
        columns = (found.by, "assays", "specimens", "of them merged", "patients", "artifacts")
        rows = [
            (one.name, len(one.assays), len(one.specimens), len(one.merged), len(one.patients), one.artifacts)
            for one in found.batches
        ]
        table(columns, rows)
        return
    columns = ("specimen", "assays", "batches", f"by {found.by}")
    rows = [(who, sum(some.values()), len(some), _listed(some)) for who, some in fed.items()]
    table(columns, rows)


def _listed(some: Mapping[str, int]) -> str:
    return ", ".join(f"{name} × {n}" for name, n in some.items())


def _flowchart(fed: Mapping[str, Mapping[str, int]]) -> Iterator[str]:
    from ctcore.terminal.mermaid_dot import escape_text

    yield "flowchart LR"
    names = {name: f"b{at}" for at, name in enumerate(dict.fromkeys(one for some in fed.values() for one in some))}
    for name, box in names.items():
        yield f'  {box}(["{escape_text(name)}"])'
    for at, (who, some) in enumerate(fed.items()):
        yield f'  s{at}["{escape_text(who)}"]'
        for name, n in some.items():
            yield f'  {names[name]} -->|"{n}"| s{at}'
