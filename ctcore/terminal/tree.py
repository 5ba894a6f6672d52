"""A trace as a tree on a terminal, and as indented text in a pipe. A part that was shown is referred to afterwards."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, get_args

import click

from ctcore.inputs.key import Edge
from ctcore.inputs.resolve import ROLE
from ctcore.lineage.attribution import NOTHING
from ctcore.lineage.trace import Kind, Trace
from ctcore.model.node import Node, name_of
from ctcore.model.reasons import MADE_ELSEWHERE, role_text, short_digest, version_text
from ctcore.terminal.render import is_terminal, size

FEW = 5  # so many of an input's many sources are shown
LONGEST = 200  # the reason for a making of a large cohort names all its members
DEEPEST = 40  # from here on, lines are numbered by depth instead of moved to the right


class Line(NamedTuple):
    depth: int
    text: str
    style: str = ""


def escape_unprintable(text: str) -> str:
    """Replace unprintable characters, which a file's name may contain, by their codes; line ends too."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape", "surrogatepass").decode() for one in text)


def first_sources(sources: Sequence[Edge], everything: bool) -> tuple[Sequence[Edge], int]:
    """The first few of many, and how many are left out."""
    if everything or len(sources) <= FEW + 1:
        return sources, 0
    return sources[:FEW], len(sources) - FEW


def by_input(edges: Iterable[Edge]) -> dict[str, list[Edge]]:
    found: dict[str, list[Edge]] = {}
    for used in edges:
        found.setdefault(used.input, []).append(used)
    return found


