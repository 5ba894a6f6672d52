"""Results that another pipeline made enter the store and the ledger as if a call had made them, with their story.

All is checked before anything is written. The files are copied: what lies in the store is verified, exported and purged
like everything else.
"""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ctcore.cohorts import rule_history
from ctcore.errors import InputError, StepError, Usage
from ctcore.execution import ledger
from ctcore.execution.known_files import known_files
from ctcore.execution.materialize import keep_code_of, members_with_roles
from ctcore.execution.named_inputs import NamedInputs, prepare_named
from ctcore.governance.masking import UNMASKED, mask_of
from ctcore.inputs.key import PreparedCall
from ctcore.model.node import Node, name_of
from ctcore.model.reasons import MADE_ELSEWHERE
from ctcore.project import Project
from ctcore.projects.missing_store import refuse_without_store
from ctcore.step import Step
from ctcore.steps.declaration_file import MADE_BY, TOOLS
from ctcore.steps.git_commit import commit_of
from ctcore.steps.graph import parameters_of
from ctcore.store.digest import Read, Signature, checksum_file, digest_value, try_digests
from ctcore.store.manifest import FileEntry, Manifest
from ctcore.store.store import PublishedArtifact
from ctcore.util.clock import now

TAG = "ct.adopted.v1"
ALGORITHMS = ("md5", "sha256", "blake3")


@dataclass(frozen=True)
class AdoptedFiles:
    """One node's files, by the names of the step's outputs, with their checksums as stated. `where` is said of its
    problems: a row of a sheet."""

    partition: str
    outputs: Mapping[str, Path]
    checksums: Mapping[str, str] = field(default_factory=dict)
    where: str = ""


@dataclass(frozen=True)
class Story:
    """How the files were made, as far as somebody says it: by whom, with which tools, parameters and inputs."""

    made_by: str
    tools: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)
    named: NamedInputs = field(default_factory=NamedInputs)
    reason: str = ""

    @property
    def facts(self) -> dict[str, str]:
        tools = ", ".join(f"{name} {version}" for name, version in sorted(self.tools.items()))
        return {MADE_BY: self.made_by, **({TOOLS: tools} if tools else {})}

    @property
    def words(self) -> str:
        """As the making says it, wherever it is shown."""
        return f"{MADE_ELSEWHERE} by {self.made_by}" + (f": {self.reason}" if self.reason else "")


@dataclass(frozen=True)
class Adopted:
    """One node as it is now. `number` is None where nothing was written (`dry_run`); `same`: these files, with this
    story, had been adopted before."""

    node: Node
    data_version: str
    size: int
    inputs: int
    members: int
    number: int | None = None
    same: bool = False


@dataclass(frozen=True)
class _Ready:
    """A call with its files, which were read."""

    call: PreparedCall
    outputs: Mapping[str, Path]
    reads: Mapping[Path, Read]
    step: Step
    story: Story

    @property
    def manifest(self) -> Manifest:
        names = {self.step.outputs[name].file: path for name, path in self.outputs.items()}
        return Manifest({file: FileEntry(*self.reads[path][:2]) for file, path in names.items()})

    @property
    def files(self) -> dict[str, str]:
        return {name: output.file for name, output in self.step.outputs.items()}

    @property
    def key(self) -> str:
        """Another than that of any call that ct makes: no memo takes for its own what was made elsewhere."""
        said = {"call": self.call.key, "story": self.story.facts, "content": self.manifest.version(self.files)}
        return digest_value(TAG, said)


