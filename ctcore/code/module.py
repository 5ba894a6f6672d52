"""One module as code: its statements without comments and docstrings, its names, and what each name uses."""

import ast
import re
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from itertools import groupby

from ctcore.code.effects import BUILTINS, Plain, is_own, is_step, is_text
from ctcore.errors import StepError

_BLOCKS = (ast.stmt, ast.ExceptHandler, ast.match_case)
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_UNSEEN_NAMES = frozenset({"__builtins__", "__import__", "compile", "eval", "exec", "globals"})
_UNSEEN_ATTRIBUTES = frozenset({"__globals__", "__subclasses__", "_getframe", "f_globals"})
_UNSEEN_OF_SYS = frozenset({"_getframe", "meta_path", "modules", "path", "path_hooks"})
_DUNDER = re.compile(r"__\w+?__")
_UNSEEN_LIBRARIES = frozenset({"builtins", "gc", "importlib", "inspect", "pkgutil", "runpy"})
_SEEN = ("importlib.metadata", "importlib.resources")
# As `ast.unparse` writes it, however it was typed.
_MAIN = ("__name__ == '__main__'",)
_PLACES = frozenset({"__file__", "__loader__", "__path__", "__spec__", "co_filename"})


@dataclass(frozen=True)
class ImportedName:
    """A name that an import binds. `level` 0 is a library; `name` None: the module itself; "*": all its names."""

    local: str
    level: int
    module: str
    name: str | None
    line: int

    @property
    def text(self) -> str:
        """The binding, independent of how the statement was written."""
        what = "." * self.level + self.module + (f":{self.name}" if self.name else "")
        return f"{self.local} = {what}"

    @property
    def library(self) -> str | None:
        return None if self.level else self.module.partition(".")[0]

    @property
    def origin(self) -> str | None:
        """The dotted name that the local name stands for; None for a sibling."""
        if self.level:
            return None
        return self.module if self.name is None else f"{self.module}.{self.name}"


@dataclass(frozen=True)
class Definition:
    """Normalized code, and what it uses: names, attributes of names, imports inside functions.

    `unseen`: lines that cannot be followed. `places`: lines that ask for the file's own path.
    """

    text: str
    names: frozenset[str]
    attributes: Mapping[str, frozenset[str]]
    imports: tuple[ImportedName, ...]
    unseen: tuple[tuple[int, str], ...]
    places: tuple[int, ...]
    reads_docs: bool

    def uses(self, name: str) -> bool:
        return name in self.names or name in self.attributes


@lru_cache(maxsize=4096)
def module_of(source: bytes, place: str, docs: bool = False, script: bool = False) -> "Module":
    """The module of these bytes. `docs`: docstrings count, because some code reads them. `script`: code under
    `__main__` counts too. StepError names the line."""
    try:
        return Module(ast.parse(source), docs, script)
    except SyntaxError as error:
        raise StepError(f"{place} line {error.lineno}: {error.msg}") from error


