"""How far a reader walks through `ctcore` to follow one thing: places visited, and changes of place.

    python -m tools.walks [--core FOLDER] ENTRY…       ENTRY: intake.register:register

From a function, every call of a function or class of `ctcore` that can be read off the code is followed, each once. A
place is a package of `ctcore`, or a module at its root. Methods are followed where the object is `self`; what is passed
as a value is not.
"""

import argparse
import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parents[1] / "ctcore"
WALKS = {
    "sheet → catalog": ("intake.register:register", "register:register"),
    "assay → verdict": ("staleness.verdicts:evaluate", "staleness:evaluate"),
    "a call": ("execution.call:run_calls", "execute:run_calls"),
    "a Slurm job": ("execution.slurm.runner:_Flight", "slurm.runner:_Flight"),
    "a revocation": ("governance.consent:set_consent", "consent:set_consent"),
}
"""What is followed: where it begins today, and where it began before the rooms (decision 0023)."""


@dataclass
class Module:
    """A file: its functions and classes by name, and what its imports bind: (module, name or empty)."""

    name: str
    defined: dict[str, ast.AST] = field(default_factory=dict)
    bound: dict[str, tuple[str, str]] = field(default_factory=dict)


def modules(core: Path) -> dict[str, Module]:
    """Every file of the core by its dotted name, `ctcore` left out."""
    found: dict[str, Module] = {}
    for path in core.rglob("*.py"):
        name = ".".join(path.relative_to(core).with_suffix("").parts).removesuffix(".__init__")
        found[name] = _read(name, ast.parse(path.read_text("utf-8")))
    return found


def _read(name: str, tree: ast.Module) -> Module:
    module = Module(name)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "ctcore":
            above = (node.module or "").partition(".")[2]
            module.bound |= {one.asname or one.name: (above, one.name) for one in node.names}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            module.defined[node.name] = node
            if isinstance(node, ast.ClassDef):
                own = (one for one in node.body if isinstance(one, ast.FunctionDef))
                module.defined |= {f"{node.name}.{one.name}": one for one in own}
    return module


class Reader:
    """Follows calls, each function once. `places` were met; `changes` says how often a call leads elsewhere."""

    def __init__(self, known: dict[str, Module]) -> None:
        self.known, self.seen = known, set[tuple[str, str]]()
        self.places: set[str] = set()
        self.changes = 0

    def follow(self, module: str, name: str) -> None:
        """Read a function, or all of a class, and all that it calls."""
        left = [(module, name)]
        while left:
            at = left.pop()
            if at in self.seen or at[1] not in self.known[at[0]].defined:
                continue
            self.seen.add(at)
            self.places.add(place(at[0]))
            for to in reversed(list(self._calls(*at))):
                self.changes += place(to[0]) != place(at[0]) and to not in self.seen
                left.append(to)

    def _calls(self, module: str, name: str) -> Iterator[tuple[str, str]]:
        here = self.known[module]
        for node in ast.walk(here.defined[name]):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
                yield from self._named(here, node.id)
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                owner, cls = node.value.id, name.partition(".")[0]
                if owner == "self" and f"{cls}.{node.attr}" in here.defined:
                    yield module, f"{cls}.{node.attr}"
                elif owner in here.bound:
                    above = ".".join(filter(None, here.bound[owner]))
                    if above in self.known:
                        yield above, node.attr

    def _named(self, here: Module, name: str) -> Iterator[tuple[str, str]]:
        if name in here.defined:
            yield here.name, name
        elif name in here.bound and here.bound[name][0] in self.known:
            yield here.bound[name]


def place(module: str) -> str:
    """The room of a module."""
    return module.partition(".")[0]


def walk(known: dict[str, Module], entry: str) -> tuple[int, int]:
    """(places visited, changes of place) from a function on. KeyError where there is no such module."""
    reader = Reader(known)
    module, _, name = entry.partition(":")
    reader.follow(module, name)
    return len(reader.places), reader.changes


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description="Places visited and changes of place, from a function on.")
    parser.add_argument("entry", nargs="*")
    parser.add_argument("--core", type=Path, default=HERE)
    said = parser.parse_args()
    known = modules(said.core)
    asked = {one: (one,) for one in said.entry} or WALKS
    for title, entries in asked.items():
        entry = next((one for one in entries if one.partition(":")[0] in known), entries[0])
        places, changes = walk(known, entry)
        print(f"{title:<16} {places:>3} places, {changes:>5} changes   ({entry})")


if __name__ == "__main__":
    main()
