"""A trace as a graph for documents, in Mermaid and in DOT. Boxes have numbers for names: no text has to be safe."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from ctcore.inputs.key import Edge
from ctcore.lineage.trace import Trace
from ctcore.model.node import name_of
from ctcore.model.reasons import short_digest, version_text
from ctcore.terminal.tree import by_input, escape_unprintable, first_sources


class Box(NamedTuple):
    name: str
    lines: tuple[str, ...]
    kind: str


class Arrow(NamedTuple):
    source: str
    into: str
    label: str


def boxes(trace: Trace, everything: bool = False) -> tuple[list[Box], list[Arrow]]:
    """Makings nearest first, with their leaves; of an input's many sources the first few, and a box for the rest."""
    found: dict[str, Box] = {}
    arrows: list[Arrow] = []
    waiting = dict.fromkeys(trace.roots)
    listed = list(waiting)
    for number in listed:
        made = trace.lineage.makings[number]
        found[f"m{number}"] = Box(f"m{number}", (name_of(made.node), short_digest(made.data_version)), "artifact")
        for name, sources in by_input(trace.lineage.edges.get(number, ())).items():
            few, more = first_sources(sources, everything)
            for used in few:
                source = trace.lineage.source(number, used)
                if source is not None and source not in waiting:
                    waiting[source] = None
                    listed.append(source)
                box = _leaf(trace, number, used, found) if source is None else f"m{source}"
                arrows.append(Arrow(box, f"m{number}", name))
            if more:
                rest = f"r{len(found)}"
                found[rest] = Box(rest, (f"… and {more:,} more",), "more")
                arrows.append(Arrow(rest, f"m{number}", name))
    for node in trace.target.registered:
        found[name_of(node)] = Box(f"e{len(found)}", (name_of(node),), "file")
    return list(found.values()), arrows


def _leaf(trace: Trace, consumer: int, used: Edge, found: dict[str, Box]) -> str:
    """A raw file, reference, column or unknown source: one box for each content, however often it was used."""
    kind = trace.kind(consumer, used)
    key = f"{used.asset}/{used.partition}/{'' if kind == 'reference' else used.input}/{used.version}"
    if key not in found:
        now = trace.today(used)
        lines = [name_of((used.asset, used.partition)) + (f" {used.input}" if kind == "column" else "")]
        if kind != "column":  # a column's value is a person's data
            lines.append(version_text(used.version))
        if now is not None and now.version == used.version:
            lines.append(now.path)
        if kind == "unknown":
            lines.append("unknown to the catalog")
        found[key] = Box(f"x{len(found)}", tuple(lines), kind)
    return found[key].name


_SHAPES = {"artifact": "box", "file": "note", "reference": "cylinder", "column": "plain", "unknown": "octagon"}
_BRACKETS = {"artifact": "[]", "file": "()", "reference": "[]", "column": "()", "unknown": "[]", "more": "()"}


def dot(trace: Trace, everything: bool = False) -> str:
    """The graph for `dot -Tsvg`."""
    found, arrows = boxes(trace, everything)
    return "\n".join(_dot_lines(found, arrows))


def _dot_lines(found: Iterable[Box], arrows: Iterable[Arrow]) -> Iterator[str]:
    yield "digraph lineage {"
    yield "  rankdir=LR;"
    for box in found:
        label = "\\n".join(_quoted(line) for line in box.lines)
        yield f'  {box.name} [shape={_SHAPES.get(box.kind, "plaintext")}, label="{label}"];'
    for arrow in arrows:
        yield f'  {arrow.source} -> {arrow.into} [label="{_quoted(arrow.label)}"];'
    yield "}"


def _quoted(text: str) -> str:
    return escape_unprintable(text).replace("\\", "\\\\").replace('"', '\\"')


def mermaid(trace: Trace, everything: bool = False) -> str:
    """The graph as a flowchart that Markdown pages draw."""
    found, arrows = boxes(trace, everything)
    lines = ["flowchart LR"]
    for box in found:
        left, right = _BRACKETS.get(box.kind, "[]")
        label = "<br/>".join(escape_text(line) for line in box.lines)
        lines.append(f'  {box.name}{left}"{label}"{right}')
    lines += [f'  {arrow.source} -->|"{escape_text(arrow.label)}"| {arrow.into}' for arrow in arrows]
    return "\n".join(lines)


def escape_text(text: str) -> str:
    """Everything that is not plainly a letter, digit or sign of names, by its number: Mermaid knows `#35;`."""
    return "".join(one if one.isalnum() or one in " ._-/…," else f"#{ord(one)};" for one in escape_unprintable(text))
