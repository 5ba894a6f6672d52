"""Rules of cohorts: what ct.toml may say, and who is in it, against a definition in plain Python."""

import operator
import random
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctcore.config.cohort_rules import read_cohorts
from ctcore.config.settings import read_settings
from ctcore.errors import ProjectError
from ctcore.inputs.current import current_inputs
from ctcore.model.cohort_rule import Cohort, Condition, from_normal, rule_change_text
from ctcore.model.column import Column
from ctcore.model.levels import ENTITY_LEVELS, Level
from ctcore.model.schema import Levels, LevelSchema
from ctcore.project import Project
from ctcore.snapshot.entities import Entities, number_of
from ctcore.snapshot.hierarchy import Hierarchy, in_cohort
from ctcore.snapshot.versions import pack
from ctcore.store.digest import canonical_json
from tests.helpers.kit import TOML, again, assay, fail, make_project

COLUMNS = {
    "patient": {"age": Column("age", "integer"), "sex": Column("sex", enum=("F", "M"))},
    "specimen": {"site": Column("site"), "day": Column("day", "date"), "purity": Column("purity", "real")},
    "assay": {"lanes": Column("lanes", "integer")},
}
LEVELS: Levels = {level: LevelSchema(level, COLUMNS[level]) for level in ENTITY_LEVELS}
VALUES: Mapping[str, tuple[Any, ...]] = {
    "patient.age": (None, 16, 18, 40),
    "patient.sex": (None, "F", "M"),
    "specimen.site": (None, "liver", "lung"),
    "specimen.day": (None, "2020-02-29", "2021-01-01"),
    "specimen.purity": (None, 0.5, 1.0),
    "assay.lanes": (None, 1, 2),
}


class People:
    """A random cohort, twice: in columns, and as dictionaries by (level, ID)."""

    def __init__(self, seed: int) -> None:
        draw = random.Random(seed)
        self.parent: dict[tuple[str, str], tuple[str, str] | None] = {}
        self.said: dict[tuple[str, str], dict[str, Any]] = {}
        self.barred = set[tuple[str, str]]()
        above: list[tuple[str, str] | None] = [None]
        for level, n in zip(ENTITY_LEVELS, (4, 8, 12), strict=True):
            mine = [(level, f"{level[0].upper()}{at}") for at in range(n)]
            for one in mine:
                self.parent[one] = draw.choice(above)
                columns = [column for column in VALUES if column.startswith(level)]
                self.said[one] = {column: draw.choice(VALUES[column]) for column in columns} | {f"{level}.id": one[1]}
                if draw.random() < 0.15:
                    self.barred.add(one)
            above = [*mine]

    def hierarchy(self) -> Hierarchy:
        return Hierarchy({level: self._entities(level) for level in ENTITY_LEVELS})

    def _entities(self, level: Level) -> Entities:
        mine = self.of(level)
        above = {one: at for at, one in enumerate(self.of(ENTITY_LEVELS[max(0, ENTITY_LEVELS.index(level) - 1)]))}
        texts = {name: [canonical_json(self.said[one][name]).decode() for one in mine] for name in self.said[mine[0]]}
        return Entities(
            level,
            np.arange(len(mine)),
            [name for _, name in mine],
            np.array([above.get(self.parent[one], -1) for one in mine]),  # type: ignore[arg-type]
            {name.partition(".")[2]: pack(column) for name, column in texts.items()},
            {},
            np.array([one in self.barred for one in mine]),
            {},
            np.zeros(len(mine), np.bool_),
            numbers={name.partition(".")[2]: np.array([*map(number_of, column)]) for name, column in texts.items()},
        )

    def of(self, level: str) -> list[tuple[str, str]]:
        return [one for one in self.parent if one[0] == level]

    def chain(self, one: tuple[str, str] | None) -> list[tuple[str, str]]:
        """Itself and who is above it."""
        found = []
        while one is not None:
            found.append(one)
            one = self.parent[one]
        return found

    def usable(self, one: tuple[str, str]) -> bool:
        return not self.barred.intersection(self.chain(one))


