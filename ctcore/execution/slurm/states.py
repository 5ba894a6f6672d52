"""The meaning of Slurm's states for a call: one table and one verdict. Pure: no clock, no files, no Slurm.

Nothing is a success without a result record, and nothing is a failure because Slurm did not answer.
"""

import re
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["wait", "made", "failed", "more-memory", "more-time", "again", "unknown", "withdrawn"]
Record = Literal["made", "error"]

NOT_ASKED = ""  # nothing was heard of it yet: the scheduler did not answer, or was not asked
GONE = "GONE"  # squeue and accounting both answered, and neither knows it

REQUEUES = 10  # so often the cluster may be at fault before it is a failure

_ACTIVE = """PENDING RUNNING SUSPENDED CONFIGURING COMPLETING RESIZING REQUEUED REQUEUE_FED REQUEUE_HOLD
    RESV_DEL_HOLD SIGNALING SPECIAL_EXIT STAGE_OUT STOPPED POWER_UP_NODE EXPEDITING UPDATE_DB"""
WAITING = frozenset("PENDING REQUEUED REQUEUE_FED REQUEUE_HOLD SPECIAL_EXIT".split())  # noqa: SIM905
STATES: dict[str, tuple[Verdict, str]] = {
    **dict.fromkeys(_ACTIVE.split(), ("wait", "")),
    "COMPLETED": ("failed", "ended without a result, though Slurm calls it completed: was its output folder lost?"),
    "FAILED": ("failed", "the job ended without a result"),
    "CANCELLED": ("failed", "it was cancelled in Slurm"),
    "DEADLINE": ("failed", "it could not end before its deadline; ask for a later one"),
    "TIMEOUT": ("more-time", "it was over its time limit"),
    "OUT_OF_MEMORY": ("more-memory", "it needed more memory than it had asked for"),
    "NODE_FAIL": ("again", "its node failed"),
    "BOOT_FAIL": ("again", "its node did not start"),
    "LAUNCH_FAILED": ("again", "its node could not start it"),
    "RECONFIG_FAIL": ("again", "its node could not be set up"),
    "PREEMPTED": ("again", "a job of higher rank took its place"),
    "REVOKED": ("again", "another cluster of the federation took it, and left no result"),
    GONE: (
        "unknown",
        "Slurm does not know it any more, and there is no result, so nobody can say why it ended (where accounting is "
        "disabled, every job is forgotten some minutes after its end). It may have needed more memory than it had "
        "asked for: give its step more, as resources=Resources(memory_gb=…)",
    ),
}
# `launch failed requeued held`: still PENDING, and Slurm starts it only once somebody releases it (scontrol(1)).
_HELD = re.compile(r"requeued.held")
# Without cgroups, what is killed for its memory is FAILED by signal 9, never OUT_OF_MEMORY (seen on Slurm 22.05 with
# JobAcctGatherParams=OverMemoryKill). 137 is a shell's 128 + 9.
_KILLED = {"0:9", "137:0", "9:0", "0:137"}
_SURE = ("OUT_OF_MEMORY",)  # worth another try also where the step wrote down an error: a tool of it was killed


@dataclass(frozen=True)
class Facts:
    """The facts on one task. `since_s`: seconds since state and record last changed."""

    state: str
    record: Record | None = None
    exit: str | None = None
    reason: str = ""
    since_s: float = 0.0
    requeues: int = 0
    withdrawn: bool = False


@dataclass(frozen=True)
class Judgement:
    verdict: Verdict
    why: str = ""


WAIT = Judgement("wait")


def judge(facts: Facts, grace_s: float) -> Judgement:
    """The verdict on a call, from Slurm's state and its result record together."""
    if facts.record == "made":
        # The files are published then. What becomes of the job afterwards (TIMEOUT, a lost node) takes nothing back.
        return Judgement("made")
    verdict, why = _of_state(facts)
    if facts.record == "error":
        return _of_error(facts, verdict, why, grace_s)
    if facts.withdrawn and facts.state in ("CANCELLED", GONE):
        return Judgement("withdrawn", "it was withdrawn")
    # the record may be on its way: file systems between machines are slow to show files
    if verdict == "wait" or facts.since_s < grace_s:
        return WAIT
    if verdict == "again" and facts.requeues >= REQUEUES:
        return Judgement("failed", f"{why}, and so it was {REQUEUES} times before")
    return Judgement(verdict, why)


def is_over(state: str) -> bool:
    """Whether Slurm has done with it."""
    return state != NOT_ASKED and STATES.get(state, ("wait", ""))[0] != "wait"


def _of_state(facts: Facts) -> tuple[Verdict, str]:
    """A state that is in no table is waited out: it is not known to be an end."""
    verdict, why = STATES.get(facts.state, ("wait", ""))
    if verdict == "wait" and _HELD.search(facts.reason):
        return "again", f"its node could not start it, and Slurm holds it back ({facts.reason})"
    if facts.state == "FAILED" and facts.exit in _KILLED:
        return "more-memory", "it was killed (signal 9), as happens to what needs more memory than it had asked for"
    if facts.state == "CANCELLED" and facts.reason:
        why += f" ({facts.reason})"
    if facts.state == "FAILED" and facts.exit:
        why += f" (exit code {facts.exit})"
    return verdict, why


def _of_error(facts: Facts, verdict: Verdict, why: str, grace_s: float) -> Judgement:
    """The step wrote down why it failed. Slurm may know better, and has some time to say so."""
    if facts.state in _SURE:
        return Judgement(verdict, why)
    if not is_over(facts.state) and facts.since_s < grace_s:
        return WAIT
    return Judgement("failed")
