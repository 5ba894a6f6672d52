"""④ What is said to Slurm, and what it answers: sbatch, squeue, sacct, scancel. Text in, rows out; None: no answer.

A scheduler that does not answer says nothing about jobs: whoever asked waits and asks again.
"""

import os
import re
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

PATIENCE_S = 60
ACCOUNTING_S = 20  # what sacct gives is worth less than what the queue gives, and the watcher waits for it
Named = tuple[str, str]  # an array's name and a task's ID: a controller that was killed gives a number twice
_QUEUE = "JobArrayID:|,Name:|,State:|,Reason:|,NodeList:|,TimeUsed:|,exit_code:|"
_ACCOUNT = "JobID,JobName,State,ExitCode,NodeList,ElapsedRaw,TotalCPU,MaxRSS"
_NOT_FOR_JOBS = ("SBATCH_", "SQUEUE_", "SACCT_", "SCANCEL_", "CT_POSTGRES_URL", "DAGSTER_HOME")
_NO_SUCH = "Invalid job id specified"
_NO_ACCOUNTING = "accounting storage is disabled"
_LIMIT = "MaxSubmitJob"  # of a user, account or QOS: it may last for days
_LATER = (  # sbatch will be answered otherwise when time has passed
    "Unable to contact slurm controller",
    "Socket timed out",
    "Zero Bytes were transmitted",
    "Connection refused",
    "Connection reset",
    "Connection timed out",
    "Communication connection failure",
    "Protocol authentication error",
    "Invalid authentication credential",
    "temporarily unable to accept job",
    "Resource temporarily unavailable",
    "Slurm controller is in standby mode",
    "Unable to resolve",
    _LIMIT,
    "MaxJobCount",
    "rate limit",
    "RPC",
)


@dataclass(frozen=True)
class Seen:
    """One task as squeue or sacct has it. `id` is `array_index`; `exit` is `code:signal`."""

    id: str
    name: str
    state: str
    reason: str = ""
    node: str | None = None
    elapsed_s: float | None = None
    exit: str | None = None
    cpu_s: float | None = None
    used_mb: float | None = None

    @property
    def named(self) -> Named:
        return self.name, self.id


@dataclass(frozen=True)
class Submitted:
    """What sbatch said: the array's number, or why not; `later` where another try may succeed. `refused`: it was surely
    not taken."""

    job: str | None
    said: str = ""
    later: bool = False
    refused: bool = False


def submit(script: Path, holding: Sequence[int] = ()) -> Submitted:
    """Submit a script. sbatch keeps the given file descriptors open until it has ended, whatever becomes of us."""
    done = _run(["sbatch", "--parsable", str(script)], holding)
    if done is None:
        return Submitted(None, f"sbatch gave no answer in {PATIENCE_S} s, or is not there", later=True)
    number = done.stdout.strip().splitlines()[-1].partition(";")[0] if done.stdout.strip() else ""
    if done.returncode == 0 and number.isdigit():
        return Submitted(number)
    words = " ".join((done.stderr.replace("sbatch: error: ", "") or done.stdout).split())
    said = words or f"sbatch ended with {done.returncode} and said nothing"
    return Submitted(None, said, any(sign in said for sign in _LATER), refused=_LIMIT in said)


def queue() -> list[Seen] | None:
    """All tasks of this user, also those that ended within the last minutes; None where Slurm does not answer."""
    done = _run(["squeue", "-h", "-r", "-t", "all", "-u", str(os.getuid()), "-O", _QUEUE])
    if done is None or done.returncode:
        return None
    return [_queued(line) for line in done.stdout.splitlines() if line.count("|") >= 6]


