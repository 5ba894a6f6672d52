"""Words about people name nobody by themselves; the mask tells them, and of whoever is hidden nothing."""

import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctcore.governance.masking import UNMASKED, WITHHELD, Mask
from ctcore.model.masked_text import UNTOLD, NodeName, Part, Plain, QuotedText, Words, join_words
from ctcore.model.reasons import Reason, node_text

LEVELS = {"counted": "assay", "merged": "specimen", "joined": "cohort"}
HIDDEN = Mask({"patient": {"P1"}, "specimen": {"S1"}, "assay": {"A1"}}, LEVELS)
PARTS: st.SearchStrategy[Part] = st.recursive(
    st.one_of(
        st.sampled_from([" as ", ": "]).map(Plain),
        st.sampled_from([("merged", "S1"), ("merged", "S2"), ("joined", "all"), ("patient", "P1")]).map(node_text),
        st.sampled_from(["said of A1: blood", "merged/S2 was late", "A1.txt gone"]).map(QuotedText),
    ),
    lambda inner: st.lists(inner, min_size=1, max_size=4).map(lambda some: Words(*some)),
)


@given(st.lists(PARTS, max_size=5))
def test_no_way_of_printing_gives_a_name(parts: list[Part]) -> None:
    words = Words(*parts)
    reason = Reason("input", words, ("merged", "S1"), (("counted", "A1"),))
    for text in (
        str(words),
        f"{words}",
        repr(words),
        f"{words!r:>9}",
        str(reason),
        repr(reason),
        f"{join_words([words])}",
    ):
        assert not {"S1", "S2", "P1", "A1", "all", "blood"} & set(text.replace("/", " ").replace(".", " ").split())
    with pytest.raises(TypeError):
        json.dumps({"words": words})
    assert pickle.loads(pickle.dumps(words)) == words


@given(st.lists(PARTS, max_size=5))
def test_the_mask_hides_only_sentences_with_hidden_names(parts: list[Part]) -> None:
    words = Words(*parts)
    told = HIDDEN.mask_words(words)
    assert not {"S1", "P1", "A1", "blood"} & set(told.replace("/", " ").replace(".", " ").replace(":", " ").split())
    own = [one for one in parts if not isinstance(one, Words)]
    if "1" not in UNMASKED.mask_words(words):
        assert told == UNMASKED.mask_words(words)
    elif any("1" in (one if isinstance(one, str) else one.text) for one in own):
        assert told == WITHHELD


def test_a_sentence_that_quotes_another_is_told_around_it() -> None:
    quoted = Reason("member-removed", Words(node_text(("merged", "S1")), " as specimens"), ("merged", "S1"))
    words = Words("before (", node_text(("joined", "all")), ") is stale (", quoted.sentence, ")")
    assert HIDDEN.mask_words(words) == f"before (joined/all) is stale (member-removed: {WITHHELD})"
    assert UNMASKED.mask_words(words) == "before (joined/all) is stale (member-removed: merged/S1 as specimens)"
    assert str(words) == f"before ({UNTOLD}) is stale (member-removed: {UNTOLD} as specimens)"


def test_a_reason_about_a_hidden_person_has_no_evidence() -> None:
    reason = Reason("input", Words(NodeName(("merged", "S1"), "S1")), ("merged", "S1"), (), "specimens", "old", "new")
    told = HIDDEN.reason(reason)
    assert str(told) == f"input: {WITHHELD}" and told.input == "specimens"
    assert (told.node, told.path, told.old, told.new) == (None, (), None, None)
    assert UNMASKED.reason(reason).evidence == reason.evidence
