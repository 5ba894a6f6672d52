"""What `--help` says: whole sentences, and lines to copy that work."""

import shlex
from collections.abc import Iterator

import click

from ctcore.cli import cli
from ctcore.terminal.examples import EXAMPLES
from tests.helpers.shell import ct


def _leaves(command: click.Command, name: str = "") -> Iterator[tuple[str, click.Command]]:
    if not isinstance(command, click.Group):
        yield name, command
        return
    context = click.Context(command)
    for verb in command.list_commands(context):
        found = command.get_command(context, verb)
        assert found is not None
        yield from _leaves(found, f"{name} {verb}".strip())


def test_every_command_has_examples_that_its_own_parser_takes() -> None:
    leaves = dict(_leaves(cli))
    assert set(leaves) == set(EXAMPLES)
    for name, lines in EXAMPLES.items():
        for line in lines:
            ct_, *words = shlex.split(line.partition(" > ")[0])
            given = words[len(name.split()) :]
            assert [ct_, *words[: len(name.split())]] == ["ct", *name.split()], line
            leaves[name].make_context(name, given)


def test_the_command_list_has_whole_first_sentences() -> None:
    said = ct("--help").out
    assert "..." not in said.partition("\n")[2] and all(f"\n  {leaf.split()[0]} " in said for leaf in EXAMPLES)
    words = " ".join(said.split())
    assert "Explain the state of a node (step/partition) in one sentence." in words
    assert "ct purge P1" in ct("purge", "--help").out and "..." not in ct("qc", "--help").out.partition("\n")[2]
