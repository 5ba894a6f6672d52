"""A catalog that cannot be reached, read or written: one message, with the way out and without a password."""

import os
import shutil
import socket
import subprocess
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.exc import OperationalError

from ctcore.catalog.connection import error_hint
from ctcore.catalog.engine import Catalog
from ctcore.catalog.event_log import check_chain
from ctcore.catalog.tables import event, setting
from ctcore.errors import CatalogError

SECRET = "s3cr3t"


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port of this machine on which nobody listens, and which nobody else can take."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


@contextmanager
def as_nobody() -> Iterator[None]:
    """Root may read and write everything; nobody may not."""
    if os.geteuid() != 0:
        yield
        return
    os.setegid(65534)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that everybody may read; pytest's own are for this user only."""
    made = Path(tempfile.mkdtemp(prefix="ct-test-"))
    made.chmod(0o755)
    yield made
    made.chmod(0o755)
    shutil.rmtree(made)


def sqlite(folder: Path) -> Catalog:
    return Catalog(f"sqlite:///{folder / 'catalog.db'}", "toy", folder / "toy.jsonl", "tester")


def refused(catalog: Catalog) -> str:
    with pytest.raises(CatalogError) as raised:
        catalog.open()
    return str(raised.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:{secret}@127.0.0.1:{port}/db",
        "postgres://me:{secret}@127.0.0.1:{port}/db",
        "postgresql+psycopg://me:{secret}@127.0.0.1:{port}/db",
        "postgresql://127.0.0.1:{port}/db?user=me&password={secret}",
        "postgresql://me:{secret}@127.0.0.1:{port}/db?sslpassword={secret}",
        "postgresql://me:{secret}@127.0.0.1:{port}/db?no_such_option={secret}",
        "postgresql://me:x@127.0.0.1:{secret}/db",
        "mysql://me:{secret}@127.0.0.1:{port}/db",
        "postgresql://me:a@{secret}@no such host/db",
        "postgresql://me:a/{secret}@127.0.0.1:{port}/db",
        "postgresql:me:{secret}",
        "{secret}",
        "",
    ],
)
def test_no_error_tells_a_password(url: str, closed_port: int, tmp_path: Path) -> None:
    given = url.format(secret=SECRET, port=closed_port)
    with pytest.raises(CatalogError) as raised:
        Catalog(given, "toy", tmp_path / "toy.jsonl").open()
    said = "".join(traceback.format_exception(raised.value))
    assert SECRET not in said
    assert "URL" in str(raised.value)


@pytest.mark.parametrize("form", ["//ct:{secret}@", "//ct@"])
def test_the_place_of_a_catalog_tells_no_password(postgres_url: str, tmp_path: Path, form: str) -> None:
    url = postgres_url.replace("//ct@", form.format(secret=SECRET))
    if SECRET not in url:
        url += f"?password={SECRET}"
    catalog = Catalog(url, "toy", tmp_path / "toy.jsonl").open()
    assert SECRET not in catalog.place
    assert "127.0.0.1" in catalog.place and catalog.place.endswith("schema ct_toy")
    with pytest.raises(CatalogError) as raised, catalog.write() as writer:
        writer.insert(setting, [{"name": None, "value": SECRET[:3]}])
    assert SECRET not in "".join(traceback.format_exception(raised.value))


def test_a_server_that_is_not_there(closed_port: int, tmp_path: Path) -> None:
    url = f"postgresql://me@127.0.0.1:{closed_port}/db"
    said = refused(Catalog(url, "toy", tmp_path / "toy.jsonl"))
    assert "Connection refused" in said
    assert said.endswith("is the database server running, and the URL right?")
    assert "\n" not in said


def test_a_database_or_a_user_that_is_not_there(postgres_url: str, tmp_path: Path) -> None:
    for wrong in (postgres_url + "_not", postgres_url.replace("//ct@", "//stranger@")):
        said = refused(Catalog(wrong, "toy", tmp_path / "toy.jsonl"))
        assert "does not exist" in said and said.endswith("the URL right?")


