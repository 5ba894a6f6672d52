"""Who is complete, on random cohorts, against a definition in plain Python that asks every assay by itself."""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from ctcore.cohorts.pairings import readiness
from ctcore.governance.qc import QcEntry
from ctcore.governance.qc import add as add_qc
from tests.helpers.kit import TOML, assay, make_project

TIMES = ("t0", "t1", "t2")
STEP = "counted"


@st.composite
def designs(draw: st.DrawFn) -> dict[str, Any]:
    """People with specimens at times, assays of libraries, and what speaks against some of them."""
    rows: list[dict[str, str]] = []
    for patient in range(draw(st.integers(1, 3))):
        for specimen in range(draw(st.integers(1, 4))):
            time = draw(st.sampled_from([*TIMES, "other", ""]))
            for at in range(draw(st.integers(1, 2))):
                name = f"P{patient}-S{specimen}"
                library = draw(st.sampled_from("LW"))
                rows.append(assay(f"P{patient}", name, f"{name}-{at}", site=time, library=library))
    ids = {level: sorted({row[f"{level}_id"] for row in rows}) for level in ("patient", "specimen", "assay")}
    everybody = [(level, one) for level, some in ids.items() for one in some]
    kinds = st.sampled_from([("qc_fail", None), ("qc_warn", None), ("qc_fail", STEP)])
    said = draw(st.lists(st.tuples(st.sampled_from(everybody), kinds), max_size=4, unique_by=lambda one: one[0]))
    return {
        "rows": rows,
        "said": said,
        "order": draw(st.sampled_from([(), TIMES, TIMES[:2]])),
        "several": draw(st.sampled_from(["any", "all", "worst"])),
        "require": draw(st.integers(0, 3)),
        "where": draw(st.booleans()),
        "step": draw(st.sampled_from([None, STEP])),
    }


def naive(design: Mapping[str, Any]) -> dict[str, tuple[str, int, bool]]:
    """Patient → status, how many values pass, and whether that is enough."""
    barred = {who for who, (kind, step) in design["said"] if kind == "qc_fail" and step in (None, design["step"])}

    def usable(row: Mapping[str, str]) -> bool:
        return not any((level, row[f"{level}_id"]) in barred for level in ("patient", "specimen", "assay"))

    counted = [row for row in design["rows"] if not design["where"] or row["library"] == "W"]
    counted = [row for row in counted if row["site"] and (not design["order"] or row["site"] in design["order"])]
    values = design["order"] or sorted({row["site"] for row in counted})
    found = {}
    for patient in {row["patient_id"] for row in counted} - {who for level, who in barred if level == "patient"}:
        mine = [row for row in counted if row["patient_id"] == patient]
        there = [value for value in values if any(row["site"] == value for row in mine)]
        good = [value for value in there if passes([row for row in mine if row["site"] == value], design, usable)]
        if len(there) == 1 and len(values) > 1:
            status = "singleton"
        elif len(there) < len(values):
            status = "incomplete"
        else:
            status = "complete" if len(good) == len(values) else "broken"
        found[patient] = (status, len(good), len(good) >= (design["require"] or len(values)))
    return found


def passes(rows: list[Mapping[str, str]], design: Mapping[str, Any], usable: Callable[..., bool]) -> bool:
    specimens = {row["specimen_id"] for row in rows}
    each = [[usable(row) for row in rows if row["specimen_id"] == one] for one in specimens]
    if design["several"] == "any":
        return any(map(any, each))
    return all(map(any if design["several"] == "all" else all, each))


def toml(design: Mapping[str, Any]) -> str:
    lines = ["[pairings.time]", 'by = "specimen.site"', f'several = "{design["several"]}"']
    lines += [f"require = {design['require']}"]
    lines += [f"order = {list(design['order'])}"] if design["order"] else []
    lines += ['where = { "assay.library" = "W" }'] if design["where"] else []
    return TOML + "\n".join(lines) + "\n"


@settings(max_examples=40, deadline=None)
@given(designs())
def test_who_is_complete_is_what_the_plain_definition_says(design: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        project = make_project(Path(folder) / "toy", design["rows"], toml=toml(design))
        for (level, who), (kind, step) in design["said"]:
            add_qc(project, [QcEntry(level, who, kind, "as the test has it", step=step)])
        found = readiness(project, "time", step=design["step"])
        project.catalog.engine.dispose()
    assert {row.who: (row.status, row.passing, row.enough) for row in found.rows} == naive(design)
    assert all(row.reason for row in found.rows if row.status != "complete")
