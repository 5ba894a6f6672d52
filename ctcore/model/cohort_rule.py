"""A cohort's rule over levels and columns, its text, and its version: the digest of its normal form."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, cast, get_args

from ctcore.model.levels import ENTITY_LEVELS, Level
from ctcore.store.digest import digest_value

Op = Literal["is", "not", ">=", ">", "<=", "<", "known"]
COMPARES: tuple[Op, ...] = (">=", ">", "<=", "<")
OPS: tuple[Op, ...] = get_args(Op)
SPELLED = 5  # values that are listed in words; of more, the number


@dataclass(frozen=True)
class Condition:
    """A condition on a column. Values are texts as in the catalog; a blank satisfies only `known` = `false`."""

    op: Op
    values: tuple[str, ...]

    def words(self, column: str) -> str:
        listed = " or ".join(self.values) if len(self.values) <= SPELLED else f"one of {len(self.values)} values"
        if self.op == "known":
            return f"{column} is {'known' if self.values == ('true',) else 'blank'}"
        return f"{column} {self.op} {self.values[0]}" if self.op in COMPARES else f"{column} {_VERBS[self.op]} {listed}"


_VERBS: Mapping[str, str] = {"is": "is", "not": "is not"}
Where = Mapping[str, tuple[Condition, ...]]


@dataclass(frozen=True)
class Cohort:
    """All usable entities that satisfy the rule, with their ancestors and descendants.

    `where`: conditions that one chain of patient, specimen and assay satisfies together. `has`: the number of specimens
    or assays of a patient that must satisfy them. `members`: only these IDs, of the level `listed`. `any_of`, `all_of`,
    `none_of`: other cohorts. `level`: where membership is decided, by default the deepest level of the rule. `pairing`:
    the judge of its completeness, and no part of the rule.
    """

    name: str
    where: Where = field(default_factory=dict)
    level: Level | None = None
    has: Mapping[Level, int] = field(default_factory=dict)
    members: tuple[str, ...] | None = None
    listed: Level = "patient"
    any_of: tuple["Cohort", ...] = ()
    all_of: tuple["Cohort", ...] = ()
    none_of: tuple["Cohort", ...] = ()
    pairing: str | None = None

    @property
    def others(self) -> tuple["Cohort", ...]:
        return (*self.any_of, *self.all_of, *self.none_of)

    @property
    def depth(self) -> Level:
        """The deepest level of `where`."""
        return deepest(cast(Level, column.partition(".")[0]) for column in self.where)

    @property
    def deepest(self) -> Level:
        """The deepest level that the rule names."""
        return deepest([self.depth, self.listed, *(other.deciding_level for other in self.others)])

    @property
    def deciding_level(self) -> Level:
        """The level at which membership is decided; it follows for the others."""
        return self.level or self.deepest

    def columns(self, compared: bool = False) -> Iterator[str]:
        """The columns that the rule reads; with `compared`, only those compared by size."""
        for column, conditions in self.where.items():
            if not compared or any(one.op in COMPARES for one in conditions):
                yield column
        for other in self.others:
            yield from other.columns(compared)

    @cached_property
    def normal(self) -> dict[str, Any]:
        """The rule as JSON in its normal form, without empty parts."""
        parts: dict[str, Any] = {
            "where": {
                column: sorted([one.op, sorted(one.values)] for one in self.where[column]) for column in self.where
            },
            "has": dict(self.has),
            "members": None if self.members is None else [self.listed, sorted(self.members)],
            **{way: _sorted(others) for way, others in self._ways().items()},
        }
        return {"at": self.deciding_level, **{name: part for name, part in parts.items() if part}}

    def _ways(self) -> dict[str, tuple["Cohort", ...]]:
        return {"any_of": self.any_of, "all_of": self.all_of, "none_of": self.none_of}

    @cached_property
    def version(self) -> str:
        return digest_value("ct.cohort.v1", self.normal)

    @property
    def words(self) -> str:
        said = [one.words(column) for column, conditions in self.where.items() for one in conditions]
        said += [f"at least {n} {level}{'s' * (n != 1)}" for level, n in self.has.items()]
        if self.members is not None:
            said.append(f"{len(self.members)} listed {self.listed}{'s' * (len(self.members) != 1)}")
        said += [f"in {' or '.join(map(_named, self.any_of))}"] if self.any_of else []
        said += [f"in {_named(one)}" for one in self.all_of] + [f"not in {_named(one)}" for one in self.none_of]
        whole = (
            f" (whole {self.deciding_level}s)"
            if ENTITY_LEVELS.index(self.deciding_level) < ENTITY_LEVELS.index(self.deepest)
            else ""
        )
        return (" and ".join(said) or "everybody") + whole


def deepest(levels: Iterable[Level]) -> Level:
    return max([*levels, ENTITY_LEVELS[0]], key=ENTITY_LEVELS.index)


def rule_change_text(old: Cohort, new: Cohort) -> str:
    """The text for two versions of a rule."""
    was, now = old.words, new.words
    if was == now:
        was, now = f"{was} [{old.version[:8]}]", f"{now} [{new.version[:8]}]"
    return f"the rule changed: {was} → {now}"


def _named(cohort: Cohort) -> str:
    return f"{cohort.name} ({cohort.words})" if cohort.name else f"({cohort.words})"


def _sorted(others: Sequence[Cohort]) -> list[Any]:
    return [one.normal for one in sorted(others, key=lambda one: one.version)]


def from_normal(normal: Mapping[str, Any], name: str = "") -> Cohort:
    """The rule of a normal form; names of other cohorts are not in it."""
    where = {
        column: tuple(Condition(op, tuple(values)) for op, values in conditions)
        for column, conditions in normal.get("where", {}).items()
    }
    listed, members = normal.get("members", ("patient", None))
    others = [tuple(from_normal(one) for one in normal.get(way, ())) for way in ("any_of", "all_of", "none_of")]
    return Cohort(
        name,
        where,
        normal["at"],
        normal.get("has", {}),
        None if members is None else tuple(members),
        listed,
        any_of=others[0],
        all_of=others[1],
        none_of=others[2],
    )
