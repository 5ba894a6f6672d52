"""The command line: a command a file, one renderer. Imports no Dagster, and heavy things only where they are used."""

import errno
import gc
import importlib
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import click

from ctcore.errors import CtError, Usage
from ctcore.terminal.closed_streams import open_closed_streams
from ctcore.terminal.place import Place
from ctcore.terminal.safe_text import escape_controls
from ctcore.util.disk_errors import deleted_directory, reason_of

_COMMANDS = (
    "init",
    "register",
    "schema",
    "status",
    "stale",
    "plan",
    "show",
    "why",
    "path",
    "accept",
    "trace",
    "impact",
    "diff",
    "cohort",
    "batches",
    "query",
    "export",
    "dashboard",
    "heatmap",
    "verify",
    "recover",
    "run",
    "dev",
    "jobs",
    "logs",
    "reference",
    "qc",
    "consent",
    "record",
    "adopt",
    "purge",
    "projects",
    "steps",
)
_SECTIONS = {
    "The cohort": ("init", "register", "schema", "reference", "cohort", "batches", "projects", "steps"),
    "What is true, and why": ("status", "stale", "why", "show", "path", "accept", "verify"),
    "What would run, and making it": ("plan", "run", "dev", "jobs", "logs"),
    "Where it came from": ("trace", "impact", "diff"),
    "People and results": ("qc", "consent", "purge", "record", "adopt"),
    "Reading": ("query", "export", "dashboard", "heatmap"),
    "When something is lost": ("recover",),
}
_ELSEWHERE = ("init", "projects")  # what they are about is their argument
WHOLE = 1000  # letters of a first sentence: it is never cut off


class _Lazy(click.Group):
    """Loads a command's module when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        name = f"{__name__}.{cmd_name}"
        if name not in sys.modules:
            with _quickly():
                importlib.import_module(name)
        command = getattr(sys.modules[name], cmd_name)
        _explain(command, cmd_name)
        return command if cmd_name in _ELSEWHERE else _by_id(command)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """By what they are for, from the text of the commands' files: to name a command, nothing of it is imported."""
        said = dict(_docstrings())
        for title, names in _SECTIONS.items():
            stubs = [click.Command(name, help=said[name]) for name in names]
            with formatter.section(title):
                formatter.write_dl([(one.name or "", one.get_short_help_str(WHOLE)) for one in stubs])

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        import difflib

        if args and args[0] not in _COMMANDS:
            near = difflib.get_close_matches(args[0], _COMMANDS, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"commands: {', '.join(_COMMANDS)}"
            ctx.fail(f"no command {args[0]!r}; {hint}")
        return super().resolve_command(ctx, args)


def _docstrings() -> Iterator[tuple[str, str | None]]:
    """What each command says of itself."""
    import ast
    from pathlib import Path

    here = Path(__file__)
    for name in _COMMANDS:
        tree = ast.parse(here.with_name(f"{name}.py").read_text("utf-8"))
        said = (ast.get_docstring(n) for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == name)
        yield name, next(said, None)


@contextmanager
def _quickly() -> Iterator[None]:
    """A third of the time that imports take: no garbage is looked for, also not later in what stays until the end,
    and numpy starts no thread a core.

    ct multiplies no matrices. The variable is taken back, because the steps of a run inherit the environment.
    """
    was_on, name = gc.isenabled(), "OPENBLAS_NUM_THREADS"
    is_mine = name not in os.environ
    os.environ.setdefault(name, "1")
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_on:
            gc.enable()
        if is_mine:
            del os.environ[name]


def _version(ctx: click.Context, _option: click.Parameter, wanted: bool) -> None:
    if not wanted:
        return
    from importlib import metadata

    try:
        said = metadata.version("ct-cohort")
    except metadata.PackageNotFoundError:
        said = "of a checkout that is not installed"
    click.echo(f"ct {said}")
    ctx.exit()


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "-C", "directory", metavar="DIR", type=Place(), help="The project directory (default: this one or a parent)."
)
@click.option("--project", metavar="ID", help="The project's ID, from any directory; also allowed after the command.")
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version.")
@click.pass_context
def cli(ctx: click.Context, directory: str | None, project: str | None) -> None:
    """Track the results of a cohort: which are complete, usable and still true; and remake those that are not."""
    ctx.obj = directory
    _choose(ctx, None, project)


