"""What all tests share: real servers and real databases."""

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import loop_gaps, postgres
from tests.support.app import RunningApp
from tests.support.pgbouncer import find_binary
from tests.support.server import ServerProcess

os.environ.setdefault("GRPC_VERBOSITY", "NONE")

ENGINES = ("sqlite", "postgresql")


@pytest.fixture(scope="session", autouse=True)
def state_folder(tmp_path_factory: pytest.TempPathFactory) -> None:
    """No test leaves anything in the state folder of who runs it."""
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))


@pytest.fixture(autouse=True)
def event_loops() -> Iterator[None]:
    """No test may make a server's event loop stand still."""
    yield
    loop_gaps.check()


def _runs_all() -> bool:
    return bool(os.environ.get("CI") or os.environ.get("HEADWAY_TEST_ALL"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out the long tests, unless all are wanted or one file or test is named."""
    if _runs_all() or config.getoption("keyword") or any(".py" in argument for argument in config.args):
        return
    long = [item for item in items if item.get_closest_marker("long")]
    if long:
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if not item.get_closest_marker("long")]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not _runs_all() and not hasattr(terminalreporter.config, "workerinput"):
        terminalreporter.write_line("Long tests may have been left out: `make test-all` runs them too.")


def missing(what: str) -> None:
    """Skip for want of a program; under CI that is a failure."""
    message = f"{what} is not installed"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[postgres.Postgres]:
    """A real PostgreSQL, started for this run."""
    binaries = postgres.find_binaries()
    if binaries is None:
        missing("PostgreSQL (Debian: apt-get install postgresql)")
    assert binaries is not None
    with postgres.Postgres(binaries) as running:
        yield running


@pytest.fixture(scope="session")
def pgbouncer() -> str:
    """Where the program of PgBouncer is."""
    binary = find_binary()
    if binary is None:
        missing("PgBouncer (Debian: apt-get install pgbouncer)")
    assert binary is not None
    return binary


def empty_database(engine: str, request: pytest.FixtureRequest, folder: Path) -> str:
    """The URL of an empty database of this kind."""
    if engine == "sqlite":
        return f"sqlite:///{folder / 'headway.db'}"
    url: str = request.getfixturevalue("postgresql").database()
    return url


@pytest.fixture(scope="session", params=ENGINES)
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URL of the database that `app` works on, on each engine in turn."""
    return empty_database(request.param, request, tmp_path_factory.mktemp("database"))


@pytest.fixture(scope="session")
def app(database: str) -> Iterator[RunningApp]:
    """A server in this process on each engine in turn, with a clock that tests move."""
    with RunningApp(database) as running:
        yield running


@pytest.fixture
def session() -> str:
    """A session id that no other test uses."""
    return f"session-{secrets.token_hex(8)}"


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server process on SQLite, shared by tests that leave it running."""
    with ServerProcess(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[ServerProcess]:
    """A server process for a test that stops, kills or restarts it."""
    with ServerProcess(tmp_path) as running:
        yield running
