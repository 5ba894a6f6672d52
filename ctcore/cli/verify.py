"""`ct verify`: are the bytes, the chain of events, the tables that follow from it and the raw files what they were?"""

from collections.abc import Sequence

import click
from sqlalchemy import select

from ctcore.catalog.event_log import WAY, check_chain
from ctcore.catalog.tables import event
from ctcore.deletion.proof import PurgeFinding, purge_findings
from ctcore.deletion.redacted_events import purges, restored_events
from ctcore.errors import CatalogError
from ctcore.governance.masking import WITHHELD, Mask, mask_of
from ctcore.intake.raw_files import look
from ctcore.integrity.catalog_check import disagreements
from ctcore.integrity.scrub import ScrubResult, scrub
from ctcore.integrity.scrub import scrub_words as scrubbing
from ctcore.integrity.verify import verify as verify_store
from ctcore.model.levels import count_text
from ctcore.model.node import name_of
from ctcore.project import Project
from ctcore.projects.missing_store import refuse_without_store
from ctcore.projects.permissions import readable_by_others
from ctcore.staleness.undeclared_reads import by_step, rows_of
from ctcore.terminal.damage import place_in_words
from ctcore.terminal.render import FOUND, ByteCounter, echo_json, json_option, open_project, table

SHOWN = 20


@click.command()
@click.option("--quick", is_flag=True, help="Read only files whose size, times or inode changed.")
@click.option("--again", is_flag=True, help="Read everything, also files that an interrupted `ct verify` read.")
@json_option
@click.pass_context
def verify(ctx: click.Context, quick: bool, again: bool, as_json: bool) -> None:
    """Read all published files, raw files and references, and check the event chain and the tables.

    An interrupted check continues where it stopped. Exit code 3 for findings.
    """
    project = open_project(ctx)
    refuse_without_store(project)
    seen = mask_of(project)
    chain = _chain(project, seen) or _unlike(project)
    edited = [(place_in_words(seen, place), what) for place, what in disagreements(project)]
    rows = [("events", "", said) for said in chain] + [("catalog", *one) for one in edited]
    if project.catalog.divergence is not None:  # what reading finds could not be written down
        _print(rows, as_json)
        click.echo(f"no file was read yet, because the records differ: {WAY}", err=True)
        ctx.exit(FOUND)
    found = _quick_check(project) if quick else _read(project, again)
    rows = [("raw files", "", said) for said in found.changed_inputs] + rows
    rows = [(name_of(one.node), one.file, one.problem) for one in found.findings] + rows
    rows += [_of_purge(seen, one) for one in purge_findings(project)]
    _print(rows, as_json)
    read = [] if quick else [count_text(found.files, "raw file"), count_text(found.references, "reference")]
    read = [
        count_text(found.artifacts, "artifact"),
        *read,
        f"{found.bytes} bytes read",
        count_text(len(rows), "finding"),
    ]
    click.echo(", ".join(read), err=True)
    _undeclared(project)
    lost = dict.fromkeys(one.node for one in found.findings if one.node[0] in project.steps)
    if any(not project.steps[step].made_elsewhere for step, _ in lost):
        click.echo("`ct run` makes them again", err=True)
    elsewhere = [node for node in lost if project.steps[node[0]].made_elsewhere and not seen.hides(node)]
    for step, partition in elsewhere[:SHOWN]:
        click.echo(f"{step}/{partition} is {project.steps[step].way_to(partition)} takes it again", err=True)
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
    if project.catalog.divergence is not None:
        return []
    with project.catalog.read() as connection:
        lines = project.catalog.journal.differing_lines(connection)
    more = f" and {len(lines) - 1} more" if len(lines) > 1 else ""
    return [f"provenance.jsonl line {lines[0]}{more}: not the events of the catalog"] if lines else []


def _print(rows: Sequence[tuple[str, str, str]], as_json: bool) -> None:
    if as_json:
        echo_json([dict(zip(("where", "file", "problem"), row, strict=True)) for row in rows])
    elif rows:
        table(("where", "file", "problem"), rows)


def _quick_check(project: Project) -> ScrubResult:
    with ByteCounter("reading touched files") as on_bytes:
        found = verify_store(project, deep=False, on_bytes=on_bytes)
        looked = look(project, on_bytes)
    said = [*looked.problems, *looked.changes]
    return ScrubResult(found.artifacts, bytes=found.bytes, findings=list(found.findings), changed_inputs=said)


def _read(project: Project, again: bool) -> ScrubResult:
    reading = ByteCounter("reading all bytes")
    with reading as on_bytes:
        found = scrub(project, again, reading.of, on_bytes)
    looked = look(project)
    found.changed_inputs += [said for said in (*looked.problems, *looked.changes) if said not in found.changed_inputs]
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


def _of_purge(seen: Mask, found: PurgeFinding) -> tuple[str, str, str]:
    """A finding as a row. `ct purge --check` names its person; this command names nobody."""
    if not seen.names_hidden(f"{found.where} {found.problem}"):
        return found.where, "", found.problem
    where = WITHHELD if seen.names_hidden(found.where) else found.where
    said = f"purge {found.purge} has not removed everything; `ct purge --check {found.purge}` says what to do"
    return where, "", said


def _chain(project: Project, seen: Mask) -> list[str]:
    """Breaks in the chain, in the catalog and in provenance.jsonl."""
    apart = project.catalog.divergence
    with project.catalog.read() as connection:
        rows = connection.execute(select(event).order_by(event.c.seq)).mappings()
        problems = [] if apart is None else [apart]
        problems += [f"catalog: {seen.mask_words(said)}" for said in check_chain(dict(row) for row in rows)]
        if not problems:
            again = restored_events(connection, purges(connection))
            problems += [f"catalog: event {seq}: holds values that a purge removed" for seq in sorted(again)]
    journal = project.catalog.journal
    if journal.path.exists():
        try:
            problems += map(seen.mask_words, check_chain(journal.read(), f"{journal.path.name} line"))
        except CatalogError as error:
            problems.append(str(error))
    return problems
