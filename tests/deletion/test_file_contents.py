"""What a file holds of a purged person is found in every packing, and nothing is found where nothing is."""

import bz2
import gzip
import io
import json
import lzma
import re
import sqlite3
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ctcore.deletion import file_contents
from ctcore.deletion.dagster_storage import PurgedNodes
from ctcore.deletion.file_contents import MAYBE, Contents
from ctcore.deletion.purged_digests import PurgedContent

SECRET = b"ACGT of P1, and more than sixteen bytes of it\n"
NOBODY: frozenset[str] = frozenset()
NODES = PurgedNodes(Path("/nowhere"), NOBODY, NOBODY, NOBODY, NOBODY, "", NOBODY, frozenset(), None)
WANTED = PurgedContent(
    patient="P1",
    own=frozenset({("patient", "P1"), ("assay", "A1")}),
    any_id=re.compile(r"\b(P1|A1)\b"),
    files={blake3(SECRET).hexdigest(): "counted/A1 n.txt"},
    raw={},
    beside={},
    sizes=frozenset({len(SECRET)}),
    raw_paths=NOBODY,
    others_raw=NOBODY,
    events={},
    chain=NOBODY,
    dagster_nodes=NODES,
)


def zipped(*files: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for at, data in enumerate(files):
            archive.writestr(f"inner{at}", data)
    return stream.getvalue()


def tarred(data: bytes) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        info = tarfile.TarInfo("inner")
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
    return stream.getvalue()


PACKINGS: Mapping[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zip": zipped,
    "tar": tarred,
}


def found(folder: Path, data: bytes, name: str = "some.bin") -> list[str]:
    place = folder / name
    place.write_bytes(data)
    return Contents(WANTED, lambda members, _: bool(members) and ["assay", "A1"] in [one[:2] for one in members]).of(
        str(place)
    )


@given(st.lists(st.sampled_from(sorted(PACKINGS)), min_size=1, max_size=4))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_packed_content_is_found_at_every_depth_searched(tmp_path: Path, packings: list[str]) -> None:
    data, other = SECRET, SECRET[::-1]
    for name in packings:
        data, other = PACKINGS[name](data), PACKINGS[name](other)
    assert found(tmp_path, data) == ["has the bytes of counted/A1 n.txt"]
    assert found(tmp_path, other) == [], "as many other bytes are nobody's"


@pytest.mark.parametrize("data", [b"", b"\x1f\x8b", b"PK\x03\x04 no archive", b"BZh", b'{"node": 3', b"\0" * 5000])
def test_a_file_that_is_not_what_it_begins_as_holds_nothing(tmp_path: Path, data: bytes) -> None:
    assert found(tmp_path, data) == []


@pytest.mark.parametrize(
    ("document", "is_theirs"),
    [
        ({"node": ["counted", "A1"], "key": "k"}, True),
        ({"node": ["counted", "A2"], "key": "k"}, False),
        ({"node": ["counted", "A1"]}, False),
        ({"members": [["assay", "A1", "case"]]}, True),
        ({"members": [["assay", "A2", "case"]]}, False),
        ({"source": "f('P1')", "declaration": ""}, True),
        ({"source": "f('P10')", "declaration": ""}, False),
        ([1, 2], False),
    ],
)
def test_a_document_is_theirs_by_its_ids(tmp_path: Path, document: object, is_theirs: bool) -> None:
    assert found(tmp_path, json.dumps(document).encode()) == ["names the patient's IDs"] * is_theirs


def test_an_old_catalog_is_known_by_its_attributes(tmp_path: Path) -> None:
    for name, attributes in (("old.db", '{"sex": "F"}'), ("new.db", "{}")):
        connection = sqlite3.connect(tmp_path / name)
        connection.execute("CREATE TABLE event (seq, at, actor, kind, subject, body, previous, digest)")
        connection.execute("CREATE TABLE entity (level, id, attributes)")
        connection.execute("INSERT INTO entity VALUES ('patient', 'P1', ?)", (attributes,))
        connection.commit()
        connection.close()
    old = ["is an old copy of the catalog, with values that a purge removed"]
    assert found(tmp_path, (tmp_path / "old.db").read_bytes()) == old
    assert found(tmp_path, gzip.compress((tmp_path / "old.db").read_bytes())) == old
    assert found(tmp_path, (tmp_path / "new.db").read_bytes()) == []


def test_a_log_without_its_database_may_hold_anything(tmp_path: Path) -> None:
    log = b"\x37\x7f\x06\x82" + b"\0" * 28
    assert found(tmp_path, log, "lost.db-wal") == [MAYBE]
    (tmp_path / "some.db").write_bytes(b"x")
    assert found(tmp_path, log, "some.db-wal") == []


def test_a_file_that_unpacks_to_too_much_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_contents, "_MOST", 1 << 16)
    with pytest.raises(OSError, match="unpacks to more bytes than ct reads of one file"):
        found(tmp_path, zipped(*[b'{"a": "' + b"b" * 10_000 + b'"}'] * 10))
