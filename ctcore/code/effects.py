"""Which statements at the top of a module only define names, and which may change something defined elsewhere.

A module of plain definitions can be followed name by name: each name has one meaning, whatever stands around it. Any
other statement may affect everything, so a module with one counts whole. The lists here hold what is known to change
nothing; everything else is assumed to.
"""

import ast
import builtins
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

BUILTINS = frozenset(dir(builtins))


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_CALLS = _words("""
    abs all any bin bool bytearray bytes chr complex dict divmod enumerate float format frozenset hash hex int
    isinstance issubclass len list max min object oct ord pow range repr reversed round set slice sorted str sum
    tuple zip
""")
_LIBRARY_CALLS = _words("""
    collections.Counter collections.OrderedDict collections.deque collections.namedtuple
    dataclasses.field datetime.date datetime.datetime datetime.time datetime.timedelta datetime.timezone
    decimal.Decimal enum.auto fractions.Fraction functools.partial logging.getLogger operator.attrgetter
    operator.itemgetter os.path.abspath os.path.basename os.path.dirname os.path.join os.path.realpath
    pathlib.Path pathlib.PurePath pathlib.PurePosixPath re.compile re.escape string.Template struct.Struct
    types.MappingProxyType types.SimpleNamespace typing.NamedTuple typing.NewType typing.TypeVar typing.cast
""")
_METHODS = _words("""
    absolute as_posix capitalize casefold copy count decode difference encode endswith format get index
    intersection items joinpath join keys lower lstrip maketrans partition relative_to removeprefix removesuffix
    replace resolve rpartition rsplit rstrip split splitlines startswith strip title total_seconds translate
    union upper values with_name with_stem with_suffix zfill
""")
_DECORATORS = _words("""
    abc.abstractmethod contextlib.asynccontextmanager contextlib.contextmanager dataclasses.dataclass
    enum.unique functools.cache functools.cached_property functools.lru_cache functools.total_ordering
    functools.wraps numba.jit numba.njit numba.vectorize typing.final typing.override typing.runtime_checkable
    typing_extensions.override
""")
_OWN_DECORATORS = frozenset({"classmethod", "property", "staticmethod"})
_ACCESSORS = frozenset({"deleter", "getter", "setter"})
_LAZY = frozenset({"enumerate", "reversed", "zip"})
_CONSUMERS = _words("all any bytearray bytes dict frozenset list max min set sorted sum tuple")
_DISPLAYS = (ast.Dict, ast.List, ast.Set, ast.Starred, ast.Tuple)
_HARMLESS = (ast.Constant, ast.Name, ast.Lambda, ast.operator, ast.unaryop, ast.boolop, ast.cmpop, ast.expr_context)
_COMPOSED = (
    *(ast.Attribute, ast.BinOp, ast.BoolOp, ast.Compare, ast.Dict, ast.DictComp, ast.FormattedValue, ast.GeneratorExp),
    *(ast.IfExp, ast.JoinedStr, ast.List, ast.ListComp, ast.Set, ast.SetComp, ast.Slice, ast.Starred, ast.Subscript),
    *(ast.Tuple, ast.UnaryOp, ast.comprehension),
)


@dataclass(frozen=True)
class Note:
    """A place in the code with a remark. `line` 0: the file as a whole."""

    file: str
    line: int
    what: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line} {self.what}" if self.line else f"{self.file} {self.what}"


def origin(node: ast.expr, origins: Mapping[str, str]) -> str | None:
    """The dotted name of a library that an expression stands for (`dc.field`: dataclasses.field), by the imports."""
    if isinstance(node, ast.Name):
        return origins.get(node.id)
    if isinstance(node, ast.Attribute) and (base := origin(node.value, origins)) is not None:
        return f"{base}.{node.attr}"
    return None