class Module:
    """The parsed content of a file. Nothing is run."""

    def __init__(self, tree: ast.Module, docs: bool, script: bool) -> None:
        self.has_docs = docs
        never = (*(() if script else _MAIN), *_type_checking(tree))
        self.statements = [one for one in _executed(tree.body, never) if docs or not is_text(one)]
        self.executed = [one for statement in self.statements for one in _imports_at_load(statement)]
        self.origins = {one.local: one.origin for one in self.executed if one.origin is not None}
        self.origins |= {one.local: one.local for one in self.executed if _is_package(one)}
        self.bound: dict[str, list[ast.stmt]] = {}
        for statement in self.statements:
            for name in _bound(statement) if not is_text(statement) else ("__doc__",):
                self.bound.setdefault(name, []).append(statement)
        self.lines = {name: _span(statements) for name, statements in self.bound.items()}
        siblings = frozenset(one.local for one in self.executed if one.level)
        self._judge = Plain(self.origins, frozenset(self._records()), siblings)
        self.effects: tuple[tuple[int, str], ...] = tuple(self._effects())
        self.used_at_all = _Uses.of(self.statements)
        # Last, as it changes the tree: effects and uses are those of the code as it stands.
        for statement in self.statements:
            self._normalize(statement)

    def _effects(self) -> Iterator[tuple[int, str]]:
        for statement in self.statements:
            yield from self._judge.effects(statement)
        for name, statements in self.bound.items():
            if name in BUILTINS:
                yield statements[0].lineno, f"{name} hides what Python calls so"
            if len(statements) > 1 and name != "__doc__" and not self._is_one_package(name):
                yield statements[1].lineno, f"{name} is bound a second time"

    def _is_one_package(self, name: str) -> bool:
        """`import a.b` and `import a.c` bind the same a."""
        mine = {(one.name, one.origin and one.origin.partition(".")[0]) for one in self.imports(name)}
        only = all(isinstance(one, ast.Import) for one in self.bound[name])
        return only and len(mine) == 1 and mine == {(None, name)}

    def _records(self) -> Iterator[str]:
        """Classes whose creation runs no code of their own: named tuples and dataclasses without hooks."""
        hooks = {"__init__", "__new__", "__post_init__", "__set__", "__setattr__"}
        for node in self.statements:
            if not isinstance(node, ast.ClassDef) or node.keywords:
                continue
            bases = [self.origins.get(base.id) for base in node.bases if isinstance(base, ast.Name)]
            defined = {inner.name for inner in node.body if isinstance(inner, ast.FunctionDef)}
            simple = len(bases) == len(node.bases) and set(bases) <= {"typing.NamedTuple"}
            if simple and not defined & hooks and "default_factory" not in ast.unparse(node):
                yield node.name

    @cached_property
    def bases(self) -> tuple[tuple[int, str, str], ...]:
        """Line, class and name of each base that is a plain name or an attribute of one."""
        found = []
        for statement in self.statements:
            for node in ast.walk(statement):
                if isinstance(node, ast.ClassDef):
                    named = [_root(base) for base in node.bases]
                    found += [(node.lineno, node.name, name) for name in named if name is not None]
        return tuple(found)

    @cached_property
    def aside(self) -> tuple[ImportedName, ...]:
        """Libraries imported for their side effects (plugins, accessors): none of their names is used."""
        found = []
        for statement in self.statements:
            mine = [one for one in _imports_at_load(statement) if one.library and not is_own(one.library)]
            if mine and not any(self.used_at_all.uses(one.local) for one in mine):
                found += mine
        return tuple(found)

    def imports(self, name: str) -> list[ImportedName]:
        """The imports at the top that bind this name."""
        return [one for one in self.executed if one.local == name]

    def definition(self, name: str, behaviour_only: frozenset[str] = frozenset()) -> Definition:
        """The statements that bind a name, in their order; of a class without the values of these fields."""
        key = (name, behaviour_only)
        if key not in self._definitions:
            nodes = [_without_values(node, behaviour_only) for node in self.bound.get(name, ()) if not _is_import(node)]
            self._definitions[key] = _defined(nodes)
        return self._definitions[key]

    @cached_property
    def _definitions(self) -> dict[tuple[str, frozenset[str]], Definition]:
        return {}

    @cached_property
    def whole(self) -> Definition:
        """All statements in order; of imports, only the bound and used names."""
        body = _defined([one for one in self.statements if not _is_import(one)])
        used = [one for one in self.executed if one.name == "*" or body.uses(one.local)]
        lines, pending = [], list[str]()
        for statement in self.statements:
            if _is_import(statement):
                mine = [one for one in _imports_at_load(statement) if one in used or one in self.aside]
                pending += [one.text for one in mine if not one.level]
                lines += [one.text for one in mine if one.level]  # their order counts
                continue
            lines += [*sorted(set(pending)), ast.unparse(statement)]
            pending = []
        lines += sorted(set(pending))
        return replace(body, text="\n".join(lines), imports=(*body.imports, *used, *self.aside))

    def _normalize(self, statement: ast.stmt) -> None:
        for node in ast.walk(statement):
            if isinstance(node, _DEFINITIONS):
                node.decorator_list = [one for one in node.decorator_list if not self._is_declaration(one)]
            if isinstance(node, ast.Call) and is_step(node, self.origins):
                node.keywords = [one for one in node.keywords if not self._judge.is_plain(one.value)]
            if not self.has_docs:
                _strip(node)

    def _is_declaration(self, node: ast.expr) -> bool:
        """Whether it is ct's decorator: its arguments count by value, unless evaluating them runs code."""
        if not is_step(node, self.origins):
            return False
        return not isinstance(node, ast.Call) or all(self._judge.is_plain(keyword.value) for keyword in node.keywords)


def _defined(nodes: Iterable[ast.stmt]) -> Definition:
    listed = list(nodes)
    return _Uses.of(listed, "\n".join(ast.unparse(node) for node in listed))


