"""Checksums of a sheet, references and their files, declarations compared."""

import hashlib
import os
from pathlib import Path

import pytest

from ctcore.errors import SheetError
from ctcore.intake import analysis_changes
from ctcore.intake.checksums import read_claimed
from ctcore.intake.raw_files import look
from ctcore.intake.reference_usage import kept_files, reference_histories
from ctcore.intake.schema_changes import StoredEntity, contradictions, differences, in_words
from ctcore.model.analysis import Analysis
from ctcore.model.column import Column, Value
from ctcore.model.levels import ENTITY_LEVELS
from ctcore.model.schema import Levels, LevelSchema
from ctcore.sheet.parse import read_sheet
from tests.helpers.kit import again, make_all, make_project


def levels(**columns: Column) -> Levels:
    found: Levels = {level: LevelSchema(level) for level in ENTITY_LEVELS}
    return {**found, "patient": LevelSchema("patient", columns)}


def test_a_checksum_of_each_kind_is_compared(tmp_path: Path) -> None:
    project = make_project(tmp_path)
    reads = project.root / "reads" / "A1.txt"
    right = hashlib.md5(reads.read_bytes(), usedforsecurity=False).hexdigest()
    sheet = project.root / "sums.csv"
    for kind, said, ok in (("md5", right, True), ("md5", "0" * 32, False), ("sha256", "0" * 64, False)):
        sheet.write_text(f"patient_id,specimen_id,assay_id,reads,reads_{kind}\nP1,S1,A1,{reads},{said}\n")
        found = read_sheet(sheet, project.settings.levels, project.settings.reading)
        if ok:
            ((path, (digest, _)),) = read_claimed(project, found).items()
            assert path == str(reads) and len(digest) == 64
        else:
            with pytest.raises(SheetError, match=f"row 2, column reads_{kind}: 000000000000… is not the checksum"):
                read_claimed(project, found)


def test_a_reference_has_its_versions_nodes_and_files(tmp_path: Path) -> None:
    project = make_project(tmp_path)
    make_all(project)
    (one,) = reference_histories(project)
    assert (one.key, one.version, one.nodes, one.others, one.declared) == ("genome", "1", 3, 0, True)
    assert kept_files(project, one.versions) == ["there, not read since"]
    (project.root / "genome.txt").write_text("TTTTT\n")
    assert kept_files(project, one.versions) == ["replaced"]
    look(project)
    later = reference_histories(again(project), "genome")[0]
    assert len(later.versions) == 2 and (later.nodes, later.others) == (0, 3)
    os.unlink(project.root / "genome.txt")
    assert set(kept_files(project, later.versions)) == {"gone"} and reference_histories(project, "other") == []


def test_differences_of_declarations_are_told_by_column() -> None:
    old = levels(age=Column("age"), sex=Column("sex", enum=("F", "M")))
    new = levels(age=Column("age", "integer"), site=Column("site"))
    found = differences(old, new)
    assert {(level, column) for level, column, _ in found} == {("patient", name) for name in ("age", "sex", "site")}
    assert differences(new, new) == [] and len(in_words(found)) == 3


@pytest.mark.parametrize(
    ("column", "wrong"),
    [
        (Column("age", "integer"), {"P2"}),
        (Column("age", enum=("40",)), {"P2"}),
        (Column("age", required=True), {"P3"}),
        (Column("age", unique=True), {"P4"}),
        (Column("age"), set()),
    ],
)
def test_values_that_contradict_a_declaration_are_found(column: Column, wrong: set[str]) -> None:
    number: Value = 40 if column.type == "integer" else "40"
    values: dict[str, Value] = {"P1": number, "P2": "old", "P3": None, "P4": number}
    known = {who: {} if value is None else {"age": value} for who, value in values.items()}  # a blank is not kept
    rows = [StoredEntity(at, "patient", who, None, mine) for at, (who, mine) in enumerate(known.items())]
    assert {who for one in contradictions(rows, levels(age=column)) for who in one.ids} == wrong


def test_differences_of_analyses_are_told_by_column() -> None:
    old = {"path": Analysis("path", "assay", {"ki67": Column("ki67", "real")})}
    new = {
        "path": Analysis("path", "specimen", {"ki67": Column("ki67", "integer")}),
        "more": Analysis("more", "assay", {}),
    }
    found = analysis_changes.differences(old, new)
    assert {name for name, _, _ in found} == {"analyses.path", "analyses.more"} and analysis_changes.differences(
        new, new
    ) == []
    assert any("ki67" in column for _, column, _ in found)