def is_step(node: ast.expr, origins: Mapping[str, str]) -> bool:
    """Whether this is ct's own decorator, with or without its declaration."""
    called = node.func if isinstance(node, ast.Call) else node
    return origin(called, origins) == "ctcore.step.step"


@dataclass(frozen=True)
class Plain:
    """Judges the statements of one module. `origins`: the sources of its imported names; `records`: its classes
    whose creation runs no code of their own; `siblings`: names from sibling modules, which may be anything."""

    origins: Mapping[str, str]
    records: frozenset[str]
    siblings: frozenset[str] = frozenset()

    def effects(self, statement: ast.stmt) -> Iterator[tuple[int, str]]:
        """Line and text of each effect of a top-level statement besides defining names."""
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from self._function(statement)
        elif isinstance(statement, ast.ClassDef):
            yield from self._class(statement)
        elif isinstance(statement, ast.Assign | ast.AnnAssign):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            if not all(map(_is_name, targets)):
                yield statement.lineno, f"`{_shown(statement)}` changes what is defined already"
            elif statement.value is not None and not self.is_plain(statement.value):
                yield statement.lineno, f"`{_shown(statement)}` runs code"
        elif isinstance(statement, ast.ImportFrom) and any(alias.name == "*" for alias in statement.names):
            yield statement.lineno, f"`{_shown(statement)}` binds names that do not stand here"
        elif not isinstance(statement, ast.Import | ast.ImportFrom | ast.Pass | _ALIAS) and not is_text(statement):
            yield statement.lineno, f"`{_shown(statement)}` runs when the file is loaded"

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[tuple[int, str]]:
        yield from self._decorators(node)
        defaults = [*node.args.defaults, *(one for one in node.args.kw_defaults if one is not None)]
        if not all(map(self.is_plain, defaults)):
            yield node.lineno, f"a default of {node.name} runs code"

    def _class(self, node: ast.ClassDef) -> Iterator[tuple[int, str]]:
        yield from self._decorators(node)
        hooks = {"__init_subclass__", "__set_name__", "__class_getitem__"}
        mine = {inner.name for inner in node.body if isinstance(inner, ast.FunctionDef)}
        if mine & hooks or any(isinstance(base, ast.Name) and base.id == "type" for base in node.bases):
            yield node.lineno, f"class {node.name} takes part in the making of others"
        if any(keyword.arg == "metaclass" and not self._is_library(keyword.value) for keyword in node.keywords):
            yield node.lineno, f"class {node.name} is made by code"
        for base in node.bases:
            if not self._is_base(base):
                yield node.lineno, f"class {node.name} is made of `{_shown(base)}`"
        for inner in node.body:
            yield from self.effects(inner)

    def _is_base(self, node: ast.expr) -> bool:
        """Bases from siblings are judged by the caller, who knows the siblings; here they are ordinary names."""
        if isinstance(node, ast.Subscript):
            return self._is_base(node.value)
        return isinstance(node, ast.Name) or self._is_library(node) or isinstance(node, ast.Attribute)

    def _decorators(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> Iterator[tuple[int, str]]:
        for one in node.decorator_list:
            if not self._is_known(one, node.name):
                yield one.lineno, f"`@{_shown(one)}` runs code"

    def _is_known(self, node: ast.expr, name: str) -> bool:
        if isinstance(node, ast.Attribute) and node.attr in _ACCESSORS and isinstance(node.value, ast.Name):
            return node.value.id == name  # of a property
        if isinstance(node, ast.Name) and node.id in _OWN_DECORATORS:
            return True
        called, given = node, []
        if isinstance(node, ast.Call):
            called, given = node.func, [*node.args, *(keyword.value for keyword in node.keywords)]
        known = origin(called, self.origins) in _DECORATORS or is_step(node, self.origins)
        return known and all(map(self.is_plain, given))

    def _is_library(self, node: ast.expr) -> bool:
        return origin(node, self.origins) is not None

    def is_plain(self, node: ast.AST, consumed: bool = False) -> bool:
        """Whether evaluating it changes nothing and gives a value that reading does not use up."""
        if (_is_lazy(node) and not consumed) or self._takes_from_sibling(node):
            return False
        if isinstance(node, ast.comprehension):
            return self.is_plain(node.iter, consumed=True) and all(map(self.is_plain, node.ifs))
        if isinstance(node, ast.Lambda):
            return all(map(self.is_plain, (*node.args.defaults, *(one for one in node.args.kw_defaults if one))))
        if isinstance(node, ast.Call):
            inside = [*node.args, *(keyword.value for keyword in node.keywords)]
            uses_up = isinstance(node.func, ast.Name) and node.func.id in (_CONSUMERS | _LAZY)
            uses_up = uses_up or (isinstance(node.func, ast.Attribute) and node.func.attr == "join")
            called = [keyword.value for keyword in node.keywords if keyword.arg == "key"]  # sorted, min, max
            return (
                self._is_harmless_call(node.func)
                and all(self.is_plain(one, consumed=uses_up) for one in inside)
                and all(isinstance(one, ast.Call) or self._is_harmless_call(one) for one in called)
            )
        if isinstance(node, _COMPOSED):
            return all(map(self.is_plain, ast.iter_child_nodes(node)))
        return isinstance(node, _HARMLESS)

    def _takes_from_sibling(self, node: ast.AST) -> bool:
        """Whether something of a sibling is a direct part: of an operation, a call, an attribute."""
        parts = () if isinstance(node, _DISPLAYS) else ast.iter_child_nodes(node)
        return any(isinstance(one, ast.Name) and one.id in self.siblings for one in parts)

    def _is_harmless_call(self, called: ast.expr) -> bool:
        if isinstance(called, ast.Name) and called.id in self.records:
            return True
        known = origin(called, self.origins)
        if known is not None:
            return known in _LIBRARY_CALLS or (known.startswith("ctcore.") and known != "ctcore.step.step")
        if isinstance(called, ast.Name):
            return called.id in _CALLS
        return isinstance(called, ast.Attribute) and called.attr in _METHODS and self._is_built_in(called.value)

    def _is_built_in(self, node: ast.expr) -> bool:
        """A value of Python's own types, seen by how it is written: its methods are known."""
        if isinstance(node, ast.Attribute):
            return self._is_built_in(node.value)
        if isinstance(node, ast.Call):
            is_own = isinstance(node.func, ast.Name) and node.func.id in _CALLS
            known = origin(node.func, self.origins) in _LIBRARY_CALLS
            return is_own or known or (isinstance(node.func, ast.Attribute) and self._is_harmless_call(node.func))
        if isinstance(node, ast.BinOp):
            return self._is_built_in(node.left) and self.is_plain(node.right)
        return isinstance(node, ast.Constant | ast.JoinedStr | ast.List | ast.Tuple | ast.Dict | ast.Set | ast.ListComp)


def _is_lazy(node: ast.AST) -> bool:
    """Whether it is an iterator, which reading uses up."""
    is_call = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _LAZY
    return is_call or isinstance(node, ast.GeneratorExp)


_ALIAS: type = getattr(ast, "TypeAlias", ast.Pass)


def _is_name(node: ast.expr) -> bool:
    if isinstance(node, ast.Tuple | ast.List):
        return all(map(_is_name, node.elts))
    return isinstance(node, ast.Name)


def is_text(statement: ast.stmt) -> bool:
    """Whether it is a constant that stands alone, such as a docstring."""
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _shown(node: ast.AST, most: int = 60) -> str:
    text = ast.unparse(node).partition("\n")[0]
    return text if len(text) <= most else text[: most - 1] + "…"


def is_own(name: str) -> bool:
    """Whether the module belongs to Python's library or to ct: importing it changes nothing."""
    return name in sys.stdlib_module_names or name in ("ctcore", "__future__")
