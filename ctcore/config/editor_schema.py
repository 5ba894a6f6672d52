"""The JSON schema of ct.toml: editors complete keys, show descriptions and mark mistakes.

Names, choices and patterns come from the code that reads ct.toml. The schema accepts everything that ct accepts. It
cannot check references between parts (is a cohort's column declared?), so ct refuses more. In JSON Schema, 1.0 is an
integer (draft 7, 4.3.1 of its core); ct takes only 1.
"""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import MISSING, Field, fields
from typing import Any, get_args

from ctcore.config import slurm_profiles
from ctcore.config.automation import POLICIES
from ctcore.config.qc_and_consent import STATUSES
from ctcore.config.settings import CHOICES, MAY_BE_ZERO, PROJECT_ID, Readable, RunSettings, Several
from ctcore.config.slurm_profiles import LEAST, LISTS, LOCAL, PROFILE_NAME, TEXTS, WHOLE, Profile
from ctcore.model import regions
from ctcore.model.analysis import KEPT_NAMES
from ctcore.model.cohort_rule import COMPARES
from ctcore.model.column import COLUMN_TYPES
from ctcore.model.levels import ENTITY_LEVELS
from ctcore.model.schema import COLUMN_NAME, ID_PATTERN
from ctcore.model.values import BOOLEANS, INTEGER, REAL

SCHEMA_FILE = "ct.schema.json"
DIRECTIVE = f"#:schema ./{SCHEMA_FILE}\n"
"""The first line of a ct.toml: where editors with a TOML language server look for the schema."""

Schema = dict[str, Any]


def schema() -> Schema:
    """The whole schema, in draft 7 of JSON Schema, which editors' TOML language servers read."""
    parts: dict[str, Schema] = {
        "project": _project(),
        "levels": _closed("The columns, IDs and raw files of each level.", {one: _level(one) for one in ENTITY_LEVELS}),
        "analyses": _named("Results made elsewhere, which `ct record` takes.", COLUMN_NAME, _analysis()),
        "references": _named("Outside files that steps use, by key.", ID_PATTERN, _reference()),
        "regions": _named("References whose content is intervals, by key.", ID_PATTERN, _region()),
        "cohorts": _named("Rules that say who is in a cohort. Without any, `all` is everybody.", ID_PATTERN, _cohort()),
        "pairings": _named("Parts that belong together, such as tumour and normal.", ID_PATTERN, _pairing()),
        "steps": _closed(
            "Where steps are.",
            {"folders": _texts("Folders with step files, relative to the project.", ["ct_assets/steps", "steps"])},
        ),
        "params": _map("Parameters of steps: [params.STEP] name = value.", {"type": "object"}),
        "environment": _closed(
            "The environment of all steps.",
            {"lock": _text("A file whose digest is part of every step's environment.")},
        ),
        "run": _run(),
        "policy": _map(
            "How the staleness sensor treats a step; `default` is for steps that are not named.",
            {"enum": list(POLICIES)},
        ),
        "slurm": _named("Profiles: the resources that jobs request from Slurm.", PROFILE_NAME, _profile(), (LOCAL,)),
        "sheet": _sheet(),
        "qc": _closed("Quality control.", {"kinds": _named("Kinds of QC events of your own.", COLUMN_NAME, _kind())}),
        "consent": _consent(),
        "dagster": _closed("The Dagster instance.", {"home": _text("Its home, relative to the project.")}),
    }
    whole = _closed("ct.toml: the declaration of a project.", parts, ("project",))
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "ct.toml",
        **whole,
        "definitions": _definitions(),
    }


