"""A server with an HTTP transport, and clients of it."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from headway_server.domain.limits import Limits
from headway_server.settings import Settings
from tests.support.app import RunningApp
from tests.support.caller import Caller
from tests.support.http import Client


@pytest.fixture(scope="session")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApp]:
    """A server in this process on SQLite, with a clock that tests move."""
    with RunningApp(f"sqlite:///{tmp_path_factory.mktemp('http') / 'headway.db'}") as running:
        yield running


@pytest.fixture
def own_app(tmp_path: Path) -> Iterator[Callable[..., RunningApp]]:
    """Starts a server with settings of its own."""
    with ExitStack() as running:

        def start(limits: Limits | None = None, **settings: object) -> RunningApp:
            changed = Settings(**settings)  # type: ignore[arg-type]  # the names and types are those of the test
            database = f"sqlite:///{tmp_path / 'own.db'}"
            return running.enter_context(RunningApp(database, limits=limits, settings=changed))

        yield start


@pytest.fixture
def client(app: RunningApp) -> Iterator[Client]:
    """A connection to the HTTP transport."""
    client = Client(app.app.http_address)
    yield client
    client.close()


@pytest.fixture
def caller(app: RunningApp, session: str) -> Caller:
    """A caller over gRPC, to compare with."""
    return Caller(app, session)
