"""One call of a step, on whatever machine it lands: read the StepCall, run, check, publish, write the StepResult.

Runs on compute nodes: no catalog, no Dagster, only this package and the step's own libraries.
"""

import errno
import json
import os
import resource
import shutil
import socket
import sys
import time
import traceback
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ctcore.code import Code, code_of
from ctcore.code.environment import local_files
from ctcore.code.loader import load_file
from ctcore.code.tool_versions import tool_versions
from ctcore.config.qc_and_consent import qc_problem
from ctcore.errors import ContractError, CtError, InputError, StepError
from ctcore.execution import sandbox
from ctcore.execution.allowed_reads import AllowedReads
from ctcore.execution.audit_hook import ObservedReads
from ctcore.execution.forks import call_function
from ctcore.execution.private_folder import (
    OpenFile,
    adopt,
    missing_file_names,
    missing_output_hint,
    private_folder,
    project_path_hint,
)
from ctcore.execution.strace import FOLDER as TRACED
from ctcore.execution.strace import PrivilegedProgram, Tracer, Worth
from ctcore.model.levels import LEVELS
from ctcore.model.node import name_of
from ctcore.model.reasons import differences
from ctcore.step import Call, Source, Step
from ctcore.steps.facts import typed_facts
from ctcore.steps.graph import params_of
from ctcore.store.call_log import pack
from ctcore.store.digest import Signature
from ctcore.store.folder_content import signature_at, try_contents
from ctcore.store.manifest import SIDECAR, version_in_sidecar
from ctcore.store.store import Store
from ctcore.util.atomic_file import leave_json
from ctcore.util.clock import utc
from ctcore.util.disk_errors import reason_of, way_out

_OURS, _PYTHON = Path(__file__).parents[1], Path(traceback.__file__).parent


@dataclass(frozen=True)
class StepCall:
    """Everything that a call needs, as a file. Paths are absolute. `watch`: the files it reads, with size, mtime,
    inode, ctime and digest; `reads_first`: check the digests whatever the signatures say. `rule`: the version of the
    cohort's rule; `actor`, `git`: who requested it, and the commit of the step's file. None of these is part of the
    key."""

    attempt: str
    node: tuple[str, str]
    level: str
    key: str
    source: str
    recipe: Mapping[str, Any]
    files: Mapping[str, str]
    references: Mapping[str, str]
    inputs: Mapping[str, Sequence[tuple[str, str]]]
    edges: Sequence[Sequence[str]]
    members: Sequence[Sequence[str]]
    watch: Sequence[tuple[str, int, int, int, int, str]]
    reason: str
    run_id: str | None
    cpus: int | None = None
    rule: str | None = None
    reads_first: bool = False
    actor: str | None = None
    git: str | None = None
    store: str | None = None  # another than the project's: it is made again beside what is there
    sandbox: str = "watch"
    trace: str = "sparing"

    def place(self, work: Path) -> Path:
        """Where it waits for a worker."""
        return work / "calls" / f"{self.attempt}.json"

    def write(self, work: Path) -> Path:
        place = self.place(work)
        leave_json(str(place), vars(self))
        return place

    def log(self, work: Path) -> Path:
        """Where its output goes."""
        return work / "logs" / self.node[0] / self.node[1] / f"{self.key[:16]}.{self.attempt[:6]}.log"


@dataclass(frozen=True)
class StepResult:
    """How a call ended. `error` is None if it published an artifact. `used` are its resources and its place."""

    attempt: str
    node: tuple[str, str]
    key: str
    error: str | None = None
    log: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    used: Mapping[str, Any] = field(default_factory=dict)


def begun_place(waiting: Path) -> Path:
    """Where a call lies that a worker has come to. By the rename, nobody can take it back."""
    return waiting.with_suffix(".begun")


