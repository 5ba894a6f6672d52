"""A batch of calls as one array: its folder and its sbatch file, submitted once, found again by its name.

submitit knows the options of sbatch and writes the file; what the job runs, and when it is submitted, is ours.
"""

import fcntl
import os
import re
import secrets
import shlex
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ctcore.config.slurm_profiles import Needs, Profile
from ctcore.execution.call import StepCall
from ctcore.execution.slurm import client
from ctcore.execution.slurm.client import SbatchReply
from ctcore.execution.slurm.status_cache import PATIENCE_S, Answers, prefix
from ctcore.project import Project
from ctcore.util.atomic_file import write_json

_SCRIPT = "array.sh"
_OUTPUT = re.compile(r"(\d+)_\d+\.out")
UNKNOWN = SbatchReply(None)


def new_name(project: Project) -> str:
    """Of a batch: in Slurm, the array is called so."""
    # Random, and not made of the keys: another try of the same calls must not be taken for the array of the first.
    return prefix(project) + secrets.token_hex(6)


def folder_of(project: Project, batch: str) -> Path:
    return project.work / "slurm" / batch


def output_of(project: Project, batch: str, job: str) -> Path:
    """What a job said outside of its calls: of its set-up, say. The node makes it when the job begins."""
    return folder_of(project, batch) / f"{job}.out"


def call_of(project: Project, batch: str, index: int) -> Path:
    """What a job reads first: where it is gone, the job has nothing to do."""
    return folder_of(project, batch) / "calls" / f"{index}.json"


def prepare(
    project: Project, profile: Profile, batch: str, calls: Sequence[StepCall], needs: Needs, at_once: int
) -> None:
    """Write what the jobs will read: a file a call, and the script."""
    folder = folder_of(project, batch)
    for index, call in enumerate(calls):
        write_json(call_of(project, batch, index), asdict(replace(call, cpus=needs.cpus)))
    text = _script(project, profile, batch, len(calls), needs, at_once)
    (folder / _SCRIPT).write_text(text)


def send(project: Project, batch: str) -> SbatchReply:
    """Submit it, unless it was already. The lock is also held by sbatch: it may live longer than we do."""
    folder = folder_of(project, batch)
    with _locked(folder) as lock:
        # The mark is written before sbatch. If ct dies in between, the next run cannot know whether Slurm has the
        # array, so it searches by name before it submits again: no key may be submitted twice.
        tried = folder / "tried"
        if tried.exists() and (found := _find(project, batch)) is not UNKNOWN:
            return found
        tried.touch()
        # sbatch inherits the lock: if ct is killed now, the next run waits until sbatch has ended and then finds its
        # array.
        answer = client.submit(folder / _SCRIPT, [lock])
        if answer.refused:  # the next try need not search for it
            tried.unlink()
        elif answer.job is None and not answer.later and (found := _find(project, batch)) is not UNKNOWN:
            return found  # whatever sbatch said, Slurm has it
        return answer


def find(project: Project, batch: str) -> SbatchReply:
    """The array of a batch of which it is not known whether it was submitted; without a number: it was not."""
    folder = folder_of(project, batch)
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        found = _find(project, batch)
        if found is UNKNOWN:
            withdraw(project, batch)
        return found


def withdraw(project: Project, batch: str) -> None:
    """Should Slurm have taken it after all, it will find nothing to do."""
    shutil.rmtree(folder_of(project, batch) / "calls", ignore_errors=True)