def text() -> str:
    """The schema as a file."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def _project() -> Schema:
    return _closed(
        "The project.",
        {
            "id": _text("3 to 64 of a-z, 0-9 and -, not at an end. Never change it.", PROJECT_ID),
            "name": _text("A name for people; by default the ID."),
            "sheet": _text("The sheet of `ct register` and of the sheet sensor, relative to the project."),
            "readable": _choice("Who on this host may read the project's data.", get_args(Readable), "group"),
        },
        ("id",),
    )


def _level(level: str) -> Schema:
    own: dict[str, Schema] = {
        "unique": _flag(f"No two {level}s have the same value."),
        "default": _value("The value of a new entity for which none is given."),
    }
    columns = _named(f"Metadata columns of the {level}s.", COLUMN_NAME, _column(own), ("id",))
    files = _texts("Roles of raw files: columns of the sheet that name a file.", [])
    folders = _texts("Roles of raw files that are folders: columns of the sheet that name a folder.", [])
    files["items"] = folders["items"] = _text("The role's name.", COLUMN_NAME)
    pattern = _text("A regular expression that IDs of the level match in full.", default=ID_PATTERN)
    keys = {"columns": columns, "files": files, "folders": folders, "id_pattern": {**pattern, "format": "regex"}}
    return _closed(f"The {level}s.", keys)


def _column(own: Mapping[str, Schema]) -> Schema:
    """A type alone, or a table. A unique column has no default: a second entity could not have it."""
    kind = _choice("The type of its values; a date is YYYY-MM-DD.", COLUMN_TYPES, "text")
    table = _closed(
        "",
        {
            "type": kind,
            "required": _flag("A blank cell is an error."),
            "enum": {**_list("The only values allowed.", {"type": ["string", "integer"]}, []), "uniqueItems": True},
            "description": _text("A description for people."),
            **own,
        },
    )
    table["allOf"] = [{"$ref": f"#/definitions/{'metadata' if 'default' in own else 'results'}"}]
    unique = {"required": ["default", "unique"], "properties": {"unique": {"const": True}}}
    return {"anyOf": [kind, table | ({"not": unique} if "unique" in own else {})]}


def _definitions() -> Schema:
    """What the columns of several parts have: metadata of levels, results of analyses."""
    return {
        name: {"allOf": [_values_of(one, has_default) for one in COLUMN_TYPES]}
        for name, has_default in (("metadata", True), ("results", False))
    }


_DAY = "[0-9]{4}-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|[12][0-9]))"
_NO_VALUE = ["array", "object", "null"]
"""What is not one value of a cell. A date of TOML has no type of JSON: some tools make it a text, others leave it."""


def _values_of(kind: str, has_default: bool) -> Schema:
    """For a column of this type: its default and its enum are of that type."""
    letters = ("".join(f"[{one.lower()}{one.upper()}]" if one.isalpha() else one for one in word) for word in BOOLEANS)
    patterns = {"integer": INTEGER, "real": REAL, "boolean": "|".join(letters), "date": _DAY}
    word: Schema = {"minLength": 1, **({"pattern": _full(patterns[kind])} if kind in patterns else {})}
    values: dict[str, Schema] = {
        "text": {"not": {"type": _NO_VALUE}},
        "integer": {"type": ["string", "integer"]},
        "real": {"type": ["string", "number"]},
        "boolean": {"anyOf": [{"type": ["string", "boolean"]}, {"enum": [0, 1]}]},
        "date": {"not": {"type": [*_NO_VALUE, "boolean", "number"]}},
    }
    found: dict[str, Schema] = {"enum": {"items": values[kind] | word}}
    if has_default:
        found["default"] = values[kind] | word
    chosen: Schema = {"properties": {"type": {"const": kind}}, **({} if kind == "text" else {"required": ["type"]})}
    return {"if": chosen, "then": {"properties": found}}


def _analysis() -> Schema:
    own: dict[str, Schema] = {
        "unit": _text("The unit of its values."),
        "range": {**_list("The least and the greatest value.", {"type": "number"}), "minItems": 2, "maxItems": 2},
    }
    return _closed(
        "",
        {
            "level": _choice("The level of the entities that it measures.", ENTITY_LEVELS),
            "columns": _named("Its results.", COLUMN_NAME, _column(own), KEPT_NAMES),
            "description": _text("A description for people."),
        },
        ("level",),
    )


def _reference() -> Schema:
    kind = _text("`genome` needs an index (.fai) beside the file.", default="other")
    return _closed(
        "",
        {
            "path": _text("The file or folder, relative to the project."),
            "folder": _flag("It is a folder with all that is in it."),
            "version": _text("A new version makes stale what used the reference."),
            "kind": {**kind, "not": {"const": regions.KIND}},
        },
        ("path", "version"),
    )


def _region() -> Schema:
    interval = {"type": "string", "pattern": rf"^\s*({'|'.join(_intervals())})\s*$"}
    said = "Intervals such as chr17:1-100000, both ends included, counted from 1."
    table = _closed(
        "",
        {
            "reference": _text("The key of the reference that they lie on."),
            "bed": _text("A BED file, relative to the project."),
            "intervals": {"description": said, "anyOf": [interval, {**_list("", interval), "minItems": 1}]},
        },
    )
    return {**table, "oneOf": [{"required": ["bed"]}, {"required": ["intervals"]}]}


_DIGITS = 12  # of a base of a chromosome; more than any has


def _intervals() -> Iterator[str]:
    """Patterns of an interval by the digits of its start: the end has no fewer, and neither is 0. Commas may stand
    between digits."""
    for digits in range(1, _DIGITS + 1):
        more = f"(,*[0-9]){{{digits - 1}{',' if digits == _DIGITS else ''}}}"
        yield f"{regions.CHROMOSOME}:(0[0,]*)?[1-9]{more},*-[0-9]{more}[0-9,]*"


def _cohort() -> Schema:
    count = {"type": "integer", "minimum": 1}
    others = {
        "any_of": _texts("Members are in at least one of these cohorts."),
        "all_of": _texts("Members are in all of these cohorts."),
        "none_of": _texts("Members are in none of these cohorts."),
    }
    for one in others.values():
        del one["uniqueItems"]
    identifier = {"type": "string", "pattern": _full(ID_PATTERN)}
    return _closed(
        "",
        {
            "where": _where("Conditions that one chain of patient, specimen and assay satisfies together.", _rule()),
            "level": _choice("Where membership is decided; by default the deepest level of the rule.", ENTITY_LEVELS),
            "has": _closed("How many entities below satisfy `where`.", {"specimen": count, "assay": count}),
            "members": _list("Only these IDs.", identifier),
            "members_file": _text("A file with one ID a line, relative to the project."),
            **others,
            "pairing": _text("The pairing by which its completeness is judged."),
        },
    )


def _rule() -> Schema:
    one = _value("")
    among = {"anyOf": [one, {**_list("", one), "minItems": 1}]}
    ops = {**dict.fromkeys(COMPARES, one), "is": among, "not": among, "known": {"type": "boolean"}}
    return {"anyOf": [*among["anyOf"], {**_closed("", ops), "minProperties": 1}]}


def _where(description: str, rule: Schema) -> Schema:
    levels = "|".join(ENTITY_LEVELS)
    return _map(description, rule) | {"propertyNames": {"pattern": rf"^({levels})\.{COLUMN_NAME}$"}}


def _pairing() -> Schema:
    levels = "|".join(ENTITY_LEVELS)
    return _closed(
        "",
        {
            "by": _text('The column that tells them apart, as in "specimen.status".', rf"({levels})\.{COLUMN_NAME}"),
            "order": _texts("The required values; by default all existing ones."),
            "require": {"type": "integer", "minimum": 0, "description": "So many values are enough.", "default": 0},
            "several": _choice("Which of several assays with one value must be usable.", get_args(Several), "all"),
            "within": _text(
                "patient, specimen, or a column that patients have in common, as in patient.family.",
                rf"patient|specimen|patient\.{COLUMN_NAME}",
                "patient",
            ),
            "where": _where("Only assays with these values count.", _value("")),
        },
        ("by",),
    )


_RUN = {
    "workers": "Worker processes on this machine at once; 0: one a core.",
    "partitions_per_run": "Partitions that one Dagster run covers at most.",
    "requests_per_tick": "Runs that the staleness sensor requests in one look.",
    "requests_in_flight": "Runs of the staleness sensor that may be queued or under way at once.",
    "retry_after_s": "Seconds until a failed call is tried again; four times as long after each try, a day at most.",
    "look_every_s": "Seconds between looks of the sheet and staleness sensors.",
    "verify_every_s": "Seconds between looks of the integrity sensor.",
    "verify_gib_a_day": "GiB that the integrity sensor reads a day.",
    "verify_inputs": "`bytes`: a call compares the digests of its inputs before it begins.",
    "look_again_s": "Seconds for which `ct status` trusts an earlier look at the files; 0: not at all.",
    "sandbox": "Which files calls may read, and whether undeclared reads are reported.",
    "trace": 'Of which calls the started programs are traced, with sandbox = "watch".',
}


def _run() -> Schema:
    keys: dict[str, Schema] = {}
    for field in fields(RunSettings):
        if field.name in CHOICES:
            keys[field.name] = _choice(_RUN[field.name], get_args(CHOICES[field.name]), field.default)
        else:
            least = 0 if field.name in MAY_BE_ZERO else 1
            keys[field.name] = _described({"type": "integer", "minimum": least}, _RUN[field.name], field)
    bound = {
        "partitions": {"type": "integer", "minimum": 1, "description": "Partitions a day."},
        "core_hours": {"type": "number", "exclusiveMinimum": 0, "maximum": 1e9, "description": "Core hours a day."},
    }
    keys["pause"] = _flag("The staleness sensor requests nothing.")
    keys["budget"] = _closed("The most that the staleness sensor requests a day (UTC).", bound)
    return _closed("Limits of runs and sensors, and how calls are watched.", keys)


_PROFILE = {
    "partition": "As sbatch has it.",
    "account": "As sbatch has it.",
    "qos": "As sbatch has it.",
    "constraint": "As sbatch has it.",
    "gres": "As sbatch has it.",
    "reservation": "As sbatch has it.",
    "cpus": "CPUs of a job, where neither step nor run say.",
    "memory_gb": "GiB of a job, where neither step nor run say.",
    "time": "Minutes of a job, where neither step nor run say.",
    "extra": 'More options of sbatch, as in "--nice=100".',
    "setup": "Shell lines before the step.",
    "python": "The Python of the compute nodes.",
    "container": "An image: the job runs in `apptainer exec`.",
    "memory_growth": "Factor of the memory of another try after OUT_OF_MEMORY.",
    "time_growth": "Factor of the time of another try after TIMEOUT.",
    "max_memory_gb": "GiB that no job asks for more than.",
    "max_time": "Minutes that no job asks for more than.",
    "tries": "Tries of a call that needs more memory or time.",
    "in_flight": "Jobs of a run in Slurm at once.",
    "array_size": "Jobs of an array at most.",
    "poll": "Seconds between questions to squeue and sacct.",
    "grace": "Seconds that a result may come after its job has ended.",
    "fail": "How a run is ended: `slow` lets running jobs finish, `fast` cancels them.",
}


def _profile() -> Schema:
    line = {"type": "string", "minLength": 1}
    keys: dict[str, Schema] = {}
    for field in fields(Profile):
        if field.name in TEXTS:
            keys[field.name] = _described(line, _PROFILE[field.name], field)
        elif field.name in LISTS:
            keys[field.name] = _described({"type": "array", "items": line}, _PROFILE[field.name], field)
        elif field.name in WHOLE:
            keys[field.name] = _described({"type": "integer", "minimum": 1}, _PROFILE[field.name], field)
        elif field.name == "fail":
            keys[field.name] = _choice(_PROFILE[field.name], slurm_profiles.FAILS, field.default)
        elif field.name != "name":
            least = {"minimum": LEAST[field.name]} if field.name in LEAST else {"exclusiveMinimum": 0}
            number = {"type": "number", "maximum": slurm_profiles.GREATEST, **least}
            keys[field.name] = _described(number, _PROFILE[field.name], field)
    return _closed("", keys)


def _sheet() -> Schema:
    return _closed(
        "How this project's sheets are read.",
        {
            "map": _map("The sheet's name of a column = ours.", {"type": "string"}),
            "ignore": _texts("Columns to pass over."),
            "tab": _text("The tab of a workbook."),
            "split": _text("What separates several files in one cell."),
            "blank": _texts("Words of cells that stand for nothing, such as NA."),
            "make": _map("An ID's column = the template that it is made by.", {"type": "string"}),
            "values": _map(
                "A metadata column: the sheet's word = the declared value.",
                _map("The sheet's word = the declared value.", {"not": {"type": _NO_VALUE}}),
            ),
        },
    )


def _kind() -> Schema:
    levels = _list("The levels that it applies to; by default all.", {"enum": list(ENTITY_LEVELS)})
    status = _choice("The status that it gives an entity.", STATUSES[1:])
    return _closed("", {"levels": {**levels, "minItems": 1}, "status": status}, ("status",))


def _consent() -> Schema:
    use = {"type": "string", "pattern": r"^[^,]*[^,\s][^,]*$"}
    return _closed(
        "The uses of patients' data.",
        {
            "uses": _list("The uses that a limited consent may name.", use, []),
            "use": _text("The use of all steps, unless they have their own."),
            "steps": _map("The uses of single steps: STEP = use.", {"type": "string"}),
            "required": _flag("A patient without a consent on record may not be used."),
        },
    )


def _closed(description: str, keys: Mapping[str, Schema], required: Collection[str] = ()) -> Schema:
    """A table with these keys and no others."""
    found = {"type": "object", "additionalProperties": False, "properties": dict(keys)}
    return _said(found | ({"required": list(required)} if required else {}), description)


def _map(description: str, values: Schema) -> Schema:
    """A table whose keys are anybody's."""
    return _said({"type": "object", "additionalProperties": values}, description)