def adopt(
    project: Project, step: Step, entered: Sequence[AdoptedFiles], story: Story, dry_run: bool = False
) -> list[Adopted]:
    """Take these in, all of them or none. Usage error with every problem."""
    if not step.made_elsewhere:
        way = f"take it out of {step.source.name} and declare it in {step.name}.toml with made_elsewhere = true"
        raise Usage(f"{step.name} is made by ct ({step.source.name}): `ct run {step.name}` makes it; or {way}")
    if not dry_run:
        project.catalog.refuse_archived()
    refuse_without_store(project)
    problems = [*_text_problems(story), *_output_problems(step, entered)]
    params = _params(project, step, story.params, problems)
    calls = {} if params is None else _calls(project, step, entered, params, story.named, problems)
    reads = _reads(entered, problems)
    if not problems:
        files = [(calls[one.partition].node, calls[one.partition].edges, one.outputs.values()) for one in entered]
        with project.catalog.read() as connection:
            problems += known_files(project, connection, files, reads)
    if problems:
        raise Usage(f"{step.name}: {_count(problems)}; nothing was adopted\n  " + "\n  ".join(problems))
    ready = [_Ready(calls[one.partition], one.outputs, reads, step, story) for one in entered]
    if dry_run:
        return [_adopted(one) for one in ready]
    if step.level == "cohort":
        rule_history.record_rules(project)
    if not project.store.is_there:
        project.store.ensure()
    keep_code_of(project, step.name)
    published = [_publish(project, one) for one in ready]
    numbers = ledger.record(project, published)
    return [
        _adopted(one, numbers[one.call.node], made.discarded is not None)
        for one, made in zip(ready, published, strict=True)
    ]


def _adopted(one: _Ready, number: int | None = None, same: bool = False) -> Adopted:
    manifest, call = one.manifest, one.call
    size = sum(entry.size for entry in manifest.files.values())
    return Adopted(call.node, manifest.version(one.files), size, len(call.edges), len(call.members), number, same)


def _count(problems: Sequence[str]) -> str:
    return f"{len(problems)} problem{'s' * (len(problems) != 1)}"


def _text_problems(story: Story) -> Iterator[str]:
    said = {"--made-by": story.made_by, "--reason": story.reason}
    said |= {f"--tool {name}": version for name, version in story.tools.items()}
    for option, text in said.items():
        if not text.isprintable():
            yield f"{option} {text!r:.80}: one line of text is expected"
    if not story.made_by.strip():
        yield '--made-by: say which pipeline made it, as in --made-by "GLnexus at the sequencing centre"'


def _output_problems(step: Step, entered: Sequence[AdoptedFiles]) -> Iterator[str]:
    seen: set[str] = set()
    for one in entered:
        declared = ", ".join(step.outputs)
        for name in (*one.outputs, *one.checksums):
            if name not in step.outputs:
                yield f"{one.where}{step.name} has no output {name!r}; it has: {declared}"
        for name in step.outputs:
            if name not in one.outputs:
                yield f"{one.where}{one.partition}: output {name} is not given: --output {name}=FILE"
        places = [str(path.resolve()) for path in one.outputs.values()]
        if len(set(places)) < len(places):
            yield f"{one.where}{one.partition}: two outputs are one file"
        if one.partition in seen:
            yield f"{one.where}{one.partition} is given twice; leave one of them out"
        seen.add(one.partition)


def _params(project: Project, step: Step, said: Mapping[str, str], problems: list[str]) -> dict[str, Any] | None:
    """The parameters as they were used, typed like the declared ones."""
    today = parameters_of(project.params(step))
    found: dict[str, Any] = {}
    for name, text in said.items():
        try:
            found[name] = _typed(text, today[name]) if name in today else text
        except ValueError:
            kind = type(today[name]).__name__
            problems.append(f"--param {name}={text}: of type {kind}, as the declared {today[name]!r}")
    try:
        project.params(step, found)
    except StepError as error:
        problems.append(f"--param: {error}")
        return None
    return found


def _typed(text: str, like: Any) -> Any:
    if isinstance(like, bool):
        if text not in ("true", "false"):
            raise ValueError(text)
        return text == "true"
    if isinstance(like, list):
        return [one.strip() for one in text.split(",")]
    return type(like)(text) if isinstance(like, int | float) else text