def account(jobs: Iterable[str] = (), names: Iterable[str] = (), days: int = 60) -> dict[Named, Seen] | None:
    """What accounting has of these arrays, or of arrays of these names. Empty where there is no accounting, None
    where it does not answer."""
    which = [f"-j{','.join(jobs)}"] if jobs else [f"--name={','.join(names)}", f"-Snow-{days}days"]
    done = _run(["sacct", "-n", "-P", f"-u{os.getuid()}", *which, f"--format={_ACCOUNT}"], patience_s=ACCOUNTING_S)
    if done is None:
        return None
    if done.returncode:
        return {} if _NO_ACCOUNTING in done.stderr or _NO_SUCH in done.stderr else None
    return _accounted(done.stdout.splitlines())


def cancel(jobs: Sequence[str], only_queued: bool = False) -> bool:
    """Cancel arrays or tasks; False where Slurm does not answer. One that has ended already is no error."""
    if not jobs:
        return True
    done = _run(["scancel", *(["--state=PENDING"] if only_queued else []), *jobs])
    return done is not None and (done.returncode == 0 or _NO_SUCH in done.stderr)


def largest_array() -> int | None:
    """MaxArraySize of the cluster; None where Slurm does not answer."""
    done = _run(["scontrol", "show", "config"])
    match = re.search(r"^MaxArraySize\s*=\s*(\d+)", done.stdout if done else "", re.MULTILINE)
    return int(match[1]) if match else None


def _run(
    command: Sequence[str], holding: Sequence[int] = (), patience_s: float = PATIENCE_S
) -> "subprocess.CompletedProcess[str] | None":
    """None where the command cannot be run, or takes too long. In a session of its own: Ctrl-C is ours to handle."""
    try:
        return subprocess.run(
            command,
            env=_variables(),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=patience_s,
            check=False,
            pass_fds=tuple(holding),
            start_new_session=True,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None


def _variables() -> dict[str, str]:
    """What is asked for stands in ct.toml, not in the shell; and no password of a database goes to compute nodes."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_FOR_JOBS)}
    return {**ours, "SLURM_TIME_FORMAT": "standard"}


def _queued(line: str) -> Seen:
    number, name, state, rest = line.split("|", 3)
    reason, node, elapsed, code = rest.rstrip("|").rsplit("|", 3)
    return Seen(number, name, state, reason, node or None, seconds(elapsed), _exit(code))


def _exit(code: str) -> str:
    """`code:signal`, also where squeue shows the number that `wait` gives."""
    return f"{int(code) >> 8}:{int(code) & 127}" if code.isdigit() else code


def _accounted(lines: Iterable[str]) -> dict[Named, Seen]:
    """One row a task; what was used stands in the rows of its steps."""
    found: dict[str, Seen] = {}
    used: dict[str, float] = {}
    for line in lines:
        cells = line.split("|")
        if len(cells) < 8:
            continue
        task, _, part = cells[0].partition(".")
        used[task] = max(used.get(task, 0.0), megabytes(cells[7]))
        if not part:
            state = cells[2].split(" ")[0].rstrip("+")
            reason = cells[2].partition(" ")[2]
            node = cells[4] if cells[4] not in ("", "None assigned") else None
            found[task] = Seen(
                task, cells[1], state, reason, node, seconds(cells[5]), cells[3] or None, seconds(cells[6])
            )
    return {seen.named: replace(seen, used_mb=used[task] or None) for task, seen in found.items()}


def seconds(text: str) -> float | None:
    """`1-02:03:04`, `02:03.5` or `17` in seconds; None where it is no time."""
    days, _, rest = text.rpartition("-")
    try:
        total = 0.0
        for part in rest.split(":"):
            total = total * 60 + float(part)
        return total + 86400 * int(days or 0)
    except ValueError:
        return None


def megabytes(text: str) -> float:
    """`1536K`, `2G` in MiB; 0 where nothing is said."""
    scale = {"K": 1 / 1024, "M": 1.0, "G": 1024.0, "T": 1024.0**2}
    try:
        return float(text[:-1]) * scale[text[-1]] if text[-1:] in scale else float(text or 0) / 1024**2
    except ValueError:
        return 0.0
