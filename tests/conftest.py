"""The outside world of tests, for real: PostgreSQL and Slurm, and where a test keeps its catalog."""

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.helpers.postgres import NoPostgres, Server, server
from tests.helpers.slurm import Slurm, for_tests
from tools.slurm.processes import FOREIGN

if TYPE_CHECKING:
    from dagster import DagsterInstance

    from tests.helpers.fake_slurm import FakeSlurm

ROOM = 4 << 30


def _in_memory(memory: Path = Path("/dev/shm")) -> None:
    """Where there is room, all temporary files of tests lie in memory until they end, unless TMPDIR says where.

    None has to outlive a power failure, and waiting for the disk is half of the time of a small test. This is before
    pytest chooses its folder, and processes inherit it. PostgreSQL runs as another user, who removes its own there.
    """
    if "TMPDIR" in os.environ or not os.access(memory, os.W_OK) or os.statvfs(memory).f_flag & os.ST_NOEXEC:
        return
    if shutil.disk_usage(memory).free >= ROOM:
        folder = tempfile.mkdtemp(prefix="ct-", dir=memory)
        begun = os.getpid()  # a fork of this process ends too
        atexit.register(lambda: shutil.rmtree(folder, ignore_errors=True) if os.getpid() == begun else None)
        os.chmod(folder, 0o1777)
        os.environ["TMPDIR"], tempfile.tempdir = folder, None


_in_memory()


def pytest_itemcollected(item: pytest.Item) -> None:
    """Tests of Slurm run in one worker, so that there is one cluster; and those that share what a module makes once."""
    if not isinstance(item, pytest.Function) or not item.config.pluginmanager.hasplugin("xdist"):
        return
    if "slurm" in item.fixturenames:
        item.add_marker(pytest.mark.xdist_group("slurm"))
    elif item.get_closest_marker("xdist_group") is None and (shared := _shared(item)):
        item.add_marker(pytest.mark.xdist_group(shared))


def _shared(item: pytest.Function) -> str | None:
    """A name for what the module's own fixtures make for this test; None where they make nothing."""
    found = item._fixtureinfo.name2fixturedefs
    names = sorted(name for name, made in found.items() if made[-1].scope == "module")
    values = getattr(item, "callspec", None)
    params = [str(values.indices[name]) for name in names if values is not None and name in values.indices]
    return "-".join([item.module.__name__, *params]) if names else None


@pytest.fixture(autouse=True, scope="session")
def _nobody_elses_list(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What tests make with `ct init` is not known to whoever runs them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CT_PROJECTS", str(tmp_path_factory.getbasetemp() / "projects.json"))
        yield


@pytest.fixture(autouse=True)
def _nobody_elses_project(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What the shell points to is not for tests to write into; and no test knows the projects of another."""
    monkeypatch.setenv("CT_PROJECTS", str(tmp_path.with_name(f"{tmp_path.name}.projects.json")))
    for name in ("CT_POSTGRES_URL", "CT_PROJECT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def instance() -> Iterator["DagsterInstance"]:
    """A Dagster of the test's own."""
    import dagster as dg

    with dg.instance_for_test() as made:
        yield made


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "FakeSlurm":
    """A Slurm that says what the test wants, found before any other."""
    from tests.helpers.fake_slurm import FakeSlurm

    built = FakeSlurm(tmp_path / "fake")
    monkeypatch.setenv("PATH", f"{built.programs}:{os.environ['PATH']}")
    return built


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


@pytest.fixture(scope="session")
def slurm() -> Iterator[Slurm]:
    """One cluster a test run, started when the first test asks for it. The environment does not lead to it."""
    yield from for_tests()


@pytest.fixture
def quiet_slurm(slurm: Slurm, monkeypatch: pytest.MonkeyPatch) -> Iterator[Slurm]:
    """The cluster for one test, which may break it: SLURM_CONF leads there, and afterwards all is as before."""
    for name in [name for name in os.environ if name.startswith(FOREIGN)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("SLURM_CONF", slurm.environment["SLURM_CONF"])
    try:
        yield slurm
    finally:
        slurm.calm()
