"""The docs site: its reference names all that there is, and its links keep their targets or become text."""

from collections.abc import Iterator

import click
import pytest
from mkdocs.structure.files import File, Files

from ctcore.cli import cli
from ctcore.config import editor_schema
from ctcore.terminal.examples import EXAMPLES
from tools import reference, site


def options(command: click.Command, context: click.Context) -> Iterator[tuple[str, str]]:
    path = context.command_path
    yield from ((path, name) for one in command.params if isinstance(one, click.Option) for name in one.opts)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from options(inner, click.Context(inner, info_name=name, parent=context))


def test_the_command_page_has_every_command_and_option() -> None:
    parts = dict(part.split("\n", 1) for part in reference.commands_page().split("\n### ")[1:])
    found = [(path, name) for path, name in options(cli, click.Context(cli, info_name="ct")) if path != "ct"]
    assert len(found) > 150
    assert [one for one in found if one[1].replace("_", "&#95;") not in parts[one[0]]] == []
    assert [path for path, lines in EXAMPLES.items() if not all(line in parts[f"ct {path}"] for line in lines)] == []


def test_the_page_of_ct_toml_has_every_key_and_its_description() -> None:
    page = reference.settings_page()
    for name, table in editor_schema.schema()["properties"].items():
        assert f"## {name}\n\n{table['description']}" in page
    for key, said in (("run&#93; workers", "worker"), ("slurm.NAME&#93; tries", "Tries"), ("project&#93; id", "Never")):
        row = next(line for line in page.splitlines() if f"[{key}".replace("[", "&#91;") in line)
        assert said in row
    assert page.count("&#91;slurm.NAME&#93;") == len(
        editor_schema.schema()["properties"]["slurm"]["additionalProperties"]["properties"]
    )


@pytest.mark.parametrize(
    ("link", "shown"),
    [
        ("[a](docs/idea.md#x)", "[a](idea.md#x)"),
        ("![a](docs/pictures/matrix.svg)", "![a](pictures/matrix.svg)"),
        ("[a](CONTRIBUTING.md)", "[a](contributing.md)"),
        ("[a](docs/decisions/)", "[a](decisions/README.md)"),
        ("[a](examples/three_people)", "[a](three-people.md)"),
        ("[a](#here) [b](https://example.org)", "[a](#here) [b](https://example.org)"),
        ("[a](tests/conftest.py)", "a"),
    ],
)
def test_a_link_of_the_readme_keeps_its_target_or_is_text(link: str, shown: str) -> None:
    names = ("idea.md", "pictures/matrix.svg", "contributing.md", "decisions/README.md", "three-people.md")
    files = Files([File(name, "docs", "site", False) for name in names])
    assert site._linked(link, "README.md", "index.md", files) == shown


def test_a_list_below_a_line_of_text_is_a_list_on_the_site() -> None:
    text = "text\n- one\n- two\n  of it\n- three\n\n| a |\n|---|\nmore\n| b |\n"
    assert site._BEGINS.sub(r"\g<before>\n\n", text) == text.replace("text\n-", "text\n\n-").replace(
        "more\n|", "more\n\n|"
    )