def test_a_server_that_goes_away_and_comes_back(postgres_url: str, tmp_path: Path) -> None:
    from sqlalchemy import text

    catalog = Catalog(postgres_url, "toy", tmp_path / "toy.jsonl").open()
    with pytest.raises(CatalogError, match="URL right"), catalog.write() as writer:
        writer.event("lost", "x", 1)
        writer.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
    with catalog.write() as writer:
        writer.event("kept", "x", 2)
    assert [row["kind"] for row in catalog.journal.read()] == ["kept"]


@pytest.mark.parametrize("content", [b"not a database, but some text\n" * 100, b"\0" * 8192])
def test_a_file_that_is_something_else_stays_as_it_is(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "catalog.db").write_bytes(content)
    said = refused(sqlite(tmp_path))
    assert "catalog.db: file is not a database" in said and "`ct recover`" in said
    assert (tmp_path / "catalog.db").read_bytes() == content


def test_a_damaged_catalog_is_said_to_be_damaged(tmp_path: Path) -> None:
    catalog = sqlite(tmp_path).open()
    with catalog.write() as writer:
        for number in range(200):
            writer.event("many", "x", "x" * 100 + str(number))
    catalog.engine.dispose()
    whole = (tmp_path / "catalog.db").read_bytes()
    (tmp_path / "catalog.db").write_bytes(whole[:4096] + b"\xaa" * (len(whole) - 4096))
    said = refused(sqlite(tmp_path))
    assert "malformed" in said and "`ct recover`" in said


def test_a_folder_that_is_missing(tmp_path: Path) -> None:
    said = refused(sqlite(tmp_path / "nowhere"))
    assert "nowhere/catalog.db: unable to open database file" in said and "`ct init`" in said


def test_a_read_only_catalog_is_read_and_not_written(folder: Path) -> None:
    made = sqlite(folder).open()
    with made.write() as writer:
        writer.event("made", "x", 1)
    for path in folder.iterdir():
        path.chmod(0o444)
    with as_nobody():
        catalog = sqlite(folder).open()
        with catalog.read() as connection:
            assert len(connection.execute(select(event)).all()) == 1
        with pytest.raises(CatalogError, match=r"readonly.*allow writing there"), catalog.write() as writer:
            writer.event("more", "x", 1)
        catalog.engine.dispose()
    made.engine.dispose()


def test_a_new_catalog_in_a_folder_that_is_read_only(folder: Path) -> None:
    folder.chmod(0o555)
    with as_nobody():
        said = refused(sqlite(folder))
    assert "unable to open" in said and "cannot be written" in said


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "ct-test", str(place)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a small disk, and not in every container")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_loses_nothing_that_was_committed(small_disk: Path) -> None:
    catalog = sqlite(small_disk).open()
    with pytest.raises(CatalogError, match=r"(disk is full|No space left|disk I/O error)"):
        for number in range(1000):
            with catalog.write() as writer:
                writer.event("fill", str(number), "x" * 3000)
    catalog.engine.dispose()
    subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk)], check=True)
    later = sqlite(small_disk).open()
    with later.write() as writer:
        writer.event("after", "x", 1)
    with later.read() as connection:
        rows = [dict(row) for row in connection.execute(select(event).order_by(event.c.seq)).mappings()]
    assert len(rows) > 10
    assert [row["subject"] for row in rows[:-1]] == [str(number) for number in range(len(rows) - 1)]
    assert check_chain(iter(rows)) == []
    assert list(later.journal.read()) == rows
    later.engine.dispose()


def test_a_full_disk_of_the_server_is_said_to_be_the_servers() -> None:
    said = "could not extend file base/1/2: No space left on device\nHINT: Check free disk space."
    assert error_hint(OperationalError("INSERT", None, Exception(said)), free=0) == (
        "could not extend file base/1/2: No space left on device; make room on the server's disk; what was committed "
        "before is safe"
    )