def _calls(
    project: Project,
    step: Step,
    entered: Sequence[AdoptedFiles],
    params: Mapping[str, Any],
    named: NamedInputs,
    problems: list[str],
) -> dict[str, PreparedCall]:
    """The call of each node, as far as its inputs are there and may be used."""
    keys = list(dict.fromkeys(one.partition for one in entered))
    with project.catalog.read() as connection:
        found, wrong = prepare_named(project, step, keys, params, named, connection)
    problems += wrong
    where = {one.partition: one.where for one in entered}
    seen = mask_of(project) if found.blocked else UNMASKED
    for key, why in found.blocked.items():
        # Whoever names somebody hidden is told why they are not used, as by `ct run`.
        mine = UNMASKED if seen.hides((step.name, key)) else seen
        problems.append(f"{where[key]}{mine.mask_words(why)}")
    return {call.node[1]: call for call in found.ready.values()}


def _reads(entered: Sequence[AdoptedFiles], problems: list[str]) -> dict[Path, Read]:
    """Read all files. One that is missing is told before hours are spent on the others."""
    paths = [path for one in entered for path in one.outputs.values()]
    reads, wrong = try_digests(dict.fromkeys(paths), go_on=False)
    problems += [f"{path}: {said}" for path, said in wrong.items()]
    for one in entered:
        for name, stated in one.checksums.items():
            path = one.outputs.get(name)
            if path in reads and (said := _checksum_problem(path, stated, reads[path][0])):
                problems.append(f"{one.where}{said}")
    return reads


def _checksum_problem(path: Path, stated: str, digest: str) -> str | None:
    """A checksum is `md5:…`, `sha256:…` or `blake3:…`; 32 digits alone are an MD5, 64 a BLAKE3 or a SHA-256."""
    algorithm, cut, wanted = stated.lower().rpartition(":")
    if not cut:
        algorithm = {32: "md5", 64: "blake3" if wanted == digest else "sha256"}.get(len(wanted), "")
    if algorithm not in ALGORITHMS:
        return f"{path}: checksum {stated!r:.80}: md5:…, sha256:… or blake3:… is expected"
    is_now = digest if algorithm == "blake3" else checksum_file(path, algorithm)
    return None if is_now == wanted else f"{path}: {algorithm} is {is_now}, and {wanted} is stated; copy it again"


def _publish(project: Project, one: _Ready) -> PublishedArtifact:
    """Copy the files into the store, and publish them as one artifact."""
    store, call, key, manifest = project.store, one.call, one.key, one.manifest
    staged = store.stage(*call.node, key)
    try:
        for name, path in one.outputs.items():
            place = staged / one.step.outputs[name].file
            place.parent.mkdir(parents=True, exist_ok=True)
            _copy(path, place, one.reads[path], store.root)
        published = store.publish(staged, *call.node, key, _sidecar(project, one, key), list(manifest.files))
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    if published.manifest.files != manifest.files:
        store.remove(published.folder)
        raise InputError(f"{name_of(call.node)}: the copy has other bytes than what was read; adopt it again")
    return published


def _copy(path: Path, place: Path, read: Read, store: Path) -> None:
    try:
        shutil.copyfile(path, place)
        seen = Signature.of(path)
    except OSError as error:
        raise InputError(f"cannot copy {path} into {store}: {error.strerror or error}") from error
    if seen != Signature(*read[1:]):
        raise InputError(f"{path} changed while it was read; adopt it again when nobody writes into it")


def _sidecar(project: Project, one: _Ready, key: str) -> dict[str, Any]:
    """As that of a call."""
    call, step = one.call, one.step
    return {
        "format": "ct.artifact.v1",
        "node": list(call.node),
        "level": step.level,
        "key": key,
        "recipe": {
            "step": call.recipe.step,
            "code": call.recipe.code,
            "parameters": dict(call.recipe.parameters),
            "environment": dict(call.recipe.environment),
        },
        "inputs": [list(edge) for edge in call.edges],
        "members": members_with_roles(step, call),
        "rule": project.settings.cohorts[call.node[1]].version if step.level == "cohort" else None,
        "outputs": one.files,
        "facts": one.story.facts,
        "undeclared": None,
        "reason": one.story.words,
        "run_id": None,
        "actor": project.catalog.actor,
        "host": None,  # where it was made is not known
        "git": commit_of(step.source),
        "started_at": now(),
        "seconds": 0.0,
    }
