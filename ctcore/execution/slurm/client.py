"""Slurm's commands: sbatch, squeue, sacct, scancel. Text in, rows out; None means no answer.

No answer says nothing about jobs: the caller waits and asks again.
"""

import os
import re
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ctcore.execution.private_folder import NOT_FOR_CALLS

# An unanswered message alone takes MessageTimeout, 10 s unless set (slurm.conf(5)).
PATIENCE_S = 60
ACCOUNTING_S = 20  # what sacct gives is worth less than what the queue gives, and the watcher waits for it
Named = tuple[str, str]  # an array's name and a task's ID: a controller that was killed gives a number twice
# `-O` cuts each column to 20 letters unless a width or a separator follows it (squeue(1), --Format).
_QUEUE = "JobArrayID:|,Name:|,State:|,Reason:|,NodeList:|,TimeUsed:|,exit_code:|"
_ACCOUNT = "JobID,JobName,State,ExitCode,NodeList,ElapsedRaw,TotalCPU,MaxRSS"
_NOT_FOR_JOBS = ("SBATCH_", "SQUEUE_", "SACCT_", "SCANCEL_", *NOT_FOR_CALLS)
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
class TaskStatus:
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
class SbatchReply:
    """sbatch's reply: the array's number, or its error. `later`: another try may succeed; `refused`: surely not
    submitted."""

    job: str | None
    error: str = ""
    later: bool = False
    refused: bool = False


def submit(script: Path, holding: Sequence[int] = ()) -> SbatchReply:
    """Submit a script. sbatch keeps the given file descriptors open until it has ended, whatever becomes of us."""
    done = _run(["sbatch", "--parsable", str(script)], holding)
    if done is None:
        return SbatchReply(None, f"sbatch gave no answer in {PATIENCE_S} s, or is not there", later=True)
    # With --parsable, sbatch prints `NUMBER` or `NUMBER;CLUSTER`, after whatever a submit plugin prints (sbatch(1)).
    number = done.stdout.strip().splitlines()[-1].partition(";")[0] if done.stdout.strip() else ""
    if done.returncode == 0 and number.isdigit():
        return SbatchReply(number)
    words = " ".join((done.stderr.replace("sbatch: error: ", "") or done.stdout).split())
    said = words or f"sbatch ended with {done.returncode} and said nothing"
    return SbatchReply(None, said, any(sign in said for sign in _LATER), refused=_LIMIT in said)


def queue() -> list[TaskStatus] | None:
    """All tasks of this user, including those that ended in the last minutes; None if Slurm does not answer."""
    # -r: one line for each task; otherwise waiting tasks of an array share one line (squeue(1)).
    # -t all: also those that ended in the last MinJobAge (300 s unless set, slurm.conf(5)), so that most ends need no
    # accounting.
    done = _run(["squeue", "-h", "-r", "-t", "all", "-u", str(os.getuid()), "-O", _QUEUE])
    if done is None or done.returncode:
        return None
    return [_queued(line) for line in done.stdout.splitlines() if line.count("|") >= 6]


def account(jobs: Iterable[str] = (), names: Iterable[str] = (), days: int = 60) -> dict[Named, TaskStatus] | None:
    """Accounting's rows of these arrays, by number or name. Empty without accounting, None if it does not answer."""
    # Without -S, sacct with --name starts at midnight of today (sacct(1)): yesterday's jobs would be missing.
    which = [f"-j{','.join(jobs)}"] if jobs else [f"--name={','.join(names)}", f"-Snow-{days}days"]
    done = _run(["sacct", "-n", "-P", f"-u{os.getuid()}", *which, f"--format={_ACCOUNT}"], patience_s=ACCOUNTING_S)
    if done is None:
        return None
    # Without slurmdbd, sacct prints this and ends with 1. That is an answer: accounting knows nothing.
    if done.returncode:
        return {} if _NO_ACCOUNTING in done.stderr or _NO_SUCH in done.stderr else None
    return _accounted(done.stdout.splitlines())


def cancel(jobs: Sequence[str], only_queued: bool = False) -> bool:
    """Cancel arrays or tasks; False where Slurm does not answer. One that has ended already is no error. `only_queued`:
    of whole arrays what waits."""
    if not jobs:
        return True
    # In one command, so that Slurm checks the state itself: a task may start between our look and the cancellation.
    # With --state, one waiting task stands for its whole array (Slurm 22.05).
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
            # Otherwise Ctrl-C on the terminal would reach sbatch too, and end it between asking and answering.
            start_new_session=True,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None


def _variables() -> dict[str, str]:
    """The environment for sbatch, without SBATCH_ variables (ct.toml decides, not the shell) and without database
    passwords, which must not reach compute nodes."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_FOR_JOBS)}
    # A site or user may set another format, in which times could not be parsed (sacct(1), environment).
    return {**ours, "SLURM_TIME_FORMAT": "standard"}


def _queued(line: str) -> TaskStatus:
    # From both ends: the reason is free text, in which an administrator may have written the separator.
    number, name, state, rest = line.split("|", 3)
    reason, node, elapsed, code = rest.rstrip("|").rsplit("|", 3)
    return TaskStatus(number, name, state, reason, node or None, seconds(elapsed), _exit(code))


def _exit(code: str) -> str:
    """`code:signal`, also where squeue shows the number that `wait` gives."""
    # The status word of wait(2): the exit code in the high byte, the signal in the low seven bits.
    return f"{int(code) >> 8}:{int(code) & 127}" if code.isdigit() else code


def _accounted(lines: Iterable[str]) -> dict[Named, TaskStatus]:
    """One row per task; the used resources stand in the rows of its steps."""
    found: dict[str, TaskStatus] = {}
    used: dict[str, float] = {}
    for line in lines:
        cells = line.split("|")
        if len(cells) < 8:
            continue
        task, _, part = cells[0].partition(".")
        # MaxRSS stands in the rows of steps (`12_0.batch`), and is blank in the task's own row.
        used[task] = max(used.get(task, 0.0), megabytes(cells[7]))
        if not part:
            # `CANCELLED by 1000`, and `OUT_OF_ME+` if the column was cut.
            state = cells[2].split(" ")[0].rstrip("+")
            reason = cells[2].partition(" ")[2]
            node = cells[4] if cells[4] not in ("", "None assigned") else None
            found[task] = TaskStatus(
                task, cells[1], state, reason, node, seconds(cells[5]), cells[3] or None, seconds(cells[6])
            )
    return {seen.named: replace(seen, used_mb=used[task] or None) for task, seen in found.items()}


def seconds(text: str) -> float | None:
    """`1-02:03:04`, `02:03.5` or `17` in seconds; None where it is no time."""
    # `TotalCPU` may lack hours and have milliseconds, `[DD-[HH:]]MM:SS.mmm`; `ElapsedRaw` is a bare number (sacct(1)).
    days, _, rest = text.rpartition("-")
    try:
        total = 0.0
        for part in rest.split(":"):
            total = total * 60 + float(part)
        return total + 86400 * int(days or 0)
    except ValueError:
        return None


def megabytes(text: str) -> float:
    """`1536K`, `2G` in MiB; 0 for a blank."""
    scale = {"K": 1 / 1024, "M": 1.0, "G": 1024.0, "T": 1024.0**2}
    try:
        return float(text[:-1]) * scale[text[-1]] if text[-1:] in scale else float(text or 0) / 1024**2
    except ValueError:
        return 0.0
