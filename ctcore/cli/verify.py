"""`ct verify`: are the bytes, the chain of events, the tables that follow from it and the raw files what they were?"""

from collections.abc import Sequence
from pathlib import Path

import click
from sqlalchemy import select

from ctcore.agreement import disagreements
from ctcore.catalog.chain import WAY, check_chain
from ctcore.catalog.tables import event
from ctcore.cli.render import FOUND, Reading, echo_json, json_option, opened, table
from ctcore.errors import CatalogError, Usage
from ctcore.files import look
from ctcore.looking import refuse_without_store
from ctcore.privacy import readable_by_others
from ctcore.project import Project
from ctcore.purging.proof import not_so
from ctcore.reasons import name_of
from ctcore.recover import accept_loss as accept
from ctcore.recover import recover as rebuild
from ctcore.recover import shown
from ctcore.scrub import Scrubbed, scrub
from ctcore.scrub import words as scrubbing
from ctcore.undeclared import by_step, rows_of
from ctcore.verify import verify as verify_store


@click.command()
@click.option("--quick", is_flag=True, help="Read only files whose size, times or inode differ.")
@click.option("--again", is_flag=True, help="Read everything, also what an interrupted `ct verify` has read already.")
@json_option
@click.pass_context
def verify(ctx: click.Context, quick: bool, again: bool, as_json: bool) -> None:
    """Read every published file, raw file and reference, check the chain of events and the tables against it.

    What is interrupted goes on where it stopped. Exit code 3 on a finding.
    """
    project = opened(ctx)
    refuse_without_store(project)
    chain = _chain(project) or _unlike(project)
    edited = disagreements(project)
    rows = [("events", "", said) for said in chain] + [("catalog", *one) for one in edited]
    if project.catalog.apart is not None:  # what reading finds could not be written down
        _print(rows, as_json)
        click.echo(f"no file was read yet, because the records differ: {WAY}", err=True)
        ctx.exit(FOUND)
    found = _looked(project) if quick else _read(project, again)
    rows = [("raw files", "", said) for said in found.said] + rows
    rows = [(name_of(one.node), one.file, one.problem) for one in found.findings] + rows
    rows += [(where, "", said) for where, said in not_so(project)]
    _print(rows, as_json)
    inputs = "" if quick else f", {found.files} raw files, {found.references} references"
    many = f"{len(rows)} finding{'s' * (len(rows) != 1)}"
    click.echo(f"{found.artifacts} artifacts{inputs}, {found.bytes} bytes read, {many}", err=True)
    _undeclared(project)
    if any(one.node[0] in project.steps for one in found.findings):
        click.echo("`ct run` makes them again", err=True)
    if chain or edited:
        click.echo(f"catalog or provenance.jsonl was changed by hand, or is damaged: {WAY}", err=True)
    if wide := readable_by_others(project):
        way = f"`ct init {project.root}` ends that"
        meant = 'if it is meant, say [project] readable = "everybody" in ct.toml'
        click.echo(f"everybody on this host may read {', '.join(wide)}: {way}; {meant}", err=True)
    if said := scrubbing(project):
        click.echo(said, err=True)
    ctx.exit(FOUND if rows else 0)


def _unlike(project: Project) -> list[str]:
    """A journal of before a purge is whole, and has what the purge took out."""
    if project.catalog.apart is not None:
        return []
    with project.catalog.read() as connection:
        lines = project.catalog.journal.unlike(connection)
    more = f" and {len(lines) - 1} more" if len(lines) > 1 else ""
    return [f"provenance.jsonl line {lines[0]}{more}: not the events of the catalog"] if lines else []


def _print(rows: Sequence[tuple[str, str, str]], as_json: bool) -> None:
    if as_json:
        echo_json([dict(zip(("where", "file", "problem"), row, strict=True)) for row in rows])
    elif rows:
        table(("where", "file", "problem"), rows)


def _looked(project: Project) -> Scrubbed:
    with Reading("reading what was touched") as on_bytes:
        found = verify_store(project, deep=False, on_bytes=on_bytes)
        looked = look(project, on_bytes)
    said = [*looked.problems, *looked.changes]
    return Scrubbed(found.artifacts, bytes=found.bytes, findings=list(found.findings), said=said)


