"""Connections to real servers, and to such as misbehave."""

from collections.abc import Iterator
from pathlib import Path

import pytest

import headway
from tests.client.fakes import FakeServer, Proxy
from tests.support.server import ServerProcess


@pytest.fixture(autouse=True)
def spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this test's workers write what they could not deliver."""
    folder = tmp_path / "spool"
    monkeypatch.setenv("HEADWAY_SPOOL", str(folder))
    return folder


@pytest.fixture
def hw(server: ServerProcess, session: str) -> Iterator[headway.Client]:
    """A connection to the shared server, with a session of its own."""
    with headway.connect(server.address, session=session) as connection:
        yield connection


@pytest.fixture
def proxy(server: ServerProcess) -> Iterator[Proxy]:
    """A breakable way to the shared server."""
    with Proxy(server.address) as running:
        yield running


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    """A server that does as it is told."""
    with FakeServer() as running:
        yield running
