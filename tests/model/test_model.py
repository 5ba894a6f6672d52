"""The domain's words: values of cells, columns of results, rules of cohorts, text that names nobody, nodes."""

import datetime
import math
from typing import Any

import numpy as np
import pytest

from ctcore.model import analysis
from ctcore.model.analysis import Analysis
from ctcore.model.cohort_rule import Cohort, Condition, deepest, from_normal, rule_change_text
from ctcore.model.column import Column
from ctcore.model.levels import count_text
from ctcore.model.masked_text import NodeName, Plain, QuotedText, Words, join_words
from ctcore.model.node import name_of
from ctcore.model.spellings import texts_of
from ctcore.model.values import control_characters, convert_text, fit_value, fit_word


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("0012", "text", "0012"),
        ("0012", "integer", 12),
        ("-3", "integer", -3),
        (".5", "real", 0.5),
        ("1e3", "real", 1000.0),
        ("Yes", "boolean", True),
        ("0", "boolean", False),
        ("2026-02-28", "date", "2026-02-28"),
    ],
)
def test_a_cell_is_a_value_of_its_type(text: str, kind: Any, value: object) -> None:
    found, problem = convert_text(text, Column("c", kind))
    assert (found, type(found), problem) == (value, type(value), None)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        *(("1_000", "integer"), ("1.0", "integer"), ("9" * 19, "integer"), ("nan", "real"), ("1e999", "real")),
        *(("1,5", "real"), ("ja", "boolean"), ("2026-02-30", "date"), ("20260228", "date")),
    ],
)
def test_a_cell_that_is_none_is_refused(text: str, kind: Any) -> None:
    found, problem = convert_text(text, Column("c", kind))
    assert found is None and problem is not None and problem.startswith("is not ")


def test_the_ends_of_a_range_are_inside() -> None:
    column = Column("c", "real", range=(0, 1))
    assert [convert_text(text, column)[1] for text in ("0", "1", "1.01")] == [None, None, "is not within 0 to 1"]


def test_a_programs_value_fits_by_type_not_by_text() -> None:
    assert fit_value(np.int32(3), Column("c", "integer")) == (3, None)
    assert fit_value(datetime.date(2026, 1, 2), Column("c", "date")) == ("2026-01-02", None)
    assert fit_value(True, Column("c", "integer"))[1] == "is not a whole number"
    assert fit_value("3", Column("c", "integer"))[1] == "is not a whole number"
    assert fit_value(math.nan, Column("c", "real"))[1] == "is not a number"
    assert fit_value(None, Column("c", required=True))[1] == "is blank, but required"
    assert fit_value(2.0, Column("c", "real", enum=("1", "2"))) == (2.0, None)


def test_words_of_other_formats_become_those_of_the_column() -> None:
    assert fit_word("female", Column("sex", enum=("M", "F"))) == "F"
    assert fit_word("affected", Column("case", "boolean")) == "true"
    assert fit_word("unknown", Column("sex", enum=("F", "M"))) == ""
    assert fit_word("female", Column("sex")) == "female"


def test_a_control_character_is_told_with_its_place_and_code() -> None:
    assert control_characters([(3, ["a", "b\x07"])], ["x", "y"]) == [
        "row 3, column 'y': 'b\\x07' has a control character; remove it"
    ]


def test_a_value_of_ct_toml_finds_all_its_spellings() -> None:
    assert set(texts_of("30")) >= {'"30"', "30", "30.0"}
    assert texts_of("true") == ['"true"', "true"]
    assert texts_of("lung") == ['"lung"']
    assert "-0.0" in texts_of("0")
    assert texts_of("1e999") == ['"1e999"']


def test_a_declared_analysis_comes_back_as_it_was_written_down() -> None:
    column = Column("ki67", "real", True, unit="%", range=(0, math.inf), description="share of nuclei")
    found = analysis.from_json(analysis.as_json({"path": Analysis("path", "assay", {"ki67": column}, "a report")}))
    assert found == {"path": Analysis("path", "assay", {"ki67": Column("ki67", "real", True, range=(0, math.inf))})}


def test_a_rule_has_one_version_however_it_is_written() -> None:
    one = Cohort("a", {"patient.sex": (Condition("is", ("F", "M")),), "specimen.site": (Condition("not", ("x",)),)})
    other = Cohort("b", {"specimen.site": (Condition("not", ("x",)),), "patient.sex": (Condition("is", ("M", "F")),)})
    assert one.version == other.version
    assert from_normal(one.normal).version == one.version
    assert Cohort("a", {"patient.sex": (Condition("is", ("F",)),)}).version != one.version


def test_a_rule_is_decided_at_its_deepest_level() -> None:
    inner = Cohort("inner", {"assay.kit": (Condition("is", ("A",)),)})
    assert inner.deciding_level == "assay" and Cohort("outer", any_of=(inner,)).deciding_level == "assay"
    assert Cohort("p", inner.where, level="patient").deciding_level == "patient"
    assert deepest([]) == "patient"
    assert list(Cohort("outer", any_of=(inner,)).columns()) == ["assay.kit"]


def test_a_rule_and_its_change_are_told_in_words() -> None:
    old = Cohort("a", {"patient.age": (Condition(">=", ("18",)),)}, has={"specimen": 2})
    assert old.words == "patient.age >= 18 and at least 2 specimens"
    new = Cohort("a", {"patient.age": (Condition("known", ("true",)),)})
    assert (
        rule_change_text(old, new).startswith("the rule changed: patient.age >= 18")
        and new.words == "patient.age is known"
    )
    many = Cohort("a", {"patient.age": (Condition("is", tuple(map(str, range(9)))),)})
    assert many.words == "patient.age is one of 9 values" and Cohort("a").words == "everybody"


def test_text_about_people_names_nobody_by_itself() -> None:
    inner = Words("of ", NodeName(("patient", "P1"), "P1"))
    words = Words("moved ", QuotedText("Ann said so"), Plain(" 3 times "), inner)
    assert str(words) == "moved … 3 times of …"
    assert "P1" not in f"{words} {words!r} {join_words([words, inner])}"
    assert str(join_words([Words("a"), Words("b")])) == "a; b"
    assert not Words() and Words("a").is_plain and not words.is_plain


def test_levels_and_nodes_are_told_in_words() -> None:
    assert [count_text(n, "patient") for n in (0, 1, 1200)] == ["0 patients", "1 patient", "1,200 patients"]
    assert name_of(("merged", "S1")) == "merged/S1"
