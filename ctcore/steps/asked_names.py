"""What a step's function asks its call for by a name that stands in the code: each must be declared.

Found when the project is loaded, so that nobody waits for a night of work to learn of a typo. What is asked elsewhere,
or under a name that is made when it runs, or where it may not run, is told then (`ctcore.step`).
"""

import ast
import difflib
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import lru_cache

from ctcore.step import Step

_ASKED: Mapping[str, tuple[str, Callable[[Step], Collection[str]]]] = {
    "out": ("output", lambda step: step.outputs),
    "file": ("file", lambda step: step.files),
    "reference": ("reference", lambda step: step.references),
    "intervals": ("reference", lambda step: step.references),
    "one": ("input", lambda step: step.inputs),
    "many": ("input", lambda step: step.inputs),
    "members": ("input", lambda step: step.inputs),
    "column": ("column", lambda step: step.columns),
}
"""Methods of a call, what their first argument names, and what of it is declared."""


def undeclared_names(step: Step, others: Mapping[str, Step]) -> Iterator[str]:
    """One problem a name, with its line. `others`: all steps, whose outputs this one may take."""
    code = getattr(step.function, "__code__", None)
    if code is None or step.sources is None or not _ASKED.keys() & set(code.co_names):
        return
    if code.co_filename != str(step.source):  # made elsewhere: another function may stand at its place here
        return
    function = _functions(step.sources.read(step.source)).get((code.co_name, code.co_firstlineno))
    if function is None or not function.args.args:
        return
    call = function.args.args[0].arg
    if _is_bound_again(function, call):
        return
    for asked in _certain(function):
        if isinstance(asked, ast.Call):
            yield from _of_call(step, call, asked)
        elif isinstance(asked, ast.Subscript):
            yield from _of_source(step, call, asked, others)


def _of_call(step: Step, call: str, asked: ast.Call) -> Iterator[str]:
    method = _method(call, asked)
    if method is None or method not in _ASKED or (method == "column" and len(asked.args) + len(asked.keywords) > 1):
        return
    what, declared = _ASKED[method]
    name = _constant(asked.args[0]) if asked.args else None
    if name is not None and name not in declared(step):
        yield _problem(asked.lineno, what, name, declared(step))


def _of_source(step: Step, call: str, asked: ast.Subscript, others: Mapping[str, Step]) -> Iterator[str]:
    """`call.one("reads")["bam"]`: an output of the step that this input takes."""
    source, name = asked.value, _constant(asked.slice)
    if name is None or not isinstance(source, ast.Call) or _method(call, source) != "one" or not source.args:
        return
    above = others.get(step.inputs.get(str(_constant(source.args[0])), ""))
    if above is not None and name not in above.outputs:
        yield _problem(asked.lineno, f"output of {above.name}", name, above.outputs)


def _problem(line: int, what: str, name: str, declared: Collection[str]) -> str:
    near = difflib.get_close_matches(name, declared, 1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return (
        f"line {line} asks for {what} {name!r}, which is not declared; declared: {', '.join(declared) or 'none'}{hint}"
    )


def _method(call: str, asked: ast.Call) -> str | None:
    of = asked.func
    if isinstance(of, ast.Attribute) and isinstance(of.value, ast.Name) and of.value.id == call:
        return of.attr
    return None


def _constant(value: ast.expr) -> str | None:
    return value.value if isinstance(value, ast.Constant) and isinstance(value.value, str) else None


_MAY_LEAVE = (ast.Return, ast.Raise, ast.Assert, ast.Break, ast.Continue)
_MAY_NOT_RUN = (ast.IfExp, ast.BoolOp, ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def _certain(function: ast.FunctionDef) -> Iterator[ast.AST]:
    """What surely runs: the plain statements, up to the first that may leave the function. Several steps may have one
    text with a branch each, and a step may ask in order to find out."""
    for statement in function.body:
        for expression in _first(statement):
            yield from _inside(expression)
        if any(isinstance(one, _MAY_LEAVE) for one in ast.walk(statement)):
            return


def _first(statement: ast.stmt) -> list[ast.AST]:
    """What of a statement is run whatever follows; of one with a body only what stands before it."""
    if isinstance(statement, ast.If | ast.While):
        return [statement.test]
    if isinstance(statement, ast.For):
        return [statement.iter]
    if isinstance(statement, ast.With):
        return [one.context_expr for one in statement.items[:1]]
    return [] if hasattr(statement, "body") or isinstance(statement, ast.Match) else [statement]


def _inside(node: ast.AST) -> Iterator[ast.AST]:
    """It and what is in it. A sum of a thousand texts is a thousand levels deep, too many for a function in itself."""
    waiting = deque([node])
    while waiting:
        one = waiting.popleft()
        if not isinstance(one, _MAY_NOT_RUN):
            yield one
            waiting.extend(ast.iter_child_nodes(one))


def _is_bound_again(function: ast.FunctionDef, name: str) -> bool:
    """Whether something else has this name somewhere in it."""
    return any(
        (isinstance(one, ast.Name) and one.id == name and not isinstance(one.ctx, ast.Load))
        or (isinstance(one, ast.arg) and one.arg == name and one is not function.args.args[0])
        for one in ast.walk(function)
    )


@lru_cache(maxsize=256)
def _functions(source: bytes) -> Mapping[tuple[str, int], ast.FunctionDef]:
    """The functions at the top of a file, by name and first line, decorators included (`co_firstlineno`)."""
    found = [one for one in ast.parse(source).body if isinstance(one, ast.FunctionDef)]
    return {(one.name, min(part.lineno for part in (one, *one.decorator_list))): one for one in found}