def forget(work: Path, older_than_s: float) -> None:
    """Remove calls and results of killed runs, for which nobody waits. Their artifacts are in the store."""
    before = time.time() - older_than_s
    for folder in (work / "calls", work / "results", work / "jobs", work / TRACED):
        for path in folder.glob("*"):
            with suppress(FileNotFoundError):  # another run may be tidying too
                if path.stat().st_mtime < before:
                    path.unlink()


def run_calls(work: str, store: str, calls: Iterable[str]) -> int:
    """Run calls one after another; each leaves its result as soon as it has ended. Gives the number that failed."""
    sys.dont_write_bytecode = True  # step files are read as they are, see ctcore.steps.graph
    failed = 0
    work, store = os.path.abspath(work), os.path.abspath(store)
    for path in map(os.path.abspath, calls):
        call = StepCall(**json.loads(Path(path).read_bytes()))
        log, before = call.log(Path(work)), _usage()
        with _output_into(log):
            error, facts = _run(call, Store(Path(call.store or store)), log, Path(work).parent)
        # Last of all: whoever sees this record may take for granted that the artifact is published.
        result = StepResult(call.attempt, call.node, call.key, error, str(log), facts, _used(before))
        leave_json(f"{work}/results/{call.attempt}.json", vars(result))
        failed += error is not None
    return failed


def _usage() -> tuple[float, float]:
    """The clock, and the processor time of this process and of the tools that it ran."""
    # Of children, only those that ended and were waited for count (getrusage(2)).
    own, tools = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return time.monotonic(), own.ru_utime + own.ru_stime + tools.ru_utime + tools.ru_stime


def _used(before: tuple[float, float]) -> dict[str, Any]:
    """Since then; memory is the most that this process or one of its tools had at once."""
    clock, cpu = _usage()
    # ru_maxrss has KiB on Linux; of children it is the largest one's, and not their sum (getrusage(2)).
    most = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return {
        "node": os.environ.get("SLURMD_NODENAME") or socket.gethostname(),
        "elapsed_s": round(clock - before[0], 3),
        "cpu_s": round(cpu - before[1], 3),
        "used_mb": round(most / 1024, 1),
    }


def _run(call: StepCall, store: Store, log: Path, project: Path) -> tuple[str | None, dict[str, Any]]:
    try:
        return None, execute(call, store, log, project)
    except CtError as error:
        said = error_text(error, store.root, project=project)
        print(said, file=sys.stderr, flush=True)
        return said, {}
    except PrivilegedProgram as hindered:
        print(f"{hindered} cannot be traced; the call is made again without that", file=sys.stderr, flush=True)
        Worth(project / "work", call.recipe).hindered(str(hindered))
        return _run(replace(call, trace="off"), store, log, project)
    except (Exception, SystemExit) as error:  # the worker's edge: whatever a step raises is a failed call
        print_traceback(error)
        return error_text(error, store.root, project_path_hint(missing_file_names(error), project)), {}


def error_text(error: BaseException, store: Path, hint: str | None = None, project: Path | None = None) -> str:
    """The text for people of whatever a step raised. An error of ct's own begins with the line of the step, because
    no traceback shows it."""
    if isinstance(error, CtError):
        return f"{own_line(error, project)}{error}"
    way = way_out(error) if isinstance(error, OSError) else None
    if isinstance(error, OSError) and error.errno == errno.EMFILE:
        hint = reason_of(error)
    more = f" ({store}); {way}" if way else f"; {hint}" if hint else ""
    return f"{type(error).__name__}: {error}{more}"


def own_line(error: BaseException, project: Path | None) -> str:
    """`steps/toy.py, line 12: `, of the step's own code that asked ct for what is not there; empty if none did.

    A library between the step and ct is not its own code.
    """
    found, last, frames = "", Path(), error.__traceback__
    while frames is not None:
        last = Path(frames.tb_frame.f_code.co_filename)
        if not last.is_relative_to(_OURS) and not last.is_relative_to(_PYTHON) and "site-packages" not in last.parts:
            place = last.relative_to(project) if project and last.is_relative_to(project) else last
            found = f"{place}, line {frames.tb_lineno}: "
        frames = frames.tb_next
    return found if last == _OURS / "step.py" else ""


