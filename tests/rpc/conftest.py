"""Callers for the tests of the RPCs."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from headway_server.limits import Limits
from tests.support.app import RunningApp
from tests.support.caller import Caller


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
def app_with(request: pytest.FixtureRequest, database: str, tmp_path: Path) -> Iterator[Callable[[Limits], RunningApp]]:
    """Starts a server with limits of its own, on each engine in turn."""
    with ExitStack() as running:

        def start(limits: Limits) -> RunningApp:
            own = f"sqlite:///{tmp_path / 'own.db'}"
            if not database.startswith("sqlite"):
                own = request.getfixturevalue("postgresql").database()
            return running.enter_context(RunningApp(own, limits=limits))

        yield start