def _named(description: str, pattern: str, values: Schema, kept: Iterable[str] = ()) -> Schema:
    names: Schema = {"pattern": _full(pattern)}
    if listed := list(kept):
        names["not"] = {"enum": listed}
    return _map(description, values) | {"propertyNames": names}


def _text(description: str, pattern: str | None = None, default: str | None = None) -> Schema:
    found: Schema = {"type": "string", "minLength": 1}
    if pattern is not None:
        found["pattern"] = _full(pattern)
    if default is not None:
        found["default"] = default
    return _said(found, description)


def _texts(description: str, default: list[str] | None = None) -> Schema:
    return {**_list(description, {"type": "string", "minLength": 1}, default), "uniqueItems": True}


def _list(description: str, items: Schema, default: list[str] | None = None) -> Schema:
    found: Schema = {"type": "array", "items": items}
    return _said(found if default is None else {**found, "default": default}, description)


def _choice(description: str, values: Iterable[str], default: Any = None) -> Schema:
    found: Schema = {"enum": list(values)}
    return _said(found if default is None else {**found, "default": default}, description)


def _flag(description: str) -> Schema:
    return _said({"type": "boolean", "default": False}, description)


def _value(description: str) -> Schema:
    """One value of a cell."""
    return _said({"not": {"type": _NO_VALUE}}, description)


def _described(found: Schema, description: str, field: "Field[Any]") -> Schema:
    default = None if field.default is MISSING else field.default
    shown = list(default) if isinstance(default, tuple) else default
    return _said(found if shown is None else {**found, "default": shown}, description)


def _said(found: Schema, description: str) -> Schema:
    return {"description": description, **found} if description else found


def _full(pattern: str) -> str:
    """A pattern of JSON Schema is found anywhere in a text; ours match in full."""
    return f"^(?:{pattern})$"
