"""`[run] sandbox = "strict"`: a call sees only what it declares, by bubblewrap (bwrap).

The worker stages and publishes. A separate process loads the step's file and runs its function. It can read the system,
Python's environment, and declared files at their own places; it can write the staged folder. It has no network.
"""

import glob
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from ctcore.errors import StepError
from ctcore.execution.allowed_reads import CT, INDEXES, AllowedReads
from ctcore.execution.private_folder import project_path_hint
from ctcore.step import Step
from ctcore.store.call_log import log_hint

_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc", "/opt", "/sys")
_EMPTY = ("/tmp", "/var/tmp", "/run")
_BEGIN = (
    f"import sys; sys.path.append({str(Path(CT).parent)!r}); "
    "from ctcore.execution.sandbox_worker import main; main(sys.argv[1:])"
)
_INSTEAD = 'or say sandbox = "watch" under [run] in ct.toml'
# Below it, other artifacts of the step are not listed: to lay each place by itself is quick enough.
_MANY = 200
# MAX_ARGS of bubblewrap.c, for the words of the command line and of --args together.
_MOST = 9000  # words that bwrap takes
CALL, OUTCOME, _SHOWN = ".call.json", ".outcome.json", ".shown"


@cache
def refusal() -> str | None:
    """Why there can be no such call on this machine, and the way out; None where there can."""
    where = 'sandbox = "strict" under [run] in ct.toml'
    program = shutil.which("bwrap")
    if program is None:
        return f"{where} needs bubblewrap, and there is no bwrap on the PATH here: install it, {_INSTEAD}"
    tried = [program, "--ro-bind", "/", "/", "--unshare-net", "--unshare-pid", "--proc", "/proc", "true"]
    done = subprocess.run(tried, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return None
    said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    return f"{where}: bubblewrap cannot work on this machine ({said}): have user namespaces allowed here, {_INSTEAD}"


def run(call: Mapping[str, Any], step: Step, known: AllowedReads, place: Path) -> dict[str, Any]:
    """Run a call in the sandbox, in its own working directory. Returns what `perform` returns; StepError if it
    fails."""
    if (said := refusal()) is not None:
        raise StepError(said)
    scratch, staged = place.parent, place.parent.parent
    (scratch / CALL).write_text(json.dumps(call))
    inside = [sys.executable, "-P", "-c", _BEGIN, str(staged), str(place), str(known.root)]
    words = list(_shown(step, known, staged, place))
    if len(words) > _MOST:
        many = f"{_MOST // 3} places before a call, this one needs {len(words) // 3}"
        raise StepError(f'sandbox = "strict": bubblewrap lays {many}; {_INSTEAD.removeprefix("or ")}')
    (scratch / _SHOWN).write_bytes(b"".join(os.fsencode(word) + b"\0" for word in words))
    # As a file, not as words of the command line: those share 2 MB with the environment (execve(2), ARG_MAX), and a
    # cohort's inputs are more.
    with open(scratch / _SHOWN, "rb") as shown:
        command = ["bwrap", "--args", str(shown.fileno()), "--", *inside]
        ended = subprocess.run(command, pass_fds=[shown.fileno()], check=False)
    try:
        outcome = json.loads((scratch / OUTCOME).read_bytes())
    except FileNotFoundError:
        said = f"the call ended without a result (exit code {ended.returncode}); {log_hint(sys.stdout.fileno())}"
        raise StepError(said) from None
    if (error := outcome["error"]) is not None:
        hint = project_path_hint(outcome["looked_for"], known.root) or _is_hidden(outcome["looked_for"])
        raise StepError(error + (f"; {hint}" if hint else ""))
    return {"facts": outcome["facts"], "undeclared": outcome["undeclared"]}


def _is_hidden(names: Iterable[str]) -> str | None:
    found = next((name for name in names if os.path.isabs(name) and os.path.exists(name)), None)
    return found and (
        f'{found} is there, and [run] sandbox = "strict" shows a step only what it declares: declare it'
        " (references=…, files=…, inputs=…, code=… or tools=…)"
    )


def _shown(step: Step, known: AllowedReads, staged: Path, place: Path) -> Iterator[str]:
    """All visible places, as arguments for bwrap. Later ones lie over earlier ones."""
    # Without the first, a killed worker would leave its call running (bwrap(1); prctl(2), PR_SET_PDEATHSIG).
    yield from ("--die-with-parent", "--unshare-net", "--unshare-pid", "--unshare-ipc", "--unshare-uts")
    for path in _SYSTEM:
        if os.path.islink(path):
            yield from ("--symlink", os.readlink(path), path)
        elif os.path.isdir(path):
            yield from ("--ro-bind", path, path)
    yield from ("--proc", "/proc", "--dev", "/dev", *(word for path in _EMPTY for word in ("--tmpfs", path)))
    home = os.path.expanduser("~")
    if os.path.isabs(home) and home != "/" and not _within(home, _SYSTEM):
        yield from ("--tmpfs", home)
    places, masks = _few(known.places)
    for path in _readable(step, known, places):
        # -try: a declared place that is not there is the step's error, with its line, and not bubblewrap's.
        yield from ("--ro-bind-try", path, path)
    for path in masks:
        yield from ("--tmpfs", path)
    for path in (str(staged), os.environ["TMPDIR"]):
        yield from ("--bind", path, path)
    # bubblewrap's root is a tmpfs of its own: what is written beside the shown places would be gone, and nobody told.
    yield from ("--remount-ro", "/", "--chdir", str(place))


def _few(places: Sequence[str]) -> tuple[list[str], list[str]]:
    """Fewer places, because bubblewrap takes ever longer for each. For many artifacts of one step, show the whole
    folder and hide the others again, if that is less."""
    grouped: dict[str, list[str]] = {}
    for place in places:
        grouped.setdefault(os.path.dirname(os.path.dirname(place)), []).append(place)
    shown: list[str] = []
    masks: list[str] = []
    for folder, mine in grouped.items():
        used = {os.path.basename(os.path.dirname(place)) for place in mine}
        others = set(os.listdir(folder)) - used if len(mine) > _MANY else used
        shown += [folder] if len(others) < len(used) else mine
        masks += [os.path.join(folder, name) for name in sorted(others)] if len(others) < len(used) else []
    return shown, masks


def _readable(step: Step, known: AllowedReads, places: Sequence[str]) -> list[str]:
    """Outermost first: an inner place must be laid over its outer one."""
    prefixes = [one for one in (sys.prefix, sys.base_prefix, CT) if not _within(one, _SYSTEM)]
    code = [str(step.source), *_modules(step.source.parent), *known.code]
    tools = [found for name in known.tools if (found := shutil.which(name)) and not _within(found, _SYSTEM)]
    paths = {os.path.abspath(one) for one in (*prefixes, *code, *tools, *known.files, *known.folders, *places)}
    return sorted(paths | {one for file in known.files for one in _indexes(file)})


def _modules(folder: Path) -> Iterator[str]:
    for inside, folders, names in os.walk(folder):
        folders[:] = [one for one in folders if one[:1] != "." and one != "__pycache__"]
        yield from (os.path.join(inside, name) for name in names if name.endswith(".py"))


def _indexes(file: str) -> Iterator[str]:
    """Files that belong to a declared file and lie beside it, see `ctcore.execution.allowed_reads`."""
    yield from glob.glob(f"{glob.escape(file)}.*")
    stem = os.path.splitext(file)[0]
    yield from (stem + end for end in INDEXES if os.path.exists(stem + end))


def _within(path: str, folders: Sequence[str]) -> bool:
    return os.path.join(path, "").startswith(tuple(f"{folder}/" for folder in folders))
