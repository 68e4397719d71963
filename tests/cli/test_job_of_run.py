"""Commands of a program that `headway run` has started: the job of the run is theirs too."""

import os

import pytest

from headway.cli.run import job_of_run
from headway.ids import uuid7
from tests.cli.run import Cli

COMMANDS = {
    "report": ("--count", "files=1"),
    "set": ("note=1",),
    "get": (),
    "finish": (),
}


@pytest.fixture
def job_id(monkeypatch: pytest.MonkeyPatch) -> str:
    """What `headway run` tells its program."""
    monkeypatch.setenv("HEADWAY_JOB", uuid7())
    monkeypatch.setenv("HEADWAY_PROGRESS_FILE", "/dev/null")
    return os.environ["HEADWAY_JOB"]


@pytest.mark.parametrize("offline", ["", "1"])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_waits_for_the_job_to_be_created(
    cli: Cli, job_id: str, command: str, offline: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADWAY_OFFLINE", offline)
    waited: list[float] = []

    def create(seconds: float) -> None:
        if not waited:
            monkeypatch.delenv("HEADWAY_JOB")
            assert cli("create", "--id", job_id).status == 0
        waited.append(seconds)

    monkeypatch.setattr(job_of_run, "sleep", create)
    result = cli(command, job_id, *COMMANDS[command])
    assert (result.status, len(waited)) == (0, 1), result.err


def test_a_command_waits_no_longer_than_that(cli: Cli, job_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_of_run, "CREATION_TIMEOUT", 0.0)
    result = cli("report", job_id, "--advance", "1")
    assert result.status == 3
    assert "no such job" in result.err


def test_a_command_does_not_wait_for_other_jobs(cli: Cli, job_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def sleep(_: float) -> None:
        raise AssertionError("it waits")

    monkeypatch.setattr(job_of_run, "sleep", sleep)
    assert cli("get", uuid7()).status == 3
