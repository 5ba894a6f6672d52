"""A plan as a file: the approved nodes. A later run makes exactly these, or nothing.

A node still fits its plan if it would be made by the same recipe, for the same reasons, from the same inputs. Results
of the plan itself may change by then: that is its purpose.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctcore.cohorts.partitions import partitions
from ctcore.errors import ProjectError, Usage
from ctcore.governance.masking import UNMASKED, mask_of
from ctcore.inputs.key import prepare
from ctcore.intake.own_files import refuse_own_file
from ctcore.model.masked_text import Plain, Words, join_words
from ctcore.model.node import Node
from ctcore.model.reasons import Reason, Verdict
from ctcore.planning.plan import Plan, ReasonGroup, Scope, group_plan_reasons
from ctcore.project import Project
from ctcore.staleness.verdicts import Verdicts, evaluate
from ctcore.store.digest import digest_value
from ctcore.util import json_text
from ctcore.util.atomic_file import write_json
from ctcore.util.clock import now

FORMAT = "ct.plan.v1"
_MADE_BY_THE_PLAN = ("upstream", "input", "member-added", "member-removed")


@dataclass(frozen=True)
class SavedPlan:
    """A file's content: step → partition → the reasons, and the call's key if it was known; and each step's recipe."""

    made_at: str
    selection: tuple[str, ...]
    recipes: Mapping[str, str]
    nodes: Mapping[str, Mapping[str, tuple[str, str | None]]]


@dataclass(frozen=True)
class PlanComparison:
    """A saved plan compared with today: `holds` are nodes that still fit; `done` nodes are made or being made."""

    holds: Mapping[str, set[str]]
    done: int
    differs: tuple[ReasonGroup, ...]


def as_json(plan: Plan) -> dict[str, Any]:
    """For programs: the same numbers and words as in the table."""
    return {
        "selection": list(plan.selection),
        "nodes": {"at_most": plan.nodes, "expected": round(plan.expected, 1), "reused": plan.reused},
        "steps": len(plan.running_steps),
        "leaves": plan.leaves,
        "core_hours": {"at_most": plan.core_hours(), "expected": plan.core_hours(expected=True)},
        "elapsed_s": {"at_most": plan.elapsed_s(), "expected": plan.elapsed_s(expected=True)},
        "without_history": plan.without_history,
        "place": plan.place,
        "at_once": plan.at_once,
        "in_order": [
            {
                "step": one.step,
                "level": one.level,
                "leaf": one.leaf,
                "policy": one.policy,
                "at_most": len(one.run),
                "expected": round(one.expected, 1),
                "reused": len(one.reuse),
                "running": one.running,
                "failed_before": one.failed,
                "core_hours": one.core_hours(len(one.run)),
                "elapsed_s": one.elapsed_s(len(one.run), plan.at_once),
                "history": {**vars(one.cost), **vars(one.changes)},
                "why": [vars(group) for group in one.why],
                "not_run": [vars(group) for group in one.excluded],
            }
            for one in plan.steps
        ],
    }


def save(project: Project, plan: Plan, path: Path) -> None:
    """Write a plan so that `ct run --plan` can run exactly it."""
    refuse_own_file(project, path)
    planned = {(one.step, verdict.partition) for one in plan.steps for verdict in (*one.run, *one.reuse)}
    steps = {
        one.step: {
            "recipe": project.recipes[one.step].digest,
            "nodes": {v.partition: [_reasons(v, planned), one.keys.get(v.partition)] for v in (*one.run, *one.reuse)},
        }
        for one in plan.steps
        if one.run or one.reuse
    }
    try:
        write_json(
            path.absolute(),
            {
                "format": FORMAT,
                "project": project.id,
                "made_at": now(),
                **as_json(plan),
                "planned": steps,
            },
        )
    except OSError as error:
        raise Usage(f"{path} cannot be written: {error.strerror}; name another file") from error


def load(project: Project, path: Path) -> SavedPlan:
    """Read a saved plan. Usage error where it is none, or another project's."""
    try:
        read = json_text.loads(path.read_bytes())
        if read["format"] != FORMAT:
            raise ValueError(read["format"])
        saved = SavedPlan(
            str(read["made_at"]),
            tuple(read["selection"]),
            {step: str(one["recipe"]) for step, one in read["planned"].items()},
            {
                step: {k: (said, key) for k, (said, key) in one["nodes"].items()}
                for step, one in read["planned"].items()
            },
        )
    except OSError as error:
        raise Usage(f"{path} cannot be read: {error.strerror}; `ct plan --save {path}` writes one") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Usage(f"{path} is no saved plan of this ct; `ct plan --save {path}` writes one") from error
    if read["project"] != project.id:
        raise Usage(f"{path} is a plan of project {read['project']!r}, and this one is {project.id!r}")
    return saved


