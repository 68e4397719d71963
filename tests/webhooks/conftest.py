"""Servers that tell receivers of what their jobs do."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ENGINES, empty_database
from tests.support.receiver import Receiver
from tests.support.webhooks import Start, starting


@pytest.fixture(params=ENGINES)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return empty_database(request.param, request, tmp_path)


@pytest.fixture
def start(database: str, tmp_path: Path) -> Iterator[Start]:
    """Starts a server on each engine in turn."""
    with starting(database, tmp_path) as start:
        yield start


@pytest.fixture
def own_start(tmp_path: Path) -> Iterator[Start]:
    """Starts a server on SQLite, for what has nothing to do with the database."""
    with starting(f"sqlite:///{tmp_path / 'headway.db'}", tmp_path) as start:
        yield start


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as running:
        yield running