def print_traceback(error: BaseException) -> None:
    """From the step's own code on: how it was called is no news."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename == __file__:
        frames = frames.tb_next
    traceback.print_exception(type(error), error, frames or error.__traceback__)


def execute(call: StepCall, store: Store, log: Path, project: Path) -> dict[str, Any]:
    """Run the step's function in a private folder and publish its outputs. Returns its facts.

    `log` holds its output, which is kept beside the artifact.
    """
    watching = watcher(call) if call.sandbox == "watch" else None
    with watching or nullcontext():
        step, code = step_of(call)
    started, clock = time.time(), time.monotonic()
    # Before and after the step: what changes while it is read would go into a result under the old digest (0018).
    seen = _unchanged(call, step)
    store.refuse_missing()
    staged = store.stage(*call.node, call.key)
    try:
        with private_folder(staged) as place:
            if call.sandbox == "strict":
                done = sandbox.run(asdict(call), step, declared_reads(call, step, code, staged, project), place)
            else:
                done = perform(call, step, code, staged, place, project, watching)
        _unchanged(call, step, seen, watching.written if watching else ())
        sidecar = {
            "format": "ct.artifact.v1",
            "node": list(call.node),
            "level": call.level,
            "key": call.key,
            "recipe": dict(call.recipe),
            "inputs": [list(edge) for edge in call.edges],
            "members": [list(member) for member in call.members],
            "rule": call.rule,
            "outputs": {name: output.file for name, output in step.outputs.items()},
            **done,
            "reason": call.reason,
            "run_id": call.run_id,
            "actor": call.actor,
            "host": socket.gethostname(),
            "git": call.git,
            "started_at": utc(started),
            "seconds": round(time.monotonic() - clock, 3),
        }
        names = [output.file for output in step.outputs.values()]
        # `pack` reads the log from the disk: what Python still holds in its buffers would be missing there.
        sys.stdout.flush()
        sys.stderr.flush()
        store.publish(staged, *call.node, call.key, sidecar, names, log=pack(log))
    except Exception:
        # A disk that went away makes any error: its own words are the ones that help.
        store.refuse_missing()
        raise
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return done["facts"]


def watcher(call: StepCall) -> ObservedReads:
    return ObservedReads(f"{call.source} {call.node[0]}")


def perform(
    call: StepCall, step: Step, code: Code, staged: Path, place: Path, project: Path, seen: ObservedReads | None
) -> dict[str, Any]:
    """Run the step's function in the call's own folder and check its outputs. Returns its facts and its undeclared
    reads (None if nobody watches)."""
    given, files = _call(call, step, staged), [output.file for output in step.outputs.values()]
    worth = Worth(project / "work", call.recipe)
    tracer = Tracer(place.parent, seen.line) if seen and call.sandbox == "watch" and worth.wants(call.trace) else None
    with seen.inside(str(staged), os.environ["TMPDIR"], notes=place.parent, root=project) if seen else nullcontext():
        try:
            with tracer or nullcontext():
                returned = call_function(step.function, given, place.parent)
        finally:
            if tracer is not None:
                tracer.check()
        if seen is not None and tracer is not None:
            worth.cost(tracer.share)
            seen.record_traced(tracer)
        facts = _facts(step, returned)
        adopt(place, staged, files)
        _keep_contracts(step, staged, place, seen.written if seen else ())
    undeclared = None if seen is None else seen.undeclared(declared_reads(call, step, code, staged, project))
    return {"facts": facts, "undeclared": undeclared}


def step_of(call: StepCall) -> tuple[Step, Code]:
    """The step's declaration and its code, if that is still the code that the call was made for."""
    name = call.node[0]
    step = next((one for one in load_file(Path(call.source)) if one.name == name), None)
    if step is None:
        raise StepError(f"{call.source} declares no step {name!r} any more")
    code = code_of(step)
    if code.digest != call.recipe["code"]:
        raise StepError(f"the code of {name} changed after this call was made; run it again")
    here, asked = {**code.environment, **tool_versions(step.tools)}, dict(call.recipe["environment"])
    if other := differences(asked, {**asked, **here}):
        raise StepError(
            f"the environment of {name} on {socket.gethostname()} is not that of where the call was made: {other}; "
            "use the same versions on both"
        )
    return step, code


