"""What several commands type, print and write."""

from pathlib import Path
from typing import Any

import click
import pytest

from ctcore.errors import Usage
from ctcore.governance.consent import Statement, set_consent
from ctcore.governance.masking import WITHHELD, mask_of
from ctcore.model.masked_text import Plain, Words
from ctcore.model.reasons import Reason, Verdict
from ctcore.terminal.damage import finding_in_words, place_in_words, show_cycle
from ctcore.terminal.gated_file import write_gated
from ctcore.terminal.name_values import name_values
from ctcore.terminal.verdict_text import in_words, reasons_json
from tests.helpers.kit import again, make_project


def test_names_and_values_are_split_at_the_first_sign() -> None:
    assert name_values("--set", ["a=b=c", " d = e "]) == {"a": "b=c", "d": "e"}
    assert name_values("--set", ["a="], blank=True) == {"a": ""}


@pytest.mark.parametrize(
    ("said", "why"), [(["a"], "are expected"), (["=b"], "are expected"), (["a=1", "a=2"], "twice")]
)
def test_names_without_a_value_are_refused(said: list[str], why: str) -> None:
    with pytest.raises(Usage, match=why):
        name_values("--set", said)


def test_damage_names_nobody_who_is_hidden(tmp_path: Path) -> None:
    project = make_project(tmp_path / "toy")
    set_consent(project, ["P2"], Statement("revoked", form="form 1"))
    seen = mask_of(again(project))
    assert place_in_words(seen, "consent 3 (P1)") == "consent 3 (P1)"
    assert place_in_words(seen, "consent 3 (P2)") == f"consent 3 ({WITHHELD})"
    assert place_in_words(seen, "P2") == WITHHELD
    assert finding_in_words(seen, "consent 3 (P2): not of its event") == f"consent 3 ({WITHHELD}): not of its event"


def test_a_circle_is_shown_as_one(capsys: pytest.CaptureFixture[str]) -> None:
    show_cycle([("merged", "S1"), ("joined", "all"), ("merged", "S1")])
    assert "merged/S1 ← joined/all ← merged/S1" in capsys.readouterr().err
    show_cycle([])
    assert capsys.readouterr().err == ""


def test_reasons_are_told_field_by_field() -> None:
    reason = Reason("input", Words(Plain("it changed")), ("merged", "S1"), (("counted", "A1"),))
    (told,) = reasons_json(Verdict("joined", "all", "stale", (reason,)))
    assert (told["kind"], told["words"], told["node"], told["path"]) == (
        "input",
        "it changed",
        "merged/S1",
        ["counted/A1"],
    )
    assert in_words({"stale": 2, "fresh": 1}) == "2 stale, 1 fresh"


def test_a_file_of_people_is_written_whole_or_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = make_project(tmp_path / "toy")
    set_consent(project, ["P2"], Statement("revoked", form="form 1"))
    ctx = click.Context(click.Command("drawn"), obj=str(project.root))
    file = tmp_path / "drawn.txt"

    def draw(gate: Any, _verdicts: Any, part: Path) -> None:
        part.write_text(str([who in gate.ids_where("patient", gate.shows("patient")) for who in ("P1", "P2")]))

    def fail(_gate: Any, _verdicts: Any, part: Path) -> None:
        part.write_text("half")
        raise ValueError

    write_gated(ctx, file, (False, None), "the drawing", draw)
    assert file.read_text() == "[True, False]" and "1 patient" in capsys.readouterr().err
    with pytest.raises(ValueError):
        write_gated(ctx, file, (False, None), "the drawing", fail)
    assert file.read_text() == "[True, False]" and [one.name for one in tmp_path.glob("*drawn*")] == ["drawn.txt"]
