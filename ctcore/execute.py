"""④ One call of a step, on whatever machine it lands: read the StepCall, run, check, publish, write the StepResult.

Runs on compute nodes: no catalog, no Dagster, only this package and the step's own libraries.
"""

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
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ctcore import sandbox
from ctcore.alone import adopt, alone, in_the_project, looked_for, where_instead
from ctcore.clock import utc
from ctcore.code import Code, code_of
from ctcore.code.environment import local_files
from ctcore.code.tools import tool_versions
from ctcore.digest import Signature
from ctcore.errors import ContractError, CtError, InputError, StepError
from ctcore.facts import typed
from ctcore.known import Known
from ctcore.reasons import differences
from ctcore.rules import qc_problem
from ctcore.step import Call, Source, Step
from ctcore.steps import load_file, params_of
from ctcore.store import Store, way_out
from ctcore.watch import Seen


@dataclass(frozen=True)
class StepCall:
    """Everything that a call needs, as a file. Paths are absolute; `watch` are signatures of what it reads. `rule`: the
    version of the cohort's rule that chose the members; it is no part of the key."""

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
    watch: Sequence[tuple[str, int, int, int]]
    reason: str
    run_id: str | None
    cpus: int | None = None
    rule: str | None = None
    sandbox: str = "watch"

    def place(self, work: Path) -> Path:
        """Where it waits for a worker."""
        return work / "calls" / f"{self.attempt}.json"

    def write(self, work: Path) -> Path:
        return write_json(self.place(work), asdict(self))

    def log(self, work: Path) -> Path:
        """Where its output goes."""
        return work / "logs" / self.node[0] / self.node[1] / f"{self.key[:16]}.{self.attempt[:6]}.log"


@dataclass(frozen=True)
class StepResult:
    """How a call ended. `error` is None where it published an artifact. `used` is what it took, and where."""

    attempt: str
    node: tuple[str, str]
    key: str
    error: str | None = None
    log: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    used: Mapping[str, Any] = field(default_factory=dict)


def write_json(path: Path, value: Any) -> Path:
    """Write a file that is seen whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_text(json.dumps(value))
    part.rename(path)
    return path


def forget(work: Path, older_than_s: float) -> None:
    """Remove calls and results that nobody waits for: their run was killed, and what they published is in the store."""
    before = time.time() - older_than_s
    for folder in (work / "calls", work / "results", work / "jobs"):
        for path in folder.glob("*"):
            with suppress(FileNotFoundError):  # another run may be tidying too
                if path.stat().st_mtime < before:
                    path.unlink()


def run_calls(work: str, store: str, calls: Iterable[str]) -> int:
    """Run calls one after another; each leaves its result as soon as it has ended. Gives the number that failed."""
    sys.dont_write_bytecode = True  # step files are read as they are, see ctcore.steps
    failed = 0
    work, store = os.path.abspath(work), os.path.abspath(store)
    for path in map(os.path.abspath, calls):
        call = StepCall(**json.loads(Path(path).read_bytes()))
        log, before = call.log(Path(work)), _usage()
        with _output_into(log):
            error, facts = _run(call, Store(Path(store)), Path(work).parent)
        result = StepResult(call.attempt, call.node, call.key, error, str(log), facts, _used(before))
        write_json(Path(work) / "results" / f"{call.attempt}.json", asdict(result))
        failed += error is not None
    return failed


def _usage() -> tuple[float, float]:
    """The clock, and the processor time of this process and of the tools that it ran."""
    own, tools = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return time.monotonic(), own.ru_utime + own.ru_stime + tools.ru_utime + tools.ru_stime


def _used(before: tuple[float, float]) -> dict[str, Any]:
    """Since then; memory is the most that this process or one of its tools had at once."""
    clock, cpu = _usage()
    most = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return {
        "node": os.environ.get("SLURMD_NODENAME") or socket.gethostname(),
        "elapsed_s": round(clock - before[0], 3),
        "cpu_s": round(cpu - before[1], 3),
        "used_mb": round(most / 1024, 1),
    }


def _run(call: StepCall, store: Store, project: Path) -> tuple[str | None, dict[str, Any]]:
    try:
        return None, execute(call, store, project)
    except CtError as error:
        print(error, file=sys.stderr, flush=True)
        return str(error), {}
    except (Exception, SystemExit) as error:  # the worker's edge: whatever a step raises is a failed call
        print_traceback(error)
        return words_of(error, store.root, in_the_project(looked_for(error), project)), {}


def words_of(error: BaseException, store: Path, hint: str | None = None) -> str:
    """What a person reads of whatever a step raised."""
    if isinstance(error, CtError):
        return str(error)
    way = way_out(error) if isinstance(error, OSError) else None
    more = f" ({store}); {way}" if way else f"; {hint}" if hint else ""
    return f"{type(error).__name__}: {error}{more}"


def print_traceback(error: BaseException) -> None:
    """From the step's own code on: how it was called is no news."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename == __file__:
        frames = frames.tb_next
    traceback.print_exception(type(error), error, frames or error.__traceback__)