def _call(call: StepCall, step: Step, folder: Path) -> Call:
    known = _Known(call, step)
    return Call(
        entity=call.node[1],
        level=step.level,
        folder=folder,
        outputs={name: output.file for name, output in step.outputs.items()},
        files={role: Path(path) for role, path in call.files.items()},
        references={key: Path(path) for key, path in call.references.items()},
        inputs={
            name: [_source(name, entity, Path(place), known) for entity, place in sources]
            for name, sources in call.inputs.items()
        },
        columns=known.own,
        params=params_of(step, call.recipe["parameters"]),
        cpus=call.cpus or step.resources.cpus or 1,
    )


class _Known:
    """Columns and roles by level and ID, as the call's edges have them: an ID may stand on several levels."""

    def __init__(self, call: StepCall, step: Step) -> None:
        self.columns: dict[tuple[str, str], dict[str, Any]] = {}
        self.roles: dict[tuple[str, str], Any] = {}
        self.versions = {(name, who): version for name, _, who, version in call.edges if name in step.inputs}
        for name, level, who, value in call.edges:
            if name in step.columns:
                self.columns.setdefault((level, who), {})[name] = json.loads(value)
            elif name == f"role:{step.role}":
                self.roles[level, who] = json.loads(value)
        self.own = self.columns.get((step.level, call.node[1]), {})

    def of(self, level: str, who: str) -> dict[str, Any]:
        """A source below or above the node has the node's own values of every level that is above both."""
        reach = LEVELS[: LEVELS.index(level) + 1]  # type: ignore[arg-type]
        shared = {name: value for name, value in self.own.items() if name.partition(".")[0] in reach}
        return {**shared, **self.columns.get((level, who), {})}


def _source(name: str, entity: str, folder: Path, known: _Known) -> Source:
    """An upstream artifact: its outputs by the names that its own step gives them, which its data version covers."""
    place = folder / SIDECAR
    sidecar = json.loads(place.read_bytes())
    if version_in_sidecar(sidecar) != known.versions[name, entity]:
        raise InputError(
            f"{place} differs from the published bytes of input {name} of {entity}; `ct verify`, then run again"
        )
    # By the sidecar and not by the step of today, which may have renamed its outputs since.
    outputs = {output: folder / file for output, file in sidecar["outputs"].items()}
    level = sidecar["level"]
    return Source(entity, outputs, known.roles.get((level, entity)), level, known.of(level, entity))


def _facts(step: Step, returned: Mapping[str, Any]) -> dict[str, Any]:
    facts, problems = typed_facts(returned, step.facts)
    if problems:
        listed = "\n  ".join(problems)
        raise ContractError(f"{step.name} returns facts that do not fit; nothing was published\n  {listed}")
    if (problem := qc_problem(facts, step.level)) is not None:
        raise StepError(f"{step.name}: {problem}")
    return facts


