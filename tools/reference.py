"""The reference pages of the docs site, made from the code: the commands, ct.toml, and what a step's file imports."""

import html
from collections.abc import Iterator
from typing import Any

import click

from ctcore.cli import _SECTIONS, cli
from ctcore.config import editor_schema
from ctcore.terminal.examples import EXAMPLES

Schema = dict[str, Any]

COMMANDS_HEAD = """# Commands
Every command with its options, as `ct COMMAND --help` shows them. `ct -C DIR COMMAND` works on the project in `DIR`;
without it, on the project of the current directory or of one above.
"""

SETTINGS_HEAD = """# ct.toml
Every key, from the schema that editors use ([ct.schema.json](../ct.schema.json), `ct schema editor`). An unknown key is
an error. `NAME` stands for a name of your choice. [operations.md](../operations.md#cttoml) says more of some keys.
"""

STEPS_HEAD = """# What a step's file imports
[steps.md](../steps.md) explains how to write a step. A step's file imports `ctcore.step` and `ctcore.contract`.
"""
STEP_NAMES = ("step.step", "step.Call", "step.Source", "step.Output", "step.Resources", "model.column.Column")
CONTRACT_NAMES = ("contract.NotEmpty", "contract.Table", "contract.Json", "step.Contract")


def commands_page() -> str:
    """`ct`, section by section, in Markdown."""
    root = click.Context(cli, info_name="ct")
    lines = [COMMANDS_HEAD]
    for section, names in _SECTIONS.items():
        lines += [f"## {section}", ""]
        for name in names:
            command = cli.get_command(root, name)
            assert command is not None, name
            lines += _command(command, click.Context(command, info_name=name, parent=root))
    return "\n".join(lines)


def _command(command: click.Command, context: click.Context) -> Iterator[str]:
    path = context.command_path.removeprefix("ct ")
    yield from (f"### ct {path}", "")
    yield from ("```", " ".join([context.command_path, *command.collect_usage_pieces(context)]), "```", "")
    yield from (_prose(command.help or ""), "")
    options = [one.get_help_record(context) for one in command.params if isinstance(one, click.Option)]
    rows = [f"| {_code(found[0])} | {_cell(found[1])} |" for found in options if found is not None]
    if rows:
        yield from ("| option | |", "|---|---|", *rows, "")
    if listed := EXAMPLES.get(path):
        yield from ("```", *listed, "```", "")
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None, name
            yield from _command(inner, click.Context(inner, info_name=name, parent=context))


def settings_page() -> str:
    """ct.toml, table by table, in Markdown."""
    lines = [SETTINGS_HEAD]
    for name, table in editor_schema.schema()["properties"].items():
        lines += [f"## {name}", "", *_table(name, table)]
    return "\n".join(lines)


def _table(path: str, table: Schema) -> Iterator[str]:
    """A table of ct.toml, and those below it."""
    inner = table.get("additionalProperties")
    if isinstance(inner, dict):
        own = _as_table(inner)
        yield from (table.get("description", ""), "")
        if own is None:
            yield from ("| key | value |", "|---|---|", f"| {_code(f'[{path}] NAME')} | {_type(inner)} |", "")
        else:
            yield from _table(f"{path}.NAME", own)
        return
    keys = table.get("properties", {})
    deeper = {name: one for name, one in keys.items() if _is_table(one)}
    plain = {name: one for name, one in keys.items() if name not in deeper}
    yield from (table.get("description", ""), "")
    if plain:
        needed = {*table.get("required", ())}
        yield from ("| key | value | default | |", "|---|---|---|---|")
        yield from (_row(path, name, one, name in needed) for name, one in plain.items())
        yield ""
    for name, one in deeper.items():
        yield from (f"### [{path}.{name}]", "")
        yield from _table(f"{path}.{name}", one)


def _row(path: str, name: str, one: Schema, needed: bool) -> str:
    default = _code(_toml(one["default"])) if "default" in one else "required" if needed else ""
    return f"| {_code(f'[{path}] {name}')} | {_type(one)} | {default} | {_cell(one.get('description', ''))} |"


def _is_table(one: Schema) -> bool:
    return one.get("type") == "object"


def _as_table(one: Schema) -> Schema | None:
    """The table that a value is, or may be instead of a short form."""
    if "anyOf" in one:
        return next((way for way in one["anyOf"] if _is_table(way)), None)
    return one if _is_table(one) and "properties" in one else None


def _type(one: Schema) -> str:
    """What may stand there, in a few words."""
    if "enum" in one:
        return ", ".join(_code(_toml(value)) for value in one["enum"])
    if "anyOf" in one:
        return " or ".join(dict.fromkeys(_type(way) for way in one["anyOf"]))
    if "not" in one and "type" not in one:
        return "one value: a text, a number, true or false, a date"
    kind = one["type"]
    if isinstance(kind, list):
        return " or ".join(_WORDS[each] for each in kind)
    if kind == "array":
        return f"a list: {_type(one['items'])}"
    low = one.get("minimum")
    return _WORDS[kind] + (f", {low:g} or more" if low is not None else "")


_WORDS = {
    "string": "a text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "`true` or `false`",
    "object": "a table",
}


def _toml(value: object) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(_toml(one) for one in value) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)


def steps_page() -> str:
    """Directives for mkdocstrings, which reads signatures and docstrings."""
    lines = [STEPS_HEAD, "## Declaring and running", ""]
    lines += [f"::: ctcore.{name}\n" for name in STEP_NAMES]
    lines += ["## Contracts of outputs", "", *(f"::: ctcore.{name}\n" for name in CONTRACT_NAMES)]
    lines += ["## Errors", "", "::: ctcore.errors\n    options:\n      show_root_heading: false\n"]
    return "\n".join(lines)


def _prose(text: str) -> str:
    return "\n".join(line.strip() for line in text.replace("\b", "").splitlines())


def _cell(text: str) -> str:
    return html.escape(text, quote=False).replace("|", "&#124;")


def _code(text: str) -> str:
    """Code in a cell. Between backticks a bar would end the cell, and brackets would be a link."""
    shown = _cell(text)
    for sign in "[]*_`":
        shown = shown.replace(sign, f"&#{ord(sign)};")
    return f"<code>{shown}</code>"