def execute(call: StepCall, store: Store, project: Path) -> dict[str, Any]:
    """Run the step's function in a private folder and publish what it made. Returns the facts it measured."""
    seen = watcher(call) if call.sandbox == "watch" else None
    with seen or nullcontext():
        step, code = step_of(call)
    started, clock = time.time(), time.monotonic()
    _unchanged(call)
    staged = store.stage(*call.node, call.key)
    try:
        with alone(staged) as place:
            if call.sandbox == "strict":
                done = sandbox.run(asdict(call), step, declared_by(call, step, code, staged, project), place)
            else:
                done = perform(call, step, code, staged, place, project, seen)
        _unchanged(call)
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
            "host": socket.gethostname(),
            "started_at": utc(started),
            "seconds": round(time.monotonic() - clock, 3),
        }
        names = [output.file for output in step.outputs.values()]
        store.publish(staged, *call.node, call.key, sidecar, names)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return done["facts"]


def watcher(call: StepCall) -> Seen:
    return Seen(f"{call.source} {call.node[0]}")


def perform(
    call: StepCall, step: Step, code: Code, staged: Path, place: Path, project: Path, seen: Seen | None
) -> dict[str, Any]:
    """The step's function, in the folder that is the call's own, and what it must keep. Gives its facts, and what it
    read that it does not declare (None where nobody watches)."""
    given, files = _call(call, step, staged), [output.file for output in step.outputs.values()]
    with seen.inside(str(staged), os.environ["TMPDIR"], notes=place.parent, root=project) if seen else nullcontext():
        facts = _facts(step, step.function(given) or {})
        adopt(place, staged, files)
        _keep_contracts(step, staged, place, seen.written if seen else ())
    undeclared = None if seen is None else seen.undeclared(declared_by(call, step, code, staged, project))
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
    roles = {(level, who): json.loads(role) for name, level, who, role in call.edges if name == f"role:{step.role}"}
    return Call(
        entity=call.node[1],
        level=step.level,
        folder=folder,
        outputs={name: output.file for name, output in step.outputs.items()},
        files={role: Path(path) for role, path in call.files.items()},
        references={key: Path(path) for key, path in call.references.items()},
        inputs={
            name: [_source(entity, Path(place), roles) for entity, place in sources]
            for name, sources in call.inputs.items()
        },
        columns={(name, who): json.loads(value) for name, _, who, value in call.edges if name in step.columns},
        params=params_of(step, call.recipe["parameters"]),
        cpus=call.cpus or step.resources.cpus or 1,
    )


def _source(entity: str, folder: Path, roles: Mapping[tuple[str, str], Any]) -> Source:
    """An upstream artifact: its outputs by the names that its own step gives them."""
    sidecar = json.loads((folder / "ct.json").read_bytes())
    outputs = {output: folder / file for output, file in sidecar["outputs"].items()}
    return Source(entity, outputs, roles.get((sidecar["level"], entity)))


def _facts(step: Step, returned: Mapping[str, Any]) -> dict[str, Any]:
    facts, problems = typed(returned, step.facts)
    if problems:
        listed = "\n  ".join(problems)
        raise ContractError(f"{step.name} returns what does not fit; nothing was published\n  {listed}")
    if (problem := qc_problem(facts, step.level)) is not None:
        raise StepError(f"{step.name}: {problem}")
    return facts


def declared_by(call: StepCall, step: Step, code: Code, staged: Path, project: Path) -> Known:
    """What the step declares, as places on this machine; with the files and modules that its code's digest covers."""
    upstream = [place for sources in call.inputs.values() for _, place in sources]
    beside = [step.source.parent / name for name in code.content.get("files", ())]
    named = [note.file for note in code.whole if not note.file.endswith(".py")]
    modules = [path for name in named for path in (local_files(name) or {}).values()]
    files = [*call.files.values(), *call.references.values()]
    return Known(project, files, [str(staged), *upstream], list(map(str, [*beside, *modules])), list(step.tools))


def _keep_contracts(step: Step, folder: Path, place: Path, written: Collection[str]) -> None:
    problems: list[str] = []
    files = [output.file for output in step.outputs.values()]
    for name, output in step.outputs.items():
        path = folder / output.file
        if not path.is_file():
            instead = where_instead(place, folder, name, output.file, files, written)
            problems.append(f"output {name} ({output.file}) was not written{instead}")
        elif output.contract is not None:
            problems.extend(f"{output.file}: {said}" for said in output.contract.problems(path))
    if problems:
        listed = "\n  ".join(problems)
        raise ContractError(f"{step.name} breaks its contract; nothing was published\n  {listed}")


def _unchanged(call: StepCall) -> None:
    """What the call reads is what its key was made from; a file that was touched since is another input."""
    for path, *known in call.watch:
        try:
            seen = Signature.of(Path(path))
        except OSError as error:
            raise InputError(f"{path}: {error.strerror}; put it back, then run again") from error
        if [seen.size, seen.mtime_ns, seen.inode] != known:
            raise InputError(f"{path} changed since it was last looked at; `ct verify`, then run again")


@contextmanager
def _output_into(log: Path) -> Iterator[None]:
    """Send what the step and its tools print into a file of its own."""
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        os.dup2(target, 1)
        os.dup2(target, 2)
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(saved[0], 1)
        os.dup2(saved[1], 2)
        for handle in (*saved, target):
            os.close(handle)
