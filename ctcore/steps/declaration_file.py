"""A step that is declared in a TOML file: `steps/NAME.toml`. Results of it are made elsewhere, and adopted."""

import difflib
import keyword
import math
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import field, make_dataclass
from pathlib import Path
from typing import Any

from ctcore.code.sources import Sources
from ctcore.errors import StepError
from ctcore.model.column import Column
from ctcore.step import Call, Output, Resources, Step

MADE_BY, TOOLS = "made_by", "tools"
STORY = (
    Column(MADE_BY, required=True, description="the pipeline that made it, or the person"),
    Column(TOOLS, description="the versions of its tools"),
)
"""What is known of how something was made elsewhere. Nothing here can be compared with it: these are facts."""

_TEXTS = ("level", "role", "description", "group")
_LISTS = ("files", "references", "columns", "kinds")
_TABLES = ("inputs", "outputs", "params")
_KEYS = ("made_elsewhere", *_TEXTS, *_LISTS, *_TABLES)
_OUTPUT_KEYS = ("file", "preview")


def declares_step(path: Path, sources: Sources | None = None) -> bool:
    """Whether a TOML file is a declaration at all: a step's own settings may lie beside it. One that says anything that
    only a declaration says is taken for one, so that what is wrong in it is told."""
    return bool(
        {"made_elsewhere", "command", "outputs", "inputs"} & _table(path.resolve(), sources or Sources()).keys()
    )


def load_declaration(path: Path, sources: Sources | None = None) -> Step:
    """The step that a TOML file declares, under the file's name. StepError with all problems of the file."""
    place, read = path.resolve(), sources or Sources()
    table = _table(place, read)
    problems = list(_problems(path.stem, table))
    if problems:
        raise StepError(f"{path}: the step is declared wrongly:\n  " + "\n  ".join(problems))
    outputs = {name: Output(**one) if isinstance(one, dict) else Output(one) for name, one in table["outputs"].items()}
    return Step(
        name=path.stem,
        level=table["level"],
        function=_refuse,
        source=place,
        inputs=dict(table.get("inputs", {})),
        files=tuple(table.get("files", ())),
        references=tuple(table.get("references", ())),
        columns=tuple(table.get("columns", ())),
        role=table.get("role"),
        params=_parameters(path.stem, table["params"]) if table.get("params") else None,
        outputs=outputs,
        resources=Resources(),
        kinds=tuple(table.get("kinds", ())),
        group=table.get("group", "steps"),
        description=table.get("description", "").strip(),
        facts=STORY,
        made_elsewhere=True,
        sources=read,
    )


def _refuse(_: Call) -> None:
    raise StepError("the step is made elsewhere; `ct adopt` takes its results")


def _table(place: Path, sources: Sources) -> dict[str, Any]:
    try:
        return tomllib.loads(sources.read(place).decode())
    except UnicodeDecodeError as error:
        raise StepError(f"{place}: it is not UTF-8 (byte {error.start}); save it as UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise StepError(f"{place}: {error}") from error


def _problems(name: str, table: Mapping[str, Any]) -> Iterator[str]:
    if not name.isidentifier():
        yield f"{name!r} is no name for a step: name the file with letters, digits and _"
    yield from _unknown(table, _KEYS, "")
    if table.get("made_elsewhere") is not True:
        yield "made_elsewhere = true is expected: a step that ct runs is declared in a .py file"
    for key in _TEXTS:
        if key in table and not isinstance(table[key], str):
            yield f"{key} = {table[key]!r:.80}: a text is expected"
    for key in _LISTS:
        value = table.get(key, [])
        if not isinstance(value, list) or not all(isinstance(one, str) and one for one in value):
            yield f'{key} = {value!r:.80}: a list of texts is expected, as in {key} = ["…"]'
    for key in _TABLES:
        if not isinstance(table.get(key, {}), dict):
            yield f"{key} = {table[key]!r:.80}: a table is expected, as in [{key}]"
    yield from (f"{key} is missing" for key in ("level", "outputs") if key not in table)
    yield from _input_problems(_dict(table, "inputs"))
    yield from _output_problems(_dict(table, "outputs"))
    yield from _parameter_problems(_dict(table, "params"))


def _dict(table: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = table.get(key)
    return value if isinstance(value, dict) else {}


def _unknown(table: Iterable[str], known: Iterable[str], where: str) -> Iterator[str]:
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, list(known), 1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(known))}"
            yield f"{where}unknown key {key!r}; {hint}"


def _input_problems(inputs: Mapping[str, Any]) -> Iterator[str]:
    for name, up in inputs.items():
        if not isinstance(up, str):
            yield f"[inputs] {name} = {up!r:.80}: the name of a step is expected"


def _output_problems(outputs: Mapping[str, Any]) -> Iterator[str]:
    for name, one in outputs.items():
        where = f"[outputs] {name}"
        if isinstance(one, dict):
            yield from _unknown(one, _OUTPUT_KEYS, f"{where}: ")
            if not isinstance(one.get("file"), str):
                yield f'{where}: a file\'s name is expected, as in {name} = {{ file = "joint.vcf.gz" }}'
            if not isinstance(one.get("preview", False), bool):
                yield f"{where}: preview is true or false"
        elif not isinstance(one, str):
            yield f'{where} = {one!r:.80}: a file\'s name is expected, as in {name} = "joint.vcf.gz"'


def _parameter_problems(params: Mapping[str, Any]) -> Iterator[str]:
    for name, value in params.items():
        if not name.isidentifier() or keyword.iskeyword(name):
            yield f"[params] {name!r}: name it with letters, digits and _, and not with a word of Python"
        if not _is_plain(value):
            yield f"[params] {name} = {value!r:.80}: a text, a number, true, false or a list of texts is expected"


def _is_plain(value: Any) -> bool:
    if isinstance(value, list):
        return all(isinstance(one, str) for one in value)
    return isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))


def _parameters(name: str, values: Mapping[str, Any]) -> type:
    """A frozen dataclass with these defaults, as a step in Python declares one."""
    fields: list[tuple[str, Any, Any]] = [
        (key, tuple if isinstance(value, list) else type(value), field(default=_default(value)))
        for key, value in values.items()
    ]
    return make_dataclass(f"{name}_parameters", fields, frozen=True)


def _default(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
