"""`ct show`: one node, its files, and how it was made."""

from collections.abc import Iterator
from typing import Any

import click

from ctcore.catalog.member_roles import members_of
from ctcore.cohorts.lookup import find_node
from ctcore.errors import Usage
from ctcore.governance.masking import UNMASKED, mask_of
from ctcore.inputs.key import current_edges
from ctcore.lineage.explain import current_code_digest, entry, purged_makings
from ctcore.lineage.explain import why as explain
from ctcore.model.node import Node, name_of
from ctcore.model.reasons import short_digest, version_text
from ctcore.project import Project
from ctcore.projects.missing_store import refuse_without_store
from ctcore.query.batches import specimen_batches
from ctcore.query.disclosure import disclose, results_of
from ctcore.steps.graph import REGISTRY
from ctcore.terminal.look_first import look_first
from ctcore.terminal.render import echo_json, excluded_options, json_option, open_project, say, table


@click.command()
@click.argument("node")
@click.option("--code", is_flag=True, help="Print the code that made it, as it counts for the key.")
@excluded_options
@json_option
@click.pass_context
def show(ctx: click.Context, node: str, code: bool, excluded: bool, reason: str | None, as_json: bool) -> None:
    """Show a node's files, inputs and facts; or a patient, specimen, assay or reference."""
    project = open_project(ctx)
    which = find_node(project, node)
    disclose(project, which, excluded, reason)
    if code:
        show_code(project, which, as_json)
        return
    look_first(project)
    if which[0] in REGISTRY:
        made = {**entry(project, which), "results": results_of(project, which, excluded, reason)}
        fed = specimen_batches(project, which[1]) if which[0] == "specimen" else []
        if as_json:
            batches = [dict(zip(("assay", "batch"), one, strict=True)) for one in fed]
            echo_json({**made, **({"fed_by": batches} if fed else {})})
            return
        _registered(made)
        if fed:
            click.echo()
            table(("assay", "batch"), fed, title="fed by")
        return
    found = explain(project, which, UNMASKED if excluded else mask_of(project))
    edges = current_edges(project, which)
    with project.catalog.read() as connection:
        listed = members_of(connection, found.made["id"]) if found.made else []
    if as_json:
        gone = [] if found.made else purged_makings(project, which)
        members = [dict(zip(("level", "entity", "role"), one, strict=True)) for one in listed]
        inputs = [e._asdict() for e in edges]
        said = {"verdict": found.text, "made": found.made, "inputs": inputs, "members": members, "purged": gone}
        echo_json(said)
        return
    say(found.text)
    if found.made is None:
        _tombstones(project, which)
        return
    click.echo(f"\npath        {found.made['path']}")
    if project.steps[which[0]].made_elsewhere:
        say(f"{'how':<11} {found.made['reason']}")
    for line in told_of(found.made):
        say(line)
    for name, value in found.made["facts"].items():
        say(f"{name:<11} {value}")
    click.echo()
    table(
        ("file", "bytes", "digest"),
        [(one["file"], one["size"], short_digest(one["digest"])) for one in found.made["files"]],
        title="files",
    )
    click.echo()
    rows = [
        (
            e.input,
            f"{e.asset}/{e.partition}",
            version_text(e.version),
        )
        for e in edges
    ]
    table(("input", "from", "data version"), rows, title="made from")
    if project.steps[which[0]].role is not None:
        click.echo()
        table(("level", "member", "role"), listed, title="members")


def show_code(project: Project, node: Node, as_json: bool) -> None:
    """The code of the current making of a node, as it was kept."""
    from ctcore.code.archive import code_lines, read_code

    refuse_without_store(project)
    digest = current_code_digest(project, node)
    if digest is None:
        raise Usage(f"{name_of(node)} is not made by a step, or was never made; `ct why {name_of(node)}`")
    content = read_code(project.store.root, digest)
    if content is None:
        raise Usage(
            f"the code {short_digest(digest)} that made {name_of(node)} is not in store/.code: an earlier ct made it, "
            "or the file is gone; the next making keeps it"
        )
    if as_json:
        echo_json({"node": name_of(node), "digest": digest, **content})
    else:
        for line in mask_of(project).lines(code_lines(content)):
            say(line)


def told_of(made: dict[str, Any]) -> Iterator[str]:
    """Who asked for it, where it ran, its commit, and how often it was made again."""
    said = [("asked by", made["actor"]), ("ran on", made["host"]), ("commit", made["git"])]
    yield from (f"{name:<11} {value}" for name, value in said if value)
    for one in made["again"]:
        bytes_said = f"other bytes in {', '.join(one['differs'])}" if one["differs"] else "the same bytes"
        yield f"{'made again':<11} {one['at']} by {one['actor']} on {one['host']}: {bytes_said}"


def _tombstones(project: Project, node: Node) -> None:
    """Of a node that is not there: what was purged of it, with the digests that its files had."""
    rows = [
        (f"#{one['materialization']}", file["file"], file["size"], short_digest(file["digest"]), one["purged"])
        for one in purged_makings(project, node)
        for file in one["files"]
    ]
    if rows:
        click.echo()
        table(("making", "file", "bytes", "digest", ""), rows, title="what was there")


def _registered(made: dict[str, Any]) -> None:
    """A patient, specimen, assay or reference: its facts, then its files."""
    facts = {name: value for name, value in made.items() if name not in ("attributes", "files", "results")}
    for name, value in {**facts, **made.get("attributes", {})}.items():
        if value is not None:
            say(f"{name:<11} {value}")
    if made.get("files"):
        click.echo()
        columns = ("role", "path", "size", "digest", "problem")
        rows = [
            [short_digest(one[name]) if name == "digest" else one[name] for name in columns] for one in made["files"]
        ]
        table(columns, rows, title="files")
    listed = [
        (one["analysis"], one["run"], one["version"], name, value, f"{one['at'][:10]} by {one['actor']}")
        for one in made["results"]
        for name, value in one["values"].items()
    ]
    if listed:
        click.echo()
        table(("analysis", "run", "version", "column", "value", "recorded"), listed, title="results")