def naive(people: People, rule: Mapping[str, Any], rules: Mapping[str, Any], level: str) -> set[str]:
    """The members of one level, by the document: every question asked of every entity."""
    rank = ENTITY_LEVELS.index
    deep = max((column.partition(".")[0] for column in rule.get("where", {})), key=rank, default="patient")  # type: ignore[arg-type]
    fitting = [one for one in people.of(deep) if people.usable(one) and fits(people, one, rule.get("where", {}))]
    for counted, least in rule.get("has", {}).items():
        enough = lifted(people, fitting, counted)
        fitting = [
            one for one in fitting if sum(people.chain(other)[-1] == people.chain(one)[-1] for other in enough) >= least
        ]
    at = at_of(rule, rules)
    found = set(lifted(people, fitting, at))
    if "members" in rule:
        of = rule.get("level", "patient")
        found &= set(
            lifted(people, [(of, one) for one in rule["members"] if (of, one) in people.parent], at_of(rule, rules))
        )
    at = at_of(rule, rules)
    if rule.get("any_of"):
        found &= {(at, one) for name in rule["any_of"] for one in naive(people, rules[name], rules, at)}
    for name in rule.get("all_of", ()):
        found &= {(at, one) for one in naive(people, rules[name], rules, at)}
    for name in rule.get("none_of", ()):
        found -= {(at, one) for one in naive(people, rules[name], rules, at)}
    return {name for _, name in lifted(people, found, level)}


def at_of(rule: Mapping[str, Any], rules: Mapping[str, Any]) -> str:
    levels = [column.partition(".")[0] for column in rule.get("where", {})]
    levels += [at_of(rules[name], rules) for way in ("any_of", "all_of", "none_of") for name in rule.get(way, ())]
    return rule.get("level") or max(["patient", *levels], key=ENTITY_LEVELS.index)  # type: ignore[arg-type]


def lifted(people: People, some: Iterable[tuple[str, str]], level: str) -> list[tuple[str, str]]:
    """The usable ones of a level that are among these, above or below them."""
    chosen = set(some)
    held = {up for one in chosen for up in people.chain(one) if up[0] == level}
    return [
        one
        for one in people.of(level)
        if people.usable(one) and (one in held or chosen.intersection(people.chain(one)))
    ]


def fits(people: People, one: tuple[str, str], where: Mapping[str, Any]) -> bool:
    values = {column: value for up in people.chain(one) for column, value in people.said[up].items()}
    return all(meets(values[column], said) for column, said in where.items())


def meets(value: Any, said: Any) -> bool:
    if not isinstance(said, dict):
        return value is not None and value in (said if isinstance(said, list) else [said])
    return all(holds(op, value, bound if isinstance(bound, list) else [bound]) for op, bound in said.items())


def holds(op: str, value: Any, bounds: list[Any]) -> bool:
    if op == "known" or value is None:
        return op == "known" and (value is not None) == bounds[0]
    if op == "not":
        return value not in bounds
    compare = {">=": operator.ge, ">": operator.gt, "<=": operator.le, "<": operator.lt}[op]
    return compare(value, bounds[0])


def conditions(column: str) -> st.SearchStrategy[Any]:
    known = st.sampled_from([one for one in VALUES[column] if one is not None])
    forms = [known, st.lists(known, min_size=1, max_size=2), st.fixed_dictionaries({"not": known})]
    forms.append(st.fixed_dictionaries({"known": st.booleans()}))
    if column.partition(".")[2] not in ("sex", "site"):
        forms.append(st.dictionaries(st.sampled_from([">=", ">", "<=", "<"]), known, min_size=1, max_size=2))
    return st.one_of(forms)


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    """Four cohorts, of which later ones are made from earlier ones."""
    found: dict[str, Any] = {}
    for name in "abcd":
        rule: dict[str, Any] = {}
        for column in draw(st.lists(st.sampled_from(sorted(VALUES)), max_size=2, unique=True)):
            rule.setdefault("where", {})[column] = draw(conditions(column))
        if draw(st.booleans()):
            rule["level"] = draw(st.sampled_from(ENTITY_LEVELS))
        if draw(st.integers(0, 3)) == 0:
            rule["has"] = draw(st.dictionaries(st.sampled_from(["specimen", "assay"]), st.integers(1, 3), min_size=1))
        if draw(st.integers(0, 3)) == 0:
            letter = rule.get("level", "patient")[0].upper()
            rule["members"] = draw(st.lists(st.integers(0, 5).map(lambda n, at=letter: f"{at}{n}"), unique=True))
        for way in ("any_of", "all_of", "none_of") if found else ():
            if draw(st.integers(0, 2)) == 0:
                rule[way] = draw(st.lists(st.sampled_from(sorted(found)), min_size=1, max_size=2, unique=True))
        found[name] = rule
    return found