def _choose(ctx: click.Context, _option: click.Parameter | None, project_id: str | None) -> None:
    """The folder of a project by its ID, as if it had been said with -C."""
    if project_id is None:
        return
    from ctcore.config.address_book import folder_of

    root, folder = ctx.find_root(), str(folder_of(project_id))
    if root.obj not in (None, folder):
        raise Usage(f"-C {root.obj} and --project {project_id}: name one project")
    at: click.Context | None = ctx
    while at is not None:
        at.obj, at = folder, at.parent


def _explain(command: click.Command, name: str) -> None:
    """In a list, its whole first sentence; in its own help, lines to copy."""
    from ctcore.terminal.examples import EXAMPLES

    command.short_help = command.get_short_help_str(WHOLE)
    if name in EXAMPLES:
        command.epilog = "\b\n" + "\n".join(("Examples:", *(f"  {line}" for line in EXAMPLES[name])))
    for verb, one in command.commands.items() if isinstance(command, click.Group) else ():
        _explain(one, f"{name} {verb}")


def _by_id(command: click.Command) -> click.Command:
    """Let a command, and those beneath it, take --project ID too."""
    for one in command.commands.values() if isinstance(command, click.Group) else ():
        _by_id(one)
    if "--project" not in {name for parameter in command.params for name in parameter.opts}:
        said = "The project, by its ID."
        option = click.Option(["--project"], metavar="ID", expose_value=False, callback=_choose, help=said)
        command.params.append(option)
    return command


def main() -> None:
    """The shell's edge: errors become one message and an exit code."""
    open_closed_streams()
    try:
        sys.exit(cli(prog_name="ct", standalone_mode=False))
    except CtError as error:
        click.echo(f"ct: {escape_controls(_with_directory(str(error)))}", err=True)
        sys.exit(error.exit_code)
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except click.ClickException as error:
        said = io.StringIO()
        error.show(said)
        click.echo(escape_controls(said.getvalue()), nl=False, err=True)
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("ct: interrupted", err=True)
        # Where Ctrl-C ends an `exec` of text (an import makes a dataclass), CPython notes it as unhandled, and in the
        # end kills itself by SIGINT in spite of the exit code. Each `exec` of text begins by forgetting that
        # (run_eval_code_obj in Python/pythonrun.c).
        exec("")
        sys.exit(130)
    except UnicodeEncodeError as error:  # what the shell gave as other bytes, where only text can be meant
        click.echo(f"ct: {error.object[:80]!a} is not UTF-8; write it in UTF-8", err=True)
        sys.exit(2)
    except OverflowError as error:  # SQLite's whole numbers have 64 bits
        if "SQLite" not in str(error):
            raise
        click.echo("ct: a number is larger than any in the catalog; check the numbers of the command", err=True)
        sys.exit(2)
    except RuntimeError as error:  # of `pathlib`, until Python 3.13
        place = str(error).partition("Symlink loop from ")[2].strip("'")
        if not place:
            raise
        click.echo(f"ct: {escape_controls(place)}: a link that leads to itself", err=True)
        sys.exit(1)
    except OSError as error:  # a full disk, say, wherever it is met; a closed pipe is click's to handle
        place = f"{error.filename}: " if error.filename else ""
        click.echo(escape_controls(f"ct: {_with_directory(place + reason_of(error))}"), err=True)
        _drop_output()
        sys.exit(1)


def _with_directory(said: str) -> str:
    """An error, and where something is missing, that the current directory is: each relative path leads nowhere."""
    if not any(sign in said.lower() for sign in ("no such file", "not a directory")):
        return said
    gone = deleted_directory()
    if gone is None:
        return said
    return gone if said == os.strerror(errno.ENOENT) else f"{said}; {gone}"


def _drop_output() -> None:
    """What could not be written is not tried again at the end, where it would be a traceback."""
    with suppress(OSError), open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
