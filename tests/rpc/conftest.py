"""Callers for the tests of the RPCs."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from headway_server.domain.limits import Limits
from tests.conftest import ENGINES, empty_database
from tests.support.app import RunningApp
from tests.support.caller import Caller

TRANSPORTS = ("grpc", "http")

GRPC_ALONE = {"test_reflection.py", "test_operations.py", "test_errors.py"}
"""What the HTTP transport does not have, or what has no transport at all."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The HTTP transport is tested on SQLite alone: what is behind the transports is the same."""
    surplus = [item for item in items if _is_surplus(item)]
    items[:] = [item for item in items if item not in set(surplus)]
    config.hook.pytest_deselected(items=surplus)


def _is_surplus(item: pytest.Item) -> bool:
    if not isinstance(item, pytest.Function) or not hasattr(item, "callspec"):
        return False
    parameters = item.callspec.params
    engine = parameters.get("database", parameters.get("narrow"))
    return parameters.get("transport") == "http" and (engine == "postgresql" or item.path.name in GRPC_ALONE)


@pytest.fixture(scope="session", params=ENGINES)
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """One apart from the other tests': a SQLite file has one server."""
    return empty_database(request.param, request, tmp_path_factory.mktemp("rpc"))


@pytest.fixture(scope="session", params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> str:
    """By which transport the calls of a test come in: the same tests hold at both."""
    name: str = request.param
    return name


@pytest.fixture(scope="session")
def app(database: str, transport: str) -> Iterator[RunningApp]:
    """A server on each engine in turn, called through each transport, with a clock that tests move."""
    with RunningApp(database, transport=transport) as running:
        yield running


@pytest.fixture
def caller(app: RunningApp, session: str) -> Caller:
    """A caller with a session of its own, on each engine in turn."""
    # Commits at one moment are a microsecond apart: let the clock catch up with those of the test before.
    app.clock.forward(1)
    return Caller(app, session)


@pytest.fixture
def stranger(app: RunningApp, session: str) -> Caller:
    """A caller with another session."""
    return Caller(app, f"{session}-stranger")


@pytest.fixture
def admin(app: RunningApp) -> Caller:
    """A caller with the admin token, who names jobs by their id alone."""
    return Caller(app, "-", (("authorization", f"Bearer {app.app.admin_token}"),))


@pytest.fixture
def app_with(
    request: pytest.FixtureRequest, database: str, transport: str, tmp_path: Path
) -> Iterator[Callable[[Limits], RunningApp]]:
    """Starts a server with limits of its own, on each engine in turn."""
    with ExitStack() as running:

        def start(limits: Limits) -> RunningApp:
            own = f"sqlite:///{tmp_path / 'own.db'}"
            if not database.startswith("sqlite"):
                own = request.getfixturevalue("postgresql").database()
            return running.enter_context(RunningApp(own, limits=limits, transport=transport))

        yield start
