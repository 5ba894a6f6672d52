"""A redacted event says nothing of the person and all that it said of others; and says the same if redacted again."""

import json
import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ctcore.catalog.event_log import GENESIS, event_digest
from ctcore.deletion.redacted_events import GONE, Purges, RedactionScope, event_without_person, redact_again, role_less
from ctcore.store.digest import canonical_json

P1 = RedactionScope(
    own=frozenset({("patient", "P1"), ("assay", "A1")}),
    seqs=frozenset({1, 3}),
    makings=frozenset({7}),
    steps={"counted": frozenset({"A1"})},
    many=frozenset({"joined"}),
    any_id=re.compile(r"\b(P1|A1)\b"),
)
SECRET, OTHERS = "secret-of-P1", "said-of-P2"


def without(kind: str, subject: str, body: Any) -> Any:
    """The body after the redaction; None where there is nothing to remove."""
    found = event_without_person(P1, kind, subject, canonical_json(body).decode())
    if found is not None:
        assert event_without_person(P1, kind, subject, found) is None, "a second redaction finds nothing"
    return found and json.loads(found)


@given(st.lists(st.tuples(st.integers(1, 4), st.booleans()), max_size=6))
def test_attributes_go_of_the_person_and_of_nobody_else(rows: list[tuple[int, bool]]) -> None:
    texts = {True: json.dumps({"sex": SECRET}), False: "{}"}
    body = {"new": [{"seq": seq, "level": "patient", "id": str(seq), "attributes": texts[has]} for seq, has in rows]}
    found = without("register", "sheet", body)
    assert (found is not None) == any(has and seq in P1.seqs for seq, has in rows)
    for before, after in zip(body["new"], (found or body)["new"], strict=True):
        assert after == {**before, "attributes": "{}"} if before["seq"] in P1.seqs else after == before


def test_former_values_in_a_registration_go_too() -> None:
    found = without("register", "sheet", {"changed": [], "before": {"1": {"sex": SECRET}, "2": {"sex": OTHERS}}})
    assert found == {"changed": [], "before": {"1": {}, "2": {"sex": OTHERS}}}


def test_results_and_reasons_of_qc_go_by_name() -> None:
    results = [{"entity": "assay/A1", "values": {"v": SECRET}}, {"entity": "assay/A2", "values": {"v": OTHERS}}]
    found = without("record", "purity", {"results": results})
    assert [one["values"] for one in found["results"]] == [{}, {"v": OTHERS}]
    events = [{"name": "assay/A1", "reason": SECRET}, {"name": "assay/A2", "reason": OTHERS}]
    found = without("censor", "assay/A1", {"events": events})
    assert [one["reason"] for one in found["events"]] == [GONE, OTHERS]


def test_an_error_goes_of_own_nodes_and_where_it_names_them() -> None:
    assert without("fail", "counted/A1", {"error": SECRET, "log": "l"}) == {"error": GONE, "log": None}
    assert without("fail", "joined/all", {"error": "of A1: bad", "log": "l"}) == {"error": GONE, "log": "l"}
    assert without("fail", "joined/all", {"error": "of A10: bad", "log": "l"}) is None, "A10 is another assay"
    assert without("fail", "counted/A2", {"error": "of A1", "log": "l"}) is None, "the node of somebody else"


def test_roles_go_from_acceptances_and_reasons() -> None:
    found = without("accept", "joined/all", {"kind": "member-role", "words": "assay/A1 case"})
    assert found["words"] == f"assay/A1 {GONE}"
    assert without("accept", "joined/all", {"kind": "member-role", "words": "assay/A2 case"}) is None
    assert without("accept", "joined/all", {"kind": "code", "words": "assay/A1 case"}) is None
    made = {"materialization": 7, "reason": "member-role: assay/A2 case"}
    assert without("materialize", "joined/all", made)["reason"] == GONE, "it is of a making that contains the person"
    assert without("materialize", "joined/all", {**made, "materialization": 8}) is None
    assert role_less("assay/A1 case", {"assay/A1"}) == f"assay/A1 {GONE}"


def chained(*events: tuple[str, str, Any]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    previous = GENESIS
    for seq, (kind, subject, body) in enumerate(events, 1):
        row = {"seq": seq, "at": "t", "actor": "ada", "kind": kind, "subject": subject, "previous": previous}
        row["body"] = canonical_json(body).decode()
        previous = row["digest"] = event_digest(row)
        rows.append(row)
    return rows


def test_an_older_copy_is_redacted_as_its_purge_did() -> None:
    """The digest after the redaction is in the purge's event, so that it proves which text is right."""
    person = {"seq": 1, "level": "patient", "id": "P1", "attributes": json.dumps({"sex": SECRET})}
    (first,) = chained(("register", "sheet", {"new": [person]}))
    right = {**first, "body": event_without_person(P1, "register", "sheet", first["body"])}
    body = {"purge": 1, "patient": "P1", "own": ["patient/P1"], "removed": [], "redacted": {"1": event_digest(right)}}
    rows = chained(("register", "sheet", {"new": [person]}), ("purge", "patient/P1", body))
    said = Purges.from_events((row["seq"], row["kind"], row["body"]) for row in rows)
    assert said.listed == {1: event_digest(right)} and [one["patient"] for one in said.of(1)] == ["P1"]
    assert redact_again(rows, said)[0]["body"] == right["body"]
    whole = [{**rows[0], "body": right["body"]}, rows[1]]
    assert redact_again(whole, said) == whole, "what is right stays as it is"


def test_an_event_that_cannot_be_understood_is_passed_over() -> None:
    broken = [(1, "purge", "no json"), (2, "purge", '{"purge": 1}'), (3, "register", "{}")]
    assert not Purges.from_events(broken).listed


def test_of_two_ways_to_redact_the_recorded_digest_decides() -> None:
    """The error of a call with several people goes, and its log stays; of an own call, both go."""
    (failed,) = chained(("fail", "joined/all", {"error": "of A1", "log": "l"}))
    for body in ({"error": GONE, "log": "l"}, {"error": GONE, "log": None}):
        right = {**failed, "body": canonical_json(body).decode()}
        redacted = {"1": event_digest(right)}
        purged = {"purge": 1, "patient": "P1", "own": ["patient/P1"], "removed": [], "redacted": redacted}
        rows = chained(("fail", "joined/all", {"error": "of A1", "log": "l"}), ("purge", "patient/P1", purged))
        said = Purges.from_events((row["seq"], row["kind"], row["body"]) for row in rows)
        assert json.loads(redact_again(rows, said)[0]["body"]) == body
