"""`ct recover`: the one way back after a loss."""

from pathlib import Path

import click

from ctcore.errors import Usage
from ctcore.governance.masking import Mask
from ctcore.integrity.recover import accept_loss as accept
from ctcore.integrity.recover import first_lines
from ctcore.integrity.recover import recover as rebuild
from ctcore.model.levels import count_text
from ctcore.project import Project
from ctcore.terminal.damage import finding_in_words, place_in_words
from ctcore.terminal.render import FOUND, echo_json, json_option, table


@click.command()
@click.option("--dry-run", is_flag=True, help="Show what was found and what would be done, and write nothing.")
@click.option(
    "--accept-loss",
    is_flag=True,
    help="Then accept the remaining loss under your name: people's data may be used again.",
)
@click.option("--reason", metavar="TEXT", help="With --accept-loss: why no revocation is missing.")
@json_option
@click.pass_context
def recover(ctx: click.Context, dry_run: bool, accept_loss: bool, reason: str | None, as_json: bool) -> None:
    """Restore the catalog and provenance.jsonl from each other and from the store, after any loss.

    Nothing is thrown away. Exit code 3 if something could not be restored. If the lost part may have held a revocation,
    ct uses nobody's data until somebody accepts the loss.
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
    gone = [*((name, "its files are gone") for name in done.lost), *done.purged]
    rows = [(name, f"{why}: it is not in the ledger any more") for name, why in gone]
    again = "was made again since, in the same place: the earlier making is not in the ledger any more"
    rows += [(name, again) for name in done.replaced]
    rows += list(done.left)
    seen = Mask(done.everybody if done.held and not accept_loss else done.hidden)
    rows, found = (
        [(place_in_words(seen, where), said) for where, said in rows],
        [finding_in_words(seen, words) for words in done.found],
    )
    if as_json:
        said = {"events": done.events, "makings": done.makings, "found": found, "done": done.done}
        echo_json({**said, "held": None if accept_loss else done.held, "problems": [list(row) for row in rows]})
    elif rows:
        table(("where", "problem"), rows)
    for words in first_lines(found):
        click.echo(f"found: {words}", err=True)
    for words in done.done:
        click.echo(f"{'would be' if dry_run else 'done'}: {words}", err=True)
    if not (done.found or done.done or done.held):
        click.echo("nothing is lost: catalog and provenance.jsonl have the same events", err=True)
    if done.unsure:
        has = "has a source" if done.unsure == 1 else "have a source"
        words = f"{count_text(done.unsure, 'making')} {has} that is lost: who is inside is unknown"
        click.echo(f"{words}, and counts as anybody who is excluded; `ct run` makes the source again", err=True)
    many = f"{count_text(done.events, 'event')}, {count_text(done.makings, 'making')}"
    click.echo(f"{many}; `ct verify` reads their bytes", err=True)
    if accept_loss:
        click.echo(f"accepted, and written into the chain: {', '.join(accepted) or 'what nobody can tell'}", err=True)
    elif done.held:
        click.echo(done.held, err=True)
    ctx.exit(FOUND if rows or (done.held and not accept_loss) else 0)