@cache
def people(seed: int) -> People:
    return People(seed)


@settings(max_examples=150, deadline=None)
@given(documents(), st.integers(0, 20))
def test_a_rule_chooses_who_satisfies_it_and_nobody_else(document: dict[str, Any], seed: int) -> None:
    cohorts, problems = read_cohorts(document, LEVELS, [], Path())
    assert not problems
    hierarchy = people(seed).hierarchy()
    for name, cohort in cohorts.items():
        for level in ENTITY_LEVELS:
            flags = in_cohort(hierarchy, level, cohort)
            found = {hierarchy.entities[level].ids[at] for at in np.flatnonzero(flags)}
            assert found == naive(people(seed), document[name], document, level)
            again_ = from_normal(cohort.normal)
            assert again_.version == cohort.version and np.array_equal(in_cohort(hierarchy, level, again_), flags)


def cohorts(text: str, root: Path = Path()) -> Mapping[str, Cohort]:
    path = root / "ct.toml"
    path.write_text(
        '[project]\nid = "toy"\n[levels.patient.columns]\nage = "integer"\nsex = {}\nborn = "date"\n' + text
    )
    return read_settings(path).cohorts


def test_a_version_is_of_the_rule_not_of_its_spelling(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("# people\nP2\n\nP1  # the first\n")
    some = cohorts(
        "[cohorts.a.where]\n'patient.sex' = ['F', 'M']\n'patient.age' = {'>=' = 18}\n"
        "[cohorts.b]\nlevel = 'patient'\nwhere = {'patient.age' = {'>=' = 18}, 'patient.sex' = ['M', 'F', 'M']}\n"
        "[cohorts.c]\nmembers = ['P1', 'P2']\n[cohorts.d]\nmembers_file = 'list.txt'\n"
        "[cohorts.e]\nany_of = ['a', 'c']\n[cohorts.f]\nany_of = ['c', 'b']\n",
        tmp_path,
    )
    assert some["a"].version == some["b"].version and some["c"].version == some["d"].version
    assert some["e"].version == some["f"].version
    assert len({some[name].version for name in "ace"}) == 3
    assert some["a"].words == "patient.sex is F or M and patient.age >= 18"
    assert some["e"].words == "in a (patient.sex is F or M and patient.age >= 18) or c (2 listed patients)"


def test_a_rule_of_another_cohort_is_part_of_the_rule(tmp_path: Path) -> None:
    text = "[cohorts.a.where]\n'patient.age' = {'>=' = %d}\n[cohorts.b]\nnone_of = ['a']\n"
    old, new = (cohorts(text % age, tmp_path)["b"] for age in (18, 16))
    assert rule_change_text(old, new) == "the rule changed: not in a (patient.age >= 18) → not in a (patient.age >= 16)"


def test_two_rules_of_the_same_words_are_told_apart() -> None:
    old, new = (Cohort("a", members=(who,)) for who in ("P1", "P2"))
    said = rule_change_text(old, new)
    assert said.count("1 listed patient") == 2 and old.version[:8] in said and new.version[:8] in said


def test_all_problems_of_a_rule_come_at_once(tmp_path: Path) -> None:
    with pytest.raises(ProjectError) as caught:
        cohorts(
            "[cohorts.a]\nwhere = {'patient.age' = {'=>' = 18}, 'patient.sex' = {'>' = 'F'}, 'patient.agee' = 1}\n"
            "level = 'patients'\npairing = 'tn'\n"
            "[cohorts.b]\nany_of = ['aa']\nmembers = ['P/1']\nhas = {patient = 1, assay = 0}\nmember = 1\n"
            "[cohorts.c]\nall_of = ['d']\n[cohorts.d]\nnone_of = ['c']\nmembers_file = 'none.txt'\n"
            "[cohorts.e]\nwhere = {'patient.age' = {'>' = 'old'}, 'patient.born' = [], 'patient.sex' = {known = 1}}\n"
            "[cohorts.f]\nwhere = {'patient.age' = {'<' = 9007199254740994}}\n",
            tmp_path,
        )
    for said in (
        "[cohorts.a] where patient.age: no such comparison '=>'; one of is, not, >=, >, <=, <, known",
        "[cohorts.a] where patient.sex >: a text is not compared by size",
        "[cohorts.a] where 'patient.agee': no such level.column; did you mean 'patient.age'?",
        "[cohorts.a] level = 'patients': one of patient, specimen, assay",
        "[cohorts.a] pairing = 'tn': no such pairing; known: none",
        "[cohorts.b] any_of: no cohort 'aa'; did you mean 'a'?",
        "[cohorts.b] members: 'P/1' is no ID",
        "[cohorts.b] has 'patient': specimen or assay, of a patient",
        "[cohorts.b] has assay = 0: a whole number, 1 or more",
        "[cohorts.b]: unknown key 'member'; did you mean 'members'?",
        "a cohort is made from itself: c → d → c",
        "[cohorts.d] members_file = 'none.txt' cannot be read: No such file or directory",
        "[cohorts.e] where patient.age > = 'old' is not a whole number",
        "[cohorts.e] where patient.born = []",
        "[cohorts.e] where patient.sex known = 1: true or false is expected",
        "[cohorts.f] where patient.age < = 9007199254740994: numbers are compared up to",
    ):
        assert said in str(caught.value), said


ADULTS = '[cohorts.adults.where]\n"patient.age" = { ">=" = 45 }\n'


def chosen(project: Project, cohort: str, level: Level = "assay") -> list[str]:
    with project.catalog.read() as connection:
        snapshot, inputs = current_inputs(project, connection)
    flags = in_cohort(inputs.hierarchy, level, project.settings.cohorts[cohort])
    return [snapshot.entities[level].ids[at] for at in np.flatnonzero(flags)]


def test_numbers_are_read_from_catalog_and_disk_cache(tmp_path: Path, catalog_url: str) -> None:
    from ctcore.inputs.current import forget
    from ctcore.snapshot import disk_cache

    project = make_project(tmp_path / "toy", toml=TOML + ADULTS)
    assert chosen(project, "adults") == ["A3"]
    with project.catalog.read() as connection:
        disk_cache.write(project, current_inputs(project, connection)[0])
    forget()
    assert chosen(again(project), "adults") == ["A3"]


def test_who_has_two_specimens_is_counted_without_the_excluded(tmp_path: Path) -> None:
    rows = [assay("P1", "S1", "A1"), assay("P1", "S2", "A2"), assay("P2", "S3", "A3")]
    project = make_project(tmp_path / "toy", rows, toml=TOML + "[cohorts.two]\nhas = { specimen = 2 }\n")
    assert chosen(project, "two") == ["A1", "A2"]
    fail(project, "S2")
    assert chosen(again(project), "two") == []


def test_conditions_on_two_columns_are_of_one_specimen(tmp_path: Path) -> None:
    rows = [
        assay("P1", "S1", "A1", site="liver", library="X"),
        assay("P1", "S1", "A2", site="liver", library="Y"),
        assay("P2", "S2", "A3", site="liver", library="Y"),
        assay("P2", "S3", "A4", site="lung", library="X"),
    ]
    rule = '[cohorts.x.where]\n"specimen.site" = "liver"\n"assay.library" = "X"\n'
    project = make_project(tmp_path / "toy", rows, toml=TOML + rule)
    assert chosen(project, "x", "patient") == ["P1"] and chosen(project, "x") == ["A1"]


def test_one_condition_may_be_a_condition_of_conditions() -> None:
    assert Condition("is", tuple("abcdef")).words("x") == "x is one of 6 values"
