"""`ct trace`, `ct impact` and `ct diff`: what something was made from, what was made from it, and what differs."""

import click

from ctcore.cli.render import echo_json, json_option, opened


@click.command()
@click.argument("what")
@json_option
@click.option("--mermaid", is_flag=True, help="Print a Mermaid flowchart.")
@click.option("--dot", is_flag=True, help="Print a graph for Graphviz.")
@click.option("--all", "everything", is_flag=True, help="Show every source, however many there are.")
@click.pass_context
def trace(ctx: click.Context, what: str, as_json: bool, mermaid: bool, dot: bool, everything: bool) -> None:
    """How WHAT was made, down to the sheet and the raw files: a node, a file (found by its bytes), or a digest."""
    from ctcore.cli import graphs, tree
    from ctcore.targets import find_target
    from ctcore.trace import as_data
    from ctcore.trace import trace as find

    if as_json + mermaid + dot > 1:
        raise click.UsageError("choose one of --json, --mermaid and --dot")
    project = opened(ctx)
    found = find(project, find_target(project, what))
    if as_json:
        echo_json(as_data(found))
        return
    if mermaid or dot:
        click.echo((graphs.mermaid if mermaid else graphs.dot)(found, everything))
        return
    for note in found.target.notes:
        click.echo(note, err=True)
    tree.draw(found, everything)
    if found.roots:
        click.echo(f"in all: {tree.summary(found)}")
    if found.cycle:
        from ctcore.reasons import name_of

        click.echo(f"the catalog is damaged: {' ← '.join(map(name_of, found.cycle))} is a cycle", err=True)
