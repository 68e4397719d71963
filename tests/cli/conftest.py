"""The command line run against a real server."""

import json
import os
from collections.abc import Callable
from typing import Any

import pytest

from headway.cli import main
from tests.cli.run import Cli, Result
from tests.support.server import ServerProcess


@pytest.fixture
def environment(server: ServerProcess, session: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What points `headway`, here and in processes, at the server and a session of its own."""
    for name in [name for name in os.environ if name.startswith("HEADWAY_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HEADWAY_TARGET", server.address)
    monkeypatch.setenv("HEADWAY_SESSION", session)
    return dict(os.environ)


@pytest.fixture
def cli(environment: dict[str, str], capsys: pytest.CaptureFixture[str]) -> Cli:
    """Runs `headway` in this process."""

    def run(*words: str) -> Result:
        try:
            status = main(words)
        except SystemExit as stop:
            assert isinstance(stop.code, int)
            status = stop.code
        captured = capsys.readouterr()
        return Result(status, captured.out, captured.err)

    return run


@pytest.fixture
def new_job(cli: Cli) -> Callable[..., str]:
    """Creates a job with these options of `headway create`, and gives its id."""

    def create(*options: str) -> str:
        result = cli("create", *options)
        assert result.status == 0, result.err
        return result.out.strip()

    return create


@pytest.fixture
def job(cli: Cli) -> Callable[[], dict[str, Any]]:
    """The one job of the session, as it stands, in JSON; empty before there is one."""

    def get() -> dict[str, Any]:
        jobs: list[dict[str, Any]] = json.loads(cli("list", "--json").out).get("jobs", [])
        assert len(jobs) <= 1
        return jobs[0] if jobs else {}

    return get