def declared_reads(call: StepCall, step: Step, code: Code, staged: Path, project: Path) -> AllowedReads:
    """The step's declared places on this machine, with the files and modules that its code's digest covers."""
    upstream = [place for sources in call.inputs.values() for _, place in sources]
    labels = {file for file, _, _ in code.content["source"]} | set(code.content.get("files", ()))
    beside = [step.source.parent / name for name in labels]
    named = [note.file for note in code.whole if not note.file.endswith(".py")]
    modules = [path for name in named for path in (local_files(name) or {}).values()]
    given = {path: os.path.isdir(path) for path in (*call.files.values(), *call.references.values())}
    files, folders = ([path for path, is_folder in given.items() if is_folder is kind] for kind in (False, True))
    covered = list(map(str, [*beside, *modules]))
    return AllowedReads(project, files, [str(staged), *upstream], covered, list(step.tools), folders)


def _keep_contracts(step: Step, folder: Path, place: Path, written: Collection[str]) -> None:
    problems: list[str] = []
    files = [output.file for output in step.outputs.values()]
    for name, output in step.outputs.items():
        path = folder / output.file
        if not path.is_file():
            instead = missing_output_hint(place, folder, name, output.file, files, written)
            problems.append(f"output {name} ({output.file}) was not written{instead}")
        elif output.contract is not None:
            problems.extend(f"{output.file}: {said}" for said in output.contract.problems(path))
    if problems:
        listed = "\n  ".join(problems)
        raise ContractError(f"{step.name} breaks its contract; nothing was published\n  {listed}")


def _unchanged(
    call: StepCall, step: Step, before: Mapping[str, Signature] | None = None, written: Collection[str] = ()
) -> Mapping[str, Signature]:
    """Check that the call's inputs are those of its key: a file with another signature is read and must have the same
    digest.

    Returns the signatures. They are checked again at the end, to find files that changed during the call; `written` are
    the files that the step was seen to write.
    """
    seen: dict[str, Signature] = {}
    doubtful: dict[str, str] = {}
    for path, *known, digest in call.watch:
        try:
            seen[path] = signature_at(path)
        except OSError as error:
            raise InputError(f"{path}: {error.strerror or error}; {_way_back(call, step, path)}") from error
        expected = tuple(known) if before is None else before[path]
        if seen[path] != expected or (before is None and call.reads_first):
            doubtful[path] = digest
    reads, problems = try_contents(doubtful)
    for path, digest in doubtful.items():
        if path in problems:
            raise InputError(f"{path}: {problems[path]}; {_way_back(call, step, path)}")
        if reads[path][0] != digest:
            into = (one for name in written for one in (name, os.path.realpath(name)))
            if any(one == path or one.startswith(os.path.join(path, "")) for one in into):
                raise InputError(
                    f"the step wrote into its input {path}; put back what was there, and let the step write only what "
                    "call.out gives, then run again"
                )
            when = "since it was last looked at" if before is None else "while the call ran"
            raise InputError(f"{path} changed {when}; {_way_back(call, step, path, '`ct verify`')}")
        seen[path] = Signature(*reads[path][1:])
    return seen


def _way_back(call: StepCall, step: Step, path: str, own: str = "put it back") -> str:
    """What to do about a lost or changed input: another step's result is made again, people's own files are theirs."""
    for name, sources in call.inputs.items():
        for who, place in sources:
            if path.startswith(os.path.join(place, "")):
                lost = name_of((step.inputs[name], who))
                return f"it belongs to {lost}, which `ct run {lost}` makes again; then run again"
    return f"{own}, then run again"


def _new_file(path: Path) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    try:
        return os.open(path, flags, 0o644)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, flags, 0o644)


@contextmanager
def _output_into(log: Path) -> Iterator[None]:
    """Redirect the output of the step and its tools into a file."""
    sys.stdout.flush()
    sys.stderr.flush()
    target = _new_file(log)
    saved = [(OpenFile(os.dup(number)), number) for number in (1, 2)]
    os.dup2(target, 1)
    os.dup2(target, 2)
    os.close(target)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for before, number in saved:
            # A step that closes whatever is open has closed these, too. Then what follows is said to nobody.
            with before if before.is_there else open(os.devnull, "wb") as place:
                os.dup2(place.fileno(), number)