def _read(project: Project, again: bool) -> Scrubbed:
    reading = Reading("reading all bytes")
    with reading as on_bytes:
        found = scrub(project, again, reading.of, on_bytes)
    looked = look(project)
    found.said += [said for said in (*looked.problems, *looked.changes) if said not in found.said]
    if found.since is not None:
        click.echo(f"went on with what began at {found.since[:16]} (--again reads everything)", err=True)
    return found


def _undeclared(project: Project) -> None:
    """No finding: nothing is known to be wrong. But of these, a change would not be seen."""
    beyond = by_step(project)
    if beyond:
        click.echo("read, and not declared by the step: a change of it is not seen (`ct why NODE`)", err=True)
    for step, said, nodes, way in rows_of(beyond):
        click.echo(f"  {step}: {said} ({nodes} node{'s' * (nodes != 1)}). {way}", err=True)


@click.command()
@click.option("--dry-run", is_flag=True, help="Say what was found and what would be done; nothing is written.")
@click.option(
    "--accept-loss", is_flag=True, help="Afterwards, answer for what could not come back: people are used again."
)
@click.option("--reason", metavar="TEXT", help="With --accept-loss: why nobody is used who may not be.")
@json_option
@click.pass_context
def recover(ctx: click.Context, dry_run: bool, accept_loss: bool, reason: str | None, as_json: bool) -> None:
    """Make catalog and provenance.jsonl whole again, from each other and the store, whatever was lost of them.

    Nothing is thrown away. Exit code 3 where something could not come back. Where a consent may have been taken back in
    what is lost, nobody is used until somebody has accepted it.
    """
    if accept_loss and (dry_run or not (reason or "").strip()):
        raise Usage("--accept-loss needs --reason TEXT, and goes without --dry-run")
    if reason is not None and not reason.isprintable():
        raise Usage("--reason: one line of printable text, please")
    if reason is not None and not accept_loss:
        raise Usage("--reason belongs to --accept-loss")
    project = Project.find(Path(ctx.obj) if ctx.obj else None)
    done = rebuild(project, dry_run=dry_run)
    accepted = accept(project, reason) if accept_loss and reason else []
    rows = [(name, "its files are gone: it is not in the ledger any more") for name in done.lost]
    again = "was made again since, in the same place: the earlier making is not in the ledger any more"
    rows += [(name, again) for name in done.replaced]
    rows += list(done.left)
    if as_json:
        said = {"events": done.events, "makings": done.makings, "found": done.found, "done": done.done}
        echo_json({**said, "held": None if accept_loss else done.held, "problems": [list(row) for row in rows]})
    elif rows:
        table(("where", "problem"), rows)
    for words in shown(done.found):
        click.echo(f"found: {words}", err=True)
    for words in done.done:
        click.echo(f"{'would be' if dry_run else 'done'}: {words}", err=True)
    if not (done.found or done.done or done.held):
        click.echo("nothing is lost: catalog and provenance.jsonl have the same events", err=True)
    click.echo(f"{done.events} events, {done.makings} makings; `ct verify` reads their bytes", err=True)
    if accept_loss:
        click.echo(f"accepted, and written into the chain: {', '.join(accepted) or 'what nobody can tell'}", err=True)
    elif done.held:
        click.echo(done.held, err=True)
    ctx.exit(FOUND if rows or (done.held and not accept_loss) else 0)


def _chain(project: Project) -> list[str]:
    """Breaks in the chain, in the catalog and in provenance.jsonl."""
    apart = project.catalog.apart
    with project.catalog.read() as connection:
        rows = connection.execute(select(event).order_by(event.c.seq)).mappings()
        problems = [] if apart is None else [apart]
        problems += [f"catalog: {said}" for said in check_chain(dict(row) for row in rows)]
    journal = project.catalog.journal
    if journal.path.exists():
        try:
            problems += check_chain(journal.read(), f"{journal.path.name} line")
        except CatalogError as error:
            problems.append(str(error))
    return problems