@dataclass
class _Uses(ast.NodeVisitor):
    """Collects the names that code uses."""

    names: set[str] = field(default_factory=set)
    attributes: dict[str, set[str]] = field(default_factory=dict)
    imports: list[ImportedName] = field(default_factory=list)
    unseen: list[tuple[int, str]] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    reads_docs: bool = False
    _inside: int = 0

    @classmethod
    def of(cls, nodes: Iterable[ast.stmt], text: str = "") -> Definition:
        uses = cls()
        for node in nodes:
            uses.visit(node)
        attributes = {name: frozenset(some) for name, some in uses.attributes.items()}
        for one in uses.imports:
            said = unfollowed_uses(one, one.local in uses.names, attributes.get(one.local, ()))
            uses.unseen += [(one.line, what) for what in said]
            uses.places += [one.line] if is_place(one) else []
        rest = (tuple(uses.unseen), tuple(uses.places), uses.reads_docs)
        return Definition(text, frozenset(uses.names), attributes, tuple(uses.imports), *rest)

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self._inside += 1
        self.generic_visit(node)
        self._inside -= 1

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self.visit_FunctionDef(node)

    def visit_Name(self, node: ast.Name) -> None:
        self.names.add(node.id)
        self._place(node.id, node)
        if node.id in _UNSEEN_NAMES or (node.id == "locals" and not self._inside):
            self.unseen.append((node.lineno, node.id))

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self._place(node.attr, node)
        if node.attr in _UNSEEN_ATTRIBUTES:
            self.unseen.append((node.lineno, node.attr))
        if isinstance(node.value, ast.Name):
            self.attributes.setdefault(node.value.id, set()).add(node.attr)
            self._place(node.value.id, node)
        else:
            self.visit(node.value)

    def visit_Constant(self, node: ast.Constant) -> None:
        """`getattr(f, "__doc__")`, `"{0.__globals__}".format(f)`."""
        for name in _DUNDER.findall(node.value) if isinstance(node.value, str) else ():
            self._place(name, node)
            if name in _UNSEEN_NAMES | _UNSEEN_ATTRIBUTES:
                self.unseen.append((node.lineno, name))

    def visit_Call(self, node: ast.Call) -> None:
        if isinstance(node.func, ast.Name) and node.func.id == "vars" and not node.args:
            self.unseen.append((node.lineno, "vars()"))
        if (named := _named_import(node)) is not None:
            self.imports.append(named)
            for one in (*node.args, *(keyword.value for keyword in node.keywords)):
                self.visit(one)
            return
        self.generic_visit(node)

    def visit_Import(self, node: ast.Import | ast.ImportFrom) -> None:
        self.imports.extend(imported_names(node))

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        self.visit_Import(node)

    def _place(self, name: str, node: ast.expr) -> None:
        if name in _PLACES:
            self.places.append(node.lineno)
        if name == "__doc__":
            self.reads_docs = True


def unfollowed_uses(one: ImportedName, bare: bool, attributes: Iterable[str]) -> Iterator[str]:
    """Uses of an import that cannot be followed: code found by a computed name."""
    if one.library == "sys":
        found = set(attributes) if one.name is None else {one.name}
        yield from (f"sys.{name}" for name in sorted(found & _UNSEEN_OF_SYS))
        if bare and one.name is None:
            yield "sys, as a value"
    if one.library not in _UNSEEN_LIBRARIES or not (bare or attributes):
        return
    name = one.origin or ""
    if one.library == "importlib" and one.name is not None and name.startswith(_SEEN):
        return
    if one.library == "importlib" and one.name is None and not bare and set(attributes) <= {"metadata", "resources"}:
        return
    yield name


def is_place(one: ImportedName) -> bool:
    """Whether the import is one that finds files beside a module."""
    return one.name in _PLACES or (one.origin or "").startswith(("importlib.resources", "pkgutil"))


def _named_import(node: ast.Call) -> ImportedName | None:
    """`importlib.import_module("scipy.stats")`: an import like any other, where the name stands there."""
    first = node.args[0] if len(node.args) == 1 and not node.keywords else None
    named = first.value if isinstance(first, ast.Constant) and isinstance(first.value, str) else "."
    if ast.unparse(node.func) != "importlib.import_module" or named.startswith("."):
        return None
    return ImportedName(named, 0, named, None, node.lineno)


def imported_names(node: ast.Import | ast.ImportFrom) -> Iterator[ImportedName]:
    """The names that an import binds."""
    for alias in node.names:
        if isinstance(node, ast.ImportFrom):
            yield ImportedName(alias.asname or alias.name, node.level, node.module or "", alias.name, node.lineno)
        else:
            local = alias.asname or alias.name.partition(".")[0]
            yield ImportedName(local, 0, alias.name, None, node.lineno)


def _is_package(one: ImportedName) -> bool:
    """`import a.b`, which binds a."""
    return one.name is None and not one.level and one.local == one.module.partition(".")[0]


