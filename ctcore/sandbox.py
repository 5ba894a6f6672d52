"""④ A call for which only what it declares is there: `[run] sandbox = "strict"`, by bubblewrap (bwrap).

The worker stages and publishes; the step's file is loaded and its function is run by a process of its own, in which the
system and the environment of Python can be read, what is declared can be read at its own place, and the staged folder
can be written. There is no network.
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

from ctcore.alone import in_the_project
from ctcore.errors import StepError
from ctcore.known import CT, INDEXES, Known
from ctcore.step import Step

_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc", "/opt", "/sys")
_EMPTY = ("/tmp", "/var/tmp", "/run")
_BEGIN = f"import sys; sys.path.append({str(Path(CT).parent)!r}); from ctcore.sandboxed import main; main(sys.argv[1:])"
_INSTEAD = 'or say sandbox = "watch" under [run] in ct.toml'
_MANY = 200
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


def run(call: Mapping[str, Any], step: Step, known: Known, place: Path) -> dict[str, Any]:
    """Run a call so, in the working directory that is its own. Gives what `perform` gives; StepError where it fails."""
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
    with open(scratch / _SHOWN, "rb") as shown:  # the words of a command line are not enough for a cohort's inputs
        command = ["bwrap", "--args", str(shown.fileno()), "--", *inside]
        ended = subprocess.run(command, pass_fds=[shown.fileno()], check=False)
    try:
        outcome = json.loads((scratch / OUTCOME).read_bytes())
    except FileNotFoundError:
        raise StepError(f"the call ended without a result (exit code {ended.returncode}); see its log") from None
    if (error := outcome["error"]) is not None:
        hint = in_the_project(outcome["looked_for"], known.root) or _is_hidden(outcome["looked_for"])
        raise StepError(error + (f"; {hint}" if hint else ""))
    return {"facts": outcome["facts"], "undeclared": outcome["undeclared"]}


def _is_hidden(names: Iterable[str]) -> str | None:
    found = next((name for name in names if os.path.isabs(name) and os.path.exists(name)), None)
    return found and (
        f'{found} is there, and [run] sandbox = "strict" shows a step only what it declares: declare it'
        " (references=…, files=…, inputs=…, code=… or tools=…)"
    )


def _shown(step: Step, known: Known, staged: Path, place: Path) -> Iterator[str]:
    """All that can be seen, for bwrap. Later words lie over earlier ones."""
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
        yield from ("--ro-bind-try", path, path)
    for path in masks:
        yield from ("--tmpfs", path)
    for path in (str(staged), os.environ["TMPDIR"]):
        yield from ("--bind", path, path)
    yield from ("--remount-ro", "/", "--chdir", str(place))


def _few(places: Sequence[str]) -> tuple[list[str], list[str]]:
    """bubblewrap takes ever longer for each place. Of many artifacts of one step the whole folder is shown, and what is
    not among them is hidden again, where that is less."""
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


def _readable(step: Step, known: Known, places: Sequence[str]) -> list[str]:
    """Outermost first: what lies inside of something else must be laid over it."""
    prefixes = [one for one in (sys.prefix, sys.base_prefix, CT) if not _within(one, _SYSTEM)]
    code = [str(step.source), *_modules(step.source.parent), *known.code]
    tools = [found for name in known.tools if (found := shutil.which(name)) and not _within(found, _SYSTEM)]
    paths = {os.path.abspath(one) for one in (*prefixes, *code, *tools, *known.files, *places)}
    return sorted(paths | {one for file in known.files for one in _indexes(file)})


def _modules(folder: Path) -> Iterator[str]:
    for inside, folders, names in os.walk(folder):
        folders[:] = [one for one in folders if one[:1] != "." and one != "__pycache__"]
        yield from (os.path.join(inside, name) for name in names if name.endswith(".py"))


def _indexes(file: str) -> Iterator[str]:
    """What lies beside a declared file and belongs to it, see `ctcore.known`."""
    yield from glob.glob(f"{glob.escape(file)}.*")
    stem = os.path.splitext(file)[0]
    yield from (stem + end for end in INDEXES if os.path.exists(stem + end))


def _within(path: str, folders: Sequence[str]) -> bool:
    return os.path.join(path, "").startswith(tuple(f"{folder}/" for folder in folders))
