"""Two damaged records give one history: their order does not matter, gaps are named, and no event is made up."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ctcore.catalog.event_log import GENESIS, MISSING, event_digest
from ctcore.catalog.merged_history import Row, merge_history


def chain(length: int, after: tuple[int, str] = (0, GENESIS), subject: str = "sheet") -> list[Row]:
    """So many events, each with the digest of the one before."""
    rows: list[Row] = []
    seq, previous = after
    for _ in range(length):
        seq += 1
        row: dict[str, Any] = {"seq": seq, "at": "2026-01-01T00:00:00+00:00", "actor": "ada", "kind": "register"}
        row |= {"subject": subject, "body": "{}", "previous": previous}
        previous = row["digest"] = event_digest(row)
        rows.append(row)
    return rows


@st.composite
def parts(draw: st.DrawFn) -> tuple[list[Row], list[Row], list[Row]]:
    """A chain, and two records that each have some of its events, in any order."""
    whole = chain(draw(st.integers(1, 8)))
    some = [draw(st.lists(st.sampled_from(whole), unique_by=lambda row: row["seq"])) for _ in range(2)]
    return whole, some[0], some[1]


@given(parts())
def test_a_history_has_each_event_that_a_record_has(made: tuple[list[Row], list[Row], list[Row]]) -> None:
    whole, one, other = made
    last = (whole[-1]["seq"], whole[-1]["digest"])
    found = merge_history([one, other], last)
    have = {row["seq"] for row in (*one, *other)}
    assert [row["seq"] for row in found.rows] == sorted(have) and not found.others and not found.changed
    missing = {seq for first, end in found.missing for seq in range(first, end + 1)}
    assert missing == set(range(1, len(whole) + 1)) - have and not found.more
    assert found.head == last, "the next event follows the last one that the witness saw"
    assert merge_history([other, one], last).rows == found.rows


def test_the_witness_chooses_between_two_histories() -> None:
    common = chain(2)
    fork = (2, common[-1]["digest"])
    short, long = chain(1, fork, "short"), chain(3, fork, "long")
    records = [common + short, common + long]
    assert merge_history(records, None).rows == common + long, "the longer one, where nobody saw either"
    found = merge_history(records, (3, short[0]["digest"]))
    assert found.rows == common + short and found.others == long


def test_an_edited_copy_gives_way_to_a_whole_one() -> None:
    whole = chain(3)
    edited = [whole[0], {**whole[1], "actor": "eve"}, whole[2]]
    assert merge_history([edited, whole], None).rows == whole
    alone = merge_history([edited], None)
    assert alone.changed == {2: event_digest(edited[1])}
    assert alone.unknown() == {"2": event_digest(edited[1])}


def test_an_accepted_loss_is_known_and_another_is_not() -> None:
    whole = chain(4)
    body = f'{{"lost":{{"2-2":"{MISSING}"}}}}'
    accepted: Row = {**whole[0], "seq": 5, "kind": "accept-loss", "body": body, "previous": whole[3]["digest"]}
    accepted["digest"] = event_digest(accepted)
    found = merge_history([[whole[0], whole[3], accepted]], None)
    assert found.missing == [(2, 3)] and found.unknown() == {"3-3": MISSING}


def test_a_witness_that_saw_an_unknown_event_means_more_is_lost() -> None:
    whole = chain(3)
    assert merge_history([whole], (2, "f" * 64)).more
    found = merge_history([whole], (5, "f" * 64))
    assert found.missing == [(4, 5)] and found.head == (5, "f" * 64) and not found.more
