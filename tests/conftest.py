"""Where tests keep their catalogs: a file each, or a database each on a real PostgreSQL server."""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.postgres import NoPostgres, Server, server


@pytest.fixture(autouse=True)
def _nobody_elses_project(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the shell points to is not for tests to write into."""
    for name in ("CT_POSTGRES_URL", "CT_PROJECT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """One server a test process, started when the first test asks for it."""
    with ExitStack() as stack:
        try:
            started = stack.enter_context(server())
        except NoPostgres as why:
            (pytest.fail if os.environ.get("CI") else pytest.skip)(f"PostgreSQL: {why}")
        yield started


@pytest.fixture
def postgres_url(postgres: Server) -> Iterator[str]:
    """The URL of a new, empty PostgreSQL database."""
    with postgres.fresh() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def catalog_url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A new catalog on each back end. Projects that the test opens keep theirs there."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'catalog.db'}"
    url: str = request.getfixturevalue("postgres_url")
    monkeypatch.setenv("CT_POSTGRES_URL", url)
    return url
