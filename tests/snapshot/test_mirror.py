"""The mirror reads what the catalog's rows say, whatever texts are in them and however many it reads at once."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

from ctcore.catalog.tables import artifact, edge
from ctcore.snapshot import artifacts
from ctcore.snapshot.json_columns import integers, versions
from ctcore.snapshot.snapshot import Snapshot, SnapshotShape, load
from ctcore.snapshot.versions import pack, unpack
from ctcore.store.digest import digest_text
from tests.helpers.kit import make_all, make_project

ONE = digest_text("one")
ODD = ("", "\n", "aa", "F0", '","', '", "', "a\tb, c", "[1,2]", "0" * 63, "0" * 65, ONE.upper(), ONE, f"{ONE}\n{ONE}")
GAPS = st.sampled_from([",", ", "])  # SQLite's and PostgreSQL's


@given(st.lists(st.sampled_from(ODD) | st.text("a0\n\"', \\", max_size=4), max_size=5), GAPS)
def test_a_list_of_versions_is_packed_as_its_texts_are(texts: list[str], gap: str) -> None:
    found = versions(json.dumps(texts, separators=(gap, ":")))
    assert unpack(found) == unpack(pack(texts)) == [digest_text(text) for text in texts]


@given(st.lists(st.integers(-(2**62), 2**62), max_size=5), GAPS)
def test_a_list_of_numbers_is_these_numbers(numbers: list[int], gap: str) -> None:
    assert integers(f"[{gap.join(map(str, numbers))}]").tolist() == numbers


def test_what_was_used_is_what_the_rows_say(catalog_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a call had other inputs than those before it, and where an input is no longer there."""
    project = make_project(tmp_path / "toy")
    make_all(project)
    names = ("input", "asset", "partition", "version")
    odd = [("gone", "counted", f"nobody {at}", text) for at, text in enumerate(ODD)]
    odd += [("note", "assay", "A1", ODD[0]), ("reference:old", "reference", "old", "1")]
    with project.catalog.write() as writer:
        last = writer.execute(select(artifact.c.materialization).where(artifact.c.partition == "A3")).scalar()
        rows = [dict(zip(names, row, strict=True)) for row in odd]
        writer.insert(edge, [{"materialization": last, **row} for row in rows])
        writer.event("benchmark", project.id, {})
    shape = SnapshotShape.of(project.steps, project.settings)
    with project.catalog.read() as connection:
        joined = artifact.join(edge, edge.c.materialization == artifact.c.materialization)
        fields = (artifact.c.asset, artifact.c.partition, *(edge.c[name] for name in names))
        rows = connection.execute(select(*fields).select_from(joined)).all()
        said = sorted((*row[:5], digest_text(row.version)[:32]) for row in rows)
        for at_once in (1, 3, 50_000):
            monkeypatch.setattr(artifacts, "FETCHED", at_once)
            assert sorted(_used(load(connection, shape))) == said


def _used(snapshot: Snapshot) -> Iterator[tuple[str, ...]]:
    """Of each edge: step, partition, input, asset, its partition, half of the version."""
    for step, some in snapshot.made.items():
        for role, used in some.used.items():
            owner, place = used.pairs(np.arange(snapshot.size(step)))
            for node, at in zip(owner.tolist(), place.tolist(), strict=True):
                asset, name = used.node(role, int(used.source[at]), snapshot.name)
                name = role[0].removeprefix("reference:") if name == "reference" else name
                yield step, snapshot.names(step)[node], role[0], asset, name, used.version[at].tobytes().hex()