def _span(statements: Sequence[ast.stmt]) -> tuple[int, int]:
    """The first and the last line, decorators among them."""
    decorators = [one.lineno for node in statements for one in getattr(node, "decorator_list", ())]
    return min(decorators + [node.lineno for node in statements]), max(node.end_lineno or 0 for node in statements)


def _is_import(node: ast.stmt) -> bool:
    return isinstance(node, ast.Import | ast.ImportFrom)


def _executed(body: Iterable[ast.stmt], never: Container[str]) -> Iterator[ast.stmt]:
    """The statements that are run when the file is imported: not those under these conditions."""
    for statement in body:
        if isinstance(statement, ast.If) and ast.unparse(statement.test) in never:
            yield from _executed(statement.orelse, never)
        else:
            yield statement


def _type_checking(tree: ast.Module) -> Iterator[str]:
    """Code for type checkers only, if its names come from `typing` and are bound once."""
    bound = [name for statement in tree.body for name in _bound(statement)]
    for statement in tree.body:
        for one in imported_names(statement) if isinstance(statement, ast.Import | ast.ImportFrom) else ():
            if bound.count(one.local) == 1 and one.origin in ("typing", "typing.TYPE_CHECKING"):
                yield one.local if one.name else f"{one.local}.TYPE_CHECKING"


def _imports_at_load(statement: ast.AST) -> list[ImportedName]:
    """The imports of a statement that are run when it is: none that stand in functions."""
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return list(imported_names(statement))
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
        return []
    inner = (one for one in ast.iter_child_nodes(statement) if isinstance(one, _BLOCKS))
    return [found for one in inner for found in _imports_at_load(one)]


def _bound(statement: ast.stmt) -> Iterator[str]:
    """The names that a statement at the top binds."""
    if isinstance(statement, _DEFINITIONS):
        yield statement.name
    elif isinstance(statement, ast.Import | ast.ImportFrom):
        yield from dict.fromkeys(one.local for one in imported_names(statement))
    elif isinstance(statement, ast.Assign | ast.AnnAssign):
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        stored = (node for target in targets for node in ast.walk(target) if isinstance(node, ast.Name))
        yield from dict.fromkeys(node.id for node in stored if not isinstance(node.ctx, ast.Load))
    else:
        yield from dict.fromkeys(name for inner in ast.iter_child_nodes(statement) for name in _bound_inside(inner))


def _bound_inside(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.stmt):
        yield from _bound(node)
    elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
        yield node.id
    else:
        yield from (name for inner in ast.iter_child_nodes(node) for name in _bound_inside(inner))


def _root(node: ast.expr) -> str | None:
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None


def _strip(node: ast.AST) -> None:
    """Remove constants without effect, including docstrings; sort a function's imports that stand together."""
    for name in ("body", "orelse", "finalbody"):
        body = getattr(node, name, None)
        if isinstance(body, list) and body and isinstance(body[0], ast.stmt):
            kept = [one for one in body if not (isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant))]
            setattr(node, name, list(_sorted_imports(kept)) or ([ast.Pass()] if name == "body" else []))


def _sorted_imports(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """Imports of libraries that stand together, a name each, in the order of their texts. Of siblings their own."""
    for are_libraries, some in groupby(body, lambda one: _is_import(one) and not getattr(one, "level", 0)):
        if are_libraries:
            yield from sorted((one for node in some for one in _single(node)), key=ast.unparse)
        else:
            yield from some


def _single(node: ast.stmt) -> Iterator[ast.stmt]:
    for alias in getattr(node, "names", ()):
        if isinstance(node, ast.ImportFrom):
            yield ast.ImportFrom(node.module, [alias], node.level, lineno=node.lineno, col_offset=0)
        else:
            yield ast.Import([alias], lineno=node.lineno, col_offset=0)


def _without_values(node: ast.stmt, fields: frozenset[str]) -> ast.stmt:
    """A parameters' class without its defaults: they are parameters."""
    if not fields or not isinstance(node, ast.ClassDef):
        return node
    bare = copy(node)
    bare.body = [_without_value(one, fields) for one in node.body]
    return bare


def _without_value(statement: ast.stmt, fields: frozenset[str]) -> ast.stmt:
    if not (isinstance(statement, ast.AnnAssign) and _names_one(statement.target, fields)):
        return statement
    bare, value = copy(statement), statement.value
    bare.value = None
    if isinstance(value, ast.Call):  # field(default=3, metadata={…})
        bare.value = copy(value)
        bare.value.keywords = [one for one in value.keywords if one.arg not in ("default", "default_factory")]
    return bare


def _names_one(target: ast.expr, fields: frozenset[str]) -> bool:
    return isinstance(target, ast.Name) and target.id in fields