def compare(project: Project, saved: SavedPlan) -> PlanComparison:
    """Compare a plan with today: nodes that are done, that still fit, and that would be made differently."""
    planned = {(step, key) for step, nodes in saved.nodes.items() for key in nodes}
    there = {step: set(nodes) for step, nodes in saved.nodes.items() if step in project.steps}
    verdicts = evaluate(project)
    holds: dict[str, set[str]] = {}
    differs: list[Verdict] = []
    seen = mask_of(project)
    done = 0
    for step, nodes in saved.nodes.items():
        today = _Today(project, saved, step, verdicts, planned) if step in there else None
        for key in nodes:
            verdict = verdicts.of(step, key)
            words = today.difference(verdict) if today else Words(Plain(f"there is no step {step} any more"))
            if words is not None:
                reason = Reason("upstream", words, path=((step, key),))
                differs.append(seen.verdict(Verdict(step, key, "stale", (reason,))))
            elif verdict.state in ("fresh", "running"):
                done += 1
            else:
                holds.setdefault(step, set()).add(key)
    return PlanComparison(holds, done, tuple(group_plan_reasons(differs)))


class _Today:
    """One step today, beside its plan."""

    def __init__(self, project: Project, saved: SavedPlan, step: str, verdicts: Verdicts, planned: set[Node]) -> None:
        self.nodes, self.planned = saved.nodes[step], planned
        self.same_recipe = project.recipes[step].digest == saved.recipes[step]
        self.known = set(partitions(project, project.steps[step].level))
        called = [key for key, (_, call) in self.nodes.items() if call]
        asked = [verdict.partition for verdict in verdicts.listed(step, called)]
        ready = prepare(project, project.steps[step], asked).ready if asked else {}
        self.keys = {key: call.key for key, call in ready.items()}

    def difference(self, verdict: Verdict) -> Words | None:
        """How the node differs from its plan; None if it would be made as planned, or is made already."""
        if verdict.partition not in self.known or verdict.state == "excluded":
            return Words("is not made any more: ", verdict.sentence or "it is not in the cohort")
        if verdict.state in ("fresh", "running"):
            return None
        if not self.same_recipe:
            return Words("its code, parameters or environment are others than planned")
        said, call = self.nodes[verdict.partition]
        if _reasons(verdict, self.planned) != said:
            others = join_words(reason.sentence for reason in _stays(verdict, self.planned))
            return Words("would be made for other reasons: ", others or verdict.sentence)
        if call is not None and self.keys.get(verdict.partition, call) != call:
            return Words("would be made from other inputs")
        return None


def planned_scope(project: Project, path: Path, partial: bool) -> Scope:
    """Exactly what a saved plan holds. ProjectError where nodes are not as planned any more; with `partial`, they are
    left out."""
    compared = compare(project, load(project, path))
    if compared.differs and not partial:
        raise _differs(path, compared)
    said = [f"left out: {group.example}{_more(group)}: {group.words}" for group in compared.differs]
    if compared.done:
        said.append(f"{compared.done} planned nodes are made already")
    return Scope(compared.holds, compared.holds, tuple(said))


def _differs(path: Path, compared: PlanComparison) -> ProjectError:
    """The error that lists the differences from the plan, and the two ways out."""
    many = sum(group.nodes for group in compared.differs)
    lines = "\n".join(f"  {group.example}{_more(group)}: {group.words}" for group in compared.differs)
    holding = sum(map(len, compared.holds.values()))
    return ProjectError(
        f"{path}: {many} planned nodes are not as planned; nothing was run\n{lines}\n"
        f"`ct plan --save {path}` plans anew; `ct run --plan {path} --partial` runs the {holding} that are as planned"
    )


def _more(group: ReasonGroup) -> str:
    return f" and {group.nodes - 1} more" if group.nodes > 1 else ""


def _stays(verdict: Verdict, planned: set[Node]) -> list[Reason]:
    """The reasons that do not come from the plan's own results."""
    return [one for one in verdict.reasons if not (one.kind in _MADE_BY_THE_PLAN and one.node in planned)]


def _reasons(verdict: Verdict, planned: set[Node]) -> str:
    """A digest of all reasons, including those about people."""
    # Kept as a digest only: a plan is passed on as a file, and the words name people.
    said = sorted(UNMASKED.mask_words(reason.sentence) for reason in _stays(verdict, planned))
    return digest_value("ct.planned.v1", said)[:16]