def _find(project: Project, batch: str) -> SbatchReply:
    """What a job has written, what the queue has, what accounting has. `later` where one of them does not answer."""
    # From the surest to the least sure. Output files lie on the project's disk; the queue forgets a job MinJobAge (300
    # s unless set) after its end; accounting may be absent.
    began = time.monotonic()
    with os.scandir(folder_of(project, batch)) as entries:
        numbers = {match[1] for entry in entries if (match := _OUTPUT.fullmatch(entry.name))}
    if numbers:
        return SbatchReply(max(numbers, key=int))
    answer = Answers(project, PATIENCE_S).queue(after=began)
    if answer is None or answer.rows is None:
        return SbatchReply(None, "squeue does not answer", later=True)
    if numbers := {task.partition("_")[0] for name, task in answer.rows if name == batch}:
        return SbatchReply(max(numbers, key=int))
    accounted = client.account(names=[batch])
    if accounted is None:
        return SbatchReply(None, "sacct does not answer", later=True)
    if numbers := {task.partition("_")[0] for _, task in accounted}:
        return SbatchReply(max(numbers, key=int))
    return UNKNOWN


def remove(project: Project, batch: str) -> None:
    """When every job of it went well, nothing of it is of use."""
    shutil.rmtree(folder_of(project, batch), ignore_errors=True)


@contextmanager
def _locked(folder: Path) -> Iterator[int]:
    handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        # flock is of the open file, which sbatch inherits: it holds until both have closed it (flock(2)). A lock of
        # fcntl(2) would belong to this process alone, and end with it.
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield handle
    finally:
        os.close(handle)


def _script(project: Project, profile: Profile, batch: str, jobs: int, needs: Needs, at_once: int) -> str:
    from submitit import SlurmExecutor

    folder = folder_of(project, batch)
    executor = SlurmExecutor(folder)
    executor.update_parameters(
        job_name=batch,
        time=needs.minutes,
        mem=f"{needs.memory_mb}M",
        cpus_per_task=needs.cpus,
        partition=profile.partition,
        account=profile.account,
        qos=profile.qos,
        constraint=profile.constraint,
        gres=profile.gres,
        array_parallelism=at_once,
        setup=list(profile.setup),
        # submitit sets wckey=submitit otherwise, and a cluster that enforces wckeys refuses what it does not know
        # (slurm.conf(5), AccountingStorageEnforce).
        wckey=None,
        # srun costs 20 to 45 ms a task (measured, Slurm 22.05).
        use_srun=False,
        stderr_to_stdout=True,
        additional_parameters=_more(profile, folder),
    )
    # submitit sets it only inside map_array, which would also submit.
    executor.parameters["map_count"] = jobs
    return executor._make_submission_file_text(_command(project, profile), batch)


def _more(profile: Profile, folder: Path) -> dict[str, Any]:
    """What submitit has no name for. Slurm puts `%A_%a` into the name of the output file."""
    # requeue: a job of a failed node is started again, and not lost; a second start finds its result, or no call.
    options: dict[str, Any] = {"chdir": folder, "output": f"{_literal(folder)}/%A_%a.out", "requeue": True}
    if profile.reservation:
        options["reservation"] = profile.reservation
    for option in profile.extra:
        name, cut, value = option.removeprefix("--").partition("=")
        options[name] = value if cut else True
    if "no-requeue" in options:
        del options["requeue"]
    return options


def _literal(folder: Path) -> str:
    # In --output, %A and its like are replaced, and %% is a percent sign (sbatch(1), filename pattern).
    return str(folder).replace("%", "%%")


def _command(project: Project, profile: Profile) -> str:
    """`exec`, so that signals reach the step. Run in the batch's folder: nothing there can be imported by mistake."""
    # -P: Python puts the current directory first in sys.path otherwise, and a file there could hide a module.
    words = [profile.python or ("python3" if profile.container else shlex.quote(sys.executable)), "-P -m"]
    words += ["ctcore.execution.slurm.worker", shlex.quote(str(project.work)), shlex.quote(str(project.store.root))]
    if profile.container:
        inside = f"apptainer exec --bind {shlex.quote(str(project.root))} {shlex.quote(profile.container)}"
        words.insert(0, inside)
    return " ".join(["exec", *words, "calls/$SLURM_ARRAY_TASK_ID.json"])