class Tree:
    """Lines of a trace, from the roots to the raw files."""

    def __init__(self, trace: Trace, everything: bool = False) -> None:
        self.trace, self.everything = trace, everything
        self.seen: set[int] = set()
        self.recipes: dict[int, Node] = {}

    def lines(self) -> Iterator[Line]:
        for node in self.trace.target.registered:
            yield from self._registered(node)
        roots = self.trace.roots
        few = roots if self.everything or len(roots) <= FEW + 1 else roots[:FEW]
        for root in few:
            yield from self._below(root)
        if len(roots) > len(few):
            yield Line(0, f"… and {len(roots) - len(few):,} more; --all shows them", "dim")

    def _below(self, root: int) -> Iterator[Line]:
        """Depth first, without recursion: a chain may be longer than Python's stack."""
        waiting: list[Line | tuple[int, int, str]] = [(0, root, "")]
        while waiting:
            one = waiting.pop()
            if isinstance(one, Line):
                yield one
                continue
            depth, number, label = one
            yield self._head(depth, number, label)
            if number not in self.seen:
                self.seen.add(number)
                waiting.extend(reversed(list(self._inside(depth + 1, number))))

    def _head(self, depth: int, number: int, label: str) -> Line:
        one = self.trace.lineage.makings[number]
        said = f"{label}{name_of(one.node)}  #{number}  {short_digest(one.data_version)}  {size(one.size)}"
        if number in self.seen:
            return Line(depth, f"{said}  (shown above)", "dim")
        state = self.trace.states.get(one.node, "")
        if number in self.trace.purged:
            said += f"  ({self.trace.purged[number]})"
        elif not one.current:
            said += "  (an earlier making)"
        elif state:
            said += f"  ({state} today: `ct why {name_of(one.node)}`)"
        return Line(depth, said, "bold" if not label else "")

    def _inside(self, depth: int, number: int) -> Iterator[Line | tuple[int, int, str]]:
        one = self.trace.lineage.makings[number]
        how = f"made {one.started_at} in {one.seconds:.1f} s"
        if one.reason.startswith(MADE_ELSEWHERE):
            how = f"adopted {one.started_at}"
        said = escape_unprintable(f"{how}: {one.reason}")
        yield Line(depth, said if len(said) <= LONGEST else f"{said[:LONGEST]}…", "dim")
        for told in self.trace.attributions.get(number, NOTHING).lines:
            yield Line(depth, escape_unprintable(told), "dim")
        yield from self._recipe(depth, number)
        if number in self.trace.logged:
            yield Line(depth, f"log: `ct logs {name_of(one.node)}@{number}`", "dim")
        if depth == 1:
            for made in self.trace.outputs.get(number, ()):
                yield Line(
                    depth,
                    f"file {escape_unprintable(made['file'])}  {short_digest(made['digest'])}  {size(made['size'])}",
                )
        for name, sources in by_input(self.trace.lineage.edges.get(number, ())).items():
            few, more = first_sources(sources, self.everything)
            for used in few:
                yield from self._source(depth, number, used)
            if more:
                yield Line(depth, f"{name}: … and {more:,} more; --all shows them", "dim")

    def _recipe(self, depth: int, number: int) -> Iterator[Line]:
        made = self.trace.lineage.makings[number]
        first = self.recipes.setdefault(made.recipe, made.node)
        if first != made.node:
            yield Line(depth, f"recipe as of {name_of(first)}", "dim")
            return
        done = self.trace.recipes[made.recipe]
        yield Line(depth, f"code {done['step']} {short_digest(done['code'])}")
        for name in ("parameters", "environment"):
            if done[name]:
                listed = ", ".join(f"{key} {version_text(str(value))}" for key, value in done[name].items())
                yield Line(depth, escape_unprintable(f"{name} {listed}"))

    def _source(self, depth: int, number: int, used: Edge) -> Iterator[Line | tuple[int, int, str]]:
        kind, name = self.trace.kind(number, used), name_of((used.asset, used.partition))
        now = self.trace.today(used)
        other = "" if now is None or now.version == used.version else f"  (today {version_text(now.version)})"
        if kind == "artifact":
            source = self.trace.lineage.source(number, used)
            assert source is not None
            yield (depth, source, f"{used.input}: ")
        elif kind == "unknown":
            said = f"{used.input}: {name}  {escape_unprintable(version_text(used.version))}  (unknown to the catalog)"
            yield Line(depth, said, "red")
        elif kind == "column":
            role = f": {escape_unprintable(role_text(used.version))}" if used.input.startswith(ROLE) else ""
            yield Line(depth, f"{used.input} of {used.partition}{role}")
        elif kind == "reference":
            yield Line(depth, f"{name}  {escape_unprintable(version_text(used.version))}  {self._where(used)}{other}")
        else:
            said = f"{used.input}: {name}  {short_digest(used.version)}  {self._where(used)}{other}"
            yield Line(depth, said + self._sheet((used.asset, used.partition)))

    def _where(self, used: Edge) -> str:
        now = self.trace.today(used)
        return escape_unprintable(now.path) if now else "(no such file today)"

    def _sheet(self, node: Node) -> str:
        known = self.trace.entities.get(node)
        return escape_unprintable(f"  from {known.sheet}") if known and known.sheet else ""

    def _registered(self, node: Node) -> Iterator[Line]:
        """The target may itself be an entity or a reference: show its origin and its parents."""
        yield Line(0, name_of(node), "bold")
        known = self.trace.entities.get(node)
        if known and known.sheet:
            yield Line(1, escape_unprintable(f"sheet {known.sheet}, registered {known.at} by {known.actor}"))
        if known and known.parent:
            yield Line(1, f"belongs to {name_of(known.parent)}")
        for (asset, partition, role), one in self.trace.files.items():
            if (asset, partition) == node:
                version = version_text(one.version) if asset == "reference" else short_digest(one.digest)
                yield Line(1, f"{role or 'file'} {escape_unprintable(one.path)}  {version}  {size(one.size)}")


def summary(trace: Trace) -> str:
    """`1 joined, 50,000 merged, 100,000 files, 1 reference`."""
    counts = trace.summary()
    leaves = {f"{kind}s" for kind in get_args(Kind)}
    named = {name: name[:-1] if number == 1 and name in leaves else name for name, number in counts.items()}
    return ", ".join(f"{number:,} {named[name]}" for name, number in counts.items())


def draw(trace: Trace, everything: bool) -> None:
    """Print the tree."""
    lines = Tree(trace, everything).lines()
    if not is_terminal(sys.stdout):
        for line in lines:
            click.echo(_indented(line))
    else:
        _draw(lines)


def _indented(line: Line) -> str:
    deep = f"[{line.depth}] " if line.depth > DEEPEST else ""
    return "  " * min(line.depth, DEEPEST) + deep + line.text


def _draw(lines: Iterable[Line]) -> None:
    from rich.console import Console
    from rich.text import Text
    from rich.tree import Tree as Drawn

    console = Console()
    top: list[Drawn] = []
    for line in lines:
        text = Text((f"[{line.depth}] " if line.depth > DEEPEST else "") + line.text, style=line.style)
        depth = min(line.depth, DEEPEST)
        if depth == 0:
            for one in top[:1]:
                console.print(one)
            top = [Drawn(text, guide_style="dim")]
            continue
        del top[depth:]
        top.append(top[-1].add(text))
    for one in top[:1]:
        console.print(one)
