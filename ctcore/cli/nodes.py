"""`ct why`, `ct show` and `ct path`: one node."""

import sys
from collections.abc import Iterator
from typing import Any

import click

from ctcore.cli.looks import looked
from ctcore.cli.render import FOUND, echo_json, excluded_options, is_terminal, json_option, opened, say, table
from ctcore.cli.stale import reasons_json
from ctcore.disclosure import disclose, results_of, why_withheld
from ctcore.errors import Usage
from ctcore.explain import artifact_path, column_values, entry, made_with, purged_makings
from ctcore.explain import why as explain
from ctcore.looking import refuse_without_store
from ctcore.memo import current_edges
from ctcore.nodes import find_node
from ctcore.project import Project
from ctcore.reading.feeding import of_specimen
from ctcore.reasons import Node, name_of, short, shown
from ctcore.roles import members_of
from ctcore.steps import REGISTRY
from ctcore.veil import UNVEILED, veil


@click.command()
@click.argument("node")
@click.option("--values", is_flag=True, help="Also what metadata columns were and are: personal data, for a terminal.")
@json_option
@click.pass_context
def why(ctx: click.Context, node: str, values: bool, as_json: bool) -> None:
    """Why a node (step/partition) is what it is, in one sentence. Exit code 3 where it is not fresh."""
    if values and (as_json or not is_terminal(sys.stdout)):
        raise Usage("--values shows personal data: only on a terminal, as text")
    project = opened(ctx)
    sight = looked(project)
    found = explain(project, find_node(project, node))
    verdict = found.verdict
    hidden = why_withheld(project, verdict.node) is not None
    if as_json:
        echo_json(
            {
                "node": name_of(verdict.node),
                "state": verdict.state,
                "sentence": found.sentence,
                "reasons": reasons_json(verdict),
                "accepted": list(found.accepted),
                "built_from_accepted": found.built_from,
                "roots": found.roots,
                "members": found.members,
                "unseen": found.unseen,
                "again": None if hidden else found.again,
                "undeclared": found.undeclared,
                "made": None if hidden else found.made,
                "failure": None if hidden else found.failure,
                "looked": sight.as_json(),
            }
        )
    else:
        say(found.text)
    for line in column_values(project, verdict) if values else ():
        say(line)
    ctx.exit(0 if verdict.state == "fresh" and sight.is_clear else FOUND)


@click.command()
@click.argument("node")
@click.option("--code", is_flag=True, help="The code that made it, as it counts.")
@excluded_options
@json_option
@click.pass_context
def show(ctx: click.Context, node: str, code: bool, excluded: bool, reason: str | None, as_json: bool) -> None:
    """Everything known of a node: its files, inputs and facts; or of a patient, specimen, assay or reference."""
    project = opened(ctx)
    which = find_node(project, node)
    disclose(project, which, excluded, reason)
    if code:
        show_code(project, which, as_json)
        return
    looked(project)
    if which[0] in REGISTRY:
        made = {**entry(project, which), "results": results_of(project, which, excluded, reason)}
        fed = of_specimen(project, which[1]) if which[0] == "specimen" else []
        if as_json:
            batches = [dict(zip(("assay", "batch"), one, strict=True)) for one in fed]
            echo_json({**made, **({"fed_by": batches} if fed else {})})
            return
        _registered(made)
        if fed:
            click.echo()
            table(("assay", "batch"), fed, title="fed by")
        return
    found = explain(project, which, UNVEILED if excluded else veil(project))
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
    for line in told_of(found.made):
        say(line)
    for name, value in found.made["facts"].items():
        say(f"{name:<11} {value}")
    click.echo()
    table(
        ("file", "bytes", "digest"),
        [(one["file"], one["size"], short(one["digest"])) for one in found.made["files"]],
        title="files",
    )
    click.echo()
    rows = [
        (
            e.input,
            f"{e.asset}/{e.partition}",
            shown(e.version),
        )
        for e in edges
    ]
    table(("input", "from", "data version"), rows, title="made from")
    if project.steps[which[0]].role is not None:
        click.echo()
        table(("level", "member", "role"), listed, title="members")


def show_code(project: Project, node: Node, as_json: bool) -> None:
    """The code of the current making of a node, as it was kept."""
    from ctcore.code.kept import kept, lines

    refuse_without_store(project)
    digest = made_with(project, node)
    if digest is None:
        raise Usage(f"{name_of(node)} is not made by a step, or was never made; `ct why {name_of(node)}`")
    content = kept(project.store.root, digest)
    if content is None:
        raise Usage(
            f"the code {short(digest)} that made {name_of(node)} is not in store/.code: an earlier ct made it, or "
            "the file is gone; the next making keeps it"
        )
    if as_json:
        echo_json({"node": name_of(node), "digest": digest, **content})
    else:
        for line in veil(project).lines(lines(content)):
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
        (f"#{one['materialization']}", file["file"], file["size"], short(file["digest"]), one["purged"])
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
        rows = [[short(one[name]) if name == "digest" else one[name] for name in columns] for one in made["files"]]
        table(columns, rows, title="files")
    listed = [
        (one["analysis"], one["run"], one["version"], name, value, f"{one['at'][:10]} by {one['actor']}")
        for one in made["results"]
        for name, value in one["values"].items()
    ]
    if listed:
        click.echo()
        table(("analysis", "run", "version", "column", "value", "recorded"), listed, title="results")


@click.command()
@click.argument("node")
@click.argument("output", required=False)
@excluded_options
@json_option
@click.pass_context
def path(ctx: click.Context, node: str, output: str | None, excluded: bool, reason: str | None, as_json: bool) -> None:
    """Where a node's current artifact is: its folder, or one of its files by the output's or the file's name."""
    project = opened(ctx)
    which = find_node(project, node)
    disclose(project, which, excluded, reason)
    refuse_without_store(project)
    found = artifact_path(project, which, output)
    if as_json:
        echo_json({"node": name_of(which), "path": str(found)})
    else:
        click.echo(found)
