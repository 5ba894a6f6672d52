"""③ What a step's code is: the digest of everything its function can reach in the step files, without comments.

Followed: names of the same file, and of sibling files through `from .other import name`. A comment, a docstring,
a blank line or the order of definitions is not code. Libraries count as environment, by their versions.
"""

import ast
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from ctcore.digest import digest_value
from ctcore.errors import StepError
from ctcore.step import Step

_FOLLOWED = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


@dataclass(frozen=True)
class Code:
    """A step's code: its digest, and the versions of what it imports (`python` among them)."""

    digest: str
    environment: Mapping[str, str]


def code_of(step: Step) -> Code:
    """Read the step's file and follow what its function uses."""
    reach = _Reach()
    reach.follow(step.source, step.function.__name__)
    if step.params is not None:
        reach.follow(step.source, step.params.__name__, behaviour_only=True)
    declaration = {
        "level": step.level,
        "inputs": dict(step.inputs),
        "files": list(step.files),
        "references": list(step.references),
        "columns": list(step.columns),
        "outputs": {name: output.file for name, output in step.outputs.items()},
        **({} if step.role is None else {"role": step.role}),
    }
    digest = digest_value("ct.code.v1", {"declaration": declaration, "source": sorted(reach.sources)})
    return Code(digest, {"python": ".".join(map(str, sys.version_info[:2])), **_versions(reach.modules)})


@dataclass
class _Reach:
    """Collects the normalized source of each definition that is used, once."""

    sources: set[str] = field(default_factory=set)
    modules: set[str] = field(default_factory=set)
    _seen: set[tuple[Path, str]] = field(default_factory=set)

    def follow(self, path: Path, name: str, behaviour_only: bool = False) -> None:
        if (path, name) in self._seen:
            return
        self._seen.add((path, name))
        for node in _definitions(path).get(name, ()):
            if isinstance(node, ast.ImportFrom) and node.level == 1:
                self._sibling(path, node)
                continue
            bare = _normalized(node, behaviour_only)
            self.sources.add(f"{name}\n{ast.unparse(bare)}")
            for used in _names(bare):
                self.follow(path, used)
            self._imports(path, bare)

    def _imports(self, path: Path, node: ast.AST) -> None:
        for inner in ast.walk(node):
            if isinstance(inner, ast.Import):
                self.modules.update(alias.name.partition(".")[0] for alias in inner.names)
            elif isinstance(inner, ast.ImportFrom):
                if inner.level == 1:
                    self._sibling(path, inner)
                elif inner.module:
                    self.modules.add(inner.module.partition(".")[0])

    def _sibling(self, path: Path, node: ast.ImportFrom) -> None:
        """A file beside this one: `from .other import name`, or the whole of it (`from . import other`)."""
        if node.module:
            other = path.parent / (node.module.replace(".", "/") + ".py")
            for alias in node.names:
                self.follow(other, alias.name)
            return
        for alias in node.names:
            other = path.parent / f"{alias.name}.py"
            for name in _definitions(other):
                self.follow(other, name)


@cache
def _parse(path: Path, _mtime_ns: int) -> ast.Module:
    try:
        return ast.parse(path.read_bytes())
    except SyntaxError as error:
        raise StepError(f"{path} line {error.lineno}: {error.msg}") from error


def _definitions(path: Path) -> dict[str, list[ast.stmt]]:
    """The top-level statements of a file by the names that they bind."""
    try:
        tree = _parse(path, path.stat().st_mtime_ns)
    except OSError as error:
        raise StepError(f"{path} cannot be read: {error.strerror}") from error
    found: dict[str, list[ast.stmt]] = {}
    for statement in tree.body:
        for name in _bound(statement):
            found.setdefault(name, []).append(statement)
    return found


def _bound(statement: ast.stmt) -> Iterator[str]:
    if isinstance(statement, _FOLLOWED):
        yield statement.name
    elif isinstance(statement, ast.Import | ast.ImportFrom):
        for alias in statement.names:
            yield alias.asname or alias.name.partition(".")[0]
    else:
        for node in ast.walk(statement):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                yield node.id


def _normalized(node: ast.stmt, behaviour_only: bool) -> ast.stmt:
    """A copy without docstrings; of a step without its declaration; of a params class without its values."""
    copy = ast.parse(ast.unparse(node)).body[0]
    for inner in ast.walk(copy):
        if isinstance(inner, _FOLLOWED) and _has_docstring(inner):
            inner.body = inner.body[1:] or [ast.Pass()]
    if isinstance(copy, ast.FunctionDef):
        copy.decorator_list = [d for d in copy.decorator_list if not _is_declaration(d)]
    if isinstance(copy, ast.ClassDef) and behaviour_only:
        copy.body = [s for s in copy.body if not isinstance(s, ast.AnnAssign)] or [ast.Pass()]
    return copy


def _has_docstring(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> bool:
    first = node.body[0]
    return isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)


def _is_declaration(decorator: ast.expr) -> bool:
    call = decorator.func if isinstance(decorator, ast.Call) else decorator
    return (isinstance(call, ast.Name) and call.id == "step") or (
        isinstance(call, ast.Attribute) and call.attr == "step"
    )


def _names(node: ast.AST) -> set[str]:
    return {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)}


def _versions(modules: set[str]) -> dict[str, str]:
    """The installed versions of the distributions that provide these modules."""
    outside = {name for name in modules if name not in sys.stdlib_module_names and name != "ctcore"}
    return {name: version for name in sorted(outside) if (version := _version(name))}


@cache
def _version(module: str) -> str:
    from importlib import metadata

    try:
        return metadata.version(module)
    except metadata.PackageNotFoundError:
        names = metadata.packages_distributions().get(module, ())
        return " ".join(f"{name} {metadata.version(name)}" for name in sorted(set(names))) or "not installed"
